"""The kernel's unit-test vectors (damon-spec §6.1, §6.2, §6.5) that concern the region table, under their names."""

from unittest.mock import Mock

import numpy as np
import pytest

from memtherm.core.attributes import MonitoringAttributes
from memtherm.core.ranges import Addresses
from memtherm.core.regions import (
    Range,
    RegionTable,
    apply_min_nr_regions,
    convert_results,
    count_age,
    join_in_ranges,
    merge_similar,
    merge_thresholds,
    merge_window,
    reset_window,
    set_regions,
    split_evenly,
    split_randomly,
    split_rows,
    three_regions,
)
from memtherm.core.sampling import Sampler
from memtherm.errors import InvalidInput
from memtherm.units import PAGE_SIZE


def table_of(
    ranges: list[Range],
    *,
    nr: list[int] | None = None,
    last: list[int] | None = None,
    age: list[int] | None = None,
    target: int = 0,
) -> RegionTable:
    table = RegionTable.from_ranges(ranges, target=target)
    given = {"nr_accesses": nr, "last_nr_accesses": last, "age": age}
    return table.replace(**{name: np.array(values, np.int64) for name, values in given.items() if values is not None})


def addresses(values: list[int]) -> Addresses:
    return np.array(values, np.uint64)


# -- damon-spec §6.1 ---------------------------------------------------------------------------


def test_regions() -> None:
    table = RegionTable.from_ranges([(1, 2)])
    assert (table.ranges(), table.nr_accesses.tolist(), len(table)) == ([(1, 2)], [0], 1)
    assert len(table.take(slice(0, 0))) == 0


def test_target() -> None:
    sampler = Sampler(MonitoringAttributes(), rng=np.random.default_rng(0))
    assert len(np.unique(sampler.table.target)) == 0
    sampler.set_ranges([(0, 40 * PAGE_SIZE)], target=0)
    assert np.unique(sampler.table.target).tolist() == [0]
    sampler.remove_target(0)
    assert len(sampler.table) == 0


def test_aggregate() -> None:
    starts = [[10, 20, 30], [5, 42, 49], [13, 33, 55]]
    ends = [[15, 27, 40], [31, 45, 55], [23, 44, 66]]
    accesses = [[42, 95, 84], [10, 20, 30], [0, 1, 2]]
    table = RegionTable.concatenate(
        [
            table_of(list(zip(starts[target], ends[target], strict=True)), nr=accesses[target], target=target)
            for target in range(3)
        ]
    )
    after = reset_window(table)
    assert after.nr_accesses.tolist() == [0] * 9
    assert after.last_nr_accesses.tolist() == [count for target in accesses for count in target]
    assert [len(after.of_target(target)) for target in range(3)] == [3, 3, 3]


def test_split_at() -> None:
    table = table_of([(0, 100)], nr=[42], last=[15], age=[10])
    after = split_rows(table, np.array([0]), addresses([25]))
    assert after.ranges() == [(0, 25), (25, 100)]
    assert after.nr_accesses.tolist() == [42, 42]
    assert after.last_nr_accesses.tolist() == [15, 15]
    assert after.age.tolist() == [10, 10]


def test_merge_two() -> None:
    table = table_of([(0, 100), (100, 300)], nr=[10, 20], age=[9, 21])
    after = merge_similar(table, threshold=10, size_limit=300)
    assert after.ranges() == [(0, 300)]
    assert (after.nr_accesses.tolist(), after.age.tolist()) == ([16], [17])


MERGE_STARTS = [0, 100, 114, 122, 130, 156, 170, 184, 230]
MERGE_ENDS = [100, 112, 122, 130, 156, 170, 184, 230, 10170]
MERGE_NR = [0, 0, 10, 10, 20, 30, 1, 2, 5]


def test_merge_regions_of() -> None:
    table = table_of(list(zip(MERGE_STARTS, MERGE_ENDS, strict=True)), nr=MERGE_NR)
    after = merge_similar(count_age(table, 9), threshold=9, size_limit=9999)
    assert after.ranges() == [(0, 112), (114, 130), (130, 156), (156, 170), (170, 230), (230, 10170)]
    assert after.nr_accesses.tolist() == [0, 10, 20, 30, 1, 5]
    assert after.age.tolist() == [1, 0, 0, 0, 0, 0]


