"""Snapshots and reports as plain dictionaries: what `--json` prints, one line each."""

from dataclasses import asdict
from typing import Any

from memtherm.core.plan import Refusal
from memtherm.core.report import Report, SchemeReport
from memtherm.core.snapshot import Conditions, Regions, Snapshot


def plain_conditions(conditions: Conditions) -> dict[str, Any]:
    return asdict(conditions) | {"agent_cpu_percent": round(conditions.agent_cpu_percent, 3)}


def plain_snapshot(snapshot: Snapshot) -> dict[str, Any]:
    """Regions as a list of objects: addresses and sizes in bytes, rates 0..1, ages in seconds."""
    return {
        "time_s": snapshot.time_s,
        "targets": [asdict(target) for target in snapshot.targets],
        "working_set_bytes": snapshot.working_set_bytes(),
        "conditions": plain_conditions(snapshot.conditions),
        "regions": _plain_regions(snapshot.regions),
    }


def plain_report(report: Report, *, tried_regions: bool = False) -> dict[str, Any]:
    """A report without its regions: what each scheme did, and under which conditions.

    Args:
        tried_regions: with the regions that each scheme was tried on.
    """
    snapshot = report.snapshot
    return {
        "time_s": snapshot.time_s,
        "targets": [asdict(target) for target in snapshot.targets],
        "nr_regions": len(snapshot.regions),
        "working_set_bytes": snapshot.working_set_bytes(),
        "schemes": [_plain_scheme(scheme, tried_regions=tried_regions) for scheme in report.schemes],
        "events": list(report.events),
        "conditions": plain_conditions(snapshot.conditions),
    }


def plain_refusals(refused: tuple[Refusal, ...]) -> list[dict[str, Any]]:
    return [asdict(refusal) for refusal in refused]


def _plain_scheme(scheme: SchemeReport, *, tried_regions: bool) -> dict[str, Any]:
    tried = {"tried_regions": [] if scheme.tried is None else _plain_regions(scheme.tried)} if tried_regions else {}
    return {
        "name": scheme.name,
        "action": str(scheme.action),
        "is_active": scheme.is_active,
        "state": scheme.state,
        "matched_bytes": scheme.matched_bytes,
        "tried_bytes": scheme.tried_bytes,
        "applied_bytes": scheme.applied_bytes,
        "refused": plain_refusals(scheme.refused),
        "filtered_bytes": scheme.filtered_bytes,
        "quota": None if scheme.quota is None else asdict(scheme.quota),
        "free_memory": scheme.free_memory,
        "total": asdict(scheme.total),
        **tried,
    }


def _plain_regions(regions: Regions) -> list[dict[str, Any]]:
    columns = zip(
        regions.target.tolist(),
        regions.start.tolist(),
        regions.end.tolist(),
        regions.nr_accesses.tolist(),
        regions.access_rate.round(6).tolist(),
        regions.age_s.round(6).tolist(),
        regions.rate_error.round(6).tolist(),
        strict=True,
    )
    return [
        {
            "target": target,
            "start": start,
            "end": end,
            "size_bytes": end - start,
            "nr_accesses": nr_accesses,
            "access_rate": rate,
            "age_s": age_s,
            "rate_error": rate_error,
        }
        for target, start, end, nr_accesses, rate, age_s, rate_error in columns
    ]
