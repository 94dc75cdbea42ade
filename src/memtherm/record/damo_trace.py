"""The kernel's trace of DAMON as text, as `perf script`, `trace-cmd report` and tracefs print it: read and written.

Both ways line by line: of the text only a small part is in memory at a time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from memtherm.core.history import History
from memtherm.core.selection import EVERYTHING, Selection
from memtherm.errors import InvalidInput
from memtherm.record.damo_history import DamoHistory, DamoTarget, Pieces
from memtherm.record.damo_intervals import DamoIntervals, read_beside
from memtherm.record.damo_pieces import Piece, pieces_of
from memtherm.record.nothing import nothing_selected

_BLOCK_BYTES = 4 * 1024 * 1024
# The name of the thread, the time, and what the tracepoint says (damon-spec §3.7); the age is missing before 5.16.
_LINE = re.compile(
    rb"^[ \t]*(\S+)[^\n]*?[ \t](\d+)\.(\d+):[ \t]+(?:damon:)?damon_"
    rb"(?:aggregated:[ \t]+target_id=(\d+) nr_regions=(\d+) (\d+)-(\d+): (-?\d+)(?: (-?\d+))?"
    rb"|monitor_intervals_tune:[ \t]+sample_us=(\d+))[ \t]*$",
    re.MULTILINE,
)
_KDAMOND = re.compile(rb"kdamond\.(\d+)")
_ANY_EVENT = re.compile(rb"\bdamon_aggregated:")


@dataclass
class _Open:
    """A snapshot of which lines are still to come."""

    end_ns: int
    nr_regions: int
    start: list[int] = field(default_factory=list)
    end: list[int] = field(default_factory=list)
    nr_accesses: list[int] = field(default_factory=list)
    age: list[int] = field(default_factory=list)


class _Reader:
    """Lines ↦ pieces; what is not whole is counted and dropped."""

    def __init__(self) -> None:
        self.pieces: dict[DamoTarget, Pieces] = {}
        self.nr_incomplete = 0
        self.nr_lines = 0
        self._sampling_s: dict[int, float] = {}
        self._of_piece: dict[DamoTarget, list[float]] = {}
        self._open: dict[DamoTarget, _Open] = {}

    def take(self, line: tuple[bytes, ...]) -> None:
        thread, seconds, fraction, target_id, nr_regions, start, end, nr_accesses, age, sample = line
        match = _KDAMOND.match(thread)
        kdamond = int(match[1]) if match else 0
        if sample:
            self._sampling_s[kdamond] = int(sample) / 1e6
            return
        self.nr_lines += 1
        time_ns = int(seconds) * 1_000_000_000 + int(fraction.ljust(9, b"0")[:9])
        target = DamoTarget(kdamond=kdamond, target_id=int(target_id))
        one, first = self._open.get(target), int(start)
        # Lines that were lost leave a snapshot open: the next one begins at a lower address, or has another length.
        if one is not None and (int(nr_regions) != one.nr_regions or first < one.end[-1]):
            self._drop(target)
            one = None
        if one is None:
            one = self._open[target] = _Open(time_ns, int(nr_regions))
        one.start.append(first)
        one.end.append(int(end))
        one.nr_accesses.append(int(nr_accesses))
        one.age.append(int(age) if age else -1)
        if len(one.start) == one.nr_regions:
            self._close(target, self._open.pop(target))

    def finish(self, beside: DamoIntervals) -> dict[DamoTarget, Pieces]:
        """All snapshots, their beginnings set to the ends of those before."""
        for target in list(self._open):
            self._drop(target)
        for target, pieces in self.pieces.items():
            _set_begins(pieces, self._of_piece[target], beside if target.kdamond == 0 else DamoIntervals())
        return self.pieces

    def _drop(self, target: DamoTarget) -> None:
        self.nr_incomplete += 1
        del self._open[target]

    def _close(self, target: DamoTarget, one: _Open) -> None:
        pieces = self.pieces.setdefault(target, Pieces())
        is_mark = (one.start, one.end, one.nr_accesses) == ([0], [0], [-1])
        pieces.end_ns.append(one.end_ns)
        pieces.first_row.append(len(pieces.start))
        pieces.has_age_in_windows.append(True)
        self._of_piece.setdefault(target, []).append(self._sampling_s.get(target.kdamond, 0.0))
        # damo writes such a region behind a single snapshot, so that its length is in the file.
        if not is_mark:
            pieces.start.extend(one.start)
            pieces.end.extend(one.end)
            pieces.nr_accesses.extend(one.nr_accesses)
            pieces.percent.extend([-1.0] * len(one.start))
            pieces.age.extend(one.age)


def _set_begins(pieces: Pieces, sampling_s: list[float], beside: DamoIntervals) -> None:
    """A line says when its window ended; the first window is taken to be as long as the others are on average."""
    ends = np.array(pieces.end_ns)
    mean_ns = float(ends[-1] - ends[0]) / (len(ends) - 1) if len(ends) > 1 else 0.0
    begins = np.append(ends[0] - round(mean_ns), ends[:-1])
    if len(pieces.first_row) > 1 and pieces.first_row[-1] == len(pieces.start):  # the mark
        for column in (pieces.end_ns, pieces.first_row, pieces.has_age_in_windows):
            column.pop()
    for begin_ns, end_ns, own_s in zip(begins.tolist(), pieces.end_ns, sampling_s, strict=False):
        pieces.start_ns.append(min(begin_ns, end_ns))
        window_s = (end_ns - begin_ns) / 1e9
        looks = max(1, round(window_s / own_s)) if own_s else beside.looks
        pieces.looks.append(looks)
        pieces.aggregation_s.append(looks * own_s or beside.aggregation_of(window_s))


def read_damo_trace(path: str | Path, *, on_read: Callable[[int], object] | None = None) -> DamoHistory:
    """The record in a text of trace events; kdamonds are told apart, as damo does not.

    Pids and intervals come from the file that `damo record` writes beside it, `PATH.kdamonds`, if that is there.

    Args:
        on_read: is told now and then how many bytes of the file are read.

    Raises:
        InvalidInput: it cannot be read, or holds no whole snapshot.
    """
    source, reader, has_event = str(path), _Reader(), False
    try:
        with open(path, "rb") as file:
            for block in _blocks(file):
                has_event = has_event or _ANY_EVENT.search(block) is not None
                for line in _LINE.findall(block):
                    reader.take(line)
                if on_read:
                    on_read(file.tell())
    except OSError as refusal:
        raise InvalidInput(f"{source}: cannot read it: {refusal.strerror or refusal}") from refusal
    beside = read_beside(path)
    pieces = reader.finish(beside.intervals)
    notes = []
    if reader.nr_incomplete:
        notes.append(f"{reader.nr_incomplete} snapshots lack lines, and were left out")
    if not pieces:
        what = "no snapshot in it is whole" if has_event else "no line of the event damon_aggregated in it"
        raise InvalidInput(f"{source}: {what}", hint="perf script and trace-cmd report print such lines")
    try:
        return DamoHistory(pieces, notes=notes, pids=beside.pids)
    except InvalidInput as refusal:
        raise InvalidInput(f"{source}: {refusal.message}", hint=refusal.hint) from refusal


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    """The file in pieces of whole lines.  A last line without an end is dropped: its last number may be cut."""
    rest = b""
    while data := file.read(_BLOCK_BYTES):
        whole, border, rest = (rest + data).rpartition(b"\n")
        if border:
            yield whole + border


def write_damo_trace(history: History, file: BinaryIO, *, selection: Selection = EVERYTHING) -> None:
    """Write what is selected of a run as lines of `perf script`; `target_id` is the index of the target.

    A line says neither intervals nor when a window began: damo takes the end of the one before.

    Raises:
        InvalidInput: nothing is selected.
    """
    single: dict[int, Piece] = {}
    several: set[int] = set()
    for piece in pieces_of(history, selection):
        file.write(_lines(piece))
        if piece.target in single or piece.target in several:
            single.pop(piece.target, None)
            several.add(piece.target)
        else:
            single[piece.target] = piece
    if not single and not several:
        raise nothing_selected(history)
    for piece in single.values():
        end_ns = 2 * piece.end_ns - piece.start_ns
        file.write(f"{_head(piece.target, end_ns, 1)} 0-0: -1 -1\n".encode())


def _head(target: int, end_ns: int, nr_regions: int) -> str:
    time = f"{end_ns // 1_000_000_000}.{end_ns % 1_000_000_000 // 1000:06d}"
    return f"kdamond.0     0 [000] {time}: damon:damon_aggregated: target_id={target} nr_regions={nr_regions}"


def _lines(piece: Piece) -> bytes:
    regions = piece.regions
    head = _head(piece.target, piece.end_ns, len(regions))
    age = np.rint(regions.age_s / piece.aggregation_s).astype(np.int64)
    columns = (regions.start, regions.end, regions.nr_accesses, age)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return "".join([f"{head} {start}-{end}: {count} {age}\n" for start, end, count, age in rows]).encode()
