"""How hot each part of the mappings was, by its place in the mapping: what two runs can be compared by.

Addresses differ from run to run, and places do not: the offset in a file, the distance from the begin of the heap or
from the end of the stack.  Anonymous mappings have a place where both runs saw the same process: their address.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memtherm.core.history import History, MappingTable
from memtherm.core.ranges import Addresses
from memtherm.core.rows import SnapshotRows
from memtherm.core.selection import EVERYTHING, Selection
from memtherm.core.snapshot import TargetInfo
from memtherm.units import PAGE_SIZE
from memtherm.views.attribution import TablesInTime, window_of_targets
from memtherm.views.batches import batches, per_row
from memtherm.views.names import mapping_name
from memtherm.views.pixels import row_sums

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

# Name of a mapping; and the process of an anonymous one, 0 of others.
Key = tuple[str, int]

# All mappings together have about so many; none is smaller than a page.
_CELLS = 1 << 15
_STACK = "[stack]"
# Places in a stack are counted from its end down.
_END_OF_STACK = 1 << 48


@dataclass(frozen=True)
class Grid:
    """Cells of places, the same for two runs.

    Attributes:
        first_cell: of each mapping that both runs have; its cells follow one another.
        nr_cells: of each mapping.
        base: place where its first cell begins, bytes.
        cell_bytes: of each cell.
        total_cells: of all of them.
        processes: pids that are the same process in both.
    """

    first_cell: dict[Key, int]
    nr_cells: dict[Key, int]
    base: dict[Key, int]
    cell_bytes: int
    total_cells: int
    processes: frozenset[int]

    def cells(self, key: Key) -> slice:
        return slice(self.first_cell[key], self.first_cell[key] + self.nr_cells[key])

    def key_of(self, path: str, target: TargetInfo) -> Key | None:
        """Of a mapping that has places in both runs; None of others."""
        key = _key(path, target.pid, self.processes)
        return key if key in self.first_cell else None


@dataclass(frozen=True)
class Profile:
    """Means over time, all targets together.

    Attributes:
        size_bytes: watched in each cell.
        access_rate: of them (0..1).
    """

    size_bytes: Floats
    access_rate: Floats


def common_grid(runs: tuple[History, History], selections: tuple[Selection, Selection]) -> Grid:
    """Cells for the mappings that both runs have."""
    first, second = ({(one.pid, one.start_time_s) for one in run.targets if one.start_time_s} for run in runs)
    processes = frozenset(pid for pid, _ in first & second)
    spans = [_spans(run, selection, processes) for run, selection in zip(runs, selections, strict=True)]
    shared = {
        key: (min(low, spans[1][key][0]), max(high, spans[1][key][1]))
        for key, (low, high) in spans[0].items()
        if key in spans[1]
    }
    total_bytes = sum(high - low for low, high in shared.values())
    pages = -(-total_bytes // (_CELLS * PAGE_SIZE))
    cell = max(1, pages) * PAGE_SIZE
    nr_cells = {key: -(-(high - low) // cell) for key, (low, high) in shared.items()}
    first_cell, total = {}, 0
    for key, count in nr_cells.items():
        first_cell[key], total = total, total + count
    base = {key: low for key, (low, _) in shared.items()}
    return Grid(first_cell, nr_cells, base, cell, total, processes)


def profile(history: History, selection: Selection = EVERYTHING, *, grid: Grid) -> Profile:
    """What a run saw in each cell.

    Raises:
        InvalidInput: nothing is selected.
    """
    tables = TablesInTime(history.mappings(selection), selection)
    watched_s = np.zeros(len(history.targets))
    sums: dict[int, Floats] = {}
    pieces: dict[int, _Pieces] = {}
    changes = -1
    for batch in batches(history, selection):
        for part in tables.split(batch):
            if tables.changes != changes:
                changes = tables.changes
                pieces = {
                    table.target: _pieces(table, history.targets[table.target], grid, selection)
                    for table in tables.now()
                }
            watched_s += window_of_targets(part, len(watched_s))
            for target, of_target in pieces.items():
                if len(of_target.cell):
                    known = sums.setdefault(target, np.zeros((2, grid.total_cells)))
                    for line, values in zip(known, of_target.sums(part, target), strict=True):
                        np.add.at(line, of_target.cell, values)
    seen, heat = np.zeros((2, grid.total_cells))
    for target, (of_target_seen, of_target_heat) in sums.items():
        seconds = max(float(watched_s[target]), 1e-9)
        seen += of_target_seen / seconds
        heat += of_target_heat / seconds
    return Profile(seen, np.divide(heat, seen, out=np.zeros_like(heat), where=seen > 0))


@dataclass(frozen=True)
class _Pieces:
    """Mappings of a target cut at the borders of cells, by address."""

    start: Addresses
    end: Addresses
    cell: Indices

    def sums(self, rows: SnapshotRows, target: int) -> tuple[Floats, Floats]:
        """Of each piece bytes × seconds, and rate × bytes × seconds."""
        regions = rows.regions
        mine = np.flatnonzero(regions.target == target)
        edges = np.column_stack((self.start, self.end)).ravel().astype(np.float64)
        count = len(self.cell)
        row = np.column_stack((np.arange(count), np.arange(1, count + 1))).ravel().astype(np.float64)
        begin = np.interp(regions.start[mine].astype(np.float64), edges, row)
        end = np.interp(regions.end[mine].astype(np.float64), edges, row)
        seconds = per_row(rows, rows.window_s)[mine]
        line = np.zeros(len(mine), np.int64)
        size = (self.end - self.start).astype(np.float64)
        seen, heat = (
            row_sums(begin, end, line, weight, (1, count))[0] * size
            for weight in (seconds, seconds * regions.access_rate[mine])
        )
        # What is left of sums in which equal numbers were added and taken away is nothing.
        nothing = seen < 1e-9 * seen.max(initial=0.0)
        seen[nothing] = heat[nothing] = 0.0
        return seen, heat


def _pieces(table: MappingTable, target: TargetInfo, grid: Grid, selection: Selection) -> _Pieces:
    keys = [grid.key_of(path, target) for path in table.path]
    here = np.array([index for index, key in enumerate(keys) if key is not None], np.int64)
    known = [key for key in keys if key is not None]
    place = _places(table)[here]
    base = np.array([grid.base[key] for key in known], np.int64)
    cell_bytes = grid.cell_bytes
    first = np.array([grid.first_cell[key] for key in known], np.int64)
    start, end = (edge[here].astype(np.int64) for edge in (table.start, table.end))
    low = (place - base) // cell_bytes
    high = -((base - place - (end - start)) // cell_bytes)
    count = high - low
    owner = np.repeat(np.arange(len(here)), count)
    cell = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count) + low[owner]
    shift = start[owner] - place[owner] + base[owner]
    piece_start = np.maximum(start[owner], shift + cell * cell_bytes)
    piece_end = np.minimum(end[owner], shift + (cell + 1) * cell_bytes)
    if selection.start is not None:
        piece_start = np.maximum(piece_start, min(selection.start, np.iinfo(np.int64).max))
    if selection.end is not None:
        piece_end = np.minimum(piece_end, min(selection.end, np.iinfo(np.int64).max))
    kept = np.flatnonzero(piece_end > piece_start)
    return _Pieces(piece_start[kept].astype(np.uint64), piece_end[kept].astype(np.uint64), (first[owner] + cell)[kept])


def _spans(history: History, selection: Selection, processes: frozenset[int]) -> dict[Key, tuple[int, int]]:
    """First and last place of each mapping that has places."""
    spans: dict[Key, tuple[int, int]] = {}
    for table in history.mappings(selection):
        place = _places(table)
        size = (table.end - table.start).astype(np.int64)
        for key, low, high in _keyed(table, history.targets[table.target], processes, place, place + size):
            before = spans.get(key)
            spans[key] = (low, high) if before is None else (min(low, before[0]), max(high, before[1]))
    return spans


def _keyed(
    table: MappingTable, target: TargetInfo, processes: frozenset[int], low: Indices, high: Indices
) -> Iterator[tuple[Key, int, int]]:
    for path, permissions, first, last in zip(table.path, table.permissions, low.tolist(), high.tolist(), strict=True):
        key = _key(path, target.pid, processes)
        # What may not even be read is a reserve, and may be larger than all else.
        if key is not None and not permissions.startswith("---"):
            yield key, first, last


def _key(path: str, pid: int, processes: frozenset[int]) -> Key | None:
    if path:
        return mapping_name(path), 0
    return (mapping_name(path), pid) if pid in processes else None


def _places(table: MappingTable) -> Indices:
    """Where each mapping begins, in places of its name."""
    start, end = table.start.astype(np.int64), table.end.astype(np.int64)
    place = table.offset.astype(np.int64)
    first: dict[str, int] = {}
    for index, path in enumerate(table.path):
        if not path:
            place[index] = start[index]
        elif path == _STACK:
            place[index] = _END_OF_STACK - (end[index] - start[index])
        elif path.startswith("["):
            place[index] = start[index] - first.setdefault(path, int(start[index]))
    return place
