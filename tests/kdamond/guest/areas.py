"""A process with areas of memory of one size, of which it touches some all the time, each page of them.

Run as a program with the number of areas, their bytes and those that are hot; a line of numbers says which are from
then on.  A kdamond clears accessed marks and leaves the processor's cache of translations as it is, which forgets
soon.  An emulator's is so large that a page once touched would not be marked again; so after each round the program
makes the kernel empty it, by changing the protection of some pages.
"""

import ctypes
import mmap
import os
import select
import subprocess
import sys
from collections.abc import Iterable
from types import TracebackType
from typing import Self

PAGE_SIZE = 4096
MIB = 1 << 20
# From 34 pages on the kernel flushes everything, not page by page.
_PAGES_TO_FLUSH = 64


class Areas:
    """The process, from the test's side; a context manager that ends it.

    Attributes:
        pid: of it.
        starts: addresses of the areas, ascending.
        size_bytes: of each.
    """

    def __init__(self, count: int, *, size_bytes: int, hot: Iterable[int]) -> None:
        self.size_bytes = size_bytes
        words = [str(count), str(size_bytes), " ".join(map(str, hot))]
        self._process = subprocess.Popen(
            [os.path.realpath(sys.executable), "-I", "-S", __file__, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self._process.pid
        self.starts = [int(word) for word in self._line().split()]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def heat(self, hot: Iterable[int]) -> None:
        """Touch these areas from now on; returns once it does."""
        assert self._process.stdin is not None
        self._process.stdin.write(" ".join(map(str, hot)) + "\n")
        self._process.stdin.flush()
        self._line()

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise ProcessLookupError("the process of areas has ended")
        return line


def _touch(area: memoryview) -> None:
    area[::PAGE_SIZE].tobytes()


def _read_line() -> str:
    """As one piece: what a buffer has read ahead would be invisible to select()."""
    return os.read(0, 4096).decode()


def main(count: int, size_bytes: int, first: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    memory = mmap.mmap(-1, count * size_bytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    view = memoryview(memory)
    view[::PAGE_SIZE] = b"\1" * (count * size_bytes // PAGE_SIZE)
    areas = [view[index * size_bytes : (index + 1) * size_bytes] for index in range(count)]
    spare = mmap.mmap(-1, _PAGES_TO_FLUSH * PAGE_SIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memoryview(spare)[::PAGE_SIZE] = b"\1" * _PAGES_TO_FLUSH
    start, spare_start = (ctypes.addressof(ctypes.c_char.from_buffer(one)) for one in (memory, spare))
    print(*(start + index * size_bytes for index in range(count)), flush=True)
    hot = [int(word) for word in first.split()]
    while True:
        if select.select([0], [], [], 0)[0]:
            line = _read_line()
            if not line:
                return
            hot = [int(word) for word in line.split()]
            print("heated", flush=True)
        for index in hot:
            _touch(areas[index])
        for protection in (mmap.PROT_READ, mmap.PROT_READ | mmap.PROT_WRITE):
            libc.mprotect(spare_start, _PAGES_TO_FLUSH * PAGE_SIZE, protection)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
