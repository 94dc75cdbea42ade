"""Condensing runs: limits, what is conserved, and what stands out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memtherm.core.condense import Runs, condense
from memtherm.units import PAGE_SIZE

ALL = 10**9


def runs_of(
    pages: list[int], rate: list[float], age_s: list[float] | None = None, *, gaps: list[bool] | None = None
) -> Runs:
    """Runs of so many pages one after the other; a hole of a page before those with a gap."""
    holes = np.cumsum(np.array(gaps if gaps is not None else [False] * len(pages), np.int64))
    end = (np.cumsum(np.array(pages, np.int64)) + holes).astype(np.uint64) * np.uint64(PAGE_SIZE)
    size = np.array(pages, np.uint64) * np.uint64(PAGE_SIZE)
    ages = np.array(age_s, np.float64) if age_s is not None else np.zeros(len(pages))
    return Runs(end - size, end, np.array(rate, np.float64), ages, np.ones(len(pages)))


def nr_gaps(runs: Runs) -> int:
    return int((runs.start[1:] != runs.end[:-1]).sum())


@st.composite
def many_runs(draw: st.DrawFn) -> Runs:
    count = draw(st.integers(0, 60))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    runs = runs_of(
        rng.choice([1, 2, 17, 512, 100_000], count).tolist(),
        rng.choice([0, 0, 0.004, 0.2, 1], count).tolist(),
        rng.choice([0, 0.5, 60, 60.5, 3600], count).tolist(),
        gaps=(rng.random(count) < draw(st.sampled_from([0, 0.2, 1]))).tolist(),
    )
    return Runs(runs.start, runs.end, runs.rate, runs.age_s, rng.random(count))


@given(many_runs(), st.integers(1, 70))
def test_invariants(runs: Runs, limit: int) -> None:
    result = condense(runs, limit=limit)
    assert len(result) <= max(limit, nr_gaps(runs) + 1)
    assert len(result) == len(runs) or len(result) >= min(limit, len(condense(runs, limit=ALL)))
    assert nr_gaps(result) == nr_gaps(runs)
    assert (result.start < result.end).all()
    assert (result.start[1:] >= result.end[:-1]).all()
    for name in ("rate", "age_s", "coverage"):
        before, after = getattr(runs, name), getattr(result, name)
        assert (after * result.size_bytes).sum() == pytest.approx((before * runs.size_bytes).sum())
        assert after.min(initial=0) >= before.min(initial=0) - 1e-9
        assert after.max(initial=0) <= before.max(initial=0) + 1e-9
    # Nothing but joins: every border is one that was there.
    assert np.isin(result.start, runs.start).all()
    assert np.isin(result.end, runs.end).all()
    again = condense(runs, limit=limit)
    assert all((getattr(again, name) == getattr(result, name)).all() for name in Runs.__dataclass_fields__)


def test_what_tells_the_same_is_one_run_and_nothing_else_is_joined_without_need() -> None:
    runs = runs_of([3, 4, 5, 1, 9], [0, 0, 0.5, 0.5, 0], [7, 7, 1, 2, 7])
    result = condense(runs, limit=ALL)
    assert (result.size_bytes // PAGE_SIZE).tolist() == [7, 5, 1, 9]
    assert result.rate.tolist() == [0, 0.5, 0.5, 0]
    assert result.age_s.tolist() == [7, 1, 2, 7]


def test_a_run_that_stays_alone_keeps_its_values_to_the_last_bit() -> None:
    rates = [0.1 + 0.2, 1 / 3, 0.7, 0.0]
    result = condense(runs_of([7, 3, 11, 5], rates, [0.1, 0.7, 1 / 3, 1e9 / 7]), limit=3)
    assert len(result) == 3
    assert {*result.rate.tolist()} >= {0.7, 0.0}


@pytest.mark.parametrize("nr_noise", [1_000, 100_000])
def test_one_hot_page_stands_out_of_noise_that_is_touched_now_and_then(nr_noise: int) -> None:
    """Hot at 100 %, among pages of which each was found in one look of twenty or in none."""
    rng = np.random.default_rng(nr_noise)
    rate = rng.choice([0, 0.05], nr_noise)
    hot = rng.choice(nr_noise, 20, replace=False)
    rate[hot] = 1
    result = condense(runs_of([1] * nr_noise, rate.tolist(), rng.choice([0.1, 0.2, 5], nr_noise).tolist()), limit=1000)
    assert len(result) <= 1000
    found = result.start[result.rate >= 0.9] // np.uint64(PAGE_SIZE)
    assert found.tolist() == sorted(hot.tolist())


def test_hot_pages_stand_out_of_idle_memory_of_many_ages() -> None:
    rng = np.random.default_rng(1)
    pages = rng.integers(1, 5000, 50_000)
    ages, rate = rng.uniform(0, 3600, len(pages)), np.zeros(len(pages))
    hot = np.sort(rng.choice(len(pages), 30, replace=False))
    rate[hot], pages[hot], ages[hot] = 0.8, 1, 0
    runs = runs_of(pages.tolist(), rate.tolist(), ages.tolist())
    result = condense(runs, limit=1000)
    assert len(result) == 1000
    accessed = result.take(np.flatnonzero(result.rate > 0))
    assert accessed.start.tolist() == runs.start[hot].tolist()
    assert set(accessed.rate.tolist()) == {0.8}
    assert set((accessed.size_bytes // PAGE_SIZE).tolist()) == {1}


def test_idle_memory_stays_idle_before_ages_stay_apart() -> None:
    """A page that was touched once, in 1 GiB that a scheme for idle memory waits for."""
    rng = np.random.default_rng(0)
    pages = [*[1000] * 300, 262_144, 1, 262_144]
    rate, ages = [*[0.0] * 301, 0.05, 0.0], [*rng.uniform(1, 3000, 300).tolist(), 300.0, 0.0, 300.0]
    result = condense(runs_of(pages, rate, ages), limit=20)
    assert result.rate[-3:].tolist() == [0, 0.05, 0]
    assert (result.size_bytes[-2:] // PAGE_SIZE).tolist() == [1, 262_144]


def test_where_all_is_noise_its_mean_remains() -> None:
    """What no limit can keep: pages that are hot and idle in turn.  Their regions tell the share."""
    result = condense(runs_of([1] * 100_000, [0, 1] * 50_000), limit=100)
    assert len(result) == 100
    large = result.size_bytes > PAGE_SIZE
    assert result.size_bytes[large].sum() > 99_000 * PAGE_SIZE
    assert abs(result.rate[large] - 0.5).max() < 0.02


def test_ends_of_a_large_step_stay_where_they_are() -> None:
    """A step of 512 MiB among noise: the border is kept to the page."""
    rng = np.random.default_rng(0)
    low, high = rng.choice([0, 0.05, 0.1], 50_000), rng.choice([0.9, 0.95, 1], 50_000)
    result = condense(runs_of([1] * 100_000, [*low.tolist(), *high.tolist()]), limit=50)
    border = np.flatnonzero(result.start == np.uint64(50_000 * PAGE_SIZE))
    assert len(border) == 1
    assert result.rate[: border[0]].max() < 0.2
    assert result.rate[border[0] :].min() > 0.8


def test_a_million_runs() -> None:
    rng = np.random.default_rng(0)
    count = 1_000_000
    end = np.cumsum(rng.integers(1, 100, count)).astype(np.uint64) * np.uint64(PAGE_SIZE)
    start = np.concatenate([end[:1] * np.uint64(0), end[:-1]])
    result = condense(Runs(start, end, rng.random(count), rng.random(count), np.ones(count)), limit=1000)
    assert len(result) == 1000


def test_nothing() -> None:
    assert len(condense(Runs.empty(), limit=1)) == 0


def test_cut_to() -> None:
    runs = runs_of([10, 10], [0.25, 0.5], [3, 4])
    cut = runs.cut_to(
        [(2 * PAGE_SIZE, 4 * PAGE_SIZE), (8 * PAGE_SIZE, 12 * PAGE_SIZE), (20 * PAGE_SIZE, 30 * PAGE_SIZE)]
    )
    assert (cut.start // np.uint64(PAGE_SIZE)).tolist() == [2, 8, 10]
    assert (cut.end // np.uint64(PAGE_SIZE)).tolist() == [4, 10, 12]
    assert cut.rate.tolist() == [0.25, 0.25, 0.5]
    assert cut.age_s.tolist() == [3, 3, 4]
    assert len(runs.cut_to([])) == 0
