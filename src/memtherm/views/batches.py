"""The rows of a run in pieces that are large enough for numpy and small enough for the cache."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np

from memtherm.core.history import History
from memtherm.core.ranges import Counts, Flags
from memtherm.core.rows import SnapshotRows
from memtherm.core.selection import EVERYTHING, Selection
from memtherm.core.snapshot import Regions
from memtherm.errors import InvalidInput
from memtherm.units import format_time

# Smaller pieces are joined: below this the calls of numpy cost more than their work.
_ENOUGH_ROWS = 16384
_MAX_NAMES = 5


@dataclass(frozen=True)
class Runs:
    """Regions of one snapshot and target that touch each other, joined.

    Attributes:
        first_row, last_row: its regions.
        opens: for each region, whether a run begins with it.
    """

    first_row: Counts
    last_row: Counts
    opens: Flags

    def __len__(self) -> int:
        return len(self.first_row)


def batches(history: History, selection: Selection = EVERYTHING) -> Iterator[SnapshotRows]:
    """What is selected, in the order of time, each piece with one snapshot or more.

    Raises:
        InvalidInput: nothing is selected; it says what the run has.
    """
    nr_regions = 0
    waiting: list[SnapshotRows] = []
    for rows in history.rows(selection):
        nr_regions += len(rows.regions)
        waiting.append(rows)
        if sum(len(one.regions) for one in waiting) >= _ENOUGH_ROWS:
            yield join_rows(waiting)
            waiting = []
    if nr_regions == 0:
        raise nothing_selected(history, selection)
    if waiting:
        yield join_rows(waiting)


def join_rows(pieces: list[SnapshotRows]) -> SnapshotRows:
    """Pieces that follow one another as one; at least one."""
    if len(pieces) == 1:
        return pieces[0]
    before = np.cumsum([0] + [len(one.regions) for one in pieces])
    first_rows = [one.first_row[:-1] + shift for one, shift in zip(pieces, before.tolist(), strict=False)]
    columns = [np.concatenate([getattr(one.regions, field.name) for one in pieces]) for field in fields(Regions)]
    return SnapshotRows(
        np.concatenate([one.time_s for one in pieces]),
        np.concatenate([one.window_s for one in pieces]),
        np.concatenate([one.samples for one in pieces]),
        np.concatenate([one.sampling_interval_s for one in pieces]),
        np.concatenate([*first_rows, before[-1:]]).astype(np.int64),
        Regions(*columns),
    )


def runs_of(rows: SnapshotRows) -> Runs:
    """Where regions touch the one before them, and where not."""
    regions = rows.regions
    opens = np.ones(len(regions), np.bool_)
    opens[1:] = (regions.start[1:] != regions.end[:-1]) | (regions.target[1:] != regions.target[:-1])
    opens[rows.first_row[:-1][np.diff(rows.first_row) > 0]] = True
    first = np.flatnonzero(opens)
    return Runs(first, np.append(first[1:], len(regions))[: len(first)] - 1, opens)


def per_row(
    rows: SnapshotRows, values: np.ndarray[tuple[int], np.dtype[np.float64]]
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """A value of each snapshot for each of its regions."""
    return np.repeat(values, np.diff(rows.first_row))


def idle_s(rows: SnapshotRows) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """For each region seconds since its last access: its age and the window; 0 where the window found an access."""
    return np.where(rows.regions.access_rate > 0, 0.0, rows.regions.age_s + per_row(rows, rows.window_s))


def nothing_selected(history: History, selection: Selection) -> InvalidInput:
    """What to raise where nothing is selected: which filters there were, and what the run has."""
    begin_s, end_s = history.time_span_s
    if end_s == begin_s:
        return InvalidInput("there is no snapshot in it", hint="record for longer than one aggregation interval")
    targets = [f"{target.name} (pid {target.pid})" for target in history.targets]
    more = [f"and {len(targets) - _MAX_NAMES} more"] if len(targets) > _MAX_NAMES else []
    what = "no region is selected" if selection != EVERYTHING else "no snapshot has any region"
    return InvalidInput(
        what, hint=f"there are {format_time(end_s - begin_s)} of {', '.join([*targets[:_MAX_NAMES], *more])}"
    )
