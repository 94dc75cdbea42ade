"""damo's JSON of schemes ↦ a Policy: a list of schemes, or kdamonds with their contexts (damon-spec §2, damo 3.4).

A highest value of 0 means 0 there.  What cannot be had here is a problem that is named.  What is left out is told: what
damo writes as a result, what says nothing beside the rest, and what is of no use to a policy.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

from memtherm.core.attributes import IntervalGoal, MonitoringAttributes
from memtherm.core.filters import Filter, FilterKind
from memtherm.core.goals import Goal, GoalMetric, Tuner
from memtherm.core.pattern import AccessPattern, Bounds
from memtherm.core.quota import Quota, Weights
from memtherm.core.scheme import Action, Destination, Scheme
from memtherm.core.watermarks import Watermarks
from memtherm.errors import InvalidInput
from memtherm.policy.damo_text import read_count, read_number, read_share, read_size, read_time, read_truth
from memtherm.policy.kinds import SHORTEST_SAMPLING_S, parse_action
from memtherm.policy.problems import problem_line, refuse, shown_key
from memtherm.policy.values import Policy, TargetSelector, named
from memtherm.units import exact_rate, exact_time, shown

_read_microseconds = partial(read_time, unit_s=1e-6)
_read_milliseconds = partial(read_time, unit_s=1e-3)
_MAX_U32 = 2**32 - 1
_MAX_ADDRESS = 2**64 - 1
# damo's metric -> ours, and whether it wants a node and a cgroup.
METRICS = {
    "user_input": (GoalMetric.USER_INPUT, False, False),
    "some_mem_psi_us": (GoalMetric.MEMORY_PRESSURE, False, False),
    "node_mem_used_bp": (GoalMetric.USED_MEMORY, True, False),
    "node_mem_free_bp": (GoalMetric.FREE_MEMORY, True, False),
    "node_memcg_used_bp": (GoalMetric.USED_MEMORY, True, True),
    "node_memcg_free_bp": (GoalMetric.FREE_MEMORY, True, True),
    "active_mem_bp": (GoalMetric.ACTIVE_MEMORY, False, False),
    "inactive_mem_bp": (GoalMetric.INACTIVE_MEMORY, False, False),
}
FILTERS = {
    "anon": FilterKind.ANONYMOUS,
    "active": FilterKind.ACTIVE,
    "memcg": FilterKind.CGROUP,
    "young": FilterKind.YOUNG,
    "hugepage_size": FilterKind.HUGE_PAGE,
    "unmapped": FilterKind.UNMAPPED,
    "addr": FilterKind.ADDRESS,
    "target": FilterKind.TARGET,
}
OPERATIONS = ("vaddr", "fvaddr", "paddr")
_INTERVALS = {
    "sample_us": "sampling_interval_s",
    "aggr_us": "aggregation_interval_s",
    "ops_update_us": "regions_update_interval_s",
}
_UNITS = {"samples": "write it like 5 %", "aggr_intervals": "write it like 2 s"}
_MIGRATIONS = (Action.MIGRATE_HOT, Action.MIGRATE_COLD)
_EMPTY: tuple[object, ...] = (None, [], {}, "")
T = TypeVar("T")


def _read_permil(value: object) -> float:
    return _finite(value, read_share(value, whole=1000))


def _read_basis_points(value: object) -> float:
    return _finite(value, read_share(value, whole=10_000))


def _read_finite_microseconds(value: object) -> float:
    return _finite(value, _read_microseconds(value))


def _finite(value: object, number: float) -> float:
    if math.isinf(number):
        raise InvalidInput(f"{shown(str(value))} is too much", hint="only bounds may be max")
    return number


_GOAL_VALUES: Mapping[GoalMetric, Callable[[object], float]] = {
    GoalMetric.USER_INPUT: read_number,
    GoalMetric.MEMORY_PRESSURE: _read_finite_microseconds,
}


@dataclass(frozen=True)
class DamoRead:
    """What damo's JSON comes to.

    Attributes:
        told: in sentences what of it the policy does not have.
    """

    policy: Policy
    told: tuple[str, ...]


@dataclass
class _Found:
    """What there is to say about a file.

    Attributes:
        problems: why there is no policy.
        left_out: settings that have no place in it, or do nothing there.
        results: names of results that are left out.
    """

    problems: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    results: list[str] = field(default_factory=list)

    def told(self) -> tuple[str, ...]:
        told = [f"left out: {one}" for one in dict.fromkeys(self.left_out)]
        if self.results:
            told.append(f"results are left out: {', '.join(dict.fromkeys(self.results))}")
        return tuple(told)


class _Table:
    """One object of the JSON.  Keys that nobody asks for are problems at the end."""

    def __init__(self, value: object, place: str, found: _Found) -> None:
        self.place = place
        self.found = found
        self._unread: dict[str, Any] = {}
        self.is_there = value is not None
        if isinstance(value, dict):
            self._unread = dict(value)
        elif value is not None:
            self.problem("", "is no object", "write it like { … }")

    def problem(self, key: str, what: str, hint: str = "") -> None:
        self.found.problems.append(f"{self._label(key)}: {what}" + (f"; {hint}" if hint else ""))

    def leave_out(self, key: str, value: object, why: str) -> None:
        """Tell of a setting that the policy does not have."""
        text = value if isinstance(value, str) else json.dumps(value)
        self.found.left_out.append(f"{self._label(key)} ({shown(text)}): {why}")

    def _label(self, key: str) -> str:
        return ": ".join(part for part in (self.place, key) if part)

    def read(self, key: str, parse: Callable[[object], T], default: T) -> T:
        """The value of a key, or the default where it is missing, null or wrong."""
        value = self._unread.pop(key, None)
        if value is None:
            return default
        try:
            return parse(value)
        except InvalidInput as refusal:
            self.problem(key, refusal.message, refusal.hint)
            return default

    def make(self, key: str, build: Callable[[], T], default: T) -> T:
        """What `build` makes of values that are read already."""
        try:
            return build()
        except InvalidInput as refusal:
            self.problem(key, refusal.message, refusal.hint)
            return default

    def table(self, key: str) -> "_Table":
        place = f"{self.place}: {key}" if self.place else key
        return _Table(self._unread.pop(key, None), place, self.found)

    def tables(self, key: str) -> list["_Table"]:
        value = self._unread.pop(key, None)
        if value is not None and not isinstance(value, list):
            self.problem(key, "is no list", "write it like [ … ]")
        several = value if isinstance(value, list) else []
        place = f"{self.place}: {key}" if self.place else key
        return [_Table(one, f"{place} {number}", self.found) for number, one in enumerate(several, start=1)]

    def without(self, key: str, what: str, *, empty: tuple[object, ...] = _EMPTY) -> None:
        """A key of damo that means nothing here, unless it is empty."""
        if self._unread.pop(key, None) not in empty:
            self.problem(key, what)

    def leave_results(self, name: str) -> None:
        """All that is left are results, which go by this name."""
        self.found.results += [name] if self._unread else []

    def finish(self, *results: str) -> None:
        """All that is left is unknown, save what damo writes as a result."""
        for key, value in self._unread.items():
            if key in results:
                self.found.results += [key] if value not in _EMPTY else []
            else:
                self.problem(shown_key(key), "is an unknown key, or one that memtherm cannot do")


@dataclass(frozen=True)
class _Window:
    """What samples and aggregation intervals come to; None where the file does not fix them."""

    samples: int | None = None
    aggregation_s: float | None = None


def looks_like_damo(text: str) -> bool:
    """Whether a text is JSON that begins as damo's does; a TOML file begins with `[`, too, and is no JSON."""
    if text.lstrip()[:1] not in ("{", "["):
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def parse_damo(text: str, *, source: str = "schemes") -> Policy:
    """The policy of `read_damo`.  Raises InvalidPolicy."""
    return read_damo(text, source=source).policy


