"""The monitor's loop on virtual time, with fakes: order of steps, lateness, schemes, targets that go."""

from collections.abc import Sequence
from itertools import islice

import numpy as np
import pytest

from memtherm.core.attributes import MonitoringAttributes
from memtherm.core.pattern import AccessPattern, Bounds
from memtherm.core.ranges import Addresses, Flags
from memtherm.core.report import Report
from memtherm.core.scheme import Action, Scheme
from memtherm.core.snapshot import TargetInfo
from memtherm.probe.simulated import HotRange, SimulatedProbe
from memtherm.session.engines import Watched
from memtherm.session.loop import MonitorLoop
from memtherm.testing import RecordingActor, ScriptedProbe, VirtualClock
from memtherm.views.accuracy import accuracy
from session.scene import make_loop as scene_loop

MIB = 1 << 20
COLD = Scheme(
    name="cold",
    action=Action.PAGEOUT,
    pattern=AccessPattern(access_rate=Bounds(0, 0), age_s=Bounds(1.0)),
)


def make_loop(
    targets: Sequence[Watched],
    clock: VirtualClock,
    *,
    schemes: Sequence[Scheme] = (),
    attributes: MonitoringAttributes | None = None,
) -> MonitorLoop:
    return scene_loop(targets, clock, attributes=attributes or MonitoringAttributes(), schemes=schemes)


def watch(probe: ScriptedProbe, actor: RecordingActor | None = None, *, pid: int = 7) -> Watched:
    return Watched(TargetInfo(pid, "scripted"), probe, actor=actor)


def take(loop: MonitorLoop, count: int) -> list[Report]:
    return list(islice(loop.reports(), count))


def test_a_window_has_its_samples_and_its_length() -> None:
    clock, probe = VirtualClock(), ScriptedProbe([(0, 100 * 4096)])
    reports = take(make_loop([watch(probe)], clock), 3)
    assert [report.snapshot.conditions.samples for report in reports] == [20, 20, 20]
    assert clock.monotonic_s() == pytest.approx(0.3)
    assert reports[1].snapshot.conditions.window_s == pytest.approx(0.1)
    assert reports[0].snapshot.conditions.late_samples == 0
    assert len(probe.cleared) == 60


def test_hot_stripes_are_found() -> None:
    clock = VirtualClock()
    hot = [(100 * MIB, 164 * MIB), (700 * MIB, 732 * MIB)]
    probe = SimulatedProbe([(0, 1024 * MIB)], hot=[HotRange(*stripe, period_s=0.004) for stripe in hot], clock=clock)
    report = take(make_loop([Watched(TargetInfo(7, "simulated"), probe)], clock), 100)[-1]
    seen = accuracy(report.snapshot, hot=hot, within=[(0, 1024 * MIB)], min_access_rate=0.5)
    assert seen.precision >= 0.95
    assert seen.recall >= 0.95


def test_a_slow_probe_is_late_and_says_so() -> None:
    clock = VirtualClock()
    probe = ScriptedProbe([(0, 100 * 4096)])
    read = probe.read

    def slow_read(addresses):  # type: ignore[no-untyped-def]
        clock.use_cpu(0.012)
        return read(addresses)

    probe.read = slow_read  # type: ignore[method-assign]
    conditions = take(make_loop([watch(probe)], clock), 2)[-1].snapshot.conditions
    assert conditions.late_samples > 0
    assert conditions.window_s > 0.2
    assert conditions.agent_cpu_s == pytest.approx(20 * 0.012)


def test_an_interval_that_the_probe_cannot_bear_is_stretched_and_shrinks_again() -> None:
    clock, probe = VirtualClock(), ScriptedProbe([(0, 100 * 4096)])
    probe.min_sampling_interval_s = 0.2
    loop = make_loop([watch(probe)], clock)
    report = take(loop, 1)[0]
    assert report.snapshot.conditions.sampling_interval_s == pytest.approx(0.25)
    assert report.snapshot.conditions.aggregation_interval_s == pytest.approx(5.0)
    assert "sampling interval is now 250 ms" in report.events[0]
    probe.min_sampling_interval_s = 0.0
    report = take(loop, 1)[0]
    assert report.snapshot.conditions.sampling_interval_s == 0.005


def test_a_scheme_acts_on_what_is_cold_and_its_age_begins_again() -> None:
    clock, actor = VirtualClock(), RecordingActor()
    loop = make_loop([watch(ScriptedProbe([(0, 100 * 4096)]), actor)], clock, schemes=[COLD])
    reports = take(loop, 12)
    assert [report.schemes[0].applied_bytes > 0 for report in reports] == [False] * 9 + [True, False, False]
    assert reports[-1].schemes[0].total.applied_bytes == 100 * 4096
    assert reports[-1].snapshot.regions.age_s.max() == pytest.approx(0.2)


