"""The regions that schemes of a kdamond are tried on: trace event `damon:damos_before_apply` (Linux 6.7)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memtherm.errors import NotSupported
from memtherm.kdamond.kernel_regions import KernelRegions
from memtherm.linux.tracefs import EventStream, find_tracefs

EVENT = "damon:damos_before_apply"
_BUFFER_BYTES = 1 << 18


@dataclass(frozen=True)
class TriedEvents:
    """Regions on which schemes were tried, in the order of time.

    Attributes:
        scheme: for each region the scheme's index in its context (int64).
        lost_events: how many are missing here, because the buffer was full.
    """

    scheme: NDArray[np.int64]
    regions: KernelRegions
    lost_events: int = 0


def why_not_heard() -> str:
    """Why there is no `TriedStream` on this host; an empty text where there is one, or where only root may look."""
    try:
        is_there = (find_tracefs() / "events" / EVENT.replace(":", "/", 1)).is_dir()
    except NotSupported as problem:
        return str(problem)
    except PermissionError:
        return ""
    return "" if is_there else f"this kernel has no trace event {EVENT}"


class TriedStream:
    """Listens from now on; what is too much for its buffer is lost, and counted."""

    def __init__(self, *, kdamond_pid: int) -> None:
        """Raises NotSupported (no tracefs, an older kernel), NotPermitted."""
        self._events = EventStream(EVENT, filter_text=f"common_pid == {kdamond_pid}", buffer_bytes=_BUFFER_BYTES)
        self._lost_events = 0

    def close(self) -> None:
        """Remove the instance.  May be called again."""
        self._events.close()

    def read(self) -> TriedEvents:
        """What was tried since the last time.  Does not wait."""
        events, before = self._events.read(), self._lost_events
        records = events.records
        if events.losses:
            self._lost_events = self._events.lost_events()
        return TriedEvents(
            lost_events=self._lost_events - before,
            scheme=records["scheme_idx"].astype(np.int64),
            regions=KernelRegions(
                target=records["target_idx"].astype(np.int32),
                start=records["start"].astype(np.uint64),
                end=records["end"].astype(np.uint64),
                nr_accesses=records["nr_accesses"].astype(np.int64),
                age_windows=records["age"].astype(np.int64),
            ),
        )