def read_damo(text: str, *, source: str = "schemes") -> DamoRead:
    """The policy that damo's JSON means: schemes, and of a context its targets, intervals and numbers of regions.

    Raises:
        InvalidPolicy: with all problems of the text.
    """
    try:
        data = json.loads(text)
    except json.JSONDecodeError as refusal:
        what = f"not JSON: {refusal.msg} (column {refusal.colno})"
        raise refuse(source, [problem_line(source, refusal.lineno, "", what)]) from refusal
    except (ValueError, RecursionError) as refusal:  # a number with thousands of digits; nested too deeply
        raise refuse(source, [f"{source}: not JSON that can be read: {type(refusal).__name__}"]) from refusal
    found = _Found()
    policy = _read_file(data, found)
    if not policy.schemes and not found.problems:
        found.problems.append("no scheme in it")
    if found.problems:
        raise refuse(source, [f"{source}: {problem}" for problem in found.problems])
    return DamoRead(policy, found.told())


def _read_file(data: object, found: _Found) -> Policy:
    if isinstance(data, list):
        key = "kdamonds" if any(isinstance(one, dict) and "contexts" in one for one in data) else "schemes"
        data = {key: data}
    top = _Table(data, "", found)
    kdamonds = top.tables("kdamonds")
    schemes = top.tables("schemes")
    top.finish()
    if not kdamonds:
        return _policy([_scheme(one, _Window(), ()) for one in schemes], found)
    if schemes:
        found.problems.append("schemes: both kdamonds and schemes beside them; put them into a context")
    contexts = []
    for kdamond in kdamonds:
        contexts += kdamond.tables("contexts")
        refresh_ms = kdamond.read("refresh_ms", str, "0")
        if refresh_ms not in ("0", "0 ns", "0 ms"):
            kdamond.leave_out("refresh_ms", refresh_ms, "memtherm asks for results when it needs them")
        kdamond.finish("state", "pid")
    if len(contexts) != 1:
        found.problems.append(f"{len(contexts)} contexts, and a policy is one; write a file for each")
        return Policy()
    return _context(contexts[0], found)


