"""The sampler: invariants under any sequence of steps, and its smaller rules."""

from __future__ import annotations

from dataclasses import fields
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from memtherm.core.attributes import MonitoringAttributes
from memtherm.core.ranges import Addresses, align_down, align_up
from memtherm.core.regions import Range, RegionTable, join_equal, split_at
from memtherm.core.sampling import Sampler
from memtherm.errors import InvalidInput
from memtherm.units import PAGE_SIZE

GIB = 1 << 30


def sampler_of(ranges: list[Range], *, follows_mappings: bool = False, seed: int = 0, max_nr: int = 1000) -> Sampler:
    attributes = MonitoringAttributes(max_nr_regions=max_nr)
    sampler = Sampler(attributes, rng=np.random.default_rng(seed), follows_mappings=follows_mappings)
    sampler.set_ranges(ranges)
    return sampler


def test_rand() -> None:
    """The kernel's test of its random numbers: draws stay in the range; here they also reach all of it."""
    sampler = sampler_of([(0, 10 * PAGE_SIZE)])
    sampler.table = sampler.table.take(slice(0, 1)).replace(end=np.array([10 * PAGE_SIZE], np.uint64))
    pages = np.concatenate([sampler.draw_addresses() for _ in range(10_000)]) // np.uint64(PAGE_SIZE)
    counts = np.bincount(pages.astype(np.int64))
    assert len(counts) == 10
    # Six standard deviations of a fair draw.
    assert abs(counts - 1000).max() < 6 * np.sqrt(10_000 * 0.1 * 0.9)


def test_draws_reach_the_end_of_long_regions() -> None:
    """Kernels before 7.2 draw 32 bits: pages beyond 4 GiB of a region were never looked at."""
    sampler = sampler_of([(0, 10 * 64 * GIB)])
    drawn = np.concatenate([sampler.draw_addresses() - sampler.table.start for _ in range(200)])
    assert drawn.max() > 60 * GIB


@pytest.mark.parametrize("min_region_bytes", [0, 1, 4095, 2048, 3 * PAGE_SIZE, -PAGE_SIZE])
def test_commit_ctx_refuses_min_region(min_region_bytes: int) -> None:
    with pytest.raises(InvalidInput) as problem:
        Sampler(MonitoringAttributes(), rng=np.random.default_rng(0), min_region_bytes=min_region_bytes)
    assert "power of two" in problem.value.hint


def test_window_is_complete_after_its_samples() -> None:
    sampler = sampler_of([(0, GIB)])
    for sample in range(20):
        assert not sampler.window_is_complete, sample
        sampler.record(np.ones(len(sampler.table), np.bool_))
    assert sampler.window_is_complete
    sampler.close_window()
    regions = sampler.regions()
    assert set(regions.access_rate.tolist()) == {1.0}
    assert set(regions.nr_accesses.tolist()) == {20}
    sampler.open_window()
    assert not sampler.window_is_complete
    assert set(sampler.table.last_nr_accesses.tolist()) == {20}


def test_first_ranges_are_cut_for_min_nr_regions_and_new_mappings_are_not() -> None:
    """New areas appear as one region until the next merge (damon-spec §1.13)."""
    sampler = sampler_of([(0, 100 * PAGE_SIZE)])
    assert len(sampler.table) == 10
    sampler.set_ranges([(0, 100 * PAGE_SIZE), (200 * PAGE_SIZE, 300 * PAGE_SIZE)])
    assert len(sampler.table) == 11
    assert sampler.table.size_bytes[-1] == 100 * PAGE_SIZE
    sampler.close_window()
    assert sampler.table.size_bytes.max() == 20 * PAGE_SIZE


def test_refused_ranges_change_nothing() -> None:
    sampler = sampler_of([(0, 100 * PAGE_SIZE)])
    before = sampler.table
    with pytest.raises(InvalidInput):
        sampler.set_ranges([(8 * PAGE_SIZE, 4 * PAGE_SIZE)])
    assert sampler.table is before


def test_ages_are_in_seconds() -> None:
    sampler = sampler_of([(0, GIB)])
    for _ in range(3):
        sampler.close_window()
        sampler.open_window()
    assert sampler.regions().age_s.max() == pytest.approx(0.3)
    sampler.reset_age(0, sampler.table.start[1:2], sampler.table.end[1:2])
    ages = sampler.regions().age_s.tolist()
    assert ages[1] == 0
    assert ages[0] == pytest.approx(0.3)


