"""A scheme of a policy as one of the kernel's, or why it has to run in user space."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from memtherm.core.filters import Filter, FilterKind
from memtherm.core.goals import Goal, GoalMetric
from memtherm.core.pattern import Bounds
from memtherm.core.quota import Quota
from memtherm.core.scheme import Scheme
from memtherm.core.watermarks import Watermarks
from memtherm.errors import InvalidInput, NotSupported
from memtherm.kdamond.features import Feature, KernelFeatures, feature_of
from memtherm.kdamond.parameters import (
    DONE_BY,
    FILTERED_BY_PAGE,
    MIGRATIONS,
    UINT_MAX,
    Intervals,
    KernelBounds,
    KernelDestination,
    KernelFilter,
    KernelFilterKind,
    KernelGoal,
    KernelMetric,
    KernelQuota,
    KernelScheme,
    KernelWatermarkMetric,
    KernelWatermarks,
    Operations,
)

_KINDS = {
    FilterKind.ADDRESS: KernelFilterKind.ADDR,
    FilterKind.TARGET: KernelFilterKind.TARGET,
    FilterKind.ANONYMOUS: KernelFilterKind.ANON,
    FilterKind.FILE: KernelFilterKind.ANON,
    FilterKind.YOUNG: KernelFilterKind.YOUNG,
    FilterKind.HUGE_PAGE: KernelFilterKind.HUGEPAGE_SIZE,
    FilterKind.CGROUP: KernelFilterKind.MEMCG,
    FilterKind.ACTIVE: KernelFilterKind.ACTIVE,
    FilterKind.UNMAPPED: KernelFilterKind.UNMAPPED,
}
_BASIS_POINTS = 10_000
# Bounds are inclusive, and rates and ages are products of floats: 3 windows of 0.1 s are 0.30000000000000004 s.
_ROUNDING = 1e-6


class _InUserSpace(Exception):
    """Why a scheme, or a part of one, is not for the kernel."""


@dataclass(frozen=True, kw_only=True)
class Situation:
    """What decides whether the kernel can do a scheme, and how it is told to.

    Attributes:
        intervals: as they are now; rates and ages are counted in them.
        labels: for each target of the context, by its index, how policies call it.
        kept_from: addresses, half-open, that guards keep from every action, in whichever target.
        user_input: present values of `user_input` goals, by the scheme's name.
    """

    operations: Operations
    features: KernelFeatures
    intervals: Intervals = field(default_factory=Intervals)
    labels: Mapping[int, Sequence[str]] = field(default_factory=dict)
    kept_from: tuple[tuple[int, int], ...] = ()
    user_input: Mapping[str, float] = field(default_factory=dict)


def hand_down(scheme: Scheme, situation: Situation) -> KernelScheme | str:
    """The kernel's scheme that does the same; else in words why it must run in user space."""
    try:
        _check_action(scheme, situation)
        core, by_page = _filters(scheme, situation)
        if scheme.apply_interval_s is not None:
            _need(situation, Feature.APPLY_INTERVAL)
        if scheme.max_nr_snapshots:
            _need(situation, Feature.MAX_NR_SNAPSHOTS)
        node, destinations = _destinations(scheme, situation)
        intervals = situation.intervals
        return KernelScheme(
            action=scheme.action,
            size_bytes=_whole(scheme.pattern.size_bytes, 1, maximum=None),
            nr_accesses=_whole(scheme.pattern.access_rate, intervals.samples_per_window, maximum=UINT_MAX),
            age_windows=_whole(scheme.pattern.age_s, 1 / intervals.aggregation_interval_s, maximum=UINT_MAX),
            apply_interval_s=scheme.apply_interval_s or 0.0,
            target_node=node,
            quota=_quota(scheme, situation),
            watermarks=_watermarks(scheme.watermarks),
            core_filters=core,
            ops_filters=by_page,
            destinations=destinations,
            max_nr_snapshots=scheme.max_nr_snapshots,
        )
    except _InUserSpace as reason:
        return str(reason)
    except InvalidInput as reason:
        return f"the kernel does not take it: {reason}"


