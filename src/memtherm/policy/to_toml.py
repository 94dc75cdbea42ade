"""A Policy as the text of a TOML policy file, by the table of fields; what is as it is by default is left out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any

from memtherm.core.attributes import TUNED, IntervalGoal, MonitoringAttributes
from memtherm.core.filters import Filter
from memtherm.core.goals import Goal, GoalMetric
from memtherm.core.guard import GuardSettings
from memtherm.core.pattern import ANY, Bounds
from memtherm.core.quota import Quota
from memtherm.core.scheme import Scheme
from memtherm.errors import InvalidInput
from memtherm.policy import kinds
from memtherm.policy.fields import SECTIONS, Field, fields_of, sections_in
from memtherm.policy.kinds import VERSION, Kind
from memtherm.policy.values import Policy, TargetSelector
from memtherm.units import exact_rate, exact_size, exact_time

_INTERVALS = ("sampling_interval_s", "aggregation_interval_s")


def policy_toml(policy: Policy) -> str:
    """The text; `memtherm.policy.file.parse_policy` makes an equal policy of it.

    Raises:
        InvalidInput: a value that a policy file has no key for: an interval goal of one's own.
    """
    parts = [f"version = {VERSION}\n"]
    parts += [_table("target", _target(target)) for target in policy.targets]
    parts.append(_table("monitor", _monitor(policy.attributes)))
    parts.append(_table("guard", _differing(policy.guard, GuardSettings())))
    parts += [_table("scheme", _scheme(scheme)) for scheme in policy.schemes]
    return "\n".join(part for part in parts if part)


def _target(target: TargetSelector) -> dict[str, Any]:
    values = {name: value for name, value in vars(target).items() if value not in (None, False, ())}
    label = values.pop("label")
    return values | ({"label": label} if replace(target, label="").label != label else {})


def _scheme(scheme: Scheme) -> dict[str, Any]:
    values = _differing(scheme, Scheme(action=scheme.action)) | {"action": scheme.action}
    values |= _differing(values.pop("pattern", scheme.pattern), type(scheme.pattern)())
    quota = values.pop("quota", None)
    if quota is not None:
        values["goals"] = [_goal(goal) for goal in quota.goals]
        values["quota"] = _quota(quota)
    if scheme.filters:
        values["filters"] = [_filter(one) for one in scheme.filters]
    if scheme.destinations:
        values["destinations"] = [dict(vars(one)) for one in scheme.destinations]
    if scheme.watermarks is not None:
        values["watermarks"] = dict(vars(scheme.watermarks))
    return values


def _quota(quota: Quota) -> dict[str, Any]:
    values = _differing(quota, Quota())
    values.pop("goals", None)
    if "weights" in values:
        values["weights"] = {name: value for name, value in vars(values["weights"]).items() if value}
    return values


def _goal(goal: Goal) -> dict[str, Any]:
    values = {name: value for name, value in vars(goal).items() if value not in (None, "")}
    if goal.metric is GoalMetric.MEMORY_PRESSURE:
        values["target"] = exact_time(goal.target)
    elif goal.is_share:
        values["target"] = exact_rate(goal.target)
    return values


def _filter(one: Filter) -> dict[str, Any]:
    values: dict[str, Any] = {"allow" if one.allow else "reject": one.kind}
    if not one.matching:
        values["inverted"] = True
    if (one.start, one.end) != (0, 0):
        values["addresses"] = (one.start, one.end)
    if one.size_bytes != ANY:
        values["size_bytes"] = one.size_bytes
    return values | {name: value for name in ("target", "pattern", "cgroup") if (value := getattr(one, name))}


def _monitor(attributes: MonitoringAttributes) -> dict[str, Any]:
    """A goal is there in a file where no interval is."""
    values = _differing(attributes, TUNED)
    values.pop("interval_goal", None)
    if attributes.interval_goal is None:
        return values | {name: getattr(attributes, name) for name in _INTERVALS}
    if attributes.interval_goal != IntervalGoal():
        raise InvalidInput(
            "a policy file has no key for an interval goal, and this one is not memtherm's own",
            hint="give intervals without intervals_goal, or the usual goal: 4 % accesses, 3 aggregations, 5 ms to 10 s",
        )
    # Intervals that fit themselves are a beginning only, and others are soon found again.
    return {name: value for name, value in values.items() if name not in _INTERVALS}


def _differing(value: Any, usual: Any) -> dict[str, Any]:
    """The attributes of a value that are not as usual."""
    pairs = ((field.name, getattr(value, field.name)) for field in fields(value))
    return {name: own for name, own in pairs if own != getattr(usual, name)}


def _table(section: str, values: Mapping[str, Any]) -> str:
    """A table of the top of the file; empty if no key of it is given."""
    lines = _lines(section, values)
    return "\n".join([SECTIONS[section].header, *lines, ""]) if lines else ""


def _lines(section: str, values: Mapping[str, Any]) -> list[str]:
    lines = [
        f"{field.key} = {_value(field, values[field.attribute])}"
        for field in fields_of(section)
        if values.get(field.attribute) is not None
    ]
    for inner in sections_in(section):
        value = values.get(inner.attribute)
        if not value:
            continue
        if inner.repeated:
            tables = [f"    {{ {', '.join(_lines(inner.path, one))} }}," for one in value]
            lines += [f"{inner.key} = [", *tables, "]"]
        else:
            lines.append(f"{inner.key} = {{ {', '.join(_lines(inner.path, value))} }}")
    return lines


def _value(field: Field, value: Any) -> str:
    return _WRITERS[field.kind](value)


def _text(value: object) -> str:
    return json.dumps(str(value), ensure_ascii=False)


def _bounds(words: Callable[[float], str]) -> Callable[[Bounds], str]:
    def write(bounds: Bounds) -> str:
        low, high = bounds.minimum, bounds.maximum
        if low is None and high is None:
            return _text("any")
        if low is None or high is None:
            return _text(f">= {words(low)}" if low is not None else f"<= {words(high or 0)}")
        return _text(f"== {words(low)}" if low == high else f"{words(low)} .. {words(high)}")

    return write


def _size(value: float) -> str:
    return exact_size(int(value))


def _addresses(value: tuple[int, int]) -> str:
    return _text(f"{value[0]:#x}-{value[1]:#x}")


def _plain(value: float | str) -> str:
    """A number, unless it is text: a user's name, a goal with its unit."""
    if isinstance(value, str):
        return _text(value)
    return str(int(value)) if value == int(value) else repr(float(value))


