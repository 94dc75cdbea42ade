"""A scheme at work, apply by apply, on memory that is simulated page by page (damon-spec §2.3 to §2.10, §6.4)."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.acting import Memory, Row, apply, planned_pages, regions_of
from memtherm.core.filters import Filter, FilterKind
from memtherm.core.goals import Goal, GoalMetric, Tuner
from memtherm.core.pattern import AccessPattern, Bounds
from memtherm.core.plan import ranges_to_reset
from memtherm.core.priority import lowest_score, scores
from memtherm.core.quota import Continuation, Quota, Weights
from memtherm.core.scheme import Action, Scheme
from memtherm.core.scheme_state import SchemeState
from memtherm.core.snapshot import Regions
from memtherm.core.watermarks import Watermarks
from memtherm.units import PAGE_SIZE

MIB = 1 << 20
EACH_APPLY = 0.0


def quota_of(
    pages: int, *, reset_interval_s: float = EACH_APPLY, weights: Weights | None = None, **more: object
) -> Quota:
    return Quota(
        size_bytes=pages * PAGE_SIZE,
        reset_interval_s=reset_interval_s,
        weights=weights or Weights(),
        **more,  # type: ignore[arg-type]
    )


def state_of(quota: Quota, *, action: Action = Action.STAT, filters: tuple[Filter, ...] = ()) -> SchemeState:
    return SchemeState(Scheme(action=action, quota=quota, filters=filters))


# -- quotas and continuation -------------------------------------------------------------------


def test_without_a_quota_all_that_is_possible_is_allowed() -> None:
    state, memory = state_of(Quota()), Memory({0: 10, 1: 10})
    outcomes = apply(state, memory, regions_of([(0, 0, 10, 0, 0), (1, 0, 10, 0, 0)]))
    assert [one.applied_bytes for one in outcomes] == [10 * PAGE_SIZE] * 2
    assert state.quota.continuation is None
    assert state.quota.charged_bytes == 0


def test_the_next_apply_goes_on_behind_the_last() -> None:
    state, memory = state_of(quota_of(4)), Memory({0: 10}, keeps=True)
    regions = regions_of([(0, 0, 6, 0, 0), (0, 6, 10, 0, 0)])
    apply(state, memory, regions)
    assert memory.visits[0] == [1] * 4 + [0] * 6
    assert state.quota.continuation == Continuation(0, 4 * PAGE_SIZE)
    apply(state, memory, regions, now_s=1)
    assert memory.visits[0] == [1] * 8 + [0] * 2
    apply(state, memory, regions, now_s=2)
    assert memory.visits[0] == [1] * 10
    assert state.quota.continuation is None, "the end was reached, and the quota with it was not full"
    apply(state, memory, regions, now_s=3)
    assert memory.visits[0] == [2] * 4 + [1] * 6


def test_what_has_no_effect_costs_nothing() -> None:
    """A quota by length, as the kernel's, would be eaten by memory that is paged out already."""
    state, memory = state_of(quota_of(3), action=Action.PAGEOUT), Memory({0: 100})
    memory.can[0] = [page in (5, 50, 90, 95) for page in range(100)]
    (outcome,) = apply(state, memory, regions_of([(0, 0, 60, 0, 0), (0, 60, 100, 0, 0)]))
    assert np.flatnonzero(memory.visits[0]).tolist() == [5, 50, 90]
    assert outcome.reached.tolist() == [60 * PAGE_SIZE, 91 * PAGE_SIZE]
    assert state.quota.continuation == Continuation(0, 91 * PAGE_SIZE)


def test_memory_on_which_the_action_fails_is_not_tried_again_before_the_rest() -> None:
    """It costs nearly nothing (fail charge), so the quota never gets full; still the rest has its turn."""
    failing = frozenset((0, page) for page in range(20))
    state = state_of(quota_of(5, fail_charge=(1, 1024)), action=Action.PAGEOUT)
    memory = Memory({0: 30}, failing=failing)
    for number in range(6):
        apply(state, memory, regions_of([(0, 0, 30, 0, 0)]), now_s=number)
    assert memory.visits[0] == [1] * 30
    assert not any(memory.can[0][20:])


