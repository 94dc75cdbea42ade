"""`memtherm convert`: the right format by name and content, nothing half written, and clear words."""

import json
import stat
from pathlib import Path

import pytest

from memtherm.cli import convert_policy, convert_run
from memtherm.record.damo_json import read_damo_json
from memtherm.record.damo_trace import write_damo_trace
from memtherm.record.reader import open_record
from memtherm.record.write_damo_json import write_damo_json
from record.damo_scene import all_rows, assert_same, run, written
from support.command import Result, assert_refused, forked

# What a forked command needs is loaded here, once.
LOADED = (convert_policy, convert_run)
POLICY = 'version = 1\n\n[[scheme]]\nname = "cold"\nage = ">= 2 min"\naction = "stat"\n'


def convert(*words: str | Path) -> Result:
    return forked("convert", *(str(word) for word in words))


def converted(*words: str | Path) -> list[str]:
    """The notes; it must end well and print nothing else."""
    result = convert(*words)
    assert (result.exit_code, result.stdout) == (0, ""), result
    lines = result.stderr.splitlines()
    assert [line for line in lines if not line.startswith("memtherm: note: ")] == []
    return [line.removeprefix("memtherm: note: ") for line in lines]


@pytest.fixture
def damon_data(tmp_path: Path) -> Path:
    return written(tmp_path / "damon.data", run(windows=12, targets=2), write_damo_json)


@pytest.fixture
def record(tmp_path: Path, damon_data: Path) -> Path:
    path = tmp_path / "run.memtherm"
    assert converted(damon_data, path) == []
    return path


def test_a_record_of_damo_becomes_ours_and_goes_back(tmp_path: Path, damon_data: Path, record: Path) -> None:
    expected = all_rows(read_damo_json(damon_data))
    with open_record(record) as opened:
        assert opened.header.command[:2] == ("memtherm", "convert")
        assert_same(all_rows(opened), expected)
    for name in ("back.data", "back.json", "back.txt"):
        notes = converted(record, tmp_path / name)
        assert notes[0].startswith("regions only: mappings, vitals, what schemes did, and events stay in the record")
        converted(tmp_path / name, tmp_path / f"{name}.memtherm")
        with open_record(tmp_path / f"{name}.memtherm") as opened:
            assert_same(all_rows(opened), expected, time_s=2e-6)


def test_content_decides_and_not_the_name(tmp_path: Path) -> None:
    trace = written(tmp_path / "odd.json", run(windows=3), write_damo_trace)
    converted(trace, tmp_path / "a.csv")
    plain = tmp_path / "odd.txt"
    with plain.open("wb") as file:
        write_damo_json(run(windows=3), file, compressed=False)
    converted(plain, tmp_path / "b.csv")
    a, b = ((tmp_path / name).read_text().splitlines() for name in ("a.csv", "b.csv"))
    assert len(a) == len(b) > 3


def test_options_name_formats(tmp_path: Path, record: Path) -> None:
    converted(record, tmp_path / "anything", "--from", "memtherm", "--to", "jsonl")
    first = json.loads((tmp_path / "anything").read_text().splitlines()[0])
    assert first["target"] == "target 0"


def test_filters_are_applied(tmp_path: Path, record: Path) -> None:
    words = (
        "--time",
        "0.25s..0.75s",
        "--rate",
        ">= 50%",
        "--target",
        "target 1",
        "--address",
        "0x560000000000..0x570000000000",
    )
    converted(record, tmp_path / "some.jsonl", *words)
    rows = [json.loads(line) for line in (tmp_path / "some.jsonl").read_text().splitlines()]
    assert {row["target"] for row in rows} == {"target 1"}
    assert min(row["access_rate"] for row in rows) >= 0.5
    assert len({row["time_s"] for row in rows}) == 5
    assert max(row["end"] for row in rows) <= 0x570000000000
    converted(record, tmp_path / "some.memtherm", "--target", "target 1")
    with open_record(tmp_path / "some.memtherm") as opened:
        assert set(all_rows(opened).regions.target.tolist()) == {1}


def test_a_whole_copy_of_a_record_is_the_record(tmp_path: Path, record: Path) -> None:
    converted(record, tmp_path / "copy.memtherm")
    assert (tmp_path / "copy.memtherm").read_bytes() == record.read_bytes()


def test_plain_json_comes_with_a_warning(tmp_path: Path, record: Path) -> None:
    assert any("damo 3.4 reads plain JSON only where" in note for note in converted(record, tmp_path / "a.json"))


def test_policies_go_both_ways(tmp_path: Path) -> None:
    source, middle, back = (tmp_path / name for name in ("policy.toml", "kdamonds.json", "back.toml"))
    source.write_text(POLICY)
    assert "it names no target: give damo one, such as --target_pid" in converted(source, middle)
    assert json.loads(middle.read_text())["kdamonds"][0]["contexts"][0]["schemes"][0]["action"] == "stat"
    assert converted(middle, back) == []
    assert 'age = ">= 2 min"' in back.read_text()
    (tmp_path / "lines").write_text("# cold\n4K max 0% 0% 5s max pageout\n")
    converted(tmp_path / "lines", tmp_path / "lines.toml")
    assert 'action = "pageout"' in (tmp_path / "lines.toml").read_text()


