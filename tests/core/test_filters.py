"""Filters: order, defaults, groups, and regions that are cut at their borders (damon-spec §2.9; §6.1, 16 to 26)."""

import random
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.acting import Row, pages, planned_pages, regions_of
from core.naive_filters import Page, holds, passes
from memtherm.core.filters import CORE_KINDS, Filter, FilterKind, default_rejects, judge
from memtherm.core.pattern import Bounds
from memtherm.core.plan import PlannedAction
from memtherm.core.scheme import Action, Destination, Scheme
from memtherm.core.scheme_state import SchemeState
from memtherm.errors import InvalidInput
from memtherm.units import PAGE_SIZE

ANON = Filter(kind=FilterKind.ANONYMOUS, allow=False)
LABELS = {0: ("database",), 1: ("cache", "all"), 2: ("all",)}


def by_address(first: int, last: int, *, allow: bool, matching: bool = True) -> Filter:
    return Filter(
        kind=FilterKind.ADDRESS, allow=allow, matching=matching, start=first * PAGE_SIZE, end=last * PAGE_SIZE
    )


def by_target(label: str, *, allow: bool) -> Filter:
    return Filter(kind=FilterKind.TARGET, allow=allow, target=label)


def plan(rows: Sequence[Row], *filters: Filter) -> list[PlannedAction]:
    return SchemeState(Scheme(action=Action.STAT, filters=filters)).plan(regions_of(rows), LABELS)


def in_pages(planned: PlannedAction) -> list[tuple[int, int]]:
    starts, ends = (planned.start // PAGE_SIZE).tolist(), (planned.end // PAGE_SIZE).tolist()
    return list(zip(starts, ends, strict=True))


# -- damon-spec §6.1 ---------------------------------------------------------------------------


def test_new_filter() -> None:
    one = Filter(kind=FilterKind.ANONYMOUS, allow=False, matching=True)
    assert (one.kind, one.matching, one.allow, one.is_core) == (FilterKind.ANONYMOUS, True, False, False)


@pytest.mark.parametrize(
    "one",
    [
        Filter(kind=FilterKind.ANONYMOUS, allow=True, matching=True),
        Filter(kind=FilterKind.CGROUP, allow=False, matching=False, cgroup="/123"),
        Filter(kind=FilterKind.YOUNG, allow=True, matching=True),
        Filter(kind=FilterKind.HUGE_PAGE, allow=False, matching=False, size_bytes=Bounds(234, 345)),
        Filter(kind=FilterKind.UNMAPPED, allow=True, matching=True),
        Filter(kind=FilterKind.ADDRESS, allow=False, matching=False, start=456, end=567),
        Filter(kind=FilterKind.TARGET, allow=True, matching=True, target="6"),
    ],
)
def test_commit_filter(one: Filter) -> None:
    """The kernel's vectors: another filter takes the place of the old one as it is."""
    old = Filter(kind=FilterKind.ACTIVE, allow=False, matching=False)
    state = SchemeState(Scheme(action=Action.STAT, filters=(old,)))
    state.replace(Scheme(action=Action.STAT, filters=(one,)))
    assert state.scheme.filters == (one,)


@pytest.mark.parametrize(
    ("region", "matches"),
    [
        ((3, 5), [(3, 5, True)]),
        ((1, 2), [(1, 2, False)]),
        ((6, 8), [(6, 8, False)]),
        ((1, 4), [(1, 2, False), (2, 4, True)]),
        ((2, 8), [(2, 6, True), (6, 8, False)]),
        ((1, 8), [(1, 2, False), (2, 6, True), (6, 8, False)]),
    ],
)
def test_filter_out(region: tuple[int, int], matches: list[tuple[int, int, bool]]) -> None:
    """Addresses [2, 6): regions are cut at the filter's borders, all at once (pages stand for the kernel's bytes)."""
    row = (0, *region, 0.0, 0.0)
    for allow in (False, True):
        found = [span for one in plan([row], by_address(2, 6, allow=allow)) for span in in_pages(one)]
        assert found == [(start, end) for start, end, is_inside in matches if is_inside == allow]
    # Where filters by pages have the last word all parts stay, and those inside were allowed outright.
    (planned,) = plan([row], by_address(2, 6, allow=True), ANON)
    parts = zip(in_pages(planned), planned.is_unfiltered.tolist(), strict=True)
    assert [(*span, is_unfiltered) for span, is_unfiltered in parts] == matches


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ([], (False, False)),
        ([by_target("a", allow=True)], (True, False)),
        ([by_target("a", allow=False)], (False, False)),
        ([by_target("a", allow=False), Filter(kind=FilterKind.ANONYMOUS, allow=True)], (False, True)),
        ([by_target("a", allow=True), Filter(kind=FilterKind.ANONYMOUS, allow=True)], (False, True)),
    ],
)
def test_set_filters_default_reject(filters: list[Filter], expected: tuple[bool, bool]) -> None:
    assert default_rejects(filters) == expected


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ([(1, 2), (2, 3), (3, 4)], [(4, 5), (5, 6), (6, 7)]),
        ([(1, 2), (2, 3)], [(4, 5), (5, 6), (6, 7)]),
        ([], [(4, 5), (5, 6), (6, 7)]),
        ([(1, 2), (2, 3), (3, 4)], [(4, 5), (5, 6)]),
        ([(1, 2), (2, 3), (3, 4)], []),
    ],
)
def test_commit_dests(old: list[tuple[int, int]], new: list[tuple[int, int]]) -> None:
    schemes = [
        Scheme(action=Action.MIGRATE_HOT, destinations=tuple(Destination(*one) for one in many)) for many in (old, new)
    ]
    state = SchemeState(schemes[0])
    state.replace(schemes[1])
    assert [(one.node, one.weight) for one in state.scheme.destinations] == new


