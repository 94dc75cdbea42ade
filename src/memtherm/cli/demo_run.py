"""What the demo does: start the workload, watch it, compare with the truth, act, look at what left."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from memtherm.cli.screen import scheme_line, snapshot_lines
from memtherm.core.pattern import AccessPattern, Bounds
from memtherm.core.report import Report
from memtherm.core.scheme import Action, Scheme
from memtherm.errors import HostCannot
from memtherm.linux.process import open_process
from memtherm.session.open import monitor
from memtherm.session.session import Session
from memtherm.views.accuracy import accuracy

# The workload's pages are touched each 3 ms, so a look of 5 ms finds every hot page accessed; a region
# that is half hot has half the rate.
_HOT_RATE = 0.5
_QUIET_S = 3.0
_CONVERGE_S = 10.0
_COLD_AGE_S = 2.0
_ACT_S = 14.0
_SCREEN_WIDTH = 100

SCHEME = Scheme(
    name="page out what was not accessed for 2 seconds",
    pattern=AccessPattern(access_rate=Bounds(0, 0), age_s=Bounds(_COLD_AGE_S)),
    action=Action.PAGEOUT,
)


class DemoChild:
    """The running workload.

    Attributes:
        known, hot: ranges of which the truth is known, and those that are touched each 3 ms.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.pid = process.pid
        truth = self._answer()
        self.known = [(start, end) for start, end in truth["known"]]
        self.hot = [(start, end) for start, end in truth["hot"]]

    def progress(self) -> tuple[int, float]:
        """Passes over the hot pages, and the seconds that they took, since the start."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # then there is no answer either
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        answer = self._answer()
        return answer["passes"], answer["worked_s"]

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise HostCannot(
                "the demo's program could not run", hint="it needs 700 MiB of memory and 128 MiB of room in /var/tmp"
            )
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def demo_child() -> Iterator[DemoChild]:
    """The workload, ended afterwards."""
    program = Path(__file__).with_name("demo_workload.py")
    with subprocess.Popen(
        [sys.executable, str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield DemoChild(process)
        finally:
            process.kill()


def run_demo(say: Callable[[str], None]) -> dict[str, Any]:
    """The figures that `memtherm demo --json` prints; progress goes to `say`."""
    with demo_child() as child:
        say(f"pid {child.pid}: 640 MiB, anonymous and file-mapped, of which 80 MiB in 3 stripes are touched each 3 ms")
        figures = _watch(child, say)
        figures |= _act(child, say)
    return figures


def _watch(child: DemoChild, say: Callable[[str], None]) -> dict[str, Any]:
    before_s = _pass_s(child, lambda: time.sleep(_QUIET_S))
    with monitor(pid=child.pid) as session:
        for reason in session.reasons:
            say(reason)
        reports: list[Report] = []
        watched_s = _pass_s(child, lambda: reports.extend(_reports_for(session, _CONVERGE_S)))
    after_s = _pass_s(child, lambda: time.sleep(_QUIET_S))
    snapshot = reports[-1].snapshot
    say("\n" + "\n".join(snapshot_lines(snapshot, width=_SCREEN_WIDTH)))
    seen = accuracy(snapshot, hot=child.hot, within=child.known, min_access_rate=_HOT_RATE)
    conditions = [report.snapshot.conditions for report in reports]
    agent_cpu = sum(one.agent_cpu_s for one in conditions) / sum(one.window_s for one in conditions)
    return {
        "method": snapshot.conditions.method,
        "probe": snapshot.conditions.probe,
        "precision": round(seen.precision, 4),
        "recall": round(seen.recall, 4),
        "hot_bytes_true": seen.true_bytes,
        "hot_bytes_seen": seen.seen_bytes,
        "agent_cpu_percent": round(100 * agent_cpu, 2),
        "target_slowdown_percent": round(100 * (2 * watched_s / (before_s + after_s) - 1), 2),
    }


def _act(child: DemoChild, say: Callable[[str], None]) -> dict[str, Any]:
    with open_process(child.pid) as process:
        rss_before_bytes = process.rss_bytes()
        with monitor(pid=child.pid, schemes=[SCHEME], apply=True) as session:
            reports = list(_reports_for(session, _ACT_S))
        rss_after_bytes = process.rss_bytes()
    refused: dict[str, int] = {}
    for report in reports:
        for refusal in report.schemes[0].refused:
            # The same memory is refused at each try: the largest try counts, not the sum.
            refused[refusal.reason] = max(refused.get(refusal.reason, 0), refusal.size_bytes)
    say(scheme_line(reports[-1].schemes[0]))
    return {
        "rss_before_bytes": rss_before_bytes,
        "rss_after_bytes": rss_after_bytes,
        "applied_bytes": reports[-1].schemes[0].total.applied_bytes,
        "refused": [{"reason": reason, "size_bytes": size} for reason, size in refused.items()],
    }


def _reports_for(session: Session, duration_s: float) -> Iterator[Report]:
    end_s = time.monotonic() + duration_s
    for report in session.reports():
        yield report
        if time.monotonic() > end_s:
            return


def _pass_s(child: DemoChild, meanwhile: Callable[[], object]) -> float:
    """Mean seconds of one pass over the hot pages while something goes on."""
    passes, worked_s = child.progress()
    meanwhile()
    later_passes, later_worked_s = child.progress()
    return (later_worked_s - worked_s) / max(1, later_passes - passes)
