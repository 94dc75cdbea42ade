"""A Policy as damo's JSON of kdamonds (damo 3.4: `damo args damon`, `--kdamonds`).

What DAMON cannot do is a problem that is named; what it does without is told.  memtherm.policy.damo_json reads it back.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from memtherm.core.attributes import MonitoringAttributes
from memtherm.core.filters import Filter, FilterKind
from memtherm.core.goals import Goal, GoalMetric
from memtherm.core.guard import GuardSettings
from memtherm.core.pattern import Bounds
from memtherm.core.quota import Quota
from memtherm.core.scheme import Action, Scheme
from memtherm.core.watermarks import Watermarks
from memtherm.policy.damo_json import FILTERS, METRICS
from memtherm.policy.problems import refuse
from memtherm.policy.values import Policy, TargetSelector
from memtherm.units import exact_rate, exact_size

_UNITS_NS = (("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1000), ("ns", 1))
_NO_GUARDS = "DAMON has no guards: it acts on memory that memtherm would leave alone"
# Of a process; of physical memory it filters pages of all actions (damon-spec §2.9).
_FILTER_PAGES = (Action.MIGRATE_HOT, Action.MIGRATE_COLD, Action.STAT)


@dataclass(frozen=True)
class DamoPolicy:
    """A policy in damo's words.

    Attributes:
        text: the JSON.
        told: in sentences what of the policy is not in it, and does not change what it means.
    """

    text: str
    told: tuple[str, ...]


def policy_damo(policy: Policy, *, source: str = "policy") -> DamoPolicy:
    """The policy for damo, as one kdamond with one context.

    Raises:
        InvalidPolicy: it says what damo or DAMON cannot do; with all such problems.
    """
    problems: list[str] = []
    told: list[str] = []
    context = {
        "ops": _operations(policy.targets, problems),
        "addr_unit": "1 B",
        "targets": [_target(number, target, problems) for number, target in enumerate(policy.targets, start=1)],
        "intervals": _intervals(policy.attributes),
        "nr_regions": {
            "min": str(policy.attributes.min_nr_regions),
            "max": str(policy.attributes.max_nr_regions),
        },
        "schemes": [_Scheme(scheme, policy, problems, told).json() for scheme in policy.schemes],
    }
    if not policy.targets:
        told.append("it names no target: give damo one, such as --target_pid")
    if policy.attributes.method in ("census", "smaps"):
        told.append(f"DAMON samples: it has no method {policy.attributes.method}")
    problems += [f"guard: {key}: DAMON has no guards, and this one is stricter than usual" for key in _stricter(policy)]
    if policy.schemes:
        told.append(_NO_GUARDS)
    if problems:
        raise refuse(source, [f"{source}: {problem}" for problem in problems])
    text = json.dumps({"kdamonds": [{"refresh_ms": 0, "contexts": [context]}]}, indent=4)
    return DamoPolicy(text + "\n", tuple(dict.fromkeys(told)))


def _stricter(policy: Policy) -> list[str]:
    """Guards that somebody asks more of; what loosens one has no meaning where there is none."""
    own, usual = policy.guard, GuardSettings()
    less = [key for key in ("max_refault_rate", "max_memory_pressure", "max_bytes_per_s") if
            0 < getattr(own, key) < getattr(usual, key)]  # fmt: skip
    return less + [key for key in ("min_target_bytes", "min_free_swap") if getattr(own, key) > getattr(usual, key)]


def _operations(targets: tuple[TargetSelector, ...], problems: list[str]) -> str:
    """DAMON's way to look at these targets."""
    kinds = {"paddr" if one.physical else "fvaddr" if one.ranges else "vaddr" for one in targets} or {"vaddr"}
    if len(kinds) > 1:
        problems.append("targets: DAMON looks at all of them by one way: physical memory, ranges, or whole processes")
    if "paddr" in kinds and len(targets) > 1:
        problems.append("targets: physical memory is one target; name its ranges in it")
    return min(kinds)


