"""The same process watched by damo and by a kdamond of ours, one after the other: what is found, and what it costs."""

import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from kdamond.guest.areas import MIB, Areas
from memtherm.kdamond.ownership import Holder, KdamondSlots
from support.damo import damo_path
from support.requires import require

SAMPLING_S, AGGREGATION_S = 0.02, 0.2
SAMPLES = 10
HOT = 3  # hits of a window's samples
NR_TOLD = 7
NR_TRACED = 3
# Ours come without being asked for: of many, those that wait are traced, too, and not only what the buffer had.
OUR_NR_TRACED = 20
PATIENCE_S = 600.0
# damo's list in pieces of 1,023 bytes, any of which may begin with an empty list; ours as one line.
SNAPSHOT_BEGINS = re.compile(r'\bwrite\(1, "\[(?:\\n|\[)')
# `pid name(…` or `pid <... name resumed>…`; the rest are signals and ends.
CALL = re.compile(r"\d+ +(\w+)\(")

Rows = list[tuple[int, int, int]]  # start, end, nr_accesses


@dataclass(frozen=True)
class Watched:
    """What one of the two did.

    Attributes:
        snapshots: the last ones.
        first_s: from the start of the first program to the first snapshot: told, not held against a bar, for where
            it is emulated it is the reading of numpy.
        calls: system calls of each snapshot but the first: name → how often, on average.
    """

    snapshots: list[Rows]
    first_s: float
    calls: dict[str, float]

    @property
    def working_set_bytes(self) -> float:
        return statistics.median(sum(end - start for start, end in hot(rows)) for rows in self.snapshots)

    @property
    def typical(self) -> Rows:
        """The snapshot of the median working set."""
        by_size = sorted(self.snapshots, key=lambda rows: sum(end - start for start, end in hot(rows)))
        return by_size[len(by_size) // 2]

    @property
    def cost(self) -> dict[str, float]:
        opens = self.calls.get("open", 0) + self.calls.get("openat", 0)
        processes = sum(self.calls.get(name, 0) for name in ("clone", "clone3", "fork", "vfork"))
        return {
            "first_s": round(self.first_s, 1),
            "regions": statistics.median(map(len, self.snapshots)),
            "calls": sum(self.calls.values()),
            "opens": opens,
            "writes": self.calls.get("write", 0),
            "processes": processes,
        }


def hot(rows: Rows) -> list[tuple[int, int]]:
    return [(start, end) for start, end, nr_accesses in rows if nr_accesses >= HOT]


def shared_bytes(first: Sequence[tuple[int, int]], second: Sequence[tuple[int, int]]) -> int:
    return sum(
        max(0, min(end, other_end) - max(start, other_start))
        for start, end in first
        for other_start, other_end in second
    )


@pytest.fixture
def areas(slots: KdamondSlots) -> Iterator[Areas]:
    require("damo", "strace", "tracefs")
    assert slots.look().holder is Holder.FREE
    with Areas(4, size_bytes=8 * MIB, hot=[1]) as areas:
        yield areas


def run(words: Sequence[str | Path], home: Path, *, trace: Path | None = None) -> str:
    """Run a program to its end, which must be a good one; what it prints."""
    prefix = ["strace", "-f", "-qq", "-s", "16", "-o", str(trace), "--"] if trace else []
    done = subprocess.run(
        [*prefix, *map(str, words)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
        cwd=home,
        env=os.environ | {"HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"},
    )
    assert done.returncode == 0, (words, done.stdout[-2000:], done.stderr[-2000:])
    return done.stdout


def calls_of_snapshots(trace: Path, nr_told: int) -> dict[str, float]:
    """Those between the first and the last snapshot that was printed, for each of them."""
    lines = trace.read_text().splitlines()
    told = [number for number, line in enumerate(lines) if re.search(SNAPSHOT_BEGINS, line)]
    assert len(told) == nr_told, [lines[number] for number in told]
    names = Counter(match[1] for line in lines[told[0] : told[-1]] if (match := CALL.match(line)))
    return {name: count / (len(told) - 1) for name, count in names.items()}


def by_damo(pid: int, home: Path) -> Watched:
    intervals = (f"{SAMPLING_S}s", f"{AGGREGATION_S}s", "60s")
    report = (damo_path(), "report", "access", "--json", "--raw_number")
    began_s = time.monotonic()
    try:
        run([damo_path(), "start", "--target_pid", str(pid), "--monitoring_intervals", *intervals], home)
        run(report, home)
        first_s = time.monotonic() - began_s
        told = run([*report, "--repeat", "0s", str(NR_TOLD)], home)
        trace = home / "damo.trace"
        run([*report, "--repeat", "0s", str(NR_TRACED)], home, trace=trace)
        run([damo_path(), "stop"], home)
    finally:
        # It leaves its directories; in a guest of ours they may go.
        Path("/sys/kernel/mm/damon/admin/kdamonds/nr_kdamonds").write_text("0")
    return Watched(damo_snapshots(told), first_s, calls_of_snapshots(trace, NR_TRACED))


def damo_snapshots(text: str) -> list[Rows]:
    """Of each of the lists of records that stand one after the other."""
    snapshots, place, decoder = [], 0, json.JSONDecoder()
    while place < len(text.rstrip()):
        records, place = decoder.raw_decode(text, text.index("[", place))
        regions = records[0]["snapshots"][-1]["regions"]
        snapshots.append(
            [(plain(one["start"]), plain(one["end"]), plain(one["nr_accesses"]["samples"])) for one in regions]
        )
    return snapshots


def plain(number: str | int) -> int:
    return int(str(number).replace(",", ""))


def by_us(pid: int, home: Path) -> Watched:
    def words(nr_windows: int) -> list[str]:
        program = Path(__file__).with_name("snapshots.py")
        return [sys.executable, str(program), str(pid), str(home), str(nr_windows), str(SAMPLING_S), str(AGGREGATION_S)]

    run(words(1), home)  # reads the files of Python and numpy, which damo's start finds in memory then
    began_s = time.monotonic()
    run(words(1), home)
    first_s = time.monotonic() - began_s
    # The first windows are for finding the regions; damo, which is started anew for each report, has had them.
    told = [json.loads(line) for line in run(words(8 * NR_TOLD), home).splitlines()]
    trace = home / "our.trace"
    run(words(OUR_NR_TRACED), home, trace=trace)
    return Watched(told[-NR_TOLD:], first_s, calls_of_snapshots(trace, OUR_NR_TRACED))


def test_both_find_the_same_and_ours_costs_less(areas: Areas, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    ours, damos = by_us(areas.pid, home), by_damo(areas.pid, home)
    print(f"ours {ours.cost}\ndamo {damos.cost}")
    truth = [(areas.starts[1], areas.starts[2])]
    for one in (ours, damos):
        assert one.working_set_bytes == pytest.approx(8 * MIB, rel=0.4)
        assert shared_bytes(hot(one.typical), truth) >= 0.75 * 8 * MIB
    assert ours.working_set_bytes == pytest.approx(damos.working_set_bytes, rel=0.4)
    assert shared_bytes(hot(ours.typical), hot(damos.typical)) >= 0.75 * ours.working_set_bytes
    assert ours.cost["calls"] < damos.cost["calls"] / 10
    assert ours.cost["writes"] <= 2, "the line that is printed, and its end"
    assert ours.cost["processes"] == 0
