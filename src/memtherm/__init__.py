"""memtherm: a thermometer and a thermostat for memory.

Layers, each importing only what stands before it (tests/repo/test_layers.py holds them):

    errors, units              for all
    core    linux              the engine, pure numpy  ·  everything that is Linux
    probe   act   kdamond      see  ·  act  ·  the kernel's own DAMON
    policy  record             text ↔ values  ·  files of what was seen
    session                    joins them: thread, clock, lifetime
    arrays                     memory of the own process: watch an array, and act on it
    views   plot               snapshots → numbers for people (imports core alone)  ·  pictures
    cli                        the commands: the only place that prints and exits
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memtherm.arrays.allocate import allocate
    from memtherm.arrays.watched import WatchedArray, watch
    from memtherm.core.attributes import MonitoringAttributes
    from memtherm.core.filters import Filter, FilterKind
    from memtherm.core.goals import Goal, GoalMetric, Tuner
    from memtherm.core.guard import GuardSettings
    from memtherm.core.history import History
    from memtherm.core.pattern import AccessPattern, Bounds
    from memtherm.core.plan import Refusal
    from memtherm.core.quota import Quota, Weights
    from memtherm.core.report import QuotaReport, Report, SchemeReport
    from memtherm.core.scheme import Action, Destination, Scheme, SchemeStatistics
    from memtherm.core.selection import Selection
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
    from memtherm.record.header import RecordHeader
    from memtherm.record.reader import Record, open_record
    from memtherm.record.writer import RecordWriter
    from memtherm.session.open import monitor
    from memtherm.session.recording import record_session
    from memtherm.session.session import Session
    from memtherm.views.heatmap import HeatMap, heat, heat_map

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
    "HeatMap": "memtherm.views.heatmap",
    "History": "memtherm.core.history",
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
    "Record": "memtherm.record.reader",
    "RecordHeader": "memtherm.record.header",
    "RecordWriter": "memtherm.record.writer",
    "Refusal": "memtherm.core.plan",
    "Regions": "memtherm.core.snapshot",
    "Report": "memtherm.core.report",
    "Scheme": "memtherm.core.scheme",
    "SchemeReport": "memtherm.core.report",
    "SchemeStatistics": "memtherm.core.scheme",
    "Selection": "memtherm.core.selection",
    "Session": "memtherm.session.session",
    "Snapshot": "memtherm.core.snapshot",
    "TargetBusy": "memtherm.errors",
    "TargetGone": "memtherm.errors",
    "TargetInfo": "memtherm.core.snapshot",
    "TargetSelector": "memtherm.policy.values",
    "Tuner": "memtherm.core.goals",
    "WatchedArray": "memtherm.arrays.watched",
    "Watermarks": "memtherm.core.watermarks",
    "Weights": "memtherm.core.quota",
    "allocate": "memtherm.arrays.allocate",
    "heat": "memtherm.views.heatmap",
    "heat_map": "memtherm.views.heatmap",
    "json_schema": "memtherm.policy.reference",
    "load_policy": "memtherm.policy.file",
    "monitor": "memtherm.session.open",
    "open_record": "memtherm.record.reader",
    "parse_scheme_line": "memtherm.policy.scheme_line",
    "probe_host": "memtherm.linux.facts",
    "record_session": "memtherm.session.recording",
    "watch": "memtherm.arrays.watched",
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
    "HeatMap",
    "History",
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
    "Record",
    "RecordHeader",
    "RecordWriter",
    "Refusal",
    "Regions",
    "Report",
    "Scheme",
    "SchemeReport",
    "SchemeStatistics",
    "Selection",
    "Session",
    "Snapshot",
    "TargetBusy",
    "TargetGone",
    "TargetInfo",
    "TargetSelector",
    "Tuner",
    "WatchedArray",
    "Watermarks",
    "Weights",
    "allocate",
    "heat",
    "heat_map",
    "json_schema",
    "load_policy",
    "monitor",
    "open_record",
    "parse_scheme_line",
    "probe_host",
    "record_session",
    "watch",
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
