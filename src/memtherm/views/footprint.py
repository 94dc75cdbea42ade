"""Which addresses were watched, and how hot each stretch of them was: what an address axis is chosen from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memtherm.core.ranges import Addresses, Counts, overlap_bytes, sizes
from memtherm.core.rows import SnapshotRows
from memtherm.views.batches import Runs, per_row

_MERGE_AT = 50_000


@dataclass(frozen=True)
class Stretches:
    """Watched addresses without a gap, by target and address, disjoint.

    Attributes:
        heat: rate × bytes × seconds in each.
        seen: bytes × seconds that were watched in each.
    """

    target: NDArray[np.int64]
    start: Addresses
    end: Addresses
    heat: NDArray[np.float64]
    seen: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.target)

    @property
    def size_bytes(self) -> Counts:
        return sizes(self.start, self.end)

    def take(self, which: NDArray[np.generic]) -> Stretches:
        return Stretches(self.target[which], self.start[which], self.end[which], self.heat[which], self.seen[which])

    def joined(self, gap_bytes: float) -> Stretches:
        """Neighbours of one target with no more than `gap_bytes` between them made one."""
        if len(self) == 0:
            return self
        opens = np.ones(len(self), np.bool_)
        distance = self.start[1:].astype(np.float64) - self.end[:-1].astype(np.float64)
        opens[1:] = (self.target[1:] != self.target[:-1]) | (distance > gap_bytes)
        first = np.flatnonzero(opens)
        last = np.append(first[1:], len(self)) - 1
        return Stretches(
            self.target[first],
            self.start[first],
            self.end[last],
            np.add.reduceat(self.heat, first),
            np.add.reduceat(self.seen, first),
        )


class Footprint:
    """Gathers stretches from batches; what is in memory is bounded by what was watched at different addresses."""

    def __init__(self) -> None:
        self._waiting: list[Stretches] = []
        self._nr_waiting = 0

    def add(self, rows: SnapshotRows, runs: Runs) -> None:
        """The regions of a batch."""
        regions = rows.regions
        if len(runs) == 0:
            return
        bytes_seconds = (regions.end - regions.start).astype(np.float64) * per_row(rows, rows.window_s)
        self._waiting.append(
            Stretches(
                regions.target[runs.first_row].astype(np.int64),
                regions.start[runs.first_row],
                regions.end[runs.last_row],
                np.add.reduceat(bytes_seconds * regions.access_rate, runs.first_row),
                np.add.reduceat(bytes_seconds, runs.first_row),
            )
        )
        self._nr_waiting += len(runs)
        if self._nr_waiting > _MERGE_AT:
            merged = self.stretches()
            self._waiting, self._nr_waiting = [merged], len(merged)

    def stretches(self) -> Stretches:
        """All that was watched so far."""
        if not self._waiting:
            empty = np.zeros(0)
            return Stretches(empty.astype(np.int64), empty.astype(np.uint64), empty.astype(np.uint64), empty, empty)
        every = Stretches(
            *(np.concatenate([getattr(one, name) for one in self._waiting]) for name in Stretches.__annotations__)
        )
        merged = [_merge(every.take(every.target == target)) for target in np.unique(every.target).tolist()]
        return Stretches(
            *(np.concatenate([getattr(one, name) for one in merged]) for name in Stretches.__annotations__)
        )


def _merge(stretches: Stretches) -> Stretches:
    """Stretches of one target that touch or overlap made one."""
    ordered = stretches.take(np.argsort(stretches.start, kind="stable"))
    end = np.maximum.accumulate(ordered.end)
    opens = np.concatenate(([True], ordered.start[1:] > end[:-1]))
    first = np.flatnonzero(opens)
    last = np.append(first[1:], len(ordered)) - 1
    return Stretches(
        ordered.target[first],
        ordered.start[first],
        end[last],
        np.add.reduceat(ordered.heat, first),
        np.add.reduceat(ordered.seen, first),
    )


def bytes_outside(stretches: Stretches, other: Stretches) -> Counts:
    """Of each stretch the bytes that no stretch of the other covers."""
    outside = stretches.size_bytes
    for target in np.unique(stretches.target).tolist():
        mine, theirs = stretches.target == target, other.target == target
        outside[mine] -= overlap_bytes(
            stretches.start[mine], stretches.end[mine], other.start[theirs], other.end[theirs]
        )
    return outside
