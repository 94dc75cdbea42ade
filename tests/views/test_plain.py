"""Snapshots and reports as JSON: whole numbers stay whole, and nothing is lost on the way."""

import json
from dataclasses import replace
from typing import Any

from memtherm.core.plan import Refusal
from memtherm.core.report import QuotaReport, Report, SchemeReport
from memtherm.core.scheme import Action, SchemeStatistics
from memtherm.views.plain import plain_report, plain_snapshot
from views.rows import MIB, regions, snapshot

HIGH = (1 << 47) // MIB - 2


def test_a_snapshot_survives_json() -> None:
    shot = snapshot((0, 1, 3, 0.25, 1.5), (1, HIGH, HIGH + 1, 1.0, 0.0))
    plain = json.loads(json.dumps(plain_snapshot(shot)))
    assert plain["regions"][0] == {
        "target": 0,
        "start": MIB,
        "end": 3 * MIB,
        "size_bytes": 2 * MIB,
        "nr_accesses": 5,
        "access_rate": 0.25,
        "age_s": 1.5,
        "rate_error": round(float(shot.regions.rate_error[0]), 6),
    }
    assert plain["regions"][1]["start"] == HIGH * MIB
    assert plain["targets"] == [
        {"pid": 7, "name": "one", "start_time_s": 0.0, "labels": []},
        {"pid": 8, "name": "two", "start_time_s": 0.0, "labels": []},
    ]
    assert plain["working_set_bytes"] == shot.working_set_bytes() == 3 * MIB
    assert plain["conditions"]["agent_cpu_percent"] == 1.0


def test_a_report_tells_what_each_scheme_did() -> None:
    scheme = SchemeReport(
        name="cold",
        action=Action.PAGEOUT,
        matched_bytes=5,
        tried_bytes=4,
        applied_bytes=3,
        refused=(Refusal("locked", 1),),
        total=SchemeStatistics(nr_tried=1, tried_bytes=4, nr_applied=1, applied_bytes=3, refused_bytes=1),
    )
    plain = json.loads(json.dumps(plain_report(Report(snapshot((0, 0, 1, 0.0, 0)), (scheme,), ("it rains",)))))
    assert plain["nr_regions"] == 1
    assert plain["events"] == ["it rains"]
    assert plain["schemes"][0]["action"] == "pageout"
    assert plain["schemes"][0]["refused"] == [{"reason": "locked", "size_bytes": 1}]
    assert plain["schemes"][0]["total"]["applied_bytes"] == 3
    assert plain["schemes"][0]["total"]["nr_snapshots"] == 0
    assert plain["schemes"][0]["quota"] is plain["schemes"][0]["free_memory"] is None
    assert "tried_regions" not in plain["schemes"][0]


def limited(**changes: Any) -> SchemeReport:
    return replace(
        SchemeReport(
            name="cold",
            action=Action.PAGEOUT,
            matched_bytes=9 * MIB,
            tried_bytes=0,
            applied_bytes=0,
            refused=(),
            total=SchemeStatistics(),
            filtered_bytes=MIB,
            is_active=False,
            state="rests: 60% of memory is free",
            quota=QuotaReport(128 * MIB, 96 * MIB, 0.63),
            free_memory=0.6,
        ),
        **changes,
    )


def test_limits_are_told() -> None:
    report = Report(snapshot((0, 0, 1, 0.0, 0)), (limited(),))
    scheme = json.loads(json.dumps(plain_report(report)))["schemes"][0]
    assert scheme["quota"] == {"effective_bytes": 128 * MIB, "charged_bytes": 96 * MIB, "goal_score": 0.63}
    assert (scheme["free_memory"], scheme["filtered_bytes"]) == (0.6, MIB)
    assert (scheme["is_active"], scheme["state"]) == (False, "rests: 60% of memory is free")


def test_tried_regions_are_told_when_asked_for() -> None:
    tried = regions((0, 3, 4, 0.0, 7.5))
    report = Report(snapshot((0, 0, 1, 0.0, 0)), (limited(tried=tried), limited()))
    schemes = json.loads(json.dumps(plain_report(report, tried_regions=True)))["schemes"]
    assert schemes[0]["tried_regions"] == [
        {
            "target": 0,
            "start": 3 * MIB,
            "end": 4 * MIB,
            "size_bytes": MIB,
            "nr_accesses": 0,
            "access_rate": 0.0,
            "age_s": 7.5,
            "rate_error": 0.0,
        }
    ]
    assert schemes[1]["tried_regions"] == []
