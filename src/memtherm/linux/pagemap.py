"""Which pages are present, swapped, huge or file-backed: /proc/PID/pagemap and its PAGEMAP_SCAN (damon-spec §5.5)."""

import errno
import fcntl
import os
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntFlag
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from memtherm.errors import InvalidInput, NotSupported, TargetGone
from memtherm.linux.hidden import is_hidden
from memtherm.linux.process import Process
from memtherm.units import PAGE_SIZE

_SCAN_REQUEST = 0xC0606610
_SCAN_ARGUMENT = struct.Struct("=12Q")
_SCAN_RECORDS = 8192
# PM_SCAN_WP_MATCHING.
_WRITE_PROTECT = 1
_READ_PAGES = 64 * 1024
# A gap this short is looked at and left out of the result, which is cheaper than one more call (measured on 6.18:
# 2.6 µs for a scan, 60 µs for a reading with its arrays, 50 ns for a page in memory).
_SCAN_GAP_BYTES = 32 * PAGE_SIZE
_READ_GAP_BYTES = 512 * PAGE_SIZE


class PageCategory(IntFlag):
    """PAGE_IS_* of the kernel.  The fallback without PAGEMAP_SCAN knows FILE, PRESENT and SWAPPED.

    WRITE_TRACKED: in a mapping whose writes a userfaultfd tracks asynchronously.  WRITTEN: there, not write-protected;
    before Linux 7.3 in every other mapping too, where it says nothing.  ACCESSED (Linux 7.3, EINVAL before): in a
    mapping whose accesses a userfaultfd tracks, not protected.
    """

    WRITE_TRACKED = 1
    WRITTEN = 2
    FILE = 4
    PRESENT = 8
    SWAPPED = 16
    ZERO = 32
    HUGE = 64
    SOFT_DIRTY = 128
    ACCESSED = 512


IN_MEMORY_OR_SWAP = PageCategory.PRESENT | PageCategory.SWAPPED
_ALL = IN_MEMORY_OR_SWAP | PageCategory.FILE | PageCategory.ZERO | PageCategory.HUGE

# Bits 61, 62, 63 of an entry, as categories.
_CATEGORIES = np.array(
    [
        (PageCategory.FILE if bits & 1 else 0)
        | (PageCategory.SWAPPED if bits & 2 else 0)
        | (PageCategory.PRESENT if bits & 4 else 0)
        for bits in range(8)
    ],
    np.uint64,
)


@dataclass(frozen=True)
class PageRuns:
    """Neighbouring pages of one kind, ascending, disjoint.

    Attributes:
        starts, ends: uint64, bytes.
        categories: uint64, bits of PageCategory.
    """

    starts: NDArray[np.uint64]
    ends: NDArray[np.uint64]
    categories: NDArray[np.uint64]

    def bytes_with(self, category: PageCategory) -> int:
        """Total length of the runs that have all bits of `category`."""
        wanted = (self.categories & np.uint64(category)) == np.uint64(category)
        return int((self.ends - self.starts)[wanted].sum())


@dataclass(frozen=True)
class PageCounts:
    """What the pages of some ranges are.

    Attributes:
        present_bytes: mapped in the page table; the shared page of zeros is in it, unlike in Rss.
        swapped_bytes: anonymous pages in swap, or migrating; swapped shared memory is not seen here.
        file_bytes: of the present ones, those of a file or of shared memory.
        huge_bytes: of the present ones, those mapped as huge pages; None without PAGEMAP_SCAN.
        zero_bytes: of the present ones, the shared page of zeros; None without PAGEMAP_SCAN.
    """

    present_bytes: int
    swapped_bytes: int
    file_bytes: int
    huge_bytes: int | None
    zero_bytes: int | None


def _has_bit(entries: NDArray[np.uint64], bit: int) -> NDArray[np.bool_]:
    return ((entries >> np.uint64(bit)) & np.uint64(1)).astype(np.bool_)


