"""Where the windows of a kdamond come from: its trace events, or its tried regions where there is no tracefs."""

from __future__ import annotations

import time

from memtherm.errors import HostCannot, TargetGone
from memtherm.kdamond.aggregated import AggregatedStream, KernelWindow
from memtherm.kdamond.control import RunningKdamond
from memtherm.kdamond.parameters import KernelScheme
from memtherm.kdamond.tree import OwnershipLost
from memtherm.kdamond.tried import snapshot_schemes, tried_window


class TracedWindows:
    """Every window, by the kernel's trace events."""

    def __init__(self, *, thread: int, nr_targets: int, max_nr_regions: int) -> None:
        """Raises NotSupported where there is no tracefs, NotPermitted."""
        self._stream = AggregatedStream(kdamond_pid=thread, nr_targets=nr_targets, max_nr_regions=max_nr_regions)

    def schemes(self, nr_targets: int) -> tuple[KernelScheme, ...]:
        """The schemes that the kdamond needs for this."""
        self._stream.windows.nr_targets = nr_targets
        return ()

    def read(self) -> list[KernelWindow]:
        """The windows that have ended since this was asked last.  Does not wait."""
        return self._stream.read()

    def take_dropped(self) -> int:
        """How many windows were lost since this was asked last."""
        dropped, self._stream.windows.dropped_windows = self._stream.windows.dropped_windows, 0
        return dropped

    def close(self) -> None:
        self._stream.close()


class AskedWindows:
    """Some windows, each asked for: the kernel answers at the end of the one that runs."""

    def __init__(self, kdamond: RunningKdamond, *, interval_s: float) -> None:
        self._kdamond = kdamond
        self._interval_s = interval_s
        self._due_s = time.monotonic()
        self._nr_targets = 0

    def schemes(self, nr_targets: int) -> tuple[KernelScheme, ...]:
        """One for each target: what the kernel shows of a scheme does not tell its target."""
        self._nr_targets = nr_targets
        return snapshot_schemes(nr_targets)

    def read(self) -> list[KernelWindow]:
        """One window, once an interval; waits for it, and has none while the kernel rests, is busy, or has ended.

        Raises OwnershipLost.
        """
        if time.monotonic() < self._due_s or not self._nr_targets:
            return []
        try:
            window = tried_window(self._kdamond, range(self._nr_targets))
        except OwnershipLost:
            raise
        except (TargetGone, HostCannot):
            return []  # whoever waits for windows asks whether the kdamond still runs
        self._due_s = time.monotonic() + self._interval_s
        return [window]

    def take_dropped(self) -> int:
        """None is missed that was not asked for."""
        return 0

    def close(self) -> None:
        """Nothing is held."""
