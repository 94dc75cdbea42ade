"""Goals of quotas: scores and both tuners (damon-spec §2.7), with the vectors of §6.1."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memtherm.core.goals import Goal, GoalMetric, Tuner, highest_score, tuned_size
from memtherm.core.tuning import feed_loop
from memtherm.errors import InvalidInput


@pytest.mark.parametrize(
    ("goal", "value", "expected"),
    [
        (Goal(metric=GoalMetric.USER_INPUT, target=10_000), 15_000, 15_000),
        (Goal(metric=GoalMetric.USER_INPUT, target=789), 12, 152),
        (Goal(metric=GoalMetric.USER_INPUT, target=0.5), 0.2, 4_000),
        (Goal(metric=GoalMetric.MEMORY_PRESSURE, target=0.001), 0.000123, 1_230),
        (Goal(metric=GoalMetric.MEMORY_PRESSURE, target=0.01), 0.0, 0),
        (Goal(metric=GoalMetric.FREE_MEMORY, target=0.5), 0.25, 5_000),
        (Goal(metric=GoalMetric.USED_MEMORY, target=0.995, node=1), 0.995, 10_000),
        (Goal(metric=GoalMetric.USED_MEMORY, target=0.3, cgroup="/a"), 0.6, 20_000),
        (Goal(metric=GoalMetric.ACTIVE_MEMORY, target=0.3), 0.1, 3_333),
        (Goal(metric=GoalMetric.INACTIVE_MEMORY, target=1.0), 0.99999, 10_000),
    ],
)
def test_scores(goal: Goal, value: float, expected: int) -> None:
    """value * 10000 // target, in whole microseconds or 1/10000 of memory."""
    assert goal.score(value) == expected


def test_a_target_below_the_unit_counts_as_one() -> None:
    assert Goal(metric=GoalMetric.FREE_MEMORY, target=0.00001).score(0.0001) == 10_000
    assert Goal(metric=GoalMetric.MEMORY_PRESSURE, target=1e-9).score(0.000002) == 20_000


def test_the_highest_score_counts() -> None:
    """The least aggressive: pressure that is too high holds back what free memory would ask for."""
    goals = [Goal(metric=GoalMetric.FREE_MEMORY, target=0.5), Goal(metric=GoalMetric.MEMORY_PRESSURE, target=0.01)]
    assert highest_score(goals, [0.1, 0.02]) == 20_000
    assert highest_score(goals, [0.1, 0.0]) == 2_000
    assert highest_score([], []) == 10_000
    with pytest.raises(ValueError, match="zip"):
        highest_score(goals, [0.1])


def test_feed_loop() -> None:
    """The kernel's test: the next input rises below the goal, falls above it, and rises more the farther it is."""
    assert feed_loop(900_000, 200) > 900_000 > feed_loop(900_000, 250_000_000)
    assert feed_loop(900_000, 200) > feed_loop(900_000, 2_000)


@given(last=st.integers(0, 2**64 - 1), score=st.integers(0, 2**40))
def test_consist(last: int, score: int) -> None:
    tuned = tuned_size(last, score=score, tuner=Tuner.CONSIST, size_bytes=4096)
    before = max(last, 10_000)
    assert 10_000 <= tuned <= 2**64 - 1
    if score == 10_000:
        assert tuned == before
    elif score < 10_000:
        assert before <= tuned <= 2 * before
    else:
        assert tuned <= before


@given(last=st.integers(0, 2**64 - 1), score=st.integers(0, 30_000), size=st.sampled_from([0, 4096, 1 << 40]))
def test_temporal(last: int, score: int, size: int) -> None:
    tuned = tuned_size(last, score=score, tuner=Tuner.TEMPORAL, size_bytes=size)
    assert tuned == (0 if score >= 10_000 else size * 10_000 or 2**64 - 1)


def test_commit_quota_goal() -> None:
    """The kernel's vectors: what goes with a metric can be given for it, and for no other.

    A goal holds no value: what a user feeds in, and the baseline of a pressure, are the session's.
    """
    for goal in (
        Goal(metric=GoalMetric.USER_INPUT, target=789),
        Goal(metric=GoalMetric.FREE_MEMORY, target=0.0345, node=9),
        Goal(metric=GoalMetric.USED_MEMORY, target=0.0012, node=6),
        Goal(metric=GoalMetric.USED_MEMORY, target=0.0456, node=6, cgroup="/7"),
        Goal(metric=GoalMetric.FREE_MEMORY, target=0.089, node=10, cgroup="/1"),
        Goal(metric=GoalMetric.MEMORY_PRESSURE, target=0.000234),
    ):
        assert goal.score(goal.target) == 10_000
    assert set(Goal.__dataclass_fields__) == {"metric", "target", "node", "cgroup"}


@pytest.mark.parametrize(
    "values",
    [
        {"metric": GoalMetric.USER_INPUT, "target": 0},
        {"metric": GoalMetric.USER_INPUT, "target": -1},
        {"metric": GoalMetric.USER_INPUT, "target": float("nan")},
        {"metric": GoalMetric.FREE_MEMORY, "target": 1.5},
        {"metric": GoalMetric.MEMORY_PRESSURE, "target": 0.1, "node": 0},
        {"metric": GoalMetric.ACTIVE_MEMORY, "target": 0.1, "cgroup": "/a"},
        {"metric": GoalMetric.USED_MEMORY, "target": 0.1, "node": -1},
    ],
)
def test_goals_without_a_meaning(values: dict[str, object]) -> None:
    with pytest.raises(InvalidInput) as problem:
        Goal(**values)  # type: ignore[arg-type]
    assert problem.value.hint
