"""Ages that are laid over regions agree with a reckoning page by page."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from memtherm.core.age_resets import AgeResets
from memtherm.core.snapshot import Regions

PAGES = 24
PAGE = 4096
SPANS = st.tuples(st.integers(0, PAGES - 1), st.integers(1, 8)).map(lambda one: (one[0], min(PAGES, sum(one))))


def regions_of(borders: list[int], ages: list[float], target: int = 0) -> Regions:
    start = np.array(borders[:-1], np.uint64) * np.uint64(PAGE)
    end = np.array(borders[1:], np.uint64) * np.uint64(PAGE)
    count = len(start)
    return Regions(
        np.full(count, target, np.int32), start, end, np.arange(count), np.linspace(0, 1, count),
        np.array(ages[:count]), np.zeros(count),
    )  # fmt: skip


def addresses(*spans: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    table = np.array(spans, np.uint64).reshape(-1, 2) * np.uint64(PAGE)
    return table[:, 0], table[:, 1]


def test_a_part_that_was_reset_has_its_own_age() -> None:
    resets = AgeResets()
    resets.note(0, *addresses((2, 4)), 100.0)
    result = resets.laid_over(regions_of([0, 8, 10], [50.0, 1.0]), 103.0)
    assert (result.start // np.uint64(PAGE)).tolist() == [0, 2, 4, 8]
    assert result.age_s.tolist() == [50.0, 3.0, 50.0, 1.0]
    assert result.nr_accesses.tolist() == [0, 0, 0, 1]


def test_a_younger_region_keeps_its_age_and_other_targets_theirs() -> None:
    resets = AgeResets()
    resets.note(1, *addresses((0, 8)), 100.0)
    assert resets.laid_over(regions_of([0, 8], [50.0]), 103.0).age_s.tolist() == [50.0]
    assert resets.laid_over(regions_of([0, 8], [2.0], target=1), 103.0).age_s.tolist() == [2.0]
    resets.forget(1)
    assert resets.laid_over(regions_of([0, 8], [50.0], target=1), 103.0).age_s.tolist() == [50.0]


def test_without_regions_nothing_happens() -> None:
    assert len(AgeResets().laid_over(regions_of([0], []), 1.0)) == 0


@given(resets=st.lists(SPANS, max_size=8), cuts=st.sets(st.integers(1, PAGES - 1)), age=st.floats(0, 20))
def test_each_page_has_the_age_since_its_last_reset(resets: list[tuple[int, int]], cuts: set[int], age: float) -> None:
    laid = AgeResets()
    expected = np.full(PAGES, age)
    for second, (first, end) in enumerate(resets):
        laid.note(0, *addresses((first, end)), float(second))
        expected[first:end] = min(age, 10.0 - second)
    borders = [0, *sorted(cuts), PAGES]
    result = laid.laid_over(regions_of(borders, [age] * PAGES), 10.0)
    sizes = ((result.end - result.start) // np.uint64(PAGE)).astype(np.int64)
    assert np.repeat(result.age_s, sizes).tolist() == expected.tolist()
    assert result.start[0] == 0
    assert (result.start[1:] == result.end[:-1]).all()
