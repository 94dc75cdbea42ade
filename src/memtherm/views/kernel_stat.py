"""What the kernel's DAMON_STAT knows of all memory of the host, as rows for people."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

SHOWN_PERCENTILES = (0, 1, 5, 10, 25, 50, 75, 90, 95, 99, 100)
SHOWN_TIMES_S = (1.0, 10.0, 60.0, 600.0, 3600.0)


@dataclass(frozen=True)
class IdleRow:
    """A percentile of idle time over the bytes of memory.

    Attributes:
        percent: so much of the memory is idle for `idle_s` or shorter.
        idle_s: seconds since the last access; negative: for how long it has been accessed.
    """

    percent: int
    idle_s: float


@dataclass(frozen=True)
class IdleShare:
    """How much of the memory (0..1) has not been accessed for at least `idle_s` seconds."""

    idle_s: float
    share: float


def idle_rows(milliseconds: Sequence[int], *, shown: Sequence[int] = SHOWN_PERCENTILES) -> tuple[IdleRow, ...]:
    """Some of the percentiles.

    Args:
        milliseconds: one for each percent from 0 on, ascending, milliseconds.
    """
    return tuple(IdleRow(percent, milliseconds[percent] / 1000) for percent in shown)


def idle_shares(milliseconds: Sequence[int], *, times_s: Sequence[float] = SHOWN_TIMES_S) -> tuple[IdleShare, ...]:
    """How much memory has been idle for at least each of some times; never more than is sure, to a whole percent."""
    last = len(milliseconds) - 1
    shares = []
    for time_s in times_s:
        first = bisect_left(milliseconds, time_s * 1000)
        shares.append(IdleShare(time_s, max(last - first, 0) / last))
    return tuple(shares)
