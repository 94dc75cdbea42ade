"""Trace text of DAMON: all forms of a line, lines that were lost, several kdamonds; and written again."""

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from memtherm.core.selection import Selection
from memtherm.core.snapshot import TargetInfo
from memtherm.errors import InvalidInput
from memtherm.record.damo_trace import read_damo_trace, write_damo_trace
from record.damo_scene import all_rows, assert_same, run, written

POINTER = 18446623435582458880
FORMS = {
    "perf script": "kdamond.0  4452 [000] {time}: damon:damon_aggregated: {event}",
    "trace-cmd report": "     kdamond.0-129062 [005] ..... {time}: damon_aggregated:     {event}",
    "trace-cmd stream, of old": " kdamond.0-129062 [005] {time}: damon_aggregated:     {event}",
    "tracefs": "       kdamond.0-4452    [000] d..1. {time}: damon_aggregated: {event}",
    "damo": "kdamond.x xxxx xxxx {time}: damon:damon_aggregated: {event}",
}


def lines(time: str, *regions: str, target_id: int = 0, form: str = "perf script", more: int = 0) -> list[str]:
    head = f"target_id={target_id} nr_regions={len(regions) + more}"
    return [FORMS[form].format(time=time, event=f"{head} {one}") for one in regions]


def saved(path: Path, *parts: Sequence[str]) -> Path:
    path.write_text("".join(line + "\n" for part in parts for line in part))
    return path


@pytest.mark.parametrize("form", FORMS)
def test_each_form_of_a_line_is_read(tmp_path: Path, form: str) -> None:
    windows = [lines(f"82877.{i}15633", "4096-8192: 5 3", "8192-12288: 0 9", form=form) for i in (3, 4, 5)]
    header = ["# tracer: nop", "cpus=2", ""]
    history = read_damo_trace(saved(tmp_path / "f", header, *windows))
    rows = all_rows(history)
    assert rows.time_s.tolist() == [82877.315633, 82877.415633, 82877.515633]
    assert rows.window_s.tolist() == pytest.approx([0.1] * 3)  # the first one as long as the others on average
    assert rows.regions.start.tolist() == [4096, 8192] * 3
    assert rows.regions.nr_accesses.tolist() == [5, 0] * 3
    assert rows.regions.age_s.tolist() == pytest.approx([0.3, 0.9] * 3)
    assert history.notes == (
        "it does not say how many looks a window has: access rates are of 20, DAMON's usual number",
        "its times count from the start of the machine, not from 1970",
    )


def test_traces_of_old_kernels_have_pointers_and_no_ages(tmp_path: Path) -> None:
    windows = [lines(f"1.{i}", "4096-8192: 5", target_id=POINTER) for i in (1, 2)]
    history = read_damo_trace(saved(tmp_path / "f", *windows))
    assert history.targets == (TargetInfo(0, f"target {POINTER}"),)
    assert all_rows(history).regions.age_s.tolist() == [0.0, 0.0]
    assert "some or all of its regions have no age: they count as new" in history.doubts


def test_other_events_are_passed_over(tmp_path: Path) -> None:
    probes = "target_id=0 nr_regions=1 4096-8192: 5 3 probe_hits=14"
    apply = "damon:damos_before_apply: ctx_idx=0 scheme_idx=0 target_idx=0 nr_regions=1 1-2: 0 136"
    other = [
        f"kdamond.0 4452 [000] 1.15: {apply}",
        f"kdamond.0 4452 [000] 1.16: damon:damon_region_aggregated: {probes}",
        "sh 1 [000] 1.17: sched:sched_switch: prev=0",
    ]
    history = read_damo_trace(
        saved(tmp_path / "f", lines("1.1", "4096-8192: 5 3"), other, lines("1.2", "4096-8192: 5 3"))
    )
    assert len(all_rows(history)) == 2
    with pytest.raises(InvalidInput, match="no line of the event damon_aggregated"):
        read_damo_trace(saved(tmp_path / "f", other))


def test_a_tuned_sampling_interval_holds_from_its_line_on(tmp_path: Path) -> None:
    """damo reads the line and forgets it with the next one."""
    tune = ["kdamond.0 4452 [000] 2.15: damon:damon_monitor_intervals_tune: sample_us=20000"]
    one = "4096-8192: 5 3"
    history = read_damo_trace(saved(tmp_path / "f", lines("2.0", one), lines("2.1", one), tune, lines("2.5", one)))
    rows = all_rows(history)
    assert rows.samples.tolist() == [20, 20, 20]
    assert rows.sampling_interval_s[2] == pytest.approx(0.02)
    assert rows.regions.age_s[2] == pytest.approx(3 * 0.4)


