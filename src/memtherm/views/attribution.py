"""Regions laid over the mappings that were there at the time: how many bytes of which mapping had which rate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memtherm.core.history import History, MappingTable
from memtherm.core.ranges import overlap_bytes, sizes
from memtherm.core.rows import SnapshotRows
from memtherm.core.selection import EVERYTHING, Selection
from memtherm.views.axis import Axis
from memtherm.views.batches import batches, idle_s, per_row, runs_of
from memtherm.views.footprint import Stretches
from memtherm.views.names import mapping_name
from memtherm.views.pixels import row_sums

Floats = NDArray[np.float64]

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Attributed:
    """What was seen of the mappings of one path in one target; bytes are means over the time the target was watched.

    Attributes:
        path: as in /proc/PID/maps; None for memory outside of all known mappings.
        size_bytes: of the mappings.
        class_bytes: watched bytes by class of access rate.
        access_rate, idle_s: means over the watched bytes.
    """

    target: int
    path: str | None
    size_bytes: float
    class_bytes: Floats
    access_rate: float
    idle_s: float

    @property
    def name(self) -> str:
        return UNKNOWN if self.path is None else mapping_name(self.path)

    @property
    def watched_bytes(self) -> float:
        return float(self.class_bytes.sum())


def attribute(
    history: History, selection: Selection = EVERYTHING, *, class_rates: Floats
) -> tuple[list[Attributed], float]:
    """Go through a run and add up what each mapping had.

    Args:
        class_rates: lowest rate of each class but the first, ascending; the first class is below.

    Returns:
        One of each target and path that was watched, and the seconds of all windows together.

    Raises:
        InvalidInput: nothing is selected.
    """
    tally = _Tally(len(history.targets), class_rates)
    tables = TablesInTime(history.mappings(selection), selection)
    for batch in batches(history, selection):
        for part in tables.split(batch):
            tally.add(part, *tables.axis())
    return tally.found(), tally.window_s


class _Tally:
    """Size, rate, idle seconds and bytes by class, each × bytes × seconds, of each target and path."""

    def __init__(self, nr_targets: int, class_rates: Floats) -> None:
        self._class_rates = class_rates
        self._watched_s = np.zeros(nr_targets)
        self._sums: dict[tuple[int, str | None], Floats] = {}
        self._axis: Axis | None = None
        self._paths: list[str] = []
        self._of_axis = np.zeros((0, 0))
        self.window_s = 0.0

    def add(self, rows: SnapshotRows, axis: Axis, paths: list[str]) -> None:
        if axis is not self._axis:
            self._flush()
            self._axis, self._paths = axis, paths
            self._of_axis = np.zeros((len(self._class_rates) + 4, axis.nr_rows))
        window_s = window_of_targets(rows, len(self._watched_s))
        self._watched_s += window_s
        self.window_s += float(rows.window_s.sum())
        regions = rows.regions
        seconds = per_row(rows, rows.window_s)
        kind = np.searchsorted(self._class_rates, regions.access_rate * (1 + 1e-9), side="right").astype(np.int64)
        values = seconds * regions.access_rate, seconds * idle_s(rows)
        self._of_axis[0] += axis.shown.size_bytes * window_s[axis.shown.target]
        self._of_axis[1:] += self._known(axis, axis.place(rows, runs_of(rows)), kind, seconds, values)
        self._add_unknown(axis, rows, kind, seconds, values)

    def _known(
        self,
        axis: Axis,
        place: tuple[Floats, Floats],
        kind: NDArray[np.int64],
        seconds: Floats,
        values: tuple[Floats, Floats],
    ) -> Floats:
        some = np.flatnonzero(place[1] > place[0])
        begin, end = place[0][some], place[1][some]
        first_line = np.zeros(len(some), np.int64)
        sums = [row_sums(begin, end, first_line, value[some], (1, axis.nr_rows)) for value in values]
        sums.append(row_sums(begin, end, kind[some], seconds[some], (len(self._class_rates) + 1, axis.nr_rows)))
        columns = np.vstack(sums)
        # What is left of sums in which equal numbers were added and taken away is nothing.
        columns[columns < 1e-12 * columns.max(initial=0.0)] = 0.0
        return columns * axis.shown.size_bytes

    def _add_unknown(
        self,
        axis: Axis,
        rows: SnapshotRows,
        kind: NDArray[np.int64],
        seconds: Floats,
        values: tuple[Floats, Floats],
    ) -> None:
        regions = rows.regions
        for target in np.unique(regions.target).tolist():
            mine = np.flatnonzero(regions.target == target)
            known = axis.shown.target == target
            start, end = regions.start[mine], regions.end[mine]
            outside = sizes(start, end) - overlap_bytes(start, end, axis.shown.start[known], axis.shown.end[known])
            weight = outside * seconds[mine]
            by_class = np.bincount(kind[mine], weights=weight, minlength=len(self._class_rates) + 1)
            means = [weight.sum(), *((outside * value[mine]).sum() for value in values)]
            self._merge((int(target), None), np.concatenate((means, by_class)))

    def _flush(self) -> None:
        if self._axis is not None:
            for index, target in enumerate(self._axis.shown.target.tolist()):
                self._merge((target, self._paths[index]), self._of_axis[:, index])

    def _merge(self, key: tuple[int, str | None], column: Floats) -> None:
        known = self._sums.get(key)
        self._sums[key] = column.copy() if known is None else known + column

    def found(self) -> list[Attributed]:
        """Everything that was watched, and mappings of watched targets; means."""
        self._flush()
        self._axis = None
        found = []
        for (target, path), column in self._sums.items():
            size, rate, idle, *classes = column.tolist()
            seconds, seen = max(float(self._watched_s[target]), 1e-9), sum(classes)
            if seen > 0 or (path is not None and size > 0):
                mean = max(seen, 1e-9)
                found.append(
                    Attributed(target, path, size / seconds, np.array(classes) / seconds, rate / mean, idle / mean)
                )
        return found


def window_of_targets(rows: SnapshotRows, nr_targets: int) -> Floats:
    """For each target seconds of the windows in which it has regions."""
    snapshot = np.repeat(np.arange(len(rows)), np.diff(rows.first_row))
    here = np.unique(snapshot * nr_targets + rows.regions.target)
    seconds = np.zeros(nr_targets)
    np.add.at(seconds, here % nr_targets, rows.window_s[here // nr_targets])
    return seconds


class TablesInTime:
    """The mapping tables that are true at a time; goes forward with the batches and forgets what is over."""

    def __init__(self, tables: Iterator[MappingTable], selection: Selection) -> None:
        self._tables = tables
        self._selection = selection
        self._next = next(tables, None)
        self._now: dict[int, MappingTable] = {}
        self._axis: tuple[Axis, list[str]] | None = None
        self.changes = 0

    def split(self, batch: SnapshotRows) -> Iterator[SnapshotRows]:
        """Parts of the batch within which no table changes; `axis` is right for the part that was given last."""
        first = 0
        while first < len(batch):
            self._advance(float(batch.time_s[first]), {int(one) for one in np.unique(batch.regions.target)})
            end = len(batch)
            if self._next is not None:
                end = max(first + 1, int(np.searchsorted(batch.time_s, self._next.time_s, side="left")))
            yield batch if (first, end) == (0, len(batch)) else batch.take_snapshots(first, end)
            first = end

    def _advance(self, time_s: float, targets: set[int]) -> None:
        """Take tables that are true by now; of a target without one the first, though it is later."""
        while self._next is not None and (self._next.time_s <= time_s or self._next.target in targets - set(self._now)):
            self._now[self._next.target] = self._next
            self._axis = None
            self.changes += 1
            self._next = next(self._tables, None)

    def now(self) -> list[MappingTable]:
        """The tables for the part that was given last, by target; `changes` counts how often they were others."""
        return [self._now[target] for target in sorted(self._now)]

    def axis(self) -> tuple[Axis, list[str]]:
        """Each mapping as a row of its own, and their paths."""
        if self._axis is None:
            self._axis = _axis_of(self.now(), self._selection)
        return self._axis


def _axis_of(tables: list[MappingTable], selection: Selection) -> tuple[Axis, list[str]]:
    """Mappings of all tables, cut to the selected addresses."""
    target = [np.full(len(table), table.target, np.int64) for table in tables]
    start = [np.maximum(table.start, np.uint64(selection.start or 0)) for table in tables]
    end = [table.end if selection.end is None else np.minimum(table.end, np.uint64(selection.end)) for table in tables]
    none = np.zeros(0, np.uint64)
    starts, ends = np.concatenate([*start, none]), np.concatenate([*end, none])
    targets = np.concatenate([*target, np.zeros(0, np.int64)])
    kept = np.flatnonzero(ends > starts)
    paths = [path for table in tables for path in table.path]
    empty = np.zeros(len(kept))
    shown = Stretches(targets[kept], starts[kept], ends[kept], empty, empty)
    return Axis(shown, np.arange(len(kept) + 1), len(kept), 0), [paths[index] for index in kept.tolist()]