def test_merge_regions_of_first_eight() -> None:
    """The vector of Linux up to 6.12."""
    table = table_of(list(zip(MERGE_STARTS[:8], MERGE_ENDS[:8], strict=True)), nr=MERGE_NR[:8])
    after = merge_similar(count_age(table, 9), threshold=9, size_limit=9999)
    assert after.ranges() == [(0, 112), (114, 130), (130, 156), (156, 170), (170, 230)]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(
    ("ranges", "subregions", "min_region", "most"),
    [
        ([(0, 22)], 2, 1, 2),
        ([(0, 220)], 4, 1, 4),
        ([(0, 220), (300, 400), (500, 700)], 4, 5, 12),
    ],
)
def test_split_regions_of(ranges: list[Range], subregions: int, min_region: int, most: int, seed: int) -> None:
    after = split_randomly(
        table_of(ranges),
        np.arange(len(ranges)),
        subregions=subregions,
        min_region_bytes=min_region,
        rng=np.random.default_rng(seed),
    )
    assert len(ranges) < len(after) <= most
    assert (after.size_bytes % min_region == 0).all()
    assert after.size_bytes.sum() == sum(end - start for start, end in ranges)


def test_split_above_half_progresses() -> None:
    """The kernel's regions of 100 bytes are regions of 100 pages here: the sampler works on pages."""
    sampler = Sampler(MonitoringAttributes(min_nr_regions=10, max_nr_regions=1500), rng=np.random.default_rng(0))
    size = 100 * PAGE_SIZE
    sampler.table = table_of([(i * size, (i + 1) * size) for i in range(760)], nr=[100, 0] * 380, age=[5] * 760)
    sampler.open_window()
    assert 760 < len(sampler.table) <= 1500
    assert len(sampler.table) == 1140, "step 2, and every split is possible"
    first = sampler.table.size_bytes
    assert first[2] == size, "the second region was not its turn"
    sampler.table = sampler.table.take(slice(0, 760))
    sampler.open_window()
    assert sampler.table.size_bytes[0] == first[0], "the rotation moved on: the first region is left alone"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ([], [(5, 15), (15, 25)], [(5, 15), (15, 25)]),
        ([(4, 16), (24, 32)], [(18, 23)], [(18, 23)]),
        ([(4, 16), (24, 32)], [(8, 28)], [(8, 16), (16, 24), (24, 28)]),
        ([(0, 4), (4, 17)], [(0, 15), (25, 40)], [(0, 4), (4, 15), (25, 40)]),
        ([(0, 4), (42, 52)], [(0, 15), (25, 40), (44, 50)], [(0, 15), (25, 40), (44, 50)]),
        # commit_target_regions is the same operation.
        ([(3, 8), (8, 10)], [(4, 6)], [(4, 6)]),
    ],
)
def test_set_regions(old: list[Range], new: list[Range], expected: list[Range]) -> None:
    assert set_regions(table_of(old), new, min_region_bytes=1).ranges() == expected


def test_set_regions_keeps_counters_of_survivors_only() -> None:
    old = table_of([(4, 16), (24, 32)], nr=[7, 9], last=[6, 8], age=[5, 4])
    after = set_regions(old, [(8, 28), (40, 44)], min_region_bytes=4)
    assert after.ranges() == [(8, 16), (16, 24), (24, 28), (40, 44)]
    assert after.nr_accesses.tolist() == [7, 0, 9, 0]
    assert after.last_nr_accesses.tolist() == [6, 0, 8, 0]
    assert after.age.tolist() == [5, 0, 4, 0]


