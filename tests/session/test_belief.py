"""Whether numbers can be believed: each doubt, and a canary that fails while running."""

import json
from dataclasses import replace

import pytest

from memtherm.core.attributes import MonitoringAttributes
from memtherm.core.pattern import AccessPattern, Bounds
from memtherm.core.scheme import Action, Scheme
from memtherm.core.snapshot import Conditions
from memtherm.probe.simulated import HotRange
from memtherm.session.belief import doubts
from memtherm.testing import RecordingActor, VirtualClock
from memtherm.units import format_rate
from memtherm.views.plain import plain_snapshot
from session.scene import AUTO, CENSUS, GIB, MIB, SAMPLING, census_probe, make_loop, take, take_until, watched

COLD = Scheme(name="cold", action=Action.PAGEOUT, pattern=AccessPattern(access_rate=Bounds(0, 0), age_s=Bounds(5.0)))
FIXED = MonitoringAttributes(sampling_interval_s=0.25, aggregation_interval_s=5.0, method="sampling")


def conditions(**changed: float) -> Conditions:
    return Conditions(
        method="census",
        probe="bpf",
        clearing="cold",
        grain="page",
        sampling_interval_s=0.2,
        aggregation_interval_s=1.0,
        samples=20,
        **changed,  # type: ignore[arg-type]
    )


def test_no_doubts() -> None:
    assert doubts(conditions(late_samples=2, unclear_share=0.1, uncovered_share=0.05), canary_failure="") == ()


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"late_samples": 3}, f"{format_rate(0.15)} of the looks came late: this host is too busy for looks every"),
        ({"unclear_share": 0.12}, f"{format_rate(0.12)} of the memory is shared with other processes or locked"),
        ({"uncovered_share": 0.5}, f"{format_rate(0.5)} of the looks could not tell"),
    ],
)
def test_each_doubt(changed: dict[str, float], told: str) -> None:
    found = doubts(conditions(**changed), canary_failure="")
    assert len(found) == 1
    assert found[0].startswith(told)


def test_all_doubts_at_once_and_the_canary_first() -> None:
    found = doubts(conditions(late_samples=20, unclear_share=1, uncovered_share=1), canary_failure="3 were missed")
    assert len(found) == 4
    assert found[0] == "the canary failed while watching, and schemes are stopped: 3 were missed"


@pytest.mark.parametrize("attributes", [CENSUS, SAMPLING, AUTO, FIXED], ids=["census", "sampling", "auto", "fixed"])
def test_a_canary_that_fails_while_running_stops_schemes_for_good(attributes: MonitoringAttributes) -> None:
    clock, actor = VirtualClock(), RecordingActor()
    asked_s: list[float] = []

    def canary() -> str:
        asked_s.append(clock.monotonic_s())
        return "3 accesses were missed" if len(asked_s) == 2 else ""

    # The larger the target, the longer its windows.
    probe = census_probe(clock, [(0, 16 * GIB)], present=[(0, MIB)], hot=[HotRange(0, MIB, period_s=0.3)])
    loop = make_loop([watched(clock, probe, actor=actor)], clock, attributes=attributes, schemes=[COLD], canary=canary)
    report, planned_before = take(loop, 1)[0], 0
    while len(asked_s) < 2:
        assert report.snapshot.conditions.doubts == ()
        planned_before = len(actor.planned)
        report = take(loop, 1)[0]
    assert planned_before > 1
    assert len(actor.planned) == planned_before, "nothing is done on the numbers of the window that failed"
    told = "the canary failed while watching, and schemes are stopped: 3 accesses were missed"
    assert report.snapshot.conditions.doubts == (told,)
    assert told in json.dumps(plain_snapshot(report.snapshot))
    after = take_until(loop, clock, clock.monotonic_s() + 1000.0)
    assert len(actor.planned) == planned_before
    assert len(asked_s) == 2, "once wrong, it is never believed again"
    assert {report.snapshot.conditions.doubts for report in after} == {(told,)}
    assert after[-1].schemes[0].matched_bytes > 0, "what it would do is still told"
    assert after[-1].schemes[0].tried_bytes == 0


def test_the_canary_is_asked_every_five_minutes() -> None:
    clock = VirtualClock()
    asked_s: list[float] = []

    def canary() -> str:
        asked_s.append(clock.monotonic_s())
        return ""

    loop = make_loop([watched(clock, census_probe(clock, [(0, 16 * GIB)]))], clock, canary=canary)
    take_until(loop, clock, 1600.0)
    assert len(asked_s) == 5
    assert 300 <= asked_s[0] < 305


def test_doubts_are_in_the_json_of_a_snapshot() -> None:
    clock = VirtualClock()
    probe = census_probe(clock, [(0, 8 * GIB)], hot=[HotRange(0, GIB, period_s=0.01)])
    probe.stuck = [(0, GIB)]
    plain = plain_snapshot(take(make_loop([watched(clock, probe)], clock), 1)[0].snapshot)
    assert "shared with other processes" in plain["conditions"]["doubts"][0]
    assert plain["conditions"]["method"] == "census"
    assert plain["conditions"]["unclear_share"] == 1
    json.dumps(plain)


def test_one_answer_for_a_mapping_is_an_upper_bound() -> None:
    found = doubts(replace(conditions(), grain="mapping"), canary_failure="")
    assert len(found) == 1
    assert "whole mapping" in found[0]