def _target(number: int, target: TargetSelector, problems: list[str]) -> dict[str, Any]:
    if target.pid is None and not target.physical:
        problems.append(f'target {number} "{target.label}": DAMON knows processes by their pid only')
    if target.children:
        problems.append(f'target {number} "{target.label}": DAMON does not follow what a process starts')
    regions = [{"start": str(start), "end": str(end)} for start, end in target.ranges]
    return {"pid": target.pid, "obsolete": False, "regions": regions}


def _intervals(attributes: MonitoringAttributes) -> dict[str, Any]:
    goal = attributes.interval_goal
    return {
        "sample_us": _time(attributes.sampling_interval_s),
        "aggr_us": _time(attributes.aggregation_interval_s),
        "ops_update_us": _time(attributes.regions_update_interval_s),
        "intervals_goal": {
            "access_bp": exact_rate(goal.access_rate if goal else 0),
            "aggrs": str(goal.windows if goal else 0),
            "min_sample_us": _time(goal.min_sampling_interval_s if goal else 0),
            "max_sample_us": _time(goal.max_sampling_interval_s if goal else 0),
        },
    }


def _time(time_s: float) -> str:
    """`5 ms`; damo adds up words such as `1 s 500 ms`, and has no parts of a unit but the smallest."""
    left, words = round(time_s * 1e9), []
    for unit, size in _UNITS_NS:
        if left >= size:
            words.append(f"{left // size} {unit}")
            left %= size
    return " ".join(words) or "0 ns"


def _size(size_bytes: float) -> str:
    return exact_size(int(size_bytes))


