"""Filters by pages (damon-spec §2.9): what of the pieces a scheme's filters let through, on runs of like pages.

Memory without a page has no property of one: it is not young, active, huge or of a cgroup.  It is anonymous or
of a file as its mapping is.
"""

from fnmatch import fnmatchcase

import numpy as np

from memtherm.act.file_pages import find_file_pages
from memtherm.act.pieces import Pieces, are_inside, gaps_between, runs_of_pages
from memtherm.core.filters import Filter, FilterKind, default_rejects, judge
from memtherm.core.plan import PlannedAction
from memtherm.core.protocols import Accessed
from memtherm.core.ranges import Addresses, Flags, intersect, join_adjacent
from memtherm.errors import InvalidInput, NotPermitted, TargetGone
from memtherm.linux.capabilities import missing
from memtherm.linux.cgroups import find_cgroup
from memtherm.linux.maps import DetailedMappings, MappingKind
from memtherm.linux.page_flags import PageFlag, head_frames, read_page_cgroups, read_page_flags
from memtherm.linux.pagemap import IN_MEMORY_OR_SWAP, PageCategory, Pagemap, frame_numbers, is_present
from memtherm.linux.process import Process
from memtherm.units import HUGE_PAGE_SIZE, PAGE_SIZE

Runs = tuple[Addresses, Addresses]
"""Start and end of sorted disjoint ranges."""

# To read a page that is not wanted is cheaper than one more call (8 bytes each; a call is some 20 µs).
_GAP_BYTES = np.uint64(256 * PAGE_SIZE)
_BLOCK_PAGES = HUGE_PAGE_SIZE // PAGE_SIZE
_DELETED = " (deleted)"


class PageFilters:
    """The filters by pages, for one apply on one target.

    Args:
        accessed: the memory that was accessed lately; None where no filter asks that.
    """

    def __init__(
        self, process: Process, pagemap: Pagemap, mappings: DetailedMappings, accessed: Accessed | None
    ) -> None:
        self._process = process
        self._pagemap = pagemap
        self._mappings = mappings
        self._accessed = accessed

    def passing(self, planned: PlannedAction, pieces: Pieces) -> Pieces:
        """What filters let through.

        Raises:
            InvalidInput: a filter's cgroup is not there.
            NotPermitted: CAP_SYS_ADMIN is missing for what tells of single page frames.
        """
        filters = [one for one in planned.scheme.filters if not one.is_core]
        faces = ~planned.is_unfiltered[pieces.region]
        if not filters or not faces.any():
            return pieces
        runs = {one: self._runs(one, pieces.take(faces)) for one in filters}
        borders = np.unique(np.concatenate([side for pair in runs.values() for side in pair]))
        cut = pieces.take(faces).cut_at(borders)
        passes, _ = judge(
            filters,
            lambda one: are_inside(cut.start, *runs[one]),
            default_rejects=default_rejects(planned.scheme.filters)[1],
            count=len(cut),
        )
        return _merged(pieces.take(~faces), cut.take(passes)).joined()

    def _runs(self, one: Filter, pieces: Pieces) -> Runs:
        """Where what the filter looks at is so."""
        match one.kind:
            case FilterKind.ANONYMOUS | FilterKind.FILE:
                anonymous = self._anonymous(pieces)
                return anonymous if one.kind is FilterKind.ANONYMOUS else gaps_between(*anonymous)
            case FilterKind.MAPPING:
                return self._of_mappings(name_matches(self._mappings.mappings.names, one.pattern))
            case FilterKind.YOUNG:
                assert self._accessed is not None
                return self._accessed()
            case FilterKind.HUGE_PAGE:
                return self._of_size(one, pieces)
            case FilterKind.UNMAPPED:
                start, end = find_file_pages(self._process, pieces, self._mappings.mappings, cached=True)
                return _minus((start, end), self._present(pieces))
            case FilterKind.ACTIVE:
                pages, frames = _present_frames(self._pagemap, pieces)
                return runs_of_pages(pages[_flags_of_folios(frames) & np.uint64(PageFlag.ACTIVE) != 0])
            case _:
                return self._of_cgroup(one.cgroup, pieces)

    def _anonymous(self, pieces: Pieces) -> Runs:
        """Pages of no file, in memory or in swap, and what has no page in anonymous mappings."""
        runs = self._pagemap.scan(
            pieces.start, pieces.end, any_of=IN_MEMORY_OR_SWAP, report=PageCategory.FILE | PageCategory.ZERO
        )
        of_file = runs.categories & np.uint64(PageCategory.FILE) != 0
        kinds = self._mappings.mappings.kinds
        empty = _minus(self._of_mappings(kinds == MappingKind.PRIVATE_ANONYMOUS), (runs.starts, runs.ends))
        return join_adjacent(
            np.concatenate((runs.starts[~of_file], empty[0])), np.concatenate((runs.ends[~of_file], empty[1]))
        )

    def _of_cgroup(self, path: str, pieces: Pieces) -> Runs:
        try:
            inode = find_cgroup(path).inode
        except TargetGone as error:
            # Found, and removed before it was looked at; it is not the target that has gone.
            raise InvalidInput(f"no cgroup {path!r}", hint=error.hint) from error
        pages, frames = _present_frames(self._pagemap, pieces)
        return runs_of_pages(pages[read_page_cgroups(frames) == np.uint64(inode)])

    def _of_mappings(self, which: Flags) -> Runs:
        return self._mappings.mappings.starts[which], self._mappings.mappings.ends[which]

    def _of_size(self, one: Filter, pieces: Pieces) -> Runs:
        huge = huge_page_runs(self._pagemap, pieces)
        small_fits, huge_fits = one.size_bytes.contain(np.array([PAGE_SIZE, HUGE_PAGE_SIZE])).tolist()
        nothing = np.zeros(0, np.uint64)
        small = _minus(self._present(pieces), huge) if small_fits else (nothing, nothing)
        if not huge_fits:
            return small
        return join_adjacent(np.concatenate((small[0], huge[0])), np.concatenate((small[1], huge[1])))

    def _present(self, pieces: Pieces) -> Runs:
        runs = self._pagemap.scan(pieces.start, pieces.end, any_of=PageCategory.PRESENT, report=PageCategory.PRESENT)
        return runs.starts, runs.ends


