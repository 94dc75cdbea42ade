"""A pytest plugin: each result at once as a line of $OUT/results.jsonl, so that a guest that dies leaves it."""

import json
import os
import time
from pathlib import Path

import pytest


class _Progress:
    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")

    @pytest.hookimpl
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Of three phases the call tells, and the two others where they do not pass."""
        if report.when == "call" or not report.passed:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext
            self._write(report.nodeid, report.outcome, reason, report.duration)

    @pytest.hookimpl
    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if not report.passed:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext
            self._write(report.nodeid, report.outcome, reason, 0.0)

    @pytest.hookimpl
    def pytest_sessionfinish(self, exitstatus: int) -> None:
        self._write("", f"ended with {int(exitstatus)}", "", 0.0)

    def _write(self, test: str, outcome: str, reason: str, duration_s: float) -> None:
        now_s = time.clock_gettime(time.CLOCK_MONOTONIC)
        line = {"test": test, "outcome": outcome, "reason": reason, "duration_s": duration_s, "uptime_s": now_s}
        print(json.dumps(line), file=self._file, flush=True)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(_Progress(Path(os.environ["OUT"], "results.jsonl")))
