"""`memtherm monitor --json` as a process of its own, as users run it: its snapshots, CPU time and memory."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from memtherm.core.snapshot import Conditions, Regions, Snapshot, TargetInfo

METHODS = {
    "census": ("--method", "census"),
    "sampling": ("--method", "sampling"),
    "sampling, DAMON's 5 ms / 100 ms": ("--method", "sampling", "--sampling", "5ms", "--aggregation", "100ms"),
}
_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Usage:
    """CPU time since its start of all threads, and memory, of a process."""

    cpu_s: float
    user_s: float
    system_s: float
    rss_bytes: int
    peak_bytes: int


class MonitorEnded(RuntimeError):
    """The monitor ended by itself; the message is what it said last."""


class Agent:
    """Watches `pid` until its block ends.

    Attributes:
        snapshots: so far.
    """

    def __init__(self, pid: int, *, method: str) -> None:
        command = [sys.executable, "-m", "memtherm", "monitor", "--json", "--pid", str(pid), *METHODS[method]]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.snapshots: list[Snapshot] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> "Agent":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.send_signal(signal.SIGINT)
        self._process.wait()
        self._reader.join()
        for pipe in (self._process.stdout, self._process.stderr):
            assert pipe is not None
            pipe.close()

    def usage(self) -> Usage:
        """Of the whole process; raises MonitorEnded."""
        if self._process.poll() is not None:
            assert self._process.stderr is not None
            raise MonitorEnded(self._process.stderr.read().strip().splitlines()[-1:])
        folder = Path(f"/proc/{self._process.pid}")
        ticks = folder.joinpath("stat").read_text().rpartition(")")[2].split()
        status = dict(line.split(":", 1) for line in folder.joinpath("status").read_text().splitlines())
        cpu_s = 0.0
        for thread in folder.joinpath("task").iterdir():
            with contextlib.suppress(FileNotFoundError):  # it has ended meanwhile
                cpu_s += int(thread.joinpath("schedstat").read_text().split()[0]) / 1e9
        return Usage(
            cpu_s=cpu_s,
            user_s=int(ticks[11]) / _TICKS_A_SECOND,
            system_s=int(ticks[12]) / _TICKS_A_SECOND,
            rss_bytes=int(status["VmRSS"].split()[0]) * 1024,
            peak_bytes=int(status["VmHWM"].split()[0]) * 1024,
        )

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.snapshots.append(parse_snapshot(json.loads(line)))


def parse_snapshot(plain: dict[str, Any]) -> Snapshot:
    """What `--json` prints, as the snapshot that it was; without rate errors."""
    conditions = dict(plain["conditions"])
    conditions.pop("agent_cpu_percent")
    rows = plain["regions"]

    def column(name: str, kind: type[np.generic]) -> Any:
        return np.array([row[name] for row in rows], kind)

    return Snapshot(
        time_s=plain["time_s"],
        targets=tuple(TargetInfo(**target) for target in plain["targets"]),
        regions=Regions(
            target=column("target", np.int32),
            start=column("start", np.uint64),
            end=column("end", np.uint64),
            nr_accesses=column("nr_accesses", np.int64),
            access_rate=column("access_rate", np.float64),
            age_s=column("age_s", np.float64),
            rate_error=np.zeros(len(rows)),
        ),
        conditions=Conditions(**conditions),
    )
