"""Priorities (damon-spec §2.6), with the vectors of §6.5."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memtherm.core.priority import MAX_SCORE, hot_scores, lowest_score, scores
from memtherm.core.quota import Weights
from memtherm.core.scheme import Action

HOT = (Action.LRU_PRIO, Action.MIGRATE_HOT, Action.HUGEPAGE, Action.COLLAPSE, Action.WILLNEED)
COLD = (Action.PAGEOUT, Action.COLD, Action.LRU_DEPRIO, Action.MIGRATE_COLD, Action.NOHUGEPAGE)

HOT_SCORES = [
    (0, 0, 1, 1, 24), (20, 0, 1, 1, 74), (10, 0, 1, 1, 49), (0, 10, 1, 1, 23), (0, 100, 1, 1, 20),
    (0, 1200, 1, 1, 18), (0, 36000, 1, 1, 14), (20, 1200, 1, 1, 79), (5, 600, 1, 1, 41), (20, 0, 1, 0, 99),
    (0, 1200, 0, 1, 38), (20, 1200, 0, 1, 59), (10, 1200, 0, 0, 0),
]  # fmt: skip
"""nr_accesses of 20, age in windows of 0.1 s, weights of rate and age, score."""


@pytest.mark.parametrize(("nr", "age", "rate_weight", "age_weight", "expected"), HOT_SCORES)
def test_hot_score(nr: int, age: int, rate_weight: int, age_weight: int, expected: int) -> None:
    weights = Weights(access_rate=rate_weight, age=age_weight)
    columns = {"access_rate": np.array([nr / 20]), "age_s": np.array([age * 0.1])}
    assert hot_scores(weights, **columns).tolist() == [expected]
    for action in HOT:
        assert scores(action, weights, **columns).tolist() == [expected]
    for action in COLD:
        assert scores(action, weights, **columns).tolist() == [99 - expected]
    assert scores(Action.STAT, weights, **columns).tolist() == [99]


def test_each_action_has_its_order() -> None:
    assert {*HOT, *COLD, Action.STAT} == set(Action)


def naive_hot_score(nr: int, samples: int, age_s: int, rate_weight: int, age_weight: int) -> int:
    """The kernel's arithmetic, number by number."""
    rate = nr * 100 // samples
    log = min(age_s.bit_length(), 32)
    age = ((-log if rate == 0 else log) + 32) * 100 // 32 // 2
    hotness = rate_weight * rate + age_weight * age
    if rate_weight + age_weight:
        hotness //= rate_weight + age_weight
    return min(max(hotness * 99 // 100, 0), 99)


@given(
    samples=st.integers(1, 1000),
    share=st.floats(0, 1),
    age_s=st.integers(0, 2**34),
    rate_weight=st.integers(0, 1000),
    age_weight=st.integers(0, 1000),
)
def test_scores_are_those_of_whole_numbers(
    samples: int, share: float, age_s: int, rate_weight: int, age_weight: int
) -> None:
    nr = round(share * samples)
    found = hot_scores(
        Weights(access_rate=rate_weight, age=age_weight),
        access_rate=np.array([nr / samples]),
        age_s=np.array([age_s], np.float64),
    )
    assert found.tolist() == [naive_hot_score(nr, samples, age_s, rate_weight, age_weight)]


def test_the_weight_of_the_size_counts_for_nothing() -> None:
    columns = {"access_rate": np.array([0.2, 1.0]), "age_s": np.array([5.0, 60.0])}
    with_size = hot_scores(Weights(size=1000, access_rate=2, age=3), **columns)
    assert with_size.tolist() == hot_scores(Weights(access_rate=2, age=3), **columns).tolist()


def test_the_largest_weights_do_not_overflow() -> None:
    most = 2**32 - 1
    columns = {"access_rate": np.array([1.0, 0.0]), "age_s": np.array([2.0**33, 2.0**33])}
    assert hot_scores(Weights(access_rate=most, age=most), **columns).tolist() == [99, 0]


regions = st.lists(st.tuples(st.integers(0, MAX_SCORE), st.integers(0, 50)), min_size=1, max_size=40)


@given(regions=regions, effective=st.integers(1, 500))
def test_lowest_score(regions: list[tuple[int, int]], effective: int) -> None:
    """From the highest score down those that fill the quota; all where they do not."""
    score = np.array([one for one, _ in regions], np.int64)
    size = np.array([bytes_ for _, bytes_ in regions], np.int64)
    lowest = lowest_score(score, size, effective_bytes=effective)
    if size.sum() < effective:
        assert lowest == 0
    else:
        assert size[score >= lowest].sum() >= effective > size[score > lowest].sum()


def test_lowest_score_of_nothing() -> None:
    none = np.zeros(0, np.int64)
    assert lowest_score(none, none, effective_bytes=4096) == 0
