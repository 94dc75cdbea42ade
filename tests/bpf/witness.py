"""What the kernel itself says of a process's pages, for tests of the walk: /proc/PID/pagemap and maps."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from support.children import PAGE_SIZE

Array = NDArray[np.uint64]
USER_END = 1 << 56  # above it x86-64 lists [vsyscall], which is the kernel's

_PRESENT, _SWAPPED = np.uint64(1 << 63), np.uint64(1 << 62)


@dataclass(frozen=True)
class Mapping:
    """One line of /proc/PID/maps."""

    start: int
    end: int
    name: str


def mappings(pid: int) -> list[Mapping]:
    """All mappings in user space, in order."""
    found = []
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        range_text, _permissions, _offset, _device, _inode, *name = line.split(maxsplit=5)
        start, end = (int(text, 16) for text in range_text.split("-"))
        if start < USER_END:
            found.append(Mapping(start, end, "".join(name)))
    return found


def pagemap(pid: int, start: int, end: int) -> Array:
    """The words of /proc/PID/pagemap for [start, end)."""
    with open(f"/proc/{pid}/pagemap", "rb", buffering=0) as file:
        file.seek(start // PAGE_SIZE * 8)
        words = file.read((end - start) // PAGE_SIZE * 8)
    return np.frombuffer(words, dtype=np.uint64)


def page_addresses(start: int, end: int) -> Array:
    return np.arange(start, end, PAGE_SIZE, dtype=np.uint64)


def present_pages(pid: int, start: int, end: int) -> Array:
    return _pages_with(_PRESENT, pid, start, end)


def swapped_pages(pid: int, start: int, end: int) -> Array:
    return _pages_with(_SWAPPED, pid, start, end)


def _pages_with(bit: np.uint64, pid: int, start: int, end: int) -> Array:
    return page_addresses(start, end)[(pagemap(pid, start, end) & bit).astype(np.bool_)]
