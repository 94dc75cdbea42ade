"""What being watched costs a target: slowdown of its work, and the longest stalls of its mmap and page faults.

Two equal workloads take turns on one CPU, pass by pass; one of them is watched, and the roles change every few
seconds.  So whatever else the machine does meets both within milliseconds.  The slowdown is of the CPU time of a
pass; its real time holds the waits for a CPU too, and so all of the neighbours' work.
"""

import argparse
import math
import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from benchmarks.support.agent import Agent
from benchmarks.support.machine import available_bytes, conditions, save
from benchmarks.support.tables import overhead_table, stall_shortfalls

from support.workload import Progress, Workload, workload

MIB = 1 << 20
# Until a monitor has started and its intervals have fitted themselves, at least for a small target.
_SETTLING_S = 2.0
_MEASURED_S = 2.0
_SLICE_S = 0.5
_SEGMENTS = 10


@dataclass(frozen=True, kw_only=True)
class Load:
    """One of the two workloads; `period_s` keeps it below half of a CPU."""

    name: str
    size_bytes: int
    hot_bytes: int
    period_s: float
    pages: Literal["small", "huge"] = "small"
    memory: Literal["anonymous", "shared"] = "anonymous"
    processes: int = 1
    methods: tuple[str, ...] = ("census",)


LOADS = (
    Load(name="4 MiB hot of 256 MiB", size_bytes=256 * MIB, hot_bytes=4 * MIB, period_s=0.0005),
    Load(
        name="64 MiB hot of 512 MiB",
        size_bytes=512 * MIB,
        hot_bytes=64 * MIB,
        period_s=0.001,
        methods=("census", "sampling, DAMON's 5 ms / 100 ms"),
    ),
    Load(name="512 MiB hot of 1 GiB", size_bytes=1024 * MIB, hot_bytes=512 * MIB, period_s=0.012),
    Load(name="256 MiB hot of 512 MiB, THP", size_bytes=512 * MIB, hot_bytes=256 * MIB, period_s=0.008, pages="huge"),
    Load(name="64 MiB hot of 4 GiB", size_bytes=4096 * MIB, hot_bytes=64 * MIB, period_s=0.001),
    Load(
        name="64 MiB hot of 256 MiB, four processes",
        size_bytes=256 * MIB,
        hot_bytes=64 * MIB,
        period_s=0.004,
        memory="shared",
        processes=4,
    ),
)
_QUICK = "64 MiB hot of 512 MiB"