def test_set_regions_leaves_other_targets_alone() -> None:
    tables = [table_of([(0, 8)], nr=[index], target=target) for index, target in enumerate((1, 4, 6))]
    after = set_regions(RegionTable.concatenate(tables), [(8, 16)], target=4, min_region_bytes=8)
    assert after.target.tolist() == [1, 4, 6]
    assert after.ranges() == [(0, 8), (8, 16), (0, 8)]
    assert after.nr_accesses.tolist() == [0, 0, 2]
    with_new = set_regions(after, [(0, 8)], target=5, min_region_bytes=8)
    assert with_new.target.tolist() == [1, 4, 5, 6]
    assert set_regions(after, [], target=4, min_region_bytes=8).target.tolist() == [1, 6]


@pytest.mark.parametrize(
    "ranges",
    [
        [(5, 5)],
        [(6, 5)],
        [(10, 20), (0, 5)],
        [(0, 10), (9, 20)],
        [(0, 5), (5, 8)],  # disjoint as given, but both need the block 4..8
        [(-4, 8)],
    ],
)
def test_set_regions_refuses_and_changes_nothing(ranges: list[Range]) -> None:
    sampler_table = table_of([(0, 16)], nr=[3])
    with pytest.raises(InvalidInput) as problem:
        set_regions(sampler_table, ranges, min_region_bytes=4)
    assert problem.value.hint
    assert sampler_table.ranges() == [(0, 16)]


def test_set_regions_aligns_outward() -> None:
    assert set_regions(table_of([]), [(5, 9), (17, 18)], min_region_bytes=4).ranges() == [(4, 12), (16, 20)]
    refitted = set_regions(table_of([(0, 8), (8, 16)]), [(5, 9)], min_region_bytes=4)
    assert refitted.ranges() == [(4, 8), (8, 12)]


def test_update_monitoring_result() -> None:
    old = MonitoringAttributes(sampling_interval_s=10e-6, aggregation_interval_s=1000e-6)
    table = table_of([(3, 7)], nr=[15], last=[15], age=[20])
    for sampling_us, aggregation_us, nr, age in ((100, 10_000, 15, 2), (1, 1_000, 150, 2), (1, 100, 150, 20)):
        new = MonitoringAttributes(sampling_interval_s=sampling_us * 1e-6, aggregation_interval_s=aggregation_us * 1e-6)
        table = convert_results(table, old, new)
        assert (table.nr_accesses.tolist(), table.age.tolist()) == ([nr], [age])
        assert table.last_nr_accesses.tolist() == [nr]


def test_update_monitoring_result_keeps_what_fits() -> None:
    """The kernel goes by basis points and makes 1 of 3 out of 2 of 3; that would reset ages for nothing."""
    three = MonitoringAttributes(sampling_interval_s=0.01, aggregation_interval_s=0.03)
    thirty = MonitoringAttributes(sampling_interval_s=0.01, aggregation_interval_s=0.3)
    table = table_of([(3, 7)], nr=[2], last=[1], age=[20])
    assert convert_results(table, three, three).nr_accesses.tolist() == [2]
    converted = convert_results(table, three, thirty)
    assert (converted.nr_accesses.tolist(), converted.last_nr_accesses.tolist()) == ([20], [10])
    assert converted.age.tolist() == [2]


@pytest.mark.parametrize("zero_s", [0.0, 1e-7])
def test_update_monitoring_result_without_intervals(zero_s: float) -> None:
    """Intervals of 0 µs cannot be converted: nothing changes (damon-spec §1.16)."""
    table = table_of([(3, 7)], nr=[15], last=[15], age=[20])
    zero = MonitoringAttributes(sampling_interval_s=zero_s, aggregation_interval_s=zero_s)
    for old, new in ((zero, MonitoringAttributes()), (MonitoringAttributes(), zero)):
        assert convert_results(table, old, new) is table


@pytest.mark.parametrize(
    ("total", "min_region", "min_nr", "limit", "count"),
    [(10, 1, 10, 1, 10), (10, 1, 15, 1, 10), (10, 2, 2, 6, 2), (10, 2, 10, 2, 5)],
)
def test_apply_min_nr_regions(total: int, min_region: int, min_nr: int, limit: int, count: int) -> None:
    after, size_limit = apply_min_nr_regions(
        table_of([(0, total)], nr=[7], age=[3]), min_nr_regions=min_nr, min_region_bytes=min_region
    )
    assert (size_limit, len(after)) == (limit, count)
    assert after.size_bytes.max() <= limit
    assert set(after.nr_accesses.tolist()) == {7}
    assert set(after.age.tolist()) == {3}


