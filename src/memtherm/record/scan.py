"""Finds the frames of a record by their envelopes, and reads those that are asked for, checked."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from memtherm.errors import InvalidInput
from memtherm.record.entries import unpack_entries
from memtherm.record.foreign import no_record
from memtherm.record.frames import (
    ENVELOPE_BYTES,
    FORMAT,
    MAGIC,
    Damaged,
    Envelope,
    FutureFormat,
    Kind,
    decompress,
    split_frame,
    unpack_envelope,
)
from memtherm.record.lost import Lost
from memtherm.units import format_time

# Times that people give are in whole steps of this; no window is shorter.
TIME_STEP_S = 0.001

_READ_BYTES = 1 << 14
_SEARCH_BYTES = 1 << 20
# Behind a damaged header the next frame is near, or the file is something else.
_HEADER_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Found:
    """A frame, and where it begins in the file."""

    offset: int
    envelope: Envelope


class Chain:
    """The frames of a file that may be growing, as far as they are whole.

    Attributes:
        frames: of each kind, in order.
        end: bytes up to the end of the last whole frame.
        torn_bytes: bytes behind it that are no whole frame yet.
        damage: why nothing behind `end` can be read; None where all can.
        file: its descriptor.
        last_s: end of the last window that was found.
        around: each frame is checked at once, and what is damaged is left out where a whole frame follows.
        lost: what was left out so.
    """

    def __init__(self, path: Path, file: int, *, around: bool = False) -> None:
        self.path = path
        self.frames: dict[int, list[Found]] = {kind: [] for kind in Kind}
        self.end = 0
        self.torn_bytes = 0
        self.damage: InvalidInput | None = None
        self.last_s = 0.0
        self.file = file
        self.around = around
        self.lost: list[Lost] = []
        self.has_met_damage = False
        self._number = 0
        self._buffer = b""
        self._buffer_at = 0

    @property
    def is_complete(self) -> bool:
        """Whether its writer has said that nothing follows."""
        return bool(self.frames[Kind.END])

    @property
    def begin_s(self) -> float:
        """Begin of the first window, of a record that has one.

        Raises:
            InvalidInput: it is damaged.
        """
        found = self.frames[Kind.SNAPSHOTS][0]
        with self.damage_at(found):
            return self._begin_s

    def extend(self) -> bool:
        """Look for frames behind those that are known; whether there were any.

        Raises:
            InvalidInput: no record begins here, or one of a newer format.
        """
        before = self._number
        size = os.fstat(self.file).st_size
        self._buffer = b""
        if self.around:
            self.damage = None  # the writer may have gone on behind it
        while self.damage is None and self._take(size):
            pass
        return self._number > before

    def body_and_data(self, found: Found) -> tuple[memoryview, memoryview]:
        """Raises InvalidInput: they are damaged."""
        with self.damage_at(found):
            return self._split(found)

    def body(self, found: Found) -> memoryview:
        """Raises InvalidInput: it is damaged."""
        with self.damage_at(found):
            envelope = found.envelope
            whole = self._read(envelope.frame_bytes, found.offset)
            return split_frame(envelope.without_data(), whole)[0]

    @contextmanager
    def damage_at(self, found: Found) -> Iterator[None]:
        """Damage as an error that says where it is, and what is whole before it."""
        try:
            yield
        except Damaged as problem:
            self.has_met_damage = True
            raise self._damaged(found.offset, str(problem)) from problem

    def sentences(self) -> tuple[str, ...]:
        """What was left out, where, and of which time; see `around`."""
        starts = self.frames[Kind.SNAPSHOTS]
        begin_s = self.begin_s if starts else 0.0
        told = []
        for lost in self.lost:
            behind = next((one for one in starts if one.offset >= lost.end), None)
            told.append(lost.sentence(begin_s=begin_s, next_s=None if behind is None else self._window_begin_s(behind)))
        return tuple(told)

    @cached_property
    def _begin_s(self) -> float:
        return self._window_begin_s(self.frames[Kind.SNAPSHOTS][0])

    def _window_begin_s(self, found: Found) -> float:
        """Begin of the first window of a frame.  Raises Damaged."""
        body = self._split(found)[0]
        first = unpack_entries(body, count=found.envelope.count, rows=found.envelope.extra)[0]
        return float(first["time_s"] - first["window_s"])

    def _split(self, found: Found) -> tuple[memoryview, memoryview]:
        return split_frame(found.envelope, self._read(found.envelope.whole_bytes, found.offset))

    def _take(self, size: int) -> bool:
        """One frame; False where no whole one is left."""
        at, left = self.end, size - self.end
        self.torn_bytes = left
        if left <= 0:
            self._check_shorter(left, size)
            return False
        start = b""
        envelope = None
        try:
            start = self._bytes(at, ENVELOPE_BYTES)
            if self.is_complete:
                raise Damaged("something follows the end of the record")
            if len(start) < ENVELOPE_BYTES:
                self._check_torn(start)
                return False
            envelope = unpack_envelope(start)
            self._check_place(envelope)
            if at + envelope.whole_bytes > size:
                return self.around and self._skip(at, size, "a frame is shorter than it says", None)
            if self.around or envelope.kind in (Kind.TARGETS, Kind.END):
                # The one is needed for all that follows, the other is asked for by nobody.
                self._split(Found(at, envelope))
        except FutureFormat as problem:
            if at > 0:
                self.damage = self._damaged(at, "a frame of another format")
                return False
            raise InvalidInput(
                f"{self.path}: this record needs a newer memtherm: it has format {problem.args[0]}, "
                f"and this one reads up to {FORMAT}",
                hint="pip install --upgrade memtherm",
            ) from None
        except Damaged as problem:
            if self.around and self._skip(at, size, str(problem), envelope):
                return True
            if at == 0:
                raise no_record(self.path, start, str(problem)) from None
            if not self._is_blank(at, size):
                self.damage = self._damaged(at, str(problem))
            return False
        self._note(Found(at, envelope))
        return True

    def _skip(self, at: int, size: int, why: str, envelope: Envelope | None) -> bool:
        """Go on at the next whole frame, and note what is lost by that; False where there is none."""
        found = None if self.is_complete else self._search(at, min(size, _HEADER_BYTES) if at == 0 else size)
        if found is None:
            return False
        nr_frames = found.envelope.number - self._number
        is_known = nr_frames == 1 and envelope is not None and envelope.number == self._number
        lost = Lost(
            offset=at,
            end=found.offset,
            why=why,
            nr_frames=nr_frames,
            envelope=envelope if is_known else None,
            after_s=self.last_s,
        )
        self.lost.append(lost)
        self.end, self._number = found.offset, found.envelope.number
        return True

    def _search(self, begin: int, size: int) -> Found | None:
        """The first frame from there on that is whole, and of this record."""
        magic = MAGIC.to_bytes(4, "little")
        while size - begin >= ENVELOPE_BYTES:
            part = self._read(min(_SEARCH_BYTES, size - begin), begin)
            if len(part) < ENVELOPE_BYTES:
                return None
            place = part.find(magic)
            while 0 <= place <= len(part) - ENVELOPE_BYTES:
                try:
                    envelope = unpack_envelope(part[place : place + ENVELOPE_BYTES])
                    if envelope.kind == Kind.HEADER and begin + place > 0:
                        return None  # another record
                    if self._is_whole(Found(begin + place, envelope), size):
                        return Found(begin + place, envelope)
                except (Damaged, FutureFormat):
                    pass
                place = part.find(magic, place + 1)
            # What may begin an envelope at the end of this part is looked at with the next one.
            begin += len(part) - ENVELOPE_BYTES + 1
        return None

    def _is_whole(self, found: Found, size: int) -> bool:
        """Whether a frame can stand behind those that are known, its checksums are right, and zstd's, too."""
        envelope = found.envelope
        if envelope.number < max(1, self._number) or found.offset + envelope.whole_bytes > size:
            return False
        if envelope.kind == Kind.SNAPSHOTS and envelope.first_s <= self.last_s:
            return False
        body, data = self._split(found)
        if envelope.kind in set(Kind) - {Kind.END}:
            decompress(body)
        if data:
            decompress(data)
        return True

    def _note(self, found: Found) -> None:
        envelope = found.envelope
        self.frames.setdefault(envelope.kind, []).append(found)
        self.end += envelope.whole_bytes
        self.torn_bytes = 0
        self._number += 1
        if envelope.kind == Kind.SNAPSHOTS:
            self.last_s = envelope.last_s

    def _check_shorter(self, left: int, size: int) -> None:
        if left < 0:
            self.damage = self._damaged(self.end, "the file has become shorter")
        elif size == 0:
            raise InvalidInput(f"{self.path} is empty", hint="its writer was ended before it wrote anything")

    def _check_place(self, envelope: Envelope) -> None:
        if envelope.number != self._number:
            raise Damaged(f"frame {self._number} is missing: frame {envelope.number} is here")
        if (envelope.kind == Kind.HEADER) != (self._number == 0):
            raise Damaged("it does not begin with a header" if self._number == 0 else "a second header")

    def _check_torn(self, start: bytes) -> None:
        """Fewer bytes than an envelope are torn, unless they begin otherwise."""
        if self.end == 0 and not start.startswith(b"\x5d\x2a\x4d\x18"[: len(start)]):
            raise Damaged("no frame begins here")

    def _is_blank(self, at: int, size: int) -> bool:
        """Whether only zeros follow: after a loss of power a file may be longer than what was written of it."""
        while at < size:
            part = self._read(1 << 20, at)
            if not part or part.strip(b"\0"):
                return False
            at += len(part)
        return True

    def _read(self, count: int, at: int) -> bytes:
        try:
            return os.pread(self.file, count, at)
        except OSError as problem:
            raise Damaged(f"it cannot be read: {problem.strerror}") from problem

    def _bytes(self, at: int, count: int) -> bytes:
        begin = at - self._buffer_at
        if begin < 0 or begin + count > len(self._buffer):
            self._buffer, self._buffer_at, begin = self._read(_READ_BYTES, at), at, 0
        return self._buffer[begin : begin + count]

    def _damaged(self, offset: int, why: str) -> InvalidInput:
        whole = [one for one in self.frames[Kind.SNAPSHOTS] if one.offset + one.envelope.whole_bytes <= offset]
        message = f"{self.path} is damaged at byte {offset}: {why}"
        if not whole:
            return InvalidInput(f"{message}; nothing before it can be read", hint="restore it from a copy")
        try:
            lasts_s = math.ceil(1000 * (whole[-1].envelope.last_s - self._begin_s)) / 1000
        except Damaged:
            return InvalidInput(f"{message}; and so is its first snapshot", hint="restore it from a copy")
        return InvalidInput(
            f"{message}; what was recorded before it, the first {format_time(lasts_s)}, can be read",
            hint=f"select a time that ends before it: --time ..{lasts_s:.3f}s",
        )
