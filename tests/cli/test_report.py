"""`memtherm report`: text for people and JSON for programs, on a small record that is known."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cli.report_scene import report, report_json, write_record
from memtherm.views.scheme_history import scheme_histories
from support.command import assert_refused
from support.rich_run import DOUBT, HOT_BYTES, HOT_START, MIB, rich_run
from views.scene import mappings_of, run

HISTORY = rich_run(windows=60, regions_per_mapping=12)
REPORTS = ("heatmap", "wss", "distribution", "regions", "mappings", "schemes")


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_record(HISTORY, tmp_path_factory.mktemp("reports") / "run.memtherm")


@pytest.mark.parametrize("kind", REPORTS)
def test_it_says_first_what_it_is_about_and_whether_to_believe_it(kind: str, record: Path) -> None:
    result = report(kind, record)
    assert (result.exit_code, result.stderr) == (0, "")
    head = result.stdout.split("\n\n")[0].replace("\n  ", " ")
    assert "run.memtherm: redis-server (4242), postgres (977), python3 (31337), 30.0 s from" in head
    assert "census by bpf" in head
    assert re.search(rf"do not believe \d+ of \d+ windows: {re.escape(DOUBT)}", head)
    early = report(kind, record, "--time", "..10s")
    assert "10.0 s from" in early.stdout
    assert "can be believed" in early.stdout


@pytest.mark.parametrize("kind", REPORTS)
def test_json_tells_the_same_about_the_record(kind: str, record: Path) -> None:
    about = report_json(kind, record, "--target", "977", "--time", "1s..-1s")["record"]
    assert about["targets"] == [{"index": 1, "pid": 977, "name": "postgres"}]
    assert about["until_s"] - about["since_s"] == pytest.approx(28)
    assert about["methods"] == ["census by bpf"]
    assert about["believable"] is False
    assert about["doubts"][0]["text"] == DOUBT


def test_working_sets(record: Path) -> None:
    found = report_json(
        "wss", record, "--target", "redis-server", "--address", "heap", "--percentiles", "0,100", "--min-rate", "99%"
    )
    (percentiles,) = found["percentiles"]
    assert percentiles["points"] == [0, 100]
    assert percentiles["size_bytes"] == [HOT_BYTES, HOT_BYTES]
    assert len(found["time_s"]) == len(found["series"][0]["size_bytes"]) == 60
    assert found["vitals"]["resident_bytes"][0][0] == 340 * MIB
    text = report("wss", record, "--target", "redis-server", "--address", "heap", "--min-rate", "99%").stdout
    assert re.search(r"100 % +16\.0 MiB +16\.0 MiB +16\.0 MiB +96\.0 MiB", text)
    assert re.search(r"mean 16\.0 MiB; RSS 33\d MiB in the mean", text)


def test_several_targets_are_counted_apart_and_together(record: Path) -> None:
    found = report_json("wss", record, "--percentiles", "100")
    assert [one["target"] for one in found["percentiles"]] == [None, 0, 1, 2]
    text = report("wss", record).stdout
    assert [name for name in ("all targets", "redis-server (4242)\n", "postgres (977)\n") if name not in text] == []


def test_distribution(record: Path) -> None:
    found = report_json("distribution", record, "--target", "redis-server", "--bins", "4", "--percentiles", "100")
    assert found["access_rate"]["edges"] == [0, 0.25, 0.5, 0.75, 1.0]
    assert found["access_rate"]["size_bytes"][3] >= HOT_BYTES
    assert sum(found["access_rate"]["size_bytes"]) == pytest.approx(found["accessed_bytes"])
    assert found["temperature"]["values"] == [pytest.approx(30, abs=1)]
    text = report("distribution", record, "--log").stdout
    for part in ("bandwidth", "if each access that was found touched each byte", "by idle time", "by temperature"):
        assert part in text


def test_regions_sorted_filtered_and_named(record: Path) -> None:
    found = report_json("regions", record, "--rate", ">= 100%", "--age", ">= 20s", "--target", "4242")
    assert [row["name"] for row in found["rows"]] == ["heap"] * len(found["rows"])
    assert (found["rows"][0]["start"], found["rows"][-1]["end"]) == (HOT_START, HOT_START + HOT_BYTES)
    large = report_json("regions", record, "--sort", "size", "--descending", "-n", "2")
    assert [row["size_bytes"] for row in large["rows"]] == sorted(
        (row["size_bytes"] for row in large["rows"]), reverse=True
    )
    assert (len(large["rows"]), large["nr_regions"] > 2) == (2, True)
    assert report_json("regions", record, "--address", "libc.so.6")["total_bytes"] == 2 * MIB
    merged = report("regions", record, "--merged", "--target", "4242")
    assert re.search(r"regions, 356 MiB, means from 0 s to 30\.0 s", merged.stdout)
    assert re.search(r"1[56]\.\d MiB +(?:100|9\d) % .* heap\n", merged.stdout)


def test_mappings(record: Path) -> None:
    found = {(one["target"], one["name"]): one for one in report_json("mappings", record)["mappings"]}
    heap = found[0, "heap"]
    assert (heap["hot_bytes"], heap["size_bytes"]) == (pytest.approx(HOT_BYTES), pytest.approx(96 * MIB))
    assert heap["warm_bytes"] + heap["cold_bytes"] == pytest.approx(80 * MIB)
    buffer = found[1, "buffer.dat"]
    assert buffer["path"].endswith("base/16384/buffer.dat")
    assert buffer["hot_bytes"] == 0
    text = report("mappings", record, "--target", "redis-server", "--limit", "1").stdout
    assert "and 4 more" in text


def test_schemes(record: Path) -> None:
    found = report_json("schemes", record)["schemes"]
    assert [one["name"] for one in found] == ["page out what is cold", "huge pages for what is hot"]
    expected = scheme_histories(HISTORY)[0]
    assert found[0]["applied_bytes"] == expected.applied_bytes.tolist()
    assert found[0]["sum_refused_bytes"] == int(expected.refused_bytes.sum())
    text = report("schemes", record).stdout
    assert re.search(r"refused [\d.]+ MiB: mapped by several processes", text)
    assert re.search(r"in \d+ of 60 windows: watermarks: free memory is above 50 %", text)
    assert "there was no scheme" not in text


def test_difference(record: Path, tmp_path: Path) -> None:
    same = report_json_of_two(record, record)
    assert same["total"]["hotter_bytes"] == same["total"]["colder_bytes"] == 0
    other = write_record(rich_run(windows=60, regions_per_mapping=12, seed=8), tmp_path / "other.memtherm")
    found = report_json_of_two(record, other, "--target", "redis-server")
    assert {one["name"] for one in found["mappings"]} >= {"heap", "libc.so.6", "stack", "anonymous"}
    text = report("diff", record, other).stdout
    assert "became hotter" in text
    assert " ".join(text.split()).count("census by bpf") == 2


def report_json_of_two(*words: str | Path) -> dict[str, Any]:
    result = report("diff", *words, "--json")
    assert result.exit_code == 0, result
    value: dict[str, Any] = json.loads(result.stdout)
    return value


@pytest.mark.parametrize(
    ("words", "texts"),
    [
        (("--target", "nobody"), ("no target is called 'nobody'", "redis-server (4242)")),
        (("--time", "5..9"), ("'5'", "a time needs a unit")),
        (("--time", "10s"), ("no span", "10s..1min")),
        (("--time", "9s..2s"), ("ends before it begins",)),
        (("--time", "3h.."), ("not in the record", "30.0 s long")),
        (("--address", "bogus"), ("neither addresses nor a mapping", "libc.so.6")),
        (("--address", "heap"), ("several targets", "--target")),
        (("--address", "0x20..0x10"), ("ends before it begins",)),
        (("--address", "0x10..0x20"), ("no region is selected", "redis-server (pid 4242)")),
        (("--rate", "5"), ("--rate", "not a percentage")),
        (("--rate", ">5%"), ("--rate", ">= 5%")),
        (("--age", ">= 2"), ("--age", "a time needs a unit")),
        (("--size", ">= 5 parsecs"), ("--size", "unknown size unit")),
        (("--rate", "100%", "--age", ">= 1d"), ("no region is selected", "30.0 s of")),
    ],
)
def test_what_cannot_be_meant_is_one_clear_line(words: tuple[str, ...], texts: tuple[str, ...], record: Path) -> None:
    assert_refused(report("wss", record, *words), 2, *texts)


@pytest.mark.parametrize(
    ("words", "texts"),
    [
        (("wss", "--min-rate", "5"), ("--min-rate '5' is not a percentage", "5%")),
        (("wss", "--min-rate", "500%"), ("--min-rate", "more than 100 %")),
        (("mappings", "--hot", "x"), ("--hot 'x' is not a percentage",)),
        (("diff", "--tolerance", "0.1"), ("--tolerance '0.1' is not a percentage",)),
    ],
)
def test_a_wrong_number_is_told_with_the_name_of_its_option(
    words: tuple[str, ...], texts: tuple[str, ...], record: Path
) -> None:
    assert_refused(report(words[0], *([record] * (words[0] == "diff")), record, *words[1:]), 2, *texts)


@pytest.mark.parametrize("kind", ["heatmap", "wss", "regions", "mappings", "distribution", "schemes", "html"])
def test_no_file_and_a_foreign_one(kind: str, tmp_path: Path) -> None:
    assert_refused(report(kind, tmp_path / "none"), 2, "none: No such file")
    (tmp_path / "foreign").write_text("no record\n" * 99)
    assert_refused(report(kind, tmp_path / "foreign"), 2, "foreign")


def test_a_record_without_schemes_mappings_and_vitals(tmp_path: Path) -> None:
    bare = write_record(run([(0, 0, 4, 20, 0.0)], [(0, 0, 4, 10, 0.5)]), tmp_path / "bare.memtherm")
    assert "there was no scheme" in report("schemes", bare).stdout
    assert "knows no mappings" in report("mappings", bare).stdout
    assert "RSS is not in the record" in report("wss", bare).stdout
    assert "16.0 KiB" in report("heatmap", bare).stdout
    assert_refused(report("wss", bare, "--address", "heap"), 2, "the record knows no mappings")


def test_names_cannot_move_the_cursor(tmp_path: Path) -> None:
    history = run([(0, 0, 4, 20, 0.0)], mappings=(mappings_of(0, (0, 4, "/x/\x1b[31mred\nline")),))
    history = replace(history, of_targets=(replace(history.targets[0], name="\x1b[2Jbad"), history.targets[1]))
    reports = [replace(one, snapshot=replace(one.snapshot, targets=history.of_targets)) for one in history.all_reports]
    path = write_record(replace(history, all_reports=reports), tmp_path / "odd.memtherm")
    for kind in REPORTS:
        result = report(kind, path)
        assert result.exit_code == 0, result
        assert "\x1b" not in result.stdout