_WRITERS: Mapping[Kind, Callable[[Any], str]] = {
    **dict.fromkeys((kinds.SIZE, kinds.QUOTA_SIZE), lambda value: _text(_size(value))),
    **dict.fromkeys((kinds.TIME, kinds.SAMPLING_TIME), lambda value: _text(exact_time(value))),
    **dict.fromkeys((kinds.PID, kinds.REGION_COUNT, kinds.COUNT, kinds.NODE, kinds.USER, kinds.GOAL_VALUE), _plain),
    **dict.fromkeys(
        (kinds.NAME, kinds.LABEL, kinds.SCHEME_NAME, kinds.CGROUP, kinds.PATH_PATTERN, kinds.METHOD, kinds.ACTION),
        _text,
    ),
    **dict.fromkeys((kinds.METRIC, kinds.TUNER, kinds.WATERMARK_METRIC, kinds.FILTER_KIND), _text),
    kinds.SHARE: lambda value: _text(exact_rate(value)),
    kinds.SIZE_BOUNDS: _bounds(_size),
    kinds.RATE_BOUNDS: _bounds(exact_rate),
    kinds.TIME_BOUNDS: _bounds(exact_time),
    kinds.FRACTION: lambda value: _text(f"{value[0]}/{value[1]}"),
    kinds.ADDRESSES: _addresses,
    kinds.ADDRESS_RANGES: lambda value: f"[{', '.join(_addresses(one) for one in value)}]",
    kinds.LABELS: lambda value: json.dumps(list(value), ensure_ascii=False),
    kinds.TRUTH: lambda value: str(value).lower(),
}
