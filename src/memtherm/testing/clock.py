"""Time that passes only when somebody sleeps."""


class VirtualClock:
    """A Clock for tests: `sleep` returns at once and moves the time.

    Example:
        >>> clock = VirtualClock()
        >>> clock.sleep(60)
        >>> clock.monotonic_s()
        60.0
    """

    def __init__(self, *, epoch_s: float = 1_600_000_000.0) -> None:
        self._now_s = 0.0
        self._epoch_s = epoch_s
        self._cpu_s = 0.0

    def monotonic_s(self) -> float:
        return self._now_s

    def epoch_s(self) -> float:
        return self._epoch_s + self._now_s

    def cpu_s(self) -> float:
        return self._cpu_s

    def sleep(self, duration_s: float) -> None:
        self._now_s += max(0.0, duration_s)

    def use_cpu(self, duration_s: float) -> None:
        """Let time pass as work of the monitor: to test lateness and cost."""
        self._now_s += duration_s
        self._cpu_s += duration_s
