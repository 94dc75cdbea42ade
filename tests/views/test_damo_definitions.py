"""damo's and the kernel's definitions: their vectors; damo itself is asked in tests/record."""

import numpy as np
import pytest

from memtherm.core.rows import SnapshotRows, rows_of
from memtherm.views import damo
from views.scene import Row, report, run

# 100 ms windows of 20 looks: 5 ms apart
WINDOW_S = 0.1


def rows(*regions: Row) -> SnapshotRows:
    return rows_of([report(0, list(regions), window_s=WINDOW_S).snapshot])


FOUR = rows((0, 0, 1, 20, 0.4), (0, 1, 2, 3, 0.9), (0, 2, 3, 0, 0.0), (0, 3, 4, 0, 9.9))


def test_the_kernels_idle_percentiles() -> None:
    # damon-spec §6.5
    (found,) = damo.kernel_idle_ms_percentiles(FOUR)
    assert found.tolist() == pytest.approx([-1000] * 25 + [-500] * 25 + [100] * 25 + [10000] * 26)


def test_bandwidth() -> None:
    # damon-spec §6.5: 1 GiB with 10 accesses and 3 GiB without
    gib = (1 << 30) // 4096
    assert damo.bandwidth_bytes_per_s(rows((0, 0, gib, 10, 0.0), (0, gib, 4 * gib, 0, 0.0))).tolist() == [107374182400]


def test_rates_are_cut_and_below_one_percent_is_idle() -> None:
    looks = np.array([200], np.int64)
    many = rows((0, 0, 1, 1, 1.0), (0, 1, 2, 2, 1.0), (0, 2, 3, 13, 1.0))
    many = SnapshotRows(many.time_s, many.window_s, looks, np.array([1.0 / 200]), many.first_row, many.regions)
    assert damo.access_percent(many).tolist() == [0, 1, 6]
    assert damo.recency(many).tolist() == [2e6, 0, 0]
    assert damo.temperature(many).tolist() == [-1e8, 100 + 1e8, 600 + 1e8]
    assert damo.temperature(many, weights=(1, 0, 0)).tolist() == [-4096, 4096, 4096]


def test_percentiles_and_histogram_of_a_snapshot() -> None:
    idle, size = damo.recency(FOUR), FOUR.regions.size_bytes
    assert idle.tolist() == [0, 0, 1e5, 1e7]
    assert damo.percentiles(idle, size) == [(0, 0), (1, 0), (25, 0), (50, 0), (75, 1e5), (99, 1e7), (100, 1e7)]
    bins = damo.histogram(idle, size)
    assert bins[0] == (0, 1000001, 3 * 4096)
    assert bins[-1] == (9000009, 10000010, 4096)
    assert sum(size for _, _, size in damo.histogram(idle, size, doubling=True)) == 4 * 4096
    assert damo.percentiles(idle[:0], size[:0]) == []
    assert damo.histogram(idle[:0], size[:0]) == []


def test_working_sets_leave_the_first_twenty_out_and_percentiles_have_their_index_rule() -> None:
    windows: list[list[Row]] = [[(0, 0, index + 1, 5, 0.0), (1, 0, 1, 1, 0.0)] for index in range(24)]
    sizes = damo.working_sets(run(*windows))
    assert (sizes / 4096).tolist() == [22, 23, 24, 25]
    assert (damo.working_sets(run(*windows), min_accesses=5) / 4096).tolist() == [21, 22, 23, 24]
    assert (damo.working_sets(run(*windows), min_size_bytes=8192) / 4096).tolist() == [21, 22, 23, 24]
    assert [damo.percentile_of(sizes, point) // 4096 for point in (0, 25, 49, 50, 100)] == [22, 23, 23, 24, 25]


def test_heat_reaches_back_over_the_age_and_no_further_than_the_snapshot_before() -> None:
    history = run([(0, 0, 2, 20, 0.25)], [(0, 0, 1, 10, 9.0)])
    begin_s = history.time_span_s[0]
    grid = damo.HeatGrid(since_s=begin_s - 0.5, until_s=begin_s + 1.0, start=0, end=4 * 4096, columns=3, rows=4)
    found = damo.heat_pixels(history, grid)
    hz = 20 / 0.5
    np.testing.assert_allclose(found[:, 0], [hz / 2, hz, hz / 2], rtol=1e-6)
    np.testing.assert_allclose(found[:, 1], [hz / 2, hz, np.nan], rtol=1e-6)
    assert np.isnan(found[:, 2:]).all()
