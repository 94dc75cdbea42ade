"""How many bytes are how hot, and for how long: by access rate, idle time and temperature; and bandwidth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memtherm.core.history import History
from memtherm.core.rows import SnapshotRows
from memtherm.core.selection import EVERYTHING, Selection
from memtherm.errors import InvalidInput
from memtherm.views.batches import batches, idle_s, per_row
from memtherm.views.weighted import Histogram, Percentiles, WeightedValues

POINTS = (0.0, 1.0, 25.0, 50.0, 75.0, 99.0, 100.0)
NR_BINS = 10
MAX_BINS = 1000
# Weight of a window whose length is not known.
_SHORTEST_S = 1e-9


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """Means over time; each snapshot has the weight of its window.

    Attributes:
        window_s: all windows together.
        watched_bytes, accessed_bytes: in all regions, and in those with any access.
        access_rate: accessed bytes by rate, 0..1, in equal bins; `watched_bytes - accessed_bytes` have the rate 0.
        idle: all bytes by seconds since the last access, 0 of those accessed in the window.
        idle_linear, idle_log: bytes that were not accessed by idle seconds: equal bins, and bins that double.
        temperature: all bytes by signed seconds, see `temperature_s`.
        temperature_linear, temperature_log: equal bins; and bins that double away from 0.
        bandwidth_bytes_per_s: mean, if each access that was found had touched each byte of its region, and none had
            gone unseen between two looks: a rough estimate, no bound.
        peak_bandwidth_bytes_per_s: the same of the busiest window.
    """

    window_s: float
    watched_bytes: float
    accessed_bytes: float
    access_rate: Histogram
    idle: Percentiles
    idle_linear: Histogram
    idle_log: Histogram
    temperature: Percentiles
    temperature_linear: Histogram
    temperature_log: Histogram
    bandwidth_bytes_per_s: float
    peak_bandwidth_bytes_per_s: float


def temperature_s(rows: SnapshotRows) -> NDArray[np.float64]:
    """Temperature of each region in signed seconds: how long it has been in use, or out of use.

    Of memory that was accessed in the window: access rate × (age + window), the seconds of its present phase that
    saw accesses: 10 s at 50 % are as hot as 5 s at 100 %.  Of memory that was not: minus the seconds since its last
    access.  So any access is above 0, both sides have one unit, and there are no weights to choose; damo adds percent
    to microseconds (`views.damo.temperature`).
    """
    regions = rows.regions
    phase_s = regions.age_s + per_row(rows, rows.window_s)
    return np.where(regions.access_rate > 0, regions.access_rate * phase_s, -phase_s)


def distribution(
    history: History,
    *,
    selection: Selection = EVERYTHING,
    bins: int = NR_BINS,
    points: tuple[float, ...] = POINTS,
) -> Distribution:
    """Distributions of the bytes of a run, as means over time.

    Args:
        bins: of the linear histograms.
        points: of the percentiles, percent.

    Raises:
        InvalidInput: nothing is selected; no bin; a percentile that is not from 0 to 100.
    """
    return distributions(history, (None,), selection=selection, bins=bins, points=points)[None]


def distributions(
    history: History,
    targets: Sequence[int | None],
    *,
    selection: Selection = EVERYTHING,
    bins: int = NR_BINS,
    points: tuple[float, ...] = POINTS,
) -> dict[int | None, Distribution]:
    """The same of each target alone, and (None) of all together, in one pass over the run.

    Returns:
        Of those of which something is selected.

    Raises:
        InvalidInput: as `distribution`.
    """
    if not 1 <= bins <= MAX_BINS:
        raise InvalidInput(f"a histogram of {bins} bins", hint=f"1 to {MAX_BINS}")
    if any(not 0 <= point <= 100 for point in points):
        raise InvalidInput("a percentile below 0 or above 100", hint="write them like 0,50,99,100")
    sums = {target: _Sums() for target in targets}
    own = {target: Selection(targets=frozenset({target})) for target in targets if target is not None}
    for batch in batches(history, selection):
        for target, of_target in sums.items():
            part = batch if target is None else own[target].of(batch)
            of_target.add(part)
    return {target: one.distribution(bins, points) for target, one in sums.items() if one.nr_regions}


class _Sums:
    """What is gathered from batches; in memory are classes of values, and no regions."""

    def __init__(self) -> None:
        self._rates, self._idle, self._temperature = WeightedValues(), WeightedValues(), WeightedValues()
        self.nr_regions = 0
        self.window_s = self._touched_bytes = self._peak = 0.0

    def add(self, batch: SnapshotRows) -> None:
        regions = batch.regions
        self.nr_regions += len(regions)
        size = (regions.end - regions.start).astype(np.float64)
        window_s = np.maximum(batch.window_s, _SHORTEST_S)
        weight = size * per_row(batch, window_s)
        self._rates.add(regions.access_rate, weight)
        self._idle.add(idle_s(batch), weight)
        self._temperature.add(temperature_s(batch), weight)
        of_snapshot = _sum_by_snapshot(batch, size * regions.nr_accesses)
        self.window_s += float(window_s.sum())
        self._touched_bytes += float(of_snapshot.sum())
        self._peak = max(self._peak, float((of_snapshot / window_s).max(initial=0.0)))

    def distribution(self, bins: int, points: tuple[float, ...]) -> Distribution:
        rate, weight = self._rates.classes()
        watched = float(weight.sum())
        accessed = float(weight[rate > 0].sum())
        idle, temperature, window_s = self._idle, self._temperature, self.window_s
        return Distribution(
            window_s=window_s,
            watched_bytes=watched / window_s,
            accessed_bytes=accessed / window_s,
            access_rate=_above_zero(self._rates).histogram(np.linspace(0, 1, bins + 1), weight_of_one=window_s),
            idle=idle.percentiles(points),
            idle_linear=_above_zero(idle).histogram(_linear_edges(idle, bins), weight_of_one=window_s),
            idle_log=_above_zero(idle).histogram(_doubling_edges(idle), weight_of_one=window_s),
            temperature=temperature.percentiles(points),
            temperature_linear=temperature.histogram(_linear_edges(temperature, bins), weight_of_one=window_s),
            temperature_log=temperature.histogram(_doubling_edges(temperature), weight_of_one=window_s),
            bandwidth_bytes_per_s=self._touched_bytes / window_s,
            peak_bandwidth_bytes_per_s=self._peak,
        )


def _sum_by_snapshot(rows: SnapshotRows, values: NDArray[np.float64]) -> NDArray[np.float64]:
    total = np.concatenate(([0.0], np.cumsum(values)))
    return total[rows.first_row[1:]] - total[rows.first_row[:-1]]


def _above_zero(values: WeightedValues) -> WeightedValues:
    value, weight = values.classes()
    above = WeightedValues()
    above.add(value[value > 0], weight[value > 0])
    return above


def _linear_edges(values: WeightedValues, bins: int) -> NDArray[np.float64]:
    value, _ = values.classes()
    low, high = min(0.0, float(value[0])), max(0.0, float(value[-1]))
    return np.linspace(low, high if high > low else low + 1.0, bins + 1)


def _doubling_edges(values: WeightedValues) -> NDArray[np.float64]:
    """0, and on each side of it where there are values bins that double, from the smallest that is needed."""
    value, _ = values.classes()
    above, below = _doubling(value[value > 0]), _doubling(-value[value < 0])
    edges = np.concatenate((-below[::-1], [0.0], above))
    return edges if len(edges) > 1 else np.array([0.0, 1.0])


def _doubling(values: NDArray[np.float64]) -> NDArray[np.float64]:
    if len(values) == 0:
        return np.zeros(0)
    first, last = np.floor(np.log2(values.min())), np.floor(np.log2(values.max())) + 1
    edges: NDArray[np.float64] = np.exp2(np.arange(first, last + 1))
    return edges
