"""The embedded heat maps are those of views, within their codes and within their size."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from memtherm.core.report import Report
from memtherm.core.selection import EVERYTHING, Selection
from memtherm.core.snapshot import Conditions, Regions, Snapshot, TargetInfo
from memtherm.plot.heat_data import COLUMNS, heat_maps
from memtherm.views.heatmap import heat_map
from plot.unpack import ages, rates, unpack
from support.history import ListHistory
from support.rich_run import HOT_BYTES, HOT_START, TARGETS, rich_run

RUN = rich_run(windows=60)


def noise(windows: int, regions: int) -> ListHistory:
    """Nothing of it can be packed well."""
    random = np.random.default_rng(3)
    conditions = Conditions(
        method="census", probe="bpf", clearing="cold", grain="page", sampling_interval_s=0.02,
        aggregation_interval_s=0.1, samples=5, window_s=0.1,
    )  # fmt: skip
    target = (TargetInfo(1, "noise"),)
    border = np.uint64(2**32) + np.arange(regions + 1, dtype=np.uint64) * np.uint64(2**20)

    def one(index: int) -> Report:
        rate = random.random(regions)
        columns = (np.rint(rate * 5).astype(np.int64), rate, random.random(regions) * 50, np.zeros(regions))
        found = Regions(np.zeros(regions, np.int32), border[:-1], border[1:], *columns)
        return Report(Snapshot(1e9 + 0.1 * (index + 1), target, found, conditions), ())

    return ListHistory(all_reports=[one(index) for index in range(windows)], snapshots_at_once=200)


@pytest.mark.parametrize("target", range(len(TARGETS)))
def test_decodes_to_the_matrix_of_views(target: int) -> None:
    (heat,) = heat_maps(RUN, EVERYTHING, [target])
    expected = heat_map(
        RUN, selection=Selection(targets=frozenset({target})), rows=1024, columns=COLUMNS, whole=True, ages=True
    )
    assert expected.age_s is not None
    assert (heat["rows"], heat["columns"]) == expected.heat.shape
    np.testing.assert_allclose(rates(heat), expected.heat, atol=0.0041)
    np.testing.assert_allclose(ages(heat), expected.age_s, rtol=0.04, atol=0.002)
    start, end = unpack(heat["row_start"]), unpack(heat["row_end"])
    assert (expected.row_start - start < 4096).all()
    assert (expected.row_end - end < 4096).all()
    assert (start % 4096 == 0).all()
    assert (end > start).all()


def test_rows_know_their_mappings() -> None:
    (heat,) = heat_maps(RUN, EVERYTHING, [0])
    start, end, pieces = unpack(heat["row_start"]), unpack(heat["row_end"]), heat["pieces"]
    assert [piece["name"] for piece in pieces] == ["heap", "anonymous", "libc.so.6", "libjemalloc.so.2", "stack"]
    assert [piece["first_row"] for piece in pieces[1:]] == [piece["end_row"] for piece in pieces[:-1]]
    heap = pieces[0]
    inside = (start >= HOT_START) & (end <= HOT_START + HOT_BYTES)
    assert inside[heap["first_row"] : heap["end_row"]].sum() == inside.sum() == 46
    assert (rates(heat)[inside] == 1.0).all()
    names = heat["names"]
    assert [names["texts"][index] for index in unpack(names["name"])] == [piece["name"] for piece in pieces]
    assert unpack(names["end"])[0] - unpack(names["start"])[0] == 96 * 2**20


def test_all_targets_have_the_same_columns() -> None:
    maps = heat_maps(RUN, EVERYTHING, [0, 1, 2])
    assert [heat["target_name"] for heat in maps] == ["redis-server (4242)", "postgres (977)", "python3 (31337)"]
    assert len({(heat["columns"], heat["first_s"], heat["last_s"]) for heat in maps}) == 1
    assert (maps[0]["first_s"], maps[0]["last_s"], maps[0]["columns"]) == (0.0, 30.0, 60)
    # The third came later and left earlier.
    known = np.isfinite(rates(maps[2])).any(axis=0)
    assert np.flatnonzero(known).tolist() == list(range(15, 52))


def size(maps: list[dict[str, Any]]) -> int:
    return len(json.dumps(maps))


def test_what_does_not_pack_is_made_coarser_and_keeps_its_mean() -> None:
    run = noise(400, 300)
    (whole,) = heat_maps(run, EVERYTHING, [0], max_bytes=10**9)
    (small,) = heat_maps(run, EVERYTHING, [0], max_bytes=100_000)
    assert whole["columns"] == 400
    assert 50 <= small["columns"] < 200
    assert size([whole]) > 250_000
    assert size([small]) < 120_000
    assert small["last_s"] == pytest.approx(40.0, abs=small["last_s"] / small["columns"])
    mean: NDArray[np.float64] = rates(small)
    assert np.nanmean(mean) == pytest.approx(np.nanmean(rates(whole)), rel=0.01)
    assert (np.nanmax(mean) - np.nanmin(mean)) < 0.8  # noise that is averaged is less noise


def test_a_target_without_regions_has_no_map() -> None:
    without = replace(RUN, of_targets=(*TARGETS, TargetInfo(5, "ghost")))
    assert [heat["target"] for heat in heat_maps(without, EVERYTHING, [0, 3])] == [0]
    assert heat_maps(without, EVERYTHING, [3]) == []