@dataclass(frozen=True)
class Segment:
    """Some seconds with one of the two watched.

    Attributes:
        watched: 0 or 1.
        cpu_ratio, real_ratio: logarithm of the mean time of a pass of workload 0 over that of workload 1.
        starting, steady: the progress of each slice, (watched, other).
    """

    watched: int
    cpu_ratio: float
    real_ratio: float
    starting: list[tuple[Progress, Progress]]
    steady: list[tuple[Progress, Progress]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one load, below a minute")
    parser.add_argument("--only", metavar="TEXT", help="loads whose name holds this")
    arguments = parser.parse_args()
    wanted = _QUICK if arguments.quick and arguments.only is None else arguments.only
    began = conditions()
    rows = []
    for load in LOADS:
        for method in load.methods if wanted is None or wanted in load.name else ():
            rows.append(measured(load, method, segments=4 if arguments.quick else _SEGMENTS))
            print(overhead_table(rows[-1:]).splitlines()[-1], flush=True)
    print(f"\n{overhead_table(rows)}\n\n{stall_shortfalls(rows)}")
    print(f"\nwrote {save('overhead', began=began, is_quick=wanted is not None, rows=rows)}")


def measured(load: Load, method: str, *, segments: int) -> dict[str, Any]:
    """One row."""
    row: dict[str, Any] = {"case": load.name, "method": method}
    needed_bytes = 2 * load.size_bytes + (2 << 30)
    if needed_bytes > available_bytes():
        return row | {"skipped": f"needs {needed_bytes >> 20} MiB, {available_bytes() >> 20} MiB are available"}
    with ExitStack() as stack:
        pair = [stack.enter_context(_started(load)) for _ in range(2)]
        for child in pair:
            os.sched_setaffinity(child.pid, {min(os.sched_getaffinity(0))})
        found = [_segment(pair, number % 2, method) for number in range(segments)]
    row |= _slowdown("cpu", [one.cpu_ratio for one in found], found)
    row |= _slowdown("real", [one.real_ratio for one in found], found)
    for name in ("longest_map_s", "longest_fault_s"):
        for phase in ("starting", "steady"):
            slices = [pair for one in found for pair in getattr(one, phase)]
            for who, index in (("watched", 0), ("other", 1)):
                longest = [getattr(pair[index], name) for pair in slices]
                row[f"{phase}_{who}_{name}"] = max(longest)
                row[f"{phase}_{who}_usual_{name}"] = float(np.median(longest))
    return row


def _started(load: Load) -> Any:
    extra = ["--probe", "1", "--processes", str(load.processes)]
    return workload(
        size_bytes=load.size_bytes,
        hot=[((load.size_bytes - load.hot_bytes) // 2 // (2 * MIB) * 2 * MIB, load.hot_bytes)],
        memory=load.memory,
        pages=load.pages,
        period_s=load.period_s,
        extra=extra,
    )


def _segment(pair: Sequence[Workload], watched: int, method: str) -> Segment:
    order = (pair[watched], pair[1 - watched])
    for child in pair:
        child.progress()  # the longest times begin anew
    with Agent(pair[watched].pid, method=method) as agent:
        starting = _slices(order, _SETTLING_S)
        before = [child.progress() for child in pair]
        steady = _slices(order, _MEASURED_S)
        after = [child.progress() for child in pair]
        agent.usage()  # fails where the monitor has ended
    passes = [last.passes - first.passes for first, last in zip(before, after, strict=True)]
    cpu_s = [(last.cpu_s - first.cpu_s) for first, last in zip(before, after, strict=True)]
    real_s = [(last.busy_s - first.busy_s) for first, last in zip(before, after, strict=True)]
    passes_ratio = math.log(passes[0] / passes[1])
    return Segment(
        watched,
        math.log(cpu_s[0] / cpu_s[1]) - passes_ratio,
        math.log(real_s[0] / real_s[1]) - passes_ratio,
        starting,
        steady,
    )


def _slices(order: Sequence[Workload], duration_s: float) -> list[tuple[Progress, Progress]]:
    found = []
    for _ in range(round(duration_s / _SLICE_S)):
        time.sleep(_SLICE_S)
        found.append((order[0].progress(), order[1].progress()))
    return found


def _slowdown(name: str, ratios: Sequence[float], found: Sequence[Segment]) -> dict[str, float]:
    """Percent with its 95 % confidence interval (Welch's), from the segments of both roles."""
    first, second = (np.array([r for r, one in zip(ratios, found, strict=True) if one.watched == w]) for w in (0, 1))
    mean = float(first.mean() - second.mean()) / 2
    parts = np.array([first.var(ddof=1) / len(first), second.var(ddof=1) / len(second)])
    freedom = float(parts.sum() ** 2 / (parts**2 / np.array([len(first) - 1, len(second) - 1])).sum())
    half = _quantile_of_t(freedom) * math.sqrt(float(parts.sum())) / 2
    low, middle, high = (100 * math.expm1(value) for value in (mean - half, mean, mean + half))
    return {f"{name}_percent": middle, f"{name}_low_percent": low, f"{name}_high_percent": high}


def _quantile_of_t(freedom: float) -> float:
    """97.5 % quantile of Student's t, by the first terms of its expansion around the normal one."""
    z = 1.959964
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)


if __name__ == "__main__":
    main()
