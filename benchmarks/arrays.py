"""Arrays watched from inside their program: who is told hot, what watching slows, and what the examples give back.

Everything runs in forks, so that it can be an ordinary user (`nobody`), and so that nothing of it stays.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from benchmarks.support.machine import conditions, save
from benchmarks.support.tables import markdown
from numpy.typing import NDArray

import memtherm
from support.examples import NOBODY, load_everything, run_example
from support.privileges import run_as_nobody
from support.requires import lacking
from support.swap import swap_on

MIB = 1 << 20
PAGE, PAGES_A_PART = 4096, 512
ROOT = 0
WINDOWS = 4

PART_BAR, PAGE_BAR = 0.95, 0.99
SLOWDOWN_BAR_PERCENT = 1.0
GIVEN_BACK_BAR, RATE_BAR = 0.6, 0.97

Row = dict[str, Any]


@dataclass(frozen=True)
class Way:
    """A way to see accesses, and who uses it.

    Attributes:
        unit: what it tells apart.
        access: what it sees of the program.
    """

    name: str
    user_id: int
    unit: str = "page"
    access: str = "read, written"

    @property
    def user(self) -> str:
        return "root" if self.user_id == ROOT else "nobody"


WAYS = (
    Way("userfaultfd", NOBODY),
    Way("bpf", ROOT),
    Way("smaps", NOBODY, unit="part of 2 MiB"),
    Way("userfaultfd-writes", NOBODY, access="written"),
    Way("softdirty", NOBODY, access="written"),
)
WITH_HUGE_PAGES = ("userfaultfd", "bpf", "smaps")


@dataclass(frozen=True)
class Passes:
    """The mean pass over each array of a pair, seconds."""

    cpu_s: tuple[float, ...]
    real_s: tuple[float, ...]


@dataclass(frozen=True)
class Program:
    """An example with its words; the first of them has the bars."""

    name: str
    words: tuple[str, ...]
    user_id: int
    rounds: int = 1
    has_bars: bool = False


PROGRAMS = (
    Program("embedding_table", (), NOBODY, rounds=3, has_bars=True),
    Program("embedding_table", (), ROOT, rounds=3, has_bars=True),
    Program("embedding_table", ("--skew", "1.5"), NOBODY),
    Program("embedding_table", ("--skew", "1.5"), ROOT),
    Program("embedding_table", ("--scattered",), NOBODY),
    Program("embedding_table", ("--scattered",), ROOT),
    Program("time_series_cache", (), NOBODY),
    Program("sparse_matrix", (), NOBODY),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="256 MiB instead of 1 GiB, and only the programs with bars"
    )
    parser.add_argument("--only", choices=("accuracy", "slowdown", "examples"), help="one of the three tables")
    arguments = parser.parse_args()
    is_quick = arguments.quick
    size_bytes = (256 if is_quick else 1024) * MIB
    began = conditions()
    load_everything()
    rows: list[Row] = []
    if arguments.only in (None, "accuracy"):
        rows += shown(accuracy_rows(size_bytes), accuracy_table)
    if arguments.only in (None, "slowdown"):
        rows += shown(slowdown_rows(size_bytes, turns=4 if is_quick else 8), slowdown_table)
    if arguments.only in (None, "examples"):
        rows += shown(example_rows(is_quick=is_quick), examples_table)
    print(f"\n{arrays_shortfalls(rows)}")
    print(f"\nwrote {save('arrays', began=began, is_quick=is_quick or arguments.only is not None, rows=rows)}")


def shown(rows: Iterator[Row], table: Callable[[Sequence[Row]], str]) -> list[Row]:
    found: list[Row] = []
    for row in rows:
        lines = table([row]).splitlines()
        print("\n".join(lines if not found else lines[2:]), flush=True)
        found.append(row)
    print()
    return found


def in_fork(way: Way, measure: Callable[[], Row]) -> Row:
    """What was measured as the way's user, or why nothing could be."""
    if missing := lacking("root"):
        return {"way": way.name, "user": way.user, "skipped": f"only root can become any user: {'; '.join(missing)}"}

    def answer() -> Row:
        try:
            return measure()
        except memtherm.HostCannot as problem:
            return {"skipped": str(problem)}

    return {"way": way.name, "user": way.user, **run_as_nobody(answer, user_id=way.user_id)}


def accuracy_rows(size_bytes: int) -> Iterator[Row]:
    for way in WAYS:
        row = in_fork(way, lambda way=way: accuracy(way, size_bytes))  # type: ignore[misc]
        yield {"table": "accuracy", "unit": way.unit, "access": way.access, **row}


