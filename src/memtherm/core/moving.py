"""Access counts in the middle of a window: as if a window ended now (damon-spec §1.9, in the form of 7.3)."""

from memtherm.core.ranges import Counts
from memtherm.core.tuning import multiply_divide

_FULL = 10_000


def left_of_window(nr_samples: int, samples_per_window: int) -> int:
    """The part of the window that is still to come after so many samples, in 1/10000."""
    return multiply_divide(max(0, samples_per_window - nr_samples), _FULL, samples_per_window)


def moving_sum(current: Counts, last: Counts, left: int) -> Counts:
    """What this window has counted so far, and of the last window's count the part that is still to come.

    Args:
        current, last: nr_accesses of this window and of the one before (int64).
        left: as of left_of_window, in 1/10000.
    """
    if left == _FULL:
        return last
    return current + last * left // _FULL
