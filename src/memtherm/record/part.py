"""The file of a record while it is written: its lock, its frames, one write for each group of them."""

from __future__ import annotations

import fcntl
import json
import os
import re
import stat
from pathlib import Path

from memtherm.core.history import MappingTable
from memtherm.core.snapshot import TargetInfo
from memtherm.errors import HostCannot, InvalidInput, NotPermitted
from memtherm.record.columns import END_OF_STREAM, schema_message
from memtherm.record.frames import (
    ENVELOPE_BYTES,
    SIDE_OPTIONS,
    Damaged,
    FutureFormat,
    Kind,
    compress,
    pack_frame,
    unpack_envelope,
)
from memtherm.record.header import RecordHeader, pack_header

_ROOM = "what was recorded before is whole; make room, or record elsewhere"
# A text with numbers in it may be another one in each window.
_MOST_TEXTS = 1 << 12


class Part:
    """A record file of its own: the whole record, or one part of a rotated one.

    Attributes:
        size_bytes: written so far.
        begin_s: end of its first window; None before.
        targets: that it has.
        mappings: the last table of each target.
        is_whole: it has all that it was given, and is open.

    Raises:
        InvalidInput: the file exists, is written by somebody else, or cannot be made.
        NotPermitted: the folder may not be written.
        HostCannot: there is no room.
    """

    def __init__(self, path: Path, header: RecordHeader, *, overwrite: bool) -> None:
        self.path = path
        self.size_bytes = 0
        self.begin_s: float | None = None
        self.targets: tuple[TargetInfo, ...] = ()
        self.mappings: dict[int, MappingTable] = {}
        self._number = 0
        self._group: list[bytes] = []
        self._snapshots = self._rows = 0
        self._texts: dict[tuple[object, ...], int] = {}
        self._nr_texts = 0
        self.is_whole = True
        self._file = _create(path, overwrite=overwrite)
        try:
            schema = compress([memoryview(schema_message())], SIDE_OPTIONS)
            self.add(Kind.HEADER, pack_header(header), times_s=(header.created_s, header.created_s), data=schema)
            self.write()
        except BaseException:
            os.close(self._file)
            path.unlink(missing_ok=True)
            raise

    def text_numbers(self, keys: list[tuple[object, ...]]) -> tuple[list[int], list[tuple[object, ...]]]:
        """The numbers of texts, and those of them that the part does not have yet; these get the next numbers."""
        if len(self._texts) > _MOST_TEXTS:
            self._texts.clear()
        new = []
        for key in keys:
            if key not in self._texts:
                self._texts[key] = self._nr_texts
                self._nr_texts += 1
                new.append(key)
        return [self._texts[key] for key in keys], new

    @property
    def nr_texts(self) -> int:
        """Numbers that were given."""
        return self._nr_texts

    def add(
        self,
        kind: Kind,
        body: bytes,
        *,
        times_s: tuple[float, float],
        counts: tuple[int, int] = (0, 0),
        data: bytes = b"",
    ) -> None:
        """One more frame of the group that is written next."""
        self._group.append(pack_frame(kind, self._number, body, times_s=times_s, counts=counts, data=data))
        self._number += 1
        if kind is Kind.SNAPSHOTS:
            self._snapshots += counts[0]
            self._rows += counts[1]

    def write(self) -> None:
        """The group, in one piece; where there is no room for it, none of it stays.

        Raises:
            HostCannot: the file cannot grow.
        """
        group, self._group = b"".join(self._group), []
        if not self.is_whole:
            raise HostCannot(f"{self.path}: cannot be written any more", hint=_ROOM)
        done = 0
        try:
            while done < len(group):
                done += os.write(self._file, memoryview(group)[done:])
        except OSError as problem:
            self.is_whole = False
            os.ftruncate(self._file, self.size_bytes)
            raise HostCannot(f"{self.path}: cannot be written: {problem.strerror}", hint=_ROOM) from problem
        self.size_bytes += len(group)

    def close(self, *, time_s: float, is_continued: bool) -> None:
        """Say that it is complete, and let go of the lock."""
        try:
            if self.is_whole:
                end = {"snapshots": self._snapshots, "rows": self._rows, "continued": is_continued}
                data = compress([memoryview(END_OF_STREAM)], SIDE_OPTIONS)
                counts = (int(is_continued), 0)
                self.add(Kind.END, json.dumps(end).encode(), times_s=(time_s, time_s), counts=counts, data=data)
                self.write()
                os.fsync(self._file)
        finally:
            self.is_whole = False
            os.close(self._file)


