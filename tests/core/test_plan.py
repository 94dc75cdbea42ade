"""Plans and outcomes: who is acted on, statistics (damon-spec §2.10), age reset in the order of schemes (§2.3)."""

import numpy as np
import pytest

from memtherm.core.attributes import MonitoringAttributes
from memtherm.core.pattern import AccessPattern, Bounds
from memtherm.core.plan import Outcome, PlannedAction, Refusal, add_outcomes, ranges_to_reset
from memtherm.core.report import join_refusals
from memtherm.core.sampling import Sampler
from memtherm.core.scheme import Action, Scheme, SchemeStatistics
from memtherm.core.scheme_state import SchemeState
from memtherm.units import PAGE_SIZE

OLD = AccessPattern(age_s=Bounds(0.3))
WHOLE = 10 * PAGE_SIZE


def aged_sampler(*, follows_mappings: bool = True) -> Sampler:
    """Two targets of ten regions of ten pages; the first target is four windows old, the second one window."""
    sampler = Sampler(MonitoringAttributes(), rng=np.random.default_rng(0), follows_mappings=follows_mappings)
    mappings = [(index * WHOLE, (index + 1) * WHOLE) for index in range(10)]
    sampler.set_ranges(mappings, target=0)
    for window in range(4):
        if window == 3:
            sampler.set_ranges(mappings, target=1)
        sampler.close_window()
        if window < 3:
            sampler.open_window()
    return sampler


def plan(sampler: Sampler, action: Action, pattern: AccessPattern = OLD, *, name: str = "") -> list[PlannedAction]:
    return SchemeState(Scheme(name=name, action=action, pattern=pattern)).plan(sampler.regions(), {})


def outcome_of(planned: PlannedAction, applied: list[int], refused: tuple[Refusal, ...] = ()) -> Outcome:
    return Outcome(
        name=planned.scheme.name,
        action=planned.action,
        target=planned.target,
        nr_tried=len(planned),
        tried_bytes=int((planned.end - planned.start).sum()),
        applied_bytes=sum(applied),
        refused=refused,
        filtered_bytes=7,
        applied_range_bytes=np.array(applied, np.int64),
        reached=planned.end.copy(),
    )


def reset(sampler: Sampler, planned: PlannedAction, outcome: Outcome) -> None:
    sampler.reset_age(planned.target, *ranges_to_reset(planned, outcome))


def test_one_action_for_each_target_that_has_some() -> None:
    sampler = aged_sampler()
    everything = plan(sampler, Action.COLD, AccessPattern(), name="all")
    assert [(one.target, len(one)) for one in everything] == [(0, 10), (1, 10)]
    assert everything[1].rows.tolist() == list(range(10, 20))
    assert everything[1].start.tolist() == sampler.table.of_target(1).start.tolist()
    assert not everything[0].is_unfiltered.any()
    old = plan(sampler, Action.COLD, name="old")
    assert [(one.scheme.name, one.action, one.target) for one in old] == [("old", "cold", 0)]
    assert plan(sampler, Action.COLD, AccessPattern(age_s=Bounds(9))) == []


def test_rows_keep_their_place_among_those_that_do_not_match() -> None:
    sampler = aged_sampler()
    sampler.reset_age(0, sampler.table.start[[0, 4]], sampler.table.end[[0, 4]])
    (planned,) = plan(sampler, Action.COLD)
    assert planned.rows.tolist() == [1, 2, 3, 5, 6, 7, 8, 9]
    assert planned.end.tolist() == sampler.table.end[planned.rows].tolist()


def test_take() -> None:
    (planned,) = plan(aged_sampler(), Action.COLD)
    some = planned.take(planned.start >= 8 * WHOLE)
    assert (some.rows.tolist(), some.end.tolist(), len(some)) == ([8, 9], [9 * WHOLE, 10 * WHOLE], 2)
    assert (some.scheme, some.target, len(some.is_unfiltered)) == (planned.scheme, 0, 2)


