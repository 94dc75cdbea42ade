"""What the monitor says of known workloads, by each method: right pages, right ages, how soon, at what cost.

`memtherm monitor --json` runs as a process of its own; the second half of its run is scored.  Small workloads
run three at once, one for each method; the others are watched by one method after the other.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

from benchmarks.support.agent import METHODS, Agent, MonitorEnded, Usage
from benchmarks.support.cases import CASES, LONG_AGES, Case
from benchmarks.support.machine import available_bytes, conditions, load, save
from benchmarks.support.tables import accuracy_table, shortfalls
from benchmarks.support.truth import Score, Truth

from memtherm.core.snapshot import Snapshot
from support.workload import Workload

# Left to the rest of the machine.
_RESERVE_BYTES = 2 << 30
# A jump of the hot set has been noticed when a snapshot is this right about what is hot now.
_NOTICED_F1 = 0.95
_QUICK_RUN_S = 6.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few cases, below two minutes")
    parser.add_argument("--only", metavar="TEXT", help="cases whose name holds this")
    parser.add_argument("--again", metavar="TEXT", help="as --only, and put the rows in place of those of the last run")
    arguments = parser.parse_args()
    arguments.only = arguments.only or arguments.again
    cases = [case for case in CASES if arguments.only is None or arguments.only in case.name]
    if arguments.quick:
        cases = [case for case in cases if case.is_quick or arguments.only]
    began = conditions()
    rows: list[dict[str, Any]] = []
    with ExitStack() as stack:
        long_ages = _Watch(LONG_AGES, "census", stack) if not arguments.quick and not arguments.only else None
        for case in cases:
            try:
                for row in measured(case, run_s=min(case.run_s, _QUICK_RUN_S) if arguments.quick else case.run_s):
                    rows.append(row)
                    print(accuracy_table([row]).splitlines()[-1], flush=True)
            except MonitorEnded as problem:
                rows.append({"case": case.name, "method": "all", "skipped": f"a monitor ended: {problem}"})
        if long_ages is not None:
            long_ages.wait(LONG_AGES.run_s / 2)
            rows.append(long_ages.row(after_s=LONG_AGES.run_s))
    print(f"\n{accuracy_table(rows)}\n\n{shortfalls(rows)}")
    is_quick = arguments.quick or arguments.only is not None
    if arguments.again:
        last = load("accuracy")
        names = {row["case"] for row in rows}
        rows = [row for row in last["rows"] if row["case"] not in names] + rows
        began = last["conditions"] | {f"again: {arguments.again}": f"{began['memtherm']}, load {began['load before']}"}
        is_quick = last["is_quick"]
    print(f"\nwrote {save('accuracy', began=began, is_quick=is_quick, rows=rows)}")


def measured(case: Case, *, run_s: float) -> Iterator[dict[str, Any]]:
    """One row for each method, or with the reason why there is none."""
    copies = 1 if case.is_alone else len(METHODS)
    needed_bytes = copies * case.size_bytes * (2 if case.access == "write" else 1) + _RESERVE_BYTES
    if needed_bytes > available_bytes():
        reason = f"needs {needed_bytes >> 20} MiB, {available_bytes() >> 20} MiB are available"
        yield {"case": case.name, "method": "all", "skipped": reason}
        return
    with ExitStack() as stack:
        if case.is_alone:
            child = stack.enter_context(case.running())
            for method in METHODS:
                with ExitStack() as one:
                    yield _Watch(case, method, one, child=child).row(after_s=run_s)
        else:
            watches = [_Watch(case, method, stack) for method in METHODS]
            for watch in watches:
                watch.wait(run_s / 2)
            yield from [watch.row(after_s=run_s) for watch in watches]


class _Watch:
    """A workload with a monitor, until its stack ends."""

    def __init__(self, case: Case, method: str, stack: ExitStack, *, child: Workload | None = None) -> None:
        self._case = case
        self._method = method
        self._child = child or stack.enter_context(case.running())
        self._agent = stack.enter_context(Agent(self._child.pid, method=method))
        self._began_s = time.time()
        self._passes = self._child.passes()
        self._middle: tuple[float, Usage] | None = None

    def wait(self, until_s: float) -> None:
        """To the middle of the run: from there on it is scored."""
        time.sleep(max(0.0, self._began_s + until_s - time.time()))
        self._middle = (time.time(), self._agent.usage())

    def row(self, *, after_s: float) -> dict[str, Any]:
        """All that was found, when so many seconds have passed."""
        if self._middle is None:
            self.wait(after_s / 2)
        time.sleep(max(0.0, self._began_s + after_s - time.time()))
        assert self._middle is not None
        (middle_s, before), ended_s, after = self._middle, time.time(), self._agent.usage()
        pass_s = (ended_s - self._began_s) / max(1, self._child.passes() - self._passes)
        snapshots = list(self._agent.snapshots)
        row: dict[str, Any] = {"case": self._case.name, "method": self._method, "is_moving": self._case.move_bytes > 0}
        row |= {"size_bytes": self._case.size_bytes, "hot_bytes": sum(length for _, length in self._case.hot)}
        row |= _agent_cost(before, after, ended_s - middle_s)
        if not snapshots:
            return row | {"skipped": f"no window ended within {after_s:.0f} s"}
        scored = [one for one in snapshots if one.time_s - one.conditions.window_s >= middle_s] or snapshots[-1:]
        truth = Truth(self._case, self._child, pass_s=pass_s)
        row |= _conditions(scored) | _scores([truth.score(one) for one in scored])
        if self._case.move_every_s >= 2:
            row |= _delays(truth, snapshots)
        if self._case.hot[0][1] == self._case.move_bytes:
            row |= _age_errors(truth, snapshots)
        return row


def _agent_cost(before: Usage, after: Usage, took_s: float) -> dict[str, float]:
    cpu_percent = 100 * (after.cpu_s - before.cpu_s) / took_s
    user_s, system_s = after.user_s - before.user_s, after.system_s - before.system_s
    system_share = system_s / (user_s + system_s) if user_s + system_s else 0.0
    return {
        "process_cpu_percent": cpu_percent,
        "process_system_percent": cpu_percent * system_share,
        "rss_bytes": after.rss_bytes,
        "peak_bytes": after.peak_bytes,
    }


def _conditions(scored: Sequence[Snapshot]) -> dict[str, Any]:
    every = [one.conditions for one in scored]
    window_s = sum(one.window_s for one in every)
    return {
        "windows": len(every),
        "window_s": window_s / len(every),
        "samples": every[-1].samples,
        "regions": len(scored[-1].regions),
        "clearing": every[-1].clearing,
        "watching_cpu_percent": 100 * sum(one.agent_cpu_s for one in every) / window_s,
        "late_share": sum(one.late_samples for one in every) / sum(one.samples for one in every),
        "unclear_share": every[-1].unclear_share,
        "uncovered_share": max(one.uncovered_share for one in every),
        "doubts": list(every[-1].doubts),
    }


def _scores(scores: Sequence[Score]) -> dict[str, float]:
    means = {name: statistics.fmean(asdict(score)[name] for score in scores) for name in ("precision", "recall", "f1")}
    return means | {"worst_f1": min(score.f1 for score in scores)}


def _delays(truth: Truth, snapshots: Sequence[Snapshot]) -> dict[str, Any]:
    """From each jump of the hot set to the first snapshot that is right about it; None where there was none."""
    settled_s = snapshots[0].time_s + 2
    jumps = truth.jumps_s(settled_s, snapshots[-1].time_s)
    found = []
    for jump_s, next_s in itertools.pairwise(jumps):
        right = (one for one in snapshots if jump_s < one.time_s <= next_s and truth.score_now(one).f1 >= _NOTICED_F1)
        first = next(right, None)
        found.append(None if first is None else (first.time_s - jump_s, first.conditions.window_s))
    noticed = [one for one in found if one is not None]
    return {
        "jumps": len(found),
        "jumps_noticed": len(noticed),
        "delay_s": statistics.fmean(delay_s for delay_s, _ in noticed) if noticed else None,
        "delay_windows": max(delay_s / window_s for delay_s, window_s in noticed) if noticed else None,
    }


def _age_errors(truth: Truth, snapshots: Sequence[Snapshot]) -> dict[str, Any]:
    """Of memory that has been idle for at least a window; the worst, also in windows as long as the longest."""
    found = truth.age_errors_s(snapshots[-1], since_s=snapshots[0].time_s)
    window_s = max(one.conditions.window_s for one in snapshots)
    old = [(true_s, error_s) for true_s, error_s in found if true_s >= max(1.0, window_s)]
    if not old:
        return {}
    worst_s = max(abs(error_s) for _, error_s in old)
    return {
        "oldest_s": max(true_s for true_s, _ in old),
        "age_error_s": worst_s,
        "age_error_mean_s": statistics.fmean(abs(error_s) for _, error_s in old),
        "age_error_windows": worst_s / window_s,
        "ages": [[round(true_s, 2), round(error_s, 3)] for true_s, error_s in old[:: max(1, len(old) // 60)]],
    }


if __name__ == "__main__":
    main()
