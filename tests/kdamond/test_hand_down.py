"""What the kernel can do of a policy's schemes, in its own units, and why the rest stays with us."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memtherm.core.filters import Filter, FilterKind
from memtherm.core.goals import Goal, GoalMetric, Tuner
from memtherm.core.pattern import AccessPattern, Bounds
from memtherm.core.quota import Quota, Weights
from memtherm.core.scheme import Action, Destination, Scheme
from memtherm.core.watermarks import Watermarks
from memtherm.kdamond.features import Feature, KernelFeatures
from memtherm.kdamond.hand_down import Situation, hand_down
from memtherm.kdamond.parameters import (
    Intervals,
    KernelBounds,
    KernelFilter,
    KernelFilterKind,
    KernelGoal,
    KernelMetric,
    KernelScheme,
    KernelWatermarkMetric,
    Operations,
)

MIB = 2**20
EVERYTHING = KernelFeatures(present=frozenset(Feature))
NEWEST = Situation(operations=Operations.VADDR, features=EVERYTHING)
PHYSICAL = replace(NEWEST, operations=Operations.PADDR)
COLD = AccessPattern(size_bytes=Bounds(4096, None), access_rate=Bounds(0, 0), age_s=Bounds(120, None))
PAGEOUT = Scheme(name="cold", action=Action.PAGEOUT, pattern=COLD)


def without(*features: Feature, situation: Situation = NEWEST) -> Situation:
    absent = frozenset(features)
    return replace(situation, features=KernelFeatures(present=frozenset(Feature) - absent, absent=absent))


def handed(scheme: Scheme, situation: Situation = NEWEST) -> KernelScheme:
    result = hand_down(scheme, situation)
    assert isinstance(result, KernelScheme), result
    return result


def reason(scheme: Scheme, situation: Situation = NEWEST) -> str:
    result = hand_down(scheme, situation)
    assert isinstance(result, str), result
    return result


def test_bounds_become_samples_and_windows_of_the_intervals_of_now() -> None:
    kernel = handed(PAGEOUT)
    assert kernel.action is Action.PAGEOUT
    assert kernel.size_bytes == KernelBounds(4096, None)
    assert kernel.nr_accesses == KernelBounds(0, 0)
    assert kernel.age_windows == KernelBounds(1200, None)
    slower = replace(NEWEST, intervals=Intervals(sampling_interval_s=0.1, aggregation_interval_s=2.0))
    assert handed(PAGEOUT, slower).age_windows == KernelBounds(60, None)


@given(
    low=st.integers(0, 20),
    high=st.integers(0, 20),
    age=st.integers(0, 10_000),
    window_ms=st.sampled_from([20, 100, 700]),
)
def test_bounds_on_a_whole_count_hold_that_count(low: int, high: int, age: int, window_ms: int) -> None:
    """A bound as a person would write it, in percent and seconds, must not lose the count that it means."""
    low, high = min(low, high), max(low, high)
    window_s = window_ms / 1000
    pattern = AccessPattern(access_rate=Bounds(low / 20, high / 20), age_s=Bounds(age * window_s, age * window_s))
    intervals = Intervals(sampling_interval_s=window_s / 20, aggregation_interval_s=window_s)
    kernel = handed(Scheme(action=Action.STAT, pattern=pattern), replace(NEWEST, intervals=intervals))
    assert kernel.nr_accesses == KernelBounds(low, high)
    assert kernel.age_windows == KernelBounds(age, age)


def test_bounds_between_two_counts_hold_only_what_lies_within() -> None:
    pattern = AccessPattern(access_rate=Bounds(0.01, 0.99), age_s=Bounds(0.25, 0.55))
    kernel = handed(Scheme(action=Action.STAT, pattern=pattern))
    assert kernel.nr_accesses == KernelBounds(1, 19)
    assert kernel.age_windows == KernelBounds(3, 5)


def test_a_scheme_without_bounds_fits_everything_and_not_a_fresh_directorys_nothing() -> None:
    kernel = handed(Scheme(action=Action.STAT))
    assert (kernel.size_bytes, kernel.nr_accesses, kernel.age_windows) == (KernelBounds(0, None),) * 3


def test_quota_goals_and_watermarks_are_in_the_kernels_units() -> None:
    goals = (
        Goal(metric=GoalMetric.MEMORY_PRESSURE, target=0.01),
        Goal(metric=GoalMetric.FREE_MEMORY, target=0.2, node=0),
        Goal(metric=GoalMetric.USED_MEMORY, target=0.5, node=1, cgroup="/a"),
        Goal(metric=GoalMetric.ACTIVE_MEMORY, target=0.4),
    )
    quota = Quota(
        size_bytes=128 * MIB, time_s=0.01, reset_interval_s=1.0, weights=Weights(age=1), goals=goals,
        tuner=Tuner.TEMPORAL, fail_charge=(1, 1024),
    )  # fmt: skip
    watermarks = Watermarks(high=0.5, mid=0.4, low=0.2, interval_s=5)
    kernel = handed(replace(PAGEOUT, quota=quota, watermarks=watermarks, apply_interval_s=1.0, max_nr_snapshots=7))
    assert (kernel.quota.size_bytes, kernel.quota.time_s, kernel.quota.age_permil) == (128 * MIB, 0.01, 1)
    assert (kernel.quota.fail_charge_numerator, kernel.quota.fail_charge_denominator) == (1, 1024)
    assert kernel.quota.tuner is Tuner.TEMPORAL
    assert kernel.quota.goals == (
        KernelGoal(metric=KernelMetric.SOME_MEM_PSI_US, target_value=10_000),
        KernelGoal(metric=KernelMetric.NODE_MEM_FREE_BP, target_value=2000),
        KernelGoal(metric=KernelMetric.NODE_MEMCG_USED_BP, target_value=5000, node=1, path="/a"),
        KernelGoal(metric=KernelMetric.ACTIVE_MEM_BP, target_value=4000),
    )
    assert kernel.watermarks.metric is KernelWatermarkMetric.FREE_MEM_RATE
    marks = kernel.watermarks
    assert (marks.high_permil, marks.mid_permil, marks.low_permil, marks.interval_s) == (500, 400, 200, 5)
    assert (kernel.apply_interval_s, kernel.max_nr_snapshots) == (1.0, 7)


def test_user_input_keeps_its_ratio_also_of_small_numbers() -> None:
    scheme = replace(PAGEOUT, quota=Quota(goals=(Goal(metric=GoalMetric.USER_INPUT, target=0.5),)))
    goal = handed(scheme, replace(NEWEST, user_input={"cold": 0.25})).quota.goals[0]
    assert goal.current_value * 2 == goal.target_value > 0


def test_what_guards_keep_comes_ahead_of_the_schemes_own_filters() -> None:
    scheme = replace(
        PAGEOUT,
        targets=("db",),
        filters=(
            Filter(kind=FilterKind.TARGET, allow=True, target="web"),
            Filter(kind=FilterKind.ADDRESS, allow=False, start=0, end=MIB),
        ),
    )
    labels = {0: ("db",), 1: ("web",), 2: ("web", "db")}
    kernel = handed(scheme, replace(NEWEST, labels=labels, kept_from=((MIB, 2 * MIB),)))
    addr, target = KernelFilterKind.ADDR, KernelFilterKind.TARGET
    assert kernel.core_filters == (
        KernelFilter(kind=addr, matching=True, allow=False, start=MIB, end=2 * MIB),
        KernelFilter(kind=target, matching=True, allow=False, target=1),
        KernelFilter(kind=target, matching=True, allow=True, target=1),
        KernelFilter(kind=target, matching=True, allow=True, target=2),
        KernelFilter(kind=addr, matching=True, allow=False, start=0, end=MIB),
    )
    assert kernel.ops_filters == ()


def test_not_one_of_several_targets_is_each_of_the_others() -> None:
    scheme = replace(PAGEOUT, filters=(Filter(kind=FilterKind.TARGET, allow=False, matching=False, target="web"),))
    kernel = handed(scheme, replace(NEWEST, labels={0: ("db",), 1: ("web",), 2: ("web",), 3: ("cache",)}))
    assert [(one.target, one.matching, one.allow) for one in kernel.core_filters] == [
        (0, True, False),
        (3, True, False),
    ]


def test_filters_by_page_are_the_kernels_for_physical_memory() -> None:
    scheme = replace(
        PAGEOUT,
        filters=(
            Filter(kind=FilterKind.FILE, allow=False),
            Filter(kind=FilterKind.ANONYMOUS, allow=False, matching=False),
            Filter(kind=FilterKind.HUGE_PAGE, allow=True, size_bytes=Bounds(2 * MIB, None)),
            Filter(kind=FilterKind.CGROUP, allow=True, cgroup="/a"),
        ),
    )
    kinds = [(one.kind, one.matching, one.allow) for one in handed(scheme, PHYSICAL).ops_filters]
    assert kinds == [
        (KernelFilterKind.ANON, False, False),
        (KernelFilterKind.ANON, False, False),
        (KernelFilterKind.HUGEPAGE_SIZE, True, True),
        (KernelFilterKind.MEMCG, True, True),
    ]
    assert "asks no filter by page" in reason(scheme)


def test_destinations() -> None:
    scheme = Scheme(action=Action.MIGRATE_COLD, pattern=COLD, destinations=(Destination(1, 3), Destination(0, 1)))
    assert [(one.node, one.weight) for one in handed(scheme).destinations] == [(1, 3), (0, 1)]
    assert "one node only" in reason(scheme, PHYSICAL)
    one_node = replace(scheme, destinations=(Destination(1),))
    assert handed(one_node, PHYSICAL).target_node == 1


@pytest.mark.parametrize(
    ("scheme", "situation", "expected"),
    [
        (replace(PAGEOUT, action=Action.LRU_PRIO), NEWEST, "no lru_prio for processes"),
        (replace(PAGEOUT, action=Action.WILLNEED), PHYSICAL, "no willneed for physical memory"),
        (replace(PAGEOUT, action=Action.COLLAPSE), without(Feature.COLLAPSE), "collapse"),
        (
            replace(PAGEOUT, action=Action.MIGRATE_COLD, destinations=(Destination(1),)),
            without(Feature.DESTINATIONS),
            "destinations",
        ),
        (replace(PAGEOUT, apply_interval_s=1.0), without(Feature.APPLY_INTERVAL), "apply interval"),
        (replace(PAGEOUT, max_nr_snapshots=1), without(Feature.MAX_NR_SNAPSHOTS), "max_nr_snapshots"),
        (replace(PAGEOUT, quota=Quota(time_s=1.0, fail_charge=(1, 2))), without(Feature.FAIL_CHARGE), "fail_charge"),
        (
            replace(PAGEOUT, quota=Quota(goals=(Goal(metric=GoalMetric.FREE_MEMORY, target=0.2),))),
            NEWEST,
            "of one NUMA node only",
        ),
        (
            replace(PAGEOUT, quota=Quota(goals=(Goal(metric=GoalMetric.MEMORY_PRESSURE, target=0.2, cgroup="/a"),))),
            NEWEST,
            "of the whole system only",
        ),
        (replace(PAGEOUT, quota=Quota(time_s=0.0005)), NEWEST, "whole milliseconds"),
        (
            Scheme(action=Action.STAT, filters=(Filter(kind=FilterKind.MAPPING, allow=False, pattern="*.so"),)),
            NEWEST,
            "no filter by mapping",
        ),
        (
            replace(PAGEOUT, filters=(Filter(kind=FilterKind.ADDRESS, allow=True, start=0, end=MIB),)),
            without(Feature.ALLOW_FILTERS),
            "filters that allow",
        ),
        (
            PAGEOUT,
            replace(without(Feature.CORE_FILTERS), kept_from=((0, MIB),)),
            "filters addr and target",
        ),
    ],
)  # fmt: skip
def test_what_stays_in_user_space_is_told_why(scheme: Scheme, situation: Situation, expected: str) -> None:
    assert expected in reason(scheme, situation)
