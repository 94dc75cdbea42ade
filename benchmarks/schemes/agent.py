"""`memtherm run --apply --json` as a process beside the program: what it did, and what it cost."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.schemes.processes import BenchmarkError
from benchmarks.schemes.tuning import is_scheme_line

_MOST_EVENTS = 20
_END_WAIT_S = 30.0
_NUMBER = re.compile(r"\d+(\.\d+)?")
# Ended by us, or with the target.
_FINE = (0, -signal.SIGINT, 128 + signal.SIGINT, 4)


@dataclass(frozen=True, kw_only=True)
class Orders:
    """What the agent is told: a policy file, or a scheme line in its place."""

    policy: str
    with_children: bool = False

    def arguments(self, pid: int) -> list[str]:
        what = ["--scheme", self.policy] if is_scheme_line(self.policy) else [self.policy]
        children = ["--children"] if self.with_children else []
        return ["run", *what, "--apply", "--json", "--pid", str(pid), *children]


class Agent:
    """Acts on `pid` until its block ends; its output stands in `folder`."""

    def __init__(self, orders: Orders, pid: int, *, folder: Path) -> None:
        self._arguments = orders.arguments(pid)
        self._output, self._errors = folder / "memtherm.out", folder / "memtherm.err"
        with self._output.open("wb") as stdout, self._errors.open("wb") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "memtherm", *self._arguments],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
        self._cpu_s = 0.0
        self._peak_bytes = 0

    def __enter__(self) -> "Agent":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Not Popen.wait: only wait4 tells what the process has used.
        os.kill(self._process.pid, signal.SIGINT)
        too_long = threading.Timer(_END_WAIT_S, self._process.kill)
        too_long.start()
        _, status, usage = os.wait4(self._process.pid, 0)
        too_long.cancel()
        self._process.returncode = os.waitstatus_to_exitcode(status)
        self._cpu_s = usage.ru_utime + usage.ru_stime
        self._peak_bytes = usage.ru_maxrss * 1024

    def check(self) -> None:
        """Raises BenchmarkError where the agent has ended while its target runs."""
        # Without taking the status: that is for the end of the block, which also wants what was used.
        if os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            raise self._problem("before its target")

    def result(self) -> dict[str, Any]:
        """After the block; raises BenchmarkError where the agent failed."""
        if self._process.returncode not in _FINE:
            raise self._problem(f"with exit status {self._process.returncode}")
        reports = [json.loads(line) for line in self._output.read_text().splitlines() if line.endswith("}")]
        return {
            "agent_cpu_s": self._cpu_s,
            "agent_peak_bytes": self._peak_bytes,
            "agent_windows": len(reports),
            **_done(reports),
        }

    def _problem(self, how: str) -> BenchmarkError:
        said = self._errors.read_text(errors="replace").strip().splitlines()[-2:]
        return BenchmarkError(f"{shlex.join(['memtherm', *self._arguments])} ended {how}: {' / '.join(said)}")


def _done(reports: list[dict[str, Any]]) -> dict[str, Any]:
    schemes = reports[-1]["schemes"] if reports else []
    events = list(dict.fromkeys(event for report in reports for event in report["events"]))
    of_windows = [scheme for report in reports for scheme in report["schemes"]]
    # Sizes and shares in a reason differ from window to window.
    refused = Counter(_NUMBER.sub("…", refusal["reason"]) for scheme in of_windows for refusal in scheme["refused"])
    states = Counter(_NUMBER.sub("…", scheme["state"]) for scheme in of_windows if scheme.get("state"))
    return {
        "tried_bytes": sum(scheme["total"]["tried_bytes"] for scheme in schemes),
        "applied_bytes": sum(scheme["total"]["applied_bytes"] for scheme in schemes),
        "windows_refused": dict(refused),
        "windows_held_back": dict(states),
        "events": events[:_MOST_EVENTS],
    }
