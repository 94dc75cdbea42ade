"""The actor for users' tests keeps to the contract of Actor."""

import numpy as np
import pytest

from act.scene import PAGE, plan
from memtherm.core.plan import ranges_to_reset
from memtherm.core.protocols import Actor
from memtherm.core.scheme import Action
from memtherm.errors import InvalidInput
from memtherm.testing import RecordingActor

PLANNED = plan(Action.PAGEOUT, (0, 4 * PAGE), (8 * PAGE, 10 * PAGE), (10 * PAGE, 11 * PAGE))


def test_everything_is_possible_and_applied() -> None:
    recording = RecordingActor()
    actor: Actor = recording
    possible = actor.examine(PLANNED)
    outcome = actor.carry_out(possible)
    assert possible.tolist() == outcome.applied_range_bytes.tolist() == [4 * PAGE, 2 * PAGE, PAGE]
    assert outcome.reached.tolist() == PLANNED.end.tolist()
    assert (outcome.nr_tried, outcome.tried_bytes, outcome.applied_bytes) == (3, 7 * PAGE, 7 * PAGE)
    assert recording.planned == [PLANNED]
    assert recording.allowed[0].tolist() == possible.tolist()
    assert actor.end() == ()
    actor.close()


def test_what_is_not_allowed_is_left_for_later() -> None:
    actor = RecordingActor(possible=lambda planned: np.full(len(planned), PAGE))
    assert actor.examine(PLANNED).tolist() == [PAGE] * 3
    outcome = actor.carry_out(np.array([0, PAGE, 0]))
    assert outcome.applied_range_bytes.tolist() == [0, PAGE, 0]
    assert outcome.reached.tolist() == [0, 10 * PAGE, 10 * PAGE]
    assert (outcome.nr_tried, outcome.tried_bytes) == (2, 5 * PAGE)
    assert [column.tolist() for column in ranges_to_reset(PLANNED, outcome)] == [[8 * PAGE], [10 * PAGE]]


@pytest.mark.parametrize("action", [Action.PAGEOUT, Action.STAT])
def test_no_effect(action: Action) -> None:
    actor = RecordingActor(works=action is Action.STAT)
    outcome = actor.carry_out(actor.examine(plan(action, (0, PAGE))))
    assert (outcome.nr_applied, outcome.applied_bytes, outcome.tried_bytes) == (0, 0, PAGE)


def test_each_act_needs_a_look() -> None:
    actor = RecordingActor()
    actor.carry_out(actor.examine(PLANNED))
    with pytest.raises(InvalidInput, match="nothing was examined"):
        actor.carry_out(np.zeros(3, np.int64))
