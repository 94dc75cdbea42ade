"""Quotas: sizes, times, charge windows (damon-spec §2.5), with the vectors of §6.1 and §6.5."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memtherm.core.goals import Goal, GoalMetric, Tuner
from memtherm.core.quota import Quota, QuotaState, Weights
from memtherm.errors import InvalidInput
from memtherm.units import PAGE_SIZE

MIB = 1 << 20
INPUT = Goal(metric=GoalMetric.USER_INPUT, target=10_000)


def opened(quota: Quota) -> QuotaState:
    state = QuotaState(quota)
    state.open_window(0.0)
    return state


@pytest.mark.parametrize(
    ("time_s", "charged", "took_s", "expected"),
    [(0.01, 0, 0.0, 41943040), (0.01, 64 * MIB, 0.032, 20971520), (0.001, 4096, 0.1, 4096), (0.0005, 0, 0.0, 2 * MIB)],
)
def test_effective_bytes_of_a_time_quota(time_s: float, charged: int, took_s: float, expected: int) -> None:
    """damon-spec §6.5; at first 4 MiB a millisecond are taken for the speed."""
    state = opened(Quota(time_s=time_s))
    if charged:
        state.charge(charged, charged, took_s)
        state.open_window(1.0)
    assert state.effective_bytes == expected


def test_the_speed_is_that_of_all_windows() -> None:
    state = opened(Quota(time_s=0.01))
    state.charge(64 * MIB, 64 * MIB, 0.032)
    state.open_window(1.0)
    state.charge(16 * MIB, 16 * MIB, 0.128)
    state.open_window(2.0)
    assert state.effective_bytes == 5 * MIB, "80 MiB in 160 ms"


def test_all_limits_together_are_the_least() -> None:
    assert opened(Quota(size_bytes=8 * MIB)).effective_bytes == 8 * MIB
    assert opened(Quota(size_bytes=8 * MIB, time_s=0.001)).effective_bytes == 4 * MIB
    assert opened(Quota(size_bytes=2 * MIB, time_s=0.001)).effective_bytes == 2 * MIB
    state = QuotaState(Quota(size_bytes=8 * MIB, time_s=0.001, goals=(INPUT,), tuner=Tuner.TEMPORAL))
    state.open_window(0.0, goals_score=0)
    assert state.effective_bytes == 4 * MIB


def test_charge_of_what_failed() -> None:
    """damon-spec §6.5: of 1000 MiB 700 were applied, and 300 cost 1/1024."""
    state = opened(Quota(size_bytes=2000 * MIB, fail_charge=(1, 1024)))
    state.charge(1000 * MIB, 700 * MIB, 0.0)
    assert state.charged_bytes == 734310400
    whole = opened(Quota(size_bytes=2000 * MIB))
    whole.charge(1000 * MIB, 700 * MIB, 0.0)
    assert whole.charged_bytes == 1000 * MIB


def test_more_applied_than_tried_costs_what_was_tried() -> None:
    state = opened(Quota(size_bytes=MIB, fail_charge=(1, 1024)))
    state.charge(4096, 8192, 0.0)
    assert state.charged_bytes == 4096


def test_without_a_value_there_is_no_limit() -> None:
    state = opened(Quota(weights=Weights(age=1)))
    assert not state.quota.is_set
    assert not state.is_full
    assert state.left_bytes == 2**64 - 1


def test_the_first_window_is_limited() -> None:
    """In kernels such as 6.12.117 it is not (damon-spec §7)."""
    state = QuotaState(Quota(size_bytes=MIB))
    assert state.window_has_ended(1000.0)
    assert state.is_full, "before a window was opened"
    state.open_window(1000.0)
    assert state.left_bytes == MIB
    state.charge(MIB, MIB, 0.0)
    assert state.is_full


def test_a_quota_of_nothing_is_no_quota_without_limit() -> None:
    """Of goals that are reached, all at once: older kernels took a computed 0 for "no limit"."""
    state = QuotaState(Quota(goals=(INPUT,), tuner=Tuner.TEMPORAL))
    state.open_window(0.0, goals_score=10_000)
    assert (state.effective_bytes, state.is_full, state.left_bytes) == (0, True, 0)


def test_what_is_left_is_in_whole_regions() -> None:
    state = QuotaState(Quota(size_bytes=10 * PAGE_SIZE), min_region_bytes=4 * PAGE_SIZE)
    state.open_window(0.0)
    assert state.left_bytes == 8 * PAGE_SIZE
    state.charge(7 * PAGE_SIZE, 0, 0.0)
    assert (state.left_bytes, state.is_full) == (0, True)


def test_windows() -> None:
    state = QuotaState(Quota(size_bytes=MIB, reset_interval_s=2.0))
    assert state.window_has_ended(5.0)
    state.open_window(5.0)
    assert [state.window_has_ended(now) for now in (5.0, 6.9, 7.0, 4.9)] == [False, False, True, True]
    state.charge(MIB // 2, 0, 0.0)
    state.open_window(7.0)
    assert (state.charged_bytes, state.nr_exceeded) == (0, 0)
    state.charge(MIB, 0, 0.0)
    state.open_window(9.0)
    assert (state.charged_bytes, state.nr_exceeded) == (0, 1)
    each = QuotaState(Quota(size_bytes=MIB, reset_interval_s=0.0))
    each.open_window(1.0)
    assert each.window_has_ended(1.0)


def test_damos_quota() -> None:
    """The kernel's selftest: 1 MiB in 100 ms; no window takes more, and each that took all of it has exceeded."""
    state = QuotaState(Quota(size_bytes=MIB, reset_interval_s=0.1))
    taken = []
    for number in range(50):
        state.open_window(number / 10)
        while not state.is_full and (wanted := min(state.left_bytes, 256 * 1024 + 4096 * number)):
            state.charge(wanted, wanted, 0.0)
            if number % 3 == 0:
                break
        taken.append(state.charged_bytes)
    state.open_window(5.0)
    assert max(taken) == MIB
    assert state.nr_exceeded == taken.count(MIB) > 20


