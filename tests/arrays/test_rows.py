"""Rows ↔ pages, against a reference that goes from element to element."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memtherm.arrays.memory import ArrayMemory
from memtherm.arrays.rows import RowMap, chosen_runs
from memtherm.errors import InvalidInput

PAGE = 4096
BASE = 1 << 40


def element_starts(memory: ArrayMemory) -> np.ndarray[Any, Any]:
    """Address of every element, by row."""
    at = np.full((1,), memory.address)
    for count, step in zip(memory.shape, memory.strides, strict=True):
        at = (at[:, None] + np.arange(count) * step).reshape(-1)
    return at.reshape(memory.nr_rows, -1)


class Reference:
    """What a RowMap says, found byte by byte."""

    def __init__(self, memory: ArrayMemory) -> None:
        starts = element_starts(memory)
        self.row_pages: list[set[int]] = []
        filled: dict[int, set[int]] = {}
        for row in starts:
            pages = set()
            for start in row.tolist():
                for page in range(start // PAGE, (start + memory.itemsize - 1) // PAGE + 1):
                    pages.add(page)
                    low, high = max(start, page * PAGE), min(start + memory.itemsize, (page + 1) * PAGE)
                    filled.setdefault(page, set()).update(range(low, high))
            self.row_pages.append(pages)
        low = min(min(row) for row in starts.tolist())
        high = max(max(row) for row in starts.tolist()) + memory.itemsize
        self.watched = [page for page in range(low // PAGE, high // PAGE + 1) if low <= page * PAGE <= high - PAGE]
        self.own = {page for page in self.watched if len(filled.get(page, ())) == PAGE}
        self.shared = filled.keys() - self.own


@st.composite
def memories(draw: st.DrawFn) -> ArrayMemory:
    """Arrays as numpy makes them: contiguous at first, then sliced, reversed, transposed."""
    itemsize = draw(st.sampled_from([1, 3, 8, 24, 512, 3000, 5000]))
    sizes = draw(st.lists(st.integers(1, 40), min_size=1, max_size=3))
    most = max(1, 12 * PAGE // itemsize)
    while math.prod(sizes) > most:
        sizes[sizes.index(max(sizes))] //= 2
    room = max(1, most // math.prod(sizes))
    sizes[draw(st.integers(0, len(sizes) - 1))] *= draw(st.integers(max(1, room // 2), room))
    strides = [itemsize * math.prod(sizes[at + 1 :]) for at in range(len(sizes))]
    address, shape = BASE + draw(st.integers(0, 2 * PAGE)), list(sizes)
    for axis, size in enumerate(sizes):
        step = draw(st.sampled_from([1, 1, 1, 2, 3, -1, -2]))
        first = draw(st.sampled_from([0, 0, size // 3]))
        kept = range(first, size)[::step]
        address += kept[0] * strides[axis]
        shape[axis], strides[axis] = len(kept), strides[axis] * step
    order = draw(st.permutations(range(len(sizes))))
    return ArrayMemory(address, tuple(shape[axis] for axis in order), tuple(strides[axis] for axis in order), itemsize)


@settings(max_examples=200, deadline=None)
@given(memories(), st.data())
def test_rows_and_pages_are_those_of_the_elements(memory: ArrayMemory, data: st.DataObject) -> None:
    if memory.first_page >= memory.end_page:
        return
    rows, expected = RowMap(memory), Reference(memory)
    assert (rows.pages // PAGE).tolist() == expected.watched
    assert set((rows.pages[rows.own] // PAGE).tolist()) == expected.own
    assert set((rows.shared // PAGE).tolist()) == expected.shared

    values = np.random.default_rng(1).random(rows.nr_pages)
    value_of = dict(zip(expected.watched, values.tolist(), strict=True))
    of_rows = [[value_of[page] for page in pages if page in value_of] for pages in expected.row_pages]
    np.testing.assert_array_equal(rows.hottest(values), [max(one, default=math.nan) for one in of_rows])
    np.testing.assert_array_equal(rows.lowest(values), [min(one, default=math.nan) for one in of_rows])
    assert rows.rows_below(values, 0.5).tolist() == [row for row, one in enumerate(of_rows) if one and max(one) < 0.5]

    chosen = set(data.draw(st.lists(st.integers(0, memory.nr_rows - 1), max_size=8)))
    if data.draw(st.booleans()):
        chosen = set(range(memory.nr_rows)) - chosen
    theirs = {page for row in chosen for page in expected.row_pages[row]}
    others = {page for row in range(memory.nr_rows) if row not in chosen for page in expected.row_pages[row]}
    assert set((rows.pages[rows.pages_of(sorted(chosen))] // PAGE).tolist()) == theirs & set(expected.watched)
    own = rows.pages[rows.pages_and_own_pages_of(sorted(chosen))[1]]
    assert set((own // PAGE).tolist()) == (theirs & expected.own) - others


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 9), st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 12), st.integers(1, 12))
def test_of_elements_that_lie_over_each_other_no_page_is_taken_for_own_that_is_not(
    itemsize: int, first_stride: int, second_stride: int, first: int, second: int
) -> None:
    memory = ArrayMemory(BASE + 5, (first, second), (first_stride, second_stride), itemsize)
    if memory.first_page >= memory.end_page:
        return
    rows, expected = RowMap(memory), Reference(memory)
    assert set((rows.pages[rows.own] // PAGE).tolist()) <= expected.own


def test_a_value_goes_from_its_page_to_the_rows_on_it() -> None:
    rows = RowMap(ArrayMemory(BASE, (8, 128), (1024, 8), 8))
    assert rows.pages.tolist() == [BASE, BASE + PAGE]
    assert rows.hottest(np.array([0.25, 0.5])).tolist() == [0.25] * 4 + [0.5] * 4
    assert rows.rows_below(np.array([0.25, 0.5]), 0.5).tolist() == [0, 1, 2, 3]


def test_rows_on_shared_pages_alone_have_no_value() -> None:
    rows = RowMap(ArrayMemory(BASE + 2048, (6, 1024), (1024, 1), 1))
    assert np.isnan(rows.hottest(np.array([0.5]))).tolist() == [True, True, False, False, False, False]
    assert rows.rows_below(np.array([0.0]), 1).tolist() == [2, 3, 4, 5]
    assert rows.shared.tolist() == [BASE]


def test_pages_in_which_other_rows_have_a_part_are_left_alone() -> None:
    rows = RowMap(ArrayMemory(BASE, (10, 1000), (1000, 1), 1))
    assert rows.pages_and_own_pages_of(slice(0, 4))[1].tolist() == [False, False]
    assert rows.pages_and_own_pages_of(slice(0, 5))[1].tolist() == [True, False]
    assert rows.pages_and_own_pages_of(None)[1].tolist() == [True, True]


def test_free_memory_behind_the_last_element_belongs_to_the_array() -> None:
    rows = RowMap(ArrayMemory(BASE, (5000,), (1,), 1, free_end=BASE + 2 * PAGE))
    assert rows.own.tolist() == [True, True]
    assert rows.shared.tolist() == []
    assert rows.pages_and_own_pages_of([*range(4096, 5000)])[1].tolist() == [False, True]


def test_a_column_of_a_table_owns_nothing() -> None:
    rows = RowMap(ArrayMemory(BASE, (10_000,), (80,), 8))
    assert not rows.own.any()
    assert len(rows.shared) == -(-(9999 * 80 + 8) // PAGE)


def test_a_large_array_takes_no_loop_over_its_rows() -> None:
    count = 50_000_000
    rows = RowMap(ArrayMemory(BASE, (count,), (1,), 1))
    values = np.zeros(rows.nr_pages)
    values[7] = 1
    assert len(rows.rows_below(values, 0.5)) == count // PAGE * PAGE - PAGE
    assert rows.pages_and_own_pages_of(slice(PAGE, None))[1].sum() == rows.nr_pages - 1


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (None, [(0, 10)]),
        (slice(2, 5), [(2, 5)]),
        (slice(None, None, -3), [(0, 1), (3, 4), (6, 7), (9, 10)]),
        (slice(8, 2), []),
        ([], []),
        (3, [(3, 4)]),
        (range(4, 8), [(4, 8)]),
        ([-1, 0, 1, 1], [(0, 2), (9, 10)]),
        (np.arange(10) > 7, [(8, 10)]),
    ],
)
def test_rows_are_chosen_as_numpy_does(rows: Any, expected: list[tuple[int, int]]) -> None:
    start, end = chosen_runs(rows, 10)
    assert list(zip(start.tolist(), end.tolist(), strict=True)) == expected


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([10], "rows 10 to 10 of an array that has 10"),
        ([-11], "has 10"),
        ([0.5], "names no rows"),
        ("abc", "names no rows"),
        ([[1], [2]], "names no rows"),
        ([[1], [2, 3]], "names no rows"),
        (slice(0.5, None), "names no rows"),
        (slice(None, None, 0), "names no rows"),
        (np.zeros(9, np.bool_), r"a mask of shape \(9,\) for 10 rows"),
    ],
)
def test_rows_that_there_are_not(rows: Any, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        chosen_runs(rows, 10)