def test_set_attributes_keeps_ages_and_rates_in_absolute_units() -> None:
    sampler = sampler_of([(0, GIB)])
    for _ in range(12):
        for _ in range(20):
            sampler.record(np.ones(len(sampler.table), np.bool_))
        sampler.close_window()
        sampler.open_window()
    # The window in which the accesses began counts 0; eleven have kept the count since.
    assert set(sampler.table.age.tolist()) == {11}
    sampler.set_attributes(MonitoringAttributes(sampling_interval_s=0.01, aggregation_interval_s=0.1))
    assert sampler.regions().age_s.max() == pytest.approx(1.1)
    assert set(sampler.table.last_nr_accesses.tolist()) == {10}
    for _ in range(10):
        sampler.record(np.ones(len(sampler.table), np.bool_))
    assert sampler.window_is_complete
    sampler.close_window()
    assert set(sampler.table.age.tolist()) == {12}, "the same rate in other counts is no change"


def test_set_attributes_changes_the_limits() -> None:
    sampler = sampler_of([(0, GIB)], max_nr=1000)
    rng = np.random.default_rng(3)
    for limits in ((10, 1000), (10, 100), (60, 300)):
        sampler.set_attributes(MonitoringAttributes(min_nr_regions=limits[0], max_nr_regions=limits[1]))
        for _ in range(12):
            for _ in range(20):
                sampler.record(rng.random(len(sampler.table)) < 0.5)
            sampler.close_window()
            sampler.open_window()
        assert limits[1] / 4 < len(sampler.table) <= limits[1]


def test_mappings_as_regions_are_neither_merged_nor_split() -> None:
    mappings = [(i * 10 * PAGE_SIZE, (i * 10 + 10) * PAGE_SIZE) for i in range(5)]
    sampler = sampler_of(mappings, follows_mappings=True)
    for _ in range(4):
        for _ in range(20):
            sampler.record(np.ones(len(sampler.table), np.bool_))
        sampler.close_window()
        assert sampler.table.ranges() == mappings
        sampler.open_window()
        assert sampler.table.ranges() == mappings
    assert sampler.table.age.tolist() == [3] * 5


def test_mappings_that_become_one_become_one_region() -> None:
    """As after mprotect of a part, and back."""
    sampler = sampler_of([(0, 4 * PAGE_SIZE), (4 * PAGE_SIZE, 8 * PAGE_SIZE)], follows_mappings=True)
    sampler.set_ranges([(0, PAGE_SIZE)], target=1)
    sampler.record(np.array([True, False, True]))
    sampler.record(np.array([True, False, True]))
    sampler.set_ranges([(0, 8 * PAGE_SIZE)], target=0)
    assert sampler.table.ranges() == [(0, 8 * PAGE_SIZE), (0, PAGE_SIZE)]
    assert sampler.table.target.tolist() == [0, 1]
    assert sampler.table.nr_accesses.tolist() == [1, 2]


# -- ages that begin again ---------------------------------------------------------------------


def aged(ranges: list[Range], *, windows: int = 3, follows_mappings: bool = False) -> Sampler:
    sampler = sampler_of(ranges, follows_mappings=follows_mappings)
    for _ in range(windows):
        sampler.close_window()
        sampler.open_window()
    sampler.close_window()
    return sampler


def reset(sampler: Sampler, ranges: list[Range], *, target: int = 0) -> None:
    sampler.reset_age(target, *columns([(start * PAGE_SIZE, end * PAGE_SIZE) for start, end in ranges]))


