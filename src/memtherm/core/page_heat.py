"""Access rates and ages page by page, where regions would be too coarse."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memtherm.core.ranges import Addresses, Flags
from memtherm.units import HUGE_PAGE_SIZE, PAGE_SIZE

_UNIT = np.uint64(HUGE_PAGE_SIZE)
_PAGE = np.uint64(PAGE_SIZE)


@dataclass(frozen=True)
class PageHeat:
    """What a census knew of each page at the end of a window; a copy, in units of 2 MiB.

    Attributes:
        unit: addresses of the units (uint64[n], ascending).
        slot: row of each unit in `page_rate` and `page_since`, or -1 where its pages are all alike.
        rate, since: of the others, for all their pages.
        is_blind: units of which no look of the window could tell anything.
        page_rate: uint8[m, 512], in steps of 1 / full_rate.
        page_since: uint16[m, 512], the window since whose end the rate has stayed about the same.
        age_s: by the number of a window, how long ago it ended; the first is when watching began.
    """

    unit: Addresses
    slot: NDArray[np.int32]
    rate: NDArray[np.uint8]
    since: NDArray[np.uint16]
    is_blind: Flags
    page_rate: NDArray[np.uint8]
    page_since: NDArray[np.uint16]
    age_s: NDArray[np.float64]
    full_rate: int

    def rates(self, pages: Addresses) -> NDArray[np.float64]:
        """Access rate of each page, 0..1.

        Memory that was never there was never accessed; NaN where no look of the window could tell.
        """
        rates: NDArray[np.float64] = self._values(pages, self.rate, self.page_rate) / self.full_rate
        row, is_known = self._rows(pages)
        known = np.flatnonzero(is_known)
        rates[known[self.is_blind[row[known]]]] = np.nan
        return rates

    def ages_s(self, pages: Addresses) -> NDArray[np.float64]:
        """How long the rate of each page has stayed about the same; at most as long as is watched."""
        ages: NDArray[np.float64] = self.age_s[self._values(pages, self.since, self.page_since)]
        return ages

    def _values(
        self,
        pages: Addresses,
        of_units: NDArray[np.unsignedinteger],
        of_pages: NDArray[np.unsignedinteger],
    ) -> NDArray[np.int64]:
        row, is_known = self._rows(pages)
        values = np.zeros(len(pages), np.int64)
        values[is_known] = of_units[row[is_known]]
        mixed = np.flatnonzero(is_known)
        mixed = mixed[self.slot[row[mixed]] >= 0]
        values[mixed] = of_pages[self.slot[row[mixed]], pages[mixed] % _UNIT // _PAGE]
        return values

    def _rows(self, pages: Addresses) -> tuple[NDArray[np.int64], Flags]:
        """The row of each page's unit, and whether there is one."""
        units = pages // _UNIT * _UNIT
        row = np.searchsorted(self.unit, units).astype(np.int64)
        is_known = np.searchsorted(self.unit, units, side="right") > row
        return row, is_known
