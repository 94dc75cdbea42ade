"""damo itself reads what we write, and on its files our figures are its own where it is right."""

import json
import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from memtherm.core.report import Report
from memtherm.record.damo_json import read_damo_json
from memtherm.record.damo_trace import read_damo_trace, write_damo_trace
from memtherm.record.write_damo_json import write_damo_json
from memtherm.views import damo as views
from record.damo_scene import Writer, all_rows, assert_same, run, written
from support.damo import damo, damo_output, without_damon
from support.history import ListHistory
from support.requires import require

WRITERS: dict[str, Writer] = {
    "json_compressed": write_damo_json,
    "json": partial(write_damo_json, compressed=False),
    "perf_script": write_damo_trace,
}
READERS = {"json_compressed": read_damo_json, "json": read_damo_json, "perf_script": read_damo_trace}
STYLES = (
    ("temperature-percentiles", "temperature-sz-hist", views.temperature),
    ("idle-time-percentiles", "recency-sz-hist", views.recency),
)
# A folder with record files of damo, such as those of its own tests, which are not ours to ship.
FILES = os.environ.get("MEMTHERM_DAMO_FILES", "")


@pytest.fixture(autouse=True)
def _damo() -> None:
    require("damo")


def damo_working_sets(path: Path, *words: str) -> list[int]:
    """All that damo prints, in the order of time."""
    text = damo_output("report", "wss", "--input", path, "--raw_number", "--all_wss", "--sortby", "time", *words)
    return [int(line.split()[1]) for line in text.splitlines() if line and not line.startswith("#")]


def damo_percentiles(path: Path, style: str) -> list[tuple[float, float]]:
    """Of all memory of the only snapshot; where there were filters damo prints those of what passed first."""
    text = damo_output("report", "access", "--input", path, "--style", style, "--raw_number")
    lines = re.findall(r"^ *(\d+) +(-?\d+) +\|", text.split("# total")[1], re.MULTILINE)
    return [(float(point), float(value)) for point, value in lines]


def damo_histogram(path: Path, style: str, *words: str) -> list[tuple[float, float, int]]:
    """Of all memory of the only snapshot."""
    text = damo_output("report", "access", "--input", path, "--style", style, "--raw_number", *words)
    lines = re.findall(r"^\[(-?\d+), (-?\d+)\) +(\d+) +\|", text.split("<total size>")[1], re.MULTILINE)
    return [(float(low), float(high), int(size)) for low, high, size in lines]


def damo_pixels(path: Path, grid: views.HeatGrid) -> "np.ndarray[tuple[int, int], np.dtype[np.float64]]":
    since_ns, until_ns = round(grid.since_s * 1e9), round(grid.until_s * 1e9)
    text = damo_output(
        *("report", "heatmap", "--input", path, "--output", "raw", "--resol", str(grid.columns), str(grid.rows)),
        *("--time_range", str(since_ns), str(until_ns), "--address_range", str(grid.start), str(grid.end)),
    )
    return np.array([float(line.split()[2]) for line in text.splitlines()]).reshape(grid.columns, grid.rows)


def test_damo_runs_where_no_damon_is() -> None:
    require("root")
    command = "ls -A /sys/kernel/mm/damon /sys/kernel/tracing 2>/dev/null; touch /sys/kernel/mm/damon/x"
    if not Path("/sys/kernel/mm/damon").exists():
        pytest.skip("no DAMON here that could be hidden")
    done = subprocess.run(without_damon("sh", "-c", command), capture_output=True, text=True, check=False)
    assert [line for line in done.stdout.splitlines() if line and not line.startswith("/")] == []
    assert "Read-only file system" in done.stderr


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("targets", [1, 2])
def test_damo_validates_what_we_write(tmp_path: Path, kind: str, targets: int) -> None:
    path = written(tmp_path / "damon.data", run(windows=25, targets=targets), WRITERS[kind])
    done = damo("validate", "--input", path, "--aggr", "99990", "100010", "--nr_regions", "3", "60")
    assert (done.returncode, done.stdout) == (0, ""), done


def test_damo_refuses_what_is_not_as_it_should_be(tmp_path: Path) -> None:
    """That its judgement means something."""
    path = written(tmp_path / "damon.data", run(windows=25), write_damo_json)
    done = damo("validate", "--input", path, "--aggr", "1", "2")
    assert done.returncode == 1
    assert "aggregate interval" in done.stdout


def test_plain_json_damo_reads_only_where_the_command_file_is_of_its_mind(tmp_path: Path) -> None:
    path = written(tmp_path / "damon.data", run(windows=25), WRITERS["json"])
    by_this_host = damo("validate", "--input", path, calls_json=False)
    assert by_this_host.returncode == (0 if damo_calls_json(path) else 1)


def damo_calls_json(path: Path) -> bool:
    return subprocess.run(["file", "-b", path], capture_output=True, text=True, check=True).stdout == "JSON data\n"


@pytest.mark.parametrize("kind", WRITERS)
def test_working_sets_are_damos(tmp_path: Path, kind: str) -> None:
    history = run(windows=40)
    path = written(tmp_path / "damon.data", history, WRITERS[kind])
    expected = views.working_sets(history).tolist()
    assert len(expected) == 20
    assert damo_working_sets(path) == expected
    assert damo_working_sets(path, "--acc_thres", "7") == views.working_sets(history, min_accesses=7).tolist()
    text = damo_output("report", "wss", "--input", path, "--raw_number", "--range", "0", "101", "10")
    found = {int(line.split()[0]): int(line.split()[1]) for line in text.splitlines() if not line.startswith("#")}
    assert found == {point: views.percentile_of(np.array(expected), point) for point in range(0, 101, 10)}


