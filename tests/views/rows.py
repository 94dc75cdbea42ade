"""Regions and snapshots from a few numbers."""

import numpy as np

from memtherm.core.snapshot import Conditions, Regions, Snapshot, TargetInfo

MIB = 1 << 20
Row = tuple[int, int, int, float, float]


def regions(*rows: Row) -> Regions:
    """(target, start, end, access rate, age in seconds); addresses in MiB."""
    target, start, end, rate, age_s = zip(*rows, strict=True) if rows else ((),) * 5
    rates = np.array(rate, np.float64)
    return Regions(
        target=np.array(target, np.int32),
        start=np.array(start, np.uint64) * np.uint64(MIB),
        end=np.array(end, np.uint64) * np.uint64(MIB),
        nr_accesses=np.rint(rates * 20).astype(np.int64),
        access_rate=rates,
        age_s=np.array(age_s, np.float64),
        rate_error=np.zeros(len(rates)),
    )


def snapshot(*rows: Row) -> Snapshot:
    conditions = Conditions(
        method="sampling",
        probe="simulated",
        clearing="none",
        grain="page",
        sampling_interval_s=0.005,
        aggregation_interval_s=0.1,
        samples=20,
        window_s=0.1,
        agent_cpu_s=0.001,
    )
    return Snapshot(1_600_000_000.0, (TargetInfo(7, "one"), TargetInfo(8, "two")), regions(*rows), conditions)
