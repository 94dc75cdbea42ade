"""What an action really changed: looked at before and after, never taken from a system call's word.

A neighbour's tool reported a gigabyte paged out on a host without swap, where nothing had changed.
A target may also unmap, free, or end while it is acted on; what it gave up itself is not counted.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from memtherm.act.effect import Effect, Subject
from memtherm.act.file_pages import are_of_files, find_file_pages
from memtherm.act.huge_advice import HugeAdviceEffect
from memtherm.act.migrate import MigrateEffect
from memtherm.act.pieces import gaps_between
from memtherm.core.ranges import Addresses, Counts, Flags, overlap_bytes, sizes
from memtherm.core.scheme import Action
from memtherm.errors import NotPermitted
from memtherm.linux.capabilities import missing
from memtherm.linux.maps import DetailedMappings, Mappings, read_maps, read_smaps
from memtherm.linux.page_flags import PageFlag, read_page_flags
from memtherm.linux.pagemap import IN_MEMORY_OR_SWAP, PageCategory, frame_numbers, is_exclusive
from memtherm.linux.swap import read_meminfo
from memtherm.units import PAGE_SIZE

# Pages whose reclaim state is looked at after COLD, each about 15 µs: enough for a share to within 6 %.
_COLD_LOOKS = 256
# Read-ahead goes on after the call: it has ended when nothing came in this time, and counts for this time at most.
_READAHEAD_PAUSE_S = 0.05
_READAHEAD_MAX_S = 0.5

Runs = tuple[Addresses, Addresses, Counts]
"""Start, end and piece of runs, ascending and disjoint."""


@dataclass(frozen=True)
class PageCounts:
    """Bytes of each piece by what its pages are; the shared page of zeros holds nothing and is none of them.

    Attributes:
        in_memory: start, end and piece of the first two.
        in_swap: start, end and piece of the last.
    """

    anonymous: Counts
    file: Counts
    swapped: Counts
    in_memory: Runs
    in_swap: Runs


def count_pages(subject: Subject) -> PageCounts:
    """What the pages of each piece are now."""
    pieces = subject.pieces
    runs = subject.pagemap.scan(
        pieces.start,
        pieces.end,
        any_of=IN_MEMORY_OR_SWAP,
        report=IN_MEMORY_OR_SWAP | PageCategory.FILE | PageCategory.ZERO,
    )

    def bytes_of(which: Flags) -> Counts:
        return overlap_bytes(pieces.start, pieces.end, runs.starts[which], runs.ends[which])

    def runs_of(which: Flags) -> Runs:
        start, end, _, piece = pieces.parts_of(runs.starts[which], runs.ends[which])
        return start, end, piece

    is_present, is_file, is_zero = (
        (runs.categories & np.uint64(category)) != 0
        for category in (PageCategory.PRESENT, PageCategory.FILE, PageCategory.ZERO)
    )
    return PageCounts(
        anonymous=bytes_of(is_present & ~is_file & ~is_zero),
        file=bytes_of(is_present & is_file),
        swapped=bytes_of(~is_present),
        in_memory=runs_of(is_present & ~is_zero),
        in_swap=runs_of(~is_present),
    )


class PageoutEffect:
    """Anonymous pages that are in swap now, and pages of files and of shared memory that are not mapped any more."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._before = count_pages(subject)
        self.possible_bytes: Counts = self._before.anonymous + self._before.file

    def possible_runs(self) -> Runs:
        return self._before.in_memory

    def applied_bytes(self) -> Counts:
        before, after = self._before, count_pages(self._subject)
        # Not what is no longer present: a target that frees memory, or ends, takes it away too.
        to_swap = np.clip(after.swapped - before.swapped, 0, before.anonymous)
        dropped = np.where(_are_mapped_still(self._subject), np.maximum(before.file - after.file, 0), 0)
        applied: Counts = to_swap + dropped
        return applied