# -- damon-spec §6.2 ---------------------------------------------------------------------------


def test_three_regions_in_vmas() -> None:
    mappings = [(10, 20), (20, 25), (200, 210), (210, 220), (300, 305), (307, 330)]
    start, end = (addresses(list(column)) for column in zip(*mappings, strict=True))
    assert three_regions(start, end, page_bytes=1) == [(10, 25), (200, 220), (300, 330)]


def test_three_regions_take_the_lower_of_equal_gaps() -> None:
    start, end = addresses([0, 20, 40, 60]), addresses([10, 30, 50, 70])
    assert three_regions(start, end, page_bytes=1) == [(0, 10), (20, 30), (40, 70)]


def test_three_regions_round_up() -> None:
    start, end = addresses([1, 9, 101]), addresses([3, 50, 103])
    assert three_regions(start, end, page_bytes=4) == [(4, 4), (12, 52), (104, 104)]


@pytest.mark.parametrize("mappings", [[], [(0, 5)], [(0, 5), (7, 9)], [(0, 5), (7, 9), (9, 12)]])
def test_three_regions_need_two_gaps(mappings: list[Range]) -> None:
    table = table_of(mappings)
    with pytest.raises(InvalidInput, match="two gaps"):
        three_regions(table.start, table.end, page_bytes=1)


@pytest.mark.parametrize(
    ("new", "expected"),
    [
        ([(5, 27), (45, 55), (73, 104)], [(5, 20), (20, 27), (45, 55), (73, 80), (80, 90), (90, 104)]),
        ([(5, 27), (56, 57), (65, 104)], [(5, 20), (20, 27), (56, 57), (65, 80), (80, 90), (90, 104)]),
        ([(5, 27), (61, 63), (65, 104)], [(5, 20), (20, 27), (61, 63), (65, 80), (80, 90), (90, 104)]),
        ([(5, 7), (30, 32), (65, 68)], [(5, 7), (30, 32), (65, 68)]),
    ],
)
def test_apply_three_regions(new: list[Range], expected: list[Range]) -> None:
    old = [(10, 20), (20, 30), (50, 55), (55, 57), (57, 59), (70, 80), (80, 90), (90, 100)]
    assert set_regions(table_of(old), new, min_region_bytes=1).ranges() == expected


@pytest.mark.parametrize(
    ("whole", "pieces", "expected"),
    [
        ((0, 100), 10, [(tens, tens + 10) for tens in range(0, 100, 10)]),
        ((5, 59), 5, [(5, 15), (15, 25), (25, 35), (35, 45), (45, 59)]),
        ((0, 3), 2, [(0, 1), (1, 3)]),
    ],
)
def test_split_evenly(whole: Range, pieces: int, expected: list[Range]) -> None:
    assert split_evenly(table_of([whole]), pieces, min_region_bytes=1).ranges() == expected


@pytest.mark.parametrize(("ranges", "pieces"), [([], 5), ([(0, 100)], 0), ([(5, 6)], 2)])
def test_split_evenly_refuses(ranges: list[Range], pieces: int) -> None:
    table = table_of(ranges)
    with pytest.raises(InvalidInput):
        split_evenly(table, pieces, min_region_bytes=1)
    assert table.ranges() == ranges


# -- damon-spec §6.5 ---------------------------------------------------------------------------


@pytest.mark.parametrize(("first", "expected"), [(0, [0, 1, 2, 4, 8, 16, 20]), (1, [1, 2, 4, 8, 16, 20])])
def test_merge_thresholds(first: int, expected: list[int]) -> None:
    assert merge_thresholds(first, 20) == expected


def test_merge_thresholds_beyond_the_window_are_tried_once() -> None:
    assert merge_thresholds(20, 20) == [20]
    assert merge_thresholds(25, 20) == [25]
    assert merge_thresholds(0, 1) == [0, 1]


def test_merge_thresholds_of_an_odd_window() -> None:
    """From half of it, rounded down, straight to the whole."""
    assert merge_thresholds(1, 5) == [1, 2, 5]