def _check_action(scheme: Scheme, situation: Situation) -> None:
    is_physical = situation.operations is Operations.PADDR
    if scheme.action not in DONE_BY[situation.operations]:
        where = "physical memory" if is_physical else "processes"
        raise _InUserSpace(f"the kernel's DAMON has no {scheme.action} for {where}")
    if scheme.action in MIGRATIONS and not is_physical:
        _need(situation, Feature.DESTINATIONS)
    elif (feature := feature_of(scheme.action)) is not None:
        _need(situation, feature)


def _need(situation: Situation, feature: Feature) -> None:
    try:
        situation.features.require(feature)
    except NotSupported as reason:
        raise _InUserSpace(reason.message) from reason


def _whole(bounds: Bounds, scale: float, *, maximum: int | None) -> KernelBounds:
    """Bounds in the kernel's counts: those whole numbers that lie within."""
    low = 0 if bounds.minimum is None else math.ceil(bounds.minimum * scale - _ROUNDING)
    if maximum is not None:
        low = min(low, maximum)
    if bounds.maximum is None:
        return KernelBounds(low, None)
    high = math.floor(bounds.maximum * scale + _ROUNDING)
    return KernelBounds(low, high if maximum is None else min(high, maximum))


def _filters(scheme: Scheme, situation: Situation) -> tuple[tuple[KernelFilter, ...], tuple[KernelFilter, ...]]:
    """Filters by region and by page; ahead of the scheme's own what guards and its list of targets reject."""
    core = [
        KernelFilter(kind=KernelFilterKind.ADDR, matching=True, start=start, end=end)
        for start, end in situation.kept_from
    ]
    if scheme.targets:
        others = [index for index, names in situation.labels.items() if not set(names) & set(scheme.targets)]
        core += [KernelFilter(kind=KernelFilterKind.TARGET, matching=True, target=index) for index in others]
    by_page = []
    for one in scheme.filters:
        if one.is_core:
            core += _core_filters(one, situation)
        else:
            by_page.append(_page_filter(one, scheme, situation))
    if core:
        _need(situation, Feature.CORE_FILTERS)
    return tuple(core), tuple(by_page)


def _core_filters(one: Filter, situation: Situation) -> list[KernelFilter]:
    _check_allow(one, situation)
    if one.kind is FilterKind.ADDRESS:
        return [
            KernelFilter(
                kind=KernelFilterKind.ADDR, matching=one.matching, allow=one.allow, start=one.start, end=one.end
            )
        ]
    meant = [index for index, names in situation.labels.items() if one.target in names]
    if one.matching or len(meant) == 1:
        indices, matching = meant, one.matching
    else:  # "not the target" of several is: each of the others
        indices, matching = [index for index in situation.labels if index not in meant], True
    return [
        KernelFilter(kind=KernelFilterKind.TARGET, matching=matching, allow=one.allow, target=index)
        for index in indices
    ]


def _page_filter(one: Filter, scheme: Scheme, situation: Situation) -> KernelFilter:
    if situation.operations is not Operations.PADDR:
        if scheme.action not in FILTERED_BY_PAGE:
            raise _InUserSpace(f"the kernel's {scheme.action} on processes asks no filter by page ({one.kind})")
        _need(situation, Feature.DESTINATIONS)
    if one.kind not in _KINDS:
        raise _InUserSpace(f"the kernel has no filter by {one.kind}")
    _check_allow(one, situation)
    kind = _KINDS[one.kind]
    if (feature := feature_of(kind)) is not None:
        _need(situation, feature)
    size = one.size_bytes
    return KernelFilter(
        kind=kind,
        # Memory of files is all that is not anonymous; shared memory is taken for that of files here and there.
        matching=one.matching != (one.kind is FilterKind.FILE),
        allow=one.allow,
        memcg_path=one.cgroup,
        size_bytes=_whole(size, 1, maximum=None) if one.kind is FilterKind.HUGE_PAGE else KernelBounds(),
    )


