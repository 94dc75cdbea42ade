"""A snapshot by the tried regions of a `stat` scheme: for kernels and containers without the trace event.

Unlike the trace (aggregated.py) it must be asked for, and the kernel answers within an apply interval.  Four files are
opened for each region, which sysfs leaves no way around; one folder is listed (damon-spec §2.11).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from memtherm.core.ranges import Addresses, Counts
from memtherm.core.scheme import Action
from memtherm.kdamond.aggregated import KernelWindow
from memtherm.kdamond.kernel_regions import KernelRegions
from memtherm.kdamond.parameters import ANY_BOUNDS, KernelFilter, KernelFilterKind, KernelScheme


class TriedColumns(Protocol):
    """What one scheme was tried on; `kdamond.control.TriedRegions`."""

    @property
    def start(self) -> Addresses: ...

    @property
    def end(self) -> Addresses: ...

    @property
    def nr_accesses(self) -> Counts: ...

    @property
    def age_windows(self) -> Counts: ...


class AsksForTried(Protocol):
    """A running kdamond that has schemes; `kdamond.control.RunningKdamond`."""

    def tried_regions(self, *, schemes: Sequence[int] | None = None) -> Sequence[TriedColumns]: ...


def snapshot_schemes(nr_targets: int) -> tuple[KernelScheme, ...]:
    """The `stat` schemes that `tried_window` asks, one for each target: each fits all regions of its own."""
    return tuple(
        KernelScheme(
            action=Action.STAT,
            size_bytes=ANY_BOUNDS,
            nr_accesses=ANY_BOUNDS,
            age_windows=ANY_BOUNDS,
            core_filters=tuple(
                KernelFilter(kind=KernelFilterKind.TARGET, matching=True, target=other)
                for other in range(nr_targets)
                if other != target
            ),
        )
        for target in range(nr_targets)
    )


def tried_window(
    kdamond: AsksForTried, schemes: Sequence[int], *, monotonic_ns: Callable[[], int] = time.monotonic_ns
) -> KernelWindow:
    """All regions of a kdamond, by one `stat` scheme for each of its targets.

    Tried regions do not tell their target: with several targets each needs a scheme of its own with a filter by
    target, else their regions could not be told apart.

    Args:
        schemes: index of the scheme of each target, in the order of the targets.

    Raises what `tried_regions` raises: CommandCanceled, TargetGone, TargetBusy.
    """
    found = kdamond.tried_regions(schemes=schemes)
    lengths = [len(columns.start) for columns in found]
    regions = KernelRegions(
        target=np.repeat(np.arange(len(found), dtype=np.int32), lengths),
        start=np.concatenate([columns.start for columns in found]),
        end=np.concatenate([columns.end for columns in found]),
        nr_accesses=np.concatenate([columns.nr_accesses for columns in found]),
        age_windows=np.concatenate([columns.age_windows for columns in found]),
    )
    return KernelWindow(monotonic_ns(), regions)
