"""Quotas: how many bytes a scheme may be tried on in a time, and what is left of that (damon-spec §2.5).

Times and bytes are whole numbers as in the kernel (milliseconds, nanoseconds), so that its vectors hold.
"""

from dataclasses import dataclass, field

from memtherm.core.goals import Goal, Tuner, tuned_size
from memtherm.core.tuning import multiply_divide
from memtherm.errors import InvalidInput
from memtherm.units import PAGE_SIZE

_UNLIMITED = 2**64 - 1
_FULL = 10_000
# What is taken for the speed of an action that was never done yet: 4 MiB a millisecond.
_FIRST_BYTES_PER_MS = PAGE_SIZE * 1024


@dataclass(frozen=True, kw_only=True)
class Weights:
    """How much each property of a region counts in its priority (damon-spec §2.6); all 0: no order.

    `size` is there for DAMON's policies, and counts for nothing, as in the kernel.
    """

    size: int = 0
    access_rate: int = 0
    age: int = 0

    def __post_init__(self) -> None:
        for name in ("size", "access_rate", "age"):
            if not 0 <= getattr(self, name) < 2**32:
                raise InvalidInput(f"the weight {name} is {getattr(self, name)}", hint="a weight is from 0 up")


@dataclass(frozen=True, kw_only=True)
class Quota:
    """What limits a scheme; without any value it has no limit.

    Attributes:
        size_bytes: bytes that it may be tried on in each `reset_interval_s`; 0: no such limit.
        time_s: time that its action may take in each; 0: no such limit.
        goals: the limit follows these, up to `size_bytes`.
        fail_charge: what a byte that was tried in vain costs, as numerator and denominator; (0, 0): a whole byte.

    Raises:
        InvalidInput: a negative value, or one without a meaning.
    """

    size_bytes: int = 0
    time_s: float = 0.0
    reset_interval_s: float = 1.0
    weights: Weights = field(default_factory=Weights)
    goals: tuple[Goal, ...] = ()
    tuner: Tuner = Tuner.CONSIST
    fail_charge: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        for name in ("size_bytes", "time_s", "reset_interval_s"):
            if not getattr(self, name) >= 0:
                raise InvalidInput(f"{name} of a quota is {getattr(self, name)}", hint="a limit is from 0 up")
        if 0 < self.size_bytes < PAGE_SIZE:
            raise InvalidInput(
                f"a quota of {self.size_bytes} bytes is less than a page", hint=f"{PAGE_SIZE} bytes are the least"
            )
        numerator, denominator = self.fail_charge
        if not 0 <= numerator < 2**32 or not 0 <= denominator < 2**32 or (numerator and not denominator):
            raise InvalidInput(f"a fail charge of {numerator}/{denominator}", hint="write it like (1, 1024)")

    @property
    def is_set(self) -> bool:
        return bool(self.size_bytes or self.time_s or self.goals)


@dataclass(frozen=True)
class Continuation:
    """Where the last apply stopped because the quota was full: the next goes on behind it."""

    target: int
    address: int


def interval_of(interval_s: float) -> float:
    """When an interval counts as over: a little early, or one as long as a window would miss every other window.

    The kernel's clock for this is as coarse as 10 ms.
    """
    return interval_s - min(0.01, interval_s / 10)


class QuotaState:
    """What is left of a quota in its charge window.

    Attributes:
        effective_bytes: the limit of this window, all of the quota's limits taken together.
        charged_bytes: used of it.
        nr_exceeded: windows that ended with a full quota.
        goal_score: how far the goals are reached, 1.0 is just reached; None without goals.
        continuation: see Continuation.
    """

    def __init__(self, quota: Quota, *, min_region_bytes: int = PAGE_SIZE) -> None:
        self.quota = quota
        self._min_region_bytes = min_region_bytes
        self._window_began_s: float | None = None
        self._total_charged_bytes = 0
        self._total_time_ns = 0
        self._tuned = 0
        self.effective_bytes = 0
        self.charged_bytes = 0
        self.nr_exceeded = 0
        self.goal_score: float | None = None
        self.continuation: Continuation | None = None

    def replace(self, quota: Quota) -> None:
        """Go on with other limits; what was charged stays charged (damon-spec §1.16)."""
        self.quota = quota

    def window_has_ended(self, now_s: float) -> bool:
        began_s = self._window_began_s
        return began_s is None or not began_s <= now_s < began_s + interval_of(self.quota.reset_interval_s)

    def open_window(self, now_s: float, *, goals_score: int = _FULL) -> None:
        """Begin the next charge window.

        Args:
            goals_score: the highest score of the goals, in 1/10000 (damon-spec §2.7).
        """
        if self._window_began_s is not None and self.is_full:
            self.nr_exceeded += 1
        self._window_began_s = now_s
        self._total_charged_bytes += self.charged_bytes
        self.charged_bytes = 0
        self._set_effective_bytes(goals_score)

    @property
    def is_full(self) -> bool:
        """Whether not even the smallest region fits into what is left; never without a quota."""
        return self.quota.is_set and self.effective_bytes - self.charged_bytes < self._min_region_bytes

    @property
    def left_bytes(self) -> int:
        """What may still be tried in this window."""
        if not self.quota.is_set:
            return _UNLIMITED
        left = max(0, self.effective_bytes - self.charged_bytes)
        return left // self._min_region_bytes * self._min_region_bytes

    def charge(self, tried_bytes: int, applied_bytes: int, time_s: float) -> None:
        """Count what was tried, and how long the action took."""
        numerator, denominator = self.quota.fail_charge
        self._total_time_ns += round(time_s * 1e9)
        if denominator == 0 or applied_bytes > tried_bytes:
            self.charged_bytes += tried_bytes
        else:
            failed = multiply_divide(tried_bytes - applied_bytes, numerator, denominator)
            self.charged_bytes += applied_bytes + failed

    def _set_effective_bytes(self, goals_score: int) -> None:
        quota = self.quota
        self.goal_score = goals_score / _FULL if quota.goals else None
        if not quota.time_s and not quota.goals:
            self.effective_bytes = quota.size_bytes
            return
        effective = _UNLIMITED
        if quota.goals:
            self._tuned = tuned_size(self._tuned, score=goals_score, tuner=quota.tuner, size_bytes=quota.size_bytes)
            effective = self._tuned // _FULL
        if quota.time_s:
            # In microseconds, since less than a millisecond is a time as well.
            bearable = self._bytes_per_ms() * round(quota.time_s * 1e6) // 1000
            effective = min(effective, max(bearable, self._min_region_bytes))
        self.effective_bytes = min(effective, quota.size_bytes) if quota.size_bytes else effective

    def _bytes_per_ms(self) -> int:
        if not self._total_time_ns:
            return _FIRST_BYTES_PER_MS
        return multiply_divide(self._total_charged_bytes, 1_000_000, self._total_time_ns)
