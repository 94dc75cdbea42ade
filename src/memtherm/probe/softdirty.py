"""See writes by the kernel's soft-dirty bits: clear_refs 4, then bit 55 of pagemap (damon-spec §5.5, §5.7).

What is only read looks idle here, so that no scheme for unused memory may act on what this probe says.
Facts, and what they mean here:
1. Clearing walks all of the target's memory under its map's write lock, and write-protects every page: each
   page that is written again costs the target a fault.  So looks are as far apart as both demand.
2. The whole of a new mapping counts as written, and so does the heap that brk has enlarged, until the next
   clear: the mark is the mapping's, and stands in pagemap for all of its pages.  A page without memory behind
   it does not count; of the others too much may be shown for one look, never too little.
"""

import time

import numpy as np
from numpy.typing import NDArray

from memtherm.core.ranges import Addresses, Flags
from memtherm.core.regions import Range
from memtherm.errors import NotSupported
from memtherm.linux.clear_refs import ClearKind, clear
from memtherm.linux.facts import has_soft_dirty
from memtherm.linux.maps import read_maps
from memtherm.linux.pagemap import Pagemap, is_present, is_soft_dirty, is_swapped
from memtherm.linux.process import Process
from memtherm.probe.layout import three_ranges
from memtherm.probe.pace import shortest_interval_s
from memtherm.units import PAGE_SIZE

# The fault of a page that is written again; 0.9 to 1.1 µs measured for its like, after a fork (6.18).
_FAULT_S = 1e-6
# The cost is a mean over about this many of the latest looks.
_MEMORY = 4


class SoftDirtyProbe:
    """A Probe for writes alone; for processes of the same user, or as root."""

    name = "softdirty"
    grain = "page"
    clearing = "clear_refs"
    unclear_share = 0.0

    def __init__(self, process: Process) -> None:
        """Raises NotSupported without soft-dirty bits, NotPermitted for another user's process, TargetGone."""
        if not has_soft_dirty():
            raise NotSupported("this kernel has no soft-dirty bits", hint="see CONFIG_MEM_SOFT_DIRTY")
        self._process = process
        self._pagemap = Pagemap(process)
        self._clearing_s = 0.0
        self._faults_s = 0.0
        self.clear(np.zeros(0, np.uint64))

    @property
    def generation(self) -> int:
        """How often the target has replaced its memory by exec."""
        return self._pagemap.generation

    @property
    def min_sampling_interval_s(self) -> float:
        """What clearing, and the faults after it, cost the target is a small share of this."""
        return shortest_interval_s(self._clearing_s + self._faults_s)

    def ranges(self) -> list[Range]:
        """DAMON's three ranges around the two largest gaps."""
        return three_ranges(read_maps(self._process), pid=self._process.pid)

    def clear(self, addresses: Addresses) -> None:
        """Clear the whole address space, whatever the addresses."""
        del addresses
        began_s = time.monotonic()
        clear(self._process, ClearKind.SOFT_DIRTY)
        self._clearing_s += (time.monotonic() - began_s - self._clearing_s) / (_MEMORY if self._clearing_s else 1)

    def read(self, addresses: Addresses) -> Flags:
        """Which of these pages were written since the clear."""
        entries = self._pagemap.read_pages(addresses)
        holds_memory = is_present(entries) | is_swapped(entries)
        written: Flags = is_soft_dirty(entries) & holds_memory
        self._note_faults(written, holds_memory)
        return written

    def close(self) -> None:
        self._pagemap.close()

    def _note_faults(self, written: Flags, holds_memory: NDArray[np.bool_]) -> None:
        """Each page that is written between two clears costs one fault; how many, these pages tell."""
        if not holds_memory.any():
            return
        pages = self._process.rss_bytes() // PAGE_SIZE * (written.sum() / holds_memory.sum())
        self._faults_s += (float(pages) * _FAULT_S - self._faults_s) / _MEMORY