class _Scheme:
    """One scheme on its way into JSON."""

    def __init__(self, scheme: Scheme, policy: Policy, problems: list[str], told: list[str]) -> None:
        self._scheme = scheme
        self._targets = policy.targets
        self._problems = problems
        self._told = told

    def json(self) -> dict[str, Any]:
        scheme = self._scheme
        if scheme.max_nr_snapshots:
            self._problem("max_nr_snapshots: damo 3.4 reads no such limit from a file")
        if not scheme.name.startswith("scheme "):
            self._told.append("schemes have no names in damo's format")
        several = [{"id": one.node, "weight": one.weight} for one in scheme.destinations]
        pattern = scheme.pattern
        values: dict[str, Any] = {
            "action": str(scheme.action),
            # Kernels before 6.17 know one node only, in target_nid.
            "dests": several if len(several) > 1 else [],
            "access_pattern": {
                "sz_bytes": _range(pattern.size_bytes, _size),
                "nr_accesses": _range(pattern.access_rate, exact_rate, top=1.0),
                "age": _range(pattern.age_s, _time),
            },
            "apply_interval_us": _time(scheme.apply_interval_s or 0),
        }
        if len(several) == 1:
            values["target_nid"] = scheme.destinations[0].node
        if scheme.quota != Quota():
            values["quotas"] = self._quota(scheme.quota)
        if scheme.watermarks is not None:
            values["watermarks"] = _watermarks(scheme.watermarks)
        filters = self._target_filters() + [self._filter(one) for one in scheme.filters]
        return values | ({"filters": filters} if filters else {})

    def _problem(self, what: str) -> None:
        self._problems.append(f'scheme "{self._scheme.name}": {what}')

    def _quota(self, quota: Quota) -> dict[str, Any]:
        return {
            "time_ms": _time(quota.time_s),
            "sz_bytes": _size(quota.size_bytes),
            "reset_interval_ms": _time(quota.reset_interval_s),
            "fail_charge_num": str(quota.fail_charge[0]),
            "fail_charge_denom": str(quota.fail_charge[1]),
            "goals": [self._goal(goal) for goal in quota.goals],
            "goal_tuner": str(quota.tuner),
            "weights": {
                "sz_permil": quota.weights.size,
                "nr_accesses_permil": quota.weights.access_rate,
                "age_permil": quota.weights.age,
            },
        }

    def _goal(self, goal: Goal) -> dict[str, Any]:
        has = (goal.node is not None, bool(goal.cgroup))
        names = [name for name, (metric, *needs) in METRICS.items() if metric is goal.metric and tuple(needs) == has]
        if not names:
            where = " and ".join(["a node"] * has[0] + ["a cgroup"] * has[1]) or "the system"
            self._problem(f"goal {goal.metric}: DAMON does not measure it of {where}")
        if goal.metric is GoalMetric.MEMORY_PRESSURE:
            target = _time(goal.target)
        else:
            target = exact_rate(goal.target) if goal.is_share else str(round(goal.target))
            if not goal.is_share and goal.target != round(goal.target):
                self._problem(f"goal {goal.metric}: {goal.target:g} is not a whole number")
        return {
            "metric": names[0] if names else "",
            "complement": False,
            "nid": None if goal.node is None else str(goal.node),
            "memcg_path": goal.cgroup or None,
            "target_value": target,
            "current_value": "0",
        }

    def _target_filters(self) -> list[dict[str, Any]]:
        """What restricts the scheme to some targets."""
        labels, scheme = self._scheme.targets, self._scheme
        wanted = [index for index, target in enumerate(self._targets) if target.label in labels]
        if not labels or len(wanted) == len(self._targets):
            return []
        if not wanted:
            self._problem(f"targets: no target of the policy is called {', '.join(labels)}")
            return []
        if len(wanted) == 1:
            return [_filter_json("target", matching=False, allow=False, damon_target_idx=str(wanted[0]))]
        if scheme.filters:
            # A filter that allows a target lets its memory past all others.
            self._problem("targets: several targets and other filters do not go together in DAMON")
        return [_filter_json("target", matching=True, allow=True, damon_target_idx=str(index)) for index in wanted]

    def _filter(self, one: Filter) -> dict[str, Any]:
        # To DAMON memory is anonymous or not.
        kind = FilterKind.ANONYMOUS if one.kind is FilterKind.FILE else one.kind
        matching = one.matching != (one.kind is FilterKind.FILE)
        names = [name for name, known in FILTERS.items() if known is kind]
        values: dict[str, Any] = {}
        if not names:
            self._problem(f"filter by {one.kind}: DAMON has none")
        elif one.kind is FilterKind.ADDRESS:
            values["address_range"] = {"start": str(one.start), "end": str(one.end)}
        elif one.kind is FilterKind.CGROUP:
            values["memcg_path"] = one.cgroup
        elif one.kind is FilterKind.HUGE_PAGE:
            low, high = one.size_bytes.minimum or 0, one.size_bytes.maximum
            values["hugepage_size"] = [_size(low), "max" if high is None else _size(high)]
        elif one.kind is FilterKind.TARGET:
            indices = [index for index, target in enumerate(self._targets) if target.label == one.target]
            if len(indices) != 1:
                self._problem(f'filter by target: "{one.target}" is not one target of the policy')
            values["damon_target_idx"] = str(indices[0] if indices else 0)
        if names and not one.is_core and not any(target.physical for target in self._targets):
            if self._scheme.action not in _FILTER_PAGES:
                self._problem(
                    f"filter by {one.kind}: of a process DAMON does not filter pages of {self._scheme.action}"
                )
            self._told.append("filters of pages of a process need Linux 6.17 or newer")
        return _filter_json(names[0] if names else "", matching=matching, allow=one.allow, **values)


def _filter_json(name: str, *, matching: bool, allow: bool, **values: Any) -> dict[str, Any]:
    empty: dict[str, Any] = {
        "memcg_path": None,
        "address_range": None,
        "damon_target_idx": None,
        "hugepage_size": None,
        "probe_hits_wsum_range": None,
    }
    return {"filter_type": name, "matching": matching, "allow": allow} | empty | values


def _range(bounds: Bounds, words: Callable[[float], str], *, top: float = math.inf) -> dict[str, str]:
    """A missing bound is `min` or `max`: more than 100 % are found where a window is a little long."""
    low, high = bounds.minimum, bounds.maximum
    return {"min": "min" if not low else words(low), "max": "max" if high is None or high >= top else words(high)}


def _watermarks(marks: Watermarks) -> dict[str, str]:
    return {
        "metric": "free_mem_rate",
        "interval_us": _time(marks.interval_s),
        "high_permil": exact_rate(marks.high),
        "mid_permil": exact_rate(marks.mid),
        "low_permil": exact_rate(marks.low),
    }
