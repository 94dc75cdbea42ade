"""Memory of a process tree and of the whole machine, read every quarter of a second while a program runs."""

import os
import statistics
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from benchmarks.schemes.processes import tree

EVERY_S = 0.25
_HUGE_EVERY = 4  # smaps_rollup walks the page table, so once a second
_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
_GONE = (FileNotFoundError, ProcessLookupError, PermissionError)
_COUNTERS = ("pswpin", "pswpout", "workingset_refault_anon", "workingset_refault_file")


def _fields(path: Path) -> dict[str, int]:
    """The lines `name: number kB` of a file in /proc, in bytes."""
    values = {}
    for line in path.read_text().splitlines():
        words = line.split()
        if len(words) == 3 and words[2] == "kB":
            values[words[0].rstrip(":")] = int(words[1]) * 1024
    return values


@dataclass(frozen=True)
class Memory:
    """Of the whole machine, in bytes.  What zram takes is a part of what is used."""

    used_bytes: int
    swap_bytes: int
    zram_bytes: int


def machine_memory() -> Memory:
    lines = _fields(Path("/proc/meminfo"))
    statistics_of_zram = Path("/sys/block/zram0/mm_stat")
    return Memory(
        used_bytes=lines["MemTotal"] - lines["MemAvailable"],
        swap_bytes=lines["SwapTotal"] - lines["SwapFree"],
        zram_bytes=int(statistics_of_zram.read_text().split()[2]) if statistics_of_zram.exists() else 0,
    )


def counters() -> dict[str, float]:
    """What the kernel has counted since boot.

    Pages in and out of swap, pages that came back too soon, and seconds in which the CPUs of the machine were busy
    (who else was at work shows there) or taken by the host of a virtual machine (`stolen_s`).
    """
    lines = (line.split() for line in Path("/proc/vmstat").read_text().splitlines())
    counted = {name: float(value) for name, value in lines if name in _COUNTERS}
    ticks = [int(value) for value in Path("/proc/stat").read_text().partition("\n")[0].split()[1:9]]
    user, nice, system, _, _, interrupts, soft_interrupts, stolen = ticks
    busy = user + nice + system + interrupts + soft_interrupts
    return counted | {"machine_cpu_s": busy / _TICKS_A_SECOND, "stolen_s": stolen / _TICKS_A_SECOND}


@dataclass
class _Series:
    """One number for each look."""

    rss_bytes: list[int] = field(default_factory=list)
    used_bytes: list[int] = field(default_factory=list)
    swap_bytes: list[int] = field(default_factory=list)
    zram_bytes: list[int] = field(default_factory=list)
    huge_bytes: list[int] = field(default_factory=list)


class Sampler:
    """Looks at the tree below `pid` until its block ends.

    Means are over the whole run; `late` ones over its second half, when start-up and the first waiting are over.
    """

    def __init__(self, pid: int, *, before: Memory) -> None:
        self._pid = pid
        self._before = before
        self._series = _Series()
        self._major_faults = 0
        self._cpu_s = 0.0
        self._counters = counters()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> "Sampler":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        self._thread.join()
        self._counters = {name: value - self._counters[name] for name, value in counters().items()}

    def result(self) -> dict[str, float]:
        """After the block: bytes and counts."""
        series = self._series
        zram = [value - self._before.zram_bytes for value in series.zram_bytes]
        return {
            "rss_bytes": _mean(series.rss_bytes),
            "rss_late_bytes": _late(series.rss_bytes),
            "rss_peak_bytes": max(series.rss_bytes, default=0),
            "system_bytes": _mean(series.used_bytes) - self._before.used_bytes,
            "system_late_bytes": _late(series.used_bytes) - self._before.used_bytes,
            "swap_bytes": _mean(series.swap_bytes) - self._before.swap_bytes,
            "zram_bytes": _mean(zram),
            "zram_peak_bytes": max(zram, default=0),
            "huge_bytes": _mean(series.huge_bytes),
            "major_faults": self._major_faults,
            "cpu_s": self._cpu_s,
            **self._counters,
        }

    def _look(self) -> None:
        number, next_s = 0, time.monotonic()
        while not self._is_over.wait(max(0.0, next_s - time.monotonic())):
            next_s += EVERY_S
            pids = tree(self._pid)
            rss_bytes, faults, cpu_s = self._processes(pids)
            if rss_bytes == 0:  # it has just ended
                continue
            self._major_faults = max(self._major_faults, faults)
            self._cpu_s = max(self._cpu_s, cpu_s)
            memory = machine_memory()
            self._series.rss_bytes.append(rss_bytes)
            self._series.used_bytes.append(memory.used_bytes)
            self._series.swap_bytes.append(memory.swap_bytes)
            self._series.zram_bytes.append(memory.zram_bytes)
            if number % _HUGE_EVERY == 0:
                self._series.huge_bytes.append(_huge_bytes(pids))
            number += 1

    def _processes(self, pids: Sequence[int]) -> tuple[int, int, float]:
        """RSS, major faults and CPU time, with those of children that have ended."""
        rss_bytes, faults, cpu_ticks = 0, 0, 0
        for pid in pids:
            with suppress(*_GONE):
                rss_bytes += _fields(Path(f"/proc/{pid}/status")).get("VmRSS", 0)
                numbers = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                faults += int(numbers[9]) + int(numbers[10])
                cpu_ticks += sum(int(number) for number in numbers[11:15])
        return rss_bytes, faults, cpu_ticks / _TICKS_A_SECOND


def _huge_bytes(pids: Sequence[int]) -> int:
    huge_bytes = 0
    for pid in pids:
        with suppress(*_GONE):
            lines = _fields(Path(f"/proc/{pid}/smaps_rollup"))
            huge_bytes += lines.get("AnonHugePages", 0) + lines.get("ShmemPmdMapped", 0)
    return huge_bytes


def _mean(values: Sequence[int]) -> float:
    return statistics.fmean(values) if values else 0.0


def _late(values: Sequence[int]) -> float:
    return _mean(values[len(values) // 2 :])