def test_consist_from_nothing() -> None:
    """damon-spec §6.5: a page after 12 windows."""
    state = QuotaState(Quota(goals=(INPUT,)))
    sizes = []
    for window in range(13):
        state.open_window(float(window), goals_score=0)
        sizes.append(state.effective_bytes)
    assert sizes == [2**power for power in range(1, 14)]
    for window in range(13, 27):
        state.open_window(float(window), goals_score=0)
    assert state.effective_bytes == 128 * MIB


def test_damos_quota_goal() -> None:
    """The kernel's selftest: rise, fall, rise, fall, five windows each; at the least it stays."""
    state = QuotaState(Quota(goals=(INPUT,), reset_interval_s=0.1))
    window, before = 0, 0
    for value, rises in ((0, True), (15_000, False), (5_000, True), (18_000, False)):
        for _ in range(5):
            state.open_window(window / 10, goals_score=INPUT.score(value))
            window += 1
        assert state.effective_bytes > before if rises else state.effective_bytes < before or before == 1
        before = state.effective_bytes
        assert state.goal_score == value / 10_000


def test_temporal_is_all_or_nothing() -> None:
    state = QuotaState(Quota(size_bytes=MIB, goals=(INPUT,), tuner=Tuner.TEMPORAL))
    found = []
    for window, score in enumerate((0, 9_999, 10_000, 25_000, 9_999)):
        state.open_window(float(window), goals_score=score)
        found.append(state.effective_bytes)
    assert found == [MIB, MIB, 0, 0, MIB]
    unlimited = QuotaState(Quota(goals=(INPUT,), tuner=Tuner.TEMPORAL))
    unlimited.open_window(0.0, goals_score=0)
    assert unlimited.effective_bytes == (2**64 - 1) // 10_000


def test_the_tuned_size_runs_ahead_of_the_limit() -> None:
    """It is not capped: the limit takes effect beside it (damon-spec §2.7)."""
    state = QuotaState(Quota(size_bytes=MIB, goals=(INPUT,)))
    for window in range(25):
        state.open_window(float(window), goals_score=0)
    assert state.effective_bytes == MIB
    state.open_window(25.0, goals_score=15_000)
    assert state.effective_bytes == MIB
    for window in range(26, 40):
        state.open_window(float(window), goals_score=15_000)
    assert state.effective_bytes < MIB


