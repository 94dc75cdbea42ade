"""Sets of page numbers as looks of a census, and its runs page by page."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import numpy as np

from core.naive_census import UNIT, pages_of, units_of
from memtherm.core.census import Census, PageBits, unpacked
from memtherm.core.condense import Runs
from memtherm.core.regions import Range
from memtherm.units import PAGE_SIZE

ALL = 10**9
UNIT_BYTES = UNIT * PAGE_SIZE


def bits_of(present: Iterable[int], accessed: Iterable[int], *, huge: Iterable[int] = ()) -> PageBits:
    """Sets of page numbers as what a look finds."""
    present, accessed = set(present), set(accessed)
    units = sorted(units_of(present))
    columns = [
        np.packbits([[page in chosen for page in pages_of(unit)] for unit in units], axis=1, bitorder="little")
        if units
        else np.zeros((0, 64), np.uint8)
        for chosen in (present, accessed)
    ]
    return PageBits(
        np.array(units, np.uint64) * np.uint64(UNIT_BYTES),
        np.isin(units, list(huge)),
        *(column.view(np.uint64) for column in columns),
    )


def pages_in(bits: PageBits) -> set[int]:
    """The accessed pages of a look."""
    row, page = np.nonzero(unpacked(bits.accessed))
    return set((bits.address[row] // np.uint64(PAGE_SIZE) + page.astype(np.uint64)).tolist())


def ranges_of(pages: Iterable[int]) -> list[Range]:
    ranges: list[Range] = []
    for page in sorted(pages):
        if ranges and ranges[-1][1] == page * PAGE_SIZE:
            ranges[-1] = (ranges[-1][0], (page + 1) * PAGE_SIZE)
        else:
            ranges.append((page * PAGE_SIZE, (page + 1) * PAGE_SIZE))
    return ranges


def by_page(runs: Runs) -> dict[int, tuple[float, float]]:
    rows = zip(runs.start.tolist(), runs.end.tolist(), runs.rate.tolist(), runs.age_s.tolist(), strict=True)
    return {
        page: (rate, age_s) for start, end, rate, age_s in rows for page in range(start // PAGE_SIZE, end // PAGE_SIZE)
    }


def look(census: Census, present: Iterable[int], accessed: Iterable[int]) -> None:
    """One look, after which everything is cleared."""
    bits = bits_of(present, accessed)
    census.record(bits)
    census.note_cleared(census.pending(bits).address)


def begun(present: Iterable[int], *, mapped: list[Range] | None = None) -> Census:
    """A census whose first look is behind it."""
    present = list(present)
    census = Census()
    census.set_ranges(mapped or ranges_of(present))
    look(census, present, present)
    census.forget_looks()
    return census


def assert_sound(runs: Runs, ranges: list[Range]) -> None:
    """Sorted, disjoint, not empty, and within the mappings."""
    assert (runs.start < runs.end).all()
    assert (runs.start[1:] >= runs.end[:-1]).all()
    for start, end in zip(runs.start.tolist(), runs.end.tolist(), strict=True):
        within = [(low, high) for low, high in ranges if low < end and start < high]
        assert within[0][0] <= start
        assert end <= within[-1][1]
        assert all(left[1] == right[0] for left, right in pairwise(within))
