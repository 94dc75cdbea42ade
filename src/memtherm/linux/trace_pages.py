"""Pages of the kernel's trace ring buffer, as trace_pipe_raw gives them, as columns; pure.

Where things are is read from tracefs itself: events/header_page for the page, an event's `format` file for its
fields; events/header_event describes the entry header that is decoded here.  Little-endian machines.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from memtherm.errors import NotSupported

# Kinds of an entry (events/header_event): up to 28 the length of its data in words, 0 a length of its own.
_MAX_DATA_KIND = 28
_PADDING = 29
_TIME_EXTEND = 30
_TIME_STAMP = 31
_KIND_BITS = 5
_DELTA_BITS = 27
_KIND_MASK = (1 << _KIND_BITS) - 1
# An absolute time stamp has 59 bits; what is above them is that of the page.
_STAMP_MASK = (1 << 59) - 1
# In a page's `commit` field, above the size: events were lost before it; their number stands behind the data.
_IS_MISSED = 1 << 31
_IS_MISSED_COUNTED = 1 << 30
_SIZE_MASK = _IS_MISSED_COUNTED - 1

_FIELD = re.compile(
    r"field:\s*(?P<declared>[^;]+);\s*offset:(?P<offset>\d+);\s*size:(?P<size>\d+);\s*signed:(?P<sign>\d)"
)
_ENTRY_HEADER = (("type_len", _KIND_BITS), ("time_delta", _DELTA_BITS), ("array", 32))


@dataclass(frozen=True)
class PageLayout:
    """Where things are in a page of the ring buffer, in bytes."""

    size_bytes: int
    time_offset: int
    commit_offset: int
    data_offset: int


@dataclass(frozen=True)
class EventFormat:
    """An event of the kernel.

    Attributes:
        name, event_id: as in its `format` file.
        dtype: its record as a structured numpy type; arrays are left out, a `__data_loc` field is its raw word.
    """

    name: str
    event_id: int
    dtype: np.dtype[np.void]


@dataclass(frozen=True)
class PageEvents:
    """The events of some pages of one processor.

    Attributes:
        time_ns: by the clock of the buffer (int64).
        records: structured, of EventFormat.dtype; a copy.
        gaps: where events were lost: the index of the first event after the gap, which is len(time_ns) where none
            has followed yet, and how many were lost, -1 where the page does not say.
    """

    time_ns: NDArray[np.int64]
    records: NDArray[np.void]
    gaps: tuple[tuple[int, int], ...] = ()


def parse_page_layout(header_page: str) -> PageLayout:
    """The layout in the text of events/header_page.  Raises NotSupported."""
    fields = {match["declared"].split()[-1]: match for match in _FIELD.finditer(header_page)}
    try:
        data = fields["data"]
        return PageLayout(
            size_bytes=int(data["offset"]) + int(data["size"]),
            time_offset=int(fields["timestamp"]["offset"]),
            commit_offset=int(fields["commit"]["offset"]),
            data_offset=int(data["offset"]),
        )
    except KeyError as error:
        raise NotSupported(f"events/header_page of tracefs has no field {error}") from error


def check_entry_header(header_event: str) -> None:
    """Raises NotSupported unless events/header_event tells of the entry header that `decode_page` knows."""
    for name, bits in _ENTRY_HEADER:
        if not re.search(rf"\b{name}\s*:\s*{bits} bits", header_event):
            raise NotSupported(f"entries of this kernel's trace buffer are unknown to memtherm ({name})")


def parse_event_format(text: str) -> EventFormat:
    """An event by the text of its `format` file.  Raises NotSupported."""
    name = re.search(r"^name:\s*(\S+)", text, re.MULTILINE)
    number = re.search(r"^ID:\s*(\d+)", text, re.MULTILINE)
    if name is None or number is None:
        raise NotSupported("the format file of a trace event has no name or no ID")
    names, kinds, offsets, end = [], [], [], 0
    for match in _FIELD.finditer(text):
        field, size, offset = match["declared"].split()[-1], int(match["size"]), int(match["offset"])
        is_array = "[" in field or ("[" in match["declared"] and "__data_loc" not in match["declared"])
        end = max(end, offset + size)
        if is_array or size not in (1, 2, 4, 8):
            continue
        names.append(field)
        kinds.append(f"<{'i' if match['sign'] == '1' else 'u'}{size}")
        offsets.append(offset)
    dtype = np.dtype({"names": names, "formats": kinds, "offsets": offsets, "itemsize": end})
    return EventFormat(name=name[1], event_id=int(number[1]), dtype=dtype)


def decode_pages(pages: Sequence[bytes], layout: PageLayout, event: EventFormat) -> PageEvents:
    """The events of one kind in pages of one processor's trace_pipe_raw, in the order read; others are skipped."""
    runs: list[_Run] = []
    gaps, count = [], 0
    for page in pages:
        commit = int.from_bytes(page[layout.commit_offset : layout.commit_offset + 8], "little")
        if commit & _IS_MISSED:
            gaps.append((count, _lost_count(page, commit, layout)))
        found = _runs(page, min(commit & _SIZE_MASK, len(page) - layout.data_offset), layout, event)
        runs += found
        count += sum(len(run.time_ns) for run in found)
    if not runs:
        return PageEvents(np.empty(0, np.int64), np.empty(0, event.dtype), tuple(gaps))
    times = np.concatenate([run.time_ns for run in runs])
    records = np.concatenate([run.records for run in runs])
    is_ours = records["common_type"] == event.event_id
    if not is_ours.all():
        gaps = [(int(is_ours[:index].sum()), lost) for index, lost in gaps]
        times, records = times[is_ours], records[is_ours]
    return PageEvents(times, records, tuple(gaps))


