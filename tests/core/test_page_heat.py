"""Rates and ages page by page, as a census knows them."""

from __future__ import annotations

import numpy as np
import pytest

from memtherm.core.census import Census, PageBits

PAGE, HUGE = 4096, 2 << 20
FULL = np.uint64(2**64 - 1)


def bits(units: list[int], accessed: dict[int, list[int]]) -> PageBits:
    """Whole units are present; of each unit the accessed pages."""
    words = np.zeros((len(units), 8), np.uint64)
    for unit, pages in accessed.items():
        for page in pages:
            words[unit, page // 64] |= np.uint64(1) << np.uint64(page % 64)
    address = np.array(units, np.uint64) * np.uint64(HUGE)
    return PageBits(address, np.zeros(len(units), np.bool_), np.full((len(units), 8), FULL), words)


def look(census: Census, found: PageBits, *, clear: bool = True) -> None:
    census.record(found)
    if clear:
        census.note_cleared(found.address)


def window(census: Census, now_s: float, looks: list[PageBits], *, clear: bool = True) -> None:
    for one in looks:
        look(census, one, clear=clear)
    census.close_window(now_s)


def started() -> Census:
    census = Census()
    census.start(0.0)
    census.set_ranges([(0, 10 * HUGE)])
    look(census, bits([1, 2], {}))
    census.forget_looks()
    return census


def at(*pages: tuple[int, int]) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    return np.array([unit * HUGE + page * PAGE for unit, page in pages], np.uint64)


def test_each_page_has_its_own_rate_and_age() -> None:
    census = started()
    once, twice = bits([1, 2], {0: [3]}), bits([1, 2], {0: [3, 500]})
    window(census, 10.0, [once, twice])
    window(census, 20.0, [once, once])
    heat = census.heat()
    assert heat.rates(at((1, 3), (1, 500), (1, 4), (2, 0))).tolist() == [1, 0, 0, 0]
    assert heat.ages_s(at((1, 3), (1, 500), (1, 4), (2, 0))).tolist() == [20, 10, 20, 20]


def test_memory_that_was_never_there_was_never_accessed() -> None:
    census = started()
    window(census, 10.0, [bits([1, 2], {})])
    heat = census.heat()
    assert heat.rates(at((0, 0), (7, 3), (9, 511))).tolist() == [0, 0, 0]
    assert heat.ages_s(at((0, 0), (9, 511))).tolist() == [10, 10]
    assert Census().heat().rates(at((0, 0))).tolist() == [0]


def test_what_no_look_could_tell_has_no_rate() -> None:
    census = started()
    busy = bits([1, 2], {0: [3]})
    window(census, 10.0, [busy], clear=False)
    window(census, 20.0, [busy, busy], clear=False)
    rates = census.heat().rates(at((1, 3), (1, 4), (2, 0)))
    assert np.isnan(rates).tolist() == [True, True, False]


def test_it_is_a_copy_and_stays_as_it_was() -> None:
    census = started()
    window(census, 10.0, [bits([1, 2], {1: [8]})])
    heat = census.heat()
    window(census, 20.0, [bits([1, 2], {})])
    assert heat.rates(at((2, 8))).tolist() == [1]
    assert census.heat().rates(at((2, 8))).tolist() == [0]


def test_ages_that_began_again() -> None:
    census = started()
    window(census, 10.0, [bits([1, 2], {})])
    census.reset_age(at((1, 0)), at((1, 5)))
    assert census.heat().ages_s(at((1, 4), (1, 5))).tolist() == pytest.approx([0, 10])
