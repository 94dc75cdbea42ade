"""A snapshot's numbers: working set, rates, cost."""

import numpy as np
import pytest

from memtherm.core.snapshot import Conditions, Regions, Snapshot, TargetInfo, rate_error

MIB = 1 << 20


def conditions(**changed: float) -> Conditions:
    return Conditions(
        method="sampling",
        probe="simulated",
        clearing="none",
        grain="page",
        sampling_interval_s=0.005,
        aggregation_interval_s=0.1,
        samples=20,
        **changed,  # type: ignore[arg-type]
    )


def snapshot() -> Snapshot:
    nr = np.array([0, 1, 3, 20], np.int64)
    start = np.arange(4, dtype=np.uint64) * np.uint64(10 * MIB)
    end = start + np.array([1, 2, 4, 8], np.uint64) * np.uint64(MIB)
    regions = Regions(np.array([0, 0, 1, 1], np.int32), start, end, nr, nr / 20, np.zeros(4), np.zeros(4))
    return Snapshot(1.0, (TargetInfo(7, "a"), TargetInfo(8, "b")), regions, conditions())


@pytest.mark.parametrize(
    ("rate", "mebibytes"),
    [
        (0.0, 14),  # what was not accessed is in no working set
        (0.05, 14),  # inclusive
        (0.051, 12),
        (0.1 + 0.05, 12),  # 0.15000000000000002: rounding moves no bound
        (1.0, 8),
    ],
)
def test_working_set_bytes(rate: float, mebibytes: int) -> None:
    assert snapshot().working_set_bytes(min_access_rate=rate) == mebibytes * MIB


def test_working_set_of_nothing() -> None:
    whole = snapshot()
    empty = Snapshot(1.0, whole.targets, whole.regions.take(slice(0, 0)), whole.conditions)
    assert empty.working_set_bytes() == 0


def test_rows_at_least() -> None:
    assert snapshot().rows_at_least(0.15).tolist() == [False, False, True, True]
    assert snapshot().rows_at_least(0).tolist() == [True] * 4


def test_regions_take() -> None:
    regions = snapshot().regions
    assert len(regions) == 4
    assert regions.size_bytes.tolist() == [MIB, 2 * MIB, 4 * MIB, 8 * MIB]
    hot = regions.take(np.array([3, 1]))
    assert hot.nr_accesses.tolist() == [20, 1]
    assert hot.size_bytes.tolist() == [8 * MIB, 2 * MIB]
    assert hot.target.tolist() == [1, 0]


@pytest.mark.parametrize(("positive", "looks"), [(0, 20), (20, 20), (1, 20), (10, 20), (0, 1), (37, 1000)])
def test_rate_error(positive: int, looks: int) -> None:
    """The far border of Wilson's interval is the rate that is 1.96 of its own standard deviations away."""
    rate = positive / looks
    error = float(rate_error(np.array([rate]), looks)[0])
    border = rate + error if rate <= 0.5 else rate - error
    assert error == pytest.approx(1.96 * np.sqrt(border * (1 - border) / looks), rel=1e-3)
    assert error > 0


def test_agent_cpu_percent() -> None:
    assert conditions(window_s=0.1, agent_cpu_s=0.004).agent_cpu_percent == pytest.approx(4)
    assert conditions().agent_cpu_percent == 0
