"""How much memory is in use, over time: bytes in regions that were accessed, beside RSS."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memtherm.core.history import History, Vitals
from memtherm.core.ranges import Counts
from memtherm.core.rows import SnapshotRows
from memtherm.core.selection import EVERYTHING, Selection
from memtherm.errors import InvalidInput
from memtherm.views.batches import batches

POINTS = (0.0, 25.0, 50.0, 75.0, 95.0, 100.0)
# The same margin as that of `Snapshot.working_set_bytes`: a rate that differs by rounding alone is at the bound.
_ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class WorkingSetPercentiles:
    """Over time, each snapshot with the weight of its window.

    Attributes:
        points: percent.
        size_bytes, sure_bytes, possible_bytes, watched_bytes: see WorkingSet; for each point.
        mean_bytes: mean of the working set over time.
    """

    points: tuple[float, ...]
    size_bytes: tuple[int, ...]
    sure_bytes: tuple[int, ...]
    possible_bytes: tuple[int, ...]
    watched_bytes: tuple[int, ...]
    mean_bytes: float


@dataclass(frozen=True, kw_only=True)
class WorkingSet:
    """Working sets of n snapshots and t targets.

    Attributes:
        min_access_rate: regions at this rate or more count (0..1), and never those without any access.
        targets: indices into `History.targets`, one for each column.
        time_s: end of each window, seconds since the epoch (n).
        window_s: length of each window (n).
        size_bytes: bytes in regions that count (n, t).
        sure_bytes: in those that count even if their rate is too high by its error (n, t).
        possible_bytes: in those that would count if their rate were too low by its error (n, t).
        watched_bytes: in all regions (n, t).
        vitals_time_s: when the next three were read (v).
        resident_bytes, swap_bytes, proportional_bytes: NaN where they are not known (v, t).
    """

    min_access_rate: float
    targets: tuple[int, ...]
    time_s: NDArray[np.float64]
    window_s: NDArray[np.float64]
    size_bytes: Counts
    sure_bytes: Counts
    possible_bytes: Counts
    watched_bytes: Counts
    vitals_time_s: NDArray[np.float64]
    resident_bytes: NDArray[np.float64]
    swap_bytes: NDArray[np.float64]
    proportional_bytes: NDArray[np.float64]

    def of_target(self, target: int | None, sizes: Counts) -> Counts:
        """One of the four sizes as a series (n): of one target, or of all together (None)."""
        return sizes.sum(axis=1) if target is None else sizes[:, self.targets.index(target)]

    def resident_of(self, target: int | None) -> NDArray[np.float64]:
        """RSS as a series (v): of one target, or of all that were there together (None); NaN where none is known."""
        if target is not None:
            return self.resident_bytes[:, self.targets.index(target)]
        known = ~np.isnan(self.resident_bytes)
        resident: NDArray[np.float64] = np.where(
            known.any(axis=1), np.where(known, self.resident_bytes, 0).sum(axis=1), np.nan
        )
        return resident

    def percentiles(self, target: int | None = None, *, points: tuple[float, ...] = POINTS) -> WorkingSetPercentiles:
        """Of one target, or of all together (None).  Raises InvalidInput on points that are not from 0 to 100."""
        if any(not 0 <= point <= 100 for point in points):
            raise InvalidInput("a percentile below 0 or above 100", hint="write them like 0,50,95,100")
        size = self.of_target(target, self.size_bytes)
        columns = [size, *(self.of_target(target, one) for one in (self.sure_bytes, self.possible_bytes))]
        columns.append(self.of_target(target, self.watched_bytes))
        found = [weighted_percentiles(column, self.window_s, points) for column in columns]
        mean = float(np.average(size, weights=self.window_s)) if self.window_s.sum() > 0 else float(size.mean())
        return WorkingSetPercentiles(
            points=points,
            size_bytes=found[0],
            sure_bytes=found[1],
            possible_bytes=found[2],
            watched_bytes=found[3],
            mean_bytes=mean,
        )


def weighted_percentiles(values: Counts, weights: NDArray[np.float64], points: tuple[float, ...]) -> tuple[int, ...]:
    """The lowest value that so many percent of the weight do not exceed; equal weights where all are 0."""
    if not weights.sum() > 0:
        weights = np.ones(len(values))
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order])
    wanted = np.array(points) / 100 * reached[-1] * (1 - 1e-12)
    index = np.minimum(np.searchsorted(reached, wanted, side="left"), len(values) - 1)
    return tuple(values[order][index].tolist())


def working_set(history: History, *, selection: Selection = EVERYTHING, min_access_rate: float = 0.0) -> WorkingSet:
    """The working sets of a run over time; every target for itself.

    Args:
        min_access_rate: which rate makes memory used (0..1); 0: any access.

    Raises:
        InvalidInput: nothing is selected; a rate that is not from 0 to 1.
    """
    if not 0 <= min_access_rate <= 1:
        raise InvalidInput(f"an access rate of {min_access_rate:g}", hint="an access rate is from 0 to 1")
    targets = tuple(
        index for index in range(len(history.targets)) if selection.targets is None or index in selection.targets
    )
    column_of = np.zeros(len(history.targets), np.int64)
    column_of[list(targets)] = np.arange(len(targets))
    pieces = []
    for batch in batches(history, selection):
        pieces.append((batch.time_s, batch.window_s, *_sizes(batch, column_of, len(targets), min_access_rate)))
    columns = [np.concatenate(column) for column in zip(*pieces, strict=True)]
    vitals = list(history.vitals(selection))
    return WorkingSet(
        min_access_rate=min_access_rate,
        targets=targets,
        time_s=columns[0],
        window_s=columns[1],
        size_bytes=columns[2],
        sure_bytes=columns[3],
        possible_bytes=columns[4],
        watched_bytes=columns[5],
        vitals_time_s=np.array([one.time_s for one in vitals]),
        resident_bytes=_of_vitals(vitals, targets, "resident_bytes"),
        swap_bytes=_of_vitals(vitals, targets, "swap_bytes"),
        proportional_bytes=_of_vitals(vitals, targets, "proportional_bytes"),
    )


def _sizes(batch: SnapshotRows, column_of: Counts, nr_targets: int, min_access_rate: float) -> list[Counts]:
    """What counts, what surely and what possibly counts, and all, of each snapshot and target."""
    regions = batch.regions
    size = (regions.end - regions.start).astype(np.float64)
    rate, error = regions.access_rate, regions.rate_error
    shape = len(batch), nr_targets
    line = np.repeat(np.arange(len(batch)), np.diff(batch.first_row)) * nr_targets
    line += column_of[regions.target] if nr_targets > 1 else 0

    def total(which: NDArray[np.bool_] | None) -> Counts:
        some = slice(None) if which is None else np.flatnonzero(which)
        sums = np.bincount(line[some], weights=size[some], minlength=shape[0] * shape[1])
        return sums.astype(np.int64).reshape(shape)

    least = min_access_rate - _ROUNDING
    counts = (rate >= least) & (rate > 0)
    if not error.any():
        counted = total(counts)
        return [counted, counted, counted, total(None)]
    sure, possible = rate - error, rate + error
    return [
        total(counts),
        total((sure >= least) & (sure > 0) & counts),
        total(((possible >= least) & (possible > 0)) | counts),
        total(None),
    ]


def _of_vitals(vitals: list[Vitals], targets: tuple[int, ...], name: str) -> NDArray[np.float64]:
    known = np.full((len(vitals), len(targets)), np.nan)
    column = {target: index for index, target in enumerate(targets)}
    for row, one in enumerate(vitals):
        for of_target in one.targets:
            value = getattr(of_target, name)
            if of_target.target in column and value is not None:
                known[row, column[of_target.target]] = value
    return known
