"""Windows by census on virtual time: what is seen, what it costs, and what happens where it costs too much."""

from __future__ import annotations

import numpy as np
import pytest

from memtherm.core.attributes import IntervalGoal, MonitoringAttributes
from memtherm.core.census import PageBits
from memtherm.core.pattern import AccessPattern, Bounds
from memtherm.core.plan import Outcome
from memtherm.core.ranges import Counts
from memtherm.core.scheme import Action, Scheme
from memtherm.core.snapshot import Snapshot
from memtherm.errors import TargetGone
from memtherm.probe.simulated import FREE, CensusCosts, HotRange, SimulatedCensusProbe
from memtherm.testing import RecordingActor, VirtualClock
from memtherm.views.accuracy import accuracy
from session.scene import (
    AUTO,
    CENSUS,
    COSTS,
    GIB,
    KIB,
    MIB,
    TIB,
    census_probe,
    make_loop,
    take,
    take_until,
    watched,
)

COLD = Scheme(name="cold", action=Action.PAGEOUT, pattern=AccessPattern(access_rate=Bounds(0, 0), age_s=Bounds(5.0)))


def rate_at(snapshot: Snapshot, address: int, *, target: int = 0) -> float:
    regions = snapshot.regions
    at = (regions.target == target) & (regions.start <= address) & (address < regions.end)
    return float(regions.access_rate[at][0])


def age_at(snapshot: Snapshot, address: int) -> float:
    regions = snapshot.regions
    return float(regions.age_s[(regions.start <= address) & (address < regions.end)][0])


def test_hot_sets_of_any_size_are_exact_in_the_first_window() -> None:
    clock = VirtualClock()
    hot = [(5 * MIB + 4 * KIB, 5 * MIB + 8 * KIB), (100 * MIB, 164 * MIB), (700 * MIB, 700 * MIB + 64 * KIB)]
    probe = census_probe(
        clock, [(0, GIB)], hot=[HotRange(*one, period_s=0.002) for one in hot], present=[(0, GIB)], costs=FREE
    )
    snapshot = take(make_loop([watched(clock, probe)], clock), 1)[0].snapshot
    seen = accuracy(snapshot, hot=hot, within=[(0, GIB)], min_access_rate=0.9)
    assert (seen.precision, seen.recall) == (1, 1)
    assert snapshot.working_set_bytes() == sum(end - start for start, end in hot)
    assert set(snapshot.regions.rate_error.tolist()) == {0.0}
    assert snapshot.conditions.method == "census"
    assert snapshot.conditions.uncovered_share == 0
    assert snapshot.conditions.doubts == ()


def test_a_huge_page_is_hot_as_a_whole() -> None:
    clock = VirtualClock()
    probe = census_probe(
        clock, [(0, 16 * MIB)], hot=[HotRange(5 * MIB, 5 * MIB + 4 * KIB, period_s=0.002)], huge=[(4 * MIB, 8 * MIB)]
    )
    snapshot = take(make_loop([watched(clock, probe)], clock), 2)[-1].snapshot
    assert snapshot.working_set_bytes() == 2 * MIB
    assert rate_at(snapshot, 4 * MIB) == 1
    assert rate_at(snapshot, 6 * MIB) == 0


@pytest.mark.parametrize("idle_s", [1, 10, 60, 600])
def test_the_age_of_idle_memory_is_right_to_within_a_window(idle_s: int) -> None:
    clock = VirtualClock()
    hot = HotRange(MIB, 2 * MIB, period_s=0.01, end_s=4.0)
    # The larger the target, the longer its windows.
    probe = census_probe(clock, [(0, GIB if idle_s < 60 else 8 * GIB)], hot=[hot], present=[(0, 8 * MIB)])
    loop = make_loop([watched(clock, probe)], clock)
    snapshot = take_until(loop, clock, 4.0 + idle_s)[-1].snapshot
    true_s = clock.monotonic_s() - 4.0
    assert abs(age_at(snapshot, MIB) - true_s) <= snapshot.conditions.window_s < (0.6 if idle_s < 60 else 3)


