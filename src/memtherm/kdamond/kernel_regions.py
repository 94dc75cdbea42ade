"""Regions in the units of the kernel, as its trace events and tried regions give them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memtherm.core.ranges import Addresses, Counts
from memtherm.core.snapshot import Regions, rate_error


@dataclass(frozen=True)
class KernelRegions:
    """Regions as columns, by target and address.

    Attributes:
        target: index of the target in its context (int32).
        start, end: addresses in bytes, half-open (uint64).
        nr_accesses: samples of one aggregation window that found an access (int64).
        age_windows: how many aggregation windows nr_accesses has stayed about the same (int64).
    """

    target: NDArray[np.int32]
    start: Addresses
    end: Addresses
    nr_accesses: Counts
    age_windows: Counts

    def __len__(self) -> int:
        return len(self.start)

    def in_absolute_units(self, *, samples: int, aggregation_interval_s: float) -> Regions:
        """The same in rates and seconds.

        Args:
            samples: in each window: aggregation interval / sampling interval, as they were (at least 1).
        """
        rate = np.minimum(self.nr_accesses / samples, 1.0)
        return Regions(
            target=self.target,
            start=self.start,
            end=self.end,
            nr_accesses=self.nr_accesses,
            access_rate=rate,
            age_s=self.age_windows.astype(np.float64) * aggregation_interval_s,
            rate_error=rate_error(rate, samples),
        )