def test_what_a_policy_has_no_place_for_is_noted(tmp_path: Path) -> None:
    source = tmp_path / "kdamonds.json"
    context = {"ops": "vaddr", "targets": [{"pid": 1}], "schemes": [{"action": "stat"}], "pause": False}
    source.write_text(json.dumps({"kdamonds": [{"state": "on", "refresh_ms": 100, "contexts": [context]}]}))
    assert converted(source, tmp_path / "a.toml") == [
        "left out: kdamonds 1: refresh_ms ('100'): memtherm asks for results when it needs them",
        "results are left out: state",
    ]
    context["pause"] = True
    source.write_text(json.dumps({"kdamonds": [{"contexts": [context]}]}))
    result = convert(source, tmp_path / "b.toml")
    assert result.exit_code == 2
    assert "pause: is not supported" in result.stderr


def test_what_damo_cannot_do_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "policy.toml").write_text(POLICY + "max_nr_snapshots = 5\n")
    result = convert(tmp_path / "policy.toml", tmp_path / "kdamonds.json")
    assert result.exit_code == 2
    assert 'scheme "cold": max_nr_snapshots: damo 3.4 reads no such limit from a file' in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["policy.toml"]


def test_a_file_is_not_overwritten_unasked_and_keeps_its_mode(tmp_path: Path, record: Path) -> None:
    target = tmp_path / "a.csv"
    target.write_text("mine")
    target.chmod(0o600)
    assert_refused(convert(record, target), 2, "a.csv exists already", "--overwrite")
    assert target.read_text() == "mine"
    converted(record, target, "--overwrite")
    assert target.read_text().startswith("time_s,")
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


def test_a_link_stays_and_what_it_points_at_is_replaced(tmp_path: Path, record: Path) -> None:
    (tmp_path / "real.csv").write_text("mine")
    (tmp_path / "link.csv").symlink_to(tmp_path / "real.csv")
    converted(record, tmp_path / "link.csv", "--overwrite")
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "real.csv").read_text().startswith("time_s,")


def test_a_file_may_be_converted_in_place(damon_data: Path) -> None:
    before = all_rows(read_damo_json(damon_data))
    converted(damon_data, damon_data, "--overwrite", "--to", "json")
    assert damon_data.read_bytes()[:1] == b"["
    assert_same(all_rows(read_damo_json(damon_data)), before)


def test_the_standard_output_is_written_as_it_is(record: Path) -> None:
    result = convert(record, "/dev/stdout", "--to", "csv")
    assert result.exit_code == 0, result
    assert result.stdout.startswith("time_s,window_s,")


def test_after_a_failure_nothing_is_left(tmp_path: Path, record: Path) -> None:
    names = sorted(path.name for path in tmp_path.iterdir())
    for name in ("a.csv", "a.parquet", "a.data", "a.memtherm", "a.json"):
        result = convert(record, tmp_path / name, "--rate", "100%", "--age", ">= 5d")
        assert_refused(result, 2, "nothing is selected")
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_a_full_disk_is_told_in_a_line(tmp_path: Path, record: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    result = convert(record, "/dev/full", "--to", "csv")
    assert result.exit_code != 0
    assert "No space left on device" in result.stderr
    assert "Traceback" not in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["damon.data", "run.memtherm"]


@pytest.mark.parametrize(
    ("content", "target", "what"),
    [
        (None, "a.csv", "cannot read it: No such file"),
        (b"", "a.csv", "is empty"),
        (b"hello, world", "a.csv", "of no format that memtherm reads"),
        (b"\0\1\2", "a.csv", "of no format that memtherm reads"),
        (b"PERFILE2 and more", "a.csv", "raw data of perf, which memtherm does not read"),
        (b"PAR1...", "a.memtherm", "a table (Parquet), and a table cannot be converted back"),
        (b"xylophone", "a.csv", "of no format that memtherm reads"),
        (b"x\x9c...", "a.csv", "damaged"),
        (b'[{"target_id": 0, "snapshots": [', "a.csv", "cut short"),
        (POLICY.encode(), "a.csv", "is a policy, and csv is a format of a record"),
        (POLICY.encode(), "a.what", "its name does not say which format"),
        (POLICY.encode(), "no/such/folder/a.json", "is no folder"),
        (b'{"kdamonds": [5]}', "a.toml", "kdamonds 1: is no object"),
    ],
)
def test_what_cannot_be_converted_is_refused_in_a_line(
    tmp_path: Path, content: bytes | None, target: str, what: str
) -> None:
    source = tmp_path / "input"
    if content is not None:
        source.write_bytes(content)
    result = convert(source, tmp_path / target)
    assert result.exit_code == 2, result
    assert what in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / target).exists()


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_a_table_cannot_be_converted_back_and_what_can_be_read_is_told(tmp_path: Path, record: Path, name: str) -> None:
    converted(record, tmp_path / name)
    for result in (convert(tmp_path / name, tmp_path / "back.memtherm"), forked("report", "wss", str(tmp_path / name))):
        assert_refused(result, 2, f"{name}: a table (", "cannot be converted back", "json_compressed, json and perf_")
    assert not (tmp_path / "back.memtherm").exists()


def test_filters_and_a_policy_do_not_go_together(tmp_path: Path) -> None:
    (tmp_path / "policy.toml").write_text(POLICY)
    result = convert(tmp_path / "policy.toml", tmp_path / "a.json", "--time", "1s..")
    assert_refused(result, 2, "a policy has no times and no regions to select")
