"""Regions as a table: of one moment, or of a time as means; sorted and filtered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from memtherm.core.history import History
from memtherm.core.ranges import Addresses, Counts
from memtherm.core.rows import SnapshotRows
from memtherm.core.selection import EVERYTHING, Selection
from memtherm.core.snapshot import Regions
from memtherm.errors import InvalidInput
from memtherm.views.batches import nothing_selected
from memtherm.views.distribution import temperature_s
from memtherm.views.heatmap import heat_map
from memtherm.views.names import NamedRanges, mappings_ever, names_within, short_name

SORT_KEYS = ("address", "rate", "age", "size", "temperature")
# Neighbours whose mean rates fall between the same two of these are one row of a merged table.
_RATE_CLASSES = np.array([1e-9, 0.05, 0.25, 0.5, 0.75])
_FINE_ROWS = 2048
_LOOK_BACK_S = (2.0, 60.0, 3600.0)


@dataclass(frozen=True, kw_only=True)
class RegionRow:
    """A region, or neighbouring memory of about one rate.

    Attributes:
        target: index into `History.targets`.
        start, end: addresses, half-open.
        name: of the mapping with most bytes in it; empty where the run knows no mappings.
        access_rate: 0..1.
        age_s: how long the rate has stayed about the same.
        rate_error: how far the true rate may be off, at 95 % confidence; None in a merged table.
        temperature_s: see `views.distribution.temperature_s`.
    """

    target: int
    start: int
    end: int
    name: str
    access_rate: float
    age_s: float
    rate_error: float | None
    temperature_s: float

    @property
    def size_bytes(self) -> int:
        return self.end - self.start


@dataclass(frozen=True, kw_only=True)
class RegionTable:
    """The rows that were asked for.

    Attributes:
        since_s, until_s: begin and end of the time that it is about, seconds since the epoch.
        is_merged: rows are means over that time, with borders as fine as 1/2048 of the memory.
        nr_regions, total_bytes: all rows, those that the limit left out included.
    """

    since_s: float
    until_s: float
    is_merged: bool
    rows: tuple[RegionRow, ...]
    nr_regions: int
    total_bytes: int


def region_table(
    history: History,
    *,
    selection: Selection = EVERYTHING,
    merged: bool = False,
    sort: str = "address",
    descending: bool = False,
    limit: int | None = None,
) -> RegionTable:
    """The regions of the last selected snapshot, or what they were over the selected time.

    Args:
        merged: means over the time instead of the last snapshot.
        sort: `address` (and target), `rate`, `age`, `size` or `temperature`, the lowest first.
        descending: the highest first.
        limit: at most so many rows.

    Raises:
        InvalidInput: nothing is selected; an unknown sort key.
    """
    if sort not in SORT_KEYS:
        raise InvalidInput(f"a table sorted by {sort!r}", hint=f"use {', '.join(SORT_KEYS)}")
    columns = _merged_columns(history, selection) if merged else _last_columns(history, selection)
    regions = columns.regions
    keys = {
        "rate": regions.access_rate,
        "age": regions.age_s,
        "size": regions.size_bytes.astype(np.float64),
        "temperature": columns.temperature_s,
    }
    sign = -1.0 if descending else 1.0
    by_address = np.lexsort((regions.start, regions.target))
    if sort == "address":
        order = by_address[::-1] if descending else by_address
    else:
        order = by_address[np.argsort(sign * keys[sort][by_address], kind="stable")]
    names = mappings_ever(history.mappings(selection))
    return RegionTable(
        since_s=columns.since_s,
        until_s=columns.until_s,
        is_merged=merged,
        rows=tuple(_row(columns, index, names) for index in order[:limit].tolist()),
        nr_regions=len(regions),
        total_bytes=int(regions.size_bytes.sum()),
    )


@dataclass(frozen=True)
class _Columns:
    regions: Regions
    temperature_s: NDArray[np.float64]
    since_s: float
    until_s: float


def _row(columns: _Columns, index: int, names: Mapping[int, NamedRanges]) -> RegionRow:
    regions = columns.regions
    target, start, end = int(regions.target[index]), int(regions.start[index]), int(regions.end[index])
    error = float(regions.rate_error[index])
    return RegionRow(
        target=target,
        start=start,
        end=end,
        name=short_name(names_within(names.get(target), start, end)),
        access_rate=float(regions.access_rate[index]),
        age_s=float(regions.age_s[index]),
        rate_error=None if np.isnan(error) else error,
        temperature_s=float(columns.temperature_s[index]),
    )


def _last_columns(history: History, selection: Selection) -> _Columns:
    last = _last_snapshot(history, selection)
    if len(last.regions) == 0:
        raise nothing_selected(history, selection)
    until_s = float(last.time_s[-1])
    return _Columns(last.regions, temperature_s(last), until_s - float(last.window_s[-1]), until_s)


def _last_snapshot(history: History, selection: Selection) -> SnapshotRows:
    """Looks back from the end by more and more, so that a long run need not be read."""
    end_s = history.time_span_s[1] if selection.until_s is None else min(history.time_span_s[1], selection.until_s)
    for back_s in (*_LOOK_BACK_S, None):
        since_s = selection.since_s if back_s is None else max(end_s - back_s, selection.since_s or 0.0)
        last = None
        if since_s is None or since_s <= end_s:
            for rows in history.rows(replace(selection, since_s=since_s)):
                last = rows if len(rows) else last
        if last is not None:
            return last.take_snapshots(len(last) - 1, len(last))
    raise nothing_selected(history, selection)


def _merged_columns(history: History, selection: Selection) -> _Columns:
    """Fine pixels of the whole time, neighbours of about one rate joined."""
    fine = heat_map(history, selection=selection, rows=_FINE_ROWS, columns=1, whole=True, ages=True)
    assert fine.age_s is not None
    watched = np.flatnonzero(fine.watched[:, 0] > 0)
    start, end, target = fine.row_start[watched], fine.row_end[watched], fine.row_target[watched]
    rate, age_s = fine.heat[watched, 0], fine.age_s[watched, 0]
    first, last = _joined(start, end, target, np.searchsorted(_RATE_CLASSES, rate, side="right"))
    size = (end - start).astype(np.float64)
    total = np.add.reduceat(size, first)
    mean_rate = np.add.reduceat(size * rate, first) / total
    mean_age = np.add.reduceat(size * age_s, first) / total
    regions = Regions(
        target=target[first].astype(np.int32),
        start=start[first],
        end=end[last],
        nr_accesses=np.zeros(len(first), np.int64),
        access_rate=mean_rate,
        age_s=mean_age,
        rate_error=np.full(len(first), np.nan),
    )
    temperature = np.where(mean_rate > 0, mean_rate * mean_age, -mean_age)
    return _Columns(regions, temperature, float(fine.time_s[0]), float(fine.time_s[-1]))


def _joined(
    start: Addresses, end: Addresses, target: NDArray[np.int64], kind: NDArray[np.int64]
) -> tuple[Counts, Counts]:
    opens = np.ones(len(start), np.bool_)
    opens[1:] = (kind[1:] != kind[:-1]) | (start[1:] != end[:-1]) | (target[1:] != target[:-1])
    first = np.flatnonzero(opens)
    return first, np.append(first[1:], len(start)) - 1
