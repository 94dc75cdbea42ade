"""Watermarks: a scheme rests while there is plenty of memory, and when there is hardly any (damon-spec §2.8)."""

from dataclasses import dataclass
from enum import StrEnum

from memtherm.errors import InvalidInput


class WatermarkMetric(StrEnum):
    """`free_memory`: share of the system's memory that nothing uses (DAMON's free_mem_rate)."""

    FREE_MEMORY = "free_memory"


@dataclass(frozen=True, kw_only=True)
class Watermarks:
    """A scheme starts below `mid`, and rests above `high` and below `low`.

    Attributes:
        high, mid, low: shares, 0..1.
        interval_s: time between two looks at the metric while the scheme rests.

    Raises:
        InvalidInput: marks that are not in order, or no shares.
    """

    high: float
    mid: float
    low: float
    interval_s: float = 5.0
    metric: WatermarkMetric = WatermarkMetric.FREE_MEMORY

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.mid <= self.high <= 1:
            raise InvalidInput(
                f"watermarks of {self.high:.1%} (high), {self.mid:.1%} (mid) and {self.low:.1%} (low) are out of order",
                hint="low <= mid <= high, such as 20%, 40% and 50%",
            )
        if not self.interval_s >= 0:
            raise InvalidInput(f"the interval of watermarks is {self.interval_s} s", hint="5s is usual")


class WatermarkState:
    """Whether a scheme is active by its watermarks; with hysteresis between mid and high.

    Attributes:
        value: the metric at the last look.
    """

    def __init__(self, watermarks: Watermarks) -> None:
        self.watermarks = watermarks
        self.is_active = True
        self.value = 0.0
        self._look_at_s = float("-inf")

    def is_due(self, now_s: float) -> bool:
        # While it is active the metric is looked at each time, so that it rests at once (damon-spec §2.8).
        return self.is_active or now_s >= self._look_at_s

    def update(self, value: float, now_s: float) -> None:
        """Take in the metric, in whole thousandths as in the kernel."""
        self.value = value
        self._look_at_s = now_s + self.watermarks.interval_s
        permil, marks = int(value * 1000 + 1e-6), self.watermarks
        high, mid, low = (round(mark * 1000) for mark in (marks.high, marks.mid, marks.low))
        if permil > high or permil < low:
            self.is_active = False
        elif permil < mid:
            self.is_active = True

    @property
    def why_inactive(self) -> str:
        """In words; empty while the scheme is active."""
        if self.is_active:
            return ""
        marks = self.watermarks
        if self.value < marks.low:
            return f"{self.value:.1%} of memory is free, below the low watermark of {marks.low:.1%}"
        return f"{self.value:.1%} of memory is free, and it starts below {marks.mid:.1%}"
