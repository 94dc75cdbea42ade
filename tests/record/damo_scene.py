"""Runs for the exchange with damo, and how equal two of them are."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from memtherm.core.history import History
from memtherm.core.report import Report
from memtherm.core.rows import SnapshotRows
from memtherm.core.snapshot import Conditions, Regions, Snapshot, TargetInfo, rate_error
from memtherm.views.batches import join_rows
from support.history import ListHistory

# Also with a selection, and whatever else one of them takes.
Writer = Callable[..., None]
BEGIN_S = 1_700_000_000.0
_BASES = (0x5600_0000_0000, 0x7F00_0000_0000)
_CONDITIONS = Conditions(
    method="sampling",
    probe="simulated",
    clearing="cold",
    grain="page",
    sampling_interval_s=0.005,
    aggregation_interval_s=0.1,
    samples=20,
    window_s=0.1,
)


def run(*, windows: int = 30, targets: int = 1, tuned: bool = False, seed: int = 1) -> ListHistory:
    """Some snapshots of two areas of each target, with gaps, hot and cold parts and ages.

    Args:
        tuned: windows get twice as long after each ten.
    """
    random = np.random.default_rng(seed)
    infos = tuple(TargetInfo(100 + number, f"program{number}") for number in range(targets))
    reports, time_s = [], BEGIN_S
    for number in range(windows):
        sampling_s = 0.005 * 2 ** (number // 10 if tuned else 0)
        conditions = replace(
            _CONDITIONS,
            sampling_interval_s=sampling_s,
            aggregation_interval_s=20 * sampling_s,
            window_s=20 * sampling_s,
        )
        time_s += conditions.window_s
        regions = joined([_regions(random, target, number, 20 * sampling_s) for target in range(targets)])
        reports.append(Report(Snapshot(time_s, infos, regions, conditions), ()))
    return ListHistory(all_reports=reports)


def _regions(random: np.random.Generator, target: int, number: int, window_s: float) -> Regions:
    starts, ends = [], []
    for base in _BASES:
        borders = base + target * 2**32 + np.unique(random.integers(0, 4096, 12)) * 4096
        starts.append(borders[:-1])
        ends.append(borders[1:])
    start, end = np.concatenate(starts).astype(np.uint64), np.concatenate(ends).astype(np.uint64)
    nr_accesses = np.where(random.random(len(start)) < 0.4, 0, random.integers(0, 21, len(start)))
    rate = (nr_accesses / 20).astype(np.float64)
    age_s = (random.integers(0, number + 1, len(start)) * window_s).astype(np.float64)
    return Regions(np.full(len(start), target, np.int32), start, end, nr_accesses, rate, age_s, rate_error(rate, 20.0))


def joined(parts: list[Regions]) -> Regions:
    return Regions(*(np.concatenate([getattr(one, name) for one in parts]) for name in vars(parts[0])))


def all_rows(history: History) -> SnapshotRows:
    return join_rows(list(history.rows()))


def written(path: Path, history: History, write: Writer) -> Path:
    with path.open("wb") as file:
        write(history, file)
    return path


def assert_same(found: SnapshotRows, expected: SnapshotRows, *, time_s: float = 1e-6) -> None:
    """Equal but for rounding, of times up to `time_s`."""
    assert len(found) == len(expected)
    np.testing.assert_array_equal(found.first_row, expected.first_row)
    np.testing.assert_array_equal(found.samples, expected.samples)
    np.testing.assert_allclose(found.time_s, expected.time_s, rtol=0, atol=time_s)
    np.testing.assert_allclose(found.window_s, expected.window_s, rtol=0, atol=2 * time_s)
    np.testing.assert_allclose(found.sampling_interval_s, expected.sampling_interval_s, rtol=0, atol=2 * time_s)
    for name in ("target", "start", "end", "nr_accesses"):
        np.testing.assert_array_equal(getattr(found.regions, name), getattr(expected.regions, name), err_msg=name)
    np.testing.assert_allclose(found.regions.access_rate, expected.regions.access_rate, rtol=1e-9)
    np.testing.assert_allclose(found.regions.rate_error, expected.regions.rate_error, rtol=1e-6)
    np.testing.assert_allclose(found.regions.age_s, expected.regions.age_s, rtol=1e-6, atol=1e-6)
