"""See writes to own memory by the kernel's soft-dirty bits: clear_refs 4, then pagemap (damon-spec §5.5, §5.7).

What is only read looks idle.  Clearing write-protects every page of the process, and each that is written again costs
it a fault: so looks are as far apart as that demands.  New memory counts as written until the first clear after.
"""

import time
from collections.abc import Sequence

import numpy as np

from memtherm.core.census import PageBits, page_count
from memtherm.core.ranges import Addresses, intersect, join_adjacent
from memtherm.core.regions import Range
from memtherm.errors import NotSupported
from memtherm.linux.clear_refs import ClearKind
from memtherm.linux.facts import has_soft_dirty
from memtherm.linux.maps import parse_maps
from memtherm.linux.pagemap import PageCategory, Pagemap, is_present, is_soft_dirty
from memtherm.probe.own.hub import Hub, own_hub
from memtherm.probe.own.page_bits import limited, mask_of, merged, no_bits, units_of, without
from memtherm.probe.pace import shortest_interval_s
from memtherm.units import PAGE_SIZE

# The fault of a page that is written again; 0.9 to 1.1 µs measured for its like, after a fork (6.18).
_FAULT_S = 1e-6
_MEMORY = 4


class SoftDirtyCensusProbe:
    """A CensusProbe for writes to ranges of this process, page by page.

    Attributes:
        grain: `page`.
        target_s_per_page: what clearing a written page costs the program at its next write.
        describe_changes: nothing: mappings stay as they are.
    """

    name = "softdirty"
    grain = "page"
    clearing = "clear_refs"
    target_s_per_page = _FAULT_S
    describe_changes: tuple[str, ...] = ()

    def __init__(self, ranges: Sequence[Range]) -> None:
        """Raises NotSupported without soft-dirty bits, NotPermitted where the process may not read its own files."""
        if not has_soft_dirty():
            raise NotSupported("this kernel has no soft-dirty bits", hint="see CONFIG_MEM_SOFT_DIRTY")
        columns = np.array(ranges, np.uint64).reshape(-1, 2)
        self._start, self._end = join_adjacent(columns[:, 0], columns[:, 1])
        self._hub: Hub = own_hub()
        self._pagemap = Pagemap(self._hub.process)
        self._pending = no_bits()
        self._clearing_s = 0.0
        self._faults_s = 0.0
        self._hub.join(self)

    @property
    def generation(self) -> int:
        return self._pagemap.generation

    @property
    def clears(self) -> ClearKind:
        return ClearKind.SOFT_DIRTY

    @property
    def min_sampling_interval_s(self) -> float:
        """Clearing, and the faults after it, are a small share of this."""
        return shortest_interval_s(self._clearing_s + self._faults_s)

    def ranges(self) -> list[Range]:
        """What of the ranges is mapped still."""
        start, end = self._mapped()
        return list(zip(start.tolist(), end.tolist(), strict=True))

    def look(self) -> PageBits:
        """The pages that are present, and whether they were written since they were cleared."""
        with self._hub.lock:
            bits = merged(self._read(), self._pending)
            self._note_faults(bits)
            return bits

    def swapped(self) -> Addresses:
        """The units of 2 MiB in which some memory is in swap."""
        runs = self._pagemap.scan(*self._mapped(), any_of=PageCategory.SWAPPED, report=PageCategory.SWAPPED)
        return units_of(runs.starts, runs.ends)

    def clear(self, bits: PageBits) -> PageBits:
        """Clear the marks of the whole process; its other watches have seen theirs before.  All of them clear."""
        with self._hub.lock:
            began_s = time.monotonic()
            self._hub.clear_everything(ClearKind.SOFT_DIRTY, self)
            cost_s = time.monotonic() - began_s
            self._clearing_s += (cost_s - self._clearing_s) / (_MEMORY if self._clearing_s else 1)
            self._pending = without(self._pending, bits)
        return bits.take(np.zeros(0, np.int64))

    def clear_everything(self, *, longest_stall_s: float) -> bool:
        """There is no other way."""
        del longest_stall_s
        return True

    def collect(self) -> None:
        """Another watch is about to clear everything."""
        found = self._read()
        self._pending = merged(found.take(np.flatnonzero(found.accessed.any(axis=1))), self._pending)

    def close(self) -> None:
        """May be called again, and in the child of a fork."""
        if self._hub is own_hub():
            self._hub.leave(self)
        self._pagemap.close()

    def _mapped(self) -> tuple[Addresses, Addresses]:
        mappings = parse_maps(self._hub.process.read_file("maps"))
        start, end, _, _ = intersect(*join_adjacent(mappings.starts, mappings.ends), self._start, self._end)
        return start, end

    def _read(self) -> PageBits:
        start, end = self._mapped()
        if self._pagemap.uses_scan:
            return self._scanned(start, end)
        pages = [np.zeros(0, np.uint64)]
        written = [np.zeros(0, np.bool_)]
        for low, high in zip(start.tolist(), end.tolist(), strict=True):
            entries = self._pagemap.read(low, high)
            here = np.flatnonzero(is_present(entries))
            pages.append(np.uint64(low) + here.astype(np.uint64) * np.uint64(PAGE_SIZE))
            written.append(is_soft_dirty(entries)[here])
        page, dirty = np.concatenate(pages), np.concatenate(written)
        length = np.uint64(PAGE_SIZE)
        return self._bits(*join_adjacent(page, page + length), *join_adjacent(page[dirty], page[dirty] + length))

    def _scanned(self, start: Addresses, end: Addresses) -> PageBits:
        report = PageCategory.SOFT_DIRTY | PageCategory.HUGE
        runs = self._pagemap.scan(start, end, any_of=PageCategory.PRESENT, report=report)
        dirty = (runs.categories & np.uint64(PageCategory.SOFT_DIRTY)) != 0
        huge = (runs.categories & np.uint64(PageCategory.HUGE)) != 0
        bits = self._bits(*join_adjacent(runs.starts, runs.ends), *join_adjacent(runs.starts[dirty], runs.ends[dirty]))
        in_huge = mask_of(bits.address, *join_adjacent(runs.starts[huge], runs.ends[huge]))
        bits.is_huge[:] = (in_huge == ~np.uint64(0)).all(axis=1)
        return bits

    def _bits(self, start: Addresses, end: Addresses, dirty_start: Addresses, dirty_end: Addresses) -> PageBits:
        units = units_of(start, end)
        whole = PageBits(
            units, np.zeros(len(units), np.bool_), mask_of(units, start, end), mask_of(units, dirty_start, dirty_end)
        )
        return limited(whole, self._start, self._end)

    def _note_faults(self, bits: PageBits) -> None:
        """Each page that is written between two clears costs one fault; how many, these pages tell."""
        present = page_count(bits.present)
        if present:
            pages = self._hub.process.rss_bytes() // PAGE_SIZE * page_count(bits.accessed) / present
            self._faults_s += (pages * _FAULT_S - self._faults_s) / _MEMORY