# -- what becomes of regions -------------------------------------------------------------------


def test_the_order_decides() -> None:
    row = (0, 0, 10, 0.0, 0.0)
    hole_first = plan([row], by_address(4, 6, allow=False), by_address(2, 8, allow=True))
    assert in_pages(hole_first[0]) == [(2, 4), (6, 8)]
    hole_last = plan([row], by_address(2, 8, allow=True), by_address(4, 6, allow=False))
    assert in_pages(hole_last[0]) == [(0, 2), (2, 4), (4, 6), (6, 8), (8, 10)], "the last rejects: all else passes"


def test_filters_by_target() -> None:
    rows = [(target, 0, 4, 0.0, 0.0) for target in (0, 1, 2)]
    assert [one.target for one in plan(rows, by_target("all", allow=True))] == [1, 2]
    assert [one.target for one in plan(rows, by_target("cache", allow=False))] == [0, 2]
    assert [one.target for one in plan(rows, by_target("nobody", allow=True))] == []
    assert [one.target for one in plan(rows, by_target("all", allow=False), by_target("database", allow=True))] == [0]


def test_a_region_keeps_its_row_in_all_its_parts() -> None:
    rows = [(0, 0, 4, 0.0, 0.0), (0, 4, 9, 1.0, 0.0), (1, 3, 12, 0.0, 5.0)]
    first, second = plan(rows, by_address(5, 7, allow=True), ANON)
    assert (in_pages(first), first.rows.tolist()) == ([(0, 4), (4, 5), (5, 7), (7, 9)], [0, 1, 1, 1])
    assert (in_pages(second), second.rows.tolist()) == ([(3, 5), (5, 7), (7, 12)], [2, 2, 2])
    assert (first.working_set_bytes, second.working_set_bytes) == (5 * PAGE_SIZE, 0)


def test_borders_inside_of_a_page_are_rounded_down() -> None:
    inner = Filter(kind=FilterKind.ADDRESS, allow=True, start=2 * PAGE_SIZE + 1, end=5 * PAGE_SIZE - 1)
    assert in_pages(plan([(0, 0, 10, 0.0, 0.0)], inner)[0]) == [(2, 4)]
    empty = Filter(kind=FilterKind.ADDRESS, allow=True, start=100, end=200)
    assert plan([(0, 0, 10, 0.0, 0.0)], empty) == []
    top = Filter(kind=FilterKind.ADDRESS, allow=True, start=0, end=2**64 - 1)
    assert in_pages(plan([(0, 0, 10, 0.0, 0.0)], top)[0]) == [(0, 10)]


def test_judge_asks_no_filter_that_cannot_matter() -> None:
    asked = []

    def answer(one: Filter) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        asked.append(one)
        return np.ones(3, np.bool_)

    found, is_decided = judge([ANON, ANON], answer, default_rejects=False, count=3)
    assert (found.tolist(), is_decided.tolist(), len(asked)) == ([False] * 3, [True] * 3, 1)
    found, is_decided = judge([], answer, default_rejects=True, count=2)
    assert (found.tolist(), is_decided.tolist()) == ([False, False], [False, False])


addresses = st.tuples(st.integers(0, 45), st.integers(0, 45), st.integers(0, PAGE_SIZE - 1)).map(
    lambda three: (min(three[:2]) * PAGE_SIZE + three[2], max(three[:2]) * PAGE_SIZE + three[2])
)
PAGE_KINDS = [FilterKind.ANONYMOUS, FilterKind.FILE, FilterKind.YOUNG, FilterKind.ACTIVE, FilterKind.UNMAPPED]
any_filter = st.one_of(
    st.builds(
        lambda span, allow, matching: Filter(
            kind=FilterKind.ADDRESS, allow=allow, matching=matching, start=span[0], end=span[1]
        ),
        addresses.filter(lambda span: span != (0, 0)),
        st.booleans(),
        st.booleans(),
    ),
    st.builds(
        Filter,
        kind=st.just(FilterKind.TARGET),
        allow=st.booleans(),
        matching=st.booleans(),
        target=st.sampled_from(["database", "cache", "all", "nobody"]),
    ),
    st.builds(Filter, kind=st.sampled_from(PAGE_KINDS), allow=st.booleans(), matching=st.booleans()),
)


