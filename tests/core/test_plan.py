"""Plans and outcomes: who is acted on, statistics (damon-spec §2.10), age reset in the order of schemes (§2.3)."""

import numpy as np
import pytest

from memtherm.core.attributes import MonitoringAttributes
from memtherm.core.plan import Outcome, PlannedAction, Refusal, add_outcomes, plan_scheme, rows_to_reset
from memtherm.core.report import join_refusals
from memtherm.core.sampling import Sampler
from memtherm.core.scheme import AccessPattern, Action, Bounds, Scheme, SchemeStatistics
from memtherm.units import PAGE_SIZE

OLD = AccessPattern(age_s=Bounds(0.3))


def aged_sampler() -> Sampler:
    """Two targets of ten regions of ten pages; the first target is four windows old, the second one window."""
    sampler = Sampler(MonitoringAttributes(), rng=np.random.default_rng(0), follows_mappings=True)
    mappings = [(index * 10 * PAGE_SIZE, (index * 10 + 10) * PAGE_SIZE) for index in range(10)]
    sampler.set_ranges(mappings, target=0)
    for window in range(4):
        if window == 3:
            sampler.set_ranges(mappings, target=1)
        sampler.close_window()
        sampler.open_window()
    return sampler


def outcome_of(planned: PlannedAction, applied: list[int], refused: tuple[Refusal, ...] = ()) -> Outcome:
    return Outcome(
        name=planned.scheme,
        action=planned.action,
        target=planned.target,
        nr_tried=len(planned.rows),
        tried_bytes=int((planned.end - planned.start).sum()),
        applied_bytes=sum(applied),
        refused=refused,
        applied_region_bytes=np.array(applied, np.int64),
    )


def test_one_action_for_each_target_that_has_some() -> None:
    sampler = aged_sampler()
    everything = plan_scheme(Scheme(name="all", action=Action.COLD), sampler.regions())
    assert [(one.target, len(one.rows)) for one in everything] == [(0, 10), (1, 10)]
    assert everything[1].rows.tolist() == list(range(10, 20))
    assert everything[1].start.tolist() == sampler.table.of_target(1).start.tolist()
    old = plan_scheme(Scheme(name="old", action=Action.COLD, pattern=OLD), sampler.regions())
    assert [(one.scheme, one.target) for one in old] == [("old", 0)]
    assert plan_scheme(Scheme(action=Action.COLD, pattern=AccessPattern(age_s=Bounds(9))), sampler.regions()) == []


def test_rows_keep_their_place_among_those_that_do_not_match() -> None:
    sampler = aged_sampler()
    sampler.reset_age(np.array([0, 4]))
    (planned,) = plan_scheme(Scheme(action=Action.COLD, pattern=OLD), sampler.regions())
    assert planned.rows.tolist() == [1, 2, 3, 5, 6, 7, 8, 9]
    assert planned.end.tolist() == sampler.table.end[planned.rows].tolist()


def test_age_starts_again_where_something_was_applied() -> None:
    sampler = aged_sampler()
    (planned,) = plan_scheme(Scheme(action=Action.PAGEOUT, pattern=OLD), sampler.regions())
    outcome = outcome_of(planned, [0, 1, 4096, 0, 0, 0, 0, 0, 0, 40960])
    sampler.reset_age(rows_to_reset(planned, outcome))
    assert np.flatnonzero(sampler.table.of_target(0).age == 0).tolist() == [1, 2, 9]
    assert sampler.table.of_target(1).age.tolist() == [1] * 10


def test_no_age_reset_where_nothing_was_applied() -> None:
    """The kernel resets; damon-spec §7 counts that among the quirks not to copy."""
    sampler = aged_sampler()
    (planned,) = plan_scheme(Scheme(action=Action.PAGEOUT, pattern=OLD), sampler.regions())
    assert len(rows_to_reset(planned, outcome_of(planned, [0] * 10))) == 0


def test_no_age_reset_for_stat() -> None:
    sampler = aged_sampler()
    (planned,) = plan_scheme(Scheme(action=Action.STAT, pattern=OLD), sampler.regions())
    assert len(rows_to_reset(planned, outcome_of(planned, [40960] * 10))) == 0


@pytest.mark.parametrize(
    ("first", "works", "left"),
    [(Action.PAGEOUT, True, []), (Action.PAGEOUT, False, [0]), (Action.STAT, True, [0])],
)
def test_an_earlier_scheme_takes_the_age_from_a_later_one(first: Action, works: bool, left: list[int]) -> None:
    """Each scheme is matched on the regions as the one before it in the list left them."""
    sampler = aged_sampler()
    for planned in plan_scheme(Scheme(action=first, pattern=OLD), sampler.regions()):
        outcome = outcome_of(planned, [40960 if works else 0] * 10)
        sampler.reset_age(rows_to_reset(planned, outcome))
    later = plan_scheme(Scheme(action=Action.COLD, pattern=OLD), sampler.regions())
    assert [one.target for one in later] == left


def test_statistics_add_up() -> None:
    sampler = aged_sampler()
    first, second = plan_scheme(Scheme(action=Action.PAGEOUT), sampler.regions())
    refused = (Refusal("locked", 100), Refusal("no swap", 23))
    outcomes = [outcome_of(first, [40960, 1] + [0] * 8, refused), outcome_of(second, [0] * 10)]
    assert outcomes[0].nr_applied == 2
    assert outcomes[0].refused_bytes == 123
    once = add_outcomes(SchemeStatistics(), outcomes)
    assert once == SchemeStatistics(
        nr_tried=20, tried_bytes=20 * 40960, nr_applied=2, applied_bytes=40961, refused_bytes=123
    )
    assert add_outcomes(once, []) == once
    twice = add_outcomes(once, outcomes)
    assert (twice.nr_tried, twice.applied_bytes, twice.refused_bytes) == (40, 81922, 246)


def test_join_refusals() -> None:
    sampler = aged_sampler()
    first, second = plan_scheme(Scheme(action=Action.PAGEOUT), sampler.regions())
    outcomes = [
        outcome_of(first, [0] * 10, (Refusal("locked", 10), Refusal("no swap", 15))),
        outcome_of(second, [0] * 10, (Refusal("locked", 10),)),
    ]
    assert join_refusals(outcomes) == (Refusal("locked", 20), Refusal("no swap", 15))
    assert join_refusals([]) == ()
