"""The census: every page is counted, because on a page table reading is nearly free (design: census).

A page whose accessed bit stays 0 is known to be idle since its last clear and needs no other clear,
so the steady cost follows the hot set and not the size of the process.  State is kept in units of
2 MiB: a row for each, and 4 bytes a page where its pages differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memtherm.core.condense import Runs, condense
from memtherm.core.page_heat import PageHeat
from memtherm.core.ranges import Addresses, Counts, Flags, intersect, join_adjacent
from memtherm.core.regions import Range
from memtherm.units import HUGE_PAGE_SIZE, PAGE_SIZE

PAGES = HUGE_PAGE_SIZE // PAGE_SIZE
FULL_RATE = 250
"""Access rates are kept as whole 250ths, one byte a page."""

_UNIT = np.uint64(HUGE_PAGE_SIZE)
_PAGE = np.uint64(PAGE_SIZE)
_LAST_ADDRESS = np.uint64(2**64 - 1)
_MOST_WINDOWS = int(np.iinfo(np.uint16).max)
# Up to one look more or less is no change of a page's rate: with few looks a window that is noise.
_TOLERATED_LOOKS = 1.5
# Rows of state that are made into runs at a time; bounds the temporary memory to some MiB.
_ROWS_AT_ONCE = 256


@dataclass(frozen=True)
class PageBits:
    """What one look at the page table found, in units of 2 MiB; units without a present page are left out.

    Attributes:
        address: uint64[n], ascending, multiples of 2 MiB.
        is_huge: bool[n], one 2 MiB page whose single bit stands for all 512.
        present, accessed: uint64[n, 8]; bit j of word i is page 64 i + j.
    """

    address: Addresses
    is_huge: Flags
    present: NDArray[np.uint64]
    accessed: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.address)

    def take(self, rows: Flags | Counts) -> PageBits:
        return PageBits(self.address[rows], self.is_huge[rows], self.present[rows], self.accessed[rows])


def unpacked(bits: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """uint64[n, 8] → uint8[n, 512] of 0 and 1."""
    return np.unpackbits(np.ascontiguousarray(bits).view(np.uint8), axis=1, bitorder="little")


def page_count(bits: NDArray[np.uint64]) -> int:
    return int(np.bitwise_count(bits).sum(dtype=np.int64))


class Census:
    """The pages of one address space, and what each look found of them.

    A look is: `record` what was read; clear the pages of `pending`; tell by `note_cleared` what was
    cleared.  After some looks `close_window`; then `runs` is the result.  Ages may begin again, and
    `runs` may be asked for, at any time between two looks.
    """

    def __init__(self) -> None:
        self._units = _Units.empty()
        self._ranges: list[Range] = []
        self._nr_looks = 0
        self._has_looked = False
        self._window_ends_s = np.zeros(1)

    @property
    def nr_units(self) -> int:
        return len(self._units)

    @property
    def nr_looks(self) -> int:
        """Looks of this window so far."""
        return self._nr_looks

    @property
    def ranges(self) -> Sequence[Range]:
        return self._ranges

    @property
    def stuck_bytes(self) -> int:
        """Memory whose accessed bits do not clear."""
        return page_count(self._units.stuck) * PAGE_SIZE

    def start(self, now_s: float) -> None:
        """Ages count from here."""
        self._window_ends_s = np.array([now_s])

    def set_ranges(self, ranges: Sequence[Range]) -> None:
        """The mappings as they are now; memory that is gone is forgotten, what stays keeps its state."""
        old, self._ranges = self._ranges, list(ranges)
        if old == self._ranges:
            return
        units = self._units
        start, end = _columns(self._ranges)
        _, _, rows, _ = intersect(units.address, units.address + _UNIT, start, end)
        if len(is_mapped := np.unique(rows)) < len(units):
            units.keep(is_mapped)
        self._begin_again(*_without(start, end, old), is_new=True)

    def record(self, bits: PageBits) -> None:
        """Count one look.

        The very first is blind: its bits are of the past.  Units that come later were not there at
        the look before, so their bits tell.
        """
        self._add_units(bits.address)
        units = self._units
        rows = units.rows(bits.address)
        is_set = bits.accessed.any(axis=1)
        blind = is_set & ~units.is_cleared[rows]
        units.blind_looks[rows[blind]] += 1
        telling = is_set & ~blind
        slots = units.expand(rows[telling])
        units.pages.count[slots] += unpacked(bits.accessed[telling])
        # Until note_cleared says otherwise, a unit with a set bit that can be cleared is blind at the next look.
        units.is_cleared[rows] = ~(bits.accessed & ~units.stuck[rows]).any(axis=1)
        self._nr_looks += 1
        self._has_looked = True

    def add_idle(self, address: Addresses) -> None:
        """Units (ascending) that are watched though no page of them is present: what is in swap is cold, and there."""
        self._add_units(address)

    def pending(self, bits: PageBits) -> PageBits:
        """What of a look is to be cleared: set bits, without those that are known not to clear."""
        accessed = bits.accessed & ~self._units.stuck[self._units.rows(bits.address)]
        wanted = accessed.any(axis=1)
        return PageBits(bits.address[wanted], bits.is_huge[wanted], bits.present[wanted], accessed[wanted])

    def note_cleared(self, address: Addresses) -> None:
        """All bits of these units have been cleared, but for the stuck ones."""
        self._units.is_cleared[self._units.rows(address)] = True

    def note_all_cleared(self) -> None:
        """Every bit of the address space has been cleared."""
        self._units.is_cleared[:] = True

    def note_stuck(self, address: Addresses, pages: NDArray[np.uint64]) -> None:
        """Pages (uint64[n, 8]) of these units whose bits do not clear.

        They count as accessed: what cannot be shown to be idle is not taken for idle.
        """
        self._units.stuck[self._units.rows(address)] |= pages

    def forget_stuck(self) -> None:
        """Let all pages be tried again: sharing and locking may have ended."""
        self._units.stuck[:] = 0

    def forget_looks(self) -> None:
        """The looks of this window so far do not count, such as the very first, which sees the past."""
        self._units.pages.count[:] = 0
        self._units.blind_looks[:] = 0
        self._nr_looks = 0

    def close_window(self, now_s: float) -> None:
        """Turn the counts of the window into rates, and note which pages have changed."""
        self._window_ends_s = np.append(self._window_ends_s, now_s)
        self._units.close_window(self._nr_looks, self._window_number())
        self.forget_looks()

    def reset_age(self, start: Addresses, end: Addresses) -> None:
        """The age of these ranges (sorted, disjoint) begins again: an action was applied to them.

        In the middle of a window it counts from the window's begin.
        """
        self._begin_again(start, end, is_new=False)

    def runs(self, *, limit: int, looks_of_window: int | None = None) -> Runs:
        """At most `limit` runs of neighbouring pages with like rate and age, cut to the mappings.

        Memory that was never present is in none, unless it was added.

        Args:
            looks_of_window: how many looks a whole window has.  Then rates are moving means: what this window has
                found so far, and of the last window's rate the part that is still to come; and idle memory that has
                been accessed since has age 0.  Without it the result is that of the last window that was closed.
        """
        units = self._units
        if len(units) == 0:
            return Runs.empty()
        view = _View(self._window_ends_s, None if looks_of_window is None else (self._nr_looks, looks_of_window))
        whole = units.unit_runs(np.flatnonzero(units.slot < 0), view)
        parts = [whole.cut_to(self._ranges)]
        mixed = np.flatnonzero(units.slot >= 0)
        for first in range(0, len(mixed), _ROWS_AT_ONCE):
            page_runs = units.page_runs(mixed[first : first + _ROWS_AT_ONCE], view)
            # One part may need all of the limit: where the hot memory lies close together.
            parts.append(condense(page_runs.cut_to(self._ranges), limit=4 * limit))
        runs = Runs.concatenate(parts)
        return condense(runs.take(np.argsort(runs.start)), limit=limit)

    def heat(self) -> PageHeat:
        """Rates and ages of the last window that was closed, page by page; a copy."""
        units, ends_s = self._units, self._window_ends_s
        return PageHeat(
            unit=units.address.copy(),
            slot=units.slot.copy(),
            rate=units.rate.copy(),
            since=units.since.copy(),
            is_blind=units.coverage <= 0,
            page_rate=units.pages.rate.copy(),
            page_since=units.pages.since.copy(),
            age_s=ends_s[-1] - ends_s,
            full_rate=FULL_RATE,
        )

    def _begin_again(self, start: Addresses, end: Addresses, *, is_new: bool) -> None:
        """Ages count from here; where the memory is new, nothing that is known of its addresses holds."""
        units, window = self._units, self._window_number()
        low, high, _, row = intersect(start, end, units.address, units.address + _UNIT)
        is_whole = high - low == _UNIT
        units.begin_again(row[is_whole], window)
        parts = row[~is_whole]
        slots, pages = units.expand(parts), units.pages
        for slot, unit, begin, stop in zip(
            slots.tolist(),
            units.address[parts].tolist(),
            low[~is_whole].tolist(),
            high[~is_whole].tolist(),
            strict=True,
        ):
            part = slice((begin - unit) // PAGE_SIZE, (stop - unit) // PAGE_SIZE)
            pages.since[slot, part] = window
            if is_new:
                pages.rate[slot, part] = 0
        units.fold()

    def _window_number(self) -> int:
        """Index of the latest window end.

        Where 16 bits do not reach, every other one of the older half is given up: the older an age,
        the coarser.
        """
        if len(self._window_ends_s) > _MOST_WINDOWS:
            half = _MOST_WINDOWS // 4 * 2
            self._units.thin_windows(half)
            older, newer = self._window_ends_s[:half:2], self._window_ends_s[half:]
            self._window_ends_s = np.concatenate([older, newer])
        return len(self._window_ends_s) - 1

    def _add_units(self, address: Addresses) -> None:
        new = address[~np.isin(address, self._units.address, assume_unique=True)]
        if len(new):
            self._units.add(new, window=self._window_number(), is_cleared=self._has_looked)


class _View:
    """Rates and ages as they are told: of the last window, or of this one as far as it has come.

    Args:
        looks: of this window so far, and of a whole one; None: this window does not count yet.
    """

    def __init__(self, window_ends_s: NDArray[np.float64], looks: tuple[int, int] | None) -> None:
        self._age_of_window = window_ends_s[-1] - window_ends_s
        self._last_window = np.uint16(len(window_ends_s) - 1)
        self._is_moving = looks is not None
        so_far, whole = looks or (0, 1)
        self._looks = max(so_far, whole)
        self._left = self._looks - so_far

    def seen(
        self, count: NDArray[np.uint8], rate: NDArray[np.uint8], since: NDArray[np.uint16], blind: Counts
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
        """Rate and since; `blind` are the looks of this window that could not tell."""
        if not self._is_moving:
            return rate, since
        # What is still to come counts with the old rate, as blind looks do.
        moving = _rates(count, rate, blind + self._left, self._looks)
        return moving, np.where((rate == 0) & (moving > 0), self._last_window, since)

    def coverage(self, last: NDArray[np.float32], blind: Counts) -> NDArray[np.float64]:
        covered = last.astype(np.float64)
        if not self._is_moving:
            return covered
        return 1 - (blind + self._left * (1 - covered)) / self._looks

    def age_s(self, since: NDArray[np.uint16]) -> NDArray[np.float64]:
        ages: NDArray[np.float64] = self._age_of_window[since]
        return ages


@dataclass
class _Pages:
    """State page by page, of the units whose pages differ; a row of 512 for each.

    Attributes:
        count: uint8, looks of this window that found the page accessed.
        rate: uint8, access rate of the last window in 250ths.
        since: uint16, window from whose end on the rate has stayed about the same.
    """

    count: NDArray[np.uint8]
    rate: NDArray[np.uint8]
    since: NDArray[np.uint16]

    def __len__(self) -> int:
        return len(self.count)

    def with_rows(self, rate: NDArray[np.uint8], since: NDArray[np.uint16]) -> _Pages:
        """More rows, each all of one rate and since."""
        shape = (len(rate), PAGES)
        return _Pages(
            np.concatenate([self.count, np.zeros(shape, np.uint8)]),
            np.concatenate([self.rate, np.broadcast_to(rate[:, None], shape)]),
            np.concatenate([self.since, np.broadcast_to(since[:, None], shape)]),
        )


@dataclass
class _Units:
    """State of each unit, by ascending address; a unit whose pages are all alike needs no more than its row here.

    So the memory that a census takes follows what is accessed, not the size of the target.

    Attributes:
        address: uint64[n].
        slot: int32[n], row of the unit in `pages`, or -1 where its pages are all alike.
        rate, since: uint8[n], uint16[n], of all its pages where they are alike.
        blind_looks: uint8[n], looks of this window before which set bits had not been cleared: they tell nothing.
        is_cleared: all set bits have been cleared since the last look.
        is_known: a window has told of its rate; before that there is no old rate.
        coverage: float32[n], share of the last window's looks that could tell.
        stuck: uint64[n, 8], bits that do not clear.
    """

    address: Addresses
    slot: NDArray[np.int32]
    rate: NDArray[np.uint8]
    since: NDArray[np.uint16]
    blind_looks: NDArray[np.uint8]
    is_cleared: Flags
    is_known: Flags
    coverage: NDArray[np.float32]
    stuck: NDArray[np.uint64]
    pages: _Pages

    @classmethod
    def empty(cls) -> _Units:
        none = np.zeros((0, PAGES), np.uint8)
        return cls(
            address=np.zeros(0, np.uint64),
            slot=np.zeros(0, np.int32),
            rate=np.zeros(0, np.uint8),
            since=np.zeros(0, np.uint16),
            blind_looks=np.zeros(0, np.uint8),
            is_cleared=np.zeros(0, np.bool_),
            is_known=np.zeros(0, np.bool_),
            coverage=np.zeros(0, np.float32),
            stuck=np.zeros((0, 8), np.uint64),
            pages=_Pages(none, none, none.astype(np.uint16)),
        )

    def __len__(self) -> int:
        return len(self.address)

    def rows(self, address: Addresses) -> Counts:
        """The rows of these units, which must be known."""
        return np.searchsorted(self.address, address)

    def add(self, address: Addresses, *, window: int, is_cleared: bool) -> None:
        """New units, idle since now."""
        count = len(address)
        self.address = np.concatenate([self.address, address])
        self.slot = np.append(self.slot, np.full(count, -1, np.int32))
        self.rate = np.append(self.rate, np.zeros(count, np.uint8))
        self.since = np.append(self.since, np.full(count, window, np.uint16))
        self.blind_looks = np.append(self.blind_looks, np.zeros(count, np.uint8))
        self.is_cleared = np.append(self.is_cleared, np.full(count, is_cleared))
        self.is_known = np.append(self.is_known, np.zeros(count, np.bool_))
        self.coverage = np.append(self.coverage, np.zeros(count, np.float32))
        self.stuck = np.concatenate([self.stuck, np.zeros((count, 8), np.uint64)])
        self.keep(np.argsort(self.address))

    def keep(self, rows: Counts) -> None:
        """Only these units, in this order."""
        for name in ("address", "slot", "rate", "since", "blind_looks", "is_cleared", "is_known", "coverage", "stuck"):
            setattr(self, name, getattr(self, name)[rows])
        self._keep_slots()

    def expand(self, rows: Counts) -> Counts:
        """The rows in `pages` of these units; made where there was none."""
        new = np.unique(rows[self.slot[rows] < 0])
        if len(new):
            self.slot[new] = len(self.pages) + np.arange(len(new))
            self.pages = self.pages.with_rows(self.rate[new], self.since[new])
        return self.slot[rows].astype(np.int64)

    def fold(self) -> None:
        """Give up the pages of units that are all alike and were not accessed in this window."""
        rate, since = self.pages.rate, self.pages.since
        alike = (rate == rate[:, :1]).all(axis=1) & (since == since[:, :1]).all(axis=1)
        alike &= ~self.pages.count.any(axis=1)
        rows = np.flatnonzero(self.slot >= 0)
        rows = rows[alike[self.slot[rows]]]
        self.rate[rows], self.since[rows] = rate[self.slot[rows], 0], since[self.slot[rows], 0]
        self.slot[rows] = -1
        self._keep_slots()

    def begin_again(self, rows: Counts, window: int) -> None:
        """The ages of all pages of these units count from this window."""
        self.since[rows] = window
        slots = self.slot[rows]
        self.pages.since[slots[slots >= 0]] = window

    def close_window(self, looks: int, window: int) -> None:
        """Rates from counts; `since` where a rate has changed.

        A new rate has held for all of the window, so it counts from the end of the one before.
        """
        blind = self.blind_looks.astype(np.int64)
        self.coverage = (1 - blind / max(1, looks)).astype(np.float32)
        # A unit that was all alike and accessed, and was not seen again, fades as a whole.
        faded = np.flatnonzero((self.slot < 0) & (self.rate > 0) & (blind < looks))
        none = np.zeros(1, np.uint8)
        self.rate[faded], changed = _closed_rates(none, self.rate[faded], blind[faded], looks)
        self.since[faded[changed]] = window - 1
        rows = np.flatnonzero((self.slot >= 0) & (blind < looks))
        pages = self.pages
        for first in range(0, len(rows), _ROWS_AT_ONCE):
            part = rows[first : first + _ROWS_AT_ONCE]
            slots = self.slot[part]
            # Where there is no old rate yet, the looks that could tell stand in for the others.
            unknown = blind[part] * ~self.is_known[part]
            pages.rate[slots], changed = _closed_rates(
                pages.count[slots], pages.rate[slots], (blind[part] - unknown)[:, None], (looks - unknown)[:, None]
            )
            pages.since[slots] = np.where(changed, np.uint16(window - 1), pages.since[slots])
        pages.count[:] = 0
        self.is_known |= blind < looks
        self.fold()

    def thin_windows(self, half: int) -> None:
        """Of the first `half` windows (an even number) every other one is given up.

        What changed in such a window counts as changed in the next: rather too young than too old.
        """
        for column in (self.since, self.pages.since):
            number = column.astype(np.int32)
            column[:] = np.where(number < half, (number + 1) // 2, number - half // 2)

    def unit_runs(self, rows: Counts, view: _View) -> Runs:
        """One run for each of these units, whose pages are alike."""
        address, blind = self.address[rows], self.blind_looks[rows].astype(np.int64)
        rate, since = view.seen(np.zeros(1, np.uint8), self.rate[rows], self.since[rows], blind)
        return Runs(
            start=address,
            end=address + _UNIT,
            rate=rate / FULL_RATE,
            age_s=view.age_s(since),
            coverage=view.coverage(self.coverage[rows], blind),
        )

    def page_runs(self, rows: Counts, view: _View) -> Runs:
        """Runs of equal pages of these units, which differ."""
        slots, pages, blind = self.slot[rows], self.pages, self.blind_looks[rows].astype(np.int64)
        rate, since = view.seen(pages.count[slots], pages.rate[slots], pages.since[slots], blind[:, None])
        differs = np.ones(rate.shape, np.bool_)
        differs[:, 1:] = (rate[:, 1:] != rate[:, :-1]) | (since[:, 1:] != since[:, :-1])
        row, page = np.nonzero(differs)
        flat = row * PAGES + page
        length = np.diff(np.append(flat, rate.size))
        start = self.address[rows][row] + page.astype(np.uint64) * _PAGE
        return Runs(
            start=start,
            end=start + length.astype(np.uint64) * _PAGE,
            rate=rate.reshape(-1)[flat] / FULL_RATE,
            age_s=view.age_s(since.reshape(-1)[flat]),
            coverage=view.coverage(self.coverage[rows], blind)[row],
        )

    def _keep_slots(self) -> None:
        """Pages of units that are gone or folded are given up."""
        used = np.flatnonzero(self.slot >= 0)
        if len(used) == len(self.pages):
            return
        pages, slots = self.pages, self.slot[used]
        self.pages = _Pages(pages.count[slots], pages.rate[slots], pages.since[slots])
        self.slot[used] = np.arange(len(used))


def _closed_rates(
    count: NDArray[np.uint8], old: NDArray[np.uint8], blind: Counts, looks: Counts | int
) -> tuple[NDArray[np.uint8], Flags]:
    """Rates of a window that ends, and where they have changed."""
    rate = _rates(count, old, blind, looks)
    changed = np.abs(rate.astype(np.int32) - old) > _TOLERATED_LOOKS * FULL_RATE / looks
    changed |= (rate == 0) != (old == 0)
    return rate, changed


def _rates(count: NDArray[np.uint8], old: NDArray[np.uint8], blind: Counts, looks: Counts | int) -> NDArray[np.uint8]:
    """Rates of so many looks.

    Looks that could not tell count with the old rate.  Counting only the others would find too much:
    a unit goes blind by an access, so that its looks end with one (the error of stopping at a success).
    """
    found = count.astype(np.int32) * FULL_RATE + old.astype(np.int32) * blind
    return ((found + looks // 2) // looks).astype(np.uint8)


def _columns(ranges: Sequence[Range]) -> tuple[Addresses, Addresses]:
    bounds = np.array(ranges, np.uint64).reshape(-1, 2)
    return bounds[:, 0], bounds[:, 1]


def _without(start: Addresses, end: Addresses, others: Sequence[Range]) -> tuple[Addresses, Addresses]:
    """The parts of these ranges that lie in none of the others."""
    other_start, other_end = join_adjacent(*_columns(others))
    low, high, _, _ = intersect(start, end, np.append(np.uint64(0), other_end), np.append(other_start, _LAST_ADDRESS))
    return low, high


def clear_ranges(bits: PageBits, *, max_gap_pages: int) -> tuple[Addresses, Addresses]:
    """The set bits as ranges, each in one unit; gaps of up to `max_gap_pages` are bridged.

    A range of its own costs as much as clearing some twenty pages in a row.
    """
    pages = unpacked(bits.accessed)
    row, page = np.nonzero(pages)
    if len(row) == 0:
        return np.zeros(0, np.uint64), np.zeros(0, np.uint64)
    opens = np.ones(len(row), np.bool_)
    opens[1:] = (row[1:] != row[:-1]) | (page[1:] - page[:-1] > max_gap_pages + 1)
    closes = np.append(opens[1:], True)
    start = bits.address[row[opens]] + page[opens].astype(np.uint64) * _PAGE
    end = bits.address[row[closes]] + (page[closes] + 1).astype(np.uint64) * _PAGE
    return start, end