class ColdEffect:
    """Pages that reclaim now holds for inactive and unused, estimated from a few of each piece."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        counts = count_pages(subject)
        self.possible_bytes: Counts = counts.anonymous + counts.file
        self._in_memory = counts.in_memory
        # What cannot be verified is not done.  Without CAP_SYS_ADMIN pagemap shows no frame numbers.
        if missing(("CAP_SYS_ADMIN",)):
            raise NotPermitted("cannot verify cold: pagemap hides frame numbers", hint="run as root with CAP_SYS_ADMIN")
        read_page_flags(np.zeros(0, np.uint64))

    def possible_runs(self) -> Runs:
        return self._in_memory

    def applied_bytes(self) -> Counts:
        pieces, pagemap = self._subject.pieces, self._subject.pagemap
        runs = pagemap.scan(
            pieces.start, pieces.end, any_of=PageCategory.PRESENT, report=PageCategory.PRESENT | PageCategory.ZERO
        )
        real = (runs.categories & np.uint64(PageCategory.ZERO)) == 0
        present = overlap_bytes(pieces.start, pieces.end, runs.starts[real], runs.ends[real])
        pages, piece = _some_pages(*pieces.parts_of(runs.starts[real], runs.ends[real]))
        if len(pages) == 0:
            return np.zeros(len(pieces), np.int64)
        entries = np.concatenate([pagemap.read(page, page + PAGE_SIZE) for page in pages.tolist()])
        # Of a page that others map too the kernel takes no notice (damon-spec §5.2).
        flags = read_page_flags(frame_numbers(entries))
        is_cold = ((flags & np.uint64(PageFlag.ACTIVE | PageFlag.REFERENCED)) == 0) & is_exclusive(entries)
        looks = np.bincount(piece, minlength=len(pieces))
        share = np.bincount(piece, weights=is_cold, minlength=len(pieces)) / np.maximum(looks, 1)
        return (np.minimum(present, self.possible_bytes) * share).astype(np.int64)


class CollapseEffect:
    """Growth of huge pages: of each piece by PAGEMAP_SCAN; before 6.7 of its mapping, shared out among its pieces."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        if subject.pagemap.uses_scan:
            self._runs = self._huge_runs()
            self._before = overlap_bytes(subject.pieces.start, subject.pieces.end, *self._runs)
        else:
            self._runs = np.zeros(0, np.uint64), np.zeros(0, np.uint64)
            self._before = self._shared_out(subject.mappings)
        self.possible_bytes: Counts = subject.pieces.size_bytes - self._before

    def possible_runs(self) -> Runs:
        pieces = self._subject.pieces
        start, end, _, piece = pieces.parts_of(*gaps_between(*self._runs))
        left = self.possible_bytes[piece] > 0
        return start[left], end[left], piece[left]

    def applied_bytes(self) -> Counts:
        pieces = self._subject.pieces
        if self._subject.pagemap.uses_scan:
            after = overlap_bytes(pieces.start, pieces.end, *self._huge_runs())
        else:
            after = self._shared_out(read_smaps(self._subject.process))
        grown: Counts = np.maximum(after - self._before, 0)
        return grown

    def _huge_runs(self) -> tuple[Addresses, Addresses]:
        pieces = self._subject.pieces
        runs = self._subject.pagemap.scan(pieces.start, pieces.end, any_of=PageCategory.HUGE, report=PageCategory.HUGE)
        return runs.starts, runs.ends

    def _shared_out(self, mappings: DetailedMappings) -> Counts:
        pieces = self._subject.pieces
        starts = self._subject.mappings.mappings.starts
        row = np.minimum(np.searchsorted(mappings.mappings.starts, starts), len(mappings) - 1)
        huge = (mappings.anonymous_huge_bytes + mappings.file_huge_bytes)[row]
        huge[mappings.mappings.starts[row] != starts] = 0
        share = pieces.size_bytes / np.bincount(pieces.mapping, weights=pieces.size_bytes)[pieces.mapping]
        return np.minimum(huge[pieces.mapping] * share, pieces.size_bytes).astype(np.int64)