@pytest.mark.parametrize("size", [256 * MIB, GIB, 16 * GIB, 64 * GIB])
def test_the_interval_keeps_the_share_of_a_cpu_from_the_first_window_on(size: int) -> None:
    """16 GiB with 64 MiB hot: a look takes 6.4 ms, so the interval is below a second."""
    clock = VirtualClock()
    probe = census_probe(clock, [(0, size)], hot=[HotRange(0, 64 * MIB, period_s=0.01)])
    reports = take(make_loop([watched(clock, probe)], clock), 10)
    for report in reports[1:]:
        assert report.snapshot.conditions.agent_cpu_percent <= 1.0
        assert report.snapshot.conditions.doubts == ()
    assert sum(report.snapshot.conditions.late_samples for report in reports) == 0
    needed_s = 100 * (size / GIB * COSTS.look_s + 32 * (COSTS.clear_range_s + 512 * COSTS.clear_page_s))
    # Each cleared bit costs the target, too, 0.35 µs, and no more than 1 % of its time.
    needed_s = max(needed_s, 100 * 16384 * 0.35e-6)
    interval_s = reports[-1].snapshot.conditions.sampling_interval_s
    assert needed_s <= interval_s <= 2.6 * needed_s
    assert rate_at(reports[-1].snapshot, MIB) == 1


def test_an_interval_that_was_asked_for_stays() -> None:
    clock = VirtualClock()
    probe = census_probe(clock, [(0, 16 * GIB)], hot=[HotRange(0, 64 * MIB, period_s=0.01)])
    attributes = MonitoringAttributes(sampling_interval_s=0.1, aggregation_interval_s=1.0, method="census")
    conditions = take(make_loop([watched(clock, probe)], clock, attributes=attributes), 5)[-1].snapshot.conditions
    assert (conditions.sampling_interval_s, conditions.samples) == (0.1, 10)
    assert conditions.agent_cpu_percent > 5
    assert probe.nr_looks == 51


