"""damo's record files, JSON or zlib-compressed JSON (damo 3.4): read as a History, and written from one.

A list with one element for each target, and all snapshots of it inside.  Both ways are streams: of the text only
one snapshot is in memory at a time.
"""

from __future__ import annotations

import codecs
import zlib
from array import array
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from memtherm.errors import InvalidInput
from memtherm.record.damo_history import DamoHistory, DamoTarget, Pieces
from memtherm.record.damo_intervals import DamoIntervals, intervals_of, read_beside
from memtherm.record.damo_values import is_plain, read_number, read_percent, read_time, read_whole
from memtherm.record.json_stream import JsonStream

_CHUNK_BYTES = 1024 * 1024
_ZLIB_FIRST_BYTE = 0x78
_LEFT_OUT = {
    "probe_hits": "what probes found (probe_hits)",
    "sz_filter_passed": "how much passed filters (sz_filter_passed)",
    "damos_stats": "statistics of schemes (damos_stats)",
    "scheme_filters": "filters of the scheme (scheme_filters)",
}


class _Element:
    """One element while it is read: its head may come after its snapshots.

    Attributes:
        tuned: of each snapshot what stands in sample_interval_us, or None.
    """

    def __init__(self) -> None:
        self.head: dict[str, Any] = {}
        self.pieces = Pieces()
        self.tuned: list[object] = []


def read_damo_json(path: str | Path, *, on_read: Callable[[int], object] | None = None) -> DamoHistory:
    """The record in a file of damo's types `json` or `json_compressed`.

    Pids of the targets, and intervals that it does not say itself, come from the file that damo writes beside it,
    `PATH.kdamonds`, if that is there.

    Args:
        on_read: is told now and then how many bytes of the file are read.

    Raises:
        InvalidInput: it cannot be read, is cut short or damaged, or is no record of damo.
    """
    source = str(path)
    notes: list[str] = []
    left_out: set[str] = set()
    beside = read_beside(path)
    pieces: dict[DamoTarget, Pieces] = {}
    try:
        with open(path, "rb") as file:
            stream = JsonStream(_text(file, source, on_read), source=source)
            if stream.next_character() != "[":
                raise stream.problem("no record of damo: that is a list of records")
            for number, _ in enumerate(stream.elements(), start=1):
                element = _read_element(stream, f"{source}: record {number}", left_out)
                _add(pieces, _finished(element, f"{source}: record {number}", beside.intervals), element)
                left_out |= {"scheme_filters"} if element.head.get("scheme_filters") else set()
            stream.end()
    except OSError as refusal:
        raise InvalidInput(f"{source}: cannot read it: {refusal.strerror or refusal}") from refusal
    if left_out:
        notes.append(f"left out: {', '.join(_LEFT_OUT[key] for key in _LEFT_OUT if key in left_out)}")
    if not any(len(one) for one in pieces.values()):
        raise InvalidInput(f"{source}: no snapshot in it", hint="damo writes such a file where it saw nothing")
    try:
        return DamoHistory(pieces, notes=notes, pids=beside.pids)
    except InvalidInput as refusal:
        raise InvalidInput(f"{source}: {refusal.message}", hint=refusal.hint) from refusal


