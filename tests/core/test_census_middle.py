"""The census in the middle of a window: moving means, and ages that begin again there."""

import numpy as np

from core.census_scene import ALL, UNIT_BYTES, begun, bits_of, by_page, look
from core.naive_census import UNIT


def test_rates_in_the_middle_of_a_window_are_moving_means() -> None:
    """Of 5 looks 2 are done: each counts a fifth, and the old rate the other three."""
    census = begun(range(UNIT))
    for number in range(5):
        look(census, range(UNIT), [1, 2] if number < 4 else [1])
    census.close_window(1.0)
    before = by_page(census.runs(limit=ALL))
    assert by_page(census.runs(limit=ALL, looks_of_window=5)) == before, "no look of the new window yet"
    look(census, range(UNIT), [3])
    look(census, range(UNIT), [3, 2])
    now = by_page(census.runs(limit=ALL, looks_of_window=5))
    assert now[1] == (0.6, 1), "not seen in two of five; how old that is shows at the end of the window"
    assert now[2] == (0.68, 1)
    assert now[3] == (0.4, 0), "idle no longer"
    assert now[4] == (0, 1)
    assert by_page(census.runs(limit=ALL)) == before, "the last window stays what it was"
    for _ in range(3):
        look(census, range(UNIT), [])
    moving = by_page(census.runs(limit=ALL, looks_of_window=5))
    census.close_window(2.0)
    closed = by_page(census.runs(limit=ALL))
    assert {page: rate for page, (rate, _) in moving.items()} == {page: rate for page, (rate, _) in closed.items()}


def test_reset_age_in_the_middle_of_a_window_loses_no_count() -> None:
    """Units that are all alike are folded then; those with counts of this window are not."""
    census = begun(range(3 * UNIT))
    look(census, range(3 * UNIT), [])
    census.close_window(3.0)
    look(census, range(3 * UNIT), [5, UNIT + 5])
    census.reset_age(np.array([0], np.uint64), np.array([3 * UNIT_BYTES], np.uint64))
    look(census, range(3 * UNIT), [5])
    assert by_page(census.runs(limit=ALL, looks_of_window=2))[5] == (1, 0)
    census.close_window(4.0)
    pages = by_page(census.runs(limit=ALL))
    assert (pages[5], pages[UNIT + 5], pages[7]) == ((1, 1), (0.5, 1), (0, 1))


def test_what_could_not_be_told_counts_with_the_old_rate_in_the_middle_too() -> None:
    census = begun(range(UNIT))
    for _ in range(4):
        look(census, range(UNIT), range(UNIT))
    census.close_window(1.0)
    bits = bits_of(range(UNIT), range(UNIT))
    census.record(bits)
    census.record(bits)
    runs = census.runs(limit=ALL, looks_of_window=4)
    assert runs.rate.tolist() == [1]
    assert runs.coverage.tolist() == [0.75], "the look before the clear did tell, the one after it did not"
