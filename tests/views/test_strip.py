"""The strip: cells of equal size, no heat lost, nothing warm that looks cold."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memtherm.views.strip import LEVELS, heat_cells, heat_strip
from views.rows import MIB, regions


def test_cells_are_means_over_bytes() -> None:
    cells = heat_cells(regions((0, 0, 1, 1.0, 0), (0, 1, 4, 0.0, 0)), width=2)
    np.testing.assert_allclose(cells, [0.5, 0.0])


def test_gaps_between_regions_take_no_room() -> None:
    near = regions((0, 0, 1, 0.2, 0), (0, 1, 2, 0.8, 0))
    far = regions((0, 0, 1, 0.2, 0), (0, 900, 901, 0.8, 0))
    np.testing.assert_allclose(heat_cells(far, width=4), heat_cells(near, width=4))


def test_two_targets_stand_one_after_the_other() -> None:
    # The second target's addresses are below the first one's.
    cells = heat_cells(regions((0, 10, 11, 0.0, 0), (1, 0, 1, 1.0, 0)), width=2)
    np.testing.assert_allclose(cells, [0.0, 1.0])


def test_coldest_and_hottest_have_the_ends_of_the_scale() -> None:
    strip = heat_strip(regions((0, 0, 1, 0.0, 0), (0, 1, 2, 1.0, 0)), width=10)
    assert strip == LEVELS[0] * 5 + LEVELS[-1] * 5


def test_the_least_access_is_seen() -> None:
    strip = heat_strip(regions((0, 0, 1, 1e-4, 0), (0, 1, 100, 0.0, 0)), width=10)
    assert strip == LEVELS[1] + LEVELS[0] * 9


def test_nothing_to_show() -> None:
    assert heat_strip(regions(), width=5) == " " * 5


@given(
    st.lists(st.tuples(st.integers(1, 300), st.integers(0, 50), st.floats(0, 1)), min_size=1, max_size=20),
    st.integers(1, 150),
)
def test_no_heat_is_lost_or_made(parts: list[tuple[int, int, float]], width: int) -> None:
    rows, at = [], 0
    for size, gap, rate in parts:
        rows.append((0, at, at + size, rate, 0.0))
        at += size + gap
    table = regions(*rows)
    cells = heat_cells(table, width=width)
    assert len(cells) == width
    assert ((cells >= 0) & (cells <= 1 + 1e-9)).all()
    heat = float((table.size_bytes * table.access_rate).sum())
    total = int(table.size_bytes.sum())
    # Borders of cells are whole bytes.
    assert float(cells.sum()) * total / width == pytest.approx(heat, abs=width * MIB * 1e-3, rel=1e-3)
    assert len(heat_strip(table, width=width)) == width