def test_nothing_applied_leaves_the_age_alone() -> None:
    clock, actor = VirtualClock(), RecordingActor(works=False)
    loop = make_loop([watch(ScriptedProbe([(0, 100 * 4096)]), actor)], clock, schemes=[COLD])
    report = take(loop, 14)[-1]
    assert report.schemes[0].total.applied_bytes == 0
    assert report.snapshot.regions.age_s.max() == pytest.approx(1.4)


def test_a_later_scheme_sees_the_age_that_an_earlier_one_reset() -> None:
    clock, actor = VirtualClock(), RecordingActor()
    second = Scheme(name="second", action=Action.STAT, pattern=COLD.pattern)
    loop = make_loop([watch(ScriptedProbe([(0, 100 * 4096)]), actor)], clock, schemes=[COLD, second])
    report = take(loop, 10)[-1]
    assert report.schemes[0].matched_bytes == 100 * 4096
    assert report.schemes[1].matched_bytes == 0


def test_a_slow_action_is_not_repeated_at_once() -> None:
    clock, actor = VirtualClock(), RecordingActor(works=False)
    carry_out = actor.carry_out

    def slow(allowed):  # type: ignore[no-untyped-def]
        clock.use_cpu(0.1)
        return carry_out(allowed)

    actor.carry_out = slow  # type: ignore[method-assign]
    loop = make_loop([watch(ScriptedProbe([(0, 100 * 4096)]), actor)], clock, schemes=[COLD])
    take(loop, 9 + 99)
    assert len(actor.planned) == 1
    take(loop, 3)
    assert len(actor.planned) == 2


@pytest.mark.parametrize("dies_in", ["clear", "read", "ranges"])
def test_a_target_that_goes_leaves_the_others_undisturbed(dies_in: str) -> None:
    clock = VirtualClock()
    probes = [
        ScriptedProbe([(0, 100 * 4096)]),
        ScriptedProbe([(0, 50 * 4096)]),
        ScriptedProbe([(0, 70 * 4096)], accessed=lambda addresses: np.ones(len(addresses), np.bool_)),
    ]
    loop = make_loop([watch(probe, pid=7 + index) for index, probe in enumerate(probes)], clock)
    take(loop, 2)
    original = getattr(probes[1], dies_in)

    def die(*arguments):  # type: ignore[no-untyped-def]
        probes[1].alive = False
        return original(*arguments)

    setattr(probes[1], dies_in, die)
    report = take(loop, 11)[-1]
    regions = report.snapshot.regions
    assert set(regions.target.tolist()) == {0, 2}
    assert (regions.access_rate[regions.target == 2] == 1).all()
    assert (regions.access_rate[regions.target == 0] == 0).all()
    for probe in (probes[0], probes[2]):
        probe.alive = False
    assert take(loop, 1) == []
    assert len(loop.last_events()) == 2


def test_exec_starts_the_ages_again() -> None:
    clock, probe = VirtualClock(), ScriptedProbe([(0, 100 * 4096)])
    loop = make_loop([watch(probe)], clock)
    assert take(loop, 10)[-1].snapshot.regions.age_s.max() == pytest.approx(1.0)
    probe.generation = 1
    report = take(loop, 1)[0]
    assert report.snapshot.regions.age_s.max() == pytest.approx(0.1)
    assert "exec" in report.events[0]


def test_no_scheme_acts_on_what_was_seen_before_an_exec() -> None:
    clock, probe, actor = VirtualClock(), ScriptedProbe([(0, 100 * 4096)]), RecordingActor()
    loop = make_loop([watch(probe, actor)], clock, schemes=[COLD])
    take(loop, 9 - 1)
    read = probe.read

    def read_and_exec(addresses: Addresses) -> Flags:
        probe.generation = 1
        return read(addresses)

    probe.read = read_and_exec  # type: ignore[method-assign]
    report = take(loop, 2)[-1]
    assert report.schemes[0].matched_bytes == 0
    assert actor.planned == []


def test_new_mappings_are_found_at_the_next_update() -> None:
    clock, probe = VirtualClock(), ScriptedProbe([(0, 100 * 4096)])
    loop = make_loop([watch(probe)], clock)
    take(loop, 5)
    probe.mapped = [(0, 60 * 4096), (200 * 4096, 300 * 4096)]
    report = take(loop, 10)[-1]
    assert int(report.snapshot.regions.size_bytes.sum()) == 160 * 4096
