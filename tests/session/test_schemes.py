"""Schemes in the loop, on virtual time: limits, intervals of their own, named targets, changes while they run."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from memtherm.core.attributes import MonitoringAttributes
from memtherm.core.goals import Goal, GoalMetric, Tuner
from memtherm.core.pattern import AccessPattern, Bounds
from memtherm.core.plan import Outcome, PlannedAction, Refusal
from memtherm.core.protocols import Accessed
from memtherm.core.quota import Quota
from memtherm.core.ranges import Counts
from memtherm.core.regions import Range
from memtherm.core.report import Report, SchemeReport
from memtherm.core.scheme import Action, Scheme
from memtherm.core.snapshot import TargetInfo
from memtherm.core.watermarks import Watermarks
from memtherm.probe.simulated import HotRange
from memtherm.session.engines import Watched
from memtherm.session.loop import Changes, MonitorLoop
from memtherm.session.schemes import SchemeRunner
from memtherm.testing import RecordingActor, ScriptedProbe, VirtualClock
from session.scene import CENSUS, MIB, StillMetrics, census_probe, engines, take

PAGE = 4096
COLD = Scheme(name="cold", action=Action.PAGEOUT, pattern=AccessPattern(access_rate=Bounds(0, 0), age_s=Bounds(0.3)))
STAT = replace(COLD, name="stat", action=Action.STAT)


def loop_of(
    clock: VirtualClock,
    *schemes: Scheme,
    targets: Sequence[tuple[int, tuple[str, ...]]] = ((1000, ()),),
    metrics: StillMetrics | None = None,
    attributes: MonitoringAttributes | None = None,
    find: Callable[[], Changes] = Changes,
) -> tuple[MonitorLoop, SchemeRunner, list[RecordingActor]]:
    """A loop over idle targets of so many pages, with these labels."""
    actors = [RecordingActor() for _ in targets]
    watched = [
        Watched(TargetInfo(7 + number, "scripted", labels=labels), ScriptedProbe([(0, pages * PAGE)]), actor=actor)
        for number, ((pages, labels), actor) in enumerate(zip(targets, actors, strict=True))
    ]
    runner = SchemeRunner(schemes, metrics=metrics or StillMetrics(), clock=clock)
    loop = MonitorLoop(
        watched,
        engines=engines(attributes or MonitoringAttributes(), clock),
        schemes=runner,
        clock=clock,
        find=find,
    )
    return loop, runner, actors


def done_by(actor: RecordingActor) -> list[Range]:
    """What was acted on, in order."""
    return [
        (start, start + size)
        for planned, allowed in zip(actor.planned, actor.allowed, strict=True)
        for start, size in zip(planned.start.tolist(), allowed.tolist(), strict=True)
        if size
    ]


def of(reports: Sequence[Report], number: int = 0) -> list[SchemeReport]:
    return [report.schemes[number] for report in reports]


def test_a_quota_is_kept_and_goes_on_where_it_stopped() -> None:
    clock = VirtualClock()
    scheme = replace(COLD, quota=Quota(size_bytes=100 * PAGE, reset_interval_s=0.1))
    loop, _, (actor,) = loop_of(clock, scheme)
    reports = of(take(loop, 13))
    assert [report.applied_bytes // PAGE for report in reports] == [0, 0, *[100] * 11]
    done = done_by(actor)
    # Each page once, from the lowest address up, before any for a second time.
    assert done[:10] == [(index * 100 * PAGE, (index + 1) * 100 * PAGE) for index in range(10)]
    assert done[10] == done[0]
    assert reports[5].quota is not None
    assert reports[5].quota.charged_bytes == reports[5].quota.effective_bytes == 100 * PAGE
    assert reports[5].state == "the quota is used up"
    assert reports[-1].total.nr_quota_exceeded >= 9


def test_a_quota_window_that_is_longer_than_an_apply() -> None:
    clock = VirtualClock()
    loop, _, _ = loop_of(clock, replace(COLD, quota=Quota(size_bytes=100 * PAGE, reset_interval_s=1.0)))
    applied = [report.applied_bytes // PAGE for report in of(take(loop, 26))]
    assert sum(applied) == 300
    assert [index for index, size in enumerate(applied) if size] == [2, 10, 20], (
        "a window begins with the first apply, whether it finds something or not"
    )


def test_an_apply_interval_shorter_than_a_window() -> None:
    clock = VirtualClock()
    often = replace(STAT, name="often", apply_interval_s=0.01)
    loop, _, _ = loop_of(clock, STAT, often, attributes=MonitoringAttributes())
    totals = [scheme.total.nr_snapshots for scheme in take(loop, 20)[-1].schemes]
    assert totals[0] == 20
    assert totals[1] >= 9 * totals[0]


def test_an_apply_interval_longer_than_a_window() -> None:
    clock = VirtualClock()
    loop, _, _ = loop_of(clock, replace(STAT, apply_interval_s=0.5))
    assert take(loop, 20)[-1].schemes[0].total.nr_snapshots == pytest.approx(4, abs=1)


def test_what_is_accessed_in_the_middle_of_a_window_is_not_cold_any_more() -> None:
    clock = VirtualClock()
    probe = census_probe(clock, [(0, 64 * MIB)], present=[(0, 64 * MIB)], hot=[HotRange(0, 16 * MIB, period_s=0.01)])
    actor = RecordingActor()
    scheme = replace(COLD, apply_interval_s=0.0)
    runner = SchemeRunner([scheme], metrics=StillMetrics(), clock=clock)
    loop = MonitorLoop(
        [Watched(TargetInfo(7, "simulated"), ScriptedProbe([(0, 64 * MIB)]), probe, actor)],
        engines=engines(CENSUS, clock),
        schemes=runner,
        clock=clock,
    )
    take(loop, 4)
    assert done_by(actor)
    assert min(start for start, _ in done_by(actor)) >= 16 * MIB


def test_watermarks_let_a_scheme_rest() -> None:
    clock, metrics = VirtualClock(), StillMetrics(free_memory=0.6)
    marks = Watermarks(high=0.5, mid=0.4, low=0.2, interval_s=0.0)
    loop, _, _ = loop_of(clock, replace(STAT, watermarks=marks), metrics=metrics)
    (resting,) = of(take(loop, 1))
    assert not resting.is_active
    assert "60.0% of memory is free" in resting.state
    metrics.values["free_memory"] = 0.45
    assert not of(take(loop, 1))[0].is_active
    metrics.values["free_memory"] = 0.39
    (active,) = of(take(loop, 1))
    assert active.is_active
    assert active.free_memory == 0.39
    metrics.values["free_memory"] = 0.1
    assert "low watermark" in of(take(loop, 1))[0].state


def test_a_goal_moves_the_quota() -> None:
    clock = VirtualClock()
    goal = Goal(metric=GoalMetric.USER_INPUT, target=100)
    scheme = replace(COLD, quota=Quota(goals=(goal,), reset_interval_s=0.1))
    loop, runner, _ = loop_of(clock, scheme, targets=[(200_000, ())])
    sizes = []
    for value in (0.0, 150.0, 50.0, 180.0):
        runner.user_input["cold"] = value
        quota = of(take(loop, 30))[-1].quota
        assert quota is not None
        assert quota.goal_score == pytest.approx(value / 100)
        sizes.append(quota.effective_bytes)
    assert sizes[0] > PAGE
    assert sizes[1] < sizes[0]
    assert sizes[2] > sizes[1]
    assert sizes[3] <= sizes[2]


def test_a_goal_that_cannot_be_measured_stops_the_scheme_and_says_why() -> None:
    clock = VirtualClock()
    goal = Goal(metric=GoalMetric.MEMORY_PRESSURE, target=0.01)
    loop, _, (actor,) = loop_of(clock, replace(COLD, quota=Quota(goals=(goal,))))
    report = of(take(loop, 5))[-1]
    assert report.state.startswith("stopped: memory_pressure cannot be measured")
    assert actor.allowed == []


def test_a_temporal_goal_is_all_or_nothing() -> None:
    clock, metrics = VirtualClock(), StillMetrics(used_memory=0.5)
    goal = Goal(metric=GoalMetric.USED_MEMORY, target=0.8)
    quota = Quota(size_bytes=100 * PAGE, goals=(goal,), tuner=Tuner.TEMPORAL, reset_interval_s=0.1)
    loop, _, _ = loop_of(clock, replace(COLD, quota=quota), metrics=metrics)
    assert of(take(loop, 4))[-1].applied_bytes == 100 * PAGE
    metrics.values["used_memory"] = 0.9
    assert of(take(loop, 2))[-1].applied_bytes == 0


def test_a_scheme_for_named_targets() -> None:
    clock = VirtualClock()
    targets = [(100, ("web",)), (200, ("db", "large")), (300, ())]
    loop, _, actors = loop_of(clock, replace(COLD, targets=("db",)), replace(STAT, targets=("none",)), targets=targets)
    report = take(loop, 4)[-1]
    assert [bool(actor.allowed) for actor in actors] == [False, True, False]
    assert report.schemes[0].total.applied_bytes == 200 * PAGE
    assert report.schemes[1].total.tried_bytes == 0


def test_a_scheme_ends_after_its_applies() -> None:
    clock = VirtualClock()
    loop, _, _ = loop_of(clock, replace(STAT, max_nr_snapshots=3))
    report = of(take(loop, 6))[-1]
    assert report.total.nr_snapshots == 3
    assert report.state == "finished after 3 applies"
    assert not report.is_active


def test_schemes_are_replaced_online_and_keep_ages_and_charge() -> None:
    clock = VirtualClock()
    scheme = replace(COLD, quota=Quota(size_bytes=100 * PAGE, reset_interval_s=100))
    loop, runner, _ = loop_of(clock, scheme)
    before = take(loop, 5)[-1]
    assert before.schemes[0].total.applied_bytes == 100 * PAGE
    runner.replace([replace(scheme, pattern=AccessPattern(access_rate=Bounds(0, 0), age_s=Bounds(0.5))), STAT])
    after = take(loop, 1)[-1]
    assert [one.name for one in after.schemes] == ["cold", "stat"]
    assert after.schemes[0].total.applied_bytes == 100 * PAGE, "the quota is still used up"
    assert after.schemes[0].state == "the quota is used up"
    assert after.snapshot.regions.age_s.max() == pytest.approx(0.6)


def test_the_tried_regions_are_told() -> None:
    clock = VirtualClock()
    loop, _, (actor,) = loop_of(clock, replace(COLD, quota=Quota(size_bytes=100 * PAGE, reset_interval_s=0.1)))
    tried = of(take(loop, 3))[-1].tried
    assert tried is not None
    assert list(zip(tried.start.tolist(), tried.end.tolist(), strict=True)) == done_by(actor)
    assert (tried.age_s >= 0.3 - 1e-9).all()


def test_a_newcomer_is_watched_and_acted_on() -> None:
    clock, actor = VirtualClock(), RecordingActor()
    newcomer = Watched(TargetInfo(99, "late"), ScriptedProbe([(0, 50 * PAGE)]), actor=actor)
    waiting = [[newcomer]]
    loop, _, _ = loop_of(clock, COLD, find=lambda: Changes(waiting.pop() if waiting else ()))
    reports = take(loop, 25)
    assert [target.pid for target in reports[-1].snapshot.targets] == [7, 99]
    assert any("late" in event for report in reports for event in report.events)
    assert done_by(actor)


class BrakedActor(RecordingActor):
    """Refuses half of what is allowed, as a guard does that slows down."""

    def carry_out(self, allowed_bytes: Counts) -> Outcome:
        outcome = super().carry_out(allowed_bytes)
        return replace(outcome, refused=(Refusal("slowed down: 3 % came back", 4096),))


def test_a_guard_that_slows_down_stands_in_the_state_until_the_next_apply() -> None:
    clock, actor = VirtualClock(), BrakedActor()
    runner = SchemeRunner([replace(COLD, apply_interval_s=0.5)], metrics=StillMetrics(), clock=clock)
    loop = MonitorLoop(
        [Watched(TargetInfo(7, "scripted"), ScriptedProbe([(0, 100 * PAGE)]), actor=actor)],
        engines=engines(MonitoringAttributes(), clock),
        schemes=runner,
        clock=clock,
    )
    states = [report.state for report in of(take(loop, 8))]
    assert states[-1] == "slowed down: 3 % came back"
    assert states.count("slowed down: 3 % came back") >= 3


def test_sampling_looks_at_some_pages_only_and_tells_nobody_what_is_in_use() -> None:
    asked = []

    class AskingActor(RecordingActor):
        def examine(self, planned: PlannedAction, accessed: Accessed | None = None) -> Counts:
            asked.append(accessed)
            return super().examine(planned, accessed)

    clock = VirtualClock()
    census = census_probe(clock, [(0, 64 * MIB)], present=[(0, 64 * MIB)], hot=[HotRange(0, MIB, period_s=0.01)])
    for attributes in (CENSUS, MonitoringAttributes(method="sampling")):
        runner = SchemeRunner([STAT], metrics=StillMetrics(), clock=clock)
        probe = ScriptedProbe([(0, 64 * MIB)])
        target = Watched(TargetInfo(7, "simulated"), probe, census, AskingActor())
        take(MonitorLoop([target], engines=engines(attributes, clock), schemes=runner, clock=clock), 6)
    counted, sampled = asked[0], asked[-1]
    assert sampled is None
    assert counted is not None
    start, end = counted()
    assert (int(start[0]), int(end[-1])) == (0, MIB)