def is_present(entries: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Bit 63 of pagemap entries."""
    return _has_bit(entries, 63)


def is_swapped(entries: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Bit 62 of pagemap entries."""
    return _has_bit(entries, 62)


def is_file(entries: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Bit 61 of pagemap entries: page of a file or of shared memory."""
    return _has_bit(entries, 61)


def is_exclusive(entries: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Bit 56 of pagemap entries: mapped by nobody else, so that MADV_COLD and MADV_PAGEOUT do not skip it."""
    return _has_bit(entries, 56)


def is_soft_dirty(entries: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Bit 55 of pagemap entries: written since clear_refs 4; always 0 where the kernel lacks it."""
    return _has_bit(entries, 55)


def frame_numbers(entries: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Bits 0–54 of pagemap entries where present, else 0; all 0 without CAP_SYS_ADMIN in the first user namespace."""
    return np.where(is_present(entries), entries & np.uint64((1 << 55) - 1), np.uint64(0))


def checked_ranges(starts: ArrayLike, ends: ArrayLike) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """`starts` and `ends` as uint64, without empty ranges.

    Raises InvalidInput unless they are whole pages, ascending and disjoint.
    """
    begin, end = np.atleast_1d(np.asarray(starts, np.uint64)), np.atleast_1d(np.asarray(ends, np.uint64))
    if begin.shape != end.shape or begin.ndim != 1:
        raise InvalidInput(f"{begin.shape} starts and {end.shape} ends", hint="give one end for each start")
    if np.any((begin | end) & np.uint64(PAGE_SIZE - 1)):
        raise InvalidInput("a range does not begin and end on a page border", hint="round to 4096 bytes")
    if np.any(end < begin) or np.any(begin[1:] < end[:-1]):
        raise InvalidInput("ranges must be ascending and disjoint", hint="sort and merge them first")
    filled = end > begin
    return (begin, end) if filled.all() else (begin[filled], end[filled])


class Pagemap:
    """The page map of one open process.  A context manager.

    Needs ptrace read access to the process.  Follows it through exec.  Raises TargetGone once it has ended.

    Attributes:
        uses_scan: by PAGEMAP_SCAN; else page by page.
        generation: how often it was seen that the process has replaced its memory by exec.
    """

    def __init__(self, process: Process) -> None:
        self._process = process
        self._file = process.open_file("pagemap")
        self.generation = 0
        self.uses_scan = not is_hidden("pagemap_scan") and supports_scan(self._file)
        self._records = np.empty((_SCAN_RECORDS if self.uses_scan else 0, 3), np.uint64)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the descriptor.  May be called again."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def read(self, start: int, end: int) -> NDArray[np.uint64]:
        """The entry of each page of [start, end); 0 for a page that is not there.  8 bytes a page."""
        checked_ranges([start], [end])
        self._follow_exec()
        return np.concatenate([np.empty(0, np.uint64), *self._read_parts(start, end)])

    def read_pages(self, addresses: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """The entry of the page of each address, in this order; 0 for a page that is not there.  1 µs a page."""
        self._follow_exec()
        entries = np.zeros(len(addresses), np.uint64)
        slots = entries.data.cast("B")
        try:
            for index, page in enumerate((addresses // np.uint64(PAGE_SIZE)).tolist()):
                os.preadv(self._file, [slots[8 * index : 8 * index + 8]], page * 8)
        except OSError as error:
            raise self._process.translate(error, "pagemap") from error
        # A process that ends while we look seems to lose its pages.
        self._process.check_alive()
        return entries

    def count(self, starts: ArrayLike, ends: ArrayLike) -> PageCounts:
        """Sums over the ranges, which are whole pages, ascending and disjoint (InvalidInput otherwise)."""
        totals: dict[PageCategory, int] = dict.fromkeys(_ALL, 0)
        for runs in self._scan_parts(*checked_ranges(starts, ends), IN_MEMORY_OR_SWAP, _ALL):
            totals[PageCategory.SWAPPED] += runs.bytes_with(PageCategory.SWAPPED)
            for category in (PageCategory.PRESENT, PageCategory.FILE, PageCategory.HUGE, PageCategory.ZERO):
                totals[category] += runs.bytes_with(PageCategory.PRESENT | category)
        return PageCounts(
            present_bytes=totals[PageCategory.PRESENT],
            swapped_bytes=totals[PageCategory.SWAPPED],
            file_bytes=totals[PageCategory.FILE],
            huge_bytes=totals[PageCategory.HUGE] if self.uses_scan else None,
            zero_bytes=totals[PageCategory.ZERO] if self.uses_scan else None,
        )

    def scan(
        self,
        starts: ArrayLike,
        ends: ArrayLike,
        *,
        any_of: PageCategory = IN_MEMORY_OR_SWAP,
        report: PageCategory = _ALL,
    ) -> PageRuns:
        """Runs of the pages that have one of the categories `any_of`, told apart by the categories in `report`.

        The ranges are whole pages, ascending and disjoint (InvalidInput otherwise); a run goes on from one
        range into an adjoining one.
        """
        return _joined(self._scan_parts(*checked_ranges(starts, ends), any_of, report))

    def write_protect(self, starts: ArrayLike, ends: ArrayLike) -> PageRuns:
        """Write-protect the pages that are present and WRITTEN, and no others.  Returns them: seen and protected in
        one step, so that no write between is lost.

        Does nothing where no userfaultfd tracks writes asynchronously.  A huge page that lies in a range whole stays
        one.  Raises NotSupported without PAGEMAP_SCAN.
        """
        if not self.uses_scan:
            raise NotSupported("this kernel has no PAGEMAP_SCAN", hint="Linux 6.7 or newer is needed")
        begin, end = checked_ranges(starts, ends)
        self._follow_exec()
        wanted = PageCategory.PRESENT | PageCategory.WRITTEN
        spans = list(zip(begin.tolist(), end.tolist(), strict=True))
        found = self._scan_spans(spans, PageCategory(0), _ALL | wanted, all_of=wanted, flags=_WRITE_PROTECT)
        return _joined(found)

    def _scan_parts(
        self, starts: NDArray[np.uint64], ends: NDArray[np.uint64], any_of: PageCategory, report: PageCategory
    ) -> Iterator[PageRuns]:
        self._follow_exec()
        find = self._scan_spans if self.uses_scan else self._read_spans
        spans = _spans(starts, ends, gap_bytes=_SCAN_GAP_BYTES if self.uses_scan else _READ_GAP_BYTES)
        for runs in find(spans, any_of, report):
            yield _clipped(runs, starts, ends)
        # A process that ends while we look seems to lose its pages.
        self._process.check_alive()

    def _scan_spans(
        self,
        spans: list[tuple[int, int]],
        any_of: PageCategory,
        report: PageCategory,
        *,
        all_of: int = 0,
        flags: int = 0,
    ) -> Iterator[PageRuns]:
        records, filled = self._records, 0
        address = records.ctypes.data
        for span_start, end in spans:
            start = span_start
            while start < end:
                room = len(records) - filled
                vector = address + filled * records.itemsize * 3
                argument = bytearray(
                    _SCAN_ARGUMENT.pack(
                        *(_SCAN_ARGUMENT.size, flags, start, end, 0, vector, room, 0, 0, all_of, any_of, report)
                    )
                )
                try:
                    found = fcntl.ioctl(self._file, _SCAN_REQUEST, argument)
                except OSError as error:
                    raise self._process.translate(error, "pagemap") from error
                # Records left over mean that the walk came to its end.  walk_end does not tell: the kernel sets it
                # where one of its own buffers of 512 records is full, and leaves it there when the rest fits (seen
                # on 6.18: the last 1024 pages came twice).
                if found < room:
                    filled += found
                    break
                yield _runs(records.copy())
                filled = 0
                walked_to = max(_SCAN_ARGUMENT.unpack(argument)[4], int(records[-1, 1]))
                if walked_to <= start:
                    raise OSError(errno.EIO, f"PAGEMAP_SCAN stays at {start:#x}")
                start = walked_to
        yield _runs(records[:filled].copy())

    def _read_spans(
        self, spans: list[tuple[int, int]], any_of: PageCategory, report: PageCategory
    ) -> Iterator[PageRuns]:
        # Without PAGEMAP_SCAN (new in 6.7) this reads 8 bytes a page instead.
        for start, end in spans:
            position = start
            for entries in self._read_parts(start, end):
                yield _runs_of_entries(entries, position, any_of, report)
                position += len(entries) * PAGE_SIZE

    def _read_parts(self, start: int, end: int) -> Iterator[NDArray[np.uint64]]:
        while start < end:
            pages = min(_READ_PAGES, (end - start) // PAGE_SIZE)
            entries = np.zeros(pages, np.uint64)
            try:
                # Short at the end of the address space: the rest is not there.
                os.preadv(self._file, [entries.data.cast("B")], start // PAGE_SIZE * 8)
            except OSError as error:
                raise self._process.translate(error, "pagemap") from error
            yield entries
            start += pages * PAGE_SIZE

    def _follow_exec(self) -> None:
        # The descriptor stands for one address space, which exec and exit end: then it reads as empty.
        if not os.pread(self._file, 8, 0):
            self._process.check_alive()
            self.close()
            self._file = self._process.open_file("pagemap")
            self.generation += 1
            if not os.pread(self._file, 8, 0) and not self._process.is_kernel_thread():
                raise TargetGone(f"process {self._process.pid} is ending", hint="it has no memory any more")


def supports_scan(pagemap_file: int) -> bool:
    """Whether the kernel answers PAGEMAP_SCAN on this descriptor of a pagemap (Linux 6.7)."""
    record = np.empty(3, np.uint64)
    present = PageCategory.PRESENT
    argument = bytearray(
        _SCAN_ARGUMENT.pack(_SCAN_ARGUMENT.size, 0, 0, PAGE_SIZE, 0, record.ctypes.data, 1, 0, 0, 0, present, present)
    )
    try:
        fcntl.ioctl(pagemap_file, _SCAN_REQUEST, argument)
    except OSError as error:
        if error.errno in (errno.ENOTTY, errno.EINVAL):
            return False
        raise
    return True


def _spans(starts: NDArray[np.uint64], ends: NDArray[np.uint64], *, gap_bytes: int) -> list[tuple[int, int]]:
    """Ranges with short gaps between them as one."""
    if not len(starts):
        return []
    is_far = starts[1:] - ends[:-1] > gap_bytes
    firsts = starts[np.concatenate(([True], is_far))]
    lasts = ends[np.concatenate((is_far, [True]))]
    return list(zip(firsts.tolist(), lasts.tolist(), strict=True))


def _joined(parts: Iterable[PageRuns]) -> PageRuns:
    """Buffers, here and in the kernel, cut runs: those that adjoin and are alike as one."""
    parts = [_runs(np.empty((0, 3), np.uint64)), *parts]
    starts = np.concatenate([part.starts for part in parts])
    ends = np.concatenate([part.ends for part in parts])
    categories = np.concatenate([part.categories for part in parts])
    is_first = np.ones(len(starts), np.bool_)
    is_first[1:] = (starts[1:] != ends[:-1]) | (categories[1:] != categories[:-1])
    is_last = np.append(is_first[1:], True)[: len(starts)]
    return PageRuns(starts=starts[is_first], ends=ends[is_last], categories=categories[is_first])


def _runs(records: NDArray[np.uint64]) -> PageRuns:
    return PageRuns(starts=records[:, 0], ends=records[:, 1], categories=records[:, 2])


def _runs_of_entries(entries: NDArray[np.uint64], start: int, any_of: PageCategory, report: PageCategory) -> PageRuns:
    found = _CATEGORIES[entries >> np.uint64(61)]
    is_wanted = (found & np.uint64(any_of)) != 0
    found &= np.uint64(report)
    borders = np.flatnonzero((found[1:] != found[:-1]) | (is_wanted[1:] != is_wanted[:-1])) + 1
    firsts = np.concatenate(([0], borders))
    lasts = np.concatenate((borders, [len(entries)]))
    kept = is_wanted[firsts]
    base, page = np.uint64(start), np.uint64(PAGE_SIZE)
    return PageRuns(
        starts=base + firsts[kept].astype(np.uint64) * page,
        ends=base + lasts[kept].astype(np.uint64) * page,
        categories=found[firsts[kept]],
    )


def _clipped(runs: PageRuns, starts: NDArray[np.uint64], ends: NDArray[np.uint64]) -> PageRuns:
    """What of `runs` lies in the ranges; a run that spans several ranges is cut in as many."""
    # Of each run: the first range that ends behind its start, the first that starts at or behind its end.
    first = np.searchsorted(ends, runs.starts, side="right")
    behind = np.searchsorted(starts, runs.ends, side="left")
    pieces = np.maximum(behind - first, 0)
    run = np.repeat(np.arange(len(pieces)), pieces)
    range_index = first[run] + np.arange(len(run)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    return PageRuns(
        starts=np.maximum(runs.starts[run], starts[range_index]),
        ends=np.minimum(runs.ends[run], ends[range_index]),
        categories=runs.categories[run],
    )
