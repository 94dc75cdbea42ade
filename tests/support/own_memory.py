"""Memory of the test's own process, which it touches page by page, and what userfaultfd can track here."""

import functools
import mmap
import os
import resource
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest

from memtherm.errors import HostCannot
from memtherm.linux.userfaultfd import Feature, Mode, supported_features
from support.privileges import run_as_nobody

PAGE = 4096
UNIT = 2 << 20
NEEDS = {Mode.WRITES: Feature.WRITE_ASYNC, Mode.ACCESSES: Feature.ACCESS | Feature.ACCESS_ASYNC}


def require_tracking(mode: Mode) -> None:
    """Skip this test unless userfaultfd can do it; fail instead where MEMTHERM_REQUIRE names `userfaultfd-…`."""
    word = f"userfaultfd-{mode.name}".lower()
    try:
        reason = "" if NEEDS[mode] in supported_features() else f"{word}: not in this kernel"
    except HostCannot as error:
        reason = f"{word}: {error}"
    if reason and word in os.environ.get("MEMTHERM_REQUIRE", "").split(","):
        pytest.fail(f"required by MEMTHERM_REQUIRE, but {reason}", pytrace=False)
    if reason:
        pytest.skip(reason)


def as_ordinary_user(test: Callable[..., None]) -> Callable[..., None]:
    """The test without any privilege: in a fork that gives them up, where the tests run as root."""

    @functools.wraps(test)
    def run(*arguments: object, **named: object) -> None:
        if os.geteuid() == 0:
            run_as_nobody(lambda: test(*arguments, **named))
        else:
            test(*arguments, **named)

    return run


class OwnMemory:
    """A mapping that begins on a border of 2 MiB; every page holds its number.

    Attributes:
        pages: uint16[n, 2048], a row for each page.
    """

    def __init__(self, size_bytes: int, *, huge: bool = False, is_present: bool = True) -> None:
        self._mapping = mmap.mmap(-1, size_bytes + UNIT, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._mapping.madvise(mmap.MADV_HUGEPAGE if huge else mmap.MADV_NOHUGEPAGE)
        everything = np.frombuffer(self._mapping, np.uint8)
        skipped = -everything.ctypes.data % UNIT
        self.pages = everything[skipped : skipped + size_bytes].view(np.uint16).reshape(-1, PAGE // 2)
        self.start = self.pages.ctypes.data
        self.end = self.start + size_bytes
        if is_present:
            self.pages[:, 0] = np.arange(len(self.pages)) % 60_000

    def advise(self, advice: int, first: int = 0, count: int | None = None) -> None:
        """madvise(2) for some of the pages."""
        start = self.start - np.frombuffer(self._mapping, np.uint8).ctypes.data + first * PAGE
        self._mapping.madvise(advice, start, (len(self.pages) if count is None else count) * PAGE)

    def read(self, numbers: Iterable[int]) -> int:
        """Read these pages."""
        return int(self.pages[list(numbers), 0].sum())

    def write(self, numbers: Iterable[int]) -> None:
        """Write these pages, which keep their content."""
        chosen = list(numbers)
        self.pages[chosen, 0] = np.array(chosen) % 60_000


def mapping_text(address: int) -> str:
    """What /proc/self/smaps tells of the mapping at `address`."""
    lines: list[str] = []
    is_in = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        head = line.split()[0]
        if not head.endswith(":"):
            start, end = (int(part, 16) for part in head.split("-"))
            is_in = start <= address < end
        if is_in:
            lines.append(line)
    return "\n".join(lines)


def flags_of(address: int) -> set[str]:
    """VmFlags of the mapping at `address`."""
    return set(mapping_text(address).rpartition("VmFlags:")[2].split())


def huge_kibibytes(start: int, end: int) -> int:
    """Memory of [start, end) in huge pages, by smaps; over each mapping in it."""
    total, address = 0, start
    while address < end:
        text = mapping_text(address)
        total += int(text.partition("AnonHugePages:")[2].split()[0])
        address = int(text.partition(" ")[0].partition("-")[2], 16)
    return total


def faults() -> int:
    """Page faults of this process without input or output, so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
