"""The access pattern of a scheme (damon-spec §2.1): inclusive bounds, and none where none is given."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memtherm.core.pattern import AccessPattern, Bounds
from memtherm.core.scheme import Action, Destination, Scheme
from memtherm.core.scheme_state import SchemeState
from memtherm.core.snapshot import Regions
from memtherm.core.watermarks import Watermarks
from memtherm.errors import InvalidInput

SAMPLES = 20
WINDOW_S = 0.1


def regions_of(*, size: list[int] | None = None, nr: list[int] | None = None, age: list[int] | None = None) -> Regions:
    """Regions by size in bytes, positive samples of 20, and age in windows of 0.1 s, as the sampler gives them."""
    count = max(len(column) for column in (size, nr, age) if column is not None)
    size = size or [4096] * count
    nr_accesses = np.array(nr or [0] * count, np.int64)
    end = np.cumsum(np.array(size, np.uint64), dtype=np.uint64)
    return Regions(
        target=np.zeros(count, np.int32),
        start=end - np.array(size, np.uint64),
        end=end,
        nr_accesses=nr_accesses,
        access_rate=nr_accesses / SAMPLES,
        age_s=np.array(age or [0] * count, np.float64) * WINDOW_S,
        rate_error=np.zeros(count),
    )


def matching(pattern: AccessPattern, regions: Regions) -> list[bool]:
    return [bool(one) for one in pattern.matches(regions)]


def test_bounds_are_inclusive() -> None:
    size = regions_of(size=[4096, 8192, 12288, 16384])
    assert matching(AccessPattern(size_bytes=Bounds(8192, 12288)), size) == [False, True, True, False]
    rate = regions_of(nr=[0, 1, 2, 20])
    assert matching(AccessPattern(access_rate=Bounds(0.05, 0.1)), rate) == [False, True, True, False]
    age = regions_of(age=[0, 1, 2, 3])
    assert matching(AccessPattern(age_s=Bounds(0.1, 0.2)), age) == [False, True, True, False]


def test_zero_is_an_ordinary_bound() -> None:
    """Not "no bound", which it meant in 2020 (damon-spec §2.2)."""
    assert matching(AccessPattern(access_rate=Bounds(0, 0)), regions_of(nr=[0, 1])) == [True, False]
    assert matching(AccessPattern(age_s=Bounds(None, 0)), regions_of(age=[0, 1])) == [True, False]


def test_missing_bounds_are_no_bounds() -> None:
    regions = regions_of(size=[4096, 1 << 46], nr=[0, 20], age=[0, 10**9])
    assert matching(AccessPattern(), regions) == [True, True]
    assert matching(AccessPattern(size_bytes=Bounds(4097)), regions) == [False, True]
    assert matching(AccessPattern(age_s=Bounds(None, 100)), regions) == [True, False]


def test_all_three_must_fit() -> None:
    pattern = AccessPattern(size_bytes=Bounds(8192), access_rate=Bounds(None, 0.05), age_s=Bounds(0.2))
    regions = regions_of(size=[8192, 4096, 8192, 8192], nr=[1, 1, 2, 1], age=[2, 2, 2, 1])
    assert matching(pattern, regions) == [True, False, False, False]


@given(windows=st.integers(0, 10**7), window_ms=st.integers(1, 60_000))
def test_rounding_does_not_move_age_bounds(windows: int, window_ms: int) -> None:
    """3 windows of 0.1 s are 0.30000000000000004 s in floating point, and still at most 0.3 s."""
    bound_s = windows * window_ms / 1000
    ages_s = np.array([windows - 1, windows, windows + 1]) * (window_ms / 1000)
    assert Bounds(None, bound_s).contain(ages_s).tolist() == [True, True, False]
    assert Bounds(bound_s, None).contain(ages_s).tolist() == [False, True, True]


@given(samples=st.integers(1, 100_000), data=st.data())
def test_rounding_does_not_move_rate_bounds(samples: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, samples))
    rates = np.arange(count - 1, count + 2) / samples
    percent = 100 * count / samples
    assert Bounds(None, percent / 100).contain(rates).tolist() == [True, True, False]
    assert Bounds(percent / 100, None).contain(rates).tolist() == [False, True, True]


@pytest.mark.parametrize("bound", [4096, 1 << 40, 8 << 40, 1 << 52])
def test_size_bounds_are_exact(bound: int) -> None:
    """No room for rounding, which would be pages for a bound of some TiB."""
    values = np.array([bound - 1, bound, bound + 1], np.int64)
    assert Bounds(None, bound).contain(values).tolist() == [True, True, False]
    assert Bounds(bound, None).contain(values).tolist() == [False, True, True]


def test_the_two_examples_of_2020() -> None:
    """Page out over 100 MiB with low access for over 10 min; huge pages for over 2 MiB with high access for 2 s."""
    page_out = AccessPattern(size_bytes=Bounds(100 << 20), access_rate=Bounds(None, 0.05), age_s=Bounds(600))
    huge = AccessPattern(size_bytes=Bounds(2 << 20), access_rate=Bounds(0.8), age_s=Bounds(2))
    regions = regions_of(
        size=[100 << 20, (100 << 20) - 4096, 200 << 20, 2 << 20, 1 << 20],
        nr=[1, 0, 0, 16, 20],
        age=[6000, 6000, 5999, 20, 20],
    )
    assert matching(page_out, regions) == [True, False, False, False, False]
    assert matching(huge, regions) == [False, False, False, True, False]


@pytest.mark.parametrize("name", ["size_bytes", "access_rate", "age_s"])
@pytest.mark.parametrize("bounds", [Bounds(0.5, 0.4), Bounds(-1), Bounds(None, -1), Bounds(float("nan"))])
def test_impossible_bounds(name: str, bounds: Bounds) -> None:
    with pytest.raises(InvalidInput, match=name) as problem:
        AccessPattern(**{name: bounds})
    assert problem.value.hint


def test_a_rate_is_at_most_one() -> None:
    AccessPattern(access_rate=Bounds(1, 1))
    with pytest.raises(InvalidInput, match="100 %"):
        AccessPattern(access_rate=Bounds(None, 1.01))


def test_the_actions_are_those_of_the_kernel() -> None:
    """damon-spec §2.4, in the kernel's order but for `stat`, which it has last as well."""
    assert {action.value for action in Action} == {
        "willneed", "cold", "pageout", "hugepage", "nohugepage", "collapse",
        "lru_prio", "lru_deprio", "migrate_hot", "migrate_cold", "stat",
    }  # fmt: skip


