"""What `cold` and `willneed` really changed of this process's own memory, seen without any privilege.

From outside only CAP_SYS_ADMIN shows it (verify.py).  A process may ask smaps and numa_maps for its own mappings, and
mincore for its own pages.
"""

import os
from pathlib import Path

import numpy as np

from memtherm.act.effect import Subject
from memtherm.act.file_pages import are_of_files
from memtherm.act.pieces import Pieces, runs_of_pages
from memtherm.act.verify import Runs, await_readahead, count_pages
from memtherm.core.ranges import Addresses, Counts, Flags, intersect, overlap_bytes, sizes
from memtherm.linux.map_count import read_max_map_count
from memtherm.linux.maps import DetailedMappings, MappingKind, Mappings, read_smaps
from memtherm.linux.numa_maps import read_active
from memtherm.linux.own_advise import are_in_memory, set_apart
from memtherm.linux.pagemap import PageCategory
from memtherm.units import PAGE_SIZE

# Each can make two more mappings for a moment, and costs some µs.
_MOST_APART = 1024


class OwnColdEffect:
    """Pages that reclaim now holds for inactive and unused: a lower bound, exact where ranges can be told apart.

    Of a mapping smaps tells what was referenced, and numa_maps what is active.  So each range is made a mapping of its
    own for the moment of the look; of what is left over beyond the 1024 largest, all that its mapping has active,
    referenced or shared is held against it.
    """

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        counts = count_pages(subject)
        self.possible_bytes: Counts = counts.anonymous + counts.file
        self._in_memory = counts.in_memory

    def possible_runs(self) -> Runs:
        return self._in_memory

    def applied_bytes(self) -> Counts:
        pieces = self._subject.pieces
        start, end, is_dumped = self._ranges()
        with set_apart(start, end, is_dumped):
            now = read_smaps(self._subject.process)
            active_start, active_bytes = read_active(self._subject.process)
        present = self._present()
        row = np.searchsorted(active_start, now.mappings.starts)
        row = np.minimum(row, max(0, len(active_start) - 1))
        # What came between the two readings is not known to be inactive.
        is_known = active_start[row] == now.mappings.starts
        unfit = now.referenced_bytes + now.shared_bytes + np.where(is_known, active_bytes[row], now.rss_bytes)
        piece_bytes, piece, mapping = _of_mappings(pieces, present, now)
        total = np.bincount(mapping, weights=piece_bytes, minlength=len(now))
        share = np.maximum(total - unfit, 0) / np.maximum(total, 1)
        cold = np.bincount(piece, weights=piece_bytes * share[mapping], minlength=len(pieces))
        applied: Counts = np.minimum(cold.astype(np.int64), self.possible_bytes)
        return applied

    def _ranges(self) -> tuple[Addresses, Addresses, Flags]:
        """What is made a mapping of its own: parts of mappings, the largest ones."""
        mappings = self._subject.mappings
        start, end, row = self._subject.pieces.runs()
        of = mappings.mappings
        parts = np.flatnonzero((start != of.starts[row]) | (end != of.ends[row]))
        room = min(_MOST_APART, max(0, read_max_map_count() // 2 - len(mappings)) // 2)
        parts = np.sort(parts[np.argsort(-sizes(start[parts], end[parts]), kind="stable")[:room]])
        return start[parts], end[parts], ~mappings.has_flag("dd")[row[parts]]

    def _present(self) -> tuple[Addresses, Addresses]:
        pieces = self._subject.pieces
        runs = self._subject.pagemap.scan(
            pieces.start, pieces.end, any_of=PageCategory.PRESENT, report=PageCategory.PRESENT | PageCategory.ZERO
        )
        real = (runs.categories & np.uint64(PageCategory.ZERO)) == 0
        return runs.starts[real], runs.ends[real]


class OwnWillneedEffect:
    """Pages that are in the page cache or the swap cache now, and were in no memory before: page by page, by mincore.

    Of anonymous memory only what is in swap can come; the rest of it has no page.
    """

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        pieces = subject.pieces
        missing = self._find_pages(in_memory=False)
        start, end, _, piece = pieces.parts_of(*missing)
        is_of_file = are_of_files(subject.mappings.mappings)[pieces.mapping[piece]]
        in_swap = count_pages(subject).in_swap[:2]
        swapped = intersect(start[~is_of_file], end[~is_of_file], *in_swap)[:2]
        start = np.concatenate((start[is_of_file], swapped[0]))
        order = np.argsort(start)
        self._missing = start[order], np.concatenate((end[is_of_file], swapped[1]))[order]
        self.possible_bytes: Counts = overlap_bytes(pieces.start, pieces.end, *self._missing)

    def possible_runs(self) -> Runs:
        start, end, _, piece = self._subject.pieces.parts_of(*self._missing)
        return start, end, piece

    def applied_bytes(self) -> Counts:
        return await_readahead(self._brought_in, self.possible_bytes)

    def _brought_in(self) -> Counts:
        pieces = self._subject.pieces
        start, end, _, _ = intersect(*self._missing, *self._find_pages(in_memory=True))
        return overlap_bytes(pieces.start, pieces.end, start, end)

    def _find_pages(self, *, in_memory: bool) -> tuple[Addresses, Addresses]:
        pages = [np.zeros(0, np.uint64)]
        start, end, _ = self._subject.pieces.runs()
        for low, high in zip(start.tolist(), end.tolist(), strict=True):
            found = np.flatnonzero(are_in_memory(low, high) == in_memory).astype(np.uint64)
            pages.append(np.uint64(low) + found * np.uint64(PAGE_SIZE))
        return runs_of_pages(np.concatenate(pages))


def hidden_files(mappings: Mappings) -> Flags:
    """Mappings of files of which the kernel does not tell this user what of them is in memory."""
    is_file = np.isin(mappings.kinds, (MappingKind.PRIVATE_FILE, MappingKind.SHARED_FILE))
    known = {name: _is_hidden(name) for name, of_file in zip(mappings.names, is_file.tolist(), strict=True) if of_file}
    return np.array([known.get(name, False) for name in mappings.names], np.bool_) & is_file


def _is_hidden(path: str) -> bool:
    """As the kernel judges it (can_do_mincore); a file that has no path any more counts as shown."""
    try:
        return Path(path).stat().st_uid != os.geteuid() and not os.access(path, os.W_OK, effective_ids=True)
    except OSError:
        return False


def _of_mappings(
    pieces: Pieces, present: tuple[Addresses, Addresses], now: DetailedMappings
) -> tuple[Counts, Counts, Counts]:
    """What of the pieces is present, by mappings: its bytes, and the row of its piece and of its mapping."""
    start, end, _, piece = pieces.parts_of(*present)
    start, end, part, mapping = intersect(start, end, now.mappings.starts, now.mappings.ends)
    return sizes(start, end), piece[part], mapping
