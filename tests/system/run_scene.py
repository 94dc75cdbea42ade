"""What the tests of whole runs share: a running command, short policies, witnesses that know nothing of memtherm."""

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import memtherm
from memtherm import AccessPattern, Action, Bounds, GuardSettings, MonitoringAttributes, Policy, Report, Scheme, Session
from support.children import MADV_NOHUGEPAGE, Child
from support.command import command_line
from support.swap import swap_on

PAGE = 4096
MIB = 1 << 20
HUGE = 2 * MIB
PATIENCE_S = 40.0

SHORT = MonitoringAttributes(
    method="census", sampling_interval_s=0.05, aggregation_interval_s=0.25, regions_update_interval_s=0.25
)
# What the machine does meanwhile is no part of most tests, nor how small a target is.
OPEN = GuardSettings(min_target_bytes=MIB, max_refault_rate=0, max_memory_pressure=0, min_free_swap=0)
MONITOR_TEXT = """\
version = 1
[monitor]
method = "census"
sampling_interval = "50ms"
aggregation_interval = "250ms"
regions_update_interval = "250ms"
"""
GUARD_TEXT = """\
[guard]
min_target_bytes = "1MiB"
max_refault_rate = "0%"
max_memory_pressure = "0%"
min_free_swap = "0%"
"""
OPEN_TEXT = MONITOR_TEXT + GUARD_TEXT
COLD_TEXT = """\
[[scheme]]
name = "cold"
access_rate = "0%"
age = ">= 500ms"
action = "pageout"
"""


def cold_scheme(action: Action = Action.PAGEOUT, *, age_s: float = 0.5, **values: Any) -> Scheme:
    """For memory that nobody has touched for a while, called `cold`."""
    pattern = AccessPattern(access_rate=Bounds(0, 0), age_s=Bounds(age_s))
    return replace(Scheme(name="cold", pattern=pattern, action=action), **values)


@contextmanager
def acting(
    *schemes: Scheme, pid: int | Sequence[int], apply: bool = True, guard: GuardSettings = OPEN
) -> Iterator[Session]:
    """A session with short windows, each page counted."""
    policy = Policy(schemes=schemes, guard=guard, attributes=SHORT)
    with memtherm.monitor(pid=pid, policy=policy, apply=apply, probe="bpf") as session:
        yield session


def until(session: Session, holds: Callable[[Report], bool], *, patience_s: float = PATIENCE_S) -> Report:
    """The first report for which something holds."""
    deadline_s = time.monotonic() + patience_s
    report = None
    for report in session.reports():
        if holds(report):
            return report
        assert time.monotonic() < deadline_s, f"not in {patience_s} s: {report.schemes}"
    raise AssertionError(f"the session ended: {session.last_events}, {report and report.schemes}")


class Agent:
    """A `memtherm` command in the background, with what it has said so far."""

    def __init__(
        self, words: Sequence[str], folder: str, *, environment: dict[str, str], prefix: Sequence[str]
    ) -> None:
        self._outputs = [Path(folder, name) for name in ("stdout", "stderr")]
        self._last: list[str] = []
        with self._outputs[0].open("w") as stdout, self._outputs[1].open("w") as stderr:
            self.process = subprocess.Popen(
                [*prefix, *command_line(*words)],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                env=os.environ | {"COLUMNS": "200"} | environment,
            )

    @property
    def stdout(self) -> str:
        return self._last[0] if self._last else self._outputs[0].read_text()

    @property
    def stderr(self) -> str:
        return self._last[1] if self._last else self._outputs[1].read_text()

    def reports(self) -> list[dict[str, Any]]:
        """All JSON lines so far."""
        return [json.loads(line) for line in self.stdout.split("\n")[:-1]]

    def until(self, holds: Callable[[dict[str, Any]], bool], *, patience_s: float = PATIENCE_S) -> dict[str, Any]:
        """The first report, of those that come from now on and the last one, for which something holds."""
        deadline_s = time.monotonic() + patience_s
        seen = max(0, len(self.reports()) - 1)
        while True:
            has_ended = self.process.poll() is not None
            reports = self.reports()
            for report in reports[seen:]:
                if holds(report):
                    return report
            seen = len(reports)
            last = reports[-1]["schemes"] if reports else None
            assert not has_ended, f"it ended with {self.process.returncode}: {self.stderr}\n{last}"
            assert time.monotonic() < deadline_s, f"not in {patience_s} s: {last}\n{self.stderr}"
            time.sleep(0.02)

    def started(self) -> dict[str, Any]:
        """Its first report."""
        return self.until(lambda _: True)

    def end(self, signal_number: int) -> int:
        """Send a signal and wait.  Returns its exit code."""
        self.process.send_signal(signal_number)
        return self.process.wait(PATIENCE_S)

    def close(self) -> None:
        """Kill it if need be, and keep what it has said."""
        self.process.kill()
        self.process.wait()
        self._last = [path.read_text() for path in self._outputs]


