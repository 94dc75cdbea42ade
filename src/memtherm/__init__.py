"""memtherm: a thermometer and a thermostat for memory.

Layers, each importing only what stands before it (tests/repo/test_layers.py holds them):

    errors, units              for all
    core    linux              the engine, pure numpy  ·  everything that is Linux
    probe   act   policy       see  ·  act  ·  text ↔ values
    session                    joins them: thread, clock, lifetime
    views                      snapshots → numbers for people (imports core alone)
    cli                        the commands: the only place that prints and exits
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memtherm.core.attributes import MonitoringAttributes
    from memtherm.core.filters import Filter, FilterKind
    from memtherm.core.goals import Goal, GoalMetric, Tuner
    from memtherm.core.guard import GuardSettings
    from memtherm.core.pattern import AccessPattern, Bounds
    from memtherm.core.plan import Refusal
    from memtherm.core.quota import Quota, Weights
    from memtherm.core.report import QuotaReport, Report, SchemeReport
    from memtherm.core.scheme import Action, Destination, Scheme, SchemeStatistics
    from memtherm.core.snapshot import Conditions, Regions, Snapshot, TargetInfo
    from memtherm.core.watermarks import Watermarks
    from memtherm.errors import (
        HostCannot,
        InvalidInput,
        InvalidPolicy,
        MemthermError,
        NotPermitted,
        NotSupported,
        ProbeNotTrusted,
        TargetBusy,
        TargetGone,
    )
    from memtherm.linux.facts import HostFacts, probe_host
    from memtherm.policy.file import load_policy
    from memtherm.policy.reference import json_schema
    from memtherm.policy.scheme_line import parse_scheme_line
    from memtherm.policy.values import Policy, TargetSelector
    from memtherm.session.open import monitor
    from memtherm.session.session import Session

__version__ = "0.1.0"

# Name → module.  Imported at first use: numpy alone would take most of the time of `memtherm --help`.
_HOMES = {
    "AccessPattern": "memtherm.core.pattern",
    "Action": "memtherm.core.scheme",
    "Bounds": "memtherm.core.pattern",
    "Conditions": "memtherm.core.snapshot",
    "Destination": "memtherm.core.scheme",
    "Filter": "memtherm.core.filters",
    "FilterKind": "memtherm.core.filters",
    "Goal": "memtherm.core.goals",
    "GoalMetric": "memtherm.core.goals",
    "GuardSettings": "memtherm.core.guard",
    "HostCannot": "memtherm.errors",
    "HostFacts": "memtherm.linux.facts",
    "InvalidInput": "memtherm.errors",
    "InvalidPolicy": "memtherm.errors",
    "MemthermError": "memtherm.errors",
    "MonitoringAttributes": "memtherm.core.attributes",
    "NotPermitted": "memtherm.errors",
    "NotSupported": "memtherm.errors",
    "Policy": "memtherm.policy.values",
    "ProbeNotTrusted": "memtherm.errors",
    "Quota": "memtherm.core.quota",
    "QuotaReport": "memtherm.core.report",
    "Refusal": "memtherm.core.plan",
    "Regions": "memtherm.core.snapshot",
    "Report": "memtherm.core.report",
    "Scheme": "memtherm.core.scheme",
    "SchemeReport": "memtherm.core.report",
    "SchemeStatistics": "memtherm.core.scheme",
    "Session": "memtherm.session.session",
    "Snapshot": "memtherm.core.snapshot",
    "TargetBusy": "memtherm.errors",
    "TargetGone": "memtherm.errors",
    "TargetInfo": "memtherm.core.snapshot",
    "TargetSelector": "memtherm.policy.values",
    "Tuner": "memtherm.core.goals",
    "Watermarks": "memtherm.core.watermarks",
    "Weights": "memtherm.core.quota",
    "json_schema": "memtherm.policy.reference",
    "load_policy": "memtherm.policy.file",
    "monitor": "memtherm.session.open",
    "parse_scheme_line": "memtherm.policy.scheme_line",
    "probe_host": "memtherm.linux.facts",
}

__all__ = [
    "AccessPattern",
    "Action",
    "Bounds",
    "Conditions",
    "Destination",
    "Filter",
    "FilterKind",
    "Goal",
    "GoalMetric",
    "GuardSettings",
    "HostCannot",
    "HostFacts",
    "InvalidInput",
    "InvalidPolicy",
    "MemthermError",
    "MonitoringAttributes",
    "NotPermitted",
    "NotSupported",
    "Policy",
    "ProbeNotTrusted",
    "Quota",
    "QuotaReport",
    "Refusal",
    "Regions",
    "Report",
    "Scheme",
    "SchemeReport",
    "SchemeStatistics",
    "Session",
    "Snapshot",
    "TargetBusy",
    "TargetGone",
    "TargetInfo",
    "TargetSelector",
    "Tuner",
    "Watermarks",
    "Weights",
    "json_schema",
    "load_policy",
    "monitor",
    "parse_scheme_line",
    "probe_host",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'memtherm' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