def _check_allow(one: Filter, situation: Situation) -> None:
    if one.allow:
        _need(situation, Feature.ALLOW_FILTERS)


def _destinations(scheme: Scheme, situation: Situation) -> tuple[int, tuple[KernelDestination, ...]]:
    if not scheme.destinations:
        return -1, ()
    if situation.operations is Operations.PADDR:
        if len(scheme.destinations) > 1:
            raise _InUserSpace("the kernel moves physical memory to one node only")
        return scheme.destinations[0].node, ()
    return -1, tuple(KernelDestination(node=one.node, weight=one.weight) for one in scheme.destinations)


def _quota(scheme: Scheme, situation: Situation) -> KernelQuota:
    quota: Quota = scheme.quota
    if not quota.is_set:
        return KernelQuota()
    if quota.goals:
        _need(situation, Feature.GOALS)
    if (feature := feature_of(quota.tuner)) is not None and quota.goals:
        _need(situation, feature)
    numerator, denominator = quota.fail_charge
    if denominator:
        _need(situation, Feature.FAIL_CHARGE)
    if 0 < quota.time_s < 0.001:
        raise _InUserSpace("the kernel counts a quota's time in whole milliseconds")
    return KernelQuota(
        time_s=quota.time_s,
        size_bytes=quota.size_bytes,
        reset_interval_s=quota.reset_interval_s,
        size_permil=quota.weights.size,
        nr_accesses_permil=quota.weights.access_rate,
        age_permil=quota.weights.age,
        goals=tuple(_goal(goal, scheme, situation) for goal in quota.goals),
        tuner=quota.tuner,
        fail_charge_numerator=numerator,
        fail_charge_denominator=denominator,
    )


def _goal(goal: Goal, scheme: Scheme, situation: Situation) -> KernelGoal:
    metric, scale = _metric(goal)
    if (feature := feature_of(metric)) is not None:
        _need(situation, feature)
    return KernelGoal(
        metric=metric,
        target_value=max(1, round(goal.target * scale)),
        current_value=round(situation.user_input.get(scheme.name, 0.0) * scale)
        if goal.metric is GoalMetric.USER_INPUT
        else 0,
        node=goal.node or 0,
        path=goal.cgroup,
    )


def _metric(goal: Goal) -> tuple[KernelMetric, float]:
    """The kernel's metric, and how many of its units are one of ours."""
    if goal.metric is GoalMetric.USER_INPUT:
        return KernelMetric.USER_INPUT, 1000.0  # a goal is a ratio: parts of whole numbers count as well
    if goal.metric is GoalMetric.MEMORY_PRESSURE:
        if goal.cgroup:
            raise _InUserSpace("the kernel measures the pressure of the whole system only")
        return KernelMetric.SOME_MEM_PSI_US, 1e6
    if goal.metric in (GoalMetric.ACTIVE_MEMORY, GoalMetric.INACTIVE_MEMORY):
        active = goal.metric is GoalMetric.ACTIVE_MEMORY
        return (KernelMetric.ACTIVE_MEM_BP if active else KernelMetric.INACTIVE_MEM_BP), _BASIS_POINTS
    if goal.node is None:
        raise _InUserSpace(f"the kernel measures {goal.metric} of one NUMA node only")
    free = goal.metric is GoalMetric.FREE_MEMORY
    if goal.cgroup:
        return (KernelMetric.NODE_MEMCG_FREE_BP if free else KernelMetric.NODE_MEMCG_USED_BP), _BASIS_POINTS
    return (KernelMetric.NODE_MEM_FREE_BP if free else KernelMetric.NODE_MEM_USED_BP), _BASIS_POINTS


def _watermarks(watermarks: Watermarks | None) -> KernelWatermarks:
    if watermarks is None:
        return KernelWatermarks()
    return KernelWatermarks(
        metric=KernelWatermarkMetric.FREE_MEM_RATE,
        interval_s=watermarks.interval_s,
        high_permil=round(watermarks.high * 1000),
        mid_permil=round(watermarks.mid * 1000),
        low_permil=round(watermarks.low * 1000),
    )
