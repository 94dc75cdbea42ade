"""The regions that schemes of a kdamond are tried on: trace event `damon:damos_before_apply` (Linux 6.7)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from memtherm.errors import NotSupported
from memtherm.kdamond.kernel_regions import KernelRegions
from memtherm.linux.tracefs import EventStream

EVENT = "damon:damos_before_apply"
_BUFFER_BYTES = 1 << 18


@dataclass(frozen=True)
class TriedEvents:
    """Regions on which schemes were tried, in the order of time.

    Attributes:
        scheme: for each region the scheme's index in its context (int64).
    """

    scheme: NDArray[np.int64]
    regions: KernelRegions


class TriedStream:
    """Listens from now on; what is too much for its buffer is lost, and counted in `lost_events`."""

    def __init__(self, *, kdamond_pid: int) -> None:
        """Raises NotSupported (no tracefs, an older kernel), NotPermitted."""
        self._events = EventStream(EVENT, filter_text=f"common_pid == {kdamond_pid}", buffer_bytes=_BUFFER_BYTES)

    @classmethod
    def where_supported(cls, *, kdamond_pid: int) -> Self | None:
        """None where the kernel does not tell."""
        try:
            return cls(kdamond_pid=kdamond_pid)
        except NotSupported:
            return None

    def close(self) -> None:
        """Remove the instance.  May be called again."""
        self._events.close()

    def lost_events(self) -> int:
        """How many were lost since the beginning."""
        return self._events.lost_events()

    def read(self) -> TriedEvents:
        """What was tried since the last time.  Does not wait."""
        records = self._events.read().records
        return TriedEvents(
            scheme=records["scheme_idx"].astype(np.int64),
            regions=KernelRegions(
                target=records["target_idx"].astype(np.int32),
                start=records["start"].astype(np.uint64),
                end=records["end"].astype(np.uint64),
                nr_accesses=records["nr_accesses"].astype(np.int64),
                age_windows=records["age"].astype(np.int64),
            ),
        )