def test_no_charge_for_what_a_filter_by_address_cut_off() -> None:
    """Linux 7.2 charges the whole region (damon-spec §2.3, note 3)."""
    inside = Filter(kind=FilterKind.ADDRESS, allow=True, start=2 * PAGE_SIZE, end=5 * PAGE_SIZE)
    state, memory = state_of(quota_of(50), filters=(inside,)), Memory({0: 20})
    (outcome,) = apply(state, memory, regions_of([(0, 0, 20, 0, 0)]))
    assert state.quota.charged_bytes == outcome.tried_bytes == 3 * PAGE_SIZE
    assert state.statistics.tried_bytes == 3 * PAGE_SIZE


def test_the_very_first_window_is_limited() -> None:
    state, memory = state_of(quota_of(4, reset_interval_s=100)), Memory({0: 50}, keeps=True)
    for number in range(10):
        apply(state, memory, regions_of([(0, 0, 50, 0, 0)]), now_s=1000 + number)
    assert sum(memory.visits[0]) == 4


def test_a_target_that_is_gone_is_passed_over() -> None:
    state, memory = state_of(quota_of(4)), Memory({0: 6, 1: 6, 2: 6}, keeps=True)
    rows: list[Row] = [(target, 0, 6, 0, 0) for target in range(3)]
    apply(state, memory, regions_of(rows))
    apply(state, memory, regions_of(rows), now_s=1)
    assert state.quota.continuation == Continuation(1, 2 * PAGE_SIZE)
    apply(state, memory, regions_of([rows[0], rows[2]]), now_s=2)
    assert memory.visits == {0: [1] * 6, 1: [1, 1, 0, 0, 0, 0], 2: [1, 1, 1, 1, 0, 0]}


cuts = st.sets(st.integers(1, 39), max_size=6)


@given(
    windows=st.lists(st.tuples(st.integers(1, 60), cuts, cuts, st.integers(1, 3)), min_size=1, max_size=25),
    fail_charge=st.sampled_from([(0, 0), (1, 1024), (1, 2)]),
    failing=st.frozensets(st.tuples(st.integers(0, 1), st.integers(0, 39)), max_size=40),
)
def test_every_byte_once_before_any_twice(
    windows: list[tuple[int, set[int], set[int], int]],
    fail_charge: tuple[int, int],
    failing: frozenset[tuple[int, int]],
) -> None:
    """Round-robin over several targets, with quotas and regions that change from window to window."""
    memory = Memory({0: 40, 1: 40}, keeps=True, failing=failing)
    state = state_of(quota_of(1))
    for number, (size, *borders, applies) in enumerate(windows):
        state.replace(Scheme(action=Action.STAT, quota=quota_of(size, reset_interval_s=1.0, fail_charge=fail_charge)))
        rows: list[Row] = [
            (target, first, last, 0, 0)
            for target, inner in enumerate(borders)
            for first, last in pairwise([0, *sorted(inner), 40])
        ]
        for repeat in range(applies):
            apply(state, memory, regions_of(rows), now_s=number + repeat / 10)
            visits = memory.visits[0] + memory.visits[1]
            assert max(visits) - min(visits) <= 1
            assert visits == sorted(visits, reverse=True)
            assert state.quota.charged_bytes <= state.quota.effective_bytes == size * PAGE_SIZE


row_lists = st.lists(
    st.tuples(st.integers(0, 2), st.integers(1, 30), st.sampled_from([0, 0, 0.05, 0.5, 1]), st.integers(0, 5000)),
    min_size=1,
    max_size=20,
)


def rows_from(parts: list[tuple[int, int, float, int]]) -> list[Row]:
    rows, position = [], 0
    for target, length, rate, age_s in sorted(parts, key=lambda part: part[0]):
        rows.append((target, position, position + length, rate, float(age_s)))
        position += length
    return rows


