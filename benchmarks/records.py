"""Records: bytes a row, CPU time of writing, and how fast a program reads one, its start included."""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from benchmarks.support.machine import conditions, save
from benchmarks.support.runs import report_of, sampled, simulated, static
from benchmarks.support.tables import markdown

import memtherm
from memtherm.core.attributes import MonitoringAttributes
from memtherm.core.report import Report
from memtherm.core.snapshot import Regions
from memtherm.errors import HostCannot
from memtherm.record.header import RecordHeader
from memtherm.record.writer import RecordWriter
from support.workload import workload

MIB = 1 << 20
REGIONS = 1000
HEADER = RecordHeader(memtherm_version="0.1.0", created_s=1.7e9)
READ = """
import json, sys, time
from pathlib import Path
from memtherm.record.reader import open_record
imported_s, began_s = time.process_time(), time.perf_counter()
with open_record(sys.argv[1]) as record:
    rows = sum(len(part.regions) for part in record.rows())
print(json.dumps({"rows": rows, "decode_s": time.perf_counter() - began_s,
    "decode_cpu_s": time.process_time() - imported_s, "cpu_s": time.process_time(),
    "peak_mib": int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="10 s of writing, 1 M rows of reading")
    is_quick = parser.parse_args().quick
    began = conditions()
    windows = 100 if is_quick else 600
    noisy = [one.take(slice(0, REGIONS)) for one in sampled(200) if len(one) >= REGIONS]
    runs: dict[str, Sequence[Report]] = {
        "sampling, borders and counts drawn anew": numbered(islice(cycle(noisy), windows)),
        "sampling, 30 hot ranges (probe/simulated.py)": numbered(simulated(100 if is_quick else 200)),
        "nothing changes but ages": numbered(static(windows, noisy[-1])),
    }
    try:
        runs["census of a real process"] = census(10 if is_quick else 60)
    except HostCannot as problem:
        print(f"no census: {problem.message}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.memtherm"
        rows = [{"case": name, **written(path, reports)} for name, reports in runs.items()]
        print(write_table(rows))
        reads = []
        for count in (1_000_000,) if is_quick else (1_000_000, 10_000_000):
            written(path, numbered(islice(cycle(noisy), count // REGIONS)))
            reads.append({"case": f"{count:,} rows", **best_read(path)})
        print()
        print(read_table(reads))
    save("records", began=began, is_quick=is_quick, rows=[*rows, *reads])


def numbered(regions: Iterable[Regions]) -> Sequence[Report]:
    return [report_of(one, index) for index, one in enumerate(regions)]


def census(windows: int) -> Sequence[Report]:
    """Of a process of 512 MiB with hot, warm and idle memory."""
    hot = [(64 * MIB, 16 * MIB), (200 * MIB, 1 * MIB), (300 * MIB, 8 * MIB)]
    attributes = MonitoringAttributes(method="census")
    with (
        workload(size_bytes=512 * MIB, hot=hot, period_s=0.01) as child,
        memtherm.monitor(pid=child.pid, attributes=attributes) as session,
    ):
        return list(islice(session.reports(), windows))


def written(path: Path, reports: Sequence[Report]) -> dict[str, Any]:
    """What writing these takes: all of it, on the CPU clock of the process."""
    path.unlink(missing_ok=True)
    # Time for imports and the first use of libraries is the start's, and not that of writing.
    RecordWriter(path, HEADER).close()
    began_s = time.process_time()
    with RecordWriter(path, HEADER, overwrite=True) as writer:
        for report in reports:
            writer.add(report)
    cpu_s = time.process_time() - began_s
    rows = sum(len(report.snapshot.regions) for report in reports)
    lasts_s = sum(report.snapshot.conditions.window_s for report in reports)
    return {
        "snapshots": len(reports),
        "rows": rows,
        "bytes_a_row": path.stat().st_size / rows,
        "cpu_percent": 100 * cpu_s / lasts_s,
        "cpu_ms_per_10k_rows": 1000 * cpu_s / rows * 10_000,
    }


def best_read(path: Path) -> dict[str, Any]:
    """The fastest of some runs in a process of their own: what others do at the time is not of interest."""
    runs = []
    for _ in range(5):
        began_s = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", READ, str(path)], capture_output=True, text=True, check=True)
        runs.append({**json.loads(done.stdout), "whole_s": time.perf_counter() - began_s})
    return min(runs, key=lambda run: float(run["whole_s"]))


def write_table(rows: Sequence[dict[str, Any]]) -> str:
    head = ("run", "snapshots", "regions each", "bytes a row (bar: 4)", "CPU % (bar: 0.5)", "CPU ms per 10,000 rows")
    return markdown(
        head,
        [
            (
                row["case"], str(row["snapshots"]), f"{row['rows'] / row['snapshots']:.0f}",
                f"{row['bytes_a_row']:.2f}", f"{row['cpu_percent']:.3f}", f"{row['cpu_ms_per_10k_rows']:.2f}",
            )
            for row in rows
        ],
    )  # fmt: skip


def read_table(rows: Sequence[dict[str, Any]]) -> str:
    head = ("record", "rows", "whole process s", "decoding s", "decoding CPU s", "peak MiB")
    return markdown(
        head,
        [
            (
                row["case"], f"{row['rows']:,}", f"{row['whole_s']:.2f}", f"{row['decode_s']:.3f}",
                f"{row['decode_cpu_s']:.3f}", f"{row['peak_mib']:.0f}",
            )
            for row in rows
        ],
    )  # fmt: skip


if __name__ == "__main__":
    main()