class _Run(NamedTuple):
    """Events of one length in a row, in place."""

    time_ns: NDArray[np.int64]
    records: NDArray[np.void]


def _runs(page: bytes, size_bytes: int, layout: PageLayout, event: EventFormat) -> list[_Run]:
    """What is long enough to be an event of this kind, in the first `size_bytes` of a page's data."""
    time_ns = int.from_bytes(page[layout.time_offset : layout.time_offset + 8], "little")
    words = np.frombuffer(page, np.uint32, count=size_bytes // 4, offset=layout.data_offset)
    runs: list[_Run] = []
    position = 0
    while position < len(words):
        header = int(words[position])
        kind, delta = header & _KIND_MASK, header >> _KIND_BITS
        follows = int(words[position + 1]) if position + 1 < len(words) else 0
        length = 2  # words
        if 0 < kind <= _MAX_DATA_KIND:
            # Events of one kind have one length, so that as many as follow in a row are taken at once.
            length = kind + 1
            headers = words[position : position + (len(words) - position) // length * length : length]
            if not len(headers):
                break
            is_same = (headers & _KIND_MASK) == kind
            count = len(headers) if is_same.all() else int(is_same.argmin())
            times = np.cumsum(headers[:count] >> _KIND_BITS, dtype=np.int64)
            times += time_ns
            time_ns = int(times[-1])
            at = layout.data_offset + 4 * (position + 1)
            if event.dtype.itemsize <= 4 * kind:
                runs.append(_Run(times, np.ndarray((count,), event.dtype, page, at, (4 * length,))))
            length *= count
        elif kind == 0:
            time_ns += delta
            length = 1 + max(follows // 4, 1)
            at = layout.data_offset + 4 * (position + 2)
            if event.dtype.itemsize <= follows - 4 and position + length <= len(words):
                runs.append(_Run(np.array([time_ns]), np.ndarray((1,), event.dtype, page, at)))
        elif kind == _TIME_EXTEND:
            time_ns += delta + (follows << _DELTA_BITS)
        elif kind == _TIME_STAMP:
            time_ns = (time_ns & ~_STAMP_MASK) | (delta + (follows << _DELTA_BITS))
        elif delta == 0:  # padding to the end of the page
            break
        else:  # an event that was taken back
            time_ns += delta
            length = 1 + max(follows // 4, 1)
        position += length
    return runs


def _lost_count(page: bytes, commit: int, layout: PageLayout) -> int:
    at = layout.data_offset + (commit & _SIZE_MASK)
    if not commit & _IS_MISSED_COUNTED or at + 8 > len(page):
        return -1
    return int.from_bytes(page[at : at + 8], "little")
