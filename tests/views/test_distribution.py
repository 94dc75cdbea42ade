"""Distributions: weighted values against sorting, histograms and percentiles by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memtherm.core.selection import Selection
from memtherm.errors import InvalidInput
from memtherm.views.distribution import distribution, distributions
from memtherm.views.weighted import WeightedValues
from support.history import ListHistory
from views.scene import LOOKS, PAGE, TARGETS, WINDOW_S, report, run, runs

_VALUES = st.lists(
    st.tuples(
        st.floats(-1e9, 1e9, allow_subnormal=False).filter(lambda one: one == 0 or abs(one) > 1e-9), st.integers(1, 100)
    ),
    min_size=1,
    max_size=60,
)


@settings(deadline=None)
@given(_VALUES, st.lists(st.floats(0, 100), min_size=1, max_size=5))
def test_percentiles_are_those_of_sorted_values_to_a_thousandth(
    pairs: list[tuple[float, int]], points: list[float]
) -> None:
    held = WeightedValues()
    for part in (pairs[:7], pairs[7:]):
        held.add(np.array([value for value, _ in part]), np.array([float(weight) for _, weight in part]))
    expanded = np.sort(np.repeat([value for value, _ in pairs], [weight for _, weight in pairs]))
    found = held.percentiles(tuple(points))
    for point, value in zip(found.points, found.values, strict=True):
        index = min(len(expanded) - 1, max(0, int(np.ceil(point / 100 * len(expanded) * (1 - 1e-12))) - 1))
        assert value == pytest.approx(expanded[index], rel=2e-3, abs=1e-9)


@settings(deadline=None)
@given(_VALUES)
def test_no_weight_is_lost(pairs: list[tuple[float, int]]) -> None:
    held = WeightedValues()
    held.add(np.array([value for value, _ in pairs]), np.array([float(weight) for _, weight in pairs]))
    total = sum(weight for _, weight in pairs)
    assert held.total_weight == total
    assert held.histogram(np.array([-1.0, 0.0, 1.0])).size_bytes.sum() == total
    values, _ = held.classes()
    assert (np.diff(values) > 0).all()


def test_values_on_borders_belong_above_in_spite_of_rounding() -> None:
    held = WeightedValues()
    held.add(np.array([0.1 + 0.2, 0.3, 0.7, 1.0]), np.array([1.0, 2.0, 4.0, 8.0]))
    assert held.histogram(np.linspace(0, 1, 11)).size_bytes.tolist() == [0, 0, 0, 3, 0, 0, 0, 4, 0, 8]


@settings(deadline=None)
@given(runs())
def test_all_bytes_are_somewhere(history: ListHistory) -> None:
    found = distribution(history)
    watched = np.mean([float(one.snapshot.regions.size_bytes.sum()) for one in history.all_reports])
    accessed = np.mean([float(one.snapshot.working_set_bytes()) for one in history.all_reports])
    assert found.watched_bytes == pytest.approx(watched)
    assert found.accessed_bytes == pytest.approx(accessed)
    assert found.access_rate.size_bytes.sum() == pytest.approx(accessed)
    for histogram in (found.idle_linear, found.idle_log):
        assert histogram.size_bytes.sum() == pytest.approx(watched - accessed)
    for histogram in (found.temperature_linear, found.temperature_log):
        assert histogram.size_bytes.sum() == pytest.approx(watched)
        cold = histogram.size_bytes[histogram.edges[1:] <= 0].sum()
        assert cold <= watched - accessed + 1e-6
    assert found.idle_log.edges[0] == 0


def test_by_hand() -> None:
    found = distribution(
        run([(0, 0, 1, 20, 4.5), (0, 1, 3, 5, 0.0), (0, 3, 7, 0, 3.5), (0, 7, 15, 0, 7.5)]),
        points=(0.0, 20.0, 46.0, 60.0),
    )
    assert found.idle.values == pytest.approx((0.0, 0.0, 4.0, 8.0))
    assert found.temperature.values == pytest.approx((-8.0, -8.0, -8.0, -4.0))
    assert found.access_rate.size_bytes.tolist() == pytest.approx([0, 0, 2 * PAGE, 0, 0, 0, 0, 0, 0, PAGE])
    assert found.idle_log.edges[-2:].tolist() == [8.0, 16.0]
    assert found.idle_log.size_bytes[-2:].tolist() == pytest.approx([4 * PAGE, 8 * PAGE])
    # (1 page × 20 + 2 pages × 5) in half a second
    assert found.bandwidth_bytes_per_s == pytest.approx(30 * PAGE / WINDOW_S)
    assert found.peak_bandwidth_bytes_per_s == pytest.approx(30 * PAGE / WINDOW_S)


def test_long_hot_memory_is_hotter_than_short_and_any_access_is_above_none() -> None:
    rows = [(0, 0, 1, 1, 0.0), (0, 1, 2, 10, 10.0), (0, 2, 3, 20, 10.0), (0, 3, 4, 0, 0.0), (0, 4, 5, 0, 99.0)]
    found = distribution(run(rows), points=(20.0, 40.0, 60.0, 80.0, 100.0))
    short = 0.5 / LOOKS
    assert found.temperature.values == pytest.approx((-99.5, -0.5, short, 5.25, 10.5))


def test_wrong_bins_and_points() -> None:
    history = run([(0, 0, 1, 1, 0.0)])
    with pytest.raises(InvalidInput, match="0 bins"):
        distribution(history, bins=0)
    with pytest.raises(InvalidInput, match="percentile"):
        distribution(history, points=(-1.0,))


def test_windows_of_unknown_length_count_alike() -> None:
    reports = [report(index, [(0, 0, pages, 20, 0.0)], window_s=0.0) for index, pages in enumerate((1, 3))]
    found = distribution(ListHistory(all_reports=reports, of_targets=TARGETS))
    assert found.watched_bytes == pytest.approx(2 * PAGE)


@settings(deadline=None)
@given(runs())
def test_distributions_of_targets_in_one_pass_are_those_of_each_alone(history: ListHistory) -> None:
    found = distributions(history, (None, 0, 1))
    assert repr(found[None]) == repr(distribution(history))
    for target in (0, 1):
        own = Selection(targets=frozenset({target}))
        if target in found:
            alone = distribution(history, selection=own)
            assert found[target].watched_bytes == pytest.approx(alone.watched_bytes)
            assert found[target].idle_log.size_bytes == pytest.approx(alone.idle_log.size_bytes)
            assert found[target].temperature.values == pytest.approx(alone.temperature.values)
        else:
            assert not any(len(rows.regions) for rows in history.rows(own))
