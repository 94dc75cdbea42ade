"""The figures of damo 3.4 by its own definitions, where they differ from ours: to compare, not to believe.

Access rates are cut to whole percents, memory below 1 % counts as idle, temperatures add percent to microseconds,
each snapshot counts alike however long it was, and all targets are taken for one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memtherm.core.history import History
from memtherm.core.ranges import Counts
from memtherm.core.rows import SnapshotRows
from memtherm.core.selection import EVERYTHING, Selection
from memtherm.views.batches import per_row

Floats = NDArray[np.float64]

PERCENTILES = (0, 1, 25, 50, 75, 99, 100)
NR_BINS = 10
FIRST_SNAPSHOTS_LEFT_OUT = 20


def access_percent(rows: SnapshotRows) -> Counts:
    """Access rate of each region in whole percents, the rest cut off."""
    most = per_row(rows, np.maximum(1, rows.samples).astype(np.float64))
    return np.floor(rows.regions.nr_accesses * 100 / most).astype(np.int64)


def aggregation_s(rows: SnapshotRows) -> Floats:
    """Aggregation interval of each snapshot, in whole microseconds."""
    return np.rint(rows.samples * rows.sampling_interval_s * 1e6) / 1e6


def recency(rows: SnapshotRows) -> Floats:
    """Idle time of each region, µs: 0 from 1 % access rate up, else its age and one aggregation interval."""
    idle = np.rint((rows.regions.age_s + per_row(rows, aggregation_s(rows))) * 1e6)
    return np.where(access_percent(rows) > 0, 0.0, idle)


def temperature(rows: SnapshotRows, *, weights: tuple[float, float, float] = (0, 100, 100)) -> Floats:
    """Temperature of each region: weighted bytes + percent + µs of age, negative below 1 % access rate."""
    percent, age_us = access_percent(rows), np.rint(rows.regions.age_s * 1e6)
    warmth = weights[0] * rows.regions.size_bytes + weights[1] * percent + weights[2] * age_us
    return np.where(percent > 0, warmth, -warmth)


def percentiles(values: Floats, size_bytes: Counts, points: Sequence[float] = PERCENTILES) -> list[tuple[float, float]]:
    """Of the regions of one snapshot: the value at which so many percent of the bytes are reached."""
    if len(values) == 0:
        return []
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(size_bytes[order] * 100 / size_bytes.sum())
    reached[-1] = 100.0
    index = np.searchsorted(reached, np.array(points, np.float64), side="left")
    return list(zip(points, values[order][np.minimum(index, len(values) - 1)].tolist(), strict=True))


def histogram(values: Floats, size_bytes: Counts, *, doubling: bool = False) -> list[tuple[float, float, int]]:
    """Of the regions of one snapshot: low, high and bytes of 10 equal bins, or of bins that double.

    Bins are half-open; the equal ones are whole numbers wide and reach at least 1 behind the largest value, those
    that double may end just at it, and then lack it.
    """
    if len(values) == 0:
        return []
    low, high = float(values.min()), float(values.max())
    bins = _doubling_bins(low, high) if doubling else _equal_bins(low, high)
    return [(start, end, int(size_bytes[(values >= start) & (values < end)].sum())) for start, end in bins]


def _equal_bins(low: float, high: float) -> list[tuple[float, float]]:
    width = max(float(np.ceil((high + 1 - low) / NR_BINS)), 1.0)
    return [(low + width * index, low + width * (index + 1)) for index in range(NR_BINS)]


def _doubling_bins(low: float, high: float) -> list[tuple[float, float]]:
    width = max(int((high - low) / 2**NR_BINS), 1)
    bins = [(low, low + width)]
    while bins[-1][1] < high:
        width *= 2
        bins.append((bins[-1][1], bins[-1][1] + width))
    return bins


def working_sets(
    history: History, *, selection: Selection = EVERYTHING, min_accesses: int = 1, min_size_bytes: int = 1
) -> Counts:
    """The working set of each snapshot but the first 20, all targets added up, bytes."""
    found = []
    for rows in history.rows(selection):
        regions = rows.regions
        counts = (regions.nr_accesses >= min_accesses) & (regions.size_bytes >= min_size_bytes)
        total = np.concatenate(([0], np.cumsum(np.where(counts, regions.size_bytes, 0))))
        found.append(total[rows.first_row[1:]] - total[rows.first_row[:-1]])
    return np.concatenate([*found, np.zeros(0, np.int64)])[FIRST_SNAPSHOTS_LEFT_OUT:].astype(np.int64)


def percentile_of(values: Counts, point: float) -> int:
    """The value at `int(point / 100 * N)` of the sorted values, the last where that is beyond."""
    return int(np.sort(values)[min(int(point / 100 * len(values)), len(values) - 1)])


def bandwidth_bytes_per_s(rows: SnapshotRows) -> Floats:
    """For each snapshot bytes × accesses / aggregation interval, as if each access had touched each byte."""
    touched = np.concatenate(([0.0], np.cumsum(rows.regions.size_bytes * rows.regions.nr_accesses * 1.0)))
    return (touched[rows.first_row[1:]] - touched[rows.first_row[:-1]]) / (aggregation_s(rows))


def kernel_idle_ms_percentiles(rows: SnapshotRows) -> list[Floats]:
    """For each snapshot DAMON_STAT's `memory_idle_ms_percentiles`: 101 numbers, those of accessed memory negative.

    Each region counts with its age and one aggregation interval (damon-spec §4, §6.5).
    """
    regions, found = rows.regions, []
    idle_ms = regions.age_s * 1e3 + per_row(rows, aggregation_s(rows) * 1e3)
    idle_ms = np.where(regions.nr_accesses > 0, -idle_ms, idle_ms)
    for first, end in zip(rows.first_row[:-1].tolist(), rows.first_row[1:].tolist(), strict=True):
        order = first + np.argsort(idle_ms[first:end], kind="stable")
        reached = np.cumsum(regions.size_bytes[order])
        next_percent = reached * 100 // max(1, int(reached[-1])) if len(reached) else reached
        # A percent belongs to the first region whose bytes go beyond it; the last one to the last region.
        index = np.searchsorted(next_percent, np.arange(101), side="right")
        found.append(idle_ms[order][np.minimum(index, len(order) - 1)] if len(order) else np.zeros(101))
    return found


@dataclass(frozen=True, kw_only=True)
class HeatGrid:
    """Where damo's pixels lie: whole nanoseconds and bytes wide.

    Attributes:
        since_s, until_s: time of the picture, seconds since the epoch.
        start, end: its addresses.
        columns, rows: pixels of time and of addresses.
    """

    since_s: float
    until_s: float
    start: int
    end: int
    columns: int
    rows: int


def heat_pixels(history: History, grid: HeatGrid, *, selection: Selection = EVERYTHING) -> Floats:
    """Heat of each pixel: sum of Hz × seconds × bytes of all regions, over seconds × bytes of the pixel.

    A region is taken to have been what it is for its whole age, back to the end of the snapshot before.

    Returns:
        Hz; NaN where no region reaches the pixel (columns, rows).
    """
    column_s = (grid.until_s - grid.since_s) * 1e9 // grid.columns / 1e9
    row_bytes = (grid.end - grid.start) // grid.rows
    column_begin = grid.since_s + column_s * np.arange(grid.columns)
    row_begin = grid.start + row_bytes * np.arange(grid.rows, dtype=np.float64)
    heat, reached = np.zeros((grid.columns, grid.rows)), np.zeros((grid.columns, grid.rows), np.bool_)
    last_end_s = -np.inf
    for rows in history.rows(selection):
        hz = rows.regions.nr_accesses / per_row(rows, aggregation_s(rows))
        for index, (first, end) in enumerate(
            zip(rows.first_row[:-1].tolist(), rows.first_row[1:].tolist(), strict=True)
        ):
            some = slice(first, end)
            end_s = float(rows.time_s[index])
            begin_s = np.maximum(end_s - rows.window_s[index] - rows.regions.age_s[some], last_end_s)
            seconds = np.minimum(end_s, column_begin + column_s) - np.maximum(begin_s[:, None], column_begin)
            start, stop = rows.regions.start[some].astype(np.float64), rows.regions.end[some].astype(np.float64)
            size = np.minimum(stop[:, None], row_begin + row_bytes) - np.maximum(start[:, None], row_begin)
            seconds, size = np.maximum(0.0, seconds), np.maximum(0.0, size)
            heat += seconds.T @ (hz[some][:, None] * size)
            reached |= seconds.T @ size > 0
            last_end_s = end_s
    pixels: Floats = np.where(reached, heat / (column_s * row_bytes), np.nan)
    return pixels