def in_pages(sampler: Sampler, target: int = 0) -> list[tuple[int, int, int]]:
    table = sampler.table.of_target(target)
    rows = zip(table.ranges(), table.age.tolist(), strict=True)
    return [(start // PAGE_SIZE, end // PAGE_SIZE, age) for (start, end), age in rows]


def test_a_region_is_split_where_only_a_part_of_it_begins_again() -> None:
    sampler = aged([(0, 100 * PAGE_SIZE)])
    assert in_pages(sampler)[:2] == [(0, 10, 4), (10, 20, 4)]
    reset(sampler, [(3, 7), (15, 32)])
    assert in_pages(sampler)[:6] == [(0, 3, 4), (3, 7, 0), (7, 10, 4), (10, 15, 4), (15, 20, 0), (20, 30, 0)]
    assert in_pages(sampler)[6:9] == [(30, 32, 0), (32, 40, 4), (40, 50, 4)]


def test_both_parts_keep_their_counters() -> None:
    sampler = sampler_of([(0, 100 * PAGE_SIZE)])
    for _ in range(2):
        for _ in range(20):
            sampler.record(sampler.table.start // np.uint64(10 * PAGE_SIZE) == 1)
        sampler.close_window()
        sampler.open_window()
    sampler.record(sampler.table.last_nr_accesses == 20)
    before = sampler.table
    sampler.reset_age(0, *columns([(12 * PAGE_SIZE + 1, 13 * PAGE_SIZE - 1)]))
    for name in ("nr_accesses", "last_nr_accesses"):
        size = {
            side: (getattr(table, name) * table.size_bytes).sum() for side, table in enumerate((before, sampler.table))
        }
        assert size[0] == size[1] > 0
    assert (12 * PAGE_SIZE, 13 * PAGE_SIZE) in sampler.table.ranges(), "the page that was touched in part"


def test_other_targets_keep_their_age() -> None:
    sampler = sampler_of([(0, 100 * PAGE_SIZE)])
    sampler.set_ranges([(0, 100 * PAGE_SIZE)], target=1)
    for _ in range(3):
        sampler.close_window()
    reset(sampler, [(0, 100)])
    assert {age for _, _, age in in_pages(sampler)} == {0}
    assert {age for _, _, age in in_pages(sampler, 1)} == {3}
    reset(sampler, [(0, 5)], target=7)
    reset(sampler, [])
    assert {age for _, _, age in in_pages(sampler, 1)} == {3}


def test_what_was_split_is_joined_again_when_both_parts_tell_the_same() -> None:
    """As a quota takes one region in several applies of a window (damon-spec §2.3)."""
    sampler = aged([(0, 100 * PAGE_SIZE)])
    for first in range(0, 10, 2):
        reset(sampler, [(first, first + 2)])
        assert in_pages(sampler)[0] == (0, first + 2, 0)
    assert in_pages(sampler)[:2] == [(0, 10, 0), (10, 20, 4)]


def test_what_was_split_is_one_again_after_the_next_window() -> None:
    sampler = aged([(0, 100 * PAGE_SIZE)])
    reset(sampler, [(0, 4)])
    sampler.close_window()
    assert in_pages(sampler)[:2] == [(0, 10, 3), (10, 20, 5)], "4 pages of age 1 and 6 of age 5"


def test_random_splits_are_not_undone() -> None:
    """Their parts tell the same until they were looked at; DAMON would lose them by an apply in the window."""
    sampler = aged([(0, 100 * PAGE_SIZE)])
    sampler.open_window()
    before = len(in_pages(sampler))
    assert before > 10
    reset(sampler, [(0, 100)])
    assert len(in_pages(sampler)) == before


def test_a_split_may_exceed_max_nr_regions_until_the_next_merge() -> None:
    sampler = sampler_of([(0, 300 * PAGE_SIZE)], max_nr=30)
    for _ in range(4):
        sampler.close_window()
        sampler.open_window()
    sampler.close_window()
    reset(sampler, [(page, page + 1) for page in range(0, 300, 3)])
    assert len(sampler.table) > 100
    sampler.close_window()
    assert len(sampler.table) <= 30


def test_mappings_as_regions_lose_a_share_of_their_age() -> None:
    """They are never split: one answer of the probe stands for all of a mapping."""
    sampler = aged([(0, 10 * PAGE_SIZE), (20 * PAGE_SIZE, 40 * PAGE_SIZE)], windows=19, follows_mappings=True)
    reset(sampler, [(0, 30)])
    assert in_pages(sampler) == [(0, 10, 0), (20, 40, 10)]


pieces = st.lists(st.tuples(st.integers(1, 20), st.integers(0, 1), st.booleans()), min_size=1, max_size=30)


@given(pieces=pieces, limit=st.integers(1, 40), data=st.data())
def test_join_equal(pieces: list[tuple[int, int, bool]], limit: int, data: st.DataObject) -> None:
    """Joins only what touches, tells the same and has a border of ours between; never beyond the limit."""
    spans, ages, position = [], [], 0
    for length, age, gap in pieces:
        position += 5 * gap
        spans.append((position, position + length))
        ages.append(age)
        position += length
    table = RegionTable.from_ranges(spans).replace(age=np.array(ages, np.int64))
    borders = np.array(sorted(data.draw(st.sets(st.sampled_from([start for start, _ in spans])))), np.uint64)
    joined = join_equal(table, borders, size_limit=limit)
    parts = split_at(joined, table.start)
    assert (parts.ranges(), parts.age.tolist()) == (spans, ages)
    gone = set(table.start.tolist()) - set(joined.start.tolist())
    assert gone <= set(borders.tolist())
    long = joined.size_bytes > limit
    assert np.isin(joined.start[long], table.start).all()
    assert set(joined.size_bytes[long].tolist()) <= set(table.size_bytes.tolist()), "none became too long by a join"
    if limit >= position:
        kept = list(zip(joined.ranges(), joined.age.tolist(), strict=True))
        assert not any(
            left[0][1] == right[0][0] in borders and left[1] == right[1] for left, right in pairwise(kept)
        ), "all that can be joined is"


# -- under any sequence of steps ---------------------------------------------------------------

TARGETS = st.integers(0, 2)


def page_ranges(unaligned: bool) -> st.SearchStrategy[list[Range]]:
    """Ranges of up to 4000 pages, some touching; where asked with borders inside a page."""

    def build(points: list[int]) -> list[Range]:
        points = sorted(set(points))
        ranges = [(s * PAGE_SIZE, e * PAGE_SIZE) for s, e in zip(points[::2], points[1::2], strict=False)]
        return [(s + 1, e - 1) for s, e in ranges] if unaligned else ranges

    split = st.lists(st.integers(0, 4000), min_size=2, max_size=10).map(build)
    # Every second border doubled: neighbours that touch.
    touching = st.lists(st.integers(0, 4000), min_size=3, max_size=6, unique=True).map(
        lambda points: [(s * PAGE_SIZE, e * PAGE_SIZE) for s, e in pairwise(sorted(points))]
    )
    return split.filter(bool) | touching


def union(ranges: list[Range]) -> list[Range]:
    joined: list[Range] = []
    for start, end in ranges:
        first, last = align_down(start, PAGE_SIZE), align_up(end, PAGE_SIZE)
        if joined and joined[-1][1] == first:
            first = joined.pop()[0]
        joined.append((first, last))
    return joined


def columns(ranges: list[Range]) -> tuple[Addresses, Addresses]:
    bounds = np.array(ranges, np.uint64).reshape(-1, 2)
    return bounds[:, 0], bounds[:, 1]


def pages_of(start: int, end: int) -> range:
    """The pages that the range touches."""
    return range(start // PAGE_SIZE, align_up(end, PAGE_SIZE) // PAGE_SIZE)


def ages_of(table: RegionTable) -> dict[int, int]:
    rows = zip(table.ranges(), table.age.tolist(), strict=True)
    return {page: age for span, age in rows for page in pages_of(*span)}


class SamplerMachine(RuleBasedStateMachine):
    """The sampler as a monitor might use it, and as it would not: steps come in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.attributes = MonitoringAttributes(
            sampling_interval_s=0.02, aggregation_interval_s=0.1, min_nr_regions=4, max_nr_regions=40
        )
        self.sampler = Sampler(self.attributes, rng=np.random.default_rng(1))
        self.ranges: dict[int, list[Range]] = {}
        self.drawn: Addresses | None = None
        self.limit = PAGE_SIZE
        self.is_closed = False

    @rule(target_index=TARGETS, ranges=page_ranges(False) | page_ranges(True))
    def set_ranges(self, target_index: int, ranges: list[Range]) -> None:
        is_new = target_index not in self.ranges
        self.sampler.set_ranges(ranges, target=target_index)
        self.ranges[target_index] = ranges
        self.drawn = None
        if is_new:
            self._limit_was_set()

    @rule(target_index=TARGETS)
    def remove_target(self, target_index: int) -> None:
        self.sampler.remove_target(target_index)
        self.ranges.pop(target_index, None)
        self.drawn = None

    @rule()
    def draw(self) -> None:
        table = self.sampler.table
        self.drawn = self.sampler.draw_addresses()
        assert ((self.drawn >= table.start) & (self.drawn < table.end)).all()
        assert (self.drawn % np.uint64(PAGE_SIZE) == 0).all()

    @precondition(lambda self: not self.sampler.window_is_complete)
    @rule(seed=st.integers(0, 2**32), share=st.sampled_from([0.0, 0.1, 0.5, 1.0]))
    def record_noise(self, seed: int, share: float) -> None:
        self.sampler.record(np.random.default_rng(seed).random(len(self.sampler.table)) < share)

    @precondition(lambda self: not self.sampler.window_is_complete and self.drawn is not None)
    @rule(period=st.integers(1, 500))
    def record_stripes(self, period: int) -> None:
        assert self.drawn is not None
        self.sampler.record(self.drawn // np.uint64(PAGE_SIZE) // np.uint64(period) % np.uint64(2) == 0)

    @rule()
    def close(self) -> None:
        table = self.sampler.table
        total, runs = int(table.size_bytes.sum()), sum(len(union(ranges)) for ranges in self.ranges.values())
        self.sampler.close_window()
        # Merging as hard as possible leaves neighbours that are longer than the limit together;
        # then regions that have outgrown the new limit are cut, into less than min_nr_regions more.
        possible = 2 * total // self.limit + runs
        most = max(self.attributes.max_nr_regions, possible) + self.attributes.min_nr_regions
        assert len(self.sampler.table) <= most
        self._limit_was_set()
        assert self.sampler.table.size_bytes.max(initial=0) <= self.limit
        self.drawn = None

    @rule()
    def close_twice(self) -> None:
        """With unchanged mappings nothing can keep the count above max_nr_regions, up to the holes."""
        self.close()
        self.close()
        runs = sum(len(union(ranges)) for ranges in self.ranges.values())
        least = 2 * self.attributes.min_nr_regions + runs
        assert len(self.sampler.table) <= max(self.attributes.max_nr_regions, least)

    @rule()
    def open(self) -> None:
        before = len(self.sampler.table)
        self.sampler.open_window()
        assert before <= len(self.sampler.table) <= max(before, self.attributes.max_nr_regions)
        assert (self.sampler.table.nr_accesses == 0).all()
        self.drawn = None

    @rule(target_index=TARGETS, ranges=page_ranges(False) | page_ranges(True))
    def reset_age(self, target_index: int, ranges: list[Range]) -> None:
        start, end = columns(ranges)
        before = self.sampler.table.of_target(target_index)
        self.sampler.reset_age(target_index, start, end)
        table = self.sampler.table.of_target(target_index)
        covered = set().union(*(pages_of(*span) for span in ranges))
        assert ages_of(table) == {page: 0 if page in covered else age for page, age in ages_of(before).items()}
        self.drawn = None

    @invariant()
    def bytes_are_conserved(self) -> None:
        for target, ranges in self.ranges.items():
            assert union(self.sampler.table.of_target(target).ranges()) == union(ranges)
        assert set(self.sampler.table.target.tolist()) == set(self.ranges)

    @invariant()
    def regions_are_sorted_disjoint_and_aligned(self) -> None:
        table = self.sampler.table
        assert (table.start < table.end).all()
        assert (np.diff(table.target) >= 0).all()
        neighbours = table.target[:-1] == table.target[1:]
        assert (table.end[:-1] <= table.start[1:])[neighbours].all()
        assert (table.start % np.uint64(PAGE_SIZE) == 0).all()
        assert (table.size_bytes % PAGE_SIZE == 0).all()

    @invariant()
    def counts_are_possible(self) -> None:
        table = self.sampler.table
        assert ((table.nr_accesses >= 0) & (table.nr_accesses <= self.sampler.nr_samples)).all()
        assert ((table.last_nr_accesses >= 0) & (table.last_nr_accesses <= self.attributes.samples_per_window)).all()
        assert (table.age >= 0).all()
        regions = self.sampler.regions()
        assert ((regions.access_rate >= 0) & (regions.access_rate <= 1)).all()
        assert (regions.age_s >= 0).all()

    @invariant()
    def columns_keep_their_types(self) -> None:
        table = self.sampler.table
        types = [getattr(table, column.name).dtype.name for column in fields(table)]
        assert types == ["int32", "uint64", "uint64", "int64", "int64", "int64"]

    def _limit_was_set(self) -> None:
        shortest = int(self.sampler.table.size_bytes.sum()) // self.attributes.min_nr_regions
        self.limit = -(-max(shortest, PAGE_SIZE) // PAGE_SIZE) * PAGE_SIZE


TestSamplerMachine = SamplerMachine.TestCase
TestSamplerMachine.settings = settings(max_examples=60, stateful_step_count=40)
