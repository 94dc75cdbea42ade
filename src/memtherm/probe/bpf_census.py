"""Every page of a target by the BPF walk, for the census: one look at all, and clearing of what was accessed.

Facts as in probe/bpf.py, and:
1. A system call's range of its own costs 1.7 µs, a page in a range 0.08 µs.  So gaps of up to 16 pages
   between accessed ones are cleared with them; they are idle already, and stay so.
2. A call holds the target's memory map, and its own mmap waits for as long: 64 MiB take 2 to 4 ms, and on a
   busy machine the time until we get the CPU back, too (15 to 80 ms seen, with 5 processes waiting for 2
   CPUs).  So a call gets 8 MiB, at the highest ordinary priority: 4 ms at most.  Who may call
   process_madvise may set priorities, too: both need CAP_SYS_NICE.
3. Whether a bit that is still set was set again at once, or could not be cleared, only pagemap tells, at
   0.1 µs a page.  So a few are looked at, and all of a mapping only where one of those was stuck.
"""

import itertools
import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import numpy as np
from numpy.typing import NDArray

from memtherm.core.census import PAGES, PageBits, clear_ranges, page_count, unpacked
from memtherm.core.ranges import Addresses, Counts, intersect, join_adjacent, sizes
from memtherm.core.regions import Range
from memtherm.linux.advise import Advice, advise_process
from memtherm.linux.clear_refs import ClearKind, clear
from memtherm.linux.maps import MappingKind, Mappings, read_maps
from memtherm.linux.page_entries import UnitKind
from memtherm.linux.page_table import PageTableWalker
from memtherm.linux.pagemap import PageCategory, Pagemap, is_exclusive
from memtherm.linux.process import Process
from memtherm.probe.folios import LargeFolios
from memtherm.probe.pace import shortest_interval_s
from memtherm.units import HUGE_PAGE_SIZE, PAGE_SIZE

_MAX_GAP_PAGES = 16
_UNITS_A_STEP = 64
_BYTES_A_CALL = 8 << 20
_HIGHEST_PRIORITY = -20
_LOOKS = 16
# clear_refs holds the target's memory map for 10 to 20 ms per GiB of small pages.
_CLEAR_REFS_S_PER_BYTE = 0.02 / (1 << 30)
# Units whose still-set bits are checked one by one after a call; each is a read of 4 KiB, about 20 µs.
_UNITS_CHECKED = 64
_UNIT = np.uint64(HUGE_PAGE_SIZE)