def accuracy(way: Way, size_bytes: int) -> Row:
    """Precision and recall of what has a rate of one half or more, over some windows; and the worst of them."""
    array = memtherm.allocate((size_bytes // PAGE, PAGE), np.uint8, huge_pages=False)
    array[:, 0] = 1
    pages, is_hot = hot_units(len(array), by_part=way.unit != "page")
    scores = []
    with memtherm.watch(array, name="array", way=way.name, interval_s=0.5) as watched:
        with touching(array, pages, reads=not watched.writes_only):
            for number, snapshot in enumerate(watched.snapshots(1 + WINDOWS)):
                rates = watched.access_rate(by="page")
                if way.unit != "page":
                    rates = rates.reshape(-1, PAGES_A_PART).max(axis=1)
                if number:  # the first began before the pages were touched
                    scores.append(score(rates >= 0.5, is_hot))
                uncovered_share = snapshot.conditions.uncovered_share
        cost = watched.cost
    return {
        "units": len(is_hot),
        "hot_units": int(is_hot.sum()),
        "precision": statistics.mean(one[0] for one in scores),
        "recall": statistics.mean(one[1] for one in scores),
        "worst_precision": min(one[0] for one in scores),
        "worst_recall": min(one[1] for one in scores),
        "uncovered_share": uncovered_share,
        "agent_cpu_percent": 100 * cost,
    }


def hot_units(nr_pages: int, *, by_part: bool) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The pages to touch, and which units are hot by that.

    Of parts a third is hot, by one page of it, or by 16, or by all.  Of pages 4 % are: some alone, most in stripes.
    """
    rng = np.random.default_rng(1)
    nr_parts = nr_pages // PAGES_A_PART
    if by_part:
        hot = np.sort(rng.permutation(nr_parts)[: nr_parts // 3])
        counts = np.array([1, 16, PAGES_A_PART])[np.arange(len(hot)) % 3]
        pages = np.concatenate(
            [
                part * PAGES_A_PART + rng.permutation(PAGES_A_PART)[:count]
                for part, count in zip(hot, counts, strict=True)
            ]
        )
        is_hot = np.zeros(nr_parts, np.bool_)
        is_hot[hot] = True
        return np.sort(pages), is_hot
    is_hot = np.zeros(nr_pages, np.bool_)
    is_hot[rng.permutation(nr_pages)[: nr_pages // 200]] = True
    for start in rng.permutation(nr_pages // 100)[: nr_pages // 2800]:
        is_hot[100 * start : 100 * start + 100] = True
    return np.flatnonzero(is_hot), is_hot


class touching:  # noqa: N801 - used as a block
    """A thread that touches these pages 20 times a second: every second one is read, the others are written."""

    def __init__(self, array: NDArray[np.uint8], pages: NDArray[np.int64], *, reads: bool) -> None:
        self._array = array
        self._read, self._written = (pages[::2], pages[1::2]) if reads else (pages[:0], pages)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._end.wait(0.05):
            self._array[self._read, 0].sum()
            self._array[self._written, 0] = 1


def score(found: NDArray[np.bool_], true: NDArray[np.bool_]) -> tuple[float, float]:
    """Precision and recall."""
    both = int((found & true).sum())
    return both / max(1, int(found.sum())), both / max(1, int(true.sum()))


def slowdown_rows(size_bytes: int, *, turns: int) -> Iterator[Row]:
    for way in WAYS:
        for huge_pages in (False, True) if way.name in WITH_HUGE_PAGES else (False,):
            row = in_fork(
                way,
                lambda way=way, huge=huge_pages: slowdown(way, size_bytes, turns=turns, huge_pages=huge),  # type: ignore[misc]
            )
            yield {"table": "slowdown", "pages": "2 MiB" if huge_pages else "4 KiB", **row}


def slowdown(way: Way, size_bytes: int, *, turns: int, huge_pages: bool, seconds: float = 5.0) -> Row:
    """Two arrays take turns, pass by pass; one is watched, and the roles change: so all else meets both alike."""
    pair = [memtherm.allocate(size_bytes // 8, huge_pages=huge_pages) for _ in range(2)]
    for array in pair:
        array[:] = 1.0
    streamed(pair, 1.0)
    found: list[Passes] = []
    costs = []
    for turn in range(turns):
        order = pair[:: 1 if turn % 2 else -1]
        with memtherm.watch(order[0], name="array", way=way.name, interval_s=1.0) as watched:
            streamed(order, 3.0)  # begins with cutting mappings and the first looks
            found.append(streamed(order, seconds))
            next(watched.snapshots(limit=1))  # there is a cost once a window has ended
            costs.append(watched.cost)
    row: Row = {
        "agent_cpu_percent": 100 * statistics.mean(costs),
        "pass_s": statistics.mean(one.real_s[1] for one in found),
    }
    for name, passes in (("cpu", [one.cpu_s for one in found]), ("real", [one.real_s for one in found])):
        ratios = np.array([math.log(watched_s / other_s) for watched_s, other_s in passes])
        row |= {f"{name}{key}_percent": value for key, value in interval([ratios[::2], ratios[1::2]]).items()}
    return row


def streamed(pair: Sequence[NDArray[np.float64]], seconds: float) -> Passes:
    """Read and write all of one array, then of the other, for some seconds."""
    passes, cpu_s, real_s = 0, [0.0, 0.0], [0.0, 0.0]
    while sum(real_s) < seconds:
        for number, array in enumerate(pair):
            began_s, began_cpu_s = time.perf_counter(), time.thread_time()
            np.add(array, 1.0, out=array)
            cpu_s[number] += time.thread_time() - began_cpu_s
            real_s[number] += time.perf_counter() - began_s
        passes += 1
    return Passes(tuple(one / passes for one in cpu_s), tuple(one / passes for one in real_s))


def interval(of_roles: Sequence[NDArray[np.float64]]) -> dict[str, float]:
    """Percent that the mean of both roles' mean logarithms means, and its 95 % interval by resampling."""
    rng = np.random.default_rng(1)
    means = np.mean([rng.choice(values, (4000, len(values))).mean(axis=1) for values in of_roles], axis=0)
    mean = np.mean([values.mean() for values in of_roles])
    percents = 100 * np.expm1([mean, *np.quantile(means, (0.025, 0.975))])
    return dict(zip(("", "_low", "_high"), percents.tolist(), strict=True))


def example_rows(*, is_quick: bool) -> Iterator[Row]:
    for program in PROGRAMS:
        row: Row = {
            "table": "examples",
            "program": program.name,
            "words": " ".join(program.words),
            "user": "root" if program.user_id == ROOT else "nobody",
            "has_bars": program.has_bars,
        }
        if is_quick and not program.has_bars:
            continue
        if missing := lacking("swap"):
            yield row | {"skipped": "; ".join(missing)}
            continue
        yield row | example(program, is_quick=is_quick)


def example(program: Program, *, is_quick: bool) -> Row:
    """Its figures; the median of its rounds."""
    words = [*program.words, "--json"]
    if program.rounds > 1:
        words += ["--interval", "0.5"] if is_quick else ["--rounds", str(program.rounds), "--seconds", "6"]
    with swap_on(2048 * MIB):
        result = run_example(program.name, *words, user_id=program.user_id)
    if result.exit_code:
        return {"skipped": result.stderr.strip().splitlines()[-1]}
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    return sparse_matrix_row(lines) if program.name == "sparse_matrix" else given_back_row(lines)


def given_back_row(lines: Sequence[Row]) -> Row:
    row: Row = {"way": lines[0]["way"], "rounds": len(lines)}
    for name in ("before_bytes", "after_bytes", "zram_bytes", "agent_cpu_percent", "given_back", "kept_rate",
                 "kept_rate_of_cpu"):  # fmt: skip
        row[name] = statistics.median(line[name] for line in lines)
    row |= {f"{when}_per_s": statistics.median(line[when]["per_s"] for line in lines) for when in ("before", "after")}
    return row


def sparse_matrix_row(lines: Sequence[Row]) -> Row:
    """Before is with small pages, in the same seconds."""
    small, everywhere, _, after = lines
    return {
        "way": after["way"],
        "rounds": 1,
        "before_bytes": small["resident_bytes"],
        "after_bytes": after["resident_bytes"],
        "huge_bytes": after["huge_bytes"],
        "everywhere_bytes": everywhere["resident_bytes"],
        "everywhere_rate": everywhere["per_s"] / small["per_s"],
        "before_per_s": small["per_s"],
        "after_per_s": after["per_s"],
        "kept_rate": after["per_s"] / small["per_s"],
    }


def accuracy_table(rows: Sequence[Row]) -> str:
    head = ("way", "user", "sees", "tells apart", "hot", "of", "precision", "recall", "worst precision", "worst recall",
            "not looked at %", "agent % of a CPU")  # fmt: skip
    return markdown(head, [_accuracy_cells(row, len(head)) for row in rows])


def _accuracy_cells(row: Row, columns: int) -> list[str]:
    line = [row["way"], row["user"], row["access"], row["unit"]]
    if "skipped" in row:
        return [*line, f"skipped: {row['skipped']}", *[""] * (columns - len(line) - 1)]
    return [
        *line,
        f"{row['hot_units']:,}",
        f"{row['units']:,}",
        *(f"{row[name]:.4f}" for name in ("precision", "recall", "worst_precision", "worst_recall")),
        f"{100 * row['uncovered_share']:.1f}",
        f"{row['agent_cpu_percent']:.2f}",
    ]


def slowdown_table(rows: Sequence[Row]) -> str:
    head = ("way", "user", "pages", "slowdown % (CPU time of a pass)", "95 % interval", "slowdown % (real time)",
            "95 % interval", "a pass s", "agent % of a CPU")  # fmt: skip
    return markdown(head, [_slowdown_cells(row, len(head)) for row in rows])


def _slowdown_cells(row: Row, columns: int) -> list[str]:
    line = [row["way"], row["user"], row["pages"]]
    if "skipped" in row:
        return [*line, f"skipped: {row['skipped']}", *[""] * (columns - len(line) - 1)]
    for name in ("cpu", "real"):
        line += [f"{row[f'{name}_percent']:+.2f}"]
        line += [f"{row[f'{name}_low_percent']:+.2f} to {row[f'{name}_high_percent']:+.2f}"]
    return [*line, f"{row['pass_s']:.3f}", f"{row['agent_cpu_percent']:.2f}"]


def examples_table(rows: Sequence[Row]) -> str:
    head = ("program", "user", "way", "before MiB", "after MiB", "given back %", "rate kept %", "by CPU time %",
            "zram MiB", "agent % of a CPU", "beside it")  # fmt: skip
    return markdown(head, [_example_cells(row, len(head)) for row in rows])


def _example_cells(row: Row, columns: int) -> list[str]:
    line = [f"{row['program']} {row['words']}".strip(), row["user"]]
    if "skipped" in row:
        return [*line, f"skipped: {row['skipped']}", *[""] * (columns - len(line) - 1)]
    beside = ""
    if "everywhere_bytes" in row:
        beside = (
            f"{row['huge_bytes'] / MIB:.0f} MiB huge; huge pages everywhere: {row['everywhere_bytes'] / MIB:.0f} MiB, "
            f"rate {100 * row['everywhere_rate']:.1f} %"
        )
    return [
        *line,
        row["way"],
        *(f"{row[name] / MIB:.0f}" for name in ("before_bytes", "after_bytes")),
        *(_percent(row, name) for name in ("given_back", "kept_rate", "kept_rate_of_cpu")),
        f"{row['zram_bytes'] / MIB:.0f}" if "zram_bytes" in row else "",
        f"{row['agent_cpu_percent']:.2f}" if "agent_cpu_percent" in row else "",
        beside,
    ]


def _percent(row: Row, name: str) -> str:
    return f"{100 * row[name]:.1f}" if name in row else ""


def arrays_shortfalls(rows: Sequence[Row]) -> str:
    """One line for each bar that was missed."""
    lines = [
        (str(row.get("program", row.get("way"))), str(row["user"]), what)
        for row in rows
        if "skipped" not in row
        for what in _missed(row)
    ]
    return markdown(("what", "user", "falls short"), lines) if lines else "Nothing falls short of its bar."


def _missed(row: Row) -> Iterator[str]:
    if row["table"] == "accuracy" and row["access"] != "written":
        bar = PAGE_BAR if row["unit"] == "page" else PART_BAR
        if min(row["precision"], row["recall"]) < bar:
            yield f"precision {row['precision']:.4f}, recall {row['recall']:.4f}; bar {bar}"
    if row["table"] == "slowdown" and row["cpu_percent"] > SLOWDOWN_BAR_PERCENT:
        yield (
            f"pages of {row['pages']}: slowed by {row['cpu_percent']:.2f} % of the CPU time of a pass "
            f"({row['cpu_low_percent']:+.2f} to {row['cpu_high_percent']:+.2f}); bar {SLOWDOWN_BAR_PERCENT:.0f} %"
        )
    if row.get("has_bars"):
        if row["given_back"] < GIVEN_BACK_BAR:
            yield f"{100 * row['given_back']:.1f} % of the memory given back; bar {100 * GIVEN_BACK_BAR:.0f} %"
        if row["kept_rate_of_cpu"] < RATE_BAR:
            yield f"{100 * row['kept_rate_of_cpu']:.1f} % of the rate by CPU time; bar {100 * RATE_BAR:.0f} %"


if __name__ == "__main__":
    main()