# -- rules of damon-spec §1.10 without a vector ------------------------------------------------


@pytest.mark.parametrize(
    ("nr", "last", "age"),
    [
        (5, 5, 8),
        (5, 3, 8),  # at the threshold
        (5, 2, 0),  # beyond it
        (2, 5, 0),
        (1, 0, 0),  # within the threshold, but from nothing to something
        (0, 1, 0),
        (0, 0, 8),
    ],
)
def test_count_age(nr: int, last: int, age: int) -> None:
    assert count_age(table_of([(0, 1)], nr=[nr], last=[last], age=[7]), 2).age.tolist() == [age]


def test_age_is_counted_once_however_often_is_merged() -> None:
    table = table_of([(i, i + 1) for i in range(8)], nr=[0, 20] * 4, last=[0, 20] * 4)
    merged = merge_window(table, threshold=2, size_limit=100, max_nr_regions=1, samples_per_window=20)
    assert (merged.ranges(), merged.age.tolist()) == ([(0, 8)], [1])


def test_merge_stops_at_the_first_threshold_that_suffices() -> None:
    table = table_of([(i, i + 1) for i in range(4)], nr=[0, 3, 10, 13], last=[0, 3, 10, 13])
    merged = merge_window(table, threshold=1, size_limit=100, max_nr_regions=2, samples_per_window=20)
    assert merged.ranges() == [(0, 2), (2, 4)]


def test_merge_compares_with_the_mean_of_what_was_merged() -> None:
    """0+2 has the mean 1, so 4 does not join though it is near 2; the last counts are those of the left region."""
    table = table_of([(0, 1), (1, 2), (2, 3)], nr=[0, 2, 4], last=[9, 8, 7])
    merged = merge_similar(table, threshold=2, size_limit=100)
    assert merged.ranges() == [(0, 2), (2, 3)]
    assert merged.last_nr_accesses.tolist() == [9, 7]


def test_merge_never_crosses_holes_targets_and_the_size_limit() -> None:
    hole = table_of([(0, 10), (11, 20)])
    two_targets = RegionTable.concatenate([table_of([(0, 10)], target=0), table_of([(10, 20)], target=1)])
    assert len(merge_similar(hole, threshold=20, size_limit=100)) == 2
    assert len(merge_similar(two_targets, threshold=20, size_limit=100)) == 2
    assert len(merge_similar(table_of([(0, 10), (10, 20)]), threshold=20, size_limit=19)) == 2
    assert len(merge_similar(table_of([(0, 10), (10, 20)]), threshold=20, size_limit=20)) == 1


def test_split_needs_more_than_two_shortest_regions() -> None:
    for size, pieces in ((8, 1), (12, 2)):
        after = split_randomly(
            table_of([(0, size)]), np.array([0]), subregions=2, min_region_bytes=4, rng=always_drawing(5)
        )
        assert len(after) == pieces


def test_third_subregion_cuts_the_left_part_again() -> None:
    after = split_randomly(
        table_of([(0, 1000), (1000, 2000)]), np.arange(2), subregions=3, min_region_bytes=1, rng=always_drawing(4)
    )
    assert after.ranges() == [(0, 160), (160, 400), (400, 1000), (1000, 1160), (1160, 1400), (1400, 2000)]


def test_join_in_ranges() -> None:
    table = table_of([(0, 4), (4, 8), (8, 12), (20, 24)], nr=[1, 3, 9, 5], target=7)
    joined = join_in_ranges(table, [(0, 8), (8, 12), (20, 24)])
    assert joined.ranges() == [(0, 8), (8, 12), (20, 24)]
    assert joined.nr_accesses.tolist() == [2, 9, 5]
    assert joined.target.tolist() == [7, 7, 7]
    assert len(join_in_ranges(table_of([]), [])) == 0


def always_drawing(number: int) -> Mock:
    """A random generator whose whole numbers are all the same."""
    generator = Mock(spec=np.random.Generator)
    generator.integers.side_effect = lambda _low, _high, count: np.full(count, number)
    return generator
