"""Files that are no records, or of a later format: one clear line each."""

import gzip
import json
import shlex
import subprocess
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from memtherm.errors import InvalidInput, NotSupported
from memtherm.record import frames
from memtherm.record.damo_trace import write_damo_trace
from memtherm.record.frames import ENVELOPE_BYTES, SIDE_OPTIONS, compress
from memtherm.record.reader import open_record
from memtherm.record.write_damo_json import write_damo_json
from record.damo_scene import run, written
from support.command import forked
from support.records import sampled_reports, write_record

pyarrow = pytest.importorskip("pyarrow")


def refused(path: Path) -> str:
    with pytest.raises(InvalidInput) as caught:
        open_record(path)
    assert str(path) in caught.value.message
    assert caught.value.hint
    assert "\n" not in caught.value.message
    return caught.value.message.removeprefix(f"{path} ")


def arrow_stream() -> bytes:
    table = pyarrow.table({"a": [1, 2, 3]})
    sink = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b'{"a": 1}' * 20, "is JSON, and no record"),
        (json.dumps([1] * 60).encode(), "is JSON, and no record"),
        (compress([memoryview(b"x" * 99)], SIDE_OPTIONS), "is a zstd file of something else"),
        (gzip.compress(b"x" * 99), "is a gzip file"),
        (zlib.compress(bytes(range(200))), "is no record of memtherm, or damaged from its first bytes on"),
        (arrow_stream(), "is an Arrow stream"),
        (b"ARROW1\0\0" * 20, "is an Arrow file"),
        (b"PAR1" * 20, "a table (Parquet), and a table cannot be converted back"),
        (b"\x17\x08\x44tracing" * 20, "raw data of trace-cmd, which memtherm does not read"),
        (b"hello", "is no record of memtherm"),
        (bytes(500), "is no record of memtherm"),
        (b"\x5d\x2a\x4d\x18\4\0\0\0\0\0\0\0" * 20, "is no record of memtherm"),
    ],
)
def test_a_foreign_file_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    assert message in refused(path)


@pytest.mark.parametrize(
    ("name", "write", "what"),
    [
        ("damon.data", write_damo_json, "is a record of damo (json_compressed)"),
        ("my damon.json", partial(write_damo_json, compressed=False), "is a record of damo (json)"),
        ("trace", write_damo_trace, "is a trace of DAMON as text (perf_script)"),
    ],
)
def test_files_of_damo_are_told_with_the_command_that_converts_them(
    tmp_path: Path, name: str, write: Callable[..., None], what: str
) -> None:
    path = written(tmp_path / name, run(windows=3), write)
    with pytest.raises(InvalidInput) as caught:
        open_record(path)
    assert caught.value.message == f"{path} {what}, and no record of memtherm"
    before, command = caught.value.hint.split(": memtherm ")
    assert before == "convert it first"
    assert forked(*shlex.split(command)).exit_code == 0
    with open_record(path.with_suffix(".memtherm")) as record:
        assert record.nr_snapshots == 3


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="No such file or directory"):
        open_record(tmp_path / "missing")
    with pytest.raises(InvalidInput, match="is no file"):
        open_record(tmp_path)


def test_a_later_format_says_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.memtherm"
    monkeypatch.setattr(frames, "FORMAT", 2)
    write_record(path, sampled_reports(3))
    monkeypatch.undo()
    assert "this record needs a newer memtherm: it has format 2, and this one reads up to 1" in refused(path)
    # Its checksums may be others than ours.
    content = bytearray(path.read_bytes())
    content[ENVELOPE_BYTES - 4 : ENVELOPE_BYTES] = b"abcd"
    path.write_bytes(content)
    assert "needs a newer memtherm" in refused(path)


def test_a_changed_number_of_the_format_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "run.memtherm"
    write_record(path, sampled_reports(3))
    content = bytearray(path.read_bytes())
    content[10] = 2
    path.write_bytes(content)
    assert "damaged" in refused(path)


def test_other_tools_read_the_rows(tmp_path: Path) -> None:
    """`zstd -dc` gives a plain Arrow stream: of a closed record, of a growing one, and up to where one was cut."""
    path = tmp_path / "run.memtherm"
    reports = sampled_reports(50)
    write_record(path, reports, frame_s=0.5)
    whole = path.read_bytes()
    with open_record(path) as record:
        frame = record._chain.frames[frames.Kind.SNAPSHOTS][5]
        cut = frame.offset + frame.envelope.whole_bytes
    for content, rows in ((whole, 1000), (whole[:cut], 600)):
        path.write_bytes(content)
        done = subprocess.run(["zstd", "-dc", str(path)], capture_output=True, check=True)
        table = pyarrow.ipc.open_stream(done.stdout).read_all()
        assert table.num_rows == rows
        first = reports[0].snapshot.regions
        assert table["start"].to_pylist()[:20] == first.start.tolist()
        assert table["end"].to_pylist()[:20] == first.end.tolist()
        assert table["nr_accesses"].to_pylist()[:20] == first.nr_accesses.tolist()
        assert table["access_rate"].to_pylist()[:20] == pytest.approx(first.access_rate.tolist())
        assert table["age_s"].to_pylist()[:20] == pytest.approx(first.age_s.tolist())
        assert table["time"][0].as_py().timestamp() == pytest.approx(reports[0].snapshot.time_s)
        assert table["rate_error"].null_count == rows


def test_a_table_of_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.memtherm"
    reports = sampled_reports(50)
    write_record(path, reports, frame_s=0.5)
    with open_record(path) as record:
        table = record.to_arrow()
        assert table.num_rows == 1000
        last = reports[-1].snapshot
        assert table["start"].to_pylist()[-20:] == last.regions.start.tolist()
        assert table["rate_error"].to_pylist()[-20:] == last.regions.rate_error.tolist()
        assert table["access_rate"].to_pylist()[-20:] == last.regions.access_rate.tolist()
        assert set(table["pid"].to_pylist()) == {1234}
        assert set(table["name"].to_pylist()) == {"server"}
        assert set(table["samples"].to_pylist()) == {20}
        monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
        with pytest.raises(NotSupported, match="pyarrow") as caught:
            record.to_arrow()
        assert "memtherm[arrow]" in caught.value.hint
