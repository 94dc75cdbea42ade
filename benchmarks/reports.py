"""Reports from records of 1 M and 10 M rows, start-up included, beside damo on the same rows: time and memory.

damo gets the 1 M rows as a file of its own kind that `memtherm convert` writes, and runs where it cannot reach the
DAMON of this machine.  10 M rows are not given to it: they would take ten times the memory.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from benchmarks.support.machine import conditions, save
from benchmarks.support.runs import report_of, sampled
from benchmarks.support.tables import markdown

from memtherm.record.header import RecordHeader
from memtherm.record.writer import RecordWriter
from support.command import command_line
from support.damo import damo_path, without_damon
from support.requires import lacking

REGIONS = 1000
DIFFERENT_WINDOWS = 150
KINDS = {
    "heatmap": ("heatmap",),
    "wss": ("wss",),
    "distribution": ("distribution",),
    "mappings": ("mappings",),
    "html": ("html", "-o", os.devnull),
}
# Kinds with a bar, and what damo calls them; damo prints numbers of a map as large as ours.
DAMO = {"heatmap": ("report", "heatmap", "--output", "raw"), "wss": ("report", "wss")}
# Seconds and MiB.
BARS = {1_000_000: (0.5, 150), 10_000_000: (3.0, 400)}
# In a small process of its own: a child has the memory that its parent had when it was forked as its first peak.
_MEASURE = """
import json, os, subprocess, sys, time
began_s = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
printed = len(process.stdout.read())
_, status, usage = os.wait4(process.pid, 0)
print(json.dumps({"status": status, "printed": printed, "wall_s": time.perf_counter() - began_s,
    "cpu_s": usage.ru_utime + usage.ru_stime, "peak_mib": usage.ru_maxrss / 1024}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="100,000 rows instead of 1 M and 10 M")
    is_quick = parser.parse_args().quick
    began = conditions()
    sizes = (100_000,) if is_quick else tuple(BARS)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for count in sizes:
            path = Path(folder) / "run.memtherm"
            record(path, count)
            repeats = 5 if count <= 1_000_000 else 3
            for kind, words in KINDS.items():
                once = kind == "html" and count > 1_000_000
                command = command_line("report", words[0], str(path), *words[1:])
                rows.append({"tool": "memtherm", "kind": kind, "rows": count, **best(command, 1 if once else repeats)})
            if count == sizes[0]:
                rows += of_damo(path, Path(folder), count)
            path.unlink()
    print(report_table(rows))
    save("reports", began=began, is_quick=is_quick, rows=rows)


def record(path: Path, rows: int) -> None:
    """The noisiest of the runs of records.py: borders and counts are drawn anew in each window."""
    windows = [one.take(slice(0, REGIONS)) for one in sampled(DIFFERENT_WINDOWS) if len(one) >= REGIONS]
    with RecordWriter(path, RecordHeader(memtherm_version="0.1.0", created_s=1.7e9)) as writer:
        for index, regions in enumerate(islice(cycle(windows), rows // REGIONS)):
            writer.add(report_of(regions, index))


def of_damo(path: Path, folder: Path, rows: int) -> list[dict[str, Any]]:
    """damo's time for the same rows, once each; none where it is not installed."""
    if missing := lacking("damo"):
        print(f"no damo: {'; '.join(missing)}")
        return []
    file = folder / "damon.data"
    converted = best(command_line("convert", str(path), str(file), "--to", "json_compressed"), 1)
    found = [{"tool": "memtherm", "kind": "convert to damo's", "rows": rows, **converted}]
    for kind, words in DAMO.items():
        command = without_damon(str(damo_path()), *words, "--input", str(file))
        found.append({"tool": "damo", "kind": kind, "rows": rows, **best(command, 1, home=folder)})
    file.unlink()
    return found


def best(command: Sequence[str], repeats: int, *, home: Path | None = None) -> dict[str, Any]:
    """The fastest of some runs: wall time from start to end, CPU time, and the most memory that it had."""
    runs: list[dict[str, Any]] = []
    environment = (
        os.environ | {"COLUMNS": "100", "PYTHONDONTWRITEBYTECODE": "1"} | ({"HOME": str(home)} if home else {})
    )
    for _ in range(repeats):
        done = subprocess.run(
            [sys.executable, "-I", "-c", _MEASURE, *command],
            capture_output=True,
            text=True,
            check=True,
            env=environment,
            cwd=home,
        )
        run = json.loads(done.stdout)
        # damo ends with 0 where it found no record, and prints nothing.
        if run["status"] != 0 or not (run["printed"] or "convert" in command):
            sys.exit(f"{' '.join(command)} ended with {run['status']}: {done.stderr}")
        runs.append(run)
    return min(runs, key=lambda run: run["wall_s"])


def report_table(rows: Sequence[dict[str, Any]]) -> str:
    head = ("report", "tool", "rows", "whole process s", "bar s", "CPU s", "peak MiB", "bar MiB")
    return markdown(head, [_cells(row) for row in rows])


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    has_bar = row["tool"] == "memtherm" and row["kind"] in DAMO and row["rows"] in BARS
    bar_s, bar_mib = (f"{bar:g}" for bar in BARS[row["rows"]]) if has_bar else ("", "")
    return (
        *(row["kind"], row["tool"], f"{row['rows']:,}", f"{row['wall_s']:.2f}", bar_s),
        *(f"{row['cpu_s']:.2f}", f"{row['peak_mib']:.0f}", bar_mib),
    )


if __name__ == "__main__":
    main()
