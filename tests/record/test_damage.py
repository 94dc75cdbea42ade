"""Flipped bits are noticed, wherever they are; cuts lose what was cut off, and nothing else."""

import os
import random
import zlib
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from memtherm.core.report import Report
from memtherm.core.selection import Selection
from memtherm.errors import InvalidInput
from memtherm.record.frames import ENVELOPE_BYTES, Kind, pack_frame, unpack_envelope
from memtherm.record.reader import Record, open_record
from support.records import BEGIN_S, full_reports, write_record

WINDOWS = 6


def everything(record: Record) -> Iterator[Any]:
    """All that a record holds, in an order that is the same for each part of it."""
    yield from record.reports()
    yield from record.vitals()
    yield from record.schemes()
    yield from record.events()
    for table in record.mappings():
        yield table.time_s, table.target, table.start.tolist(), table.end.tolist(), table.path, table.permissions


def told(thing: Any) -> str:
    """Comparable though there are arrays in it."""
    return repr(thing)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("damage") / "run.memtherm"
    write_record(path, full_reports(WINDOWS, regions=3), frame_s=0.2, is_full=True)
    return path.read_bytes()


def frames(content: bytes) -> list[tuple[int, int, int]]:
    """Kind, begin and end of each frame, with its data frame."""
    found, at = [], 0
    while at < len(content):
        envelope = unpack_envelope(content[at : at + ENVELOPE_BYTES])
        found.append((envelope.kind, at, at + envelope.whole_bytes))
        at += envelope.whole_bytes
    return found


