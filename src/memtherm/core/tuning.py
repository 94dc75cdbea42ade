"""Intervals that fit the target: DAMON's feedback loop and interval tuning (damon-spec §1.14, §2.7).

Whole-number arithmetic as in the kernel, so that its golden vectors hold to the digit.
"""

from memtherm.core.attributes import microseconds

_FULL = 10_000
_NUMBER_MAX = 2**64 - 1
_ADAPTATION_BASE = 100_000_000


def multiply_divide(value: int, numerator: int, denominator: int) -> int:
    """`value * numerator // denominator` as the kernel does it, without an overflow in between."""
    return value // denominator * numerator + value % denominator * numerator // denominator


def feed_loop(last: int, score: int) -> int:
    """The next input of a system whose output scored `score`, in 1/10000 of its goal (damon-spec §2.7)."""
    if score == _FULL:
        return last
    if score >= 2 * _FULL:
        return _FULL
    difference = abs(score - _FULL)
    step = last * difference // _FULL if last < _NUMBER_MAX // difference else last // _FULL * difference
    if score > _FULL:
        return max(last - step, _FULL)
    return min(last + step, _NUMBER_MAX)


def interval_factor(score: int) -> int:
    """What to multiply the intervals with, in 1/10000: at most twice, at least half (damon-spec §1.14)."""
    factor = feed_loop(_ADAPTATION_BASE, score) // _FULL
    return _FULL // 2 + factor // 2 if factor <= _FULL else factor


def access_score(*, events: int, max_events: int, goal: float) -> int:
    """Observed access events against the goal, in 1/10000.

    Args:
        events: sum over regions of bytes times accesses.
        max_events: the same if every look had found an access.
        goal: wanted share of events (0..1).
    """
    wanted = max_events * round(goal * _FULL) // _FULL or 1
    return multiply_divide(events, _FULL, wanted)


def tuned_interval_s(interval_s: float, *, score: int, minimum_s: float, maximum_s: float) -> float:
    """The next sampling interval, in whole microseconds: shorter where more is accessed than wanted, else longer."""
    tuned = microseconds(interval_s) * interval_factor(score) // _FULL
    return min(max(tuned, microseconds(minimum_s)), microseconds(maximum_s)) / 1e6
