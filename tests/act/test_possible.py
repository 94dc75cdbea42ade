"""What is allowed of what is possible, against a page by page model; and the limit of bytes a second."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from act.scene import HUGE, PAGE
from memtherm.act.pieces import Pieces, are_inside, cut_at, runs_of_pages, spare_parts_of_huge_pages
from memtherm.act.possible import Possible
from memtherm.act.rate_limit import RateLimit

# Of each row of the plan: gap before it, then parts as (gap, pages).
Rows = list[tuple[int, list[tuple[int, int]]]]


@st.composite
def rows(draw: st.DrawFn) -> Rows:
    parts = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 6)), max_size=4)
    return draw(st.lists(st.tuples(st.integers(0, 3), parts), min_size=1, max_size=5))


def possible_of(drawn: Rows) -> tuple[Possible, list[list[int]]]:
    """With the possible pages of each row."""
    start: list[int] = []
    end: list[int] = []
    region: list[int] = []
    pages: list[list[int]] = []
    place = 0
    for row, (gap, parts) in enumerate(drawn):
        place += gap
        pages.append([])
        for hole, size in parts:
            place += hole
            start.append(place)
            place += size
            end.append(place)
            region.append(row)
            pages[-1] += range(place - size, place)
    low, high = (np.array(column, np.uint64) * np.uint64(PAGE) for column in (start, end))
    return Possible(low, high, np.array(region, np.int64), np.full(len(start), PAGE), len(drawn)), pages


def pages_of(possible: Possible) -> list[list[int]]:
    found: list[list[int]] = [[] for _ in range(possible.count)]
    for start, end, region in zip(possible.start, possible.end, possible.region, strict=True):
        found[int(region)] += range(int(start) // PAGE, int(end) // PAGE)
    return found


@settings(deadline=None)
@given(rows(), st.lists(st.integers(0, 20 * PAGE), min_size=5, max_size=5))
def test_the_first_allowed_pages_of_each_row(drawn: Rows, allowed: list[int]) -> None:
    possible, pages = possible_of(drawn)
    left, stops = possible.first_bytes(np.array(allowed[: len(drawn)]))
    assert pages_of(left) == [row[: size // PAGE] for row, size in zip(pages, allowed, strict=False)]
    for row, size, stop in zip(pages, allowed, stops.tolist(), strict=False):
        behind = row[size // PAGE :]
        assert all(page * PAGE < stop for page in row[: size // PAGE])
        assert (stop <= behind[0] * PAGE) if behind else stop > 2**63
    assert left.range_bytes.tolist() == [len(row) * PAGE for row in pages_of(left)]


@settings(deadline=None)
@given(st.integers(0, 5), st.integers(0, 5), st.integers(0, 5 * HUGE))
def test_huge_pages_are_allowed_whole(huge: int, small: int, allowed: int) -> None:
    start = np.array([HUGE, HUGE * (1 + huge)], np.uint64)
    end = np.array([HUGE * (1 + huge), HUGE * (1 + huge) + small * PAGE], np.uint64)
    kept = end > start
    possible = Possible.of(start[kept], end[kept], np.zeros(kept.sum(), np.int64), count=1, huge=(start[:1], end[:1]))
    left, _ = possible.first_bytes(np.array([allowed]))
    whole = min(allowed // HUGE, huge)
    rest = min((allowed - whole * HUGE) // PAGE, small) if whole == huge else 0
    assert left.total_bytes == whole * HUGE + rest * PAGE <= allowed


def test_a_run_of_small_and_huge_pages_is_told_apart() -> None:
    huge = np.array([2 * HUGE], np.uint64), np.array([3 * HUGE], np.uint64)
    possible = Possible.of(
        np.array([HUGE], np.uint64), np.array([4 * HUGE], np.uint64), np.zeros(1, np.int64), count=1, huge=huge
    )
    assert possible.unit_bytes.tolist() == [PAGE, HUGE, PAGE]
    left, (stop,) = possible.first_bytes(np.array([HUGE + PAGE]))
    assert (left.total_bytes, stop) == (HUGE, 2 * HUGE)


@settings(deadline=None)
@given(st.sets(st.integers(0, 60)), st.sets(st.integers(0, 60)))
def test_pages_runs_and_cuts(pages: set[int], borders: set[int]) -> None:
    column = np.array(sorted(pages), np.uint64) * np.uint64(PAGE)
    start, end = runs_of_pages(column)
    assert [page for page in range(62) if are_inside(np.array([page * PAGE], np.uint64), start, end)[0]] == sorted(
        pages
    )
    cuts = np.array(sorted(borders), np.uint64) * np.uint64(PAGE)
    new_start, new_end, row = cut_at(start, end, cuts)
    assert (new_end > new_start).all()
    again = [page for low, high in zip(new_start, new_end, strict=True) for page in range(int(low), int(high), PAGE)]
    assert again == column.tolist()
    assert all(start[old] <= low and high <= end[old] for low, high, old in zip(new_start, new_end, row, strict=True))
    inner = {int(one) for one in cuts if any(low < one < high for low, high in zip(start, end, strict=True))}
    assert set(new_start.tolist()) == set(start.tolist()) | inner


@settings(deadline=None)
@given(st.lists(st.integers(0, 40), unique=True, max_size=10).map(sorted), st.sets(st.integers(0, 9)))
def test_no_part_of_a_huge_page_is_left(borders: list[int], huge: set[int]) -> None:
    # A unit of 512 KiB: four to a huge page.
    unit = HUGE // 4
    start, end = (np.array(borders[side : len(borders) // 2 * 2 : 2], np.uint64) * np.uint64(unit) for side in (0, 1))
    rows = np.zeros(len(start), np.int64)
    blocks = np.array(sorted(huge), np.uint64) * np.uint64(HUGE)
    left = spare_parts_of_huge_pages(Pieces(start, end, rows, rows), blocks, blocks + np.uint64(HUGE))
    units = {one for low, high in zip(borders[::2], borders[1::2], strict=False) for one in range(low, high)}
    expected = {one for one in units if one // 4 not in huge or units >= set(range(one // 4 * 4, one // 4 * 4 + 4))}
    found = [one for low, high in zip(left.start, left.end, strict=True) for one in range(int(low), int(high), unit)]
    assert found == [one * unit for one in sorted(expected)]


def test_a_rate_limit_has_room_for_five_seconds() -> None:
    limit = RateLimit(100, now_s=10.0)
    assert limit.available_bytes(10.0) == 500
    limit.take(500)
    assert limit.available_bytes(10.0) == 0
    assert limit.available_bytes(12.5) == 250
    limit.take(200)
    assert limit.available_bytes(1000.0) == 500


def test_a_rate_limit_that_was_exceeded_pays_back() -> None:
    limit = RateLimit(100, now_s=0.0)
    assert limit.available_bytes(0.0) == 500
    limit.take(600)
    assert [limit.available_bytes(now_s) for now_s in (0.5, 1.0, 2.0, 1.0)] == [0, 0, 100, 100]


def test_no_rate_limit() -> None:
    limit = RateLimit(0, now_s=0.0)
    limit.take(10**15)
    assert limit.available_bytes(0.0) is None


@given(st.lists(st.tuples(st.floats(0, 10), st.integers(0, 2000)), max_size=50))
def test_over_any_time_no_more_than_the_rate_and_one_burst(steps: list[tuple[float, int]]) -> None:
    limit, now_s, done = RateLimit(100, now_s=0.0), 0.0, 0
    for pause_s, wanted in steps:
        now_s += pause_s
        available = limit.available_bytes(now_s)
        assert available is not None
        taken = min(wanted, available)
        limit.take(taken)
        done += taken
        assert done <= 500 + 100 * now_s + 1


@pytest.mark.parametrize("allowed", [0, PAGE, HUGE - 1])
def test_what_is_less_than_a_huge_page_ends_behind_it(allowed: int) -> None:
    one = np.array([HUGE], np.uint64), np.array([3 * HUGE], np.uint64)
    possible = Possible.of(*one, np.zeros(1, np.int64), count=1, huge=one)
    assert possible.first_bytes(np.array([allowed]))[0].total_bytes == 0
    assert possible.after_first_unit(0) == 2 * HUGE
