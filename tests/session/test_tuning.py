"""Intervals that fit themselves, through the loop: DAMON's goal for sampling, the share of a CPU for both."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from memtherm.core.attributes import IntervalGoal, MonitoringAttributes
from memtherm.core.pattern import AccessPattern, Bounds
from memtherm.core.report import Report
from memtherm.core.scheme import Action, Scheme
from memtherm.core.snapshot import TargetInfo
from memtherm.probe.simulated import HotRange, SimulatedProbe
from memtherm.session.engines import Watched
from memtherm.session.loop import MonitorLoop
from memtherm.testing import RecordingActor, ScriptedProbe, VirtualClock
from session.scene import CENSUS, GIB, MIB, SAMPLING, census_probe, make_loop, take, take_until, watched

HOT = Scheme(name="hot", action=Action.WILLNEED, pattern=AccessPattern(access_rate=Bounds(0.05, None)))


def sampling_loop(
    clock: VirtualClock, probe: ScriptedProbe | SimulatedProbe, *, goal: IntervalGoal | None = None
) -> MonitorLoop:
    attributes = SAMPLING if goal is None else MonitoringAttributes(interval_goal=goal, method="sampling")
    return make_loop([Watched(TargetInfo(7, "one"), probe)], clock, attributes=attributes)


def intervals_s(reports: list[Report]) -> list[float]:
    return [report.snapshot.conditions.sampling_interval_s for report in reports]


def test_an_idle_target_lengthens_the_interval_twice_every_third_window() -> None:
    clock = VirtualClock()
    found = intervals_s(take(sampling_loop(clock, ScriptedProbe([(0, 100 * MIB)])), 42))
    steps = [step for doubled in range(1, 11) for step in [0.005 * 2**doubled] * 3]
    first = found.index(0.01)
    assert set(found[:first]) == {0.005}
    assert found[first : first + 30] == pytest.approx(steps)
    assert set(found[first + 30 :]) == {10.0}


def test_the_number_of_samples_of_a_window_stays() -> None:
    clock = VirtualClock()
    for report in take(sampling_loop(clock, ScriptedProbe([(0, 100 * MIB)])), 42):
        conditions = report.snapshot.conditions
        assert conditions.samples == 20
        assert conditions.aggregation_interval_s == pytest.approx(20 * conditions.sampling_interval_s)


def test_a_busy_target_shortens_it_to_the_shortest_by_half_at_most() -> None:
    clock = VirtualClock()
    probe = ScriptedProbe([(0, 100 * MIB)])
    loop = sampling_loop(clock, probe)
    assert intervals_s(take(loop, 36))[-1] == 10.0
    probe.accessed = lambda addresses: np.ones(len(addresses), np.bool_)
    found = intervals_s(take(loop, 45))
    assert found[-1] == 0.005
    assert all(later >= earlier / 2 - 1e-6 for earlier, later in pairwise(found))
    assert found[6] == pytest.approx(found[0] / 4, rel=0.3)


def test_at_the_goal_it_rests() -> None:
    """4 % of all events: 2 % of memory in each look would be below, 8 % above."""
    clock = VirtualClock()
    probe = SimulatedProbe([(0, 1000 * MIB)], hot=[HotRange(0, 40 * MIB, period_s=0.1)], clock=clock)
    found = intervals_s(take(sampling_loop(clock, probe), 150))
    # Every look finds the 4 % from 100 ms on; a longer interval finds no more, a shorter one less.
    assert 0.05 <= np.median(found[60:]) <= 0.5


def test_limits_of_a_goal_are_kept() -> None:
    clock = VirtualClock()
    goal = IntervalGoal(min_sampling_interval_s=0.02, max_sampling_interval_s=0.3, windows=1)
    found = intervals_s(take(sampling_loop(clock, ScriptedProbe([(0, 100 * MIB)]), goal=goal), 12))
    assert found[-1] == 0.3
    assert max(found) == 0.3


@pytest.mark.parametrize("is_busy", [True, False])
def test_the_share_of_a_cpu_is_the_floor(is_busy: bool) -> None:
    """A look of 1 ms in 1 % of a CPU: 100 ms between looks, however much is accessed."""
    clock = VirtualClock()
    probe = ScriptedProbe([(0, 100 * MIB)], accessed=lambda addresses: np.full(len(addresses), is_busy))
    read = probe.read

    def slow_read(addresses):  # type: ignore[no-untyped-def]
        clock.use_cpu(0.001)
        return read(addresses)

    probe.read = slow_read  # type: ignore[method-assign]
    reports = take(sampling_loop(clock, probe), 40)
    for report in reports[2:]:
        assert report.snapshot.conditions.agent_cpu_percent <= 1.0
    assert intervals_s(reports)[-1] == (pytest.approx(0.125, abs=0.002) if is_busy else 10.0)


def test_fixed_intervals_stay() -> None:
    clock = VirtualClock()
    attributes = MonitoringAttributes(sampling_interval_s=0.02, aggregation_interval_s=0.1, method="sampling")
    loop = make_loop([Watched(TargetInfo(7, "one"), ScriptedProbe([(0, 100 * MIB)]))], clock, attributes=attributes)
    reports = take(loop, 50)
    assert set(intervals_s(reports)) == {0.02}
    assert {report.snapshot.conditions.aggregation_interval_s for report in reports} == {0.1}


def test_ages_are_seconds_across_changes_of_the_interval() -> None:
    clock = VirtualClock()
    began_s = clock.epoch_s()
    for report in take(sampling_loop(clock, ScriptedProbe([(0, 100 * MIB)])), 24):
        true_s, window_s = report.snapshot.time_s - began_s, report.snapshot.conditions.window_s
        assert true_s - window_s - 0.01 <= report.snapshot.regions.age_s.max() <= true_s + 0.01


def big_idle_target(clock: VirtualClock) -> Watched:
    """16 GiB, of which 256 MiB are touched once in 2 s."""
    census = census_probe(clock, [(0, 16 * GIB)], hot=[HotRange(5 * GIB, 5 * GIB + 256 * MIB, period_s=2.0)])
    return watched(clock, census, actor=RecordingActor())


@pytest.mark.parametrize("attributes", [CENSUS, SAMPLING], ids=["census", "sampling"])
def test_a_set_that_is_touched_once_in_2_s_in_a_big_idle_target_is_found(attributes: MonitoringAttributes) -> None:
    """With DAMON's fixed defaults one look in 400 finds it: no scheme for hot memory fires, and its map is black."""
    clock = VirtualClock()
    loop = make_loop([big_idle_target(clock)], clock, attributes=attributes, schemes=[HOT])
    reports = take_until(loop, clock, 3600.0)
    snapshot = reports[-1].snapshot
    regions = snapshot.regions
    assert reports[-1].schemes[0].total.nr_applied > 0
    hot = snapshot.rows_at_least(0.05)
    assert hot.any()
    inside = (regions.start < 5 * GIB + 256 * MIB) & (regions.end > 5 * GIB)
    assert not (hot & ~inside).any()
    assert snapshot.conditions.doubts == ()
    found = (np.minimum(regions.end[hot], 5 * GIB + 256 * MIB) - np.maximum(regions.start[hot], 5 * GIB)).sum()
    assert found >= 0.9 * 256 * MIB


def test_with_fixed_defaults_the_same_set_is_hardly_seen() -> None:
    clock = VirtualClock()
    attributes = MonitoringAttributes(method="sampling")
    loop = make_loop([big_idle_target(clock)], clock, attributes=attributes)
    reports = take(loop, 300)
    bright = [bool(report.snapshot.rows_at_least(0.1).any()) for report in reports]
    assert np.mean(bright) < 0.05
