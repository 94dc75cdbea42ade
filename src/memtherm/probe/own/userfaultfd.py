"""See accesses to own memory by userfaultfd: a page is protected, and its next access shows (damon-spec §5.5, §5.7).

Facts (RWP on Linux 7.3 as an ordinary user, writes on 6.18), and what they mean here:
1. A protected page costs the program one fault at its next access, 0.8 to 1.0 µs; an idle one stays protected for
   nothing.  So `target_s_per_page` tells the census what clearing costs, and it clears no more than it may cost.
2. Tracking all accesses protects a huge page as one, and it stays one.  Tracking writes splits its mapping at the
   first write: then each of its pages costs a fault, and has a bit of its own.  A numpy kernel that streams through
   1 GiB took 15 to 20 % longer in small pages, in a virtual machine.  `close` gets the huge pages back (0.1 to 0.25 s
   for 1 GiB).
3. The mark goes with a page to swap and back.  MADV_DONTNEED drops it: what comes anew counts as accessed.  A page
   that comes back from swap without it, since it was written shortly before, counts as written though it is only
   read; so does a page of a file that is new in memory.
4. MADV_COLLAPSE refuses (EINVAL) memory with protected pages: `release` them before.
5. Memory beyond the ranges is left alone: a huge page across their edge is split there.
"""

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import numpy as np
from numpy.typing import NDArray

from memtherm.core.census import PAGES, PageBits
from memtherm.core.ranges import Addresses, intersect, join_adjacent, sizes
from memtherm.core.regions import Range
from memtherm.errors import InvalidInput, NotSupported, TargetGone
from memtherm.linux.advise import Advice
from memtherm.linux.libc import madvise
from memtherm.linux.maps import read_maps
from memtherm.linux.pagemap import IN_MEMORY_OR_SWAP, PageCategory, Pagemap, PageRuns, checked_ranges
from memtherm.linux.process import open_process
from memtherm.linux.userfaultfd import Mode, UserFaultFd
from memtherm.units import HUGE_PAGE_SIZE, PAGE_SIZE, format_size

# At once: bounds the memory for a look, and the time between seeing and protecting (about 1 ms for 32 MiB).
_UNITS_A_SCAN = 4096
_UNITS_A_CLEAR = 16
# So many runs of those 32 MiB are protected one by one, and nothing else: an access after they were found shows at
# the next look.  Where there are more, gaps are bridged, since each call interrupts every CPU that runs the program:
# then an access in a gap in that millisecond is lost.
_EXACT_RUNS = 64
_GAP = np.uint64(16 * PAGE_SIZE)
_UNIT = np.uint64(HUGE_PAGE_SIZE)
_PAGE = np.uint64(PAGE_SIZE)
_NOTHING = np.zeros(0, np.uint64)