def test_kdamonds_are_told_apart_that_damo_mixes(tmp_path: Path) -> None:
    both = [lines(f"1.{i}0000{kdamond}", f"{4096 + kdamond}-8192: {kdamond} 3") for i in (1, 2) for kdamond in (0, 1)]
    both = [[line.replace("kdamond.0", f"kdamond.{index % 2}") for line in part] for index, part in enumerate(both)]
    history = read_damo_trace(saved(tmp_path / "f", *both))
    assert [target.name for target in history.targets] == ["kdamond 0 target 0", "kdamond 1 target 0"]
    rows = all_rows(history)
    assert rows.regions.target.tolist() == [0, 1, 0, 1]
    assert rows.regions.nr_accesses.tolist() == [0, 1, 0, 1]
    assert len(rows) == 2


def test_snapshots_that_lack_lines_are_left_out_and_counted(tmp_path: Path) -> None:
    """damo fills them up with the lines that follow, and is out of step from there on."""
    whole = ["4096-8192: 1 1", "8192-12288: 2 2", "12288-16384: 3 3"]
    parts = [
        lines("1.1", *whole),
        lines("1.2", *whole[:2], more=1),
        lines("1.3", *whole[1:], more=1),
        lines("1.4", *whole),
        lines("1.5", *whole[:1], more=2),
    ]
    history = read_damo_trace(saved(tmp_path / "f", *parts))
    assert all_rows(history).time_s.tolist() == [1.1, 1.4]
    assert history.notes[0] == "3 snapshots lack lines, and were left out"


def test_a_last_line_without_an_end_is_not_believed(tmp_path: Path) -> None:
    path = saved(tmp_path / "f", lines("1.1", "4096-8192: 1 17"), lines("1.2", "4096-8192: 1 17"))
    path.write_text(path.read_text()[:-2])
    history = read_damo_trace(path)
    assert all_rows(history).time_s.tolist() == [1.1]


def test_a_single_snapshot_has_the_length_of_the_mark_behind_it(tmp_path: Path) -> None:
    history = read_damo_trace(saved(tmp_path / "f", lines("1.1", "4096-8192: 1 7"), lines("1.4", "0-0: -1 -1")))
    rows = all_rows(history)
    assert (rows.time_s.tolist(), rows.window_s.tolist()) == ([1.1], [pytest.approx(0.3)])
    assert rows.regions.age_s.tolist() == [pytest.approx(2.1)]


def test_pids_and_intervals_come_from_the_file_beside_it(tmp_path: Path) -> None:
    path = saved(tmp_path / "damon.data", *[lines(f"1.{i}", "4096-8192: 7 1") for i in (1, 2)])
    intervals = {"sample_us": "2 ms", "aggr_us": "100 ms", "intervals_goal": {"aggrs": "3"}}
    beside = [{"contexts": [{"targets": [{"pid": 71}], "intervals": intervals}]}]
    (tmp_path / "damon.data.kdamonds").write_text(json.dumps(beside))
    history = read_damo_trace(path)
    assert history.targets == (TargetInfo(71, "target 0"),)
    assert all_rows(history).samples.tolist() == [50, 50]
    assert all_rows(history).regions.access_rate.tolist() == [0.14, 0.14]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "no line of the event"),
        ("hello\n", "no line"),
        ("x 1 [0] 1.2: damon_aggregated: target_id=0\n", "is whole"),
    ],
)
def test_what_is_no_trace_is_refused(tmp_path: Path, text: str, what: str) -> None:
    (tmp_path / "f").write_text(text)
    with pytest.raises(InvalidInput, match=what):
        read_damo_trace(tmp_path / "f")


@pytest.mark.parametrize("windows", [1, 20])
@pytest.mark.parametrize("targets", [1, 3])
def test_what_is_written_is_read_again(tmp_path: Path, windows: int, targets: int) -> None:
    expected = run(windows=windows, targets=targets)
    found = all_rows(read_damo_trace(written(tmp_path / "f", expected, write_damo_trace)))
    rows = all_rows(expected)
    assert_same(found, rows, time_s=2e-6)


def test_the_lines_are_those_of_perf_script(tmp_path: Path) -> None:
    text = written(tmp_path / "f", run(windows=2, targets=2), write_damo_trace).read_text().splitlines()
    fields = text[0].split()
    assert fields[:3] == ["kdamond.0", "0", "[000]"]
    assert fields[3] == "1700000000.100000:"
    assert fields[4:6] == ["damon:damon_aggregated:", "target_id=0"]
    assert [line.split()[5] for line in text][-1] == "target_id=1"


def test_only_what_is_selected_is_written(tmp_path: Path) -> None:
    history = run(windows=5, targets=2)
    selection = Selection(targets=frozenset({1}), since_s=history.time_span_s[0] + 0.25)

    path = written(tmp_path / "f", history, partial(write_damo_trace, selection=selection))
    rows = all_rows(read_damo_trace(path))
    assert (len(rows), len(rows.regions)) == (3, sum(len(one.regions) for one in history.rows(selection)))
    nothing = replace(selection, targets=frozenset({7}))
    with (tmp_path / "g").open("wb") as file, pytest.raises(InvalidInput, match="nothing is selected"):
        write_damo_trace(history, file, selection=nothing)
