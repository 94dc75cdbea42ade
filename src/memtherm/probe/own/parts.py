"""See accesses of own memory without privilege: `Referenced` of smaps, on mappings that are cut into parts.

Facts (Linux 6.18, x86-64, 1 GiB of 4 KiB pages), and what they mean here:
1. Reading smaps takes 14 ms where all is one mapping, 17 ms with 512 parts, and 6 ms more to parse; of huge pages 2, 3
   and 6 ms.  So parts cost little.
2. MADV_COLD on own memory needs no privilege, takes as long as clear_refs (12 ms), flushes the TLB, and clears only
   what it is told to: what is idle costs nothing, other memory of the process keeps its marks.  So clear_refs is
   used only where pages cannot be cleared so: locked ones, and those that a child of fork still shares.
3. A cleared page costs the program 0.36 µs at its next access; a huge page as much.  For 1 GiB of small pages in
   use that is 94 ms.  So of a part that is in use all over only 16 pages are cleared, and its number tells whether
   they were accessed again; if not, all of it is cleared at once, and from then on one page tells.
4. MADV_COLD keeps the last 15 to 31 small pages in a list of its processor, and passes over what is in such a list.
   So it is called once more afterwards, which empties the list.
"""

import time
from collections.abc import Sequence

import numpy as np

from memtherm.core.census import PageBits, clear_ranges
from memtherm.core.ranges import Addresses, Counts, Flags, intersect, join_adjacent
from memtherm.core.regions import Range
from memtherm.errors import NotSupported
from memtherm.linux.clear_refs import ClearKind
from memtherm.linux.mapping_cuts import advise_cold
from memtherm.linux.maps import MappingKind, parse_maps
from memtherm.probe.own.cuts import CutKind, CutMapping, cut, undo
from memtherm.probe.own.hub import Hub, own_hub
from memtherm.probe.own.page_bits import bits_of_ranges, common_rows, mask_of, merged, no_bits, units_of, without
from memtherm.probe.pace import shortest_interval_s
from memtherm.units import PAGE_SIZE

_BYTES_A_CALL = 8 << 20
_TARGET_S_PER_ENTRY = 0.36e-6
# Pages of a part in use all over that are cleared; that is a part of which this share was accessed.
_SAMPLE_PAGES = 16
_SAMPLE_BYTES = _SAMPLE_PAGES * PAGE_SIZE
_ALL_OVER = 0.95
_CLEAR_REFS_S_PER_BYTE = 0.02 / (1 << 30)
# The cost is a mean over about this many of the latest looks.
_MEMORY = 4


