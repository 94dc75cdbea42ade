"""Real time."""

import time


class SystemClock:
    """The Clock of a live session."""

    def monotonic_s(self) -> float:
        return time.monotonic()

    def epoch_s(self) -> float:
        return time.time()

    def cpu_s(self) -> float:
        return time.thread_time()

    def sleep(self, duration_s: float) -> None:
        if duration_s > 0:
            time.sleep(duration_s)