def _policy(schemes: list[Scheme], found: _Found, **values: Any) -> Policy:
    return Policy() if found.problems else Policy(schemes=named(schemes), **values)


def _context(context: _Table, found: _Found) -> Policy:
    operations = context.read("ops", str, "vaddr")
    if operations not in OPERATIONS:
        context.problem("ops", f"{shown(operations)} is not supported", f"one of {', '.join(OPERATIONS)}")
    if context.read("addr_unit", read_size, 1.0) != 1:
        context.problem("addr_unit", "is not 1 byte", "addresses of processes are in bytes")
    if context.read("pause", read_truth, False):
        context.problem("pause", "is not supported", "memtherm does not watch while it does not run")
    context.without("probes", "probes of DAMON are not supported")
    sampling = context.table("sample_control")
    sampling.without("primitives_enabled", "is not supported", empty=(None, {"page_table": True, "page_fault": False}))
    sampling.without("sample_filters", "are not supported")
    sampling.finish()
    targets = tuple(target for one in context.tables("targets") if (target := _target(one, operations)))
    attributes, window = _attributes(context)
    labels = tuple(target.label for target in targets)
    schemes = [_scheme(one, window, labels) for one in context.tables("schemes")]
    context.finish()
    return _policy(schemes, found, targets=targets, attributes=attributes)


def _target(table: _Table, operations: str) -> TargetSelector | None:
    pid = table.read("pid", read_count, 0)
    ranges = tuple(_range(one) for one in table.tables("regions"))
    if ranges and operations == "vaddr":
        table.problem("regions", "have no lasting meaning with vaddr: all mappings are watched", "use fvaddr for them")
    if table.read("obsolete", read_truth, False):
        table.problem("obsolete", "an obsolete target is none", "remove it")
    table.finish()
    if operations == "paddr":
        if pid:
            table.leave_out("pid", pid, "physical memory has none")
        return table.make("", lambda: TargetSelector(physical=True, ranges=ranges), None)
    if operations == "fvaddr" and not ranges:
        table.problem("regions", "are missing: with fvaddr nothing else is watched")
    return table.make("pid", lambda: TargetSelector(pid=pid, ranges=ranges), None)


def _range(table: _Table) -> tuple[int, int]:
    start, end = table.read("start", read_size, 0.0), table.read("end", read_size, 0.0)
    # A region that damo saves has its results, too.
    table.finish("nr_accesses", "age", "probe_hits", "sz_filter_passed")
    return _address(start), _address(end)