def test_a_census_of_1_tib_that_was_asked_for_keeps_to_its_share() -> None:
    """Reading alone takes 0.41 s: not in 10 s, so looks are farther apart than the longest interval."""
    clock = VirtualClock()
    probe = census_probe(clock, [(0, TIB)], hot=[HotRange(TIB // 2, TIB // 2 + 64 * MIB, period_s=1.0)])
    reports = take(make_loop([watched(clock, probe)], clock), 5)
    conditions = reports[-1].snapshot.conditions
    assert conditions.agent_cpu_percent <= 1.0
    assert 40 <= conditions.sampling_interval_s <= 60
    assert reports[-1].snapshot.working_set_bytes() == 64 * MIB


def test_where_the_budget_does_not_reach_a_random_share_is_cleared() -> None:
    """12 GiB of hot memory need 0.25 s of clearing at each look; 10 s bear 0.1 s."""
    clock = VirtualClock()
    probe = census_probe(clock, [(0, 16 * GIB)], hot=[HotRange(GIB, 13 * GIB, period_s=1.0)], present=[(0, 16 * GIB)])
    loop = make_loop([watched(clock, probe)], clock)
    # Memory that becomes hot at once is dear until the interval has grown.
    reports = take(loop, 12)[4:]
    for report in reports:
        conditions = report.snapshot.conditions
        assert conditions.agent_cpu_percent <= 1.1
        assert 0.2 < conditions.uncovered_share < 0.6
        assert any("rates are estimates" in doubt for doubt in conditions.doubts)
    last = reports[-1].snapshot
    assert rate_at(last, 2 * GIB) > 0.95
    assert rate_at(last, 0) == 0
    assert rate_at(last, 14 * GIB) == 0
    cold = last.regions.access_rate == 0
    assert last.regions.rate_error[cold].max() == 0, "what is known to be idle needs no estimate"
    assert last.regions.rate_error[~cold].max() > 0


class RandomAccesses(SimulatedCensusProbe):
    """Units that are touched between two looks with a likelihood of their own, and what the looks should find.

    Attributes:
        found: bool[units] of each look, whether the unit was touched since the look before.
    """

    def __init__(self, likely: np.ndarray[tuple[int], np.dtype[np.float64]], clock: VirtualClock) -> None:
        # Dear clears: 10 s bear 400 of them.
        costs = CensusCosts(look_s=0.0004, clear_range_s=250e-6, clear_page_s=0)
        super().__init__([(0, len(likely) * 2 * MIB)], clock=clock, costs=costs, use_cpu=clock.use_cpu)
        self.likely = likely
        self.found: list[np.ndarray[tuple[int], np.dtype[np.bool_]]] = []
        self._clock = clock
        self._rng = np.random.default_rng(5)

    def look(self) -> PageBits:
        is_touched = self._rng.random(len(self.likely)) < self.likely
        self.found.append(is_touched)
        now_s = self._clock.monotonic_s()
        self.hot = tuple(
            HotRange(unit * 2 * MIB, (unit + 1) * 2 * MIB, period_s=1e9, begin_s=now_s)
            for unit in np.flatnonzero(is_touched).tolist()
        )
        return super().look()


@pytest.mark.parametrize("kind", ["alike", "in blocks", "mixed"])
def test_the_estimate_is_unbiased_and_its_error_holds_the_truth(kind: str) -> None:
    clock, rng = VirtualClock(), np.random.default_rng(2)
    units = 1500
    likely = {
        "alike": np.full(units, 0.4),
        "in blocks": np.repeat(rng.choice([0, 0.1, 0.5, 0.9, 1], 30), 50),
        "mixed": rng.choice([0.02, 0.3, 0.7, 1], units),
    }[kind]
    probe = RandomAccesses(likely, clock)
    attributes = MonitoringAttributes(interval_goal=IntervalGoal(), method="census", max_nr_regions=150)
    loop = make_loop([watched(clock, probe)], clock, attributes=attributes)
    take(loop, 12)
    differences, held = [], []
    for _ in range(20):
        snapshot = take(loop, 1)[0].snapshot
        truth = np.mean(probe.found[-5:], axis=0)
        regions = snapshot.regions
        assert 0.1 < snapshot.conditions.uncovered_share < 0.9
        total = np.add.reduceat(truth, (regions.start // np.uint64(2 * MIB)).astype(np.int64))
        mean = total / (regions.size_bytes / (2 * MIB))
        held += (abs(regions.access_rate - mean) <= regions.rate_error + 1e-9).tolist()
        differences.append(float(np.average(regions.access_rate - mean, weights=regions.size_bytes)))
    assert np.mean(held) >= 0.9
    assert abs(np.mean(differences)) < 0.02
    assert snapshot.conditions.agent_cpu_percent <= 1.1


def shared_probe(clock: VirtualClock, size: int) -> SimulatedCensusProbe:
    """A quarter of the memory is hot, and shared with others."""
    hot = HotRange(0, size // 4, period_s=0.01, end_s=20.0)
    probe = census_probe(clock, [(0, size)], hot=[hot], present=[(0, size)])
    probe.stuck = [(0, size // 4)]
    return probe


def test_much_that_does_not_clear_is_cleared_with_everything_where_that_is_short() -> None:
    clock = VirtualClock()
    probe = shared_probe(clock, 256 * MIB)
    loop = make_loop([watched(clock, probe)], clock)
    first = take(loop, 1)[0].snapshot.conditions
    assert first.clearing == "cold"
    assert first.unclear_share == pytest.approx(0.25)
    assert "shared with other processes" in first.doubts[0]
    conditions = take_until(loop, clock, 4.0)[-1].snapshot.conditions
    assert (conditions.clearing, conditions.unclear_share, conditions.doubts) == ("clear_refs", 0, ())
    snapshot = take_until(loop, clock, 30.0)[-1].snapshot
    assert snapshot.working_set_bytes() == 0
    window_at_20_s = 3.2
    assert 0 <= clock.monotonic_s() - 20.0 - age_at(snapshot, 0) <= window_at_20_s
    cleared = probe.nr_clear_refs
    take(loop, 5)
    assert probe.nr_clear_refs == cleared, "with no bit set there is nothing to hold up the target for"


def test_a_target_that_grows_beyond_the_stall_limit_is_cleared_page_by_page_again() -> None:
    clock = VirtualClock()
    probe = shared_probe(clock, 256 * MIB)
    loop = make_loop([watched(clock, probe)], clock)
    assert take_until(loop, clock, 3.0)[-1].snapshot.conditions.clearing == "clear_refs"
    probe.mapped = [(0, 4 * GIB)]
    probe.hot += (HotRange(GIB, 3 * GIB, period_s=5.0),)
    reports = take_until(loop, clock, 15.0)
    assert reports[-1].snapshot.conditions.clearing == "cold"
    longest_s = 0.5 * COSTS.clear_refs_s
    assert longest_s == 0.01


def test_a_large_target_is_never_cleared_at_once_and_what_is_stuck_is_tried_again() -> None:
    clock = VirtualClock()
    probe = shared_probe(clock, 2 * GIB)
    loop = make_loop([watched(clock, probe)], clock)
    reports = take_until(loop, clock, 55.0)
    assert probe.nr_clear_refs == 0
    assert reports[-1].snapshot.conditions.clearing == "cold"
    assert rate_at(reports[-1].snapshot, 0) == 1, "not touched for 35 s, but nobody can know"
    assert reports[-1].snapshot.conditions.unclear_share == pytest.approx(0.25)
    probe.stuck = []
    snapshot = take_until(loop, clock, 75.0)[-1].snapshot
    assert snapshot.conditions.unclear_share == 0
    assert rate_at(snapshot, 0) == 0


def test_late_looks_are_counted_and_said() -> None:
    clock = VirtualClock()
    probe = census_probe(clock, [(0, GIB)], hot=[HotRange(0, MIB, period_s=0.01)], costs=FREE)
    attributes = MonitoringAttributes(method="census")
    loop = make_loop([watched(clock, probe)], clock, attributes=attributes)
    assert take(loop, 1)[0].snapshot.conditions.late_samples == 0
    look = probe.look

    def slow_look():  # type: ignore[no-untyped-def]
        clock.sleep(0.012)
        return look()

    probe.look = slow_look  # type: ignore[method-assign]
    conditions = take(loop, 1)[0].snapshot.conditions
    assert conditions.late_samples >= 10
    assert "came late" in conditions.doubts[0]


def test_exec_starts_from_new() -> None:
    clock = VirtualClock()
    probe = census_probe(clock, [(0, GIB)], hot=[HotRange(0, MIB, period_s=0.01)], present=[(0, GIB)])
    loop = make_loop([watched(clock, probe)], clock)
    old = take_until(loop, clock, 10.0)[-1].snapshot
    assert age_at(old, 512 * MIB) > 8
    probe.generation += 1
    probe.mapped, probe.hot = [(4 * GIB, 5 * GIB)], (HotRange(4 * GIB, 4 * GIB + MIB, period_s=0.01),)
    report = take(loop, 1)[0]
    assert "exec" in report.events[0]
    assert report.snapshot.regions.start.min() == 4 * GIB
    assert report.snapshot.regions.age_s.max() < 1
    assert report.snapshot.conditions.uncovered_share == 0, "the first look at new memory is no look of the window"
    assert rate_at(report.snapshot, 4 * GIB) == 1


def test_memory_that_comes_and_goes_is_found_at_the_next_update() -> None:
    clock = VirtualClock()
    probe = census_probe(
        clock, [(0, 100 * MIB)], hot=[HotRange(0, MIB, period_s=0.01)], present=[(0, 100 * MIB)], costs=FREE
    )
    loop = make_loop([watched(clock, probe)], clock)
    take_until(loop, clock, 5.0)
    probe.mapped = [(0, 33 * MIB), (64 * MIB, 100 * MIB), (GIB, 2 * GIB)]
    probe.hot += (HotRange(GIB + 7 * MIB, GIB + 8 * MIB, period_s=0.002),)
    snapshot = take_until(loop, clock, 6.5)[-1].snapshot
    regions = snapshot.regions
    assert age_at(snapshot, 80 * MIB) > 6
    assert rate_at(snapshot, GIB + 7 * MIB) == 1
    assert not ((regions.start < 64 * MIB) & (regions.end > 33 * MIB)).any()
    assert snapshot.conditions.uncovered_share == 0
    assert snapshot.conditions.doubts == ()


@pytest.mark.parametrize(("cost_s", "longest_s"), [(0.001, 1.4), (0.02, 4.0)])
def test_mappings_are_looked_up_once_in_an_update_interval_and_that_is_part_of_the_cost(
    cost_s: float, longest_s: float
) -> None:
    clock = VirtualClock()
    probe = census_probe(clock, [(0, GIB)], costs=FREE)
    asked_s, ranges = [], probe.ranges

    def noted_ranges():  # type: ignore[no-untyped-def]
        asked_s.append(clock.monotonic_s())
        clock.use_cpu(cost_s)
        return ranges()

    probe.ranges = noted_ranges  # type: ignore[method-assign]
    reports = take_until(make_loop([watched(clock, probe)], clock), clock, 30.0)
    assert np.diff(asked_s).min() >= 1.0
    assert np.diff(asked_s[5:]).max() <= longest_s
    late = [report.snapshot.conditions for report in reports if report.snapshot.time_s > clock.epoch_s() - 15.0]
    assert sum(one.agent_cpu_s for one in late) / sum(one.window_s for one in late) <= 0.0105


def test_several_targets_share_regions_and_budget() -> None:
    clock = VirtualClock()
    probes = [
        census_probe(clock, [(0, 8 * GIB)], hot=[HotRange(k * MIB, (k + 1) * MIB, period_s=0.01)]) for k in range(3)
    ]
    loop = make_loop([watched(clock, probe, pid=7 + k) for k, probe in enumerate(probes)], clock)
    snapshot = take(loop, 6)[-1].snapshot
    assert [rate_at(snapshot, k * MIB, target=k) for k in range(3)] == [1, 1, 1]
    assert snapshot.regions.target.tolist() == sorted(snapshot.regions.target.tolist())
    assert snapshot.conditions.agent_cpu_percent <= 1.0


@pytest.mark.parametrize("dies_in", ["look", "clear", "ranges", "clear_everything"])
def test_a_target_that_goes_leaves_the_others_undisturbed(dies_in: str) -> None:
    clock = VirtualClock()
    probes = [shared_probe(clock, size) for size in (GIB, GIB // 4, 2 * GIB)]
    loop = make_loop([watched(clock, probe, pid=7 + k) for k, probe in enumerate(probes)], clock)
    take(loop, 1)
    original = getattr(probes[1], dies_in)

    def die(*arguments, **named):  # type: ignore[no-untyped-def]
        probes[1].alive = False
        return original(*arguments, **named)

    setattr(probes[1], dies_in, die)
    reports = take_until(loop, clock, 5.0)
    assert [event for report in reports for event in report.events] == ["the simulated target has exited"]
    assert set(reports[-1].snapshot.regions.target.tolist()) == {0, 2}
    for probe in probes:
        probe.alive = False
    assert take(loop, 1) == []
    assert loop.all_gone


@pytest.mark.parametrize("dies_after", [0, 1, 2, 3, 7])
def test_the_only_target_may_go_at_any_look(dies_after: int) -> None:
    clock = VirtualClock()
    probe = census_probe(clock, [(0, GIB)], hot=[HotRange(0, MIB, period_s=0.01)])
    look = probe.look

    def look_and_die():  # type: ignore[no-untyped-def]
        probe.alive = probe.nr_looks < dies_after
        return look()

    probe.look = look_and_die  # type: ignore[method-assign]
    loop = make_loop([watched(clock, probe)], clock)
    assert len(take(loop, 3)) == max(0, dies_after - 1) // 5
    assert loop.all_gone
    assert loop.last_events() == ("the simulated target has exited",)


class DyingActor(RecordingActor):
    def carry_out(self, allowed_bytes: Counts) -> Outcome:  # noqa: ARG002 - the Actor's own signature
        raise TargetGone(f"gone while {self.planned[-1].scheme.name} was done")


def test_the_only_target_may_go_while_it_is_acted_on() -> None:
    clock = VirtualClock()
    probe = census_probe(clock, [(0, GIB)], present=[(0, GIB)])
    second = Scheme(name="second", action=Action.STAT, pattern=COLD.pattern)
    loop = make_loop([watched(clock, probe, actor=DyingActor())], clock, schemes=[COLD, second])
    reports = take_until(loop, clock, 100.0)
    assert loop.all_gone
    assert reports[-1].schemes[1].matched_bytes == 0
    assert reports[-1].events == ("gone while cold was done",)


def test_schemes_act_on_a_census_and_ages_begin_again() -> None:
    clock, actor = VirtualClock(), RecordingActor()
    probe = census_probe(clock, [(0, GIB)], hot=[HotRange(0, MIB, period_s=0.01)], present=[(0, GIB)])
    second = Scheme(name="second", action=Action.STAT, pattern=COLD.pattern)
    loop = make_loop([watched(clock, probe, actor=actor)], clock, schemes=[COLD, second])
    reports = take_until(loop, clock, 9.0)
    acted = [report for report in reports if report.schemes[0].applied_bytes]
    assert len(acted) == 1
    assert acted[0].schemes[0].applied_bytes == GIB - MIB
    assert acted[0].schemes[1].matched_bytes == 0, "the first scheme has reset the ages"
    last = reports[-1].snapshot
    assert age_at(last, 512 * MIB) == pytest.approx(clock.epoch_s() - acted[0].snapshot.time_s, abs=0.02)
    assert len(actor.planned) == 1


def test_age_reset_of_part_of_a_unit_leaves_the_rest() -> None:
    clock, actor = VirtualClock(), RecordingActor()
    probe = census_probe(
        clock, [(0, 300 * KIB), (8 * MIB, 9 * MIB)], present=[(0, 300 * KIB), (8 * MIB, 9 * MIB)], costs=FREE
    )
    small = Scheme(
        name="small",
        action=Action.PAGEOUT,
        pattern=AccessPattern(access_rate=Bounds(0, 0), age_s=Bounds(1.0), size_bytes=Bounds(None, 300 * KIB)),
    )
    snapshot = take_until(make_loop([watched(clock, probe, actor=actor)], clock, schemes=[small]), clock, 1.9)[
        -1
    ].snapshot
    assert age_at(snapshot, 0) < 1
    assert age_at(snapshot, 8 * MIB) > 1.8


def test_no_more_regions_than_wanted() -> None:
    clock = VirtualClock()
    hot = [HotRange(k * 64 * KIB, k * 64 * KIB + 4 * KIB, period_s=0.01) for k in range(1000)]
    probe = census_probe(clock, [(0, 64 * MIB)], hot=hot, present=[(0, 64 * MIB)])
    attributes = MonitoringAttributes(interval_goal=IntervalGoal(), method="census", max_nr_regions=100)
    snapshot = take(make_loop([watched(clock, probe)], clock, attributes=attributes), 2)[-1].snapshot
    assert len(snapshot.regions) == 100
    assert int(snapshot.regions.size_bytes.sum()) == 64 * MIB


def test_a_stopped_census_ends_within_its_window() -> None:
    clock = VirtualClock()
    probe = census_probe(clock, [(0, 64 * GIB)])
    loop = make_loop([watched(clock, probe)], clock, attributes=AUTO)
    assert list(loop.reports(stopped=lambda: clock.monotonic_s() > 4.0)) == []
    assert clock.monotonic_s() < 4.5
    assert CENSUS.method == "census"


def test_looks_are_no_closer_than_clearing_everything_can_bear() -> None:
    """clear_refs holds up the target and flushes no TLB: a wanted interval that is too short for it is not kept."""
    clock = VirtualClock()
    probe = census_probe(clock, [(0, GIB)], present=[(0, GIB)], costs=FREE)
    probe.min_sampling_interval_s = 0.2
    fixed = MonitoringAttributes(method="census", sampling_interval_s=0.005, aggregation_interval_s=0.1)
    loop = make_loop([watched(clock, probe)], clock, attributes=fixed)
    report = take(loop, 1)[0]
    assert report.snapshot.conditions.sampling_interval_s == pytest.approx(0.25)
    assert "sampling interval is now 250 ms" in report.events[0]
    probe.min_sampling_interval_s = 0.0
    assert take(loop, 1)[0].snapshot.conditions.sampling_interval_s == 0.005
