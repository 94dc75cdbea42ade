"""The census against a dictionary of pages, and its promises: exact, honest where blind, small."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from core.census_scene import (
    ALL,
    UNIT_BYTES,
    assert_sound,
    begun,
    bits_of,
    by_page,
    look,
    pages_in,
    ranges_of,
)
from core.naive_census import UNIT, NaiveCensus, pages_of, units_of
from memtherm.core import census as census_module
from memtherm.core.census import FULL_RATE, Census, PageBits, clear_ranges, page_count
from memtherm.units import PAGE_SIZE

UNITS = 3

spans = st.tuples(st.integers(0, UNITS * UNIT - 1), st.sampled_from([1, 2, 3, 64, 100, 512, 700])).map(
    lambda span: range(span[0], min(span[0] + span[1], UNITS * UNIT))
)
maps = st.lists(spans, min_size=1, max_size=5).map(lambda many: set().union(*many))


class CensusMachine(RuleBasedStateMachine):
    """Any order of touches, looks, clears, windows, mappings that change, pages that do not clear, and exec."""

    @initialize(mapped=maps)
    def begin(self, mapped: set[int]) -> None:
        self.now_s = 0.0
        self.present: set[int] = set()
        self.bits: set[int] = set()
        self.unclearable: set[int] = set()
        self.mapped = mapped
        self.restart()

    def restart(self) -> None:
        self.census, self.naive = Census(), NaiveCensus(self.now_s)
        self.census.start(self.now_s)
        self.census.set_ranges(ranges_of(self.mapped))
        self.naive.set_mapped(self.mapped)

    @rule(pages=spans)
    def touch(self, pages: range) -> None:
        touched = set(pages) & self.mapped
        self.present |= touched
        self.bits |= touched

    @rule(pages=spans)
    def swap_out(self, pages: range) -> None:
        self.present -= set(pages)
        self.bits -= set(pages)

    @rule(chosen=st.sets(st.integers(0, UNITS - 1)), everything=st.booleans())
    def look(self, chosen: set[int], everything: bool) -> None:
        if self.naive.looks == 10:
            return
        bits = bits_of(self.present, self.bits)
        self.census.record(bits)
        self.naive.record(self.present, self.bits)
        pending = self.census.pending(bits)
        assert pages_in(pending) == {page for page in self.bits if page not in self.naive.stuck}
        take = pending.take(
            np.array([everything or address // UNIT_BYTES in chosen for address in pending.address.tolist()], np.bool_)
        )
        asked = pages_in(take)
        self.bits -= asked - self.unclearable
        stuck = asked & self.unclearable
        self.census.note_cleared(take.address)
        stuck_bits = bits_of(self.present, stuck).take(np.isin(sorted(units_of(self.present)), list(units_of(stuck))))
        self.census.note_stuck(stuck_bits.address, stuck_bits.accessed)
        self.naive.uncleared -= units_of(asked)
        self.naive.stuck |= stuck

    @rule()
    def clear_everything(self) -> None:
        self.bits.clear()
        self.census.note_all_cleared()
        self.naive.uncleared.clear()

    @rule(pages=spans)
    def share(self, pages: range) -> None:
        self.unclearable ^= set(pages)

    @rule()
    def retry(self) -> None:
        self.census.forget_stuck()
        self.naive.stuck.clear()

    @precondition(lambda self: self.naive.looks > 0)
    @rule(length_s=st.sampled_from([0.5, 1.0, 7.0]))
    def close(self, length_s: float) -> None:
        self.now_s += length_s
        self.census.close_window(self.now_s)
        self.naive.close_window(self.now_s)

    @precondition(lambda self: self.naive.looks > 0)
    @rule()
    def forget(self) -> None:
        self.census.forget_looks()
        self.naive.forget_looks()

    @precondition(lambda self: self.naive.looks == 0)
    @rule(mapped=maps)
    def remap(self, mapped: set[int]) -> None:
        self.mapped = mapped
        self.present &= mapped
        self.bits &= mapped
        self.census.set_ranges(ranges_of(mapped))
        self.naive.set_mapped(mapped)

    @rule(pages=st.one_of(spans, maps))
    def reset_age(self, pages: Iterable[int]) -> None:
        columns = np.array(ranges_of(pages), np.uint64)
        self.census.reset_age(columns[:, 0], columns[:, 1])
        self.naive.reset_age(pages)

    @precondition(lambda self: self.naive.looks == 0)
    @rule()
    def call_exec(self) -> None:
        self.present, self.bits = set(), set()
        self.restart()

    @precondition(lambda self: self.naive.looks == 0)
    @invariant()
    def tells_the_same(self) -> None:
        runs = self.census.runs(limit=ALL)
        assert_sound(runs, ranges_of(self.mapped))
        seen, expected = by_page(runs), self.naive.result()
        assert seen.keys() == expected.keys()
        assert np.allclose(list(seen.values()), [expected[page] for page in seen], rtol=1e-12, atol=1e-12)
        assert self.census.stuck_bytes == len(self.naive.stuck) * PAGE_SIZE

    @invariant()
    def tells_the_same_in_the_middle_of_a_window(self) -> None:
        runs = self.census.runs(limit=ALL, looks_of_window=5)
        assert_sound(runs, ranges_of(self.mapped))
        seen, expected = by_page(runs), self.naive.moving(5)
        assert seen.keys() == expected.keys()
        assert np.allclose(list(seen.values()), [expected[page] for page in seen], rtol=1e-12, atol=1e-12)
        assert ((runs.coverage >= 0) & (runs.coverage <= 1)).all()


CensusMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestCensusMachine = CensusMachine.TestCase


def test_counts_are_exact() -> None:
    """Each look's accesses are drawn; the truth is their count, and no model is needed."""
    rng = np.random.default_rng(0)
    pages = range(2 * UNIT)
    census = begun(pages)
    truth = np.zeros(len(pages))
    likely = rng.choice([0.0, 0.1, 0.5, 1.0], len(pages))
    for _ in range(20):
        accessed = rng.random(len(pages)) < likely
        truth += accessed
        look(census, pages, np.flatnonzero(accessed).tolist())
    census.close_window(1.0)
    seen = by_page(census.runs(limit=ALL))
    assert [round(20 * seen[page][0], 1) for page in pages] == [pytest.approx(count, abs=0.05) for count in truth]
    assert (census.runs(limit=ALL).coverage == 1).all()


