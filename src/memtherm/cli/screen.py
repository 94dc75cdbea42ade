"""Text for people, from reports."""

import shutil
import sys
import time
from collections.abc import Iterable

from memtherm.core.report import Report, SchemeReport
from memtherm.core.snapshot import Conditions, Snapshot
from memtherm.units import format_rate, format_size, format_time
from memtherm.views.strip import heat_strip
from memtherm.views.table import region_rows

_MAX_ROWS = 16
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
        lines = [*snapshot_lines(report.snapshot, width=width), *map(scheme_line, report.schemes)]
        print((_CLEAR if sys.stdout.isatty() else "") + "\n".join(lines), flush=True)


def snapshot_lines(snapshot: Snapshot, *, width: int) -> list[str]:
    """Conditions, heat strip, and the regions that matter most."""
    regions = snapshot.regions
    names = ", ".join(f"{target.name} (pid {target.pid})" for target in snapshot.targets)
    clock = time.strftime("%H:%M:%S", time.localtime(snapshot.time_s))
    rows, more = region_rows(regions, limit=_MAX_ROWS)
    lines = [
        f"{clock}  {names}",
        f"accessed {format_size(snapshot.working_set_bytes())} of {format_size(int(regions.size_bytes.sum()))} "
        f"watched, in {len(regions)} regions",
        conditions_line(snapshot.conditions),
        *belief_lines(snapshot.conditions),
        f"cold │{heat_strip(regions, width=max(10, width - 14))}│ hot █",
        f"{'address':>18}  {'size':>9}  {'rate':>6}  age",
    ]
    lines += [
        f"{row.start:#18x}  {format_size(row.size_bytes):>9}  {format_rate(row.access_rate):>6}  "
        f"{format_time(row.age_s) if row.age_s else 'new'}"
        for row in rows
    ]
    if more:
        lines.append(f"{'':>18}  and {more} smaller or colder")
    return [*lines, ""]


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
    """One scheme since it was started, with the refusals of this window."""
    total = scheme.total
    left_out = [(refusal.size_bytes, refusal.reason) for refusal in scheme.refused]
    rest_bytes = scheme.tried_bytes - scheme.applied_bytes - sum(size for size, _ in left_out)
    if rest_bytes > 0:
        left_out.append((rest_bytes, "not in memory, or no effect was found"))
    reasons = "; ".join(f"{format_size(size)}: {reason}" for size, reason in left_out)
    return (
        f"{scheme.name}: matches {format_size(scheme.matched_bytes)} now"
        + (f", left out: {reasons}" if reasons else "")
        + f"; since the start tried {format_size(total.tried_bytes)}, applied {format_size(total.applied_bytes)}"
    )