def served(regions: Regions, memory: Memory) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Pages of each region that were acted on."""
    rows = zip(
        regions.target.tolist(), (regions.start // PAGE_SIZE).tolist(), (regions.end // PAGE_SIZE).tolist(), strict=True
    )
    return np.array([sum(memory.visits[target][first:last]) for target, first, last in rows], np.int64)


@given(
    parts=row_lists,
    quota_pages=st.integers(1, 200),
    action=st.sampled_from(list(Action)),
    weights=st.tuples(st.integers(0, 3), st.integers(0, 3)),
)
def test_the_best_come_first(
    parts: list[tuple[int, int, float, int]], quota_pages: int, action: Action, weights: tuple[int, int]
) -> None:
    """Who is served has no lower a score than those who are not, but at the border, where the address decides."""
    regions = regions_of(rows_from(parts))
    total = int(regions.size_bytes.sum()) // PAGE_SIZE
    memory = Memory(dict.fromkeys(range(3), total))
    quota = quota_of(quota_pages, weights=Weights(access_rate=weights[0], age=weights[1]))
    apply(state_of(quota, action=action), memory, regions)
    score = scores(action, quota.weights, access_rate=regions.access_rate, age_s=regions.age_s)
    pages, sizes = served(regions, memory), regions.size_bytes // PAGE_SIZE
    assert pages.sum() == min(quota_pages, total)
    border = lowest_score(score, regions.size_bytes, effective_bytes=quota.size_bytes)
    assert (score[pages > 0] >= border).all()
    assert (score[pages == 0].max(initial=0) <= score[pages > 0].min()) or score[pages > 0].min() == border
    # Of those that are good enough: all up to some address, then a part of one, then none.
    eligible = score >= border
    done = (pages / sizes)[eligible]
    assert (np.diff(done) <= 0).all()
    assert ((done > 0) & (done < 1)).sum() <= 1


@given(
    parts=row_lists,
    quota_pages=st.integers(0, 300),
    data=st.data(),
)
def test_share_is_a_prefix_of_the_eligible(
    parts: list[tuple[int, int, float, int]], quota_pages: int, data: st.DataObject
) -> None:
    regions = regions_of(rows_from(parts))
    quota = Quota(time_s=1.0) if quota_pages == 0 else quota_of(quota_pages, weights=Weights(access_rate=1, age=1))
    state = state_of(quota, action=Action.PAGEOUT)
    state.open_quota_window(0.0, [])
    planned = state.plan(regions, {})
    possible = [
        np.array([data.draw(st.integers(0, size // PAGE_SIZE)) * PAGE_SIZE for size in (one.end - one.start).tolist()])
        for one in planned
    ]
    allowed = state.share(regions, planned, possible)
    assert [len(one) for one in allowed] == [len(one) for one in planned]
    flat, most = np.concatenate(allowed), np.concatenate(possible)
    assert ((flat >= 0) & (flat <= most)).all()
    assert flat.sum() <= state.quota.effective_bytes
    partly = np.flatnonzero((flat > 0) & (flat < most))
    assert len(partly) <= 1
    if len(partly):
        assert (flat[partly[0] + 1 :] == 0).all()
    if most.sum() <= state.quota.effective_bytes:
        assert (flat == most).all()


def test_share_without_a_plan() -> None:
    state = state_of(quota_of(3))
    state.open_quota_window(0.0, [])
    assert state.share(regions_of([]), [], []) == []


def test_two_schemes_share_nothing() -> None:
    """What the kernel keeps for all contexts together is kept for each scheme (damon-spec §7)."""
    one, other = state_of(quota_of(3)), state_of(quota_of(3))
    memory = Memory({0: 9}, keeps=True)
    regions = regions_of([(0, 0, 9, 0, 0)])
    apply(one, memory, regions)
    apply(other, memory, regions)
    assert memory.visits[0] == [2] * 3 + [0] * 6
    apply(one, memory, regions, now_s=1)
    assert memory.visits[0] == [2] * 3 + [1] * 3 + [0] * 3


# -- time --------------------------------------------------------------------------------------


def test_damos_apply_interval() -> None:
    """The kernel's selftest: two equal schemes each 100 ms and each 10 ms; the one is tried nine times as often."""
    each_window, often = (
        SchemeState(Scheme(action=Action.STAT, apply_interval_s=interval)) for interval in (None, 0.01)
    )
    memory = Memory({0: 10}, keeps=True)
    for sample in range(1, 401):
        now_s = sample * 0.005
        for state in (each_window, often):
            if state.is_due(now_s, window_ended=sample % 20 == 0):
                apply(state, memory, regions_of([(0, 0, 10, 0, 0)]), now_s=now_s)
    assert each_window.statistics.nr_tried == 20
    assert often.statistics.nr_tried / each_window.statistics.nr_tried >= 9


def test_an_apply_that_is_let_by_comes_at_its_next_time() -> None:
    state = SchemeState(Scheme(action=Action.STAT, apply_interval_s=1.0))
    assert state.is_due(5.0, window_ended=False)
    state.postpone(5.0)
    assert [state.is_due(now, window_ended=True) for now in (5.9, 6.0)] == [False, True]
    assert state.statistics.nr_snapshots == 0


