"""Rows of results as Markdown, with what falls short of its bar, and why."""

from collections.abc import Iterator, Sequence
from typing import Any

_CENSUS_STATIC, _CENSUS_MOVING, _SAMPLING = 0.99, 0.95, 0.9
_CPU_PERCENT = 1.0
_RSS_BYTES = 60 << 20
_MOST_REGIONS = 1000
_SLOWDOWN_PERCENT = 1.0
_STALL_S = 0.01

Row = dict[str, Any]


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; all columns but the first two are numbers."""
    align = ["---", "---", *["---:"] * (len(head) - 2)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, align, *rows))


def number(row: Row, name: str, form: str, *, scale: float = 1.0) -> str:
    """A field, or nothing where the row has none."""
    value = row.get(name)
    return "" if value is None else format(value * scale, form)


def accuracy_table(rows: Sequence[Row]) -> str:
    head = (
        "case", "method", "precision", "recall", "F1", "worst F1", "window s", "regions", "age error s", "in windows",
        "noticed after s", "CPU watching %", "CPU process %", "of it system %", "RSS MiB", "peak MiB",
    )  # fmt: skip
    return markdown(head, [_accuracy_line(row, len(head)) for row in rows])


def _accuracy_line(row: Row, columns: int) -> list[str]:
    if "precision" not in row:
        return [row["case"], row["method"], f"skipped: {row['skipped']}", *[""] * (columns - 3)]
    delay = number(row, "delay_s", ".2f")
    if row.get("jumps", 0) > row.get("jumps_noticed", 0):
        delay = f"{delay} ({row['jumps_noticed']} of {row['jumps']})".strip()
    return [
        row["case"],
        row["method"],
        *(number(row, name, ".4f") for name in ("precision", "recall", "f1", "worst_f1")),
        number(row, "window_s", ".2f"),
        number(row, "regions", ".0f"),
        number(row, "age_error_s", ".2f"),
        number(row, "age_error_windows", ".2f"),
        delay,
        *(
            number(row, name, ".2f")
            for name in ("watching_cpu_percent", "process_cpu_percent", "process_system_percent")
        ),
        *(number(row, name, ".0f", scale=1 / (1 << 20)) for name in ("rss_bytes", "peak_bytes")),
    ]


def shortfalls(rows: Sequence[Row]) -> str:
    """One line for each bar that was missed."""
    lines = [
        (row["case"], row["method"], what, cause) for row in rows if "precision" in row for what, cause in _missed(row)
    ]
    return markdown(("case", "method", "falls short", "cause"), lines) if lines else "Nothing falls short of its bar."


def _missed(row: Row) -> Iterator[tuple[str, str]]:
    is_census = row["method"] == "census"
    bar = (_CENSUS_MOVING if row["is_moving"] else _CENSUS_STATIC) if is_census else _SAMPLING
    if min(row["precision"], row["recall"]) < bar:
        what = f"precision {row['precision']:.3f}, recall {row['recall']:.3f}; bar {bar}"
        yield what, _cause_of_pages(row, is_census=is_census)
    if row["process_cpu_percent"] > _CPU_PERCENT and "5 ms" not in row["method"]:
        yield f"{row['process_cpu_percent']:.2f} % of a CPU; bar 1 %", _cause_of_cpu(row)
    if row["rss_bytes"] > _RSS_BYTES:
        yield f"{row['rss_bytes'] / (1 << 20):.0f} MiB; bar 60 MiB", "not known"
    if row["peak_bytes"] > _RSS_BYTES:
        yield f"{row['peak_bytes'] / (1 << 20):.0f} MiB at the peak; bar 60 MiB", "not known"
    if row.get("age_error_windows", 0) > 1:
        yield (
            f"ages wrong by up to {row['age_error_s']:.2f} s, {row['age_error_windows']:.1f} windows",
            (_share_of_wrong_ages(row) if is_census else "one age for a region; merging takes the mean of two"),
        )
    if row.get("jumps", 0) > row.get("jumps_noticed", 0):
        yield (
            f"{row['jumps_noticed']} of {row['jumps']} jumps noticed before the next",
            (f"a window is {row['window_s']:.1f} s long, and regions take several to follow"),
        )


def _cause_of_pages(row: Row, *, is_census: bool) -> str:
    is_shared = "process" in row["case"] or "forked" in row["case"]
    if is_shared and row["unclear_share"] > 0.05 and row["precision"] < row["recall"]:
        return (
            f"{100 * row['unclear_share']:.0f} % of what was looked at is mapped by other processes too: "
            "MADV_COLD does not clear it, and it counts as accessed"
        )
    if row["uncovered_share"] > 0.05:
        return f"{100 * row['uncovered_share']:.0f} % could not be cleared within the CPU share"
    if row["regions"] > 0.9 * _MOST_REGIONS:
        return f"more pieces than the {_MOST_REGIONS} regions of a snapshot: neighbours were joined"
    if is_census:
        return "not known"
    if row["hot_bytes"] < row["size_bytes"] / _MOST_REGIONS:
        return "the hot set is smaller than a region: one page of it, drawn at random, is seldom a hot one"
    if row["is_moving"]:
        return "regions are split at random, and take several windows to follow"
    if row["late_share"] > 0.1:
        return f"{100 * row['late_share']:.0f} % of the looks came late: the machine was busy"
    return f"borders of regions settle in many windows, and one is {row['window_s']:.1f} s long"


def _share_of_wrong_ages(row: Row) -> str:
    wrong = sum(abs(error_s) > row["age_error_s"] / row["age_error_windows"] for _, error_s in row["ages"])
    return f"not known; {wrong} of {len(row['ages'])} ages, looked at ten or fewer seconds apart, are so"


def _cause_of_cpu(row: Row) -> str:
    printing = row["process_cpu_percent"] - row["watching_cpu_percent"]
    if printing > row["watching_cpu_percent"]:
        return f"{printing:.2f} % is for printing {row['regions']} regions as JSON each {row['window_s']:.2f} s"
    return (
        f"watching itself takes {row['watching_cpu_percent']:.2f} % in {row['windows']} windows, soon after its start"
    )


def tick_table(rows: Sequence[Row]) -> str:
    return markdown(
        ("part", "median ms", "p95 ms"),
        [(row["part"], f"{row['median_ms']:.3f}", f"{row['p95_ms']:.3f}") for row in rows],
    )


def overhead_table(rows: Sequence[Row]) -> str:
    head = (
        "load", "method", "slowdown % (CPU time of a pass)", "95 % interval", "slowdown % (real time)",
        "95 % interval", "longest mmap ms", "unwatched", "while starting", "unwatched", "longest fault ms",
        "unwatched", "usual mmap of 0.5 s", "unwatched",
    )  # fmt: skip
    return markdown(head, [_overhead_line(row, len(head)) for row in rows])


def _overhead_line(row: Row, columns: int) -> list[str]:
    if "skipped" in row:
        return [row["case"], row["method"], f"skipped: {row['skipped']}", *[""] * (columns - 3)]
    line = [row["case"], row["method"]]
    for name in ("cpu", "real"):
        line.append(f"{row[f'{name}_percent']:+.2f}")
        line.append(f"{row[f'{name}_low_percent']:+.2f} to {row[f'{name}_high_percent']:+.2f}")
    for name in ("steady_{}_longest_map_s", "starting_{}_longest_map_s", "steady_{}_longest_fault_s",
                 "steady_{}_usual_longest_map_s"):  # fmt: skip
        line += [f"{1000 * row[name.format(who)]:.2f}" for who in ("watched", "other")]
    return line


def stall_shortfalls(rows: Sequence[Row]) -> str:
    """One line for each bar that was missed by being watched."""
    lines = [
        (row["case"], row["method"], what, cause)
        for row in rows
        if "skipped" not in row
        for what, cause in _missed_overhead(row)
    ]
    return markdown(("load", "method", "falls short", "cause"), lines) if lines else "Nothing falls short of its bar."


def _missed_overhead(row: Row) -> Iterator[tuple[str, str]]:
    if row["cpu_percent"] > _SLOWDOWN_PERCENT:
        is_noise = row["cpu_low_percent"] < _SLOWDOWN_PERCENT
        yield (
            f"slowed by {row['cpu_percent']:.2f} %; bar {_SLOWDOWN_PERCENT:.0f} %",
            ("the interval reaches below the bar: more or longer segments would tell" if is_noise else "not known"),
        )
    for phase in ("steady", "starting"):
        for name, what in (("map", "mmap"), ("fault", "page fault")):
            watched_s, other_s = (row[f"{phase}_{who}_longest_{name}_s"] for who in ("watched", "other"))
            if watched_s > _STALL_S:
                yield (
                    f"{what} waited {1000 * watched_s:.1f} ms ({phase}); bar 10 ms",
                    (f"unwatched in the same seconds: {1000 * other_s:.1f} ms"),
                )


def ages_table(rows: Sequence[Row]) -> str:
    """The errors of the row that has seen the oldest memory, in steps of about twice the age."""
    ages: list[list[float]] = max(
        (row["ages"] for row in rows if row["method"] == "census" and "ages" in row), key=len, default=[]
    )
    lines = []
    next_s = 0.0
    for true_s, error_s in sorted(ages):
        if true_s >= next_s or true_s == max(ages)[0]:
            lines.append((f"{true_s:.1f}", f"{true_s + error_s:.1f}", f"{error_s:+.2f}"))
            next_s = 2 * true_s
    return markdown(("true age s", "age found s", "error s"), lines)