class PartsCensusProbe:
    """A CensusProbe for ranges of this process.

    Its grain is the part, of 2 MiB or a multiple: one accessed page makes all of it accessed.

    Attributes:
        grain: `part`; `mapping` where nothing could be cut.
        target_s_per_page: what clearing one of the units of the last look costs the program at its next accesses.
        describe_changes: what was changed on the mappings, in sentences; `close` undoes it.
    """

    name = "smaps"
    generation = 0

    def __init__(self, ranges: Sequence[Range], *, kinds: Sequence[CutKind] = tuple(CutKind)) -> None:
        """Cuts the mappings.

        Args:
            ranges: page aligned, ascending, disjoint.
            kinds: how they may be cut, best first.

        Raises:
            NotSupported: hugetlb pages, whose accesses smaps does not tell, or a kernel without smaps.
            NotPermitted: the process may not read its own smaps.
        """
        columns = np.array(ranges, np.uint64).reshape(-1, 2)
        self._start, self._end = join_adjacent(columns[:, 0], columns[:, 1])
        self._hub: Hub = own_hub()
        self._pending = no_bits()
        # Parts that were cleared in a sample only, and what of them stays marked when nothing is accessed.
        self._kept_start, self._kept_bytes = np.zeros(0, np.uint64), np.zeros(0, np.int64)
        self._random = np.random.default_rng(self._start)
        # Of what was accessed all over before the last clear one cannot tell when.
        self._cleared_start = np.zeros(0, np.uint64)
        self._cleared_at_s = 0.0
        self._looked_at_s = 0.0
        self._cost_s = 0.0
        self.clearing = "cold"
        self.target_s_per_page = 0.0
        with self._hub.lock:
            self._reading = self._hub.smaps(not_before_s=time.monotonic())
            self._refuse_hugetlb()
            ours = list(zip(self._start.tolist(), self._end.tolist(), strict=True))
            self._cuts = cut(self._reading, ours, most_parts=self._hub.parts_left(), kinds=kinds)
            self._hub.note_parts(self, sum(len(one.parts) for one in self._cuts))
            self._hub.join(self)
        self.grain = "part" if any(one.kind for one in self._cuts) else "mapping"
        self.describe_changes = _described(self._cuts)

    @property
    def clears(self) -> ClearKind:
        return ClearKind.ALL

    @property
    def min_sampling_interval_s(self) -> float:
        """Looking and clearing are a small share of this: both hold up who maps memory meanwhile."""
        return shortest_interval_s(self._cost_s)

    def ranges(self) -> list[Range]:
        """What of the ranges is mapped still."""
        mappings = parse_maps(self._hub.process.read_file("maps"))
        start, end, _, _ = intersect(*join_adjacent(mappings.starts, mappings.ends), self._start, self._end)
        return list(zip(start.tolist(), end.tolist(), strict=True))

    def look(self) -> PageBits:
        """The parts that hold memory, and whether they were accessed since they were cleared."""
        with self._hub.lock:
            began_s = time.thread_time()
            self._reading = self._hub.smaps(not_before_s=max(self._cleared_at_s, self._looked_at_s))
            self._looked_at_s = time.monotonic()
            bits = merged(self._bits(), self._pending) if len(self._pending) else self._bits()
            self._note_target_cost(bits)
            self._clear_idle_samples()
            self._cost_s += (time.thread_time() - began_s - self._cost_s) / (_MEMORY if self._cost_s else 1)
            return bits

    def swapped(self) -> Addresses:
        """The units of 2 MiB in whose parts some memory is in swap."""
        with self._hub.lock:
            start, end, row = self._pieces()
            has_swap = self._reading.swap_bytes[row] > 0
            return units_of(start[has_swap], end[has_swap])

    def clear(self, bits: PageBits) -> PageBits:
        """Clear these accessed bits.  Returns those that could not be cleared."""
        with self._hub.lock:
            began_s = time.thread_time()
            if self.clearing == "clear_refs":
                self._hub.clear_everything(ClearKind.ALL, self)
                self._forget_samples()
                self._pending, stuck = no_bits(), bits.take(np.zeros(0, np.int64))
            else:
                stuck = self._clear_cold(bits)
                self._pending = without(self._pending, bits) if len(self._pending) else self._pending
            self._cleared_at_s = time.monotonic()
            self._cost_s += (time.thread_time() - began_s) / _MEMORY
            return stuck

    def clear_everything(self, *, longest_stall_s: float) -> bool:
        """Use clear_refs from now on, if that holds up this process' mmap for less than this; else single parts."""
        expected_s = self._hub.process.rss_bytes() * _CLEAR_REFS_S_PER_BYTE
        self.clearing = "clear_refs" if expected_s < longest_stall_s else "cold"
        return self.clearing == "clear_refs"

    def collect(self) -> None:
        """Another watch is about to clear everything."""
        self._reading = self._hub.smaps(not_before_s=self._cleared_at_s)
        found = self._bits()
        self._pending = merged(found.take(np.flatnonzero(found.accessed.any(axis=1))), self._pending)
        self._forget_samples()

    def close(self) -> None:
        """Put the mappings together again.  May be called again, and in the child of a fork."""
        hub = own_hub()
        with hub.lock:
            if self._hub is hub:
                hub.leave(self)
            cuts, self._cuts = self._cuts, ()
            undo(hub.process, cuts)

    def _refuse_hugetlb(self) -> None:
        _, _, row = self._pieces()
        if any("ht" in self._reading.flags[index] for index in row.tolist()):
            raise NotSupported("smaps does not tell the accesses of hugetlb pages", hint="watch memory of other pages")

    def _pieces(self) -> tuple[Addresses, Addresses, Counts]:
        """What of the mappings of the last reading lies in the ranges, and the row of each piece's mapping."""
        mappings = self._reading.mappings
        start, end, row, _ = intersect(mappings.starts, mappings.ends, self._start, self._end)
        return start, end, row

    def _bits(self) -> PageBits:
        start, end, row = self._pieces()
        holds = self._reading.rss_bytes[row] > 0
        accessed = (self._reading.referenced_bytes[row] > self._kept(start))[holds]
        return bits_of_ranges(start[holds], end[holds], accessed, one_bit=True)

    def _kept(self, start: Addresses) -> Counts:
        """What of each of these pieces was left marked by the last clear."""
        kept = np.zeros(len(start), np.int64)
        row, known = common_rows(start, self._kept_start)
        kept[row] = self._kept_bytes[known]
        return kept

    def _forget_samples(self) -> None:
        self._kept_start, self._kept_bytes = np.zeros(0, np.uint64), np.zeros(0, np.int64)
        self._cleared_start = np.zeros(0, np.uint64)

    def _clear_idle_samples(self) -> None:
        """Parts whose sample was not accessed again: clear the rest, so that no access to it is missed any more."""
        start, end, row = self._pieces()
        kept = self._kept(start)
        is_used = (kept > 0) & (self._reading.referenced_bytes[row] > kept)
        is_idle = (kept > 0) & ~is_used
        self._advise_cold(*join_adjacent(start[is_idle], end[is_idle]))
        self._kept_start, self._kept_bytes = start[is_used], kept[is_used]

    def _is_used_all_over(self) -> Flags:
        """Pieces of which a sample tells enough: small pages, accessed all over since the last clear."""
        start, _, row = self._pieces()
        reading, kept = self._reading, self._kept(start)
        cleared = np.where(kept > 0, _SAMPLE_BYTES, reading.rss_bytes[row])
        touched = reading.referenced_bytes[row] - kept
        is_small = (reading.anonymous_huge_bytes + reading.file_huge_bytes)[row] == 0
        is_private = reading.mappings.kinds[row] == MappingKind.PRIVATE_ANONYMOUS
        is_large_enough = reading.rss_bytes[row] >= 4 * _SAMPLE_BYTES
        was_cleared = np.isin(start, self._cleared_start)
        flags: Flags = was_cleared & (touched >= _ALL_OVER * cleared) & is_small & is_private & is_large_enough
        return flags

    def _clear_cold(self, bits: PageBits) -> PageBits:
        wanted = join_adjacent(*clear_ranges(bits, max_gap_pages=0))
        start, end, _ = self._pieces()
        low, high, piece, _ = intersect(start, end, *wanted)
        by_sample = (low == start[piece]) & (high == end[piece]) & self._is_used_all_over()[piece]
        self._cleared_start = low
        failed = self._advise_cold(*join_adjacent(low[~by_sample], high[~by_sample]))
        failed += self._clear_samples(low[by_sample], high[by_sample], piece[by_sample])
        cleared_all = np.isin(self._kept_start, low[~by_sample])
        self._kept_start, self._kept_bytes = self._kept_start[~cleared_all], self._kept_bytes[~cleared_all]
        self._hub.empty_lists()
        stuck = bits.accessed & (self._shared(bits.address) | mask_of(bits.address, *_columns(failed)))
        rows = np.flatnonzero(stuck.any(axis=1))
        return PageBits(bits.address[rows], bits.is_huge[rows], bits.present[rows], stuck[rows])

    def _clear_samples(self, start: Addresses, end: Addresses, piece: Counts) -> list[Range]:
        """Clear some pages of each of these pieces, and note what stays marked.  Returns the pieces that failed."""
        pages = ((end - start) // np.uint64(PAGE_SIZE)).astype(np.int64)
        first = start + self._random.integers(0, pages - _SAMPLE_PAGES + 1).astype(np.uint64) * np.uint64(PAGE_SIZE)
        failed = [
            (low, high)
            for low, high, begin in zip(start.tolist(), end.tolist(), first.tolist(), strict=True)
            if advise_cold(begin, begin + _SAMPLE_BYTES)
        ]
        _, _, row = self._pieces()
        kept = np.maximum(self._reading.referenced_bytes[row[piece]] - _SAMPLE_BYTES, 1)
        is_new = ~np.isin(self._kept_start, start)
        all_start = np.concatenate([self._kept_start[is_new], start])
        order = np.argsort(all_start)
        self._kept_start = all_start[order]
        self._kept_bytes = np.concatenate([self._kept_bytes[is_new], kept])[order]
        return failed

    def _advise_cold(self, start: Addresses, end: Addresses) -> list[Range]:
        """Clear all of these ranges, in calls that are short; those that failed."""
        # A range across two mappings may meet a hole between them, and fail for it.
        mappings = self._reading.mappings
        low, high, _, _ = intersect(*join_adjacent(mappings.starts, mappings.ends), start, end)
        return [
            (begin, min(begin + _BYTES_A_CALL, last))
            for first, last in zip(low.tolist(), high.tolist(), strict=True)
            for begin in range(first, last, _BYTES_A_CALL)
            if advise_cold(begin, min(begin + _BYTES_A_CALL, last))
        ]

    def _shared(self, units: Addresses) -> np.ndarray[tuple[int, ...], np.dtype[np.uint64]]:
        """The pages of parts of which others map some: those keep their bits."""
        start, end, row = self._pieces()
        is_shared: Flags = self._reading.shared_bytes[row] > 0
        return mask_of(units, *join_adjacent(start[is_shared], end[is_shared]))

    def _note_target_cost(self, bits: PageBits) -> None:
        reading = self._reading
        start, _, row = self._pieces()
        referenced = reading.referenced_bytes[row]
        is_accessed = referenced > self._kept(start)
        huge_bytes = (reading.anonymous_huge_bytes + reading.file_huge_bytes)[row]
        small_bytes = np.where(self._is_used_all_over(), _SAMPLE_BYTES, np.maximum(referenced - huge_bytes, 0))
        entries = int(small_bytes[is_accessed].sum()) // PAGE_SIZE
        units = int(bits.accessed.any(axis=1).sum())
        self.target_s_per_page = _TARGET_S_PER_ENTRY * max(1.0, entries / max(1, units))


def _columns(ranges: Sequence[Range]) -> tuple[Addresses, Addresses]:
    columns = np.array(ranges, np.uint64).reshape(-1, 2)
    return columns[:, 0], columns[:, 1]


def _described(cuts: Sequence[CutMapping]) -> tuple[str, ...]:
    sentences = []
    for kind in CutKind:
        count = sum(len(one.parts) for one in cuts if one.kind is kind)
        if count:
            sentences.append(f"cut into {count} parts by {kind}; until the watch ends, mremap of this memory fails")
    if whole := sum(one.kind is None for one in cuts):
        sentences.append(f"{whole} mappings could not be cut, and tell one number each")
    return tuple(sentences)
