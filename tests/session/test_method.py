"""Which method watches, and why: by cost, back again, and not to and fro."""

import numpy as np
import pytest

from memtherm.core.attributes import IntervalGoal, MonitoringAttributes
from memtherm.core.pattern import AccessPattern, Bounds
from memtherm.core.scheme import Action, Scheme
from memtherm.errors import TargetGone
from memtherm.probe.simulated import CensusCosts, HotRange, SimulatedProbe
from memtherm.session.method import Choice, MethodChooser
from memtherm.testing import RecordingActor, VirtualClock
from memtherm.units import format_time
from session.scene import AUTO, GIB, MIB, TIB, census_probe, make_loop, take, take_until, watched


class Look:
    """What a look takes, as a test says."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.count = 0
        self.is_gone = False

    def __call__(self) -> float:
        if self.is_gone:
            raise TargetGone("gone")
        self.count += 1
        return self.seconds


def chooser(look: Look, *, attributes: MonitoringAttributes = AUTO, no_census: str = "") -> MethodChooser:
    return MethodChooser(attributes, no_census=no_census, time_of_look_s=look)


@pytest.mark.parametrize("method", ["census", "sampling"])
def test_a_method_that_was_asked_for_stays(method: str) -> None:
    look = Look(100.0)
    one = chooser(look, attributes=MonitoringAttributes(method=method))
    assert one.first(0.0) == Choice(method, "asked for")
    assert one.next(method, needed_interval_s=1e6, now_s=1e6) is None
    assert look.count == 0


def test_without_a_census_it_is_sampling_for_good() -> None:
    one = chooser(Look(0), no_census="the probe of pid 7 (x) does not see every page")
    assert one.first(0.0) == Choice("sampling", "the probe of pid 7 (x) does not see every page")
    assert one.next("sampling", needed_interval_s=0, now_s=1e6) is None


@pytest.mark.parametrize(
    ("look_s", "method"),
    [(0.0001, "census"), (0.0064, "census"), (0.033, "census"), (0.034, "sampling"), (0.41, "sampling")],
)
def test_the_first_choice_is_by_the_cost_of_one_look(look_s: float, method: str) -> None:
    """A look, and twice as much for what follows it, in 1 % of 10 s."""
    choice = chooser(Look(look_s)).first(0.0)
    assert choice.method == method
    if method == "census":
        assert choice.why == "every page can be counted within 1 % of one CPU"
    else:
        needed, longest = format_time(300 * look_s), format_time(10)
        told = f"a census within 1 % of one CPU would look only every {needed}, and {longest} is the longest interval"
        assert choice.why == told


def test_a_fixed_interval_bounds_a_census_too() -> None:
    fixed = MonitoringAttributes()
    assert chooser(Look(0.00001), attributes=fixed).first(0.0).method == "census"
    choice = chooser(Look(0.0064), attributes=fixed).first(0.0)
    assert choice.method == "sampling"
    assert f"{format_time(0.005)} is the longest interval" in choice.why


def test_census_is_left_when_it_needs_too_much_and_tried_again_with_room() -> None:
    look = Look(0.001)
    one = chooser(look)
    one.first(0.0)
    assert one.next("census", needed_interval_s=10.0, now_s=1000.0) is None
    choice = one.next("census", needed_interval_s=10.1, now_s=1000.0)
    assert choice is not None
    assert choice.method == "sampling"
    look.seconds = 0.02
    asked = look.count
    assert one.next("sampling", needed_interval_s=0.1, now_s=1030.0) is None
    assert look.count == asked, "looking at everything is dear: not after each window"
    assert one.next("sampling", needed_interval_s=0.1, now_s=1061.0) is None, "6 s of 10 s is no room"
    look.seconds = 0.016
    assert one.next("sampling", needed_interval_s=0.1, now_s=1100.0) is None
    choice = one.next("sampling", needed_interval_s=0.1, now_s=1122.0)
    assert choice is not None
    assert choice.method == "census"


def test_a_census_that_fails_again_and_again_is_tried_ever_more_seldom() -> None:
    """Reading is cheap and clearing is not: only a census itself can tell."""
    one = chooser(Look(0.001))
    method, changes = one.first(0.0).method, []
    for now_s in range(0, 20_000, 10):
        choice = one.next(method, needed_interval_s=20.0, now_s=float(now_s))
        if choice is not None:
            method = choice.method
            if method == "census":
                changes.append(now_s)
    assert changes[0] <= 130
    assert np.diff(changes).max() == 3610
    assert len(changes) <= 10


def test_a_target_that_goes_while_it_is_tried_changes_nothing() -> None:
    look = Look(0.001)
    look.is_gone = True
    one = chooser(look)
    assert one.first(0.0).method == "sampling"
    assert one.next("sampling", needed_interval_s=0.1, now_s=100.0) is None
    look.is_gone = False
    choice = one.next("sampling", needed_interval_s=0.1, now_s=200.0)
    assert choice is not None
    assert choice.method == "census"


@pytest.mark.parametrize(
    ("size", "method"), [(256 * MIB, "census"), (16 * GIB, "census"), (64 * GIB, "census"), (TIB, "sampling")]
)
def test_auto_by_the_size_of_the_target(size: int, method: str) -> None:
    clock = VirtualClock()
    probe = census_probe(clock, [(0, size)], hot=[HotRange(0, 64 * MIB, period_s=0.01)])
    conditions = take(make_loop([watched(clock, probe)], clock, attributes=AUTO), 1)[0].snapshot.conditions
    assert conditions.method == method
    assert conditions.why != ""


def test_1_tib_is_sampled_and_counted_again_when_it_shrinks() -> None:
    clock = VirtualClock()
    probe = census_probe(clock, [(0, TIB)], hot=[HotRange(GIB, 3 * GIB, period_s=0.01)])
    target = watched(clock, probe)
    loop = make_loop([target], clock, attributes=AUTO)
    reports = take_until(loop, clock, 100.0)
    assert {report.snapshot.conditions.method for report in reports} == {"sampling"}
    assert "is the longest interval" in reports[0].snapshot.conditions.why
    assert reports[0].events == ()
    assert isinstance(target.probe, SimulatedProbe)
    probe.mapped = target.probe.mapped = [(0, 8 * GIB)]
    reports = take_until(loop, clock, 400.0)
    events = [event for report in reports for event in report.events]
    assert events == [
        "census from here on, with new ages: every page can be counted within 1 % of one CPU",
    ]
    last = reports[-1].snapshot
    assert last.conditions.method == "census"
    assert last.working_set_bytes() == 2 * GIB
    assert last.conditions.agent_cpu_percent <= 1.05


def test_a_census_whose_clearing_is_too_dear_goes_to_sampling_and_comes_back_when_that_ends() -> None:
    clock = VirtualClock()
    costs = CensusCosts(clear_page_s=16e-6)
    hot = HotRange(0, 256 * MIB, period_s=0.5, end_s=1200.0)
    probe = census_probe(clock, [(0, 8 * GIB)], hot=[hot], costs=costs)
    loop = make_loop([watched(clock, probe)], clock, attributes=AUTO)
    reports = take_until(loop, clock, 6000.0)
    changes = [report for report in reports if any("new ages" in event for event in report.events)]
    assert 3 <= len(changes) <= 9
    assert format_time(105) in changes[0].events[-1], "what it would take to clear all, not a share of it"
    conditions = reports[-1].snapshot.conditions
    assert (conditions.method, conditions.doubts) == ("census", ())
    assert conditions.agent_cpu_percent <= 1.0


def test_ages_and_schemes_go_on_after_a_change_of_method() -> None:
    clock, actor = VirtualClock(), RecordingActor()
    cold = Scheme(
        name="cold", action=Action.PAGEOUT, pattern=AccessPattern(access_rate=Bounds(0, 0), age_s=Bounds(30.0))
    )
    probe = census_probe(clock, [(0, TIB)], present=[(0, MIB)])
    target = watched(clock, probe, actor=actor)
    attributes = MonitoringAttributes(interval_goal=IntervalGoal(max_sampling_interval_s=1.0))
    loop = make_loop([target], clock, attributes=attributes, schemes=[cold])
    assert take_until(loop, clock, 20.0)[-1].snapshot.conditions.method == "sampling"
    assert isinstance(target.probe, SimulatedProbe)
    probe.mapped = target.probe.mapped = [(0, GIB)]
    reports = take_until(loop, clock, 130.0)
    assert reports[-1].snapshot.conditions.method == "census"
    assert reports[-1].schemes[0].total.nr_applied >= 2


def test_a_target_without_a_census_makes_all_sampling() -> None:
    clock = VirtualClock()
    probes = [watched(clock, census_probe(clock, [(0, GIB)])), watched(clock, None, pid=8)]
    conditions = take(make_loop(probes, clock, attributes=AUTO), 1)[0].snapshot.conditions
    assert conditions.method == "sampling"
    assert conditions.why == "the probe of pid 8 (simulated) does not see every page"


def test_the_only_target_may_go_before_the_first_window() -> None:
    clock = VirtualClock()
    probe = census_probe(clock, [(0, GIB)])
    target = watched(clock, probe)
    assert isinstance(target.probe, SimulatedProbe)
    probe.alive = target.probe.alive = False
    loop = make_loop([target], clock, attributes=AUTO)
    assert take(loop, 1) == []
    assert loop.all_gone
