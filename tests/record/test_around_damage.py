"""What is whole behind damage is read, what is lost is said, and nothing is read that was not recorded."""

import random
import subprocess
from collections import deque
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from memtherm.core.report import Report
from memtherm.core.rows import SnapshotRows
from memtherm.errors import InvalidInput
from memtherm.record.frames import ENVELOPE_BYTES, Kind, unpack_envelope
from memtherm.record.reader import Record, open_record
from support.records import full_reports, sampled_reports, write_record

WINDOWS = 12


def frames(content: bytes) -> list[tuple[int, int, int]]:
    """Kind, begin and end of each frame, with its data frame."""
    found, at = [], 0
    while at < len(content):
        envelope = unpack_envelope(content[at : at + ENVELOPE_BYTES])
        found.append((envelope.kind, at, at + envelope.whole_bytes))
        at += envelope.whole_bytes
    return found


def of_kind(content: bytes, kind: Kind) -> list[tuple[int, int]]:
    return [(begin, end) for one, begin, end in frames(content) if one == kind]


def flipped(content: bytes, place: int, *, bit: int = 3) -> bytes:
    return content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("around") / "run.memtherm"


@pytest.fixture(scope="module")
def whole(path: Path) -> bytes:
    """Groups of two windows with some of each kind."""
    write_record(path, full_reports(WINDOWS, regions=3), frame_s=0.2, is_full=True)
    return path.read_bytes()


@pytest.fixture(scope="module")
def expected(path: Path, whole: bytes) -> list[Report]:
    path.write_bytes(whole)
    with open_record(path) as record:
        return list(record.reports())


def opened(path: Path, content: bytes) -> Record:
    path.write_bytes(content)
    return open_record(path, around_damage=True)


def row_tuples(rows: SnapshotRows) -> set[tuple[object, ...]]:
    time_s = np.repeat(rows.time_s, np.diff(rows.first_row)).tolist()
    return set(zip(time_s, *(column.tolist() for column in vars(rows.regions).values()), strict=True))


def rows_in(record: Record) -> set[tuple[object, ...]]:
    return set().union(*(row_tuples(rows) for rows in record.rows()))


def test_a_whole_record_is_read_as_ever(path: Path, whole: bytes, expected: list[Report]) -> None:
    with opened(path, whole) as record:
        assert (record.problems, record.is_damaged) == ((), False)
        assert repr(list(record.reports())) == repr(expected)


def test_the_snapshots_behind_a_flipped_bit_are_read_and_what_is_lost_is_said(
    path: Path, whole: bytes, expected: list[Report]
) -> None:
    begin, end = of_kind(whole, Kind.SNAPSHOTS)[2]
    with opened(path, flipped(whole, end - 20)) as record:
        assert repr(list(record.reports())) == repr(expected[:4] + expected[6:])
        assert record.nr_snapshots == WINDOWS - 2
        assert record.is_damaged
        (problem,) = record.problems
        start_s = record.time_span_s[0]
        assert f"its bytes {begin} to {end} (" in problem
        assert "a data frame has changed; lost is a frame of 2 snapshots, from " in problem
        since, until = (float(word.rstrip("s,")) for word in problem.split() if word.endswith("s") and "." in word)
        assert since == pytest.approx(expected[3].snapshot.time_s - start_s, abs=1e-3)
        after = expected[6].snapshot
        assert until == pytest.approx(after.time_s - after.conditions.window_s - start_s, abs=1e-3)


def test_every_frame_but_the_damaged_one_is_read(path: Path, whole: bytes, expected: list[Report]) -> None:
    """Also of side frames: texts that are lost are said to be, names and schemes of others stay."""
    rows = {report.snapshot.time_s: repr(report.snapshot.regions) for report in expected}
    nr_targets = {report.snapshot.time_s: len(report.snapshot.targets) for report in expected}
    for kind, begin, end in frames(whole):
        for place in (begin + 20, end - 3):
            with opened(path, flipped(whole, place)) as record:
                found = {one.snapshot.time_s: repr(one.snapshot.regions) for one in record.reports()}
                assert found == {time_s: one for time_s, one in rows.items() if time_s in found}
                assert len(found) >= WINDOWS - 2 * (kind == Kind.SNAPSHOTS)
                assert len(record.problems) >= 1
                assert all(nr_targets[one.time_s] == len(one.targets) for one in record)
                if kind == Kind.TEXTS:
                    doubts = [doubt for one in record.conditions() for doubt in one.doubts]
                    assert any("lost by damage" in doubt for doubt in doubts)


