"""A limit of bytes a second, on average, with room for bursts (a token bucket), for one target and all its schemes.

Up to five seconds' worth may be done at once: a scheme acts once in a window, and windows last several seconds.
"""

import math

_BURST_S = 5.0


class RateLimit:
    """What may be done now; filled steadily, up to the five seconds' worth that may be done at once.

    Args:
        bytes_per_s: 0 for no limit.
        now_s: the time on a clock that never goes back; the bucket is full at first.
    """

    def __init__(self, bytes_per_s: int, *, now_s: float) -> None:
        self._bytes_per_s = bytes_per_s
        self._tokens = self._capacity = _BURST_S * bytes_per_s
        self._now_s = now_s

    def available_bytes(self, now_s: float) -> int | None:
        """What may be done now; None where there is no limit."""
        if not self._bytes_per_s:
            return None
        elapsed_s = max(0.0, now_s - self._now_s)
        self._now_s = max(now_s, self._now_s)
        self._tokens = min(self._capacity, self._tokens + elapsed_s * self._bytes_per_s)
        return max(0, math.floor(self._tokens))

    def take(self, size_bytes: int) -> None:
        """Count what is done, by the time of the last question."""
        self._tokens -= size_bytes
