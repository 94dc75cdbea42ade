"""Small runs for reports, and hypothesis strategies for them."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
from hypothesis import strategies as st

from memtherm.core.history import MappingTable, TargetVitals, Vitals
from memtherm.core.report import Report
from memtherm.core.snapshot import Conditions, Regions, Snapshot, TargetInfo
from support.history import ListHistory

BEGIN_S = 1_700_000_000.0
WINDOW_S = 0.5
PAGE = 4096
MIB = 1 << 20
TARGETS = (TargetInfo(7, "one"), TargetInfo(8, "two"))
LOOKS = 20

# target, start and end in pages, looks that found an access, age in seconds
Row = tuple[int, int, int, int, float]


def report(index: int, rows: list[Row], *, window_s: float = WINDOW_S, error: float = 0.0) -> Report:
    """The window with this number, counted from 0; each begins where the one before ends."""
    target, start, end, hits, age_s = zip(*rows, strict=True) if rows else ((),) * 5
    nr_accesses = np.array(hits, np.int64)
    regions = Regions(
        np.array(target, np.int32),
        np.array(start, np.uint64) * np.uint64(PAGE),
        np.array(end, np.uint64) * np.uint64(PAGE),
        nr_accesses,
        nr_accesses / LOOKS,
        np.array(age_s, np.float64),
        np.full(len(rows), error),
    )
    conditions = Conditions(
        method="sampling",
        probe="simulated",
        clearing="none",
        grain="page",
        sampling_interval_s=window_s / LOOKS,
        aggregation_interval_s=window_s,
        samples=LOOKS,
        window_s=window_s,
    )
    return Report(Snapshot(BEGIN_S + (index + 1) * window_s, TARGETS, regions, conditions), ())


def run(*windows: list[Row], error: float = 0.0, mappings: tuple[MappingTable, ...] = ()) -> ListHistory:
    """Windows one after the other."""
    return ListHistory(
        all_reports=[report(index, rows, error=error) for index, rows in enumerate(windows)],
        all_mappings=mappings,
        of_targets=TARGETS,
    )


def mappings_of(target: int, *ranges: tuple[int, int, str], time_s: float = BEGIN_S) -> MappingTable:
    """(first page, end page, path) of each mapping."""
    start, end, paths = zip(*ranges, strict=True)
    return MappingTable(
        time_s,
        target,
        np.array(start, np.uint64) * np.uint64(PAGE),
        np.array(end, np.uint64) * np.uint64(PAGE),
        np.zeros(len(ranges), np.uint64),
        ("rw-p",) * len(ranges),
        tuple(paths),
    )


def vitals(index: int, *resident_bytes: int) -> Vitals:
    """At the end of the window with this number; one size for each target."""
    return Vitals(
        time_s=BEGIN_S + (index + 1) * WINDOW_S,
        targets=tuple(
            TargetVitals(target=target, resident_bytes=size, swap_bytes=0) for target, size in enumerate(resident_bytes)
        ),
        agent_cpu_s=0.0,
        agent_resident_bytes=0,
        free_memory_bytes=0,
    )


def with_doubts(history: ListHistory, *doubts: str) -> ListHistory:
    """The same run, its last window in doubt."""
    last = history.all_reports[-1]
    conditions = replace(last.snapshot.conditions, doubts=doubts)
    doubted = replace(last, snapshot=replace(last.snapshot, conditions=conditions))
    return replace(history, all_reports=[*history.all_reports[:-1], doubted])


@st.composite
def snapshots(draw: st.DrawFn) -> list[Row]:
    """Regions of two targets, sorted and disjoint, with gaps or without."""
    rows: list[Row] = []
    for target in (0, 1):
        borders = sorted(draw(st.sets(st.integers(1, 60), max_size=10)))
        for start, end in pairwise(borders):
            if draw(st.integers(0, 3)):  # else a gap
                rows.append((target, start, end, draw(st.integers(0, LOOKS)), draw(st.integers(0, 40)) / 4))
    return rows


@st.composite
def runs(draw: st.DrawFn) -> ListHistory:
    """Some windows with one region or more in all, cut into pieces somewhere."""
    windows = draw(st.lists(snapshots(), min_size=1, max_size=6).filter(any))
    reports = [report(index, rows) for index, rows in enumerate(windows)]
    return ListHistory(all_reports=reports, of_targets=TARGETS, snapshots_at_once=draw(st.integers(1, 4)))
