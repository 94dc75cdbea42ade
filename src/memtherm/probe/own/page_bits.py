"""Ranges ↔ PageBits, and what two looks have found together."""

import numpy as np
from numpy.typing import NDArray

from memtherm.core.census import PAGES, PageBits
from memtherm.core.ranges import Addresses, Counts, Flags, intersect, join_adjacent, sizes
from memtherm.units import HUGE_PAGE_SIZE, PAGE_SIZE

_UNIT, _PAGE = np.uint64(HUGE_PAGE_SIZE), np.uint64(PAGE_SIZE)
_WHOLE = ~np.uint64(0)


def no_bits() -> PageBits:
    none = np.zeros((0, 8), np.uint64)
    return PageBits(np.zeros(0, np.uint64), np.zeros(0, np.bool_), none, none)


def units_of(start: Addresses, end: Addresses) -> Addresses:
    """The units of 2 MiB that ranges (ascending) lie in, each once."""
    first, last = join_adjacent(start // _UNIT * _UNIT, (end + _UNIT - np.uint64(1)) // _UNIT * _UNIT)
    count = sizes(first, last) // HUGE_PAGE_SIZE
    number = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    return np.repeat(first, count) + number.astype(np.uint64) * _UNIT


def mask_of(units: Addresses, start: Addresses, end: Addresses) -> NDArray[np.uint64]:
    """The pages of ranges (ascending, disjoint) as bits (uint64[n, 8]) of these units."""
    low, high, row, _ = intersect(units, units + _UNIT, start, end)
    mask = np.zeros((len(units), 8), np.uint64)
    is_whole = high - low == _UNIT
    mask[row[is_whole]] = _WHOLE
    low, high, row = low[~is_whole], high[~is_whole], row[~is_whole]
    partial, place = np.unique(row, return_inverse=True)
    borders = np.zeros((len(partial), PAGES + 1), np.int16)
    np.add.at(borders, (place, _page(low, units[row])), 1)
    np.add.at(borders, (place, _page(high, units[row])), -1)
    inside = np.cumsum(borders, axis=1)[:, :PAGES] > 0
    mask[partial] = np.packbits(inside, axis=1, bitorder="little").view(np.uint64)
    return mask


def bits_of_ranges(start: Addresses, end: Addresses, accessed: Flags, *, one_bit: bool) -> PageBits:
    """Ranges (ascending, disjoint) whose pages are present, and whether they were accessed, as a look.

    Args:
        one_bit: a range's one answer stands for all of it: units that lie in one range whole count as one page.
    """
    units = units_of(start, end)
    is_huge = np.zeros(len(units), np.bool_)
    if one_bit:
        low, high, row, _ = intersect(units, units + _UNIT, start, end)
        is_huge[row[high - low == _UNIT]] = True
    return PageBits(
        units, is_huge, mask_of(units, start, end), mask_of(units, *join_adjacent(start[accessed], end[accessed]))
    )


def merged(first: PageBits, second: PageBits) -> PageBits:
    """What two looks have found: the bits of both."""
    if not len(first) or not len(second):
        return first if len(first) else second
    address = np.union1d(first.address, second.address)
    present, accessed = np.zeros((len(address), 8), np.uint64), np.zeros((len(address), 8), np.uint64)
    is_huge = np.ones(len(address), np.bool_)
    for one in (first, second):
        row = np.searchsorted(address, one.address)
        present[row] |= one.present
        accessed[row] |= one.accessed
        is_huge[row] &= one.is_huge
    return PageBits(address, is_huge, present, accessed)


def without(bits: PageBits, cleared: PageBits) -> PageBits:
    """The bits of the first without those of the second; units without an accessed page are left out."""
    accessed = bits.accessed.copy()
    row, other = common_rows(bits.address, cleared.address)
    accessed[row] &= ~cleared.accessed[other]
    left = PageBits(bits.address, bits.is_huge, bits.present, accessed)
    return left.take(np.flatnonzero(accessed.any(axis=1)))


def limited(bits: PageBits, start: Addresses, end: Addresses) -> PageBits:
    """Only the pages of these ranges (ascending, disjoint); units that have none present are left out."""
    mask = mask_of(bits.address, start, end)
    present = bits.present & mask
    rows = np.flatnonzero(present.any(axis=1))
    return PageBits(bits.address, bits.is_huge, present, bits.accessed & mask).take(rows)


def common_rows(first: Addresses, second: Addresses) -> tuple[Counts, Counts]:
    """The rows of addresses that both (ascending) have."""
    _, row, other = np.intersect1d(first, second, assume_unique=True, return_indices=True)
    return row, other


def _page(address: Addresses, unit: Addresses) -> Counts:
    return ((address - unit) // _PAGE).astype(np.int64)
