"""Text for people, from reports."""

import shutil
import sys
import textwrap
import time
from collections.abc import Iterable

import numpy as np

from memtherm.core.report import Report, SchemeReport
from memtherm.core.scheme import Action
from memtherm.core.snapshot import Conditions, Snapshot
from memtherm.units import format_rate, format_size, format_time
from memtherm.views.strip import heat_strip
from memtherm.views.table import region_rows

_MAX_ROWS = 16
_MAX_NAMES = 4
# What no host has: a quota of this size limits nothing.
_NO_LIMIT_BYTES = 2**50
_CLEAR = "\x1b[H\x1b[2J"


def print_events(events: Iterable[str]) -> None:
    for event in events:
        print(f"memtherm: {event}", file=sys.stderr)


class Screen:
    """Prints a report now and then; on a terminal each in place of the one before."""

    def __init__(self, *, every_s: float) -> None:
        self._every_s = every_s
        self._next_s = 0.0

    def show(self, report: Report) -> None:
        now_s = time.monotonic()
        if now_s < self._next_s:
            return
        self._next_s = now_s + self._every_s
        width = min(120, shutil.get_terminal_size().columns)
        lines = snapshot_lines(report.snapshot, width=width)
        for scheme in report.schemes:
            lines += scheme_lines(scheme, width=width)
        print((_CLEAR if sys.stdout.isatty() else "") + "\n".join(lines), flush=True)


def snapshot_lines(snapshot: Snapshot, *, width: int) -> list[str]:
    """Conditions, heat strip, and the regions that matter most."""
    regions = snapshot.regions
    clock = time.strftime("%H:%M:%S", time.localtime(snapshot.time_s))
    rows, more = region_rows(regions, limit=_MAX_ROWS)
    here = np.unique(regions.target).tolist()
    pids = {target: f"{snapshot.targets[target].pid:>8} " for target in here} | {-1: f"{'pid':>8} "}
    pids = pids if len(here) > 1 else {}
    lines = [
        f"{clock}  {_names(snapshot)}",
        f"accessed {format_size(snapshot.working_set_bytes())} of {format_size(int(regions.size_bytes.sum()))} "
        f"watched, in {len(regions)} regions",
        conditions_line(snapshot.conditions),
        *belief_lines(snapshot.conditions),
        f"cold │{heat_strip(regions, width=max(10, width - 14))}│ hot █",
        f"{pids.get(-1, '')}{'address':>18}  {'size':>9}  {'rate':>6}  age",
    ]
    lines += [
        f"{pids.get(row.target, '')}{row.start:#18x}  {format_size(row.size_bytes):>9}  "
        f"{format_rate(row.access_rate):>6}  {format_time(row.age_s) if row.age_s else 'new'}"
        for row in rows
    ]
    if more:
        lines.append(f"{'':>18}  and {more} smaller or colder")
    return [*lines, ""]


def _names(snapshot: Snapshot) -> str:
    """What is watched now; of many, the first."""
    here = [snapshot.targets[target] for target in np.unique(snapshot.regions.target).tolist()]
    names = [f"{target.name} (pid {target.pid})" for target in here[:_MAX_NAMES]]
    return ", ".join([*names, f"and {len(here) - _MAX_NAMES} more"] if len(here) > _MAX_NAMES else names)


def conditions_line(conditions: Conditions) -> str:
    late = f", {conditions.late_samples} late" if conditions.late_samples else ""
    unclear = f", {format_rate(conditions.unclear_share)} of pages not clearable" if conditions.unclear_share else ""
    return (
        f"{conditions.method} by {conditions.probe}, {conditions.samples} looks{late}{unclear} "
        f"in {format_time(conditions.window_s)}, agent {conditions.agent_cpu_percent:.1f} % of one CPU"
    )


def belief_lines(conditions: Conditions) -> list[str]:
    """Whether the numbers can be believed, and each reason why not."""
    return [f"do not believe this: {doubt}" for doubt in conditions.doubts] or ["can be believed"]


def scheme_line(scheme: SchemeReport) -> str:
    """One scheme since it was started."""
    total = scheme.total
    counts = {"tried": total.tried_bytes, "applied": total.applied_bytes}
    counts |= {"refused": total.refused_bytes} if total.refused_bytes else {}
    return f"{scheme.name}: matches {format_size(scheme.matched_bytes)} now; since the start " + ", ".join(
        f"{what} {format_size(size)}" for what, size in counts.items()
    )


def scheme_lines(scheme: SchemeReport, *, width: int) -> list[str]:
    """One scheme in this window; indented, what limits it, and what was left out and why."""
    lines = [
        f"{scheme.name}: matches {format_size(scheme.matched_bytes)}, tried {format_size(scheme.tried_bytes)}, "
        f"applied {format_size(scheme.applied_bytes)} ({format_size(scheme.total.applied_bytes)} in all)"
    ]
    if not scheme.is_active or scheme.state:
        lines.append(f"  {scheme.state or 'rests'}")
    if limits := _limits(scheme):
        lines.append(f"  {', '.join(limits)}")
    lines += [f"  left out {format_size(size)}: {reason}" for size, reason in _left_out(scheme)]
    return [part for line in lines for part in textwrap.wrap(line, width, subsequent_indent="    ")]


def _limits(scheme: SchemeReport) -> list[str]:
    """Quota, goals and watermarks as they stand."""
    limits = []
    if (quota := scheme.quota) is not None:
        limit = "any amount" if quota.effective_bytes >= _NO_LIMIT_BYTES else format_size(quota.effective_bytes)
        limits.append(f"quota: {format_size(quota.charged_bytes)} of {limit} used")
        if quota.goal_score is not None:
            limits.append(f"goal: {format_rate(quota.goal_score)} of it reached")
    if scheme.free_memory is not None:
        limits.append(f"{format_rate(scheme.free_memory)} of memory is free")
    return limits


def _left_out(scheme: SchemeReport) -> list[tuple[int, str]]:
    """Bytes that fit the pattern in this window and were not acted on, and why."""
    left_out = [(refusal.size_bytes, refusal.reason) for refusal in scheme.refused]
    ineffective = scheme.tried_bytes - scheme.applied_bytes - sum(size for size, _ in left_out)
    if ineffective > 0 and scheme.action is not Action.STAT:
        left_out.append((ineffective, "not in memory, or no effect was found"))
    if scheme.filtered_bytes:
        left_out.append((scheme.filtered_bytes, "by filters"))
    return left_out