def _text(file: BinaryIO, source: str, on_read: Callable[[int], object] | None) -> Iterator[str]:
    """The text of the file, unpacked."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for data in _bytes(file, source):
            yield decoder.decode(data)
            if on_read:
                on_read(file.tell())
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as refusal:
        raise InvalidInput(f"{source}: not UTF-8 text, so no JSON of damo") from refusal


def _bytes(file: BinaryIO, source: str) -> Iterator[bytes]:
    first = file.read(_CHUNK_BYTES)
    if first[:1] != bytes([_ZLIB_FIRST_BYTE]):
        while first:
            yield first
            first = file.read(_CHUNK_BYTES)
        return
    unpack = zlib.decompressobj()
    try:
        while first:
            yield unpack.decompress(first, _CHUNK_BYTES)
            first = unpack.unconsumed_tail or (b"" if unpack.eof else file.read(_CHUNK_BYTES))
        yield unpack.flush()  # all input may be taken while some output still waits
    except zlib.error as refusal:
        raise InvalidInput(f"{source}: damaged: its compressed text cannot be unpacked ({refusal})") from refusal
    if not unpack.eof:
        raise InvalidInput(
            f"{source}: cut short: its compressed text does not end",
            hint="the file was not written or copied to its end",
        )
    if unpack.unused_data or file.read(1):
        raise InvalidInput(f"{source}: damaged: something follows the end of its compressed text")


def _read_element(stream: JsonStream, place: str, left_out: set[str]) -> _Element:
    element = _Element()
    if stream.next_character() != "{":
        raise stream.unexpected(f"{place.rpartition(': ')[2]} is no object")
    for key in stream.members():
        if key != "snapshots":
            element.head[key] = stream.value()
            continue
        for number, _ in enumerate(stream.elements(), start=1):
            snapshot = stream.value()
            try:
                _add_snapshot(element, snapshot, left_out)
            except InvalidInput as refusal:
                raise InvalidInput(f"{place}: snapshot {number}: {refusal.message}", hint=refusal.hint) from refusal
            except KeyError as refusal:
                raise InvalidInput(f"{place}: snapshot {number}: {refusal.args[0]} is missing") from refusal
            except OverflowError as refusal:
                raise InvalidInput(f"{place}: snapshot {number}: a number is out of its range ({refusal})") from refusal
            except (TypeError, AttributeError, ValueError) as refusal:
                raise InvalidInput(f"{place}: snapshot {number}: not of damo's form ({refusal})") from refusal
    return element


def _add_snapshot(element: _Element, snapshot: Any, left_out: set[str]) -> None:
    pieces, regions = element.pieces, snapshot["regions"]
    pieces.start_ns.append(_nanoseconds(snapshot["start_time"]))
    pieces.end_ns.append(_nanoseconds(snapshot["end_time"]))
    pieces.first_row.append(len(pieces.start))
    pieces.start.extend([_whole(region["start"]) for region in regions])
    pieces.end.extend([_whole(region["end"]) for region in regions])
    accesses = [region.get("nr_accesses") or {} for region in regions]
    samples = [one.get("samples") for one in accesses]
    percents = [one.get("percent") for one in accesses]
    if any(value is None and other is None for value, other in zip(samples, percents, strict=True)):
        raise InvalidInput("a region has no nr_accesses")
    pieces.nr_accesses.extend([-1 if value is None else _whole(value) for value in samples])
    pieces.percent.extend([-1.0 if value is None else read_percent(value) * 100 for value in percents])
    _add_ages(pieces, [region.get("age") or {} for region in regions])
    if snapshot.get("damos_stats") is not None:
        left_out.add("damos_stats")
    if any(region.get("probe_hits") for region in regions):
        left_out.add("probe_hits")
    if any(region.get("sz_filter_passed") not in (None, 0, "0", "0 B") for region in regions):
        left_out.add("sz_filter_passed")
    element.tuned.append(snapshot.get("sample_interval_us"))


def _add_ages(pieces: Pieces, ages: list[Any]) -> None:
    microseconds = [age.get("usec") for age in ages]
    # A snapshot has one of the two in all its regions, or both.
    in_windows = bool(ages) and any(value is None for value in microseconds)
    pieces.has_age_in_windows.append(in_windows)
    if in_windows:
        windows = [age.get("aggr_intervals") for age in ages]
        pieces.age.extend([-1 if value is None else read_number(value) for value in windows])
    else:
        pieces.age.extend([read_time(value, unit_s=1e-6) for value in microseconds])


def _nanoseconds(value: object) -> int:
    """A plain number is of nanoseconds already; as a float of seconds it would lose some."""
    return int(read_number(value)) if is_plain(value) else round(read_time(value, unit_s=1e-9) * 1e9)


def _whole(value: object) -> int:
    if type(value) is str:
        try:
            return int(value.replace(",", ""))
        except ValueError:
            pass
    return value if type(value) is int else read_whole(value)


def _finished(element: _Element, place: str, beside: DamoIntervals) -> DamoTarget:
    """Fill in what hangs on the head, which may stand behind the snapshots."""
    head, pieces = element.head, element.pieces
    try:
        target = _target(head)
        if head.get("intervals") is not None:
            intervals = intervals_of(head["intervals"])
        else:
            intervals = beside if (target.kdamond, target.context) == (0, 0) else DamoIntervals()
        for tuned, start_ns, end_ns in zip(element.tuned, pieces.start_ns, pieces.end_ns, strict=True):
            pieces.aggregation_s.append(intervals.aggregation_of((end_ns - start_ns) / 1e9, tuned))
            pieces.looks.append(intervals.looks)
    except InvalidInput as refusal:
        raise InvalidInput(f"{place}: {refusal.message}", hint=refusal.hint) from refusal
    except KeyError as refusal:
        raise InvalidInput(f"{place}: {refusal.args[0]} is missing") from refusal
    except (TypeError, AttributeError) as refusal:
        raise InvalidInput(f"{place}: not of damo's form ({refusal})") from refusal
    return target


def _target(head: Mapping[str, Any]) -> DamoTarget:
    scheme, target_id = head.get("scheme_idx"), head["target_id"]
    return DamoTarget(
        kdamond=read_whole(head.get("kdamond_idx") or 0),
        context=read_whole(head.get("context_idx") or 0),
        scheme=None if scheme is None else read_whole(scheme),
        target_id=None if target_id is None else read_whole(target_id),
    )


def _add(pieces: dict[DamoTarget, Pieces], target: DamoTarget, element: _Element) -> None:
    """Elements of one target are one after the other in time: damo starts a new one now and then."""
    known = pieces.setdefault(target, element.pieces)
    if known is element.pieces:
        return
    rows_before = len(known.start)
    element.pieces.first_row = array("q", [first + rows_before for first in element.pieces.first_row])
    for name in vars(known):
        getattr(known, name).extend(getattr(element.pieces, name))
