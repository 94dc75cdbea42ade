"""One writer, many readers; files that are in the way; rotation; no room."""

import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from memtherm.core.selection import Selection
from memtherm.errors import HostCannot, InvalidInput, NotPermitted
from memtherm.record.reader import open_record
from memtherm.record.writer import RecordWriter
from support.privileges import run_as_nobody
from support.records import BEGIN_S, HEADER, assert_same, mapping_table, sampled_reports, write_record
from support.requires import require


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.memtherm"


def test_a_second_writer_is_refused(path: Path) -> None:
    with RecordWriter(path, HEADER) as writer:
        for overwrite in (False, True):
            with pytest.raises(InvalidInput, match="is being written by another memtherm"):
                RecordWriter(path, HEADER, overwrite=overwrite)
        for report in sampled_reports(3):
            writer.add(report)
    with open_record(path) as record:
        assert record.nr_snapshots == 3


def test_a_file_that_is_there_stays_unless_told(path: Path) -> None:
    write_record(path, sampled_reports(3))
    with pytest.raises(InvalidInput, match="exists already") as caught:
        RecordWriter(path, HEADER)
    assert caught.value.hint
    RecordWriter(path, HEADER, overwrite=True).close()
    with open_record(path) as record:
        assert record.nr_snapshots == 0


@pytest.mark.parametrize("content", [b"{}", b"my thesis, the only copy of it, and longer than an envelope is" * 3])
def test_what_is_no_record_is_never_overwritten(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match="is not a record of memtherm"):
        RecordWriter(path, HEADER, overwrite=True)
    assert path.read_bytes() == content


def test_places_where_no_file_can_be(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="No such file or directory"):
        RecordWriter(tmp_path / "missing" / "run.memtherm", HEADER)
    with pytest.raises(InvalidInput, match="exists already"):
        RecordWriter(tmp_path, HEADER)
    with pytest.raises(InvalidInput, match="is not a record"):
        RecordWriter(tmp_path, HEADER, overwrite=True)


@pytest.mark.parametrize("limits", [{"frame_s": 0.0}, {"rotate_bytes": -1}, {"rotate_s": float("nan")}, {"keep": -1}])
def test_limits_that_cannot_be_meant(path: Path, limits: dict[str, float]) -> None:
    with pytest.raises(InvalidInput, match=next(iter(limits))):
        RecordWriter(path, HEADER, **limits)  # type: ignore[arg-type]
    assert not path.exists()


def test_readers_follow_a_record_that_grows(path: Path) -> None:
    reports = sampled_reports(60)
    seen = 0
    writer = RecordWriter(path, HEADER, frame_s=0.5)
    with open_record(path, follow=True) as first, open_record(path) as second:
        last_s = 0.0
        for report in reports:
            writer.add(report)
            assert first.is_growing
            if first.refresh():
                for mine in first.reports(Selection(since_s=last_s + 0.001)):
                    assert_same(mine, reports[seen])
                    last_s = mine.snapshot.time_s
                    seen += 1
        assert seen >= 50
        assert first.problems == second.problems == ()
        writer.close()
        assert first.refresh()
        assert (first.is_growing, first.is_complete) == (False, True)
        assert not first.refresh()
        assert first.nr_snapshots == 60
        # It goes as far as the record went when it was opened.
        assert second.nr_snapshots == 0


def test_few_rows_wait_for_more_but_for_a_tenth_of_the_run_at_most(path: Path) -> None:
    with RecordWriter(path, HEADER) as writer, open_record(path) as record:
        for index, report in enumerate(sampled_reports(1500, regions=2), start=1):
            writer.add(report)
            if index % 50 == 0:
                record.refresh()
                missing = index - record.nr_snapshots
                assert missing <= max(11, 0.1 * index + 1)
                assert missing <= 101
    with open_record(path) as record:
        assert len(record._chain.frames[8]) < 50


@contextmanager
def largest_file(size_bytes: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_where_there_is_no_more_room_the_record_stays_whole(path: Path) -> None:
    reports = sampled_reports(100, regions=100)
    written = 0

    def write_all() -> None:
        nonlocal written
        for report in reports[written:]:
            writer.add(report)
            writer.flush()
            written += 1

    with largest_file(20_000):
        writer = RecordWriter(path, HEADER, frame_s=0.1)
        with pytest.raises(HostCannot, match="cannot be written: File too large") as caught:
            write_all()
        assert "is whole" in caught.value.hint
        with pytest.raises(HostCannot, match="cannot be written any more"):
            write_all()
        writer.close()
    with open_record(path) as record:
        assert record.nr_snapshots == written > 3
        assert len(record.problems) == 1
        for mine, theirs in zip(record.reports(), reports, strict=False):
            assert_same(mine, theirs)


def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    require("root")
    with pytest.raises(NotPermitted):
        run_as_nobody(lambda: RecordWriter(Path("/run.memtherm"), HEADER).close())
    tmp_path.chmod(0o700)
    with pytest.raises(NotPermitted):
        run_as_nobody(lambda: open_record(tmp_path / "run.memtherm").close())


def parts_of(path: Path) -> list[Path]:
    return [*sorted(path.parent.glob("run-*.memtherm")), path]


@pytest.mark.parametrize("limits", [{"rotate_s": 2.0}, {"rotate_bytes": 8000}])
def test_parts_are_whole_by_themselves_and_lose_nothing(path: Path, limits: dict[str, int]) -> None:
    reports = sampled_reports(100)
    with RecordWriter(path, HEADER, frame_s=0.5, **limits) as writer:  # type: ignore[arg-type]
        writer.add_mappings(mapping_table(BEGIN_S))
        for report in reports:
            writer.add(report)
    parts = parts_of(path)
    assert 4 <= len(parts) <= 8
    found = []
    for number, name in enumerate(parts, start=1):
        with open_record(name) as record:
            assert (record.header.part, record.header.command) == (number, HEADER.command)
            assert record.is_complete
            assert record.is_continued == (name != path)
            assert [table.time_s for table in record.mappings()] == [BEGIN_S]
            assert record.targets == reports[0].snapshot.targets
            found += list(record.reports())
    for mine, theirs in zip(found, reports, strict=True):
        assert_same(mine, theirs)


def test_only_so_many_parts_are_kept(path: Path) -> None:
    (path.parent / "run-0041.memtherm").write_text("of an earlier run: it stays")
    with RecordWriter(path, HEADER, frame_s=0.5, rotate_s=1.0, keep=2) as writer:
        for report in sampled_reports(75):
            writer.add(report)
    names = [one.name for one in parts_of(path)]
    assert names == ["run-0041.memtherm", "run-0047.memtherm", "run-0048.memtherm", "run.memtherm"]


def test_a_closed_record_takes_and_gives_nothing(path: Path) -> None:
    reports = sampled_reports(2)
    writer = RecordWriter(path, HEADER)
    writer.add(reports[0])
    writer.close()
    writer.close()
    with pytest.raises(InvalidInput, match="the record is closed"):
        writer.add(reports[1])
    record = open_record(path)
    record.close()
    record.close()
    with pytest.raises(InvalidInput, match="cannot be read"):
        list(record.rows())