class _TrackingCensusProbe:
    """What both ways have in common.  Threads may share one; in a child made by fork only `close` works."""

    name: str
    clearing = "protect"
    generation = 0
    min_sampling_interval_s = 0.0
    #: What clearing the bit of a page, or of a huge page, costs the program at its next access: a fault of about 1 µs,
    #: and what it displaces from caches and TLB.  With 1.5 µs a program that writes 1 GiB over and over became 3.5 %
    #: slower where 1 % was meant, with 6 µs 1.2 %.
    target_s_per_page = 9e-6
    _mode: Mode

    def __init__(self, ranges: Sequence[Range]) -> None:
        """Track these ranges of own memory: whole pages, ascending, disjoint.

        Raises InvalidInput, NotSupported and NotPermitted (no such way here, or memory of a kind that cannot be
        tracked), TargetBusy where the program, or another watch, has a userfaultfd on some of it.
        """
        starts, ends = np.array(ranges, np.uint64).reshape(-1, 2).T
        self._start, self._end = join_adjacent(*checked_ranges(starts, ends))
        if not len(self._start):
            raise InvalidInput("no memory to watch", hint="give at least one whole page")
        self._lock = threading.Lock()
        self._seen_late: list[PageBits] = []
        self._was_huge = _NOTHING
        self._descriptor = UserFaultFd(self._mode)
        try:
            self._process = open_process(os.getpid())
        except BaseException:
            self._descriptor.close()
            raise
        try:
            self._pagemap = Pagemap(self._process)
        except BaseException:
            self._process.close()
            self._descriptor.close()
            raise
        try:
            if not self._pagemap.uses_scan:
                raise NotSupported("this kernel has no PAGEMAP_SCAN", hint="Linux 6.7 or newer is needed")
            for start, end in self._pairs():
                self._descriptor.register(start, end)
        except BaseException:
            self.close()
            raise

    @property
    def describe_changes(self) -> tuple[str, ...]:
        """What is changed on the mappings while they are watched, in sentences; `close` undoes it."""
        size = format_size(int(sizes(self._start, self._end).sum()))
        return (f"{size} are registered with a userfaultfd ({self._changes})",)

    _changes: str

    def ranges(self) -> list[Range]:
        """What is left of the ranges: mapped, and not mapped anew since."""
        with self._in_turn():
            start, end = self._mapped()
            is_ours = [self._is_tracked(*piece) for piece in zip(start.tolist(), end.tolist(), strict=True)]
            self._start, self._end = join_adjacent(start[is_ours], end[is_ours])
            return self._pairs()

    def look(self) -> PageBits:
        """The present pages of the ranges, and which of them are not protected: accessed, or written, since."""
        with self._in_turn():
            units = _units(self._start, self._end)
            parts = [
                self._look_at(units[first : first + _UNITS_A_SCAN])
                for first in range(0, max(1, len(units)), _UNITS_A_SCAN)
            ]
            bits = PageBits(
                *(
                    np.concatenate([getattr(part, column) for part in parts])
                    for column in ("address", "is_huge", "present", "accessed")
                )
            )
            for late in self._seen_late:
                row, late_row = _same(bits.address, late.address)
                bits.accessed[row] |= late.accessed[late_row] & bits.present[row]
            self._seen_late.clear()
            return bits

    def swapped(self) -> Addresses:
        """The units of 2 MiB in which some memory of the ranges is in swap."""
        with self._in_turn():
            runs = self._pagemap.scan(self._start, self._end, any_of=PageCategory.SWAPPED, report=PageCategory.SWAPPED)
            return _units(runs.starts, runs.ends)

    def clear(self, bits: PageBits) -> PageBits:
        """Protect the accessed pages of these units.  None is left over.

        With them those that were accessed after the look: the next look shows them.
        """
        with self._in_turn():
            for first in range(0, len(bits), _UNITS_A_CLEAR):
                part = bits.take(np.arange(first, min(first + _UNITS_A_CLEAR, len(bits))))
                found = self._protect(part.address)
                late = _painted(part.address, found) & ~part.accessed
                if late.any():
                    self._seen_late.append(PageBits(part.address, part.is_huge, part.present, late))
            return bits.take(np.zeros(0, np.int64))

    def clear_everything(self, *, longest_stall_s: float) -> bool:
        """Never: there is nothing that clears it all at once for less."""
        del longest_stall_s
        return False

    def release(self, start: int, end: int) -> None:
        """Take the protection off this part, for an action that refuses protected pages; until they are cleared."""
        with self._in_turn():
            begin, stop, _, _ = self._within(np.array([start], np.uint64), np.array([end], np.uint64))
            for piece in zip(begin.tolist(), stop.tolist(), strict=True):
                self._descriptor.protect(*piece, is_on=False)

    def close(self) -> None:
        """Undo what was changed on the mappings.  May be called again; in a child made by fork only forget it."""
        # The lock of a child may be held by a thread that it does not have.
        if not self._descriptor.is_ours:
            self._forget()
            return
        with self._lock:
            if self._descriptor.is_ours:
                # Closing alone would not do where a child made by fork has the descriptor, too.
                for start, end in zip(*(side.tolist() for side in self._mapped()), strict=True):
                    self._descriptor.unregister(start, end)
                self._restore_huge_pages()
            self._forget()

    def _look_at(self, units: Addresses) -> PageBits:
        raise NotImplementedError

    def _protect(self, units: Addresses) -> PageRuns:
        """Protect these units; what was not protected before."""
        raise NotImplementedError

    def _is_tracked(self, start: int, end: int) -> bool:
        """Whether this mapped memory is still what was registered, as far as that can be told."""
        raise NotImplementedError

    def _restore_huge_pages(self) -> None:
        """Nothing has changed them."""

    def _scan(self, units: Addresses, *, any_of: PageCategory, report: PageCategory) -> PageRuns:
        start, end, _, _ = self._within(*join_adjacent(units, units + _UNIT))
        return self._pagemap.scan(start, end, any_of=any_of, report=report)

    def _within(
        self, start: Addresses, end: Addresses
    ) -> tuple[Addresses, Addresses, NDArray[np.int64], NDArray[np.int64]]:
        return intersect(start, end, self._start, self._end)

    def _mapped(self) -> tuple[Addresses, Addresses]:
        """The ranges cut at the borders of today's mappings, without what is not mapped."""
        mappings = read_maps(self._process, shared_memory_devices=frozenset())
        start, end, _, _ = self._within(mappings.starts, mappings.ends)
        return start, end

    def _pairs(self) -> list[Range]:
        return list(zip(self._start.tolist(), self._end.tolist(), strict=True))

    @contextmanager
    def _in_turn(self) -> Iterator[None]:
        # Asked before, too: a child's copy of the lock may be held for ever, by a thread that is the parent's.
        self._check_process()
        with self._lock:
            self._check_process()
            yield

    def _check_process(self) -> None:
        if not self._descriptor.is_ours:
            raise TargetGone(
                "the watch is closed, or belongs to the parent of this process", hint="watch anew in the child"
            )

    def _forget(self) -> None:
        self._descriptor.close()
        self._pagemap.close()
        self._process.close()