class WillneedEffect:
    """Growth of the page cache for files and shared memory; for anonymous memory, of the host's swap cache."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        pieces = subject.pieces
        self._is_cached = are_of_files(subject.mappings.mappings)[pieces.mapping]
        self._missing = self._find_pages(cached=False)
        self._missing_bytes = overlap_bytes(pieces.start, pieces.end, *self._missing)
        counts = count_pages(subject)
        self._swapped = np.where(self._is_cached, 0, counts.swapped)
        self._in_swap = counts.in_swap
        self._swap_cached_bytes = read_meminfo().get("SwapCached", 0)
        self.possible_bytes: Counts = np.where(self._is_cached, self._missing_bytes, self._swapped)

    def possible_runs(self) -> Runs:
        start, end, piece = self._in_swap
        anonymous = ~self._is_cached[piece]
        missing_start, missing_end, _, missing_piece = self._subject.pieces.parts_of(*self._missing)
        start = np.concatenate((start[anonymous], missing_start))
        order = np.argsort(start)
        end = np.concatenate((end[anonymous], missing_end))
        return start[order], end[order], np.concatenate((piece[anonymous], missing_piece))[order]

    def applied_bytes(self) -> Counts:
        brought_in = await_readahead(self._brought_in, self._missing_bytes)
        in_swap_cache = max(0, read_meminfo().get("SwapCached", 0) - self._swap_cached_bytes)
        share = min(1.0, in_swap_cache / max(1, int(self._swapped.sum())))
        return np.where(self._is_cached, brought_in, (self._swapped * share).astype(np.int64))

    def _brought_in(self) -> Counts:
        """For each piece the bytes that are in the page cache now and were not."""
        start, end, _, piece = self._subject.pieces.parts_of(*self._missing)
        grown: Counts = np.zeros(len(self._subject.pieces), np.int64)
        np.add.at(grown, piece, overlap_bytes(start, end, *self._find_pages(cached=True)))
        return grown

    def _find_pages(self, *, cached: bool) -> tuple[Addresses, Addresses]:
        subject = self._subject
        return find_file_pages(subject.process, subject.pieces, subject.mappings.mappings, cached=cached)


def await_readahead(brought_in: Callable[[], Counts], missing_bytes: Counts) -> Counts:
    """For each piece the bytes that have come: asked again until all have, or none come any more."""
    came = brought_in()
    began_s = grown_s = time.monotonic()
    while True:
        now_s = time.monotonic()
        came_all = (came >= missing_bytes).all()
        if came_all or now_s > min(grown_s + _READAHEAD_PAUSE_S, began_s + _READAHEAD_MAX_S):
            return came
        time.sleep(_READAHEAD_PAUSE_S / 10)
        before, came = came, brought_in()
        if came.sum() > before.sum():
            grown_s = time.monotonic()


# How each action that can be done is looked at.
EFFECTS: dict[Action, Callable[[Subject], Effect]] = {
    Action.PAGEOUT: PageoutEffect,
    Action.COLD: ColdEffect,
    Action.COLLAPSE: CollapseEffect,
    Action.WILLNEED: WillneedEffect,
    Action.HUGEPAGE: partial(HugeAdviceEffect, action=Action.HUGEPAGE),
    Action.NOHUGEPAGE: partial(HugeAdviceEffect, action=Action.NOHUGEPAGE),
    Action.MIGRATE_HOT: MigrateEffect,
    Action.MIGRATE_COLD: MigrateEffect,
}


def _are_mapped_still(subject: Subject) -> Flags:
    """For each piece whether the same part of the same file is mapped there now."""
    now, pieces = read_maps(subject.process), subject.pieces
    if len(now) == 0:
        return np.zeros(len(pieces), np.bool_)
    then = subject.mappings.mappings
    row = np.maximum(np.searchsorted(now.starts, pieces.start, side="right") - 1, 0)
    is_inside = (now.starts[row] <= pieces.start) & (now.ends[row] >= pieces.end)
    is_same_file = (now.devices[row] == then.devices[pieces.mapping]) & (now.inodes[row] == then.inodes[pieces.mapping])
    # Of a mapping that has grown, or was split, the start has moved and the offset with it.
    is_same_part = _file_base(now)[row] == _file_base(then)[pieces.mapping]
    still: Flags = is_inside & is_same_file & is_same_part
    return still


def _file_base(mappings: Mappings) -> Addresses:
    """Where the start of the file would lie; it wraps below 0, alike for equal ones."""
    return mappings.starts - mappings.offsets


def _some_pages(start: Addresses, end: Addresses, _: Counts, piece: Counts) -> tuple[Addresses, Counts]:
    """Pages spread evenly over parts of pieces, and the first of each piece; with the pieces that they lie in."""
    pages = sizes(start, end) // PAGE_SIZE
    total = int(pages.sum())
    if total == 0:
        return start[:0], piece[:0]
    below = np.concatenate(([0], np.cumsum(pages)))
    chosen = np.linspace(0, total - 1, min(_COLD_LOOKS, total)).astype(np.int64)
    chosen = np.union1d(chosen, below[np.unique(piece, return_index=True)[1]])
    row = np.searchsorted(below, chosen, side="right") - 1
    return start[row] + ((chosen - below[row]) * PAGE_SIZE).astype(np.uint64), piece[row]
