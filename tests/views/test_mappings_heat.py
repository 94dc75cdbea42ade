"""Which mapping is hot: regions laid over mappings by hand and against loops over pages; and two runs compared."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memtherm.core.selection import Selection
from memtherm.errors import InvalidInput
from memtherm.views.attribution import attribute
from memtherm.views.difference import MappingDifference, difference
from memtherm.views.mappings import MappingHeat, mappings_heat
from memtherm.views.names import mapping_name
from support.history import ListHistory
from views.scene import BEGIN_S, LOOKS, PAGE, WINDOW_S, Row, mappings_of, run, runs


def by_name(history: ListHistory, **options: float) -> dict[str, MappingHeat]:
    return {one.name: one for one in mappings_heat(history, **options).mappings}  # type: ignore[arg-type]


def pages(one: MappingHeat) -> tuple[float, ...]:
    sizes = (one.size_bytes, one.hot_bytes, one.warm_bytes, one.cold_bytes, one.unwatched_bytes)
    return tuple(round(size / PAGE, 6) for size in sizes)


def test_by_hand() -> None:
    table = mappings_of(0, (0, 4, "[heap]"), (4, 8, "/usr/lib/libc.so.6"), (10, 20, "/data/buffer.dat (deleted)"))
    rows: list[Row] = [
        (0, 0, 2, 20, 0.0),
        (0, 2, 6, 5, 0.0),
        (0, 6, 8, 0, 3.5),
        (0, 12, 16, 0, 0.0),
        (0, 30, 31, 20, 0.0),
    ]
    found = by_name(run(rows, mappings=(table,)))
    assert pages(found["heap"]) == (4, 2, 2, 0, 0)
    assert pages(found["libc.so.6"]) == (4, 0, 2, 2, 0)
    assert pages(found["buffer.dat"]) == (10, 0, 0, 4, 6)
    assert pages(found["unknown"]) == (1, 1, 0, 0, 0)
    assert found["heap"].access_rate == pytest.approx((1 + 0.25) / 2)
    assert found["libc.so.6"].idle_s == pytest.approx(4.0 / 2)
    assert [one.name for one in mappings_heat(run(rows, mappings=(table,))).mappings][:2] == ["heap", "unknown"]


def test_mappings_of_one_file_are_one_and_targets_are_apart() -> None:
    tables = (
        mappings_of(0, (0, 1, "/a/libc.so.6"), (5, 7, "/a/libc.so.6"), (9, 10, "")),
        mappings_of(1, (0, 1, "/a/libc.so.6")),
    )
    found = mappings_heat(run([(0, 0, 7, 20, 0.0), (1, 0, 1, 0, 0.0)], mappings=tables)).mappings
    sizes = {(one.target, one.name): pages(one)[:2] for one in found}
    assert sizes == {
        (0, "libc.so.6"): (3, 3),
        (0, "unknown"): (4, 4),
        (1, "libc.so.6"): (1, 0),
        (0, "anonymous"): (1, 0),
    }


def test_each_table_is_for_its_time() -> None:
    tables = (
        mappings_of(0, (0, 4, "/old")),
        mappings_of(0, (0, 4, "/new"), time_s=BEGIN_S + 2 * WINDOW_S + 0.1),
    )
    history = run(*([(0, 0, 4, 20, 0.0)] for _ in range(4)), mappings=tables)
    found = by_name(history)
    assert pages(found["old"]) == (2, 2, 0, 0, 0)
    assert pages(found["new"]) == (2, 2, 0, 0, 0)
    late = mappings_heat(history, selection=Selection(since_s=BEGIN_S + 3 * WINDOW_S)).mappings
    assert [one.name for one in late] == ["new"]


def test_a_table_that_came_late_is_taken_for_the_time_before_it() -> None:
    history = run(
        *([(0, 0, 4, 20, 0.0)] for _ in range(3)), mappings=(mappings_of(0, (0, 4, "[heap]"), time_s=BEGIN_S + 1),)
    )
    assert list(by_name(history)) == ["heap"]


def test_without_mappings_all_is_unknown() -> None:
    found = mappings_heat(run([(0, 0, 4, 20, 0.0)]))
    assert not found.has_mappings
    assert [(one.name, one.path, one.hot_bytes) for one in found.mappings] == [("unknown", "", 4 * PAGE)]


@settings(deadline=None)
@given(runs(), st.sets(st.integers(0, 60), min_size=2, max_size=8), st.integers(1, LOOKS))
def test_it_is_what_loops_over_pages_find(history: ListHistory, borders: set[int], hits: int) -> None:
    edges = sorted(borders)
    ranges = [(low, high, f"/file{low % 3}") for low, high in zip(edges[::2], edges[1::2], strict=False)]
    history = replace(history, all_mappings=[mappings_of(0, *ranges)])
    path_of = {page: path for low, high, path in ranges for page in range(low, high)}
    expected: dict[tuple[int, str | None, int], float] = {}
    seconds = np.zeros(2)
    for one in history.all_reports:
        regions = one.snapshot.regions
        for target in np.unique(regions.target):
            seconds[target] += WINDOW_S
        for index in range(len(regions)):
            kind = 0 if regions.nr_accesses[index] == 0 else 2 if regions.nr_accesses[index] >= hits else 1
            for page in range(int(regions.start[index]) // PAGE, int(regions.end[index]) // PAGE):
                target = int(regions.target[index])
                key = (target, path_of.get(page) if target == 0 else None, kind)
                expected[key] = expected.get(key, 0.0) + PAGE * WINDOW_S
    found, _ = attribute(history, class_rates=np.array([1e-12, hits / LOOKS]))
    got = {
        (one.target, one.path, kind): size
        for one in found
        for kind, size in enumerate(one.class_bytes.tolist())
        if size > 0
    }
    means = {key: total / seconds[key[0]] for key, total in expected.items()}
    assert got == {key: pytest.approx(size) for key, size in means.items()}


@pytest.mark.parametrize("rate", [0.0, 1.1])
def test_wrong_rates(rate: float) -> None:
    with pytest.raises(InvalidInput, match="as hot"):
        mappings_heat(run([(0, 0, 4, 20, 0.0)]), hot_access_rate=rate)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("[heap]", "heap"),
        ("/usr/lib/libc.so.6", "libc.so.6"),
        ("", "anonymous"),
        ("/x/y (deleted)", "y"),
        ("[anon:jit]", "anon:jit"),
    ],
)
def test_names(path: str, name: str) -> None:
    assert mapping_name(path) == name


# ---- two runs


def compare(before: list[Row], after: list[Row], *, at: int = 0, tolerance: float = 0.05) -> MappingDifference:
    """One mapping of 100 pages in each; in the second at another address."""
    first = run(before, mappings=(mappings_of(0, (0, 100, "/data/file")),))
    second = run(
        [(target, start + at, end + at, hits, age) for target, start, end, hits, age in after],
        mappings=(mappings_of(0, (at, at + 100, "/data/file")),),
    )
    found = difference(first, second, tolerance=tolerance)
    assert [one.name for one in found.mappings] == ["file"]
    return found.mappings[0]


def changes(one: MappingDifference) -> tuple[float, ...]:
    sizes = (one.hotter_bytes, one.colder_bytes, one.added_bytes, one.removed_bytes)
    return tuple(round(size / PAGE, 6) for size in sizes)


def test_the_same_is_no_difference_though_addresses_are_others() -> None:
    before: list[Row] = [(0, 0, 10, 20, 0.0), (0, 10, 100, 0, 0.0)]
    assert changes(compare(before, before, at=5000)) == (0, 0, 0, 0)


def test_heat_that_moved_within_a_mapping_is_a_difference() -> None:
    before: list[Row] = [(0, 0, 10, 20, 0.0), (0, 10, 100, 0, 0.0)]
    assert changes(compare(before, [(0, 0, 90, 0, 0.0), (0, 90, 100, 20, 0.0)], at=7)) == (10, 10, 0, 0)


def test_a_part_of_a_file_is_compared_with_the_same_part_wherever_it_is_mapped() -> None:
    """In the one run the file in two pieces, in the other its second half alone, below."""
    whole = mappings_of(0, (0, 10, "/data/file"), (50, 60, "/data/file"))
    whole = replace(whole, offset=np.array([0, 10 * PAGE], np.uint64))
    half = mappings_of(0, (7, 17, "/data/file"))
    half = replace(half, offset=np.array([10 * PAGE], np.uint64))
    first = run([(0, 0, 10, 20, 0.0), (0, 50, 60, 0, 0.0)], mappings=(whole,))
    second = run([(0, 7, 9, 20, 0.0), (0, 9, 17, 0, 0.0)], mappings=(half,))
    (found,) = difference(first, second).mappings
    assert changes(found) == (2, 0, 0, 10)
    (back,) = difference(second, first).mappings
    assert changes(back) == (0, 2, 10, 0)


def test_heaps_are_compared_from_their_begin_and_stacks_from_their_end() -> None:
    first = run(
        [(0, 10, 12, 20, 0.0), (0, 12, 20, 0, 0.0), (0, 90, 98, 0, 0.0), (0, 98, 100, 20, 0.0)],
        mappings=(mappings_of(0, (10, 20, "[heap]"), (90, 100, "[stack]")),),
    )
    second = run(
        [(0, 40, 42, 20, 0.0), (0, 42, 60, 0, 0.0), (0, 80, 97, 0, 0.0), (0, 97, 99, 20, 0.0)],
        mappings=(mappings_of(0, (40, 60, "[heap]"), (80, 99, "[stack]")),),
    )
    found = {one.name: changes(one) for one in difference(first, second).mappings}
    assert found == {"heap": (0, 0, 10, 0), "stack": (0, 0, 9, 0)}


def test_anonymous_memory_is_compared_by_address_in_one_process_and_by_rank_in_two() -> None:
    def of_process(rows: list[Row], start_time_s: float) -> ListHistory:
        history = run(rows, mappings=(mappings_of(0, (0, 100, "")),))
        return replace(history, of_targets=(replace(history.targets[0], start_time_s=start_time_s), history.targets[1]))

    before: list[Row] = [(0, 0, 10, 20, 0.0), (0, 10, 100, 0, 0.0)]
    after: list[Row] = [(0, 0, 90, 0, 0.0), (0, 90, 100, 20, 0.0)]
    same, other = of_process(after, 5.0), of_process(after, 6.0)
    (found,) = difference(of_process(before, 5.0), same).mappings
    assert changes(found) == (10, 10, 0, 0)
    (found,) = difference(of_process(before, 5.0), other).mappings
    assert changes(found) == (0, 0, 0, 0)


def test_large_mappings_are_compared_in_larger_cells() -> None:
    pages = 1 << 20
    table = mappings_of(0, (0, pages, "/data/file"))
    first = run([(0, 0, pages, 0, 0.0)], mappings=(table,))
    second = run([(0, 0, pages // 2, 0, 0.0), (0, pages // 2, pages, 10, 0.0)], mappings=(table,))
    assert changes(difference(first, second).total) == (pages // 2, 0, 0, 0)


def test_changes_of_time_count_by_their_means() -> None:
    tables = (mappings_of(0, (0, 4, "/a")), mappings_of(0, (4, 8, "/a"), time_s=BEGIN_S + WINDOW_S + 0.1))
    moves = run([(0, 0, 4, 20, 0.0)], [(0, 4, 8, 0, 0.0)], mappings=tables)
    stays = run([(0, 0, 4, 10, 0.0)], [(0, 0, 4, 10, 0.0)], mappings=tables[:1])
    assert changes(difference(moves, stays).total) == (0, 0, 0, 0)


def test_bytes_that_became_hotter_or_colder() -> None:
    before: list[Row] = [(0, 0, 10, 20, 0.0), (0, 10, 100, 0, 0.0)]
    found = compare(before, [(0, 0, 30, 20, 0.0), (0, 30, 100, 0, 0.0)])
    assert changes(found) == (20, 0, 0, 0)
    assert [found.before_rate, found.after_rate] == pytest.approx([0.1, 0.3])
    assert changes(compare(before, [(0, 0, 10, 8, 0.0), (0, 10, 100, 0, 0.0)])) == (0, 10, 0, 0)
    assert changes(compare(before, [(0, 0, 10, 8, 0.0), (0, 10, 100, 0, 0.0)], tolerance=0.7)) == (0, 0, 0, 0)


def test_more_and_less_memory() -> None:
    before: list[Row] = [(0, 0, 10, 20, 0.0), (0, 10, 50, 0, 0.0)]
    assert changes(compare(before, [(0, 0, 10, 20, 0.0), (0, 10, 80, 0, 0.0)])) == (0, 0, 30, 0)
    assert changes(compare(before, [(0, 0, 10, 20, 0.0)])) == (0, 0, 0, 40)


def test_mappings_of_one_run_only_and_the_total() -> None:
    first = run([(0, 0, 10, 20, 0.0)], mappings=(mappings_of(0, (0, 10, "/a")),))
    second = run([(0, 0, 10, 0, 0.0), (0, 10, 15, 20, 0.0)], mappings=(mappings_of(0, (0, 10, "/a"), (10, 15, "/b")),))
    found = difference(first, second)
    assert [(one.name, changes(one)) for one in found.mappings] == [("a", (0, 10, 0, 0)), ("b", (0, 0, 5, 0))]
    assert changes(found.total) == (0, 10, 5, 0)
    assert found.total.after_rate == pytest.approx(1 / 3)
    with pytest.raises(InvalidInput, match="tolerance"):
        difference(first, second, tolerance=2.0)
