"""A History as a record file of damo 3.4, JSON or zlib-compressed JSON."""

from __future__ import annotations

import json
import tempfile
import zlib
from collections.abc import Callable
from typing import IO, BinaryIO

import numpy as np

from memtherm.core.history import History
from memtherm.core.selection import EVERYTHING, Selection
from memtherm.record.damo_pieces import Piece, pieces_of
from memtherm.record.nothing import nothing_selected

_ELEMENT = (
    '{"kdamond_idx": null, "context_idx": null, "scheme_idx": null, "target_id": %d, "scheme_filters": [],\n'
    '"snapshots": [\n'
)
_SNAPSHOT = (
    '%s{"start_time": "%d", "end_time": "%d", "total_bytes": "%d", "sample_interval_us": "%s us", "regions": [\n'
)
_REGION = (
    '{"start": "%d", "end": "%d", "nr_accesses": {"samples": %d, "percent": %s}, '
    '"age": {"usec": "%d", "aggr_intervals": "%d"}, "probe_hits": [], "sz_filter_passed": "0"}'
)
# What memtherm tunes by, which is DAMON's recommendation; damo looks at the intervals of a single snapshot only
# where a goal is set.
_GOAL = {"access_bp": "400", "aggrs": "3", "min_sample_us": "5000", "max_sample_us": "10000000"}
_NO_GOAL = {"access_bp": "0", "aggrs": "0", "min_sample_us": "0", "max_sample_us": "0"}
_DIFFERENT = 0.01
_FILES_AT_ONCE = 64
_IN_MEMORY_BYTES = 1024 * 1024


class _Compressed:
    """Text packed by zlib on its way into a file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._pack = zlib.compressobj()

    def write(self, data: bytes) -> None:
        self._file.write(self._pack.compress(data))

    def close(self) -> None:
        self._file.write(self._pack.flush())


class _Element:
    """The text of one target's snapshots.  Its intervals follow behind: only then is known whether they changed."""

    def __init__(self, target: int, write: Callable[[bytes], object]) -> None:
        self._write = write
        self._first: Piece | None = None
        self._last_end_ns = 0
        self._is_tuned = False
        write((_ELEMENT % target).encode())

    def add(self, piece: Piece) -> None:
        first = self._first = self._first or piece
        self._is_tuned |= abs(piece.aggregation_s / first.aggregation_s - 1) > _DIFFERENT
        start_ns = piece.start_ns
        if self._last_end_ns > start_ns:
            start_ns = min(self._last_end_ns, piece.end_ns)
        # damo keeps the number of looks of all windows equal, and takes it from the intervals of the record.
        sampling = _plain_number(piece.aggregation_s / first.samples * 1e6)
        total_bytes = int(piece.regions.size_bytes.sum())
        begin = "" if piece is first else ",\n"
        text = [_SNAPSHOT % (begin, start_ns, piece.end_ns, total_bytes, sampling)]
        text += [",\n".join(_region_texts(piece, first.aggregation_s)), "]}"]
        self._write("".join(text).encode())
        self._last_end_ns = piece.end_ns

    def close(self) -> None:
        assert self._first is not None
        intervals = {
            "sample_us": _plain_number(self._first.aggregation_s / self._first.samples * 1e6),
            "aggr_us": _plain_number(self._first.aggregation_s * 1e6),
            "ops_update_us": "1000000",
            "intervals_goal": _GOAL if self._is_tuned else _NO_GOAL,
        }
        self._write(f'],\n"intervals": {json.dumps(intervals)}, "data_source": "unknown"}}'.encode())


def write_damo_json(
    history: History, file: BinaryIO, *, selection: Selection = EVERYTHING, compressed: bool = True
) -> None:
    """Write what is selected of a run; `target_id` is the index of the target, as of kernels today.

    Ages are in windows of the first one's length, besides microseconds; percentages are not cut to whole ones.

    Raises:
        InvalidInput: nothing is selected.
    """
    packed = _Compressed(file) if compressed else None
    write = packed.write if packed else file.write
    targets = sorted(range(len(history.targets)) if selection.targets is None else selection.targets)
    write(b"[")
    is_empty = True
    for first in range(0, len(targets), _FILES_AT_ONCE):
        some = targets[first : first + _FILES_AT_ONCE]
        is_empty = _write_elements(history, selection, some, write, is_empty=is_empty)
    write(b"]\n")
    if is_empty:
        raise nothing_selected(history)
    if packed:
        packed.close()


def _write_elements(
    history: History, selection: Selection, targets: list[int], write: Callable[[bytes], object], *, is_empty: bool
) -> bool:
    """The elements of some targets, read in one pass; damo has them one after the other.  Whether none was yet."""
    elements: dict[int, _Element] = {}
    texts: dict[int, IO[bytes]] = {}
    chosen = Selection(**{**vars(selection), "targets": frozenset(targets)})
    try:
        for piece in pieces_of(history, chosen):
            if piece.target not in elements:
                if len(targets) > 1:
                    texts[piece.target] = tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES)  # noqa: SIM115  # closed below
                elements[piece.target] = _Element(
                    piece.target, texts[piece.target].write if len(targets) > 1 else write
                )
            elements[piece.target].add(piece)
        for target in sorted(elements):
            elements[target].close()
            if text := texts.get(target):
                write(b"" if is_empty else b",\n")
                text.seek(0)
                while data := text.read(_IN_MEMORY_BYTES):
                    write(data)
            is_empty = False
    finally:
        for text in texts.values():
            text.close()
    return is_empty


def _region_texts(piece: Piece, aggregation_s: float) -> list[str]:
    regions = piece.regions
    columns = (
        regions.start,
        regions.end,
        regions.nr_accesses,
        np.round(regions.access_rate * 100, 9),
        np.rint(regions.age_s * 1e6).astype(np.int64),
        np.rint(regions.age_s / aggregation_s).astype(np.int64),
    )
    return [_REGION % row for row in zip(*(column.tolist() for column in columns), strict=True)]


def _plain_number(value: float) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".")
