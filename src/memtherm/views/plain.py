"""Snapshots and reports as plain dictionaries: what `--json` prints, one line each."""

from dataclasses import asdict
from typing import Any

from memtherm.core.plan import Refusal
from memtherm.core.report import Report, SchemeReport
from memtherm.core.snapshot import Conditions, Snapshot


def plain_conditions(conditions: Conditions) -> dict[str, Any]:
    return asdict(conditions) | {"agent_cpu_percent": round(conditions.agent_cpu_percent, 3)}


def plain_snapshot(snapshot: Snapshot) -> dict[str, Any]:
    """Regions as a list of objects: addresses and sizes in bytes, rates 0..1, ages in seconds."""
    regions = snapshot.regions
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
    return {
        "time_s": snapshot.time_s,
        "targets": [asdict(target) for target in snapshot.targets],
        "working_set_bytes": snapshot.working_set_bytes(),
        "conditions": plain_conditions(snapshot.conditions),
        "regions": [
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
        ],
    }


def plain_report(report: Report) -> dict[str, Any]:
    """A report without its regions: what each scheme did, and under which conditions."""
    snapshot = report.snapshot
    return {
        "time_s": snapshot.time_s,
        "targets": [asdict(target) for target in snapshot.targets],
        "nr_regions": len(snapshot.regions),
        "working_set_bytes": snapshot.working_set_bytes(),
        "schemes": [_plain_scheme(scheme) for scheme in report.schemes],
        "events": list(report.events),
        "conditions": plain_conditions(snapshot.conditions),
    }


def plain_refusals(refused: tuple[Refusal, ...]) -> list[dict[str, Any]]:
    return [asdict(refusal) for refusal in refused]


def _plain_scheme(scheme: SchemeReport) -> dict[str, Any]:
    return {
        "name": scheme.name,
        "action": str(scheme.action),
        "matched_bytes": scheme.matched_bytes,
        "tried_bytes": scheme.tried_bytes,
        "applied_bytes": scheme.applied_bytes,
        "refused": plain_refusals(scheme.refused),
        "total": asdict(scheme.total),
    }
