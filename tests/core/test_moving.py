"""Access counts in the middle of a window: the kernel's vectors (damon-spec §6.1, 12 to 14), and what regions tell."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memtherm.core.attributes import MonitoringAttributes
from memtherm.core.moving import left_of_window, moving_sum
from memtherm.core.ranges import Counts
from memtherm.core.sampling import Sampler
from memtherm.units import PAGE_SIZE

ATTRIBUTES = MonitoringAttributes(sampling_interval_s=0.01, aggregation_interval_s=0.1)


def one(value: int) -> Counts:
    return np.array([value], np.int64)


@pytest.mark.parametrize(
    ("current", "last", "left", "expected"),
    [(0, 49, 10000, 49), (3, 10, 7000, 10), (3, 10, 5000, 8), (32, 100, 1000, 42), (42, 49, 0, 42)],
)
def test_mvsum(current: int, last: int, left: int, expected: int) -> None:
    assert moving_sum(one(current), one(last), left).tolist() == [expected]


@pytest.mark.parametrize(
    ("passed", "end", "current", "last", "expected"),
    [(0, 10, 5, 3, 3), (0, 10, 0, 7, 7), (5, 10, 3, 10, 8), (8, 10, 3, 10, 5), (10, 10, 42, 49, 42)],
)
def test_nr_accesses_mvsum(passed: int, end: int, current: int, last: int, expected: int) -> None:
    left = left_of_window(passed, end)
    assert moving_sum(one(current), one(last), left).tolist() == [expected]


def test_moving_sum_is_near_the_older_form() -> None:
    """What 6.7 to 7.2 kept up sample by sample, in 1/10000: a tenth of the last window's sum goes, the new comes."""
    older, last = [50000], 5
    new_values = [1, 0, 1, 0, 0, 0, 1, 0, 0, 0]
    for value in new_values:
        older.append(older[-1] - last * 10000 // 10 + value * 10000)
    assert older[1:] == [55000, 50000, 55000, 50000, 45000, 40000, 45000, 40000, 35000, 30000]
    for passed in range(1, 11):
        found = moving_sum(one(sum(new_values[:passed])), one(last), left_of_window(passed, 10))
        assert found.tolist() == [older[passed] // 10000]


def test_a_window_that_takes_longer_than_it_should_has_nothing_left() -> None:
    assert left_of_window(12, 10) == 0
    assert left_of_window(0, 1) == 10_000
    assert left_of_window(1, 1) == 0


def sampler_after(counts: list[int]) -> Sampler:
    """Regions of which each was found accessed so many times of ten in the window before."""
    sampler = Sampler(ATTRIBUTES, rng=np.random.default_rng(0), follows_mappings=True)
    sampler.set_ranges([(index * 2 * PAGE_SIZE, (index * 2 + 1) * PAGE_SIZE) for index in range(len(counts))])
    for number in range(10):
        sampler.record(np.array(counts) > number)
    sampler.close_window()
    return sampler


@given(counts=st.lists(st.integers(0, 10), min_size=1, max_size=5), data=st.data())
def test_moving_regions(counts: list[int], data: st.DataObject) -> None:
    sampler = sampler_after(counts)
    complete, moving = sampler.regions(), sampler.moving_regions()
    assert moving.access_rate.tolist() == complete.access_rate.tolist()
    sampler.open_window()
    assert sampler.moving_regions().access_rate.tolist() == complete.access_rate.tolist()
    found = np.zeros(len(counts), np.int64)
    for passed in range(1, 11):
        accessed = np.array(data.draw(st.lists(st.booleans(), min_size=len(counts), max_size=len(counts))))
        sampler.record(accessed)
        found += accessed
        moving = sampler.moving_regions()
        assert moving.nr_accesses.tolist() == (found + np.array(counts) * (10 - passed) // 10).tolist()
        assert (moving.access_rate == moving.nr_accesses / 10).all()
        assert moving.age_s.tolist() == complete.age_s.tolist()
    sampler.close_window()
    assert sampler.moving_regions().access_rate.tolist() == sampler.regions().access_rate.tolist()
    assert sampler.regions().nr_accesses.tolist() == found.tolist()
