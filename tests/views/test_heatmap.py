"""Heat maps: pixels by hand and against loops over pages; folded gaps, names, what is shown."""

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memtherm.core.pattern import AccessPattern, Bounds
from memtherm.core.selection import Selection
from memtherm.errors import InvalidInput
from memtherm.views.heatmap import HeatMap, heat, heat_map, heat_maps_of_targets
from support.history import ListHistory
from views.scene import BEGIN_S, LOOKS, PAGE, WINDOW_S, mappings_of, report, run, runs

FAR = 1 << 20


def naive(history: ListHistory, found: HeatMap, weight: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean of `weight` and share of each pixel that was watched, by loops over pixels and regions."""
    shape = found.heat.shape
    total, seen = np.zeros(shape), np.zeros(shape)
    for one in history.all_reports:
        snapshot = one.snapshot
        regions, end_s = snapshot.regions, snapshot.time_s
        begin_s = end_s - snapshot.conditions.window_s
        for column in range(shape[1]):
            seconds = min(end_s, found.time_s[column + 1]) - max(begin_s, found.time_s[column])
            if seconds <= 0:
                continue
            for row in range(shape[0]):
                for index in np.flatnonzero(regions.target == found.row_target[row]):
                    low = max(int(regions.start[index]), int(found.row_start[row]))
                    high = min(int(regions.end[index]), int(found.row_end[row]))
                    if high > low:
                        total[row, column] += getattr(regions, weight)[index] * (high - low) * seconds
                        seen[row, column] += (high - low) * seconds
    area = np.diff(found.time_s)[None, :] * (found.row_end - found.row_start).astype(np.float64)[:, None]
    mean = np.full(shape, np.nan)
    np.divide(total, seen, out=mean, where=seen > 1e-9 * area)
    return mean, seen / area


@settings(deadline=None)
@given(runs(), st.integers(1, 12), st.integers(1, 9))
def test_a_map_is_what_loops_find(history: ListHistory, rows: int, columns: int) -> None:
    found = heat_map(history, rows=rows, columns=columns, whole=True, ages=True)
    assert found.age_s is not None
    mean, watched = naive(history, found, "access_rate")
    ages, _ = naive(history, found, "age_s")
    # Times since the epoch are exact to a quarter of a microsecond only.
    np.testing.assert_allclose(found.watched, watched, atol=1e-5)
    sure = watched > 1e-4
    np.testing.assert_allclose(found.heat[sure], mean[sure], atol=1e-6)
    np.testing.assert_allclose(found.age_s[sure], ages[sure], atol=1e-6)
    assert np.isnan(found.heat[watched == 0]).all()


@settings(deadline=None)
@given(runs(), st.integers(1, 12))
def test_heat_is_neither_lost_nor_made(history: ListHistory, rows: int) -> None:
    found = heat_map(history, rows=rows, columns=3, whole=True)
    area = np.diff(found.time_s)[None, :] * (found.row_end - found.row_start).astype(np.float64)[:, None]
    expected = sum(
        float((one.snapshot.regions.access_rate * one.snapshot.regions.size_bytes).sum()) * WINDOW_S
        for one in history.all_reports
    )
    left_out = found.left_out_bytes > 0
    total = float((found.pixel_mean * area).sum())
    assert total <= expected * (1 + 1e-5) + 1e-6
    if not left_out:
        assert total == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_pixels_by_hand() -> None:
    found = heat_map(
        run([(0, 0, 2, 20, 0.0), (0, 2, 4, 0, 0.0)], [(0, 0, 1, 10, 0.0), (0, 1, 4, 0, 0.0)]), rows=2, columns=2
    )
    assert found.heat.tolist() == [[1.0, 0.25], [0.0, 0.0]]
    assert found.time_s.tolist() == [BEGIN_S, BEGIN_S + 0.5, BEGIN_S + 1.0]
    assert found.row_start.tolist() == [0, 2 * PAGE]
    assert found.row_end.tolist() == [2 * PAGE, 4 * PAGE]


def test_a_window_across_a_border_of_columns_gives_to_both() -> None:
    history = run([(0, 0, 4, 20, 0.0)], [(0, 0, 4, 0, 0.0)], [(0, 0, 4, 0, 0.0)])
    found = heat_map(history, rows=1, columns=2)
    assert found.heat[0].tolist() == pytest.approx([2 / 3, 0.0])


def test_hertz_are_accesses_a_second_and_the_mean_of_damo_counts_what_was_not_watched() -> None:
    found = heat_map(run([(0, 0, 1, 10, 0.0)], [(0, 0, 2, 10, 0.0)]), rows=2, columns=2, unit="hz")
    assert found.heat[0].tolist() == pytest.approx([20.0, 20.0])
    assert found.watched.tolist() == [[1.0, 1.0], [0.0, 1.0]]
    assert found.pixel_mean[1].tolist() == pytest.approx([0.0, 20.0])


def test_gaps_are_folded_away_and_ranges_named() -> None:
    mappings = mappings_of(0, (0, 8, "[heap]"), (FAR, FAR + 8, "/lib/libc.so.6"), (FAR + 8, FAR + 12, ""))
    history = run([(0, 0, 8, 5, 0.0), (0, FAR, FAR + 12, 5, 0.0)], mappings=(mappings,))
    found = heat_map(history, rows=10, columns=1, whole=True)
    assert [(one.start // PAGE, one.end // PAGE, one.name) for one in found.ranges] == [
        (0, 8, "heap"),
        (FAR, FAR + 12, "libc.so.6 and 1 more"),
    ]
    assert [(one.first_row, one.end_row) for one in found.ranges] == [(0, 4), (4, 10)]
    assert [(part.name, part.start // PAGE) for part in found.ranges[1].parts] == [
        ("libc.so.6", FAR),
        ("anonymous", FAR + 8),
    ]
    assert found.left_out_bytes == 0


def test_the_hottest_stretch_is_shown_and_the_rest_is_counted() -> None:
    history = run([(0, 0, 8, 1, 0.0), (0, FAR, FAR + 4, 20, 0.0), (1, 0, 4, 3, 0.0)])
    found = heat_map(history, rows=4, columns=1)
    assert [(one.target, one.start // PAGE) for one in found.ranges] == [(0, FAR)]
    assert found.nr_ranges == 3
    assert found.left_out_bytes == 12 * PAGE
    assert heat_map(history, rows=16, columns=1, whole=True).left_out_bytes == 0


def test_what_was_there_for_a_short_time_only_is_found() -> None:
    windows = [[(0, 0, 4, 1, 0.0)] for _ in range(64)]
    windows[37] = [(0, 0, 4, 1, 0.0), (0, FAR, FAR + 64, 20, 0.0)]
    found = heat_map(run(*windows), rows=8, columns=64)
    assert [one.start // PAGE for one in found.ranges] == [FAR]
    assert np.isfinite(found.heat).sum() == found.heat.shape[0]


def test_selected_addresses_are_all_shown() -> None:
    history = run([(0, 0, 8, 0, 0.0), (0, FAR, FAR + 4, 20, 0.0)])
    found = heat_map(history, selection=Selection(end=4 * PAGE), rows=4, columns=1)
    assert [(one.start, one.end) for one in found.ranges] == [(0, 4 * PAGE)]
    assert (found.heat == 0).all()


def test_selected_time_is_the_width() -> None:
    history = run(*([(0, 0, 4, hits, 0.0)] for hits in (20, 10, 0, 0)))
    since_s = BEGIN_S + 0.6
    found = heat_map(history, selection=Selection(since_s=since_s, until_s=BEGIN_S + 1.5), rows=1, columns=2)
    assert found.time_s[[0, -1]].tolist() == [since_s, BEGIN_S + 1.5]
    assert found.heat[0].tolist() == pytest.approx([0.5 * 0.4 / 0.45, 0.0])


def test_a_filtered_region_leaves_a_hole() -> None:
    history = run([(0, 0, 2, 0, 0.0), (0, 2, 4, 8, 0.0)])
    selection = Selection(pattern=AccessPattern(access_rate=Bounds(0.1, None)), start=0)
    found = heat_map(history, selection=selection, rows=2, columns=1)
    assert [(one.start // PAGE, one.end // PAGE) for one in found.ranges] == [(2, 4)]


def test_rare_snapshots_fill_their_columns() -> None:
    reports = [report(0, [(0, 0, 4, 10, 0.0)]) for _ in range(8)]
    rare = [
        replace(one, snapshot=replace(one.snapshot, time_s=BEGIN_S + 10.0 * index + 0.5))
        for index, one in enumerate(reports)
    ]
    found = heat_map(ListHistory(all_reports=rare), rows=2, columns=60)
    assert np.isfinite(found.heat).all()
    assert found.heat.shape[1] <= 8


def test_one_page_is_one_row() -> None:
    assert heat(run([(0, 0, 1, 7, 0.0)]), rows=40, columns=1).tolist() == [[7 / LOOKS]]


def test_one_moment_has_a_map() -> None:
    history = run(*([(0, 0, 4, hits, 0.0)] for hits in (20, 10, 0)))
    moment = Selection(since_s=BEGIN_S + 1.0, until_s=BEGIN_S + 1.0)
    assert heat(history, selection=moment, rows=1, columns=4).tolist() == [[0.5]]


def test_cold_is_cold_between_hot_neighbours() -> None:
    rng = np.random.default_rng(3)
    windows = [
        [(0, page, page + 1, 0 if page % 2 else int(rng.integers(1, 20)), 0.0) for page in range(64)] for _ in range(50)
    ]
    found = heat(run(*windows), rows=64, columns=7)
    assert (found[1::2] == 0.0).all()
    assert (found[::2] > 0.0).all()


@pytest.mark.parametrize(
    ("options", "text"),
    [({"rows": 0}, "0 × 80"), ({"columns": 5000}, "40 × 5000"), ({"unit": "kelvin"}, "kelvin")],
)
def test_wrong_sizes_and_units_are_refused(options: dict[str, object], text: str) -> None:
    with pytest.raises(InvalidInput, match=text):
        heat_map(run([(0, 0, 1, 7, 0.0)]), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("history", "selection", "hint"),
    [
        (run(), Selection(), "record for longer"),
        (run([]), Selection(), "one"),
        (run([(0, 0, 1, 7, 0.0)]), Selection(targets=frozenset({1})), r"500 ms of one \(pid 7\), two \(pid 8\)"),
        (run([(0, 0, 1, 7, 0.0)]), Selection(start=1 << 40), "500 ms"),
        (run([(0, 0, 1, 7, 0.0)]), Selection(since_s=BEGIN_S + 9), "500 ms"),
    ],
)
def test_nothing_selected_says_what_there_is(history: ListHistory, selection: Selection, hint: str) -> None:
    with pytest.raises(InvalidInput) as problem:
        heat_map(history, selection=selection)
    assert "no " in problem.value.message
    assert re.search(hint, problem.value.hint)


@pytest.mark.parametrize("is_short_first", [True, False])
def test_short_windows_have_columns_of_their_own_wherever_they_are(is_short_first: bool) -> None:
    """As intervals are tuned, windows become ten times as long: what was seen before is not blurred by that."""
    lengths = [0.1] * 20 + [2.0] * 99
    reports, end_s = [], BEGIN_S
    for index, window_s in enumerate(lengths if is_short_first else reversed(lengths)):
        end_s += window_s
        one = report(0, [(0, 0, 1, LOOKS * (index % 2), 0.0)], window_s=window_s)
        reports.append(replace(one, snapshot=replace(one.snapshot, time_s=end_s)))
    found = heat_map(ListHistory(all_reports=reports), rows=1, columns=4000)
    assert found.heat.shape == (1, 2000)
    assert not np.isnan(found.heat).any()
    short = found.heat[0, :20] if is_short_first else found.heat[0, -20:]
    assert np.abs(np.diff(short)) == pytest.approx(1.0, abs=1e-3)


@settings(deadline=None)
@given(runs())
def test_maps_of_several_targets_in_one_pass_are_those_of_each_alone(history: ListHistory) -> None:
    found = heat_maps_of_targets(history, (0, 1), rows=8, columns=4, ages=True)
    for target in (0, 1):
        own = Selection(targets=frozenset({target}))
        if not any(len(rows.regions) for rows in history.rows(own)):
            assert target not in found
            continue
        alone = heat_map(history, selection=own, rows=8, columns=4, whole=True, ages=True)
        assert found[target].ranges == alone.ranges
        for name in ("heat", "watched", "age_s", "time_s"):
            np.testing.assert_allclose(getattr(found[target], name), getattr(alone, name), rtol=1e-9, atol=1e-12)
