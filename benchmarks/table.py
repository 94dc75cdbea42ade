"""Writes docs/benchmarks.md from the results of the last whole runs of the other benchmarks."""

from typing import Any

from benchmarks.arrays import accuracy_table as arrays_accuracy_table
from benchmarks.arrays import arrays_shortfalls, examples_table, slowdown_table
from benchmarks.records import read_table, write_table
from benchmarks.reports import report_table
from benchmarks.support.machine import REPOSITORY, load
from benchmarks.support.tables import (
    accuracy_table,
    ages_table,
    markdown,
    overhead_table,
    shortfalls,
    stall_shortfalls,
    tick_table,
)

_PAGE = REPOSITORY / "docs" / "benchmarks.md"

_TEXT = """\
# Benchmarks

Written by `benchmarks/table.py` from `build/bench/*.json`; `make bench` runs all of it again.

## Accuracy and cost of watching

{accuracy_conditions}

Each line is `memtherm monitor --json` as a process of its own, at its defaults but for the method, on a C program
whose accesses are known (`tests/system/workload.c`): 256 MiB with 16 MiB hot where the case says nothing else. The
second half of each run is scored.

* A page is *seen as hot* from half of the access rate on that the hottest pages should show, and *is hot* where it
  should show 0.6 of that or more. Pages that should show between 0.4 and 0.6 are left out: five looks tell fifths.
  Where the hot set moves, the rate that a page should show is the share of the window in which it was hot, and
  those between 0.2 and 0.6 are left out: a look finds what was hot for any part of its interval.
* *Worst F1* is of the worst single window. A precision of 1 with a recall of 0 means that nothing was seen.
* *Age error* is the largest one, of memory whose last access is known and at least a window ago.
* *Noticed* is the mean time from a jump of the hot set to the first snapshot with an F1 of 0.95 or more.
* *CPU watching* is what the monitor counts as its own (the thread that looks), in percent of one CPU; *process* is
  all threads, so with the printing of JSON, as the kernel counts them. RSS is at the end, peak since the start.

{accuracy}

### What falls short

{accuracy_shortfalls}

### Ages of idle memory, by census

{ages}

## What being watched costs the target

{overhead_conditions}

Two equal workloads take turns on one CPU; one is watched, and every four seconds the roles change. The slowdown is
the ratio of the CPU time of a pass, with its 95 % confidence interval. A thread of each workload, at real-time
priority, maps, faults in and unmaps 64 KiB about 1500 times a second; the table has its longest waits, with those of
the unwatched workload in the same seconds. `usual` is the median of the longest in half a second.

{overhead}

### What falls short

{overhead_shortfalls}

## Arrays of the own program

{arrays_conditions}

`benchmarks/arrays.py`; each line is a process of its own. Accuracy: an array of 1 GiB in small pages, looked at each
0.5 s. Of its parts a third is touched 20 times a second, by one page, by 16, or by all; of its pages 4 % are, some
alone, most in stripes. Hot is what has a rate of one half or more; four windows, their mean and the worst. *Not looked
at* is what the budget of clearing left out at each look, and the census estimated.

{arrays_accuracy}

A numpy kernel that reads and writes all of a watched array of 1 GiB, at one look a second, so that all of it is always
hot. Two such arrays take turns, pass by pass; one is watched, and every eight seconds the roles change. The slowdown is
the ratio of the CPU time of a pass, its interval is found by resampling. What the watching thread takes of a CPU stands
beside.

{arrays_slowdown}

The programs of `examples/`, with zram: the median of three rounds of the lines with bars, which are those without
options of `embedding_table`. *By CPU time* is the look-ups for the CPU time of the thread that does them, page faults
included; what zram holds is in memory still. Of `sparse_matrix` the rate is compared with that of small pages.

{arrays_examples}

### What falls short

{arrays_shortfalls}

## One tick of sampling, and the start

CPU time of one tick over 1000 regions of a process of 1 GiB (`benchmarks/sampling_tick.py`):

{tick_conditions}

{tick}

Wall time of a start (`benchmarks/start.py`):

{start}

## Records

{records_conditions}

CPU time of all of writing: conversion, Arrow, zstd, CRC, write, fsync (`benchmarks/records.py`). The noisiest run is
what may be expected at worst: borders and counts of regions are drawn anew in each window.

{writing}

Reading all columns of all rows, in a process of its own, start included; the fastest of five:

{reading}

## Reports, beside damo

{reports_conditions}

Each line is a command as a process of its own, from start to end, on the rows of the noisiest run
(`benchmarks/reports.py`): the fastest of five for 1 M rows, of three for 10 M, of one for damo and the page of 10 M.
damo reads the same rows from a file of its own kind. 10 M are not given to it: they would take ten times the memory.

{reports}
"""


def main() -> None:
    accuracy, overhead, tick, start = (load(name) for name in ("accuracy", "overhead", "sampling_tick", "start"))
    arrays, records, reports = load("arrays"), load("records"), load("reports")
    if any(one["is_quick"] for one in (accuracy, arrays, overhead, records, reports)):
        print(f"{_PAGE.relative_to(REPOSITORY)} is left as it is: it is made from whole runs only")
        return
    _PAGE.parent.mkdir(exist_ok=True)
    text = _TEXT.format(
        accuracy_conditions=_conditions(accuracy),
        accuracy=accuracy_table(accuracy["rows"]),
        accuracy_shortfalls=shortfalls(accuracy["rows"]),
        ages=ages_table(accuracy["rows"]),
        overhead_conditions=_conditions(overhead),
        overhead=overhead_table(overhead["rows"]),
        overhead_shortfalls=stall_shortfalls(overhead["rows"]),
        arrays_conditions=_conditions(arrays),
        arrays_accuracy=arrays_accuracy_table(_of_table(arrays, "accuracy")),
        arrays_slowdown=slowdown_table(_of_table(arrays, "slowdown")),
        arrays_examples=examples_table(_of_table(arrays, "examples")),
        arrays_shortfalls=arrays_shortfalls(arrays["rows"]),
        tick_conditions=_conditions(tick),
        tick=tick_table(tick["rows"]),
        start=tick_table(start["rows"]),
        records_conditions=_conditions(records),
        writing=write_table([row for row in records["rows"] if "bytes_a_row" in row]),
        reading=read_table([row for row in records["rows"] if "decode_s" in row]),
        reports_conditions=_conditions(reports),
        reports=report_table(reports["rows"]),
    )
    _PAGE.write_text(text)
    print(f"wrote {_PAGE.relative_to(REPOSITORY)}")


def _of_table(result: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return [row for row in result["rows"] if row["table"] == name]


def _conditions(result: dict[str, Any]) -> str:
    return markdown(("what", "value"), [(name, f"`{text}`") for name, text in result["conditions"].items()])


if __name__ == "__main__":
    main()
