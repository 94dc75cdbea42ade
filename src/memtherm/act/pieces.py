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
        gap_start = np.concatenate((np.zeros(1, np.uint64), end))
        gap_end = np.concatenate((start, np.array([_LAST_PAGE])))
        is_gap = gap_end > gap_start
        return self.within(gap_start[is_gap], gap_end[is_gap])

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


def cut_evenly(start: Addresses, end: Addresses, size_bytes: int) -> tuple[Addresses, Addresses]:
    """Ranges cut at multiples of `size_bytes`, so that none is longer.  None of them is empty."""
    size = np.uint64(size_bytes)
    first = start // size
    count = ((end - np.uint64(1)) // size - first + np.uint64(1)).astype(np.int64)
    row = np.repeat(np.arange(len(start)), count)
    block = first[row] + (np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)).astype(np.uint64)
    return np.maximum(start[row], block * size), np.minimum(end[row], (block + np.uint64(1)) * size)