def test_mappings_that_may_be_lost_are_unknown_and_not_those_before(path: Path, whole: bytes) -> None:
    path.write_bytes(whole)
    with open_record(path) as record:
        tables = [repr(table) for table in record.mappings()]
    for begin, end in of_kind(whole, Kind.MAPPINGS):
        for place in (begin + 20, end - 3):
            with opened(path, flipped(whole, place)) as record:
                found = list(record.mappings())
                assert [one for one in found if len(one) and repr(one) not in tables] == []
                assert len([one for one in found if len(one)]) == len(tables) - 1


def test_what_a_lost_frame_said_of_targets_is_unknown(path: Path, whole: bytes) -> None:
    first, *_ = of_kind(whole, Kind.TARGETS)
    path.write_bytes(whole)
    with open_record(path) as record:
        nr_targets = len(record.targets)
    with opened(path, flipped(whole, first[1] - 5)) as record:
        assert len(record.targets) == nr_targets
        assert {target.name for target in record.targets} >= {"unknown"}
        assert max(int(rows.regions.target.max()) for rows in record.rows()) < nr_targets


def spoiled(content: bytes, rng: random.Random) -> bytes:
    """Flipped, overwritten, removed, inserted, repeated, swapped or cut somewhere."""
    place, length = rng.randrange(len(content)), rng.randrange(1, 200)
    before, part, rest = content[:place], content[place : place + length], content[place + length :]
    return (
        flipped(content, place, bit=rng.randrange(8)),
        before + rng.randbytes(len(part)) + rest,
        before + rest,
        before + rng.randbytes(length) + part + rest,
        before + part + part + rest,
        before + part[::-1] + rest,
        before,
    )[rng.randrange(7)]


def test_nothing_is_read_that_was_not_recorded(path: Path) -> None:
    write_record(path.with_name("small.memtherm"), full_reports(6, regions=3), frame_s=0.2, is_full=True)
    whole = path.with_name("small.memtherm").read_bytes()
    path.write_bytes(whole)
    with open_record(path) as record:
        known = rows_in(record)
    rng = random.Random(11)
    nr_refused = nr_behind = 0
    for damaged in (spoiled(whole, rng) for _ in range(10_000)):
        if damaged == whole:
            continue
        path.write_bytes(damaged)
        try:
            record = open_record(path, around_damage=True)
        except InvalidInput:
            nr_refused += 1
            continue
        with record:
            assert record.problems
            found = rows_in(record)
            assert found <= known
            nr_behind += record.is_damaged and max(known)[0] == max(found, default=(0.0,))[0]
            for one in (record.conditions, record.vitals, record.schemes, record.events, record.mappings):
                deque(one(), maxlen=0)
    # Only where nothing is left behind the header.
    assert nr_refused < 1_000
    assert nr_behind > 4_000


def test_frames_of_another_record_are_not_taken_for_those_that_are_lost(path: Path, whole: bytes) -> None:
    cut = of_kind(whole, Kind.SNAPSHOTS)[1][1]
    other = path.with_name("other.memtherm")
    write_record(other, sampled_reports(200), frame_s=0.1)
    with opened(path, whole[:cut] + other.read_bytes()) as record:
        assert record.nr_snapshots == 4
        assert "is damaged at byte" in record.problems[-1]


def test_a_record_that_grows_goes_on_behind_damage(path: Path, whole: bytes) -> None:
    ends = [end for _, end in of_kind(whole, Kind.SNAPSHOTS)]
    damaged = flipped(whole, ends[2] - 20)
    with opened(path, damaged[: ends[2]]) as record:
        assert record.nr_snapshots == 4
        path.write_bytes(damaged[: ends[4] - 1])
        record.refresh()
        assert record.nr_snapshots == 6
        path.write_bytes(damaged)
        record.refresh()
        assert (record.nr_snapshots, record.is_complete) == (WINDOWS - 2, True)


@pytest.mark.parametrize("spoil", [lambda content: content, lambda content: content[:-1]])
def test_other_tools_read_a_file_as_before(path: Path, whole: bytes, spoil: Callable[[bytes], bytes]) -> None:
    path.write_bytes(spoil(whole))
    done = subprocess.run(["zstd", "-dc", str(path)], capture_output=True, check=False)
    assert (done.returncode == 0) == (path.read_bytes() == whole)