def cut_rows(borders: Sequence[tuple[int, set[int]]]) -> list[Row]:
    """Regions of each target between these pages; of neighbours each third is a hole."""
    rows: list[Row] = []
    for target, points in borders:
        ordered = sorted(points)
        spans = pairwise(ordered)
        rows += [(target, first, last, 0.0, 0.0) for number, (first, last) in enumerate(spans) if number % 3 < 2]
    return rows


points = st.sets(st.integers(0, 40), min_size=2, max_size=8)
tables = st.tuples(points, points, points).map(lambda three: cut_rows(list(enumerate(three))))


@given(rows=tables, filters=st.lists(any_filter, max_size=6), seed=st.integers(0, 2**32))
def test_the_same_as_page_by_page(rows: list[Row], filters: list[Filter], seed: int) -> None:
    """First what regions decide, then what pages decide, as who acts will do it."""
    draw = random.Random(seed)
    facts = {
        (target, page): frozenset(kind for kind in PAGE_KINDS if draw.random() < 0.5)
        for target, first, last, _, _ in rows
        for page in range(first, last)
    }
    found: set[tuple[int, int]] = set()
    by_pages = [one for one in filters if not one.is_core]
    for planned in plan(rows, *filters):
        for start, end, is_unfiltered in zip(
            planned.start.tolist(), planned.end.tolist(), planned.is_unfiltered.tolist(), strict=True
        ):
            here = [Page(page, LABELS[planned.target], facts[planned.target, page]) for page in pages(start, end)]
            keep, _ = judge(
                by_pages,
                lambda one, here=here: np.array([holds(one, page) for page in here]),  # type: ignore[misc]
                default_rejects=default_rejects(filters)[1],
                count=len(here),
            )
            found |= {
                (planned.target, page.number) for page, stays in zip(here, keep, strict=True) if stays or is_unfiltered
            }
    expected = {
        (target, page) for (target, page), known in facts.items() if passes(filters, Page(page, LABELS[target], known))
    }
    assert found == expected


@given(rows=tables, spans=st.lists(addresses.filter(lambda span: span != (0, 0)), max_size=6))
def test_parts_tile_the_regions(rows: list[Row], spans: list[tuple[int, int]]) -> None:
    filters = [Filter(kind=FilterKind.ADDRESS, allow=True, start=start, end=end) for start, end in spans]
    planned = plan(rows, *filters, ANON)
    covered: dict[int, set[int]] = {}
    for target, first, last, _, _ in rows:
        covered.setdefault(target, set()).update(range(first, last))
    assert planned_pages(planned) == covered
    regions = regions_of(rows)
    for one in planned:
        assert (one.start < one.end).all()
        assert (one.start[1:] >= one.end[:-1]).all()
        assert (regions.start[one.rows] <= one.start).all()
        assert (one.end <= regions.end[one.rows]).all()
        assert (regions.target[one.rows] == one.target).all()
        for start, end in spans:
            for border in (start // PAGE_SIZE * PAGE_SIZE, end // PAGE_SIZE * PAGE_SIZE):
                assert not ((one.start < border) & (border < one.end)).any(), "a border lies inside of a part"


@pytest.mark.parametrize(
    "values",
    [
        {"kind": FilterKind.ADDRESS, "start": 5, "end": 4},
        {"kind": FilterKind.ADDRESS},
        {"kind": FilterKind.ADDRESS, "start": -5, "end": 4},
        {"kind": FilterKind.ADDRESS, "start": 0, "end": 2**64},
        {"kind": FilterKind.TARGET},
        {"kind": FilterKind.MAPPING},
        {"kind": FilterKind.HUGE_PAGE},
        {"kind": FilterKind.CGROUP},
        {"kind": FilterKind.ANONYMOUS, "cgroup": "/a"},
        {"kind": FilterKind.YOUNG, "start": 4096, "end": 8192},
    ],
)
def test_filters_without_a_meaning(values: dict[str, object]) -> None:
    with pytest.raises(InvalidInput) as problem:
        Filter(allow=True, **values)  # type: ignore[arg-type]
    assert problem.value.hint


def test_core_kinds() -> None:
    assert {kind for kind in FilterKind if kind in CORE_KINDS} == {FilterKind.ADDRESS, FilterKind.TARGET}
