"""`with workload(...)`: a C program that touches just the memory it says (tests/system/workload.c)."""

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from support.requires import require

PAGE_SIZE = 4096

_REPOSITORY = Path(__file__).parents[2]
_SOURCE = _REPOSITORY / "tests" / "system" / "workload.c"
_COMPILER = ("cc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread")


@dataclass(frozen=True)
class Progress:
    """How far a workload is.

    Attributes:
        passes: since its start.
        longest_pass_s: of the passes since the progress was last asked for.
        busy_s, cpu_s: time in passes since its start, and CPU time of it.
        longest_map_s, longest_fault_s: longest mmap or munmap, and page fault, of the probing thread since the
            progress was last asked for; 0 without `--probe`.
    """

    passes: int
    longest_pass_s: float
    busy_s: float
    cpu_s: float
    longest_map_s: float
    longest_fault_s: float


class Workload:
    """A running workload.

    Attributes:
        pid: of the process.
        start, size_bytes: its one large mapping.
        began_s: monotonic time of its first pass.
        hot_ranges: (start, end) addresses of the stripes; every page there is touched in each pass, no other page.
    """

    def __init__(self, process: "subprocess.Popen[str]", *, size_bytes: int, hot: Sequence[tuple[int, int]]) -> None:
        self._process = process
        first = self._read()
        self.pid = int(first["pid"])
        self.start = int(first["start"])
        self.began_s = float(first["began_s"])
        self.size_bytes = size_bytes
        self.hot_ranges = [(self.start + offset, self.start + offset + length) for offset, length in hot]

    @property
    def end(self) -> int:
        return self.start + self.size_bytes

    @property
    def hot_bytes(self) -> int:
        return sum(end - start for start, end in self.hot_ranges)

    def progress(self) -> Progress:
        """Asks the workload; the answer comes between two passes."""
        assert self._process.stdin is not None
        os.write(self._process.stdin.fileno(), b"\n")
        return Progress(**self._read())

    def passes(self) -> int:
        """Passes since its start."""
        return self.progress().passes

    def rss_bytes(self) -> int:
        """Resident memory by /proc/PID/statm, a witness that knows nothing of memtherm."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * PAGE_SIZE

    def swap_bytes(self) -> int:
        """VmSwap of /proc/PID/status."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmSwap:"))

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise ProcessLookupError(f"the workload ended with status {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def workload(
    *,
    size_bytes: int,
    hot: Sequence[tuple[int, int]],
    memory: Literal["anonymous", "shared", "file", "private-file"] = "anonymous",
    pages: Literal["small", "huge", "default"] = "small",
    access: Literal["read", "write"] = "read",
    period_s: float = 0.01,
    extra: Sequence[str] = (),
) -> Iterator[Workload]:
    """Fill `size_bytes`, then touch one byte of each page of the `hot` stripes (offset, length) every `period_s`.

    It is in its passes when this returns its Workload, and gone when the block ends.  With memory="file" the mapping
    is a shared one of a file on disk; its pages are clean unless access="write".  `extra` are further options of
    the program, which stand at its top.  Needs `cc`.
    """
    # Not the default folder for temporary files: it may be in memory, and then no file in the sense of reclaim.
    with tempfile.TemporaryDirectory(prefix="memtherm-workload-", dir="/var/tmp") as folder:
        command = [str(compiled_workload()), "--size", str(size_bytes), "--memory", memory, "--pages", pages]
        command += ["--access", access, "--period", repr(period_s)]
        command += [part for offset, length in hot for part in ("--hot", f"{offset}:{length}")]
        command += ["--path", f"{folder}/data"] if memory in ("file", "private-file") else []
        command += extra
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            try:
                yield Workload(process, size_bytes=size_bytes, hot=hot)
            finally:
                process.kill()


def compiled_workload() -> Path:
    """The program, built once for one state of its source."""
    key = hashlib.sha256(_SOURCE.read_bytes() + repr(_COMPILER).encode()).hexdigest()[:16]
    folder = _REPOSITORY / "build"
    program = folder / f"workload-{key}"
    if not program.exists():
        require("cc")
        folder.mkdir(exist_ok=True)
        unfinished = folder / f"workload-{key}.{os.getpid()}"
        compiler = shutil.which(_COMPILER[0]) or _COMPILER[0]
        subprocess.run([compiler, *_COMPILER[1:], "-o", unfinished, _SOURCE], check=True)
        unfinished.replace(program)
    return program
