"""Where an action can have an effect, and how much of it is allowed: exact to a page, or to a huge page."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from memtherm.act.pieces import Pieces, are_inside, cut_at
from memtherm.core.ranges import Addresses, Counts, intersect, sizes
from memtherm.units import HUGE_PAGE_SIZE, PAGE_SIZE

NO_STOP = np.uint64(2**64 - PAGE_SIZE)
"""Where a range has no stop inside."""


@dataclass(frozen=True)
class Possible:
    """Parts of planned ranges in address order, all of whose bytes the action can change.

    Attributes:
        start, end: addresses (uint64).
        region: for each the row of the plan.
        unit_bytes: for each how much is done at once or not at all: a page, or a huge page (int64).
        count: rows of the plan.
    """

    start: Addresses
    end: Addresses
    region: Counts
    unit_bytes: Counts
    count: int

    @classmethod
    def of(
        cls, start: Addresses, end: Addresses, region: Counts, *, count: int, huge: tuple[Addresses, Addresses]
    ) -> Possible:
        """From sorted disjoint ranges.

        Args:
            huge: runs of what can be done in whole huge pages only, sorted and disjoint.
        """
        start, end, row = cut_at(start, end, np.union1d(*huge))
        unit = np.where(are_inside(start, *huge), HUGE_PAGE_SIZE, PAGE_SIZE)
        return cls(start, end, region[row], unit, count)

    @classmethod
    def whole(cls, pieces: Pieces, *, count: int) -> Possible:
        """All bytes of some pieces, page by page."""
        return cls(pieces.start, pieces.end, pieces.region, np.full(len(pieces), PAGE_SIZE), count)

    @property
    def range_bytes(self) -> Counts:
        """Bytes of each row of the plan."""
        total = np.zeros(self.count, np.int64)
        np.add.at(total, self.region, sizes(self.start, self.end))
        return total

    @property
    def total_bytes(self) -> int:
        return int(sizes(self.start, self.end).sum())

    def first_bytes(self, allowed_bytes: Counts) -> tuple[Possible, Addresses]:
        """Of each row of the plan the first so many bytes, rounded down to whole units; never more.

        Returns those, and for each row the address where they end; NO_STOP where nothing is left out.
        """
        size = sizes(self.start, self.end)
        total = self.range_bytes
        below = np.cumsum(size) - size - (np.cumsum(total) - total)[self.region]
        taken = np.clip(allowed_bytes[self.region] - below, 0, size)
        unit = self.unit_bytes.astype(np.uint64)
        # By address: a huge page begins at a multiple of its size.
        stop = np.maximum((self.start + taken.astype(np.uint64)) // unit * unit, self.start)
        end = np.where(taken < size, stop, self.end)
        stops = np.full(self.count, NO_STOP)
        cut = end < self.end
        np.minimum.at(stops, self.region[cut], end[cut])
        # Behind a unit that is not done nothing is done: what goes on later begins there.
        left = (end > self.start) & (self.start < stops[self.region])
        return Possible(self.start[left], end[left], self.region[left], self.unit_bytes[left], self.count), stops

    def within(self, pieces: Pieces) -> Possible:
        """What of it lies in some pieces."""
        start, end, row, _ = intersect(self.start, self.end, pieces.start, pieces.end)
        return Possible(start, end, self.region[row], self.unit_bytes[row], self.count)

    def ends(self, otherwise: Addresses) -> Addresses:
        """For each row of the plan where it ends; where it has nothing, `otherwise`."""
        ends = otherwise.copy()
        np.maximum.at(ends, self.region, self.end)
        return ends

    def after_first_unit(self, row: int) -> int:
        """The address behind the first unit of a row of the plan that has one."""
        first = int(np.flatnonzero(self.region == row)[0])
        unit = int(self.unit_bytes[first])
        return min(int(self.end[first]), (int(self.start[first]) // unit + 1) * unit)