def _create(path: Path, *, overwrite: bool) -> int:
    """A new file, locked: whoever makes it is its only writer."""
    try:
        if overwrite and path.exists():
            _make_way(path)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        raise InvalidInput(_why_not(path), hint="give another name, or overwrite it") from None
    except PermissionError as problem:
        raise NotPermitted(f"{path}: {problem.strerror}", hint="record into a folder that you may write") from None
    except OSError as problem:
        raise InvalidInput(
            f"{path}: {problem.strerror}", hint="give the name of a file in a folder that is there"
        ) from None
    # It waits for readers at most, which only ask whether somebody writes.
    fcntl.flock(file, fcntl.LOCK_EX)
    return file


def _why_not(path: Path) -> str:
    return f"{path} is being written by another memtherm" if is_being_written(path) else f"{path} exists already"


def _make_way(path: Path) -> None:
    """Remove a record that nobody writes."""
    if is_being_written(path):
        raise InvalidInput(f"{path} is being written by another memtherm", hint="stop that one, or give another name")
    if not _may_be_ours(path):
        raise InvalidInput(f"{path} is not a record of memtherm, and stays", hint="give another name")
    path.unlink()


def _may_be_ours(path: Path) -> bool:
    """Empty files count: a writer that was killed at once leaves one."""
    if not stat.S_ISREG(path.stat().st_mode):
        return False
    with path.open("rb") as file:
        start = file.read(ENVELOPE_BYTES)
    if len(start) < ENVELOPE_BYTES:
        return not start
    try:
        return unpack_envelope(start).kind == Kind.HEADER
    except FutureFormat:
        return True
    except Damaged:
        return False


def is_being_written(path: Path) -> bool:
    """Whether some process holds the lock of the writer."""
    try:
        with path.open("rb") as file:
            return is_locked(file.fileno())
    except OSError:
        return False


def is_locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(file, fcntl.LOCK_UN)
    return False


def numbered(path: Path, number: int) -> Path:
    """The name of a complete part: `run.memtherm` → `run-0001.memtherm`."""
    return path.with_name(f"{path.stem}-{number:04}{path.suffix}")


def next_number(path: Path) -> int:
    """The number after the last part that is there, of this run or an earlier one."""
    return max(_numbered_files(path), default=0) + 1


def other_parts(path: Path, *, part: int, is_continued: bool) -> tuple[Path, ...]:
    """The other files of a rotated record that are there, in the order of time.

    Args:
        part, is_continued: what the file says of itself: from 1 up, and whether its writer went on in another.
    """
    match = re.fullmatch(r"(.+)-(\d{4,})", path.stem) if is_continued else None
    newest = path.with_name(match[1] + path.suffix) if match else path
    files = _numbered_files(newest)
    # Files of an earlier run have numbers before those of this one.
    number = int(match[2]) if match else max(files, default=0) + 1
    found = [files[one] for one in sorted(files) if one > number - part and one != number]
    return (*found, *([newest] if match and newest.exists() else []))


def _numbered_files(path: Path) -> dict[int, Path]:
    return {
        int(name): one
        for one in path.parent.glob(f"{_escaped(path.stem)}-*{_escaped(path.suffix)}")
        if (name := one.stem.removeprefix(f"{path.stem}-")).isdecimal()
    }


def _escaped(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)
