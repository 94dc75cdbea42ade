"""The table of regions: of a moment, as means, sorted, cut."""

import numpy as np
import pytest
from hypothesis import given, settings

from memtherm.core.pattern import AccessPattern, Bounds
from memtherm.core.selection import Selection
from memtherm.errors import InvalidInput
from memtherm.views.region_table import region_table
from support.history import ListHistory
from views.scene import BEGIN_S, PAGE, WINDOW_S, mappings_of, run, runs

HISTORY = run(
    [(0, 0, 9, 3, 0.0)],
    [(0, 0, 2, 20, 1.0), (0, 2, 6, 0, 9.0), (0, 6, 7, 5, 0.0), (1, 1, 3, 0, 2.0)],
    error=0.25,
    mappings=(mappings_of(0, (0, 4, "[heap]"), (4, 5, ""), (6, 8, "/lib/libc.so.6")),),
)


def test_the_last_moment() -> None:
    table = region_table(HISTORY)
    assert [(row.target, row.start // PAGE, row.end // PAGE, row.name) for row in table.rows] == [
        (0, 0, 2, "heap"),
        (0, 2, 6, "heap and 1 more"),
        (0, 6, 7, "libc.so.6"),
        (1, 1, 3, ""),
    ]
    assert [row.temperature_s for row in table.rows] == pytest.approx([1.5, -9.5, 0.125, -2.5])
    assert table.rows[0].rate_error == 0.25
    assert (table.since_s, table.until_s) == (BEGIN_S + WINDOW_S, BEGIN_S + 2 * WINDOW_S)
    assert (table.nr_regions, table.total_bytes) == (4, 9 * PAGE)


@pytest.mark.parametrize(
    ("sort", "first_pages"),
    [
        ("address", [0, 2, 6, 1]),
        ("rate", [2, 1, 6, 0]),
        ("age", [6, 0, 1, 2]),
        ("size", [6, 0, 1, 2]),
        ("temperature", [2, 1, 6, 0]),
    ],
)
def test_sorted(sort: str, first_pages: list[int]) -> None:
    assert [row.start // PAGE for row in region_table(HISTORY, sort=sort).rows] == first_pages
    highest = region_table(HISTORY, sort=sort, descending=True, limit=1)
    assert highest.rows[0].start // PAGE in (first_pages[-1], 1 if sort == "address" else first_pages[-1])
    assert highest.nr_regions == 4


def test_an_earlier_moment_and_filters() -> None:
    early = region_table(HISTORY, selection=Selection(until_s=BEGIN_S + WINDOW_S))
    assert [(row.start // PAGE, row.end // PAGE) for row in early.rows] == [(0, 9)]
    idle = Selection(pattern=AccessPattern(access_rate=Bounds(0, 0)))
    assert [row.start // PAGE for row in region_table(HISTORY, selection=idle).rows] == [2, 1]
    assert [row.start // PAGE for row in region_table(HISTORY, selection=Selection(targets=frozenset({1}))).rows] == [1]


def test_means_over_time() -> None:
    history = run([(0, 0, 4, 20, 0.0), (0, 4, 8, 0, 1.0)], [(0, 0, 4, 16, 1.0), (0, 4, 8, 0, 2.0)])
    table = region_table(history, merged=True)
    assert [(row.start // PAGE, row.end // PAGE, row.access_rate) for row in table.rows] == [
        (0, 4, pytest.approx(0.9)),
        (4, 8, 0.0),
    ]
    assert [row.age_s for row in table.rows] == pytest.approx([0.5, 1.5])
    assert table.rows[0].rate_error is None
    assert (table.since_s, table.until_s) == (BEGIN_S, BEGIN_S + 1.0)


@settings(deadline=None, max_examples=30)
@given(runs())
def test_means_hold_all_bytes_that_were_watched_and_their_heat(history: ListHistory) -> None:
    table = region_table(history, merged=True)
    ever = {
        (int(regions.target[index]), page)
        for one in history.all_reports
        for regions in [one.snapshot.regions]
        for index in range(len(regions))
        for page in range(int(regions.start[index]) // PAGE, int(regions.end[index]) // PAGE)
    }
    assert table.total_bytes == len(ever) * PAGE
    assert all(0 <= row.access_rate <= 1 and not np.isnan(row.age_s) for row in table.rows)


def test_nothing_and_wrong_words() -> None:
    with pytest.raises(InvalidInput, match="no region"):
        region_table(HISTORY, selection=Selection(start=1 << 50))
    with pytest.raises(InvalidInput, match="sorted by"):
        region_table(HISTORY, sort="colour")