class BpfCensusProbe:
    """A CensusProbe for one process; needs the capabilities that choose.py lists."""

    name = "bpf"

    def __init__(self, process: Process) -> None:
        """Raises HostCannot where the walk cannot be made, TargetGone where the process is not."""
        self._process = process
        self._walk = PageTableWalker.open().target(process.pid)
        self._pagemap = Pagemap(process)
        self._folios = LargeFolios(self._pagemap)
        self._random = random.Random(process.pid)
        self._mappings: Mappings
        self._unit_start: Addresses
        self._unit_end: Addresses
        self.clearing = "cold"
        self.min_sampling_interval_s = 0.0
        self.ranges()

    @property
    def generation(self) -> int:
        """How often the target has replaced its memory by exec."""
        return self._walk.generation

    def ranges(self) -> list[Range]:
        """Every mapping but those that the kernel made; looked up anew at each call."""
        mappings = read_maps(self._process)
        self._mappings = mappings.select(mappings.kinds != MappingKind.SPECIAL)
        self._folios.update(self._mappings)
        start, end = self._mappings.starts, self._mappings.ends
        self._unit_start, self._unit_end = join_adjacent(
            start // _UNIT * _UNIT, (end + _UNIT - np.uint64(1)) // _UNIT * _UNIT
        )
        return list(zip(start.tolist(), end.tolist(), strict=True))

    def look(self) -> PageBits:
        """The present and accessed bits of every page."""
        return self._read(self._unit_start, self._unit_end)

    def swapped(self) -> Addresses:
        """The units of 2 MiB in which some memory is in swap; 15 ms per GiB of memory that is present.

        Before Linux 6.7 every page that could be there has to be asked for: so not where /proc tells of no swap.
        """
        if not self._pagemap.uses_scan and not self._process.swap_bytes():
            return np.zeros(0, np.uint64)
        runs = self._pagemap.scan(
            self._mappings.starts, self._mappings.ends, any_of=PageCategory.SWAPPED, report=PageCategory.SWAPPED
        )
        start, end = join_adjacent(runs.starts // _UNIT * _UNIT, (runs.ends + _UNIT - np.uint64(1)) // _UNIT * _UNIT)
        count = sizes(start, end) // HUGE_PAGE_SIZE
        number = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        return np.repeat(start, count) + number.astype(np.uint64) * _UNIT

    def clear(self, bits: PageBits) -> PageBits:
        """Clear these accessed bits.  Returns those that could not be cleared."""
        if self.clearing == "clear_refs":
            began_s = time.monotonic()
            clear(self._process, ClearKind.ALL)
            self.min_sampling_interval_s = shortest_interval_s(time.monotonic() - began_s)
            return bits.take(np.zeros(0, np.int64))
        stuck = np.zeros_like(bits.accessed)
        for first in range(0, len(bits), _UNITS_A_STEP):
            part = np.arange(first, min(first + _UNITS_A_STEP, len(bits)))
            with _urgent():
                stuck[part] = self._clear_units(bits.take(part))
        rows = np.flatnonzero(stuck.any(axis=1))
        return PageBits(bits.address[rows], bits.is_huge[rows], bits.present[rows], stuck[rows])

    def clear_everything(self, *, longest_stall_s: float) -> bool:
        """Use clear_refs from now on, if that holds up the target's mmap for less than this; else single pages."""
        expected_s = self._process.rss_bytes() * _CLEAR_REFS_S_PER_BYTE
        self.clearing = "clear_refs" if expected_s < longest_stall_s else "cold"
        self.min_sampling_interval_s = shortest_interval_s(expected_s) if self.clearing == "clear_refs" else 0.0
        return self.clearing == "clear_refs"

    def close(self) -> None:
        self._walk.close()
        self._pagemap.close()

    def _read(self, start: Addresses, end: Addresses) -> PageBits:
        units = self._walk.read_ranges(start, end)
        return PageBits(units.address, units.kind != UnitKind.PTE_TABLE, units.present, units.accessed)

    def _clear_units(self, bits: PageBits) -> NDArray[np.uint64]:
        """The bits (uint64[n, 8]) that could not be cleared."""
        start, end = clear_ranges(bits, max_gap_pages=_MAX_GAP_PAGES)
        # A range across two mappings may meet a hole between them, and fail for it.
        start, end, _, _ = intersect(start, end, self._mappings.starts, self._mappings.ends)
        failed_start, failed_end = self._advise(*self._folios.widen(start, end))
        still = self._still_set(bits)
        if not still.any():
            return still
        refused = _bits_of(bits.address, failed_start, failed_end)
        return still & (refused | self._not_ours_alone(bits.address, still))

    def _advise(self, start: Addresses, end: Addresses) -> tuple[Addresses, Addresses]:
        """In calls that are short; the ranges that failed.  None of the ranges is much larger than a unit."""
        call = np.cumsum(end - start) // np.uint64(_BYTES_A_CALL)
        first = np.flatnonzero(np.diff(call, prepend=call[:1])).tolist()
        failed = [
            advise_process(self._process, start[begin:stop], end[begin:stop], Advice.COLD)
            for begin, stop in itertools.pairwise([0, *first, len(start)])
        ]
        return (
            np.concatenate([result.failed_starts for result in failed]),
            np.concatenate([result.failed_ends for result in failed]),
        )

    def _still_set(self, bits: PageBits) -> NDArray[np.uint64]:
        after = self._read(*join_adjacent(bits.address, bits.address + _UNIT))
        row = np.searchsorted(bits.address, after.address)
        still = np.zeros_like(bits.accessed)
        still[row] = after.accessed & bits.accessed[row]
        return still

    def _not_ours_alone(self, address: Addresses, still: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """Which still-set pages are mapped by others too, or hold nothing (the page of zeros)."""
        others = np.zeros_like(still)
        unit, page = np.nonzero(unpacked(still))
        few = np.array(self._random.sample(range(len(unit)), min(_LOOKS, len(unit))), np.int64)
        looked_at = address[unit[few]] + page[few].astype(np.uint64) * np.uint64(PAGE_SIZE)
        stuck = [not is_exclusive(self._pagemap.read(one, one + PAGE_SIZE))[0] for one in looked_at.tolist()]
        suspects = np.unique(self._mapping_of(looked_at[np.array(stuck, np.bool_)]))
        if len(suspects) == 0:
            return others
        _, _, rows, _ = intersect(
            address, address + _UNIT, self._mappings.starts[suspects], self._mappings.ends[suspects]
        )
        for row in np.unique(rows)[:_UNITS_CHECKED].tolist():
            start = int(address[row])
            ours = is_exclusive(self._pagemap.read(start, start + HUGE_PAGE_SIZE))
            others[row] = np.packbits(~ours, bitorder="little").view(np.uint64)
        return others

    def _mapping_of(self, addresses: Addresses) -> Counts:
        return np.searchsorted(self._mappings.starts, addresses, side="right") - 1


@contextmanager
def _urgent() -> Iterator[None]:
    """While the target waits for this thread, no other one should be given its CPU."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    with suppress(PermissionError):  # in a user namespace, say: then it takes its turn
        os.setpriority(os.PRIO_PROCESS, 0, _HIGHEST_PRIORITY)
    try:
        yield
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, before)


def present_bytes(bits: PageBits) -> int:
    """Memory that a look found present."""
    return page_count(bits.present) * PAGE_SIZE


def _bits_of(address: Addresses, start: Addresses, end: Addresses) -> NDArray[np.uint64]:
    """The pages of ranges as bits (uint64[n, 8]) of these units."""
    pages = np.zeros((len(address), PAGES), np.bool_)
    low, high, row, _ = intersect(address, address + _UNIT, start, end)
    first = ((low - address[row]) // np.uint64(PAGE_SIZE)).tolist()
    last = ((high - address[row]) // np.uint64(PAGE_SIZE)).tolist()
    for index, begin, stop in zip(row.tolist(), first, last, strict=True):
        pages[index, begin:stop] = True
    return np.packbits(pages, axis=1, bitorder="little").view(np.uint64)
