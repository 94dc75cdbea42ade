"""A run as damo sees it: for each target its own snapshots."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from memtherm.core.history import History
from memtherm.core.rows import SnapshotRows
from memtherm.core.selection import Selection
from memtherm.core.snapshot import Regions

LATE = 0.1  # a window that differs less from its intervals is late, not tuned: damo draws the same line


@dataclass(frozen=True)
class Piece:
    """The regions of one target in one window.

    Attributes:
        aggregation_s: by its intervals; where the window was far longer or shorter its real length.
    """

    target: int
    start_ns: int
    end_ns: int
    samples: int
    aggregation_s: float
    regions: Regions


def pieces_of(history: History, selection: Selection) -> Iterator[Piece]:
    """The selected regions; of a window each target in turn.  A target that has none in a window is not there."""
    for rows in history.rows(selection):
        target = rows.regions.target
        borders = np.union1d(np.flatnonzero(np.diff(target)) + 1, rows.first_row)
        snapshot = np.searchsorted(rows.first_row, borders[:-1], side="right") - 1
        for index, first, end in zip(snapshot.tolist(), borders[:-1].tolist(), borders[1:].tolist(), strict=True):
            yield _piece(rows, index, first, end)


def _piece(rows: SnapshotRows, index: int, first: int, end: int) -> Piece:
    window_s, samples = float(rows.window_s[index]), max(1, int(rows.samples[index]))
    aggregation_s = samples * float(rows.sampling_interval_s[index])
    if not abs(aggregation_s - window_s) <= LATE * window_s:
        aggregation_s = window_s
    end_ns = round(float(rows.time_s[index]) * 1e9)
    regions = rows.regions.take(slice(first, end))
    start_ns = end_ns - round(window_s * 1e9)
    return Piece(int(regions.target[0]), start_ns, end_ns, samples, aggregation_s, regions)