class RwpCensusProbe(_TrackingCensusProbe):
    """Reads and writes, page by page (Linux 7.3)."""

    name = "userfaultfd"
    _mode = Mode.ACCESSES
    _changes = "VmFlags `ur`): the first access to a page after it was cleared costs a fault of about 1 µs"

    def _look_at(self, units: Addresses) -> PageBits:
        report = PageCategory.PRESENT | PageCategory.HUGE | PageCategory.ACCESSED
        runs = self._scan(units, any_of=PageCategory.PRESENT, report=report)
        return _bits(units, runs, _with(runs, PageCategory.ACCESSED))

    def _protect(self, units: Addresses) -> PageRuns:
        found = self._scan(units, any_of=PageCategory.ACCESSED, report=PageCategory.ACCESSED)
        start, end = found.starts, found.ends
        if len(start) > _EXACT_RUNS:
            is_far = start[1:] - end[:-1] > _GAP
            start, end = start[np.append(True, is_far)], end[np.append(is_far, True)]
            start, end, _, _ = self._within(start, end)
        for begin, stop in zip(start.tolist(), end.tolist(), strict=True):
            self._descriptor.protect(begin, stop)
        return found

    def _is_tracked(self, start: int, end: int) -> bool:
        runs = self._pagemap.scan([start], [end], any_of=IN_MEMORY_OR_SWAP, report=PageCategory.ACCESSED)
        if runs.categories.any():
            return True
        # Every page is protected, so that protecting one more changes nothing; in other memory it is refused.
        page = int(runs.starts[0]) if len(runs.starts) else start
        return self._descriptor.protect(page, page + PAGE_SIZE)


