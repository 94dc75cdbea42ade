"""Rows of an array ↔ pages of memory, by arithmetic alone: no loop over rows or pages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memtherm.arrays.memory import ArrayMemory
from memtherm.core.ranges import Addresses, Counts, Flags, join_adjacent
from memtherm.errors import InvalidInput
from memtherm.units import PAGE_SIZE

Floats = NDArray[np.float64]
Rows = slice | NDArray[Any] | list[int] | tuple[int, ...] | range | int | None

# Places of rows that are worked out at a time; bounds the temporary memory to some MiB.
_AT_ONCE = 1 << 19


class RowMap:
    """Which pages a row (an index of the first axis) lies on.

    Pages are counted from the first that lies wholly inside the array: those are watched.  What an array shares
    with its neighbours, at its ends or between its elements, is never acted on.

    Attributes:
        nr_pages: watched pages.
        pages: their addresses (uint64[nr_pages]).
        own: which of them hold nothing but elements of the array (bool[nr_pages]).
        shared: addresses of the pages that hold elements, and something else (uint64).
    """

    def __init__(self, memory: ArrayMemory) -> None:
        self._memory = memory
        self._first_page = memory.first_page
        self.nr_pages = memory.end_page - memory.first_page
        self._inner = [(n, abs(step)) for n, step in zip(memory.shape[1:], memory.strides[1:], strict=True) if n > 1]
        self._stride = memory.strides[0] if memory.nr_rows > 1 else 0
        # The lowest byte of row 0; rows differ by their stride alone.
        self._low = memory.start - min(0, self._stride) * (memory.nr_rows - 1)
        # Between parts with gaps of less than a page none can lie.
        self._length, self._offsets = _parts(memory.itemsize, self._inner, longest_gap=PAGE_SIZE - 1)
        self.pages: Addresses = np.arange(self._first_page, memory.end_page).astype(np.uint64) * np.uint64(PAGE_SIZE)
        self.own = self._own_pages()
        self.shared = self._shared_pages()

    def hottest(self, values: Floats) -> Floats:
        """The highest value (float64[nr_pages]) of the pages of each row; NaN for rows on no watched page."""
        nr_rows = self._memory.nr_rows
        result: Floats | None = None
        for start, end, found in self._hottest_of_runs(values):
            part = found if len(found) == end[-1] - start[0] else np.repeat(found, end - start)
            if len(part) == nr_rows:
                return part
            # An array of bytes has rows beyond number: no second copy of them.
            result = np.empty(nr_rows) if result is None else result
            result[start[0] : end[-1]] = part
        assert result is not None
        return result

    def lowest(self, values: Floats) -> Floats:
        """The lowest value of the pages of each row."""
        lowest: Floats = -self.hottest(-values)
        return lowest

    def rows_below(self, values: Floats, limit: float) -> Counts:
        """The rows none of whose pages has a value of `limit` or more; not those on no watched page (int64)."""
        below = []
        for start, end, found in self._hottest_of_runs(values):
            which = found < limit
            below.append(_all_in(start[which], end[which]))
        return np.concatenate(below)

    def pages_of(self, rows: Rows) -> Flags:
        """Which watched pages hold elements of these rows (bool[nr_pages]).

        Raises InvalidInput for rows that the array does not have.
        """
        return self._touched(*chosen_runs(rows, self._memory.nr_rows))

    def pages_and_own_pages_of(self, rows: Rows) -> tuple[Flags, Flags]:
        """Which watched pages hold elements of these rows, and which of them nothing else.

        Raises InvalidInput for rows that the array does not have.
        """
        start, end = chosen_runs(rows, self._memory.nr_rows)
        others = np.concatenate(([0], end)), np.concatenate((start, [self._memory.nr_rows]))
        some = others[1] > others[0]
        theirs = self._touched(start, end)
        return theirs, self.own & theirs & ~self._touched(others[0][some], others[1][some])

    def ranges(self, which: Flags) -> tuple[Addresses, Addresses]:
        """Start and end of the runs of these watched pages."""
        chosen = self.pages[which]
        return join_adjacent(chosen, chosen + np.uint64(PAGE_SIZE))

    def _own_pages(self) -> Flags:
        memory = self._memory
        steps = [*self._inner, *([(memory.nr_rows, abs(self._stride))] if memory.nr_rows > 1 else [])]
        length, offsets = _parts(memory.itemsize, steps, longest_gap=0)
        if length < PAGE_SIZE and len(offsets) > 1:
            return np.zeros(self.nr_pages, np.bool_)
        start = (memory.start + offsets).astype(np.uint64)
        end = start + np.uint64(length)
        if memory.free_end:
            start, end = np.append(start, np.uint64(memory.end)), np.append(end, np.uint64(memory.free_end))
        start, end = join_adjacent(start, end)
        low = -(-start.astype(np.int64) // PAGE_SIZE) - self._first_page
        high = end.astype(np.int64) // PAGE_SIZE - self._first_page
        some = high > low
        return _covered(low[some], high[some], self.nr_pages)

    def _shared_pages(self) -> Addresses:
        memory, parts = self._memory, []
        if memory.start % PAGE_SIZE:
            parts.append(np.array([memory.start // PAGE_SIZE * PAGE_SIZE], np.uint64))
        parts.append(self.pages[self.pages_of(None) & ~self.own])
        if memory.end > memory.end_page * PAGE_SIZE:
            parts.append(np.array([memory.end_page * PAGE_SIZE], np.uint64))
        return np.concatenate(parts)

    def _touched(self, start: Counts, end: Counts) -> Flags:
        """Which watched pages hold elements of these runs of rows (ascending, disjoint, not empty)."""
        length, step = self._length, abs(self._stride)
        if step - length >= PAGE_SIZE:
            # Such rows have pages between them; there cannot be many.
            start = _all_in(start, end)
            end = start + 1
        extent = (end - start - 1) * step + length
        low = self._low + np.where(self._stride < 0, end - 1, start) * self._stride
        touched = np.zeros(self.nr_pages, np.bool_)
        per_part = max(1, _AT_ONCE // max(1, len(low)))
        for first in range(0, len(self._offsets), per_part):
            begin = (low[:, None] + self._offsets[first : first + per_part]).reshape(-1)
            stop = begin + np.repeat(extent, len(begin) // max(1, len(low)))
            first_page = np.clip(begin // PAGE_SIZE - self._first_page, 0, self.nr_pages)
            end_page = np.clip((stop - 1) // PAGE_SIZE + 1 - self._first_page, 0, self.nr_pages)
            touched |= _covered(first_page, end_page, self.nr_pages)
        return touched

    def _hottest_of_runs(self, values: Floats) -> Iterator[tuple[Counts, Counts, Floats]]:
        """Runs of rows on the same pages, some at a time and all in order: start, end and the highest value of each."""
        # Two windows, whose width is a power of 2, cover the pages of any part.  Of the pages that are not watched an
        # array has one before, which is number 0 here, and one behind at most.
        width = 1 << (((self._length - 1) // PAGE_SIZE + 1).bit_length() - 1)
        best = _highest_of_neighbours(np.concatenate(([np.nan], values, [np.nan])), width)
        nr_at_once = max(1, _AT_ONCE // len(self._offsets))
        nr_parts = max(1, _AT_ONCE // nr_at_once)
        for start, end in self._runs_on_same_pages(nr_at_once):
            found = np.full(len(start), np.nan)
            for part in range(0, len(self._offsets), nr_parts):
                at = (self._low + start * self._stride)[:, None] + self._offsets[part : part + nr_parts]
                low = at // PAGE_SIZE - self._first_page + 1
                high = (at + self._length - 1) // PAGE_SIZE - self._first_page + 1
                highest = np.fmax(best[low], best[high - width + 1])
                found = np.fmax(found, np.fmax.reduce(highest, axis=1))
            yield start, end, found

    def _runs_on_same_pages(self, nr_at_once: int) -> Iterator[tuple[Counts, Counts]]:
        """All rows in order, each alone; or in longer runs where rows are short and in one part."""
        nr_rows, step = self._memory.nr_rows, abs(self._stride)
        if len(self._offsets) > 1 or not 0 < step <= PAGE_SIZE // 4:
            for first in range(0, nr_rows, nr_at_once):
                start = np.arange(first, min(first + nr_at_once, nr_rows))
                yield start, start + 1
            return
        # Where the first or the last byte of a row is the first one to be on another page than the row's before.
        borders = np.arange(self._first_page - 1, self._first_page + self.nr_pages + 2) * PAGE_SIZE
        if self._stride > 0:
            changes = [-(-(borders - self._low) // step), -(-(borders - self._low - self._length + 1) // step)]
        else:
            changes = [(self._low - borders) // step + 1, (self._low + self._length - 1 - borders) // step + 1]
        start = np.sort(np.concatenate(([0], *changes)))
        start = start[(start >= 0) & (start < nr_rows)]
        start = start[np.append(True, np.diff(start) > 0)]
        yield start, np.append(start[1:], nr_rows)


def chosen_runs(rows: Rows, nr_rows: int) -> tuple[Counts, Counts]:
    """Start and end of the runs of neighbouring rows: all of them, a slice, numbers, or a mask.

    Raises InvalidInput for rows that there are not.
    """
    if rows is None:
        rows = slice(None)
    if isinstance(rows, range):
        rows = np.array(rows, np.int64)
    if isinstance(rows, slice):
        try:
            first, stop, step = rows.indices(nr_rows)
        except (TypeError, ValueError) as problem:
            raise InvalidInput(f"{rows!r} names no rows: {problem}", hint="a slice is of whole numbers") from None
        if step == 1:
            return np.array([first][: stop > first], np.int64), np.array([stop][: stop > first], np.int64)
        rows = np.arange(first, stop, step)
    try:
        numbers = np.atleast_1d(np.asarray(rows))
    except ValueError:
        raise InvalidInput(f"{rows!r} names no rows", hint="give a slice, a list of row numbers, or a mask") from None
    if numbers.dtype == np.bool_:
        if numbers.shape != (nr_rows,):
            raise InvalidInput(f"a mask of shape {numbers.shape} for {nr_rows} rows", hint="one value for each row")
        numbers = np.flatnonzero(numbers)
    if numbers.size and (numbers.ndim != 1 or not np.issubdtype(numbers.dtype, np.integer)):
        raise InvalidInput(f"{rows!r} names no rows", hint="give a slice, a list of row numbers, or a mask")
    numbers = numbers.astype(np.int64)
    if numbers.size and not -nr_rows <= int(numbers.min()) <= int(numbers.max()) < nr_rows:
        raise InvalidInput(
            f"rows {int(numbers.min())} to {int(numbers.max())} of an array that has {nr_rows}",
            hint="a negative number counts from the end, as with numpy",
        )
    numbers = np.where(numbers < 0, numbers + nr_rows, numbers)
    steps = np.diff(numbers)
    if (steps <= 0).any():
        # Mostly they are in order already; numpy's `unique` takes a second for a million.
        numbers = np.sort(numbers)
        numbers = numbers[np.append(np.diff(numbers) > 0, True)[: len(numbers)]]
        steps = np.diff(numbers)
    opens = np.ones(len(numbers), np.bool_)
    opens[1:] = steps > 1
    closes = np.append(opens[1:], True)[: len(numbers)]
    return numbers[opens], numbers[closes] + 1


def _parts(itemsize: int, steps: list[tuple[int, int]], *, longest_gap: int) -> tuple[int, Counts]:
    """Elements joined to parts, as long as gaps are no longer than this: their length, and where each begins."""
    length = itemsize
    apart: list[tuple[int, int]] = []
    for count, step in sorted(steps, key=lambda one: one[1]):
        if not apart and step - length <= longest_gap:
            length += (count - 1) * step
        else:
            apart.append((count, step))
    offsets = np.zeros(1, np.int64)
    for count, step in apart:
        offsets = (offsets[:, None] + np.arange(count) * step).reshape(-1)
    return length, np.unique(offsets)


def _highest_of_neighbours(values: Floats, width: int) -> Floats:
    """For each value the highest of it and those that follow, `width` (a power of 2) in all or fewer at the end."""
    best = values.copy()
    reach = 1
    while reach < width:
        best[:-reach] = np.fmax(best[:-reach], best[reach:])
        reach *= 2
    return best


def _covered(low: Counts, high: Counts, size: int) -> Flags:
    """Which of `size` places the ranges [low, high) cover."""
    begin = np.bincount(low, minlength=size + 1)[: size + 1]
    end = np.bincount(high, minlength=size + 1)[: size + 1]
    covered: Flags = np.cumsum(begin - end)[:size] > 0
    return covered


def _all_in(start: Counts, end: Counts) -> Counts:
    """Every number of these ranges, ascending."""
    count = end - start
    offset = np.arange(int(count.sum())) - np.repeat(np.cumsum(count) - count, count)
    numbers: Counts = np.repeat(start, count) + offset
    return numbers