def name_matches(names: list[str], pattern: str) -> Flags:
    """For each mapping whether its path or name fits a shell pattern; of a file that was deleted, the path it had."""
    # A pattern such as [heap] means that name, and not one of four letters: paths begin with a slash.
    shell = f"[[]{pattern[1:]}" if pattern.startswith("[") else pattern
    fits = {name: fnmatchcase(name, shell) or fnmatchcase(name.removesuffix(_DELETED), shell) for name in set(names)}
    return np.array([fits[name] for name in names], np.bool_)


def huge_page_runs(pagemap: Pagemap, pieces: Pieces) -> Runs:
    """What of the pieces is mapped as huge pages of 2 MiB.

    Raises NotPermitted before Linux 6.7 without CAP_SYS_ADMIN.
    """
    if pagemap.uses_scan:
        runs = pagemap.scan(pieces.start, pieces.end, any_of=PageCategory.HUGE, report=PageCategory.HUGE)
        return runs.starts, runs.ends
    # No entry tells of its size: one whole frame of 2 MiB for one aligned 2 MiB is taken for a huge page.
    pages, frames = _present_frames(pagemap, pieces, widen_to=HUGE_PAGE_SIZE)
    block = pages // np.uint64(HUGE_PAGE_SIZE)
    place = (pages // np.uint64(PAGE_SIZE)) % np.uint64(_BLOCK_PAGES)
    base = frames - place
    opens = np.flatnonzero(np.append(True, (block[1:] != block[:-1]) | (base[1:] != base[:-1]))[: len(pages)])
    counts = np.diff(np.append(opens, len(pages)))
    whole = opens[(counts == _BLOCK_PAGES) & (base[opens] % np.uint64(_BLOCK_PAGES) == 0)]
    huge = whole[read_page_flags(frames[whole]) & np.uint64(PageFlag.THP) != 0]
    start = block[huge] * np.uint64(HUGE_PAGE_SIZE)
    return intersect(*join_adjacent(start, start + np.uint64(HUGE_PAGE_SIZE)), *pieces.runs()[:2])[:2]


def _minus(runs: Runs, others: Runs) -> Runs:
    return intersect(*runs, *gaps_between(*others))[:2]


def _merged(one: Pieces, other: Pieces) -> Pieces:
    """Both in address order."""
    order = np.argsort(np.concatenate((one.start, other.start)))
    return Pieces(
        *(
            np.concatenate((getattr(one, column), getattr(other, column)))[order]
            for column in ("start", "end", "region", "mapping")
        )
    )


def _present_frames(pagemap: Pagemap, pieces: Pieces, *, widen_to: int = PAGE_SIZE) -> tuple[Addresses, Addresses]:
    """The pages in memory, without the shared page of zeros, and the page frame of each.

    Args:
        widen_to: the blocks of this size that pieces reach into are looked at whole.
    """
    if missing(("CAP_SYS_ADMIN",)):
        raise NotPermitted("pagemap hides frame numbers", hint="run as root with CAP_SYS_ADMIN")
    block = np.uint64(widen_to)
    start, end = join_adjacent(pieces.start // block * block, (pieces.end + block - np.uint64(1)) // block * block)
    runs = pagemap.scan(start, end, any_of=PageCategory.PRESENT, report=PageCategory.ZERO)
    real = runs.categories & np.uint64(PageCategory.ZERO) == 0
    start, end = runs.starts[real], runs.ends[real]
    # Whoever is far apart is read apart.
    is_far = start[1:] - end[:-1] > _GAP_BYTES
    first, last = start[np.append(True, is_far)[: len(start)]], end[np.append(is_far, True)[: len(end)]]
    pages, frames = [np.zeros(0, np.uint64)], [np.zeros(0, np.uint64)]
    for low, high in zip(first.tolist(), last.tolist(), strict=True):
        entries = pagemap.read(low, high)
        address = np.arange(low, high, PAGE_SIZE, dtype=np.uint64)
        wanted = is_present(entries) & are_inside(address, start, end)
        pages.append(address[wanted])
        frames.append(frame_numbers(entries[wanted]))
    return np.concatenate(pages), np.concatenate(frames)


def _flags_of_folios(frames: Addresses) -> Addresses:
    """The flags of each page frame, of a huge page or large folio those of its first: where reclaim keeps them."""
    flags = read_page_flags(frames)
    tails = np.flatnonzero(flags & np.uint64(PageFlag.COMPOUND_TAIL))
    if len(tails):
        flags[tails] = read_page_flags(head_frames(frames[tails]))
    return flags