@contextmanager
def agent(*words: str, environment: dict[str, str] | None = None, prefix: Sequence[str] = ()) -> Iterator[Agent]:
    """`memtherm WORDS` while the block lasts; killed at its end if need be."""
    with tempfile.TemporaryDirectory(prefix="memtherm-test-") as folder:
        one = Agent(words, folder, environment=environment or {}, prefix=prefix)
        try:
            yield one
        finally:
            one.close()


def applied_bytes(report: dict[str, Any], number: int = 0) -> int:
    """Of one scheme, since its start."""
    return int(report["schemes"][number]["total"]["applied_bytes"])


def reasons(report: dict[str, Any], number: int = 0) -> dict[str, int]:
    """Why one scheme was refused bytes in this window, and how many."""
    return {refusal["reason"]: refusal["size_bytes"] for refusal in report["schemes"][number]["refused"]}


def small_memory(child: Child, size_bytes: int, *, is_random: bool = False) -> int:
    """Anonymous memory in small pages, all there, apart from all other; its address."""
    start = child.map_aligned(size_bytes)
    child.madvise(start, size_bytes, MADV_NOHUGEPAGE)
    if is_random:
        child.fill(start, size_bytes)
    else:
        child.write(start, size_bytes // PAGE)
    return start


def page_entries(pid: int, start: int, end: int) -> NDArray[np.uint64]:
    """The pagemap of a range."""
    with open(f"/proc/{pid}/pagemap", "rb") as file:
        file.seek(start // PAGE * 8)
        return np.frombuffer(file.read((end - start) // PAGE * 8), np.uint64)


def present_bytes(pid: int, start: int, end: int) -> int:
    """By bit 63 of the pagemap."""
    return int((page_entries(pid, start, end) >> np.uint64(63)).sum()) * PAGE


def swapped_bytes(pid: int, start: int, end: int) -> int:
    """By bit 62 of the pagemap."""
    return int((page_entries(pid, start, end) >> np.uint64(62) & np.uint64(1)).sum()) * PAGE


def status_bytes(pid: int, field: str) -> int:
    """A field of /proc/PID/status, such as VmRSS."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def smaps(pid: int, *, without: Sequence[str] = ()) -> list[str]:
    """All lines of smaps, but not those of some fields."""
    lines = Path(f"/proc/{pid}/smaps").read_text().splitlines()
    return [line for line in lines if line.split(":")[0] not in without]


def flagged_ranges(pid: int, flag: str) -> list[tuple[int, int]]:
    """Mappings with one of the VmFlags, neighbours joined."""
    found: list[tuple[int, int]] = []
    borders = (0, 0)
    for line in smaps(pid):
        words = line.split()
        if "-" in words[0]:
            low, high = words[0].split("-")
            borders = int(low, 16), int(high, 16)
        elif words[0] == "VmFlags:" and flag in words:
            if found and found[-1][1] == borders[0]:
                borders = found.pop()[0], borders[1]
            found.append(borders)
    return found


@contextmanager
def swap_with_room_for(size_bytes: int) -> Iterator[float]:
    """Swap that is full after so many bytes: of what the host has besides, a share must stay free, which is yielded."""
    with swap_on(size_bytes):
        lines = Path("/proc/meminfo").read_text().splitlines()
        total, free = (
            next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))
            for field in ("SwapTotal", "SwapFree")
        )
        yield max(0.0, (free - size_bytes) / total)


def is_traced_or_stopped(pid: int) -> bool:
    """By the state and TracerPid of each of its threads."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        lines = dict(line.split(":", 1) for line in (task / "status").read_text().splitlines())
        if lines["State"].strip()[0] in "tT" or lines["TracerPid"].strip() != "0":
            return True
    return False