def _attributes(context: _Table) -> tuple[MonitoringAttributes, _Window]:
    intervals, regions = context.table("intervals"), context.table("nr_regions")
    given: dict[str, Any] = {}
    for key, attribute in _INTERVALS.items():
        value = intervals.read(key, _read_finite_microseconds, -1.0)
        if value >= 0:
            given[attribute] = value
    if given.get("sampling_interval_s", 1) < SHORTEST_SAMPLING_S:
        intervals.problem("sample_us", "leaves the monitor no rest", f"{exact_time(SHORTEST_SAMPLING_S)} is the least")
    goal = _interval_goal(intervals.table("intervals_goal"))
    if goal is not None:
        given["interval_goal"] = goal
    intervals.finish()
    for key in ("min", "max"):
        count = regions.read(key, read_count, -1)
        if count >= 0:
            given[f"{key}_nr_regions"] = count
    regions.finish()
    # A context without intervals has DAMON's: damo leaves out what is as it is by default.
    usual = MonitoringAttributes()
    attributes = context.make("intervals", lambda: replace(usual, **given), usual)
    # Where intervals fit themselves to the target, DAMON keeps the number of samples in a window.
    aggregation_s = attributes.aggregation_interval_s if goal is None else None
    return attributes, _Window(attributes.samples_per_window, aggregation_s)


def _interval_goal(table: _Table) -> IntervalGoal | None:
    windows = table.read("aggrs", read_count, 0)
    access_rate = table.read("access_bp", _read_basis_points, 0.0)
    shortest_s = table.read("min_sample_us", _read_finite_microseconds, 0.0)
    longest_s = table.read("max_sample_us", _read_finite_microseconds, 0.0)
    table.finish()
    if not windows:
        given = {"access_bp": exact_rate(access_rate)} if access_rate else {}
        given |= {"min_sample_us": exact_time(shortest_s)} if shortest_s else {}
        given |= {"max_sample_us": exact_time(longest_s)} if longest_s else {}
        for key, text in given.items():
            table.leave_out(key, text, "without aggrs the intervals do not fit themselves")
        return None
    limits = {"min_sampling_interval_s": shortest_s, "max_sampling_interval_s": longest_s}
    return table.make("", lambda: IntervalGoal(access_rate=access_rate, windows=windows, **limits), None)


def _scheme(table: _Table, window: _Window, labels: tuple[str, ...]) -> Scheme:
    action = table.read("action", lambda value: parse_action(str(value)), Action.STAT)
    interval_s = table.read("apply_interval_us", _read_microseconds, 0.0)
    if math.isinf(interval_s):
        table.problem("apply_interval_us", "the scheme would never be applied", "write it like 1 s")
        interval_s = 0.0
    # damo shows this setting among the results, of which nothing else is one.
    statistics = table.table("stats")
    shown_limit = statistics.read("max_nr_snapshots", read_count, 0)
    statistics.leave_results("stats")
    values: dict[str, Any] = {
        "pattern": _pattern(table.table("access_pattern"), window),
        "quota": _quota(table.table("quotas")),
        "watermarks": _watermarks(table.table("watermarks")),
        "filters": tuple(one for inner in table.tables("filters") if (one := _filter(inner, labels)) is not None),
        "destinations": _destinations(table, action),
        "max_nr_snapshots": table.read("max_nr_snapshots", read_count, shown_limit),
    }
    table.finish("tried_regions", "tried_bytes")
    scheme = table.make("", lambda: Scheme(action=action, apply_interval_s=interval_s or None, **values), None)
    return scheme or Scheme(action=Action.STAT)


def _destinations(table: _Table, action: Action) -> tuple[Destination, ...]:
    several = []
    for inner in table.tables("dests"):
        several.append(Destination(inner.read("id", read_count, 0), inner.read("weight", read_count, 0)))
        inner.finish()
    # -1, and null, are "no node".
    node = table.read("target_nid", lambda value: -1 if value in (-1, "-1") else read_count(value), -1)
    if node >= 0 and (several or action not in _MIGRATIONS):
        table.leave_out("target_nid", node, "dests say where to" if several else f"{action} moves nothing")
    elif node >= 0:
        several.append(Destination(node))
    return tuple(several)


