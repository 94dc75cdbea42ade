"""Heat over time and addresses: a matrix, with the addresses that nobody watched folded away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from memtherm.core.history import History
from memtherm.core.ranges import Addresses
from memtherm.core.rows import SnapshotRows
from memtherm.core.selection import EVERYTHING, Selection
from memtherm.errors import InvalidInput
from memtherm.views.axis import Axis, AxisRange, choose_axis, named_ranges
from memtherm.views.batches import Runs, batches, nothing_selected, per_row, runs_of
from memtherm.views.footprint import Footprint, Stretches, bytes_outside
from memtherm.views.names import mappings_ever
from memtherm.views.pixels import add_slots, row_sums, time_slots

Matrix = NDArray[np.float64]

UNITS = ("rate", "hz")
MAX_PIXELS = 4096
_SURVEY_POINTS = 6
# Of a distance this share or more was not watched: there were pauses between the windows.
_PAUSED = 0.25
# A first look may miss what was there for a short time only; more of it than this and the axis is chosen anew.
_MAY_MISS = 0.001
# What is left of sums in which equal numbers were added and taken away; one access in 2 TiB is more.
_NOTHING = 1e-13


@dataclass(frozen=True, kw_only=True)
class HeatMap:
    """Mean heat of each pixel of time × address; row 0 is the lowest address of the first range.

    Attributes:
        unit: `rate`: share of looks that found an access, 0..1; `hz`: found accesses a second.
        heat: mean over the watched bytes and seconds of the pixel; NaN where none was (rows, columns).
        watched: share of the bytes × seconds of the pixel that were watched, 0..1 (rows, columns).
        age_s: mean age over the same bytes and seconds; NaN where none was watched; None where not asked for.
        time_s: borders of the columns, seconds since the epoch (columns + 1).
        ranges: the addresses shown, in the order of the rows; between two of them addresses are folded away.
        row_start, row_end: addresses of each row (uint64, rows).
        row_target: index of the target of each row (int64, rows).
        nr_ranges: clusters of addresses that were watched, over all targets.
        left_out_bytes: watched bytes that are not shown.
    """

    unit: str
    heat: Matrix
    watched: Matrix
    age_s: Matrix | None
    time_s: NDArray[np.float64]
    ranges: tuple[AxisRange, ...]
    row_start: Addresses
    row_end: Addresses
    row_target: NDArray[np.int64]
    nr_ranges: int
    left_out_bytes: int

    @property
    def pixel_mean(self) -> Matrix:
        """Heat over the whole pixel, what was not watched counted as cold: damo's definition of a heat map."""
        mean: Matrix = np.nan_to_num(self.heat) * self.watched
        return mean


def heat(
    history: History,
    *,
    selection: Selection = EVERYTHING,
    rows: int = 40,
    columns: int = 80,
    whole: bool = False,
    unit: str = "rate",
) -> Matrix:
    """The heat of a run as a matrix; where each pixel lies says `heat_map`.

    Returns:
        Access rate, 0..1, of each pixel of address × time, NaN where nothing was watched (about rows × columns).

    Example:
        >>> memtherm.heat(memtherm.open_record("server.mtr"), rows=4, columns=3)
        array([[0.  , 0.  , 0.  ],
               [0.92, 0.95, 0.97],
               [0.  , 0.01, 0.  ],
               [ nan,  nan, 0.02]])
    """
    return heat_map(history, selection=selection, rows=rows, columns=columns, whole=whole, unit=unit).heat


def heat_map(
    history: History,
    *,
    selection: Selection = EVERYTHING,
    rows: int = 40,
    columns: int = 80,
    whole: bool = False,
    unit: str = "rate",
    ages: bool = False,
) -> HeatMap:
    """The heat of a run over time and addresses.

    Args:
        selection: shown is what it selects; with addresses in it all of them, else the hottest cluster of addresses.
        rows, columns: pixels; there are no more columns than the shortest windows need, and there may be fewer rows
            where there are fewer pages, or more with `whole` where there are many ranges.
        whole: all watched addresses of all targets.
        unit: `rate` or `hz`, see HeatMap.
        ages: with `HeatMap.age_s`.

    Raises:
        InvalidInput: nothing is selected; a size below 1 or above 4096 pixels; another unit.
    """
    if not (1 <= rows <= MAX_PIXELS and 1 <= columns <= MAX_PIXELS):
        raise InvalidInput(f"a heat map of {rows} × {columns} pixels", hint=f"1 to {MAX_PIXELS} each way")
    if unit not in UNITS:
        raise InvalidInput(f"a heat map in {unit!r}", hint="use rate or hz")
    sketch = _Sketch(history, selection, rows=rows, columns=columns, whole=whole, unit=unit, ages=ages)
    while not sketch.is_done:
        for batch in batches(history, selection):
            sketch.add(batch)
        sketch.judge()
    return sketch.heat_map(history)


