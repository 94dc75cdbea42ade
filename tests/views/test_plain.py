"""Snapshots and reports as JSON: whole numbers stay whole, and nothing is lost on the way."""

import json

from memtherm.core.plan import Refusal
from memtherm.core.report import Report, SchemeReport
from memtherm.core.scheme import Action, SchemeStatistics
from memtherm.views.plain import plain_report, plain_snapshot
from views.rows import MIB, snapshot

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
        {"pid": 7, "name": "one", "start_time_s": 0.0},
        {"pid": 8, "name": "two", "start_time_s": 0.0},
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