def _pattern(table: _Table, window: _Window) -> AccessPattern:
    def read_rate(value: object) -> float:
        return _with_unit(value, "samples", window.samples, partial(read_share, whole=100))

    def read_age(value: object) -> float:
        return _with_unit(value, "aggr_intervals", window.aggregation_s, _read_microseconds, multiply=True)

    bounds = {}
    for key, attribute, read, top in (
        ("sz_bytes", "size_bytes", read_size, math.inf),
        ("nr_accesses", "access_rate", read_rate, 1.0),
        ("age", "age_s", read_age, math.inf),
    ):
        inner = table.table(key)
        low, high = inner.read("min", read, 0.0), inner.read("max", read, math.inf)
        if low > (top if top == 1.0 else high) or math.isinf(low):
            inner.problem("min", "is above all that can be: no region matches", "swap the bounds, or write min")
            low = 0.0
        bounds[attribute] = Bounds(low if low or high == 0 else None, high if high < top else None)
        inner.finish()
    table.finish()
    return table.make("", lambda: AccessPattern(**bounds), AccessPattern())


def _with_unit(
    value: object, unit: str, scale: float | None, read: Callable[[object], float], *, multiply: bool = False
) -> float:
    """A value that may be counted in samples or in windows."""
    number, _, word = str(value).strip().rpartition(" ")
    if word != unit:
        return read(value)
    count = read_number(number) if number != "max" else math.inf
    if count in (0, math.inf) or count >= _MAX_U32:
        return 0.0 if count == 0 else math.inf
    if scale is None:
        raise InvalidInput(f"{shown(str(value))} hangs on intervals that the file does not fix", hint=_UNITS[unit])
    return count * scale if multiply else count / scale


def _quota(table: _Table) -> Quota:
    weights = table.table("weights")
    reset_s = table.read("reset_interval_ms", _read_milliseconds, math.inf if not table.is_there else 1.0)
    size_bytes = table.read("sz_bytes", read_size, 0.0)
    values: dict[str, Any] = {
        "size_bytes": 0 if math.isinf(size_bytes) else int(size_bytes),
        "time_s": table.read("time_ms", _read_milliseconds, 0.0),
        "goals": tuple(goal for one in table.tables("goals") if (goal := _goal(one)) is not None),
        "tuner": table.read("goal_tuner", _read_tuner, Tuner.CONSIST),
        "fail_charge": (table.read("fail_charge_num", read_count, 0), table.read("fail_charge_denom", read_count, 0)),
        "weights": weights.make("", lambda: _weights(weights), Weights()),
    }
    if math.isinf(values["time_s"]):
        values["time_s"] = 0.0
    if values["size_bytes"] or values["time_s"] or values["goals"]:
        if math.isinf(reset_s):
            table.problem("reset_interval_ms", "never ends: a full quota would stay full", "write it like 1 s")
            reset_s = 1.0
        values["reset_interval_s"] = reset_s
    elif 0 < reset_s < math.inf and table.is_there:
        table.leave_out("reset_interval_ms", exact_time(reset_s), "there is no quota")
    weights.finish()
    table.finish("effective_sz_bytes")
    return table.make("", lambda: Quota(**values), Quota())


def _weights(table: _Table) -> Weights:
    keys = {"size": "sz_permil", "access_rate": "nr_accesses_permil", "age": "age_permil"}
    return Weights(**{name: round(table.read(key, _read_permil, 0.0) * 1000) for name, key in keys.items()})


def _read_tuner(value: object) -> Tuner:
    if value not in [tuner.value for tuner in Tuner]:
        raise InvalidInput(f"{shown(str(value))} is not a tuner", hint=f"one of {', '.join(Tuner)}")
    return Tuner(str(value))


def _goal(table: _Table) -> Goal | None:
    name = table.read("metric", str, "")
    metric, has_node, has_cgroup = METRICS.get(name, (None, False, False))
    node = table.read("nid", lambda value: -1 if value in (-1, "-1") else read_count(value), -1)
    cgroup = table.read("memcg_path", str, "")
    current = table.read("current_value", read_number, 0.0)
    if table.read("complement", read_truth, False):
        table.problem("complement", "is not supported", "write the metric that is the rest of this one")
    if metric is None:
        table.problem("metric", f"{shown(name)} is not supported", f"one of {', '.join(METRICS)}")
        table.finish("target_value")
        return None
    if metric is GoalMetric.USER_INPUT and current:
        table.problem("current_value", "is given by a program while it runs", "write 0")
    elif current:
        table.found.results.append("current_value")
    for key, is_left, value in (("nid", node >= 0 and not has_node, node), ("memcg_path", not has_cgroup, cgroup)):
        if is_left and value != "":
            table.leave_out(key, value, f"{name} is of the whole host" if not has_node else f"{name} has none")
    if (has_node and node < 0) or (has_cgroup and not cgroup):
        table.problem("nid" if node < 0 else "memcg_path", "is missing")
    target = table.read("target_value", _GOAL_VALUES.get(metric, _read_basis_points), 0.0)
    table.finish()
    where: Mapping[str, Any] = ({"node": max(node, 0)} if has_node else {}) | ({"cgroup": cgroup} if has_cgroup else {})
    return table.make("target_value", lambda: Goal(metric=metric, target=target, **where), None)