def test_commit_quota() -> None:
    """The kernel's test: all that a user sets is replaced; and what was charged stays (damon-spec §1.16)."""
    old = Quota(size_bytes=2 * MIB, time_s=0.001, reset_interval_s=3.0, tuner=Tuner.CONSIST, fail_charge=(2, 3),
                weights=Weights(size=4, access_rate=5, age=6))  # fmt: skip
    new = Quota(size_bytes=8 * MIB, time_s=0.007, reset_interval_s=9.0, tuner=Tuner.TEMPORAL, fail_charge=(1, 1024),
                weights=Weights(size=10, access_rate=11, age=12))  # fmt: skip
    state = opened(old)
    state.charge(2 * MIB, 2 * MIB, 0.5)
    state.replace(new)
    assert state.quota is new
    assert (state.charged_bytes, state.effective_bytes) == (2 * MIB, 2 * MIB)
    assert not state.window_has_ended(8.9)
    state.open_window(9.0)
    assert state.nr_exceeded == 1
    assert state.effective_bytes == 7 * (2 * MIB // 500), "the speed of the action is known still"


@pytest.mark.parametrize(
    ("old", "new"),
    [((), (123.0,)), ((234.0,), (345.0,)), ((456.0,), ())],
)
def test_commit_quota_goals(old: tuple[float, ...], new: tuple[float, ...]) -> None:
    lists = [tuple(Goal(metric=GoalMetric.USER_INPUT, target=target) for target in many) for many in (old, new)]
    state = opened(Quota(size_bytes=MIB, goals=lists[0]))
    state.replace(Quota(size_bytes=MIB, goals=lists[1]))
    assert [goal.target for goal in state.quota.goals] == list(new)
    state.open_window(1.0, goals_score=5_000)
    assert state.goal_score == (0.5 if new else None)


def test_a_goal_that_is_replaced_goes_on_from_the_size_it_had() -> None:
    state = QuotaState(Quota(goals=(INPUT,)))
    for window in range(10):
        state.open_window(float(window), goals_score=0)
    state.replace(Quota(goals=(Goal(metric=GoalMetric.USER_INPUT, target=5.0),)))
    state.open_window(10.0, goals_score=10_000)
    assert state.effective_bytes == 1024


@given(
    size=st.integers(PAGE_SIZE, 64 * MIB),
    fail_charge=st.sampled_from([(0, 0), (1, 1024), (1, 2), (0, 7), (1, 1)]),
    tries=st.lists(st.tuples(st.integers(0, 32 * MIB), st.floats(0, 1), st.booleans()), max_size=30),
)
def test_no_more_is_charged_than_the_window_has(
    size: int, fail_charge: tuple[int, int], tries: list[tuple[int, float, bool]]
) -> None:
    """Where nobody tries more than is left; and a byte costs at most a byte."""
    state = opened(Quota(size_bytes=size, fail_charge=fail_charge))
    applied_bytes = 0
    for window, (wanted, success, next_window) in enumerate(tries, 1):
        tried = min(wanted, state.left_bytes)
        applied = int(tried * success)
        applied_bytes += applied
        state.charge(tried, applied, 0.0)
        assert applied_bytes <= state.charged_bytes <= state.effective_bytes
        assert state.left_bytes <= state.effective_bytes - state.charged_bytes
        if next_window:
            state.open_window(float(window))
            applied_bytes = 0


@pytest.mark.parametrize(
    "values",
    [
        {"size_bytes": -1},
        {"size_bytes": 100},
        {"time_s": -0.1},
        {"time_s": float("nan")},
        {"reset_interval_s": -1.0},
        {"fail_charge": (1, 0)},
        {"fail_charge": (-1, 2)},
    ],
)
def test_quotas_without_a_meaning(values: dict[str, float]) -> None:
    with pytest.raises(InvalidInput) as problem:
        Quota(**values)  # type: ignore[arg-type]
    assert problem.value.hint


@pytest.mark.parametrize("name", ["size", "access_rate", "age"])
@pytest.mark.parametrize("value", [-1, 2**32])
def test_weights_without_a_meaning(name: str, value: int) -> None:
    with pytest.raises(InvalidInput, match=name):
        Weights(**{name: value})