def heat_maps_of_targets(
    history: History,
    targets: Sequence[int],
    *,
    selection: Selection = EVERYTHING,
    rows: int = 40,
    columns: int = 80,
    ages: bool = False,
) -> dict[int, HeatMap]:
    """A heat map of all watched addresses of each target, in one pass over the run, seldom two.

    Returns:
        Of those of which a region is selected; see `heat_map`.
    """
    sketches = {}
    for target in targets:
        own = replace(selection, targets=frozenset({target}))
        try:
            sketches[target] = _Sketch(history, own, rows=rows, columns=columns, whole=True, unit="rate", ages=ages)
        except InvalidInput:  # no region of it is selected
            continue
    while left := {target: one for target, one in sketches.items() if not one.is_done}:
        for batch in batches(history, replace(selection, targets=frozenset(left))):
            for target, sketch in left.items():
                sketch.add(Selection(targets=frozenset({target})).of(batch))
        for sketch in left.values():
            sketch.judge()
    return {target: one.heat_map(history) for target, one in sketches.items()}


class _Sketch:
    """A heat map while it is made: what is watched is guessed first, and looked at again where that was wrong.

    Attributes:
        is_done: the last pass had the right addresses.

    Raises:
        InvalidInput: nothing is selected.
    """

    def __init__(
        self, history: History, selection: Selection, *, rows: int, columns: int, whole: bool, unit: str, ages: bool
    ) -> None:
        self._selection = selection
        is_chosen = selection.start is not None or selection.end is not None
        self._choose = partial(choose_axis, rows=rows, whole=whole, is_chosen=is_chosen)
        self._sums_on = partial(_Sums, unit=unit, ages=ages)
        self.is_done = False
        self._stretches, self._time_s = _survey(history, selection, columns)
        self._best = self._choose(self._stretches)
        self._begin()

    def _begin(self) -> None:
        self._axis = self._best
        self._sums = self._sums_on(self._axis, self._time_s)
        self._footprint = Footprint()

    def add(self, batch: SnapshotRows) -> None:
        runs = runs_of(batch)
        self._footprint.add(batch, runs)
        self._sums.add(batch, runs)

    def judge(self) -> None:
        """After all of the run: whether another pass is needed; it is begun."""
        self._stretches = self._footprint.stretches()
        self._best = self._choose(self._stretches, before=self._axis)
        self.is_done = not _misses(self._stretches, shown=self._axis, best=self._best)
        if not self.is_done:
            self._begin()

    def heat_map(self, history: History) -> HeatMap:
        ranges = named_ranges(self._axis, mappings_ever(history.mappings(self._selection)))
        left_out = _left_out(self._stretches, self._axis)
        return self._sums.heat_map(ranges, nr_ranges=self._best.nr_ranges, left_out_bytes=left_out)


def _survey(history: History, selection: Selection, columns: int) -> tuple[Stretches, NDArray[np.float64]]:
    """What some moments of the run show of its addresses, and the borders of the columns."""
    begin_s, end_s = history.time_span_s
    until_s = end_s if selection.until_s is None else min(end_s, selection.until_s)
    since_s = begin_s if selection.since_s is None else max(begin_s, selection.since_s)
    if since_s > until_s:
        raise nothing_selected(history, selection)
    footprint = Footprint()
    first_s, last_s = np.inf, -np.inf
    spacings: list[_Spacing] = []
    for point_s in np.linspace(since_s, until_s, _SURVEY_POINTS).tolist():
        if point_s > until_s or point_s <= last_s:
            continue
        batch = _rows_after(history, selection, point_s, (until_s - since_s) / 500)
        if batch is None:
            continue
        footprint.add(batch, runs_of(batch))
        first_s = min(first_s, float(batch.time_s[0] - batch.window_s[0]))
        spacings.append(_spacing(batch))
        last_s = float(batch.time_s[-1])
    stretches = footprint.stretches()
    if len(stretches) == 0:
        # Regions may be between the points; else the pass over all of it says what the run has.
        return _all_stretches(history, selection), np.linspace(since_s, until_s, columns + 1)
    since_s = max(since_s, first_s) if since_s < until_s else first_s
    until_s = max(until_s, last_s) if selection.until_s is None else until_s
    return stretches, np.linspace(since_s, until_s, min(columns, _most_columns(spacings, until_s - since_s)) + 1)


@dataclass(frozen=True)
class _Spacing:
    """Of some snapshots: how far they are apart and how long their windows are, in the median, and the shortest."""

    distance_s: float
    window_s: float
    shortest_s: float

    @property
    def has_pauses(self) -> bool:
        return self.distance_s * (1 - _PAUSED) > self.window_s