@pytest.mark.parametrize(
    "values",
    [
        {"action": Action.PAGEOUT, "destinations": (Destination(1),)},
        {"action": Action.MIGRATE_HOT, "destinations": (Destination(-1),)},
        {"action": Action.MIGRATE_HOT, "destinations": (Destination(1, -1), Destination(0, 5))},
        {"action": Action.MIGRATE_HOT, "destinations": (Destination(1, 2**32),)},
        {"action": Action.MIGRATE_COLD, "destinations": (Destination(1, 0), Destination(0, 0))},
        {"action": Action.STAT, "apply_interval_s": -1.0},
        {"action": Action.STAT, "apply_interval_s": float("nan")},
        {"action": Action.STAT, "max_nr_snapshots": -1},
    ],
)
def test_schemes_without_a_meaning(values: dict[str, object]) -> None:
    with pytest.raises(InvalidInput) as problem:
        Scheme(**values)  # type: ignore[arg-type]
    assert problem.value.hint


def test_commit_pageout_and_commit_migrate_hot() -> None:
    """The kernel's vectors: pattern, interval, watermarks and node are those of the new scheme."""
    for action, destinations in ((Action.PAGEOUT, ()), (Action.MIGRATE_HOT, (Destination(5),))):
        old, new = (
            Scheme(
                action=action,
                pattern=AccessPattern(size_bytes=Bounds(step, step + 1), age_s=Bounds(step + 4, step + 5)),
                apply_interval_s=step,
                watermarks=Watermarks(high=0.5, mid=0.4, low=step / 10),
                destinations=chosen,
            )
            for step, chosen in ((1, ()), (2, destinations))
        )
        state = SchemeState(old)
        state.replace(new)
        assert state.scheme == new
        assert state.watermarks is not None
        assert state.watermarks.watermarks == new.watermarks
        state.postpone(0.0)
        assert (state.is_due(1.9, window_ended=False), state.is_due(2.0, window_ended=False)) == (False, True)


def test_a_scheme_without_a_pattern_means_everything() -> None:
    assert matching(Scheme(action=Action.STAT).pattern, regions_of(nr=[0, 20])) == [True, True]