def test_a_plan_knows_the_working_set_of_its_target() -> None:
    sampler = aged_sampler()
    sampler.table = sampler.table.replace(nr_accesses=np.arange(20) % 10 % 4)
    first, second = plan(sampler, Action.STAT, AccessPattern(access_rate=Bounds(0, 0)))
    assert first.working_set_bytes == second.working_set_bytes == 7 * WHOLE
    assert len(first) == 3


def test_age_starts_again_where_something_was_applied() -> None:
    sampler = aged_sampler()
    (planned,) = plan(sampler, Action.PAGEOUT)
    reset(sampler, planned, outcome_of(planned, [0, 1, 4096, 0, 0, 0, 0, 0, 0, WHOLE]))
    assert np.flatnonzero(sampler.table.of_target(0).age == 0).tolist() == [1, 2, 9]
    assert sampler.table.of_target(1).age.tolist() == [1] * 10


def test_age_starts_again_only_as_far_as_the_action_has_come() -> None:
    sampler = aged_sampler(follows_mappings=False)
    (planned,) = plan(sampler, Action.PAGEOUT)
    outcome = outcome_of(planned, [int(planned.end[0]), 3 * PAGE_SIZE] + [0] * (len(planned) - 2))
    outcome.reached[1] = planned.start[1] + np.uint64(3 * PAGE_SIZE)
    outcome.reached[2:] = planned.start[2:]
    reset(sampler, planned, outcome)
    table = sampler.table.of_target(0)
    assert planned.start[0] == 0
    assert int(table.size_bytes[table.age == 0].sum()) == int(outcome.reached[1]) == outcome.applied_bytes


def test_no_age_reset_where_nothing_was_applied() -> None:
    """The kernel resets; damon-spec §7 counts that among the quirks not to copy."""
    (planned,) = plan(aged_sampler(), Action.PAGEOUT)
    start, end = ranges_to_reset(planned, outcome_of(planned, [0] * 10))
    assert len(start) == len(end) == 0


def test_no_age_reset_for_stat() -> None:
    (planned,) = plan(aged_sampler(), Action.STAT)
    assert len(ranges_to_reset(planned, outcome_of(planned, [WHOLE] * 10))[0]) == 0


@pytest.mark.parametrize(
    ("first", "works", "left"),
    [(Action.PAGEOUT, True, []), (Action.PAGEOUT, False, [0]), (Action.STAT, True, [0])],
)
def test_an_earlier_scheme_takes_the_age_from_a_later_one(first: Action, works: bool, left: list[int]) -> None:
    """Each scheme is matched on the regions as the one before it in the list left them."""
    sampler = aged_sampler()
    for planned in plan(sampler, first):
        reset(sampler, planned, outcome_of(planned, [WHOLE if works else 0] * 10))
    assert [one.target for one in plan(sampler, Action.COLD)] == left


def test_statistics_add_up() -> None:
    first, second = plan(aged_sampler(), Action.PAGEOUT, AccessPattern())
    refused = (Refusal("locked", 100), Refusal("no swap", 23))
    outcomes = [outcome_of(first, [WHOLE, 1] + [0] * 8, refused), outcome_of(second, [0] * 10)]
    assert outcomes[0].nr_applied == 2
    assert outcomes[0].refused_bytes == 123
    once = add_outcomes(SchemeStatistics(), outcomes)
    assert once == SchemeStatistics(
        nr_tried=20, tried_bytes=20 * WHOLE, nr_applied=2, applied_bytes=WHOLE + 1, refused_bytes=123, filtered_bytes=14
    )
    assert add_outcomes(once, []) == once
    twice = add_outcomes(once, outcomes)
    assert (twice.nr_tried, twice.applied_bytes, twice.refused_bytes) == (40, 2 * WHOLE + 2, 246)


def test_join_refusals() -> None:
    first, second = plan(aged_sampler(), Action.PAGEOUT, AccessPattern())
    outcomes = [
        outcome_of(first, [0] * 10, (Refusal("locked", 10), Refusal("no swap", 15))),
        outcome_of(second, [0] * 10, (Refusal("locked", 10),)),
    ]
    assert join_refusals(outcomes) == (Refusal("locked", 20), Refusal("no swap", 15))
    assert join_refusals([]) == ()
