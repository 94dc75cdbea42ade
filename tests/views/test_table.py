"""The rows that a person reads: neighbours of one kind joined, what matters kept."""

import pytest

from memtherm.views.table import region_rows
from views.rows import MIB, regions


def test_neighbours_of_about_one_rate_are_one_row() -> None:
    rows, more = region_rows(regions((0, 0, 1, 0.8, 2.0), (0, 1, 4, 0.9, 4.0), (0, 4, 6, 0.0, 1.0)), limit=9)
    assert more == 0
    assert [(row.start // MIB, row.end // MIB) for row in rows] == [(0, 4), (4, 6)]
    assert rows[0].access_rate == pytest.approx(0.875)
    assert rows[0].age_s == pytest.approx(3.5)
    assert rows[0].size_bytes == 4 * MIB


@pytest.mark.parametrize(
    ("second", "why"),
    [((0, 2, 3, 0.9, 0), "a gap"), ((1, 1, 2, 0.9, 0), "another target"), ((0, 1, 2, 0.5, 0), "another rate")],
)
def test_others_are_not_joined(second: tuple[int, int, int, float, float], why: str) -> None:
    assert len(region_rows(regions((0, 0, 1, 0.9, 0), second), limit=9)[0]) == 2, why


def test_any_access_is_another_kind_than_none() -> None:
    assert len(region_rows(regions((0, 0, 1, 0.001, 0), (0, 1, 2, 0.0, 0)), limit=9)[0]) == 2


def test_what_is_accessed_is_kept_first_then_what_is_large() -> None:
    table = regions((0, 0, 900, 0.0, 0), (0, 900, 901, 0.9, 0), (0, 901, 902, 0.0, 0), (0, 902, 905, 0.3, 0))
    rows, more = region_rows(table, limit=3)
    assert [row.start // MIB for row in rows] == [0, 900, 902]
    assert more == 1


def test_no_regions() -> None:
    assert region_rows(regions(), limit=9) == ([], 0)