def test_the_first_look_sees_the_past_and_tells_nothing() -> None:
    census = Census()
    census.set_ranges(ranges_of(range(UNIT)))
    look(census, range(UNIT), range(UNIT))
    look(census, range(UNIT), [])
    census.close_window(1.0)
    runs = census.runs(limit=ALL)
    assert runs.rate.tolist() == [0]
    assert runs.coverage.tolist() == [0.5]


def test_a_look_without_a_clear_before_it_is_blind() -> None:
    census = begun(range(2 * UNIT))
    look(census, range(2 * UNIT), [5, UNIT + 5])
    bits = bits_of(range(2 * UNIT), [5, UNIT + 5])
    census.record(bits)
    census.note_cleared(bits.address[:1])
    look(census, range(2 * UNIT), [UNIT + 5])
    look(census, range(2 * UNIT), [UNIT + 5])
    census.close_window(1.0)
    runs = census.runs(limit=ALL)
    is_touched = runs.size_bytes == PAGE_SIZE
    assert runs.coverage[is_touched].tolist() == [1, 0.75]
    # There is no old rate yet that could stand in for the look that did not tell.
    assert runs.rate[is_touched].tolist() == [0.5, 1.0]


def test_new_memory_was_not_there_before_so_its_bits_tell() -> None:
    census = begun(range(UNIT), mapped=ranges_of(range(4 * UNIT)))
    look(census, range(UNIT), [])
    look(census, range(2 * UNIT), range(UNIT, 2 * UNIT))
    census.close_window(1.0)
    runs = census.runs(limit=ALL)
    assert runs.rate.tolist() == [0, 0.5]
    assert runs.coverage.tolist() == [1, 1]