def _spacing(rows: SnapshotRows) -> _Spacing:
    window_s = float(np.median(rows.window_s))
    distance_s = float(np.median(np.diff(rows.time_s))) if len(rows) > 1 else window_s
    return _Spacing(distance_s, window_s, float(rows.window_s.min()))


def _most_columns(found: list[_Spacing], length_s: float) -> int:
    """Where windows follow one another, one for each of the shortest: more would be equal.  Where there were pauses
    between them, one for each of the largest distances: more would be empty."""
    paused = [one.distance_s for one in found if one.has_pauses]
    finest_s = max(paused) if paused else min(one.shortest_s for one in found)
    return max(1, round(length_s / finest_s)) if finest_s > 0 else MAX_PIXELS


def _rows_after(history: History, selection: Selection, time_s: float, within_s: float) -> SnapshotRows | None:
    """Some snapshots that end at this time or after it; few are read where there are two within so many seconds."""
    until_s = time_s + within_s
    near = replace(selection, since_s=time_s, until_s=min(until_s, selection.until_s or until_s))
    found = next(history.rows(near), None)
    if found is None or len(found) < 2:
        found = next(history.rows(replace(selection, since_s=time_s)), None)
    return found


def _all_stretches(history: History, selection: Selection) -> Stretches:
    footprint = Footprint()
    for batch in batches(history, selection):
        footprint.add(batch, runs_of(batch))
    if len(stretches := footprint.stretches()) == 0:
        raise nothing_selected(history, selection)
    return stretches


def _misses(stretches: Stretches, *, shown: Axis, best: Axis) -> bool:
    """Whether an axis lacks what the best one would show."""
    inside = stretches.take(bytes_outside(stretches, best.shown) == 0)
    share = bytes_outside(inside, shown.shown) / np.maximum(1, inside.size_bytes)
    return bool(
        (share * inside.seen).sum() > _MAY_MISS * inside.seen.sum()
        or (share * inside.heat).sum() > _MAY_MISS * inside.heat.sum()
    )


def _left_out(stretches: Stretches, axis: Axis) -> int:
    return int(bytes_outside(stretches, axis.shown).sum())


class _Sums:
    """Adds up batches on an axis."""

    def __init__(self, axis: Axis, time_s: NDArray[np.float64], *, unit: str, ages: bool) -> None:
        self._axis, self._time_s, self._unit = axis, time_s, unit
        shape = len(time_s) - 1, axis.nr_rows
        self._heat, self._watched = np.zeros(shape), np.zeros(shape)
        self._age = np.zeros(shape) if ages else None

    def add(self, batch: SnapshotRows, runs: Runs) -> None:
        rows = self._axis.nr_rows
        slots = time_slots(batch.time_s, batch.window_s, self._time_s)
        begin, end = self._axis.place(batch, runs)
        slot, weight = np.repeat(slots.slot, np.diff(batch.first_row)), per_row(batch, slots.weight)
        shape = slots.nr_slots, rows
        first, last = runs.first_row, runs.last_row
        add_slots(self._watched, slots, row_sums(begin[first], end[last], slot[first], weight[first], shape))
        regions = batch.regions
        heat = regions.access_rate * weight
        if self._unit == "hz":
            heat /= per_row(batch, np.maximum(batch.sampling_interval_s, 1e-9))
        for total, values in ((self._heat, heat), (self._age, regions.age_s * weight)):
            if total is not None:
                some = np.flatnonzero((values > 0) & (end > begin))
                add_slots(total, slots, row_sums(begin[some], end[some], slot[some], values[some], shape))

    def heat_map(self, ranges: tuple[AxisRange, ...], *, nr_ranges: int, left_out_bytes: int) -> HeatMap:
        seconds = np.diff(self._time_s)[:, None]
        watched = np.where(self._watched > 1e-9 * seconds, self._watched, 0.0)
        row_start, row_end, row_target = self._axis.row_borders()
        return HeatMap(
            unit=self._unit,
            heat=_mean(self._heat, watched, most=1.0 if self._unit == "rate" else np.inf).T,
            watched=np.minimum(1.0, watched / seconds).T,
            age_s=None if self._age is None else _mean(self._age, watched, most=np.inf).T,
            time_s=self._time_s,
            ranges=ranges,
            row_start=row_start,
            row_end=row_end,
            row_target=row_target,
            nr_ranges=nr_ranges,
            left_out_bytes=left_out_bytes,
        )


def _mean(total: Matrix, watched: Matrix, *, most: float) -> Matrix:
    mean: Matrix = np.full(total.shape, np.nan)
    np.divide(total, watched, out=mean, where=watched > 0)
    largest = np.nanmax(mean, initial=0.0)
    mean[mean < _NOTHING * largest] = 0.0
    return np.minimum(mean, most)
