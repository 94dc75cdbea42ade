"""The regions of several snapshots as columns: what reports compute with, and how records are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from memtherm.core.ranges import Counts, Flags
from memtherm.core.snapshot import Regions, Snapshot


@dataclass(frozen=True)
class SnapshotRows:
    """Snapshots one after the other; n of them, with m regions in all.

    Attributes:
        time_s: end of each window, seconds since the epoch, ascending (float64, n).
        window_s: real length of each window (float64, n).
        samples: looks behind each access rate of the snapshot (int64, n).
        sampling_interval_s: time between two looks (float64, n).
        first_row: where the regions of each snapshot begin, and m at the end (int64, n + 1).
        regions: of each snapshot sorted by target and address (m rows).
    """

    time_s: NDArray[np.float64]
    window_s: NDArray[np.float64]
    samples: Counts
    sampling_interval_s: NDArray[np.float64]
    first_row: Counts
    regions: Regions

    def __len__(self) -> int:
        """The number of snapshots."""
        return len(self.time_s)

    @property
    def snapshot_of_row(self) -> Counts:
        """For each region the index of its snapshot (int64, m)."""
        return np.repeat(np.arange(len(self)), np.diff(self.first_row))

    def take_rows(self, which: Flags) -> SnapshotRows:
        """Only these regions; every snapshot stays, even without a region."""
        kept = np.concatenate(([0], np.cumsum(which)))
        return replace(self, first_row=kept[self.first_row], regions=self.regions.take(which))

    def take_snapshots(self, first: int, end: int) -> SnapshotRows:
        """The snapshots from `first` up to `end`."""
        rows = slice(int(self.first_row[first]), int(self.first_row[end]))
        return SnapshotRows(
            self.time_s[first:end],
            self.window_s[first:end],
            self.samples[first:end],
            self.sampling_interval_s[first:end],
            self.first_row[first : end + 1] - self.first_row[first],
            self.regions.take(rows),
        )


def rows_of(snapshots: Sequence[Snapshot]) -> SnapshotRows:
    """Some snapshots, at least one, as columns."""
    conditions = [one.conditions for one in snapshots]
    joined = [np.concatenate([getattr(one.regions, field.name) for one in snapshots]) for field in fields(Regions)]
    return SnapshotRows(
        np.array([one.time_s for one in snapshots]),
        np.array([one.window_s for one in conditions]),
        np.array([one.samples for one in conditions], np.int64),
        np.array([one.sampling_interval_s for one in conditions]),
        np.concatenate(([0], np.cumsum([len(one.regions) for one in snapshots]))).astype(np.int64),
        Regions(*joined),
    )
