"""Arithmetic of pieces, against page by page models of the same words."""

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from act.scene import HUGE, PAGE, plan
from memtherm.act.pieces import Pieces, cut_at_mappings, cut_evenly, round_to_huge_pages
from memtherm.core.scheme import Action
from memtherm.linux.maps import Mappings

Ranges = list[tuple[int, int]]
# In pages; small, so that borders meet often.
SPAN = 48


@st.composite
def disjoint(draw: st.DrawFn, *, span: int = SPAN) -> Ranges:
    """Sorted disjoint ranges, some of which touch."""
    borders = draw(st.lists(st.integers(0, span), unique=True, max_size=20).map(sorted))
    return [pair for pair in pairwise(borders) if draw(st.booleans())]


def columns(ranges: Ranges, unit: int = PAGE) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    start, end = (np.array([one[side] * unit for one in ranges], np.uint64) for side in (0, 1))
    return start, end


def mappings_of(ranges: Ranges) -> Mappings:
    start, end = columns(ranges)
    zeros = np.zeros(len(ranges), np.uint64)
    narrow = np.zeros(len(ranges), np.uint8)
    return Mappings(start, end, narrow, zeros, zeros, zeros, narrow, [""] * len(ranges))


def pages_of(pieces: Pieces) -> dict[int, tuple[int, int]]:
    """Page → (region, mapping); fails where two pieces overlap or one is empty."""
    found: dict[int, tuple[int, int]] = {}
    for start, end, region, mapping in zip(pieces.start, pieces.end, pieces.region, pieces.mapping, strict=True):
        assert start < end
        for page in range(int(start) // PAGE, int(end) // PAGE):
            assert page not in found
            found[page] = (int(region), int(mapping))
    assert list(found) == sorted(found)
    return found


def row_of(page: int, ranges: Ranges) -> int | None:
    return next((row for row, (start, end) in enumerate(ranges) if start <= page < end), None)


def cut(regions: Ranges, mapped: Ranges) -> Pieces:
    planned = plan(Action.STAT, *[(start * PAGE, end * PAGE) for start, end in regions])
    return cut_at_mappings(planned, mappings_of(mapped))


def model(regions: Ranges, mapped: Ranges) -> dict[int, tuple[int, int]]:
    rows = {page: (row_of(page, regions), row_of(page, mapped)) for page in range(SPAN)}
    return {
        page: (region, mapping)
        for page, (region, mapping) in rows.items()
        if region is not None and mapping is not None
    }


@settings(deadline=None)
@given(disjoint(), disjoint())
def test_pieces_are_the_mapped_pages_of_the_regions(regions: Ranges, mapped: Ranges) -> None:
    pieces = cut(regions, mapped)
    assert pages_of(pieces) == model(regions, mapped)
    assert pieces.total_bytes == len(model(regions, mapped)) * PAGE


@settings(deadline=None)
@given(disjoint(), disjoint(), disjoint())
def test_within_and_without_share_the_pages_out(regions: Ranges, mapped: Ranges, others: Ranges) -> None:
    pieces = cut(regions, mapped)
    inside, outside = pages_of(pieces.within(*columns(others))), pages_of(pieces.without(*columns(others)))
    expected = model(regions, mapped)
    assert inside == {page: rows for page, rows in expected.items() if row_of(page, others) is not None}
    assert outside == {page: rows for page, rows in expected.items() if row_of(page, others) is None}


@settings(deadline=None)
@given(disjoint(), disjoint())
def test_runs_are_what_lies_together_in_a_mapping(regions: Ranges, mapped: Ranges) -> None:
    start, end, mapping = cut(regions, mapped).runs()
    runs = list(zip((start // PAGE).tolist(), (end // PAGE).tolist(), mapping.tolist(), strict=True))
    expected: list[tuple[int, int, int]] = []
    for page, (_, row) in model(regions, mapped).items():
        if expected and expected[-1][1:] == (page, row):
            expected[-1] = (expected[-1][0], page + 1, row)
        else:
            expected.append((page, page + 1, row))
    assert runs == expected


@settings(deadline=None)
@given(disjoint(span=12), disjoint(span=12), st.lists(st.booleans(), min_size=20, max_size=20))
def test_rounding_leaves_whole_huge_pages(regions: Ranges, mapped: Ranges, huge: list[bool]) -> None:
    # A unit of 512 KiB: four to a huge page.
    unit = HUGE // 4
    start, end = columns(mapped, unit)
    narrow, wide = np.zeros(len(mapped), np.uint8), np.zeros(len(mapped), np.uint64)
    mappings = Mappings(start, end, narrow, wide, wide, wide, narrow, [""] * len(mapped))
    pieces = cut_at_mappings(plan(Action.STAT, *[(a * unit, b * unit) for a, b in regions]), mappings)
    rounded = round_to_huge_pages(pieces, np.array(huge[: len(mapped)], np.bool_))
    expected: set[int] = set()
    for block in range(3):
        units = range(4 * block, 4 * block + 4)
        rows = [row_of(one, mapped) if row_of(one, regions) is not None else None for one in units]
        for one, row in zip(units, rows, strict=True):
            if row is not None and (not huge[row] or rows == [row] * 4):
                expected.add(one)
    found = {
        one
        for first, last in zip(rounded.start.tolist(), rounded.end.tolist(), strict=True)
        for one in range(first // unit, last // unit)
    }
    assert found == expected
    assert rounded.total_bytes == len(expected) * unit
    for first, region in zip(rounded.start.tolist(), rounded.region.tolist(), strict=True):
        assert row_of(first // unit, regions) == region


@settings(deadline=None)
@given(disjoint(), st.integers(1, 20))
def test_cutting_evenly_loses_nothing(ranges: Ranges, size: int) -> None:
    start, end = cut_evenly(*columns(ranges), size * PAGE)
    cuts = list(zip((start // PAGE).tolist(), (end // PAGE).tolist(), strict=True))
    expected = []
    for first, last in ranges:
        borders = [first, *(page for page in range(first + 1, last) if page % size == 0), last]
        expected += list(pairwise(borders))
    assert cuts == expected


def test_no_pieces() -> None:
    nothing = cut([], [(0, 4)])
    assert (len(nothing), nothing.total_bytes, len(nothing.runs()[0])) == (0, 0, 0)
    assert len(round_to_huge_pages(nothing, np.ones(1, np.bool_))) == 0
    assert len(nothing.without(*columns([(1, 2)]))) == 0
    assert len(cut([(0, 4)], [])) == 0


def test_the_top_of_the_address_space_is_not_lost() -> None:
    last = 2**64 - 2 * PAGE
    pieces = Pieces(
        np.array([last], np.uint64), np.array([last + PAGE], np.uint64), np.zeros(1, np.int64), np.zeros(1, np.int64)
    )
    assert pieces.without(*columns([(0, 4)])).total_bytes == PAGE