class WriteCensusProbe(_TrackingCensusProbe):
    """Writes only: what is just read looks idle, so no scheme for unused memory may act on it (Linux 6.7)."""

    name = "userfaultfd-writes"
    _mode = Mode.WRITES
    _changes = (
        "VmFlags `uw`): the first write to a page after it was cleared costs a fault of about 1 µs,"
        " and splits the mapping of a huge page"
    )

    def _look_at(self, units: Addresses) -> PageBits:
        shown = PageCategory.PRESENT | PageCategory.HUGE | PageCategory.WRITTEN
        runs = self._scan(
            units, any_of=PageCategory.PRESENT, report=shown | PageCategory.ZERO | PageCategory.WRITE_TRACKED
        )
        runs = _with(runs, PageCategory.WRITE_TRACKED)
        huge = _with(runs, PageCategory.HUGE)
        self._was_huge = np.union1d(self._was_huge, _units(huge.starts, huge.ends))
        # The shared page of zeros has been read only.
        written = _with(runs, PageCategory.WRITTEN, without=PageCategory.ZERO)
        bits = _bits(units, runs, written)
        # After the first write each of its pages has a bit, and costs a fault, of its own.
        return PageBits(bits.address, np.zeros(len(bits), np.bool_), bits.present, bits.accessed)

    def _protect(self, units: Addresses) -> PageRuns:
        start, end, _, _ = self._within(*join_adjacent(units, units + _UNIT))
        return _with(self._pagemap.write_protect(start, end), PageCategory.WRITTEN, without=PageCategory.ZERO)

    def _is_tracked(self, start: int, end: int) -> bool:
        runs = self._pagemap.scan([start], [end], any_of=IN_MEMORY_OR_SWAP, report=PageCategory.WRITE_TRACKED)
        return not len(runs.starts) or bool(runs.categories.any())

    def _restore_huge_pages(self) -> None:
        """Ask for those that are whole in the ranges and present; where that fails, the kernel makes them in time."""
        start, end, _, _ = self._within(*join_adjacent(self._was_huge, self._was_huge + _UNIT))
        units = _units(start, end)
        runs = self._pagemap.scan(start, end, any_of=PageCategory.PRESENT, report=PageCategory.HUGE)
        bits = _bits(units, runs, runs)
        split = bits.address[(bits.present == ~np.uint64(0)).all(axis=1) & ~bits.is_huge]
        for unit in split.tolist():
            with suppress(OSError):
                madvise(unit, HUGE_PAGE_SIZE, Advice.COLLAPSE)


def _units(start: Addresses, end: Addresses) -> Addresses:
    """Addresses of the units of 2 MiB that these ranges touch, ascending."""
    first, last = join_adjacent(start // _UNIT * _UNIT, (end + _UNIT - np.uint64(1)) // _UNIT * _UNIT)
    count = sizes(first, last) // HUGE_PAGE_SIZE
    number = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    return np.repeat(first, count) + number.astype(np.uint64) * _UNIT


def _with(runs: PageRuns, category: PageCategory, *, without: int = 0) -> PageRuns:
    """The runs that have `category` and nothing of `without`."""
    chosen = (runs.categories & np.uint64(category | without)) == np.uint64(category)
    return PageRuns(runs.starts[chosen], runs.ends[chosen], runs.categories[chosen])


def _bits(units: Addresses, present: PageRuns, accessed: PageRuns) -> PageBits:
    """Runs as the bits of those units that have a present page."""
    pages = _painted(units, present)
    huge = _with(present, PageCategory.HUGE)
    rows = np.flatnonzero(pages.any(axis=1))
    return PageBits(
        units[rows], np.isin(units[rows], _units(huge.starts, huge.ends)), pages[rows], _painted(units, accessed)[rows]
    )


def _painted(units: Addresses, runs: PageRuns) -> NDArray[np.uint64]:
    """The pages of runs as bits (uint64[n, 8]) of these units, which hold all of them."""
    edges = np.zeros(len(units) * PAGES + 1, np.int8)
    row = np.searchsorted(units, runs.starts // _UNIT * _UNIT)
    first = row * PAGES + (runs.starts % _UNIT // _PAGE).astype(np.int64)
    edges[first] += 1
    edges[first + sizes(runs.starts, runs.ends) // PAGE_SIZE] -= 1
    pages = np.cumsum(edges[:-1], dtype=np.int8).reshape(-1, PAGES)
    return np.packbits(pages.astype(np.bool_), axis=1, bitorder="little").view(np.uint64)


def _same(address: Addresses, other: Addresses) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where both (ascending) have the same address: index in the one and in the other."""
    _, row, other_row = np.intersect1d(address, other, assume_unique=True, return_indices=True)
    return row, other_row
