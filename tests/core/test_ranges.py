"""Arithmetic on ranges against sets of single bytes."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memtherm.core.ranges import (
    Addresses,
    align_down,
    align_up,
    intersect,
    join_adjacent,
    overlap_bytes,
    round_inward,
    sizes,
)
from memtherm.core.regions import Range

SPAN = 120


def columns(ranges: list[Range]) -> tuple[Addresses, Addresses]:
    pairs = np.array(ranges, np.uint64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def pairs(start: Addresses, end: Addresses) -> list[Range]:
    return list(zip(start.tolist(), end.tolist(), strict=True))


def bytes_of(ranges: list[Range]) -> set[int]:
    return {byte for start, end in ranges for byte in range(start, end)}


@st.composite
def disjoint_ranges(draw: st.DrawFn) -> list[Range]:
    """Sorted and disjoint; some touch."""
    borders = sorted(draw(st.sets(st.integers(0, SPAN), max_size=16)))
    neighbours = list(pairwise(borders))
    kept = draw(st.lists(st.booleans(), min_size=len(neighbours), max_size=len(neighbours)))
    return [one for one, keep in zip(neighbours, kept, strict=True) if keep]


any_ranges = st.lists(
    st.tuples(st.integers(0, SPAN), st.integers(0, 20)).map(lambda one: (one[0], one[0] + one[1])), max_size=10
)


@given(value=st.integers(0, 2**64), alignment=st.sampled_from([1, 4096, 2 << 20]))
def test_align(value: int, alignment: int) -> None:
    down, up = align_down(value, alignment), align_up(value, alignment)
    assert down % alignment == up % alignment == 0
    assert value - alignment < down <= value <= up < value + alignment


def test_sizes_are_signed() -> None:
    start, end = columns([(0, 5), (0, 9)])
    assert (sizes(start, end)[0] - sizes(start, end)[1]) == -4


@given(left=disjoint_ranges(), right=disjoint_ranges())
def test_intersect(left: list[Range], right: list[Range]) -> None:
    start, end, index, other = intersect(*columns(left), *columns(right))
    overlaps = pairs(start, end)
    assert bytes_of(overlaps) == bytes_of(left) & bytes_of(right)
    expected = [
        (max(a[0], b[0]), min(a[1], b[1]), i, j)
        for i, a in enumerate(left)
        for j, b in enumerate(right)
        if a[0] < b[1] and b[0] < a[1]
    ]
    assert list(zip(start.tolist(), end.tolist(), index.tolist(), other.tolist(), strict=True)) == expected


@given(ranges=any_ranges, cover=disjoint_ranges())
def test_overlap_bytes(ranges: list[Range], cover: list[Range]) -> None:
    """The first list may be in any order, overlap itself and hold empty ranges."""
    expected = [len(bytes_of([one]) & bytes_of(cover)) for one in ranges]
    assert overlap_bytes(*columns(ranges), *columns(cover)).tolist() == expected


@given(ranges=any_ranges, alignment=st.sampled_from([1, 4, 7, 16]))
def test_round_inward(ranges: list[Range], alignment: int) -> None:
    inner = pairs(*round_inward(*columns(ranges), alignment))
    for (start, end), (inner_start, inner_end) in zip(ranges, inner, strict=True):
        whole = [block for block in range(0, 2 * SPAN, alignment) if start <= block and block + alignment <= end]
        assert inner_end - inner_start == len(whole) * alignment
        assert not whole or inner_start == whole[0]


@given(ranges=any_ranges.map(lambda ranges: [one for one in ranges if one[0] < one[1]]))
def test_join_adjacent(ranges: list[Range]) -> None:
    joined = pairs(*join_adjacent(*columns(ranges)))
    assert bytes_of(joined) == bytes_of(ranges)
    assert all(left[1] < right[0] for left, right in pairwise(joined)), "nothing touches any more"


@pytest.mark.parametrize("top", [0, 1 << 47, (1 << 63) - SPAN])
def test_high_addresses(top: int) -> None:
    """No address is rounded as a float would: ranges at the top of an address space stay exact."""
    start, end = columns([(top + 1, top + 10), (top + 12, top + 20)])
    other_start, other_end = columns([(top + 5, top + 15)])
    both_start, both_end, _, _ = intersect(start, end, other_start, other_end)
    assert pairs(both_start, both_end) == [(top + 5, top + 10), (top + 12, top + 15)]
    assert overlap_bytes(start, end, other_start, other_end).tolist() == [5, 3]
    assert pairs(*round_inward(start, end, 4)) == [(top + 4, top + 8), (top + 12, top + 20)]