def test_max_nr_snapshots() -> None:
    """An apply counts once, however many targets there are (the kernel counts each: damon-spec §7)."""
    state = SchemeState(Scheme(action=Action.STAT, max_nr_snapshots=3))
    memory = Memory({0: 5, 1: 5}, keeps=True)
    regions = regions_of([(0, 0, 5, 0, 0), (1, 0, 5, 0, 0)])
    for number in range(3):
        assert state.is_active
        apply(state, memory, regions, now_s=number)
    assert state.is_finished
    assert not state.is_active
    assert state.statistics.nr_snapshots == 3
    state.replace(Scheme(action=Action.STAT, max_nr_snapshots=5))
    assert state.is_active


def test_watermarks_let_it_rest() -> None:
    state = SchemeState(Scheme(action=Action.STAT, watermarks=Watermarks(high=0.5, mid=0.4, low=0.2)))
    assert state.is_active
    assert state.watermarks is not None
    state.watermarks.update(0.6, 0.0)
    assert not state.is_active
    assert not state.is_finished


# -- goals -------------------------------------------------------------------------------------


def test_goals_open_and_close_the_quota() -> None:
    goals = (
        Goal(metric=GoalMetric.FREE_MEMORY, target=0.5),
        Goal(metric=GoalMetric.MEMORY_PRESSURE, target=0.01),
    )
    state = state_of(Quota(size_bytes=MIB, goals=goals, tuner=Tuner.TEMPORAL))
    state.open_quota_window(0.0, [0.2, 0.0])
    assert (state.quota.effective_bytes, state.quota.goal_score) == (MIB, 0.4)
    state.open_quota_window(1.0, [0.2, 0.02])
    assert (state.quota.effective_bytes, state.quota.goal_score) == (0, 2.0)
    state.open_quota_window(2.0, [0.2, 0.0])
    assert state.statistics.nr_quota_exceeded == 1, "a window of 0 bytes was full"


def test_goals_keep_no_baseline_of_their_own() -> None:
    """What a pressure has been since is the session's to know; a value of 0 at the first look asks for more, once."""
    goal = Goal(metric=GoalMetric.MEMORY_PRESSURE, target=0.01)
    state = state_of(Quota(goals=(goal,)))
    state.open_quota_window(0.0, [0.0])
    assert (state.quota.effective_bytes, state.quota.goal_score) == (2, 0.0)
    state.open_quota_window(1.0, [0.01])
    assert (state.quota.effective_bytes, state.quota.goal_score) == (2, 1.0)


# -- statistics and change ---------------------------------------------------------------------


@given(
    parts=row_lists,
    sizes=st.lists(st.integers(0, 60), min_size=1, max_size=8),
    failing=st.frozensets(st.tuples(st.integers(0, 2), st.integers(0, 100)), max_size=60),
)
def test_statistics_are_the_sums_of_the_outcomes(
    parts: list[tuple[int, int, float, int]], sizes: list[int], failing: frozenset[tuple[int, int]]
) -> None:
    regions = regions_of(rows_from(parts))
    memory = Memory(dict.fromkeys(range(3), 700), failing=failing)
    state = state_of(Quota(), action=Action.PAGEOUT)
    outcomes = []
    for number, size in enumerate(sizes):
        before = state.statistics
        state.replace(Scheme(action=Action.PAGEOUT, quota=quota_of(size)))
        assert state.statistics == before
        outcomes += apply(state, memory, regions, now_s=number)
    found = state.statistics
    assert found.nr_tried == sum(one.nr_tried for one in outcomes)
    assert found.tried_bytes == sum(one.tried_bytes for one in outcomes)
    assert found.nr_applied == sum(one.nr_applied for one in outcomes)
    assert found.applied_bytes == sum(one.applied_bytes for one in outcomes)
    assert found.refused_bytes == sum(one.refused_bytes for one in outcomes)
    assert found.tried_bytes == found.applied_bytes + found.refused_bytes
    assert found.tried_bytes == PAGE_SIZE * sum(map(sum, memory.visits.values()))
    assert found.nr_snapshots == len(sizes)