def test_a_share_of_clears_gives_an_unbiased_estimate() -> None:
    """Of units that are accessed in half of the looks, a third of the set ones is cleared after each."""
    rng = np.random.default_rng(4)
    units = 400
    census, set_bits, hot = Census(), np.zeros(units, np.bool_), np.zeros((units, 8), np.uint64)
    hot[:, 0] = 1
    address = np.arange(units, dtype=np.uint64) * np.uint64(UNIT_BYTES)
    census.set_ranges([(0, units * UNIT_BYTES)])
    rates, telling = [], 0.0
    for window in range(40):
        for _ in range(5):
            set_bits |= rng.random(units) < 0.5
            census.record(PageBits(address, np.zeros(units, np.bool_), hot, hot * set_bits[:, None]))
            cleared = set_bits & (rng.random(units) < (1 if window == 0 else 1 / 3))
            set_bits &= ~cleared
            census.note_cleared(address[cleared])
        census.close_window(float(window))
        runs = census.runs(limit=ALL)
        if window >= 15:
            pages = runs.start.searchsorted(address, side="right") - 1
            rates.append(runs.rate[pages].mean())
            telling += runs.coverage[pages].sum()
    assert telling < 0.6 * 25 * units
    assert np.mean(rates) == pytest.approx(0.5, abs=0.02)


def test_a_unit_that_is_never_cleared_keeps_its_last_rate() -> None:
    census = begun(range(UNIT))
    look(census, range(UNIT), range(UNIT))
    census.close_window(1.0)
    bits = bits_of(range(UNIT), range(UNIT))
    census.record(bits)
    for window in range(5):
        census.record(bits)
        census.close_window(2.0 + window)
    runs = census.runs(limit=ALL)
    assert runs.rate.tolist() == [1]
    assert runs.coverage.tolist() == [0]


def test_stuck_pages_count_as_accessed_until_they_clear() -> None:
    census = begun(range(UNIT))
    stuck = bits_of(range(UNIT), range(8))
    census.note_stuck(stuck.address, stuck.accessed)
    assert census.stuck_bytes == 8 * PAGE_SIZE
    for _ in range(4):
        look(census, range(UNIT), range(8))
    assert len(census.pending(stuck)) == 0
    census.close_window(1.0)
    assert by_page(census.runs(limit=ALL))[7] == (1, 1)
    census.forget_stuck()
    assert pages_in(census.pending(stuck)) == set(range(8))
    for number in range(4):
        look(census, range(UNIT), range(0 if number else 8))
    census.close_window(2.0)
    rate, age_s = by_page(census.runs(limit=ALL))[7]
    assert (round(FULL_RATE * rate), age_s) == (63, 1)


def test_a_huge_unit_is_hot_as_a_whole_and_its_neighbours_are_not() -> None:
    present = range(3 * UNIT)
    census = begun(present)
    for _ in range(5):
        bits = bits_of(present, pages_of(1), huge=[1])
        census.record(bits)
        pending = census.pending(bits)
        assert pending.is_huge.tolist() == [True]
        start, end = clear_ranges(pending, max_gap_pages=16)
        assert list(zip(start.tolist(), end.tolist(), strict=True)) == [(UNIT_BYTES, 2 * UNIT_BYTES)]
        census.note_cleared(pending.address)
    census.close_window(1.0)
    runs = census.runs(limit=ALL)
    assert runs.rate.tolist() == [0, 1, 0]
    assert runs.start.tolist() == [0, UNIT_BYTES, 2 * UNIT_BYTES]


@pytest.mark.parametrize("idle_s", [1, 10, 60, 600])
def test_the_age_of_an_idle_page_is_right_to_within_a_window(idle_s: int) -> None:
    window_s = 0.8
    census = begun(range(2 * UNIT))
    now_s, touched_until_s = 0.0, 5.1
    while now_s < touched_until_s + idle_s:
        for _ in range(4):
            now_s += window_s / 4
            look(census, range(2 * UNIT), [7] if now_s <= touched_until_s else [])
        census.close_window(now_s)
    pages = by_page(census.runs(limit=ALL))
    assert 0 <= now_s - touched_until_s - pages[7][1] <= window_s
    assert pages[8][1] == pytest.approx(now_s)


def test_ages_outlive_the_numbers_of_windows() -> None:
    """16 bits number 65,535 windows; ages beyond stay right to within two of the windows of then, never too old."""
    census = begun(range(2 * UNIT))
    window_s, jump_to, windows = 0.5, 65_200, 66_000
    touched = {1: 3, 50: 4, 51: 5, 65_530: 7, 65_536: 8, 65_600: 9}
    number = 0
    while number < windows:
        number += 1
        if number == 101:
            # Windows in which nothing happens, without their time.
            skipped = np.arange(number, jump_to) * window_s
            census._window_ends_s = np.append(census._window_ends_s, skipped)
            number = jump_to
        look(census, range(2 * UNIT), [touched[number]] if number in touched else [])
        census.close_window(number * window_s)
    pages = by_page(census.runs(limit=ALL))
    for number, page in touched.items():
        true_s = (windows - number) * window_s
        assert true_s - 2 * window_s <= pages[page][1] <= true_s, page
    assert pages[0][1] == windows * window_s
    assert pages[9][1] == (windows - 65_600) * window_s


