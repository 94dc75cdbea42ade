"""Planned regions cut at the borders of mappings: what can be acted on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from memtherm.core.plan import PlannedAction
from memtherm.core.ranges import Addresses, Counts, Flags, intersect, round_inward, sizes
from memtherm.linux.maps import Mappings
from memtherm.units import HUGE_PAGE_SIZE, PAGE_SIZE

_LAST_PAGE = np.uint64(2**64 - PAGE_SIZE)


@dataclass(frozen=True)
class Pieces:
    """Ranges in address order, each inside one mapping.

    Attributes:
        start, end: addresses (uint64).
        region: for each the row of the plan that it is part of.
        mapping: for each the row of the mappings that it lies in.
    """

    start: Addresses
    end: Addresses
    region: Counts
    mapping: Counts

    def __len__(self) -> int:
        return len(self.start)

    @property
    def size_bytes(self) -> Counts:
        return sizes(self.start, self.end)

    @property
    def total_bytes(self) -> int:
        return int(self.size_bytes.sum())

    def take(self, which: Flags) -> Pieces:
        return Pieces(self.start[which], self.end[which], self.region[which], self.mapping[which])

    def parts_of(self, start: Addresses, end: Addresses) -> tuple[Addresses, Addresses, Counts, Counts]:
        """Some ranges, which are sorted and disjoint, cut at the borders of pieces.

        Returns start, end, and for each part the row of its range and of its piece.
        """
        return intersect(start, end, self.start, self.end)

    def within(self, start: Addresses, end: Addresses) -> Pieces:
        """What of the pieces lies in some ranges, which are sorted and disjoint."""
        new_start, new_end, piece, _ = intersect(self.start, self.end, start, end)
        return Pieces(new_start, new_end, self.region[piece], self.mapping[piece])

    def without(self, start: Addresses, end: Addresses) -> Pieces:
        """What of the pieces lies outside of some ranges, which are sorted and disjoint."""
        return self.within(*gaps_between(start, end))

    def below(self, stop: Addresses) -> Pieces:
        """Without what lies at or above `stop`, which has an address for each row of the plan."""
        end = np.minimum(self.end, stop[self.region])
        left = end > self.start
        return Pieces(self.start[left], end[left], self.region[left], self.mapping[left])

    def cut_at(self, borders: Addresses) -> Pieces:
        """The same memory, in pieces that no border (sorted) lies inside of."""
        start, end, piece = cut_at(self.start, self.end, borders)
        return Pieces(start, end, self.region[piece], self.mapping[piece])

    def joined(self) -> Pieces:
        """The same memory, with neighbours of the same region and mapping as one."""
        opens = np.ones(len(self), np.bool_)
        opens[1:] = (
            (self.start[1:] != self.end[:-1])
            | (self.region[1:] != self.region[:-1])
            | (self.mapping[1:] != self.mapping[:-1])
        )
        closes = np.append(opens[1:], True)[: len(self)]
        return Pieces(self.start[opens], self.end[closes], self.region[opens], self.mapping[opens])

    def runs(self) -> tuple[Addresses, Addresses, Counts]:
        """Start, end and mapping of what lies together in one mapping.

        A system call is given these: where two regions meet inside a huge page, pieces would split it.
        """
        opens = np.ones(len(self), np.bool_)
        opens[1:] = (self.start[1:] != self.end[:-1]) | (self.mapping[1:] != self.mapping[:-1])
        closes = np.append(opens[1:], True)[: len(self)]
        return self.start[opens], self.end[closes], self.mapping[opens]


def cut_at_mappings(planned: PlannedAction, mappings: Mappings) -> Pieces:
    """The mapped parts of the planned regions."""
    return Pieces(*intersect(planned.start, planned.end, mappings.starts, mappings.ends))


def round_to_huge_pages(pieces: Pieces, has_huge_pages: Flags) -> Pieces:
    """Pieces without the parts of 2 MiB blocks at the edges of their runs, in the mappings where those are huge pages.

    Args:
        has_huge_pages: for each mapping.
    """
    start, end, mapping = pieces.runs()
    inner_start, inner_end = round_inward(start, end, HUGE_PAGE_SIZE)
    huge = has_huge_pages[mapping]
    start, end = np.where(huge, inner_start, start), np.where(huge, inner_end, end)
    left = end > start
    return pieces.within(start[left], end[left])


def spare_parts_of_huge_pages(pieces: Pieces, huge_start: Addresses, huge_end: Addresses) -> Pieces:
    """Pieces without the parts of huge pages at the edges of their runs.

    Args:
        huge_start, huge_end: runs of what of the pieces is huge pages, sorted and disjoint.
    """
    start, end, _ = pieces.runs()
    block = np.uint64(HUGE_PAGE_SIZE)
    begins_inside = (start % block != 0) & are_inside(start, huge_start, huge_end)
    ends_inside = (end % block != 0) & are_inside(end - np.uint64(PAGE_SIZE), huge_start, huge_end)
    start = np.where(begins_inside, (start // block + np.uint64(1)) * block, start)
    end = np.where(ends_inside, end // block * block, end)
    left = end > start
    return pieces.within(start[left], end[left])


def gaps_between(start: Addresses, end: Addresses) -> tuple[Addresses, Addresses]:
    """What lies outside of ranges, which are sorted and disjoint."""
    gap_start = np.concatenate((np.zeros(1, np.uint64), end))
    gap_end = np.append(start, _LAST_PAGE)
    is_gap = gap_end > gap_start
    return gap_start[is_gap], gap_end[is_gap]


def are_inside(addresses: Addresses, start: Addresses, end: Addresses) -> Flags:
    """Which addresses lie in one of some ranges, which are sorted and disjoint."""
    if len(start) == 0:
        return np.zeros(len(addresses), np.bool_)
    row = np.searchsorted(start, addresses, side="right") - 1
    inside: Flags = (row >= 0) & (addresses < end[np.maximum(row, 0)])
    return inside


def runs_of_pages(pages: Addresses) -> tuple[Addresses, Addresses]:
    """Start and end of what lies together of some pages, which are sorted."""
    opens = np.ones(len(pages), np.bool_)
    opens[1:] = pages[1:] != pages[:-1] + np.uint64(PAGE_SIZE)
    closes = np.append(opens[1:], True)[: len(pages)]
    return pages[opens], pages[closes] + np.uint64(PAGE_SIZE)


def cut_at(start: Addresses, end: Addresses, borders: Addresses) -> tuple[Addresses, Addresses, Counts]:
    """Sorted disjoint ranges cut at borders (sorted): start, end, and the row of the range that each is part of."""
    first = np.searchsorted(borders, start, side="right")
    count = np.maximum(np.searchsorted(borders, end, side="left") - first, 0)
    row = np.repeat(np.arange(len(start)), count + 1)
    number = np.arange(len(row)) - np.repeat(np.cumsum(count + 1) - (count + 1), count + 1)
    new_start, new_end = start[row], end[row]
    is_later, is_earlier = number > 0, number < count[row]
    new_start[is_later] = borders[(first[row] + number - 1)[is_later]]
    new_end[is_earlier] = borders[(first[row] + number)[is_earlier]]
    return new_start, new_end, row


def cut_evenly(start: Addresses, end: Addresses, size_bytes: int) -> tuple[Addresses, Addresses]:
    """Ranges cut at multiples of `size_bytes`, so that none is longer.  None of them is empty."""
    size = np.uint64(size_bytes)
    first = start // size
    count = ((end - np.uint64(1)) // size - first + np.uint64(1)).astype(np.int64)
    row = np.repeat(np.arange(len(start)), count)
    block = first[row] + (np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)).astype(np.uint64)
    return np.maximum(start[row], block * size), np.minimum(end[row], (block + np.uint64(1)) * size)
