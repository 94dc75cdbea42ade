"""A child process that touches just the pages it is told to: ground truth for a probe's canary.

The module is also the child's program, so it imports nothing outside the standard library.
"""

import ctypes
import errno
import mmap
import os
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from types import TracebackType
from typing import Self

_MADV_NOHUGEPAGE = 15
_MADV_COLD = 20


class KnownChild:
    """A process with one anonymous mapping of `pages` small pages, all of them written once.

    Attributes:
        pid: of the child.
        start: address of the mapping.
        pages: its length in pages.
    """

    def __init__(self, *, pages: int) -> None:
        self.pages = pages
        self._process = subprocess.Popen(
            # Isolated and without `site`: up in a few milliseconds, and no code of the user in it.
            [sys.executable, "-I", "-S", __file__, str(pages)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self._process.pid
        self.start = int(self._answer(), 16)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def touch(self, pages: Iterable[int], *, write: bool) -> None:
        """Read or write one byte of each of these pages; returns when it is done."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # then there is no answer either
            self._process.stdin.write(f"{'w' if write else 'r'} {' '.join(map(str, pages))}\n")
            self._process.stdin.flush()
        self._answer()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise ChildProcessError(errno.ECHILD, "the known child has ended", sys.executable)
        return line


def _write_all(memory: mmap.mmap) -> None:
    """Write each page, and have it known to reclaim.

    The kernel lists the up to 31 pages that a processor has mapped last for itself at first, and
    MADV_COLD by another processor passes over those: without this, 5 of 150 canaries failed (6.18).
    MADV_COLD of our own has the list of our processor emptied, if it is still the same one.
    """
    processors = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(processors)})
    memory[:] = b"\x01" * len(memory)
    with suppress(OSError):  # before Linux 5.4
        memory.madvise(_MADV_COLD)
    os.sched_setaffinity(0, processors)


def _serve(pages: int) -> None:
    memory = mmap.mmap(-1, pages * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(_MADV_NOHUGEPAGE)
    _write_all(memory)
    print(hex(ctypes.addressof(ctypes.c_char.from_buffer(memory))), flush=True)
    for line in sys.stdin:
        kind, *numbers = line.split()
        for number in map(int, numbers):
            if kind == "w":
                memory[number * mmap.PAGESIZE] = number & 0xFF
            else:
                _ = memory[number * mmap.PAGESIZE]
        print("done", flush=True)


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