@pytest.mark.parametrize("most", [8, 9, 10, 11, 15])
def test_thinning_of_windows_makes_no_age_older(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(census_module, "_MOST_WINDOWS", most)
    census = begun(range(UNIT))
    for number in range(1, 200):
        look(census, range(UNIT), [number] if number < 100 else [])
        census.close_window(float(number))
        pages = by_page(census.runs(limit=ALL))
        ages = [pages[page][1] for page in range(1, min(number, 99))]
        true = [number - page for page in range(1, min(number, 99))]
        assert all(age <= is_true for age, is_true in zip(ages, true, strict=True))
        assert ages == sorted(ages, reverse=True)
        assert pages[0][1] == number


def test_what_stays_keeps_its_state_when_mappings_grow_and_shrink() -> None:
    census = begun(range(100, 200), mapped=ranges_of(range(100, 200)))
    look(census, range(100, 200), [150])
    census.close_window(1.0)
    look(census, range(100, 200), [])
    census.close_window(2.0)
    census.set_ranges(ranges_of([*range(100, 160), *range(300, 2000)]))
    pages = by_page(census.runs(limit=ALL))
    assert pages[150] == (0, 1)
    assert pages[149] == (0, 2)
    assert pages[300] == (0, 0)
    assert 160 not in pages
    look(census, range(100, 160), [])
    census.close_window(3.0)
    pages = by_page(census.runs(limit=ALL))
    assert pages[150] == (0, 2)
    assert pages[300] == (0, 1)


def test_what_is_mapped_again_is_new() -> None:
    census = begun(range(UNIT))
    look(census, range(UNIT), range(10))
    census.close_window(1.0)
    census.set_ranges(ranges_of(range(5, UNIT)))
    census.set_ranges(ranges_of(range(UNIT)))
    pages = by_page(census.runs(limit=ALL))
    assert pages[4] == (0, 0)
    assert pages[5] == (1, 1)
    assert pages[20] == (0, 1)


def test_a_partly_mapped_unit_is_not_diluted_by_what_is_not_mapped() -> None:
    """Where regions are few, pages are joined with mapped neighbours only."""
    census = begun(range(UNIT))
    for number in range(10):
        steps = [(16, 10), (40, 9), (100, 5), (200, 2), (300, 0), (400, 7), (UNIT, 0)]
        starts = [0, *(end for end, _ in steps)]
        accessed = [range(start, end) for start, (end, looks) in zip(starts, steps, strict=False) if number < looks]
        look(census, range(UNIT), [page for pages in accessed for page in pages])
    census.close_window(1.0)
    assert len(census.runs(limit=ALL)) == len(steps)
    census.set_ranges([(0, 16 * PAGE_SIZE)])
    runs = census.runs(limit=1)
    assert (runs.start.tolist(), runs.end.tolist(), runs.rate.tolist()) == ([0], [16 * PAGE_SIZE], [1])


def test_state_follows_what_is_accessed() -> None:
    units = 4096
    address = np.arange(units, dtype=np.uint64) * np.uint64(UNIT_BYTES)
    full, none = np.full((units, 8), ~np.uint64(0)), np.zeros((units, 8), np.uint64)
    census = Census()
    census.set_ranges([(0, units * UNIT_BYTES)])

    def take(accessed: np.ndarray[tuple[int, int], np.dtype[np.uint64]]) -> int:
        bits = PageBits(address, np.zeros(units, np.bool_), full, accessed)
        census.record(bits)
        census.note_cleared(census.pending(bits).address)
        census.close_window(1.0)
        return len(census._units.pages)

    some = none.copy()
    some[:20, 3] = 5
    whole = none.copy()
    whole[100:900] = ~np.uint64(0)
    assert take(none) == 0
    assert take(some) == 20
    assert take(whole) == 20, "800 units that are hot as a whole need no rows; those before tell two ages"
    assert take(none) == 20
    census.reset_age(np.array([0], np.uint64), np.array([units * UNIT_BYTES], np.uint64))
    assert len(census._units.pages) == 0
    assert census.nr_units == units


def test_reset_age_of_a_huge_range_takes_no_rows() -> None:
    """An action on all of 1 TiB of idle memory must not make a row for each page of it."""
    units = 1 << 19
    address = np.arange(units, dtype=np.uint64) * np.uint64(UNIT_BYTES)
    none = np.zeros((units, 8), np.uint64)
    census = Census()
    census.set_ranges([(0, units * UNIT_BYTES)])
    census.record(PageBits(address, np.zeros(units, np.bool_), none, none))
    census.close_window(5.0)
    census.reset_age(np.array([PAGE_SIZE], np.uint64), np.array([units * UNIT_BYTES], np.uint64))
    runs = census.runs(limit=10)
    assert runs.age_s.tolist() == [5, 0]
    assert runs.end.tolist() == [PAGE_SIZE, units * UNIT_BYTES]


@pytest.mark.parametrize("nr_hot", [1, 3, 50])
def test_single_hot_pages_stand_out_of_noise(nr_hot: int) -> None:
    """More than max_nr_regions of pages that are touched now and then, and pages that are always."""
    rng = np.random.default_rng(nr_hot)
    pages = range(40 * UNIT)
    census = begun(pages)
    hot = sorted(rng.choice(len(pages), nr_hot, replace=False).tolist())
    for window in range(4):
        noise = rng.choice(len(pages), 3000, replace=False)
        for number in range(20):
            look(census, pages, {*hot, *noise[number * 150 : number * 150 + 150].tolist()})
        census.close_window(1.0 + window)
    assert len(census.runs(limit=ALL)) > 4000
    runs = census.runs(limit=1000)
    assert len(runs) <= 1000
    assert_sound(runs, ranges_of(pages))
    seen = by_page(runs)
    assert sorted(page for page, (rate, _) in seen.items() if rate >= 0.9) == hot


def test_no_more_regions_than_allowed_but_for_gaps() -> None:
    mapped = [page for page in range(3 * UNIT) if page % 100 < 50]
    census = begun(mapped)
    look(census, mapped, mapped[::7])
    census.close_window(1.0)
    gaps = len(ranges_of(mapped))
    assert len(census.runs(limit=gaps + 10)) == gaps + 10
    assert len(census.runs(limit=3)) == gaps
    assert_sound(census.runs(limit=3), ranges_of(mapped))


def test_no_memory_gives_no_runs() -> None:
    census = Census()
    assert len(census.runs(limit=10)) == 0
    census.set_ranges([])
    census.record(bits_of([], []))
    census.close_window(1.0)
    assert len(census.runs(limit=10)) == 0
    census = begun(range(UNIT))
    census.set_ranges([])
    assert census.nr_units == 0
    assert len(census.runs(limit=10)) == 0


def test_rates_of_250_looks_fit_their_byte() -> None:
    census = begun(range(UNIT))
    for number in range(FULL_RATE):
        look(census, range(UNIT), [1, 2] if number else [1])
    census.close_window(1.0)
    pages = by_page(census.runs(limit=ALL))
    assert pages[1][0] == 1
    assert pages[2][0] == 249 / 250


def test_clear_ranges() -> None:
    bits = bits_of(range(3 * UNIT), [1, 2, 5, 30, 511, 512, 1300])
    for gap, expected in (
        (0, [(1, 3), (5, 6), (30, 31), (511, 512), (512, 513), (1300, 1301)]),
        (2, [(1, 6), (30, 31), (511, 512), (512, 513), (1300, 1301)]),
        (24, [(1, 31), (511, 512), (512, 513), (1300, 1301)]),
    ):
        start, end = clear_ranges(bits, max_gap_pages=gap)
        assert list(zip((start // PAGE_SIZE).tolist(), (end // PAGE_SIZE).tolist(), strict=True)) == expected
    start, end = clear_ranges(bits_of(range(3), []), max_gap_pages=2)
    assert len(start) == len(end) == 0


def test_page_count() -> None:
    assert page_count(bits_of(range(700), [1, 2, 600]).accessed) == 3
    assert page_count(bits_of([], []).accessed) == 0