@pytest.mark.parametrize("kind", WRITERS)
def test_what_damo_writes_again_is_read_as_the_same(tmp_path: Path, kind: str) -> None:
    """damo's own classes make the files that we read here."""
    history = run(windows=12, targets=2)
    first = written(tmp_path / "damon.data", history, write_damo_json)
    second = tmp_path / "again"
    damo_output("convert_record_format", "--record_file", first, "--format", kind, "--output_file", second)
    found = READERS[kind](second)
    assert_same(all_rows(found), all_rows(history), time_s=2e-6)


@pytest.mark.parametrize("tuned", [False, True])
def test_heat_maps_are_damos(tmp_path: Path, tuned: bool) -> None:
    history = run(windows=30, tuned=tuned)
    path = written(tmp_path / "damon.data", history, write_damo_json)
    begin_s, end_s = history.time_span_s
    grid = views.HeatGrid(
        since_s=begin_s, until_s=end_s, start=0x5600_0000_0000, end=0x5600_0100_0000, columns=7, rows=5
    )
    found = damo_pixels(path, grid)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, views.heat_pixels(read_damo_json(path), grid), rtol=2e-3)


@pytest.mark.parametrize(("style", "histogram", "value"), STYLES)
def test_percentiles_and_histograms_are_damos(
    tmp_path: Path, style: str, histogram: str, value: Callable[..., views.Floats]
) -> None:
    history = run(windows=1, seed=3)
    rows = all_rows(history)
    path = written(tmp_path / "damon.data", history, write_damo_json)
    values, sizes = value(rows), rows.regions.size_bytes
    assert damo_percentiles(path, style) == views.percentiles(values, sizes)
    assert damo_histogram(path, histogram) == views.histogram(values, sizes)


def test_bandwidth_is_damos(tmp_path: Path) -> None:
    history = run(windows=1)
    path = written(tmp_path / "damon.data", history, write_damo_json)
    text = damo_output("report", "access", "--input", path, "--raw_number", "--style", "temperature-percentiles")
    (found,) = re.findall(r"memory bw estimate: (\d+)", text)
    assert int(found) == pytest.approx(views.bandwidth_bytes_per_s(all_rows(history))[0], rel=1e-6)


def test_damo_is_wrong_about_rates_below_one_percent_and_ours_are_not_cut(tmp_path: Path) -> None:
    history = run(windows=1)
    (report,) = history.all_reports
    regions = report.snapshot.regions
    rare = replace(regions, nr_accesses=np.ones_like(regions.nr_accesses), access_rate=np.full(len(regions), 1 / 200))
    conditions = replace(report.snapshot.conditions, samples=200, sampling_interval_s=0.0005)
    snapshot = replace(report.snapshot, regions=rare, conditions=conditions)
    path = written(tmp_path / "a", ListHistory(all_reports=[Report(snapshot, ())]), write_damo_json)
    text = damo_output("report", "access", "--input", path, "--json")
    percents = {one["nr_accesses"]["percent"] for one in json.loads(text)[0]["snapshots"][0]["regions"]}
    assert percents == {0.5}  # as we write it; of samples alone damo would make 0
    again = tmp_path / "b"
    damo_output("convert_record_format", "--record_file", path, "--format", "perf_script", "--output_file", again)
    assert set(all_rows(read_damo_json(path)).regions.access_rate.tolist()) == {0.005}


def test_damo_is_out_of_step_after_a_lost_line_and_we_are_not(tmp_path: Path) -> None:
    history = run(windows=24)
    path = written(tmp_path / "damon.data", history, write_damo_trace)
    lines = path.read_text().splitlines(keepends=True)
    lost = next(index for index, line in enumerate(lines) if index and line.split()[3] != lines[index - 1].split()[3])
    path.write_text("".join(lines[:lost] + lines[lost + 1 :]))
    found = read_damo_trace(path)
    assert found.notes[0] == "1 snapshots lack lines, and were left out"
    assert len(all_rows(found)) == 23
    expected = views.working_sets(history).tolist()[1:]
    assert views.working_sets(found).tolist() == expected
    assert damo_working_sets(path)[-len(expected) :] != expected


@pytest.mark.skipif(not FILES, reason="MEMTHERM_DAMO_FILES names no folder with files of damo")
def test_figures_of_damos_own_files_are_its_own() -> None:
    paths = [path for path in sorted(Path(FILES).iterdir()) if path.name.startswith("damon.data")]
    assert paths
    for path in paths:
        history = read_damo_json(path)
        rows = all_rows(history)
        if len(rows) > views.FIRST_SNAPSHOTS_LEFT_OUT:
            assert damo_working_sets(path) == views.working_sets(history).tolist()
            grid = views.HeatGrid(
                since_s=history.time_span_s[0],
                until_s=history.time_span_s[1],
                start=int(rows.regions.start.min()),
                end=int(rows.regions.end.max()),
                columns=9,
                rows=11,
            )
            # Without intervals damo gives samples of a window and not Hz.
            samples = rows.samples[0] * rows.sampling_interval_s[0]
            found, expected = damo_pixels(path, grid), views.heat_pixels(history, grid) * samples
            np.testing.assert_allclose(np.nan_to_num(found), np.nan_to_num(expected), rtol=2e-3, atol=1e-9)
        else:
            for style, histogram, value in STYLES:
                values, sizes = value(rows), rows.regions.size_bytes
                assert damo_percentiles(path, style) == views.percentiles(values, sizes)
                assert damo_histogram(path, histogram) == views.histogram(values, sizes)
                doubling = damo_histogram(path, histogram, "--hist_logscale")
                assert doubling == views.histogram(values, sizes, doubling=True)
