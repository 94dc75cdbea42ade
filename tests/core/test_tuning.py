"""Golden vectors of damon-spec §6.1 (feed_loop) and §6.5."""

import pytest

from memtherm.core.tuning import access_score, feed_loop, interval_factor, multiply_divide, tuned_interval_s


@pytest.mark.parametrize(
    ("last", "score", "expected"),
    [
        (900000, 200, 1782000),
        (900000, 2000, 1620000),
        (900000, 10000, 900000),
        (900000, 15000, 450000),
        (900000, 19999, 10000),
        (900000, 20000, 10000),
        (10000, 0, 20000),
        (10000, 5000, 15000),
        (10000, 9999, 10001),
        (10000, 10001, 10000),
        (20000, 11000, 18000),
        (123456789, 0, 246913578),
        (2**63 - 1, 0, 18446744073709545807),
        (2**64 - 1, 0, 2**64 - 1),
    ],
)
def test_feed_loop(last: int, score: int, expected: int) -> None:
    assert feed_loop(last, score) == expected


def test_feed_loop_next_input() -> None:
    assert feed_loop(900000, 200) > 900000 > feed_loop(900000, 250_000_000)
    assert feed_loop(900000, 200) > feed_loop(900000, 2000)


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        (0, 20000), (2500, 17500), (5000, 15000), (9999, 10001), (10000, 10000), (10001, 9999), (12500, 8750),
        (15000, 7500), (17500, 6250), (19999, 5000), (40000, 5000),
    ],
)  # fmt: skip
def test_interval_adaptation(score: int, expected: int) -> None:
    assert interval_factor(score) == expected


@pytest.mark.parametrize(
    ("sampling_s", "score", "expected_s"),
    [(0.005, 0, 0.01), (0.005, 20000, 0.005), (0.1, 15000, 0.075), (8.0, 0, 10.0)],
)
def test_tune(sampling_s: float, score: int, expected_s: float) -> None:
    assert tuned_interval_s(sampling_s, score=score, minimum_s=0.005, maximum_s=10.0) == expected_s


def test_the_score_is_10000_at_the_goal() -> None:
    assert access_score(events=40, max_events=1000, goal=0.04) == 10000
    assert access_score(events=0, max_events=1000, goal=0.04) == 0
    assert access_score(events=5, max_events=0, goal=0.04) == 50000


def test_multiply_divide() -> None:
    assert multiply_divide(123456789, 10000, 777) == 123456789 * 10000 // 777