def test_the_record_has_a_frame_of_each_kind(whole: bytes) -> None:
    assert {kind for kind, _, _ in frames(whole)} == set(Kind)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Two groups of frames with some of each kind, so that all of it is read thousands of times in seconds."""
    path = tmp_path_factory.mktemp("small") / "run.memtherm"
    write_record(path, full_reports(2, regions=3), frame_s=0.1, is_full=True)
    content = path.read_bytes()
    assert {kind for kind, _, _ in frames(content)} == set(Kind)
    return content


def is_noticed(path: Path) -> bool:
    """Whether reading each frame once raises InvalidInput, or whether it is said that something is missing."""
    try:
        with open_record(path) as record:
            for one in (record.rows, record.conditions, record.vitals, record.schemes, record.events, record.mappings):
                deque(one(), maxlen=0)
            return bool(record.problems)
    except InvalidInput as problem:
        return str(path) in problem.message and "\n" not in problem.message


def test_a_flipped_bit_in_any_byte_is_noticed(tmp_path: Path, small: bytes) -> None:
    path = tmp_path / "run.memtherm"
    path.write_bytes(small)
    rng = random.Random(1)
    assert not is_noticed(path)
    with path.open("r+b", buffering=0) as file:
        for place in range(len(small)):
            os.pwrite(file.fileno(), bytes([small[place] ^ 1 << rng.randrange(8)]), place)
            assert is_noticed(path), f"byte {place}"
            os.pwrite(file.fileno(), small[place : place + 1], place)
    assert not is_noticed(path)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory, whole: bytes) -> list[Report]:
    path = tmp_path_factory.mktemp("expected") / "run.memtherm"
    path.write_bytes(whole)
    with open_record(path) as record:
        return list(record.reports())


def test_what_comes_before_damage_is_read_and_right(tmp_path: Path, whole: bytes, expected: list[Report]) -> None:
    path = tmp_path / "run.memtherm"
    rng = random.Random(2)
    ends = [end for kind, _, end in frames(whole) if kind == Kind.SNAPSHOTS]
    for _ in range(100):
        place = rng.randrange(ends[0], len(whole))
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << rng.randrange(8)]) + whole[place + 1 :])
        before = expected[: 2 * sum(end <= place for end in ends)]
        with open_record(path) as record:
            until = Selection(until_s=before[-1].snapshot.time_s)
            assert told(list(record.reports(until))) == told(before)
            assert sum(len(rows) for rows in record.rows(until)) == len(before)


def test_cuts_lose_only_what_was_cut_off(tmp_path: Path, whole: bytes, expected: list[Report]) -> None:
    path = tmp_path / "run.memtherm"
    rng = random.Random(4)
    ends = [end for kind, _, end in frames(whole) if kind == Kind.SNAPSHOTS]
    first, *borders = [end for _, _, end in frames(whole)]
    near = {border + step for border in borders for step in (-57, -56, -1, 0, 1, 55, 56, 57)}
    lengths = near | {rng.randrange(first, len(whole)) for _ in range(200)}
    for length in (one for one in sorted(lengths) if first <= one < len(whole)):
        path.write_bytes(whole[:length])
        with open_record(path) as record:
            assert told(list(record.reports())) == told(expected[: 2 * sum(end <= length for end in ends)])
            for _ in everything(record):
                pass
            closed, *torn = record.problems
            assert "was not closed" in closed
            assert bool(torn) == (length not in {first, *borders})
            assert all("no whole frame" in text for text in torn)


def test_cuts_within_the_header_are_one_clear_error(tmp_path: Path, whole: bytes) -> None:
    path = tmp_path / "run.memtherm"
    for length in range(0, frames(whole)[0][2], 7):
        path.write_bytes(whole[:length])
        with pytest.raises(InvalidInput, match=r"is empty|ends within its header") as caught:
            open_record(path)
        assert caught.value.hint


def test_random_damage_is_never_silent(tmp_path: Path, small: bytes) -> None:
    """Bytes overwritten, removed, inserted, swapped, repeated."""
    path = tmp_path / "run.memtherm"
    rng = random.Random(3)
    for _ in range(6200):
        place, length = rng.randrange(len(small)), rng.randrange(1, 200)
        part = small[place : place + length]
        damaged = {
            0: small[:place] + rng.randbytes(len(part)) + small[place + length :],
            1: small[:place] + small[place + length :],
            2: small[:place] + rng.randbytes(length) + small[place:],
            3: small[: place + length] + part + small[place + length :],
            4: small[:place] + bytes(len(part)) + small[place + length :],
            5: small[:place] + part[::-1] + small[place + length :],
        }[rng.randrange(6)]
        if damaged != small:
            path.write_bytes(damaged)
            assert is_noticed(path)


def test_frames_that_are_missing_or_in_another_order_are_noticed(tmp_path: Path, whole: bytes) -> None:
    path = tmp_path / "run.memtherm"
    parts = [whole[begin:end] for _, begin, end in frames(whole)]
    for index in range(1, len(parts) - 1):
        for changed in (
            parts[:index] + parts[index + 1 :],
            [*parts[: index + 1], *parts[index:]],
            [*parts[:index], parts[index + 1], parts[index], *parts[index + 2 :]],
        ):
            path.write_bytes(b"".join(changed))
            with (
                pytest.raises(InvalidInput, match=r"frame \d+ is missing|frame follows the end"),
                open_record(path) as it,
            ):
                list(everything(it))


def test_the_message_says_where_and_what_can_be_read(tmp_path: Path, whole: bytes) -> None:
    path = tmp_path / "run.memtherm"
    third = [begin for kind, begin, _ in frames(whole) if kind == Kind.SNAPSHOTS][2]
    content = bytearray(whole)
    content[third + ENVELOPE_BYTES] ^= 16
    path.write_bytes(content)
    with open_record(path) as record, pytest.raises(InvalidInput) as caught:
        list(record.rows())
    assert caught.value.message == (
        f"{path} is damaged at byte {third}: the body of a frame has changed; "
        "what was recorded before it, the first 401 ms, can be read"
    )
    assert caught.value.hint == "select a time that ends before it: --time ..0.401s"


def test_zeros_at_the_end_are_a_torn_tail(tmp_path: Path, whole: bytes) -> None:
    """After a loss of power a file may be longer than what was written of it."""
    path = tmp_path / "run.memtherm"
    end = [end for kind, _, end in frames(whole) if kind == Kind.SNAPSHOTS][2]
    path.write_bytes(whole[:end] + bytes(3_000_000))
    with open_record(path) as record:
        assert record.nr_snapshots == 6
        assert [len(rows) for rows in record.rows()] == [6]
        assert "its last 2.86 MiB" in record.problems[1]
    path.write_bytes(whole + bytes(10))
    with open_record(path) as record:
        assert len(list(record.reports())) == WINDOWS
        assert record.problems == (f"its last 10 B, from byte {len(whole)} on, are no whole frame and are left out",)


def test_what_follows_the_end_is_noticed(tmp_path: Path, whole: bytes) -> None:
    """Two records in one file are none."""
    path = tmp_path / "run.memtherm"
    for more in (whole, b"x", whole[:40]):
        path.write_bytes(whole + more)
        with open_record(path) as record, pytest.raises(InvalidInput, match="something follows the end"):
            list(record.rows())


def test_a_frame_of_a_kind_that_is_not_known_is_skipped(tmp_path: Path, whole: bytes) -> None:
    """A later version may write more, in the same format."""
    path = tmp_path / "run.memtherm"
    end = frames(whole)[0][2]
    unknown = bytearray(pack_frame(Kind.EVENTS, 1, b"whatever"))
    unknown[11] = 77
    unknown[ENVELOPE_BYTES - 4 : ENVELOPE_BYTES] = zlib.crc32(unknown[: ENVELOPE_BYTES - 4]).to_bytes(4, "little")
    renumbered = []
    for _, begin, stop in frames(whole)[1:]:
        part = bytearray(whole[begin:stop])
        part[12] += 1
        part[ENVELOPE_BYTES - 4 : ENVELOPE_BYTES] = zlib.crc32(part[: ENVELOPE_BYTES - 4]).to_bytes(4, "little")
        renumbered.append(bytes(part))
    path.write_bytes(b"".join((whole[:end], unknown, *renumbered)))
    with open_record(path) as record:
        assert record.problems == ()
        assert len(list(record.reports())) == WINDOWS


@pytest.mark.parametrize("body", [b"no zstd", b"", b"\x28\xb5\x2f\xfd\0\0"])
def test_bodies_that_another_writer_got_wrong_are_damage(tmp_path: Path, whole: bytes, body: bytes) -> None:
    path = tmp_path / "run.memtherm"
    header = whole[: frames(whole)[0][2]]
    for kind in set(Kind) - {Kind.HEADER, Kind.END}:
        frame = pack_frame(kind, 1, body, times_s=(BEGIN_S, BEGIN_S), counts=(1, 0), data=body)
        path.write_bytes(header + frame)
        with pytest.raises(InvalidInput, match="is damaged at byte"), open_record(path) as record:
            # Texts are asked for by snapshots alone.
            assert not [*everything(record), record._text(0)]
