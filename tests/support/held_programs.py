"""C programs that are held by ptrace: compiled, run, talked to (tests/linux/held_program.c, steady_registers.c)."""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from memtherm.linux import remote_call
from memtherm.linux.held_thread import HeldThread
from memtherm.linux.maps import parse_maps
from memtherm.linux.process import Process, open_process
from memtherm.linux.remote_call import PtraceAdvice, advise_by_ptrace
from support.requires import require

MIB = 1 << 20
_FOLDER = Path(__file__).parents[1] / "linux"


@contextmanager
def compiled_programs() -> Iterator[Path]:
    """The folder with both programs."""
    require("cc")
    with tempfile.TemporaryDirectory() as folder:
        for name in ("held_program", "steady_registers"):
            options = ["-std=gnu11", "-O2", "-mavx2", "-Wall", "-Wextra", "-Werror", "-pthread"]
            source, program = _FOLDER / f"{name}.c", Path(folder, name)
            subprocess.run([shutil.which("cc") or "cc", *options, "-o", program, source], check=True)
        yield Path(folder)


class Program:
    """A running test program.

    Attributes:
        process: opened.
        start, length: its mapping, which nothing touches.
    """

    def __init__(self, arguments: Sequence[str | Path]) -> None:
        self._child = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        pid, self.start, self.length = map(int, self.line().split())
        self.process = open_process(pid)

    def line(self) -> str:
        assert self._child.stdout is not None
        return self._child.stdout.readline()

    def say(self) -> None:
        assert self._child.stdin is not None
        self._child.stdin.write("\n")
        self._child.stdin.flush()

    def answer(self) -> tuple[int, int, float]:
        """The line that it ends with: result, errno, milliseconds."""
        result, number, elapsed_ms = self.line().split()
        return int(result), int(number), float(elapsed_ms)

    def has_ended(self) -> bool:
        return self._child.poll() is not None

    def end(self) -> int:
        """Let it end by itself; its exit code."""
        self._child.communicate()
        return self._child.returncode

    def close(self) -> None:
        self.process.close()
        self._child.kill()
        self._child.communicate()


@contextmanager
def running(folder: Path, name: str, *arguments: str) -> Iterator[Program]:
    program = Program([folder / name, *arguments])
    try:
        yield program
    finally:
        program.close()


def flagged(process: Process, flag: str) -> list[tuple[int, int]]:
    """The mappings with that VmFlag, joined where they touch."""
    found: list[tuple[int, int]] = []
    start = end = 0
    for line in process.read_file("smaps").decode().splitlines():
        head = line.split(maxsplit=1)[0]
        if "-" in head:
            start, end = (int(part, 16) for part in head.split("-"))
        elif head == "VmFlags:" and flag in line.split():
            joins = bool(found) and found[-1][1] == start
            found = [*found[:-1], (found[-1][0], end)] if joins else [*found, (start, end)]
    return found


def status(pid: int, key: str) -> str:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.partition(":")[2].strip() for line in lines if line.startswith(f"{key}:"))


def wait_until(is_so: Callable[[], bool], what: str) -> None:
    deadline_s = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < deadline_s, what


def asleep(program: Program) -> bool:
    return status(program.process.pid, "State").startswith("S")


def advise_once(program: Program, advice: PtraceAdvice = PtraceAdvice.HUGEPAGE) -> int:
    result = advise_by_ptrace(program.process, [program.start], [program.start + MIB], advice, patience_s=5)
    return int(result[0])


def wait_until_let_go(pid: int) -> None:
    wait_until(lambda: status(pid, "TracerPid") == "0" and status(pid, "State")[0] in "SRZ", "it is held")


def assert_unharmed(program: Program, *, blocked: str) -> None:
    """It is not traced, runs, and has these blocked signals (as in /proc/PID/status) at some moment."""
    pid = program.process.pid
    wait_until_let_go(pid)
    wait_until(lambda: status(pid, "SigBlk") == blocked or program.has_ended(), "its signals stay blocked")
    assert not program.has_ended()


def stopped(program: Program) -> HeldThread:
    """Its main thread, before prepare()."""
    thread = HeldThread(program.process, program.process.pid)
    thread.stop(5)
    return thread


def prepare(program: Program, thread: HeldThread) -> None:
    gadgets = remote_call._find_gadgets(program.process, program.process.pid)
    assert gadgets is not None
    thread.prepare(parse_maps(program.process.read_file("maps")), gadgets)
