"""Many runs of pages → few, losing as little as can be of what they tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from memtherm.core.ranges import Addresses, Counts, Flags, intersect, sizes
from memtherm.core.regions import Range
from memtherm.units import PAGE_SIZE

_Numbers = NDArray[np.float64]

# How much a difference of ages counts beside one of rates: twice the age as much as a twentieth of the rate.
_AGE_WEIGHT = 0.05
# An idle run that is joined with an accessed one is idle no longer: as bad as another quarter of the rate.
_ACCESSED_STEP = 0.25
# Sizes count by this power.  By their full size (Ward's measure) one hot page is nothing beside blocks of idle
# memory whose ages differ: of 30 such pages among 50,000 blocks not one was left in 1000 regions; so all 30 are.
_SIZE_POWER = 0.25


@dataclass(frozen=True)
class Runs:
    """Neighbouring pages of like rate and age, in address order, disjoint.

    Attributes:
        start, end: addresses (uint64).
        rate: access rate, 0..1; age_s: seconds; coverage: share of the looks that could tell, 0..1.
    """

    start: Addresses
    end: Addresses
    rate: _Numbers
    age_s: _Numbers
    coverage: _Numbers

    def __len__(self) -> int:
        return len(self.start)

    @classmethod
    def empty(cls) -> Runs:
        none, numbers = np.zeros(0, np.uint64), np.zeros(0)
        return cls(none, none, numbers, numbers, numbers)

    @classmethod
    def concatenate(cls, parts: Sequence[Runs]) -> Runs:
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))

    @property
    def size_bytes(self) -> Counts:
        return sizes(self.start, self.end)

    def take(self, rows: Counts) -> Runs:
        return Runs(*(getattr(self, field.name)[rows] for field in fields(self)))

    def cut_to(self, ranges: Sequence[Range]) -> Runs:
        """The parts of the runs that lie in the ranges."""
        bounds = np.array(ranges, np.uint64).reshape(-1, 2)
        start, end, row, _ = intersect(self.start, self.end, bounds[:, 0], bounds[:, 1])
        return Runs(start, end, self.rate[row], self.age_s[row], self.coverage[row])


def condense(runs: Runs, *, limit: int) -> Runs:
    """At most `limit` runs, or as many as there are gaps between them.

    Neighbours that tell the same are joined first.  Then, while there are too many, those whose
    join loses least, about half of the surplus at a time: the means
    change as runs grow.  One hot page in idle memory loses much by a join, so it stays.
    """
    runs = _join(runs, _loss(runs) > 0)
    while len(runs) > limit:
        loss = _loss(runs)
        joinable = np.isfinite(loss)
        surplus = min(len(runs) - limit, int(joinable.sum()))
        if surplus == 0:
            break
        count = max(surplus // 2, 1)
        border = np.partition(loss[joinable], count - 1)[count - 1]
        keep = loss > border
        # Of many equal losses only as many as are needed: else all would be joined at once.
        equal = np.flatnonzero(loss == border)
        spared = len(equal) - (count - int((loss < border).sum()))
        if spared > 0:
            keep[equal[np.linspace(0, len(equal) - 1, spared).astype(np.int64)]] = True
        runs = _join(runs, keep)
    return runs


def _loss(runs: Runs) -> _Numbers:
    """For each run but the first, what its join with the one before it would lose; infinite across a gap."""
    pages = runs.size_bytes / PAGE_SIZE
    age = _AGE_WEIGHT * np.log2(runs.age_s + 1)
    distance = np.diff(runs.rate) ** 2 + np.diff(age) ** 2
    loss = (pages[1:] * pages[:-1] / (pages[1:] + pages[:-1])) ** _SIZE_POWER * distance
    is_idle = runs.rate == 0
    idle_pages = np.where(is_idle[1:], pages[1:], pages[:-1])
    loss += np.where(is_idle[1:] != is_idle[:-1], _ACCESSED_STEP**2 * idle_pages**_SIZE_POWER, 0)
    touches: Flags = runs.start[1:] == runs.end[:-1]
    return np.where(touches, loss, np.inf)


def _join(runs: Runs, keep: Flags) -> Runs:
    """Runs joined where `keep` (for each but the first) is false; means are by bytes."""
    if len(runs) < 2 or keep.all():
        return runs
    first = np.flatnonzero(np.append(True, keep))
    last = np.append(first[1:], len(runs)) - 1
    weight = runs.size_bytes.astype(np.float64)
    total = np.add.reduceat(weight, first)

    def mean(column: _Numbers) -> _Numbers:
        joined: _Numbers = np.add.reduceat(column * weight, first) / total
        # A run that stays alone keeps its value to the last bit.
        return np.where(first == last, column[first], joined)

    return Runs(runs.start[first], runs.end[last], mean(runs.rate), mean(runs.age_s), mean(runs.coverage))