def _watermarks(table: _Table) -> Watermarks | None:
    metric = table.read("metric", str, "none")
    interval_s = table.read("interval_us", _read_finite_microseconds, 0.0)
    high, mid, low = (table.read(f"{key}_permil", _read_permil, 0.0) for key in ("high", "mid", "low"))
    table.finish()
    if metric == "none":
        given = {"interval_us": exact_time(interval_s)} if interval_s else {}
        marks = {"high_permil": high, "mid_permil": mid, "low_permil": low}
        given |= {key: exact_rate(value) for key, value in marks.items() if value}
        for key, text in given.items():
            table.leave_out(key, text, "the metric none never lets a scheme rest")
        return None
    if metric != "free_mem_rate":
        table.problem("metric", f"{shown(metric)} is not supported", "one of none, free_mem_rate")
    return table.make("", lambda: Watermarks(high=high, mid=mid, low=low, interval_s=interval_s), None)


def _filter(table: _Table, labels: tuple[str, ...]) -> Filter | None:
    name = table.read("filter_type", str, "")
    matching = table.read("matching", read_truth, True)
    # Its older name is filter_pass.
    allow = table.read("allow", read_truth, table.read("filter_pass", read_truth, False))
    cgroup = table.read("memcg_path", str, "")
    addresses = table.table("address_range")
    start, end = addresses.read("start", read_size, 0.0), addresses.read("end", read_size, 0.0)
    index = table.read("damon_target_idx", read_count, -1)
    sizes = table.read("hugepage_size", _read_sizes, None)
    table.without("probe_hits_wsum_range", "probes of DAMON are not supported")
    addresses.finish()
    table.finish()
    kind = FILTERS.get(name)
    if kind is None:
        table.problem("filter_type", f"{shown(name)} is not supported", f"one of {', '.join(FILTERS)}")
        return None
    values: dict[str, Any] = {}
    if kind is FilterKind.ADDRESS:
        values = {"start": _address(start), "end": _address(end)}
    elif kind is FilterKind.CGROUP:
        values = {"cgroup": cgroup}
    elif kind is FilterKind.HUGE_PAGE and sizes is not None:
        values = {"size_bytes": sizes}
    elif kind is FilterKind.TARGET:
        if not 0 <= index < len(labels):
            table.problem("damon_target_idx", "there is no such target in the file")
            return None
        values = {"target": labels[index]}
    others = {
        FilterKind.CGROUP: ("memcg_path", cgroup),
        FilterKind.ADDRESS: ("address_range", f"{start:g} to {end:g}" if start or end else ""),
        FilterKind.TARGET: ("damon_target_idx", index if index > 0 else ""),
        FilterKind.HUGE_PAGE: ("hugepage_size", "" if sizes is None else str(sizes)),
    }
    for owner, (key, value) in others.items():
        if owner is not kind and value != "":
            table.leave_out(key, value, f"a filter by {name} does not look at it")
    return table.make("", lambda: Filter(kind=kind, allow=allow, matching=matching, **values), None)


def _address(size: float) -> int:
    return _MAX_ADDRESS if math.isinf(size) else int(size)


def _read_sizes(value: object) -> Bounds:
    if not isinstance(value, list) or len(value) != 2:
        raise InvalidInput("is no pair of sizes", hint='write it like ["2 MiB", "2 MiB"]')
    low, high = (read_size(one) for one in value)
    if low > high:
        raise InvalidInput("the minimum is above the maximum", hint="swap the two")
    return Bounds(low, None if math.isinf(high) else high)
