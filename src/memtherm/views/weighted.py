"""Many values with weights in little memory: percentiles and histograms to a thousandth of the value."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memtherm.core.ranges import Flags

Floats = NDArray[np.float64]

# A float's bits, read as a whole number, ascend with it; without the lowest 42 of its 52 digits, values that differ
# by less than a thousandth share a class, and the classes from 2^-40 to 2^60 are few enough for an array.
_DROPPED_BITS = 42
_LOWEST, _HIGHEST = 2.0**-40, 2.0**60


def _class_of(values: Floats) -> NDArray[np.int64]:
    return values.view(np.int64) >> _DROPPED_BITS


_FIRST_CLASS = int(_class_of(np.array([_LOWEST]))[0]) - 1
_NR_CLASSES = int(_class_of(np.array([_HIGHEST]))[0]) - _FIRST_CLASS + 1


@dataclass(frozen=True)
class Histogram:
    """Bytes by a value, as a mean over time.

    Attributes:
        edges: borders of the bins, ascending (n + 1); a value on a border belongs to the bin above it, the
            largest to the last bin.
        size_bytes: mean bytes in each bin (n).
    """

    edges: Floats
    size_bytes: Floats


@dataclass(frozen=True)
class Percentiles:
    """Of the bytes, from lowest value to highest: `points[i]` percent of them have `values[i]` or less."""

    points: tuple[float, ...]
    values: tuple[float, ...]


class WeightedValues:
    """A growing multiset of values, from -2^60 to 2^60, with weights."""

    def __init__(self) -> None:
        self._weight = np.zeros((2, _NR_CLASSES))  # of values from 0 up, and below
        self._sum = np.zeros((2, _NR_CLASSES))

    def add(self, values: Floats, weights: Floats) -> None:
        below: Flags = values < 0
        if below.any():
            self._add(1, -values[below], weights[below])
            values, weights = values[~below], weights[~below]
        self._add(0, values, weights)

    def _add(self, side: int, values: Floats, weights: Floats) -> None:
        index = _class_of(np.ascontiguousarray(values, np.float64)) - _FIRST_CLASS
        np.clip(index, 0, _NR_CLASSES - 1, out=index)
        self._weight[side] += np.bincount(index, weights=weights, minlength=_NR_CLASSES)
        self._sum[side] += np.bincount(index, weights=weights * values, minlength=_NR_CLASSES)

    @property
    def total_weight(self) -> float:
        return float(self._weight.sum())

    def classes(self) -> tuple[Floats, Floats]:
        """Mean value and weight of each class that has any, ascending."""
        weight = np.concatenate((self._weight[1][::-1], self._weight[0]))
        total = np.concatenate((-self._sum[1][::-1], self._sum[0]))
        some = weight > 0
        return total[some] / weight[some], weight[some]

    def percentiles(self, points: tuple[float, ...]) -> Percentiles:
        """The lowest value that so many percent of the weight do not exceed; empty without values."""
        values, weight = self.classes()
        if len(values) == 0:
            return Percentiles((), ())
        reached = np.cumsum(weight)
        wanted = np.array(points) / 100 * reached[-1] * (1 - 1e-12)
        index = np.minimum(np.searchsorted(reached, wanted, side="left"), len(values) - 1)
        return Percentiles(points, tuple(values[index].tolist()))

    def histogram(self, edges: Floats, *, weight_of_one: float = 1.0) -> Histogram:
        """Weights by bin, divided by `weight_of_one`; values outside belong to the first or last bin."""
        values, weight = self.classes()
        # Rates and ages are products of floats: 3 × 0.1 must not fall below a border at 0.3, nor the other way.
        values = values + np.abs(values) * 1e-9
        index = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
        return Histogram(edges, np.bincount(index, weights=weight, minlength=len(edges) - 1) / weight_of_one)
