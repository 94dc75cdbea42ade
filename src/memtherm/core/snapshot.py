"""What one aggregation window found, in absolute units, with the conditions of the measurement."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from memtherm.core.ranges import Addresses, Counts, Flags, sizes


@dataclass(frozen=True)
class TargetInfo:
    """A watched address space.

    Attributes:
        start_time_s: seconds from boot to its start; tells two users of one pid apart.
        labels: how the policy's targets that it belongs to are called; schemes may be for some of them.
    """

    pid: int
    name: str
    start_time_s: float = 0.0
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Regions:
    """Regions as columns, sorted by target and address.

    Attributes:
        target: index into `Snapshot.targets` (int32).
        start, end: addresses, half-open (uint64).
        nr_accesses: samples of the window that found an access (int64).
        access_rate: `nr_accesses` / samples per window, 0..1 (float64).
        age_s: how long the access rate has stayed about the same, seconds (float64).
        rate_error: how far the true rate may be from access_rate, at 95 % confidence (float64); 0 where every
            page was looked at each time.
    """

    target: NDArray[np.int32]
    start: Addresses
    end: Addresses
    nr_accesses: Counts
    access_rate: NDArray[np.float64]
    age_s: NDArray[np.float64]
    rate_error: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.start)

    @property
    def size_bytes(self) -> Counts:
        return sizes(self.start, self.end)

    def take(self, rows: NDArray[np.generic] | slice) -> Regions:
        """Only these rows."""
        return Regions(*(getattr(self, field.name)[rows] for field in fields(self)))


def rate_error(rate: NDArray[np.float64], looks: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """How far the true rate may be from one that was found by so many random looks, at 95 % confidence.

    The distance to the farther end of Wilson's interval (E. B. Wilson, 1927), so that `rate ± error`
    holds it.  Unlike the normal approximation it is not 0 where no look, or each, found an access.
    """
    z = 1.96
    n = np.maximum(looks, 1e-9)
    center = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z * np.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    error: NDArray[np.float64] = np.maximum(rate - (center - half), center + half - rate)
    return error


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """How a snapshot was measured, so that its numbers can be believed or not.

    Attributes:
        method: `census`: every page is counted; `sampling`: one page of a region speaks for the region.
        why: why this method.
        probe: the way accesses were seen.
        clearing: how accessed bits were cleared: `cold`, `clear_refs`, `protect` (an access faults once), or `none`.
        grain: `page`; `part` or `mapping` where the probe gives one answer for so much.
        sampling_interval_s, aggregation_interval_s: as used, after any stretching.
        samples: looks behind each access rate.
        late_samples: looks that came more than one sampling interval late.
        window_s: real length of the window.
        agent_cpu_s: CPU time of the monitor in this window, user and system.
        unclear_share: share of the looked-at pages whose accessed bit could not be cleared; they count as accessed.
        uncovered_share: share of the memory that the budget did not allow to look at each time.
        doubts: why these numbers should not be believed, in sentences; empty where they can be.
    """

    method: str
    why: str = ""
    probe: str
    clearing: str
    grain: str
    sampling_interval_s: float
    aggregation_interval_s: float
    samples: int
    late_samples: int = 0
    window_s: float = 0.0
    agent_cpu_s: float = 0.0
    unclear_share: float = 0.0
    uncovered_share: float = 0.0
    doubts: tuple[str, ...] = ()

    @property
    def agent_cpu_percent(self) -> float:
        """CPU of the monitor in percent of one CPU."""
        return 100 * self.agent_cpu_s / self.window_s if self.window_s > 0 else 0.0


@dataclass(frozen=True)
class Snapshot:
    """The regions at the end of one aggregation window.

    Attributes:
        time_s: end of the window, seconds since the epoch.
        targets: the address spaces; `regions.target` is an index into it.
    """

    time_s: float
    targets: tuple[TargetInfo, ...]
    regions: Regions
    conditions: Conditions

    def rows_at_least(self, min_access_rate: float) -> Flags:
        """Which regions have at least this access rate (0..1)."""
        return self.regions.access_rate >= min_access_rate - 1e-9

    def working_set_bytes(self, *, min_access_rate: float = 0.0) -> int:
        """Bytes in regions that were accessed, at `min_access_rate` or more.

        Example:
            >>> snapshot.working_set_bytes(min_access_rate=0.05)
            67108864
        """
        accessed = self.rows_at_least(min_access_rate) & (self.regions.access_rate > 0)
        return int(self.regions.size_bytes[accessed].sum())