def test_a_scheme_that_is_replaced_goes_on_where_it_was() -> None:
    """damon-spec §1.16: statistics, charge, continuation and the next time stay; watermarks begin anew."""
    marks = Watermarks(high=0.5, mid=0.4, low=0.2)
    old = Scheme(
        action=Action.STAT,
        pattern=AccessPattern(age_s=Bounds(1, 6)),
        apply_interval_s=1.0,
        quota=quota_of(4, reset_interval_s=60.0),
        watermarks=marks,
        targets=("a",),
    )
    new = Scheme(
        action=Action.PAGEOUT,
        name="another",
        pattern=AccessPattern(age_s=Bounds(2, 7)),
        apply_interval_s=2.0,
        quota=quota_of(6, reset_interval_s=60.0),
        watermarks=marks,
        targets=("b",),
    )
    state, memory = SchemeState(old), Memory({0: 20}, keeps=True)
    labels = {0: ("a", "b")}
    regions = regions_of([(0, 0, 20, 0, 5.0)])
    apply(state, memory, regions, labels=labels, now_s=10.0)
    assert state.watermarks is not None
    state.watermarks.update(0.9, 10.0)
    statistics, continuation = state.statistics, state.quota.continuation
    assert (statistics.tried_bytes, continuation) == (4 * PAGE_SIZE, Continuation(0, 4 * PAGE_SIZE))
    state.replace(new)
    assert state.scheme is new
    assert state.statistics == statistics
    assert state.quota.continuation == continuation
    assert state.quota.is_full, "the window goes on, with what was charged in it"
    assert state.is_active, "watermarks begin anew"
    assert state.is_due(10.1, window_ended=False), "another interval counts at once"
    apply(state, memory, regions, labels=labels, now_s=11.0)
    assert sum(memory.visits[0]) == 4
    assert not state.is_due(12.9, window_ended=True)
    apply(state, memory, regions, labels=labels, now_s=70.0)
    assert memory.visits[0] == [1] * 10 + [0] * 10
    assert state.statistics.nr_quota_exceeded == 1


def test_a_commit_of_the_same_changes_nothing() -> None:
    """The kernel's selftest no_op_commit."""
    scheme = Scheme(action=Action.STAT, quota=quota_of(3, reset_interval_s=5.0), apply_interval_s=1.0)
    state, memory = SchemeState(scheme), Memory({0: 9}, keeps=True)
    regions = regions_of([(0, 0, 9, 0, 0)])
    apply(state, memory, regions, now_s=1.0)
    quota_before, statistics = dict(vars(state.quota)), state.statistics
    state.replace(scheme)
    assert vars(state.quota) == quota_before
    assert state.statistics == statistics


def test_schemes_for_named_targets() -> None:
    rows: list[Row] = [(target, 0, 4, 0, 0) for target in range(3)]
    labels = {0: ("database",), 1: ("cache", "all"), 2: ("all",)}
    for names, expected in (((), [0, 1, 2]), (("all",), [1, 2]), (("cache", "database"), [0, 1]), (("no",), [])):
        state = SchemeState(Scheme(action=Action.STAT, targets=names))
        assert [one.target for one in state.plan(regions_of(rows), labels)] == expected
        assert set(planned_pages(state.plan(regions_of(rows), labels))) == set(expected)


def test_age_begins_again_only_as_far_as_the_quota_reached() -> None:
    state, memory = state_of(quota_of(7), action=Action.PAGEOUT), Memory({0: 10, 1: 10})
    regions = regions_of([(0, 0, 5, 0, 9.0), (0, 5, 10, 0, 9.0), (1, 0, 10, 0, 9.0)])
    state.open_quota_window(0.0, [])
    planned = state.plan(regions, {})
    allowed = state.share(regions, planned, [memory.examine(one) for one in planned])
    found = []
    for one, bytes_allowed in zip(planned, allowed, strict=True):
        start, end = ranges_to_reset(one, memory.carry_out(one, bytes_allowed))
        found += [(one.target, *span) for span in zip(start.tolist(), end.tolist(), strict=True)]
    assert found == [(0, 0, 5 * PAGE_SIZE), (0, 5 * PAGE_SIZE, 7 * PAGE_SIZE)]


@pytest.mark.parametrize("action", [Action.PAGEOUT, Action.STAT])
def test_nothing_to_do_is_an_apply_as_well(action: Action) -> None:
    state, memory = state_of(quota_of(3), action=action), Memory({0: 5})
    memory.can[0] = [False] * 5
    (outcome,) = apply(state, memory, regions_of([(0, 0, 5, 0, 0)]))
    assert (outcome.nr_tried, outcome.tried_bytes, outcome.nr_applied) == (0, 0, 0)
    assert apply(state, memory, regions_of([]), now_s=1) == []
    assert state.statistics.nr_snapshots == 2
