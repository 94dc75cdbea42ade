"""Pages of the ring buffer, made by hand: each kind of entry, gaps, and formats that differ."""

import struct

import numpy as np
import pytest

from memtherm.errors import NotSupported
from memtherm.linux.trace_pages import check_entry_header, decode_pages, parse_event_format, parse_page_layout

HEADER_PAGE = """\
	field: u64 timestamp;	offset:0;	size:8;	signed:0;
	field: local_t commit;	offset:8;	size:8;	signed:1;
	field: char overwrite;	offset:8;	size:1;	signed:0;
	field: char data;	offset:16;	size:4080;	signed:0;
"""
HEADER_EVENT = """\
# compressed entry header
	type_len    :    5 bits
	time_delta  :   27 bits
	array       :   32 bits

	padding     : type == 29
"""
FORMAT = """\
name: some_event
ID: 42
format:
	field:unsigned short common_type;	offset:0;	size:2;	signed:0;
	field:int common_pid;	offset:4;	size:4;	signed:1;

	field:unsigned long value;	offset:8;	size:8;	signed:0;
	field:unsigned long list[6];	offset:16;	size:48;	signed:0;
	field:__data_loc char[] name;	offset:64;	size:4;	signed:0;

print fmt: "%lu", REC->value
"""
SHORT_FORMAT = "\n".join(line for line in FORMAT.splitlines() if "list" not in line and "name;" not in line)
PADDING, EXTEND, STAMP = 29, 30, 31
LAYOUT = parse_page_layout(HEADER_PAGE)
EVENT = parse_event_format(SHORT_FORMAT)


def entry(value: int, *, delta: int = 0, kind: int = 42, pid: int = 7) -> bytes:
    payload = struct.pack("<HHiQ", kind, 0, pid, value)
    return struct.pack("<I", len(payload) // 4 | delta << 5) + payload


def large_entry(value: int, *, delta: int, extra_bytes: int = 200) -> bytes:
    payload = struct.pack("<HHiQ", 42, 0, 7, value) + bytes(extra_bytes)
    return struct.pack("<II", delta << 5, len(payload) + 4) + payload


def special(kind: int, delta: int, array: int = 0, rest: bytes = b"") -> bytes:
    return struct.pack("<II", kind | delta << 5, array) + rest


def page(*entries: bytes, time_ns: int = 1000, flags: int = 0, tail: bytes = b"") -> bytes:
    data = b"".join(entries)
    return (struct.pack("<QQ", time_ns, len(data) | flags) + data + tail).ljust(4096, b"\0")


def values(*pages: bytes) -> list[tuple[int, int]]:
    found = decode_pages(pages, LAYOUT, EVENT)
    return list(zip(found.time_ns.tolist(), found.records["value"].tolist(), strict=True))


def test_layout_and_fields_come_from_the_texts() -> None:
    assert (LAYOUT.size_bytes, LAYOUT.commit_offset, LAYOUT.data_offset) == (4096, 8, 16)
    moved = parse_page_layout(HEADER_PAGE.replace("offset:16;	size:4080", "offset:24;	size:65512"))
    assert (moved.size_bytes, moved.data_offset) == (65536, 24)
    event = parse_event_format(FORMAT)
    assert (event.name, event.event_id) == ("some_event", 42)
    # The array is left out, but counts for the size.
    assert event.dtype.names == ("common_type", "common_pid", "value", "name")
    assert event.dtype.itemsize == 68
    assert event.dtype["common_pid"] == np.dtype("<i4")
    check_entry_header(HEADER_EVENT)


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (parse_page_layout, HEADER_PAGE.replace("commit", "committed")),
        (parse_event_format, FORMAT.replace("ID:", "Id:")),
        (check_entry_header, HEADER_EVENT.replace("27 bits", "59 bits")),
    ],
)
def test_what_is_unknown_is_refused(parse: object, text: str) -> None:
    assert callable(parse)
    with pytest.raises(NotSupported):
        parse(text)


def test_times_add_up() -> None:
    assert values(page(entry(1), entry(2, delta=5), entry(3, delta=7))) == [(1000, 1), (1005, 2), (1012, 3)]
    long = (1 << 27) + 3
    extended = page(entry(1), special(EXTEND, long & (1 << 27) - 1, long >> 27), entry(2), entry(3, delta=1))
    assert values(extended) == [(1000, 1), (1000 + long, 2), (1001 + long, 3)]


def test_an_absolute_time_keeps_the_high_bits_of_the_page() -> None:
    high = 1 << 60
    stamp = (1 << 40) + 12345
    found = values(page(special(STAMP, stamp & (1 << 27) - 1, stamp >> 27), entry(1, delta=2), time_ns=high + 9))
    assert found == [(high + stamp + 2, 1)]


def test_entries_of_other_lengths_kinds_and_none() -> None:
    other_kind = entry(9, delta=1, kind=43)
    too_short = struct.pack("<II", 1 | 4 << 5, 0)
    taken_back = special(PADDING, 2, 12, bytes(8))
    found = page(entry(1), other_kind, too_short, taken_back, large_entry(2, delta=3), entry(3, delta=1))
    assert values(found) == [(1000, 1), (1010, 2), (1011, 3)]
    end = page(entry(1), special(PADDING, 0), entry(2))
    assert values(end) == [(1000, 1)]
    assert values(page()) == []
    assert values() == []


def test_gaps_are_where_they_are_told() -> None:
    counted = page(entry(3), time_ns=3000, flags=1 << 31 | 1 << 30, tail=struct.pack("<Q", 17))
    uncounted = page(entry(9, kind=43), entry(4), time_ns=4000, flags=1 << 31)
    empty = page(time_ns=5000, flags=1 << 31)
    found = decode_pages([page(entry(1), entry(9, kind=43)), counted, uncounted, empty], LAYOUT, EVENT)
    assert found.records["value"].tolist() == [1, 3, 4]
    assert found.gaps == ((1, 17), (2, -1), (3, -1))
    # A full page has no room for the number.
    full = page(*[entry(0)] * (4080 // 20), flags=1 << 31 | 1 << 30)
    assert decode_pages([full], LAYOUT, EVENT).gaps == ((0, -1),)


def test_a_page_that_ends_early_does_no_harm() -> None:
    whole = page(*[entry(number, delta=1) for number in range(200)])
    for length in (16, 17, 30, 36, 37, 1000, 4095):
        found = decode_pages([whole[:length]], LAYOUT, EVENT).records["value"].tolist()
        assert found == list(range(len(found)))
        assert len(found) <= (length - 16) // 20
