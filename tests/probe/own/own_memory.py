"""Known memory of the test's own process."""

import ctypes
import mmap
import os
import warnings

import numpy as np

from memtherm.core.census import PageBits
from memtherm.core.regions import Range
from memtherm.linux.maps import read_maps, read_smaps
from memtherm.linux.process import open_process

MIB = 1 << 20
UNIT = 2 * MIB


class Memory:
    """A mapping of whole units of 2 MiB, with a page that cannot be accessed on either side.

    So the kernel makes one mapping of it and no other.
    """

    def __init__(self, *, units: int, huge: bool = False, written: bool = True) -> None:
        self._map = mmap.mmap(-1, (units + 2) * UNIT, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._map.madvise(mmap.MADV_HUGEPAGE if huge else mmap.MADV_NOHUGEPAGE)
        whole = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        self._offset = UNIT - whole % UNIT
        self.start = whole + self._offset
        self.end = self.start + units * UNIT
        protect = ctypes.CDLL(None, use_errno=True).mprotect
        for guard in (self.start - mmap.PAGESIZE, self.end):
            assert protect(ctypes.c_void_p(guard), ctypes.c_size_t(mmap.PAGESIZE), 0) == 0
        if written:
            # Settled: the kernel has it in no list of a processor, which MADV_COLD would pass over.
            os.sched_setaffinity(0, {min(before := os.sched_getaffinity(0))})
            for page in range(units * 512):
                self.write(page)
            self._map.madvise(20, self._offset, units * UNIT)
            os.sched_setaffinity(0, before)

    @property
    def range(self) -> Range:
        return self.start, self.end

    def read(self, page: int) -> int:
        return self._map[self._offset + page * mmap.PAGESIZE]

    def write(self, page: int) -> None:
        self._map[self._offset + page * mmap.PAGESIZE] = 1

    def close(self) -> None:
        """Unmap it, though this test has looked into it."""
        ctypes.CDLL(None).munmap(ctypes.c_void_p(self.start), ctypes.c_size_t(self.end - self.start))

    def huge_bytes(self) -> int:
        with open_process(os.getpid()) as process:
            detailed = read_smaps(process)
        inside = (detailed.mappings.starts < self.end) & (detailed.mappings.ends > self.start)
        return int(detailed.anonymous_huge_bytes[inside].sum())


def fork() -> int:
    """os.fork, without the warning of Python 3.12 about threads: no child here takes a lock of theirs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def mapping_count(memory: Memory) -> int:
    """How many mappings the kernel has of it."""
    with open_process(os.getpid()) as process:
        mappings = read_maps(process)
    return int(((mappings.starts < memory.end) & (mappings.ends > memory.start)).sum())


def referenced_bytes(memory: Memory) -> int:
    """What smaps shows of it as accessed."""
    with open_process(os.getpid()) as process:
        detailed = read_smaps(process)
    inside = (detailed.mappings.starts < memory.end) & (detailed.mappings.ends > memory.start)
    return int(detailed.referenced_bytes[inside].sum())


def accessed_units(bits: PageBits, start: int) -> set[int]:
    """The units, counted from an address, in which something was accessed."""
    units: np.ndarray[tuple[int], np.dtype[np.uint64]] = bits.address[bits.accessed.any(axis=1)]
    return {(int(unit) - start) // UNIT for unit in units}
