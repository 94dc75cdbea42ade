"""`memtherm report` and `convert` on records that are damaged, or one of several files: what is read is said."""

import csv
import json
from pathlib import Path

import pytest

from cli.report_scene import report, report_json, write_record
from memtherm.cli import convert_run
from memtherm.record.frames import Kind
from memtherm.record.header import RecordHeader
from memtherm.record.reader import open_record
from memtherm.record.writer import RecordWriter
from support.command import Result, assert_refused, forked
from support.rich_run import rich_run
from views.scene import BEGIN_S
from views.scene import report as window

# What a forked command needs is loaded here, once.
LOADED = (convert_run,)
HISTORY = rich_run(windows=60, regions_per_mapping=12)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_record(HISTORY, tmp_path_factory.mktemp("files") / "run.memtherm")


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 4
    path.write_bytes(content)


def snapshot_frames(path: Path) -> list[tuple[int, int]]:
    with open_record(path) as record:
        found = record._chain.frames[Kind.SNAPSHOTS]
        return [(one.offset, one.offset + one.envelope.whole_bytes) for one in found]


@pytest.fixture(params=["the envelope of a frame has changed", "a data frame has changed"])
def damaged(request: pytest.FixtureRequest, whole: Path, tmp_path: Path) -> tuple[Path, str, int]:
    """A record with a flipped bit in its middle, why it is damaged, and the byte where."""
    path = tmp_path / "damaged.memtherm"
    path.write_bytes(whole.read_bytes())
    begin, end = snapshot_frames(path)[10]
    flip(path, begin + 17 if "envelope" in request.param else end - 10)
    return path, request.param, begin


def said(result: Result) -> str:
    (line,) = result.stderr.splitlines()
    assert line.startswith("memtherm: warning: ")
    return line


@pytest.mark.parametrize("kind", ["heatmap", "wss", "distribution", "regions", "mappings", "schemes"])
def test_all_but_what_is_lost_is_reported_and_that_is_said(kind: str, damaged: tuple[Path, str, int]) -> None:
    path, why, begin = damaged
    result = report(kind, path)
    if kind in ("regions", "schemes") and "data" in why:
        # They need nothing of that frame, and do not read it.
        assert (result.exit_code, result.stderr) == (0, "")
        return
    assert result.exit_code == 1, result
    assert f"its bytes {begin} to " in said(result)
    assert why in said(result)
    assert "lost is a frame of " in said(result)
    assert "30.0 s from" in result.stdout
    plain = json.loads(report(kind, path, "--json").stdout)
    assert [why in problem for problem in plain["record"]["problems"]] == [True]


def test_windows_on_both_sides_of_damage_are_counted(damaged: tuple[Path, str, int], whole: Path) -> None:
    path = damaged[0]
    some = json.loads(report("wss", path, "--json").stdout)
    every = report_json("wss", whole)
    sizes = dict(zip(every["time_s"], every["series"][0]["size_bytes"], strict=True))
    assert 50 <= len(some["time_s"]) < 60
    assert some["time_s"][-1] == every["time_s"][-1]
    assert [sizes[time_s] for time_s in some["time_s"]] == some["series"][0]["size_bytes"]


def test_a_time_on_either_side_is_reported(damaged: tuple[Path, str, int]) -> None:
    for span in ("..2s", "-2s.."):
        result = report("wss", damaged[0], "--time", span)
        assert "2.0 s from" in result.stdout or "2.5 s from" in result.stdout


def test_pages_differences_and_conversions_too(damaged: tuple[Path, str, int], whole: Path, tmp_path: Path) -> None:
    path, why, _ = damaged
    page = report("html", path, "-o", tmp_path / "run.html")
    assert (page.exit_code, why in said(page)) == (1, True)
    assert why in (tmp_path / "run.html").read_text()
    assert why in said(report("diff", path, whole))
    converted = forked("convert", str(path), "/dev/stdout", "--to", "csv")
    assert converted.exit_code == 1
    rows = list(csv.DictReader(converted.stdout.splitlines()))
    with open_record(path, around_damage=True) as record:
        assert len(rows) == record.nr_rows


def test_nothing_is_left_behind_a_damaged_header(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "run.memtherm"
    path.write_bytes(whole.read_bytes()[:1200])
    flip(path, 30)
    assert_refused(report("wss", path), 2, "run.memtherm is no record of memtherm, or damaged from its first bytes on")


def test_damage_of_the_header_costs_only_what_it_said(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "run.memtherm"
    for place in (5, 30, 100):
        path.write_bytes(whole.read_bytes())
        flip(path, place)
        result = report("wss", path, "--json")
        assert result.exit_code == 1
        assert "its bytes 0 to " in said(result)
        assert len(json.loads(result.stdout)["time_s"]) == 60


@pytest.fixture
def rotated(tmp_path: Path) -> Path:
    """Three files of one run, behind one of an earlier run."""
    path = tmp_path / "run.memtherm"
    for count in (2, 3):
        path.unlink(missing_ok=True)
        with RecordWriter(path, RecordHeader(memtherm_version="0", created_s=BEGIN_S), rotate_s=1.0) as writer:
            for index in range(2 * count):
                writer.add(window(index, [(0, 0, 4, 20, 0.0)]))
    return path


def test_other_files_of_a_rotated_record_are_named(rotated: Path) -> None:
    files = sorted(rotated.parent.glob("run-*.memtherm"))
    own = files[-2:]
    result = report("wss", rotated)
    assert result.exit_code == 0
    assert result.stderr == (
        f"memtherm: note: {rotated} is one of 3 files of a rotated record, and the only one that is read; "
        f"name another to read that: {own[0]}, {own[1]}\n"
    )
    assert report_json("wss", rotated)["record"]["other_files"] == [str(one) for one in own]
    first = report_json("wss", own[0])["record"]
    assert first["other_files"] == [str(own[1]), str(rotated)]
