"""Which regions come first when a quota does not reach for all (damon-spec §2.6)."""

import numpy as np
from numpy.typing import NDArray

from memtherm.core.quota import Weights
from memtherm.core.ranges import Counts
from memtherm.core.scheme import Action

MAX_SCORE = 99
_AGE_BITS = 32
_HOT_FIRST = (Action.LRU_PRIO, Action.MIGRATE_HOT, Action.HUGEPAGE, Action.COLLAPSE, Action.WILLNEED)
_COLD_FIRST = (Action.PAGEOUT, Action.COLD, Action.LRU_DEPRIO, Action.MIGRATE_COLD, Action.NOHUGEPAGE)


def scores(action: Action, weights: Weights, *, access_rate: NDArray[np.float64], age_s: NDArray[np.float64]) -> Counts:
    """The priority of each region for an action, 0..99; the same for all where the action has no order.

    The kernel orders pageout, migration and the LRU actions only; here the other actions are ordered
    as well, since a quota of theirs is not better spent on the lowest addresses.
    """
    if action in _HOT_FIRST:
        return hot_scores(weights, access_rate=access_rate, age_s=age_s)
    if action in _COLD_FIRST:
        return MAX_SCORE - hot_scores(weights, access_rate=access_rate, age_s=age_s)
    return np.full(len(access_rate), MAX_SCORE, np.int64)


def hot_scores(weights: Weights, *, access_rate: NDArray[np.float64], age_s: NDArray[np.float64]) -> Counts:
    """How hot each region is, 0..99, in the kernel's whole-number arithmetic.

    A long age makes a hot region hotter and a cold one colder, by its logarithm.
    """
    # 29 % must be 29, and not 28.999999999999996.
    rate = np.floor(access_rate * 100 + 1e-6).astype(np.int64)
    whole_s = np.floor(age_s + 1e-6)
    log = np.minimum(np.floor(np.log2(np.maximum(whole_s, 1))) + 1, _AGE_BITS).astype(np.int64)
    log = np.where(whole_s >= 1, log, 0)
    age = (np.where(rate == 0, -log, log) + _AGE_BITS) * 100 // _AGE_BITS // 2
    hotness = weights.access_rate * rate + weights.age * age
    total = weights.access_rate + weights.age
    if total:
        hotness //= total
    score: Counts = np.clip(hotness * MAX_SCORE // 100, 0, MAX_SCORE)
    return score


def lowest_score(score: Counts, size_bytes: Counts, *, effective_bytes: int) -> int:
    """The score that a region needs to be treated: from the highest down, those that fill the quota."""
    histogram = np.zeros(MAX_SCORE + 1)
    np.add.at(histogram, score, size_bytes)
    from_top = np.cumsum(histogram[::-1])
    enough = np.flatnonzero(from_top >= effective_bytes)
    return MAX_SCORE - int(enough[0]) if len(enough) else 0
