"""Reads a record, also while it grows; only what is asked for is decompressed."""

from __future__ import annotations

import math
import os
import stat
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from memtherm.core.history import Event, MappingTable, SchemeTimes, Vitals
from memtherm.core.rows import SnapshotRows
from memtherm.core.selection import EVERYTHING, Selection
from memtherm.core.snapshot import Conditions, Snapshot, TargetInfo
from memtherm.errors import InvalidInput, NotPermitted
from memtherm.record import side
from memtherm.record.columns import Schema, schema_message
from memtherm.record.entries import TEXTS, Entries, conditions_of, first_rows, unpack_entries
from memtherm.record.frames import Damaged, Kind, decompress
from memtherm.record.header import RecordHeader, unpack_header
from memtherm.record.part import is_locked
from memtherm.record.scan import TIME_STEP_S, Chain, Found
from memtherm.units import format_size

if TYPE_CHECKING:
    import pyarrow  # type: ignore[import-untyped,unused-ignore]

    from memtherm.core.report import Report

# Rows that are handed out at a time, where frames are smaller.
_ROWS_AT_ONCE = 1 << 16
_MOST_TEXTS = 1 << 12

# Of what damage took.
_LOST_TARGET = TargetInfo(pid=0, name="unknown")
_LOST_TEXTS = dict.fromkeys(TEXTS, "") | {
    "method": "unknown",
    "doubts": ("what was said of how this was measured is lost by damage of the record",),
}

_Thing = TypeVar("_Thing")


def open_record(path: Path | str, *, follow: bool = False, around_damage: bool = False) -> Record:
    """Open a record for reading.

    Args:
        follow: it may still be growing: a torn tail is then no problem.
        around_damage: read what is whole behind damage, too; `problems` then says what is lost.  Each frame is
            checked at once, which takes a second for a gigabyte.  Else damage is raised where it is reached.

    Raises:
        InvalidInput: no record, one of a newer format, or one whose header is damaged.
        NotPermitted: it may not be read.

    Example:
        >>> with open_record("run.memtherm") as record:
        ...     for snapshot in record:
        ...         print(snapshot.time_s, snapshot.working_set_bytes())
    """
    name = Path(path)
    try:
        # Without O_NONBLOCK a pipe would be waited for.
        file = os.open(name, os.O_RDONLY | os.O_NONBLOCK)
    except PermissionError as problem:
        raise NotPermitted(f"{name}: {problem.strerror}", hint="whoever recorded it may read it") from None
    except OSError as problem:
        raise InvalidInput(f"{name}: {problem.strerror}", hint="give the file of a record") from None
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise InvalidInput(f"{name} is no file", hint="give the file of a record")
        return Record(name, file, follow=follow, around_damage=around_damage)
    except BaseException:
        os.close(file)
        raise


class Record:
    """A History in a file.  Iterators go as far as the record went when it was opened, or at the last `refresh`.

    Attributes:
        path, header: of the file.
    """

    header: RecordHeader

    def __init__(self, path: Path, file: int, *, follow: bool, around_damage: bool = False) -> None:
        self.path = path
        self._file = file
        self._follow = follow
        self._is_open = True
        self._chain = Chain(path, file, around=around_damage)
        self._targets: list[TargetInfo] = []
        self._target_frames: list[tuple[Found, list[TargetInfo]]] = []
        self._texts: dict[int, Any] = {}
        self.refresh()
        if self._chain.lost and not self._chain.frames[Kind.HEADER]:
            self.header = RecordHeader(memtherm_version="unknown", created_s=self.time_span_s[0])
            self._schema = Schema(schema_message())
            return
        if not self._chain.frames[Kind.HEADER]:
            raise InvalidInput(f"{path} ends within its header", hint="its writer was ended before it wrote anything")
        found = self._chain.frames[Kind.HEADER][0]
        with self._chain.damage_at(found):
            body, data = self._chain.body_and_data(found)
            self.header = unpack_header(bytes(body))
            self._schema = Schema(decompress(data))

    def __enter__(self) -> Record:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[Snapshot]:
        for found, rows, entries in self._pieces(EVERYTHING):
            yield from (self._snapshot(found, rows, entries, index) for index in range(len(rows)))

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            os.close(self._file)
            self._file = self._chain.file = -1

    def refresh(self) -> bool:
        """Look for what was written since; whether there was anything.

        Raises:
            InvalidInput: no record begins here, or what it says of targets is damaged.
        """
        is_new = self._chain.extend()
        frames = self._chain.frames[Kind.TARGETS]
        for found in frames[len(self._target_frames) :]:
            new = self._list(found, side.target)
            first = found.envelope.extra
            self._add_lost_targets(first)
            self._targets[first : first + len(new)] = new
            self._target_frames.append((found, list(self._targets)))
        if self._chain.lost and is_new:
            self._add_lost_targets(self._nr_targets_behind_damage())
        return is_new

    @property
    def is_damaged(self) -> bool:
        """Whether damage was met so far; with `around_damage`, whether there is any."""
        return self._chain.damage is not None or self._chain.has_met_damage or bool(self._chain.lost)

    @property
    def is_complete(self) -> bool:
        """Whether its writer has closed it."""
        return self._chain.is_complete

    @property
    def is_continued(self) -> bool:
        """Whether its writer went on in another file, which now has the name that this one had."""
        return any(found.envelope.count for found in self._chain.frames[Kind.END])

    @property
    def is_growing(self) -> bool:
        """Whether somebody writes it now."""
        return not self.is_complete and is_locked(self._file)

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong with the record, in sentences; nothing of it concerns what can be read."""
        chain = self._chain
        lost = chain.sentences()
        if chain.damage is not None:
            return (*lost, chain.damage.message)
        size, end = format_size(chain.torn_bytes), chain.end
        torn = (
            (f"its last {size}, from byte {end} on, are no whole frame and are left out",) if chain.torn_bytes else ()
        )
        if chain.is_complete:
            return (*lost, *torn)
        if self._follow or is_locked(self._file):
            return lost
        return (*lost, "the record was not closed: what its writer had not written yet is missing", *torn)

    @property
    def targets(self) -> tuple[TargetInfo, ...]:
        """All targets of the record; `Regions.target` is an index into it."""
        return tuple(self._targets)

    @property
    def nr_snapshots(self) -> int:
        return sum(found.envelope.count for found in self._chain.frames[Kind.SNAPSHOTS])

    @property
    def nr_rows(self) -> int:
        """Regions of all snapshots."""
        return sum(found.envelope.extra for found in self._chain.frames[Kind.SNAPSHOTS])

    @property
    def time_span_s(self) -> tuple[float, float]:
        """Begin of the first window and end of the last, seconds since the epoch; (0, 0) without any."""
        frames = self._chain.frames[Kind.SNAPSHOTS]
        if not frames:
            return 0.0, 0.0
        return self._chain.begin_s, frames[-1].envelope.last_s

    def rows(self, selection: Selection = EVERYTHING) -> Iterator[SnapshotRows]:
        """The regions, some snapshots at a time, in the order of time.

        Raises:
            InvalidInput: damage within what is selected, when it is reached.
        """
        for group in _groups(self._frames(Kind.SNAPSHOTS, selection)):
            rows = selection.of(self._read(group)[0])
            if len(rows):
                yield rows
        self._check_end(selection)

    def reports(self, selection: Selection = EVERYTHING) -> Iterator[Report]:
        """The same as whole snapshots with their conditions, schemes and events.  Raises as `rows` does."""
        from memtherm.core.report import Report

        schemes = _Ahead(self.schemes(selection))
        events = _Ahead(event for event, is_of_window in self._events(selection) if is_of_window)
        for found, rows, entries in self._pieces(selection):
            for index in range(len(rows)):
                snapshot = self._snapshot(found, rows, entries, index)
                acted = schemes.take(snapshot.time_s)
                texts = tuple(event.text for event in events.take(snapshot.time_s))
                yield Report(snapshot, acted[-1].schemes if acted else (), texts)

    def conditions(self, selection: Selection = EVERYTHING) -> Iterator[Conditions]:
        """Of each window that ended within the selected time; regions are not read.  Raises as `rows` does."""
        for found in self._frames(Kind.SNAPSHOTS, selection):
            body, envelope = self._chain.body(found), found.envelope
            with self._chain.damage_at(found):
                entries = unpack_entries(body, count=envelope.count, rows=envelope.extra)
                for entry, time_s in zip(entries, entries["time_s"].tolist(), strict=True):
                    if selection.has_time(time_s, time_s):
                        yield conditions_of(entry, self._text(int(entry["texts"])))
        self._check_end(selection)

    def mappings(self, selection: Selection = EVERYTHING) -> Iterator[MappingTable]:
        """Tables that were true within the selected time: the last before it, too.  Raises as `rows` does."""
        tables = self._tables()
        begins: dict[int, int] = {}
        for index, (target, time_s, _) in enumerate(tables):
            if selection.since_s is None or time_s <= selection.since_s:
                begins.setdefault(target, index)
                if selection.since_s is not None:
                    begins[target] = index
        for index, (target, time_s, found) in enumerate(tables):
            is_late = selection.until_s is not None and time_s > selection.until_s
            is_other = selection.targets is not None and target not in selection.targets
            if is_late or is_other or index < begins.get(target, 0):
                continue
            if found is None:
                yield _unknown_mappings(target, time_s)
                continue
            body = self._chain.body(found)
            with self._chain.damage_at(found):
                table = side.unpack_mappings(body)
            yield table
        self._check_end(selection)

    def vitals(self, selection: Selection = EVERYTHING) -> Iterator[Vitals]:
        """Raises as `rows` does."""
        for one in self._lists(Kind.VITALS, side.vitals, selection):
            if selection.has_time(one.time_s, one.time_s):
                yield one

    def schemes(self, selection: Selection = EVERYTHING) -> Iterator[SchemeTimes]:
        """Only of windows in which there were schemes; `SchemeReport.tried` is None.  Raises as `rows` does."""
        from memtherm.record.outcomes import schemes

        for one in self._lists(Kind.SCHEMES, schemes, selection):
            if selection.has_time(one.time_s, one.time_s):
                yield one

    def events(self, selection: Selection = EVERYTHING) -> Iterator[Event]:
        """Those of the reports, and others.  Raises as `rows` does."""
        return (event for event, _ in self._events(selection))

    def to_arrow(self, selection: Selection = EVERYTHING) -> pyarrow.Table:
        """The regions as a table, with `pid` and `name` of their targets.

        Raises:
            NotSupported: pyarrow is not installed.
        """
        from memtherm.record.arrow import table

        return table(self, selection)

    def _tables(self) -> list[tuple[int, float, Found | None]]:
        """Target, time and frame of each table; none where the one that was true may be lost."""
        chain = self._chain
        at = [
            (found.offset, found.envelope.extra, found.envelope.first_s, found) for found in chain.frames[Kind.MAPPINGS]
        ]
        unknown = [
            (lost.offset, target, math.nextafter(lost.after_s, math.inf), None)
            for lost in chain.lost
            if lost.may_hold(Kind.MAPPINGS)
            for target in sorted({extra for offset, extra, *_ in at if offset < lost.offset})
            if lost.target in (None, target)
        ]
        in_order = sorted([*at, *unknown], key=lambda one: one[:2])
        return [(target, time_s, found) for _, target, time_s, found in in_order]

    def _nr_targets_behind_damage(self) -> int:
        """How many the snapshots have that were written since something was lost."""
        most = 0
        for found in self._chain.frames[Kind.SNAPSHOTS]:
            if found.offset >= self._chain.lost[0].end:
                body = self._chain.body(found)
                with self._chain.damage_at(found):
                    entries = unpack_entries(body, count=found.envelope.count, rows=found.envelope.extra)
                most = max(most, int(entries["targets"].max(initial=0)))
        return most

    def _add_lost_targets(self, count: int) -> None:
        """Where what was said of targets is lost, they are there without a name."""
        while self._chain.lost and len(self._targets) < count:
            self._targets.append(_LOST_TARGET)

    def _events(self, selection: Selection) -> Iterator[tuple[Event, bool]]:
        for one, is_of_window in self._lists(Kind.EVENTS, side.event, selection):
            if selection.has_time(one.time_s, one.time_s):
                yield one, is_of_window

    def _frames(self, kind: Kind, selection: Selection) -> Iterator[Found]:
        """Those that may hold something of the selected time."""
        frames = self._chain.frames[kind]
        first = 0
        if selection.since_s is not None and kind is Kind.SNAPSHOTS:
            first = bisect_left(frames, selection.since_s, key=lambda one: one.envelope.last_s)
        for found in frames[first:]:
            if kind is Kind.SNAPSHOTS and selection.until_s is not None and found.envelope.first_s > selection.until_s:
                return
            if selection.has_time(found.envelope.first_s, found.envelope.last_s):
                yield found

    def _lists(self, kind: Kind, make: Callable[[Any], _Thing], selection: Selection) -> Iterator[_Thing]:
        for found in self._frames(kind, selection):
            yield from self._list(found, make)
        self._check_end(selection)

    def _list(self, found: Found, make: Callable[[Any], _Thing]) -> list[_Thing]:
        body = self._chain.body(found)
        with self._chain.damage_at(found):
            return [side.understood(make, plain) for plain in side.unpack_list(body)]

    def _check_end(self, selection: Selection) -> None:
        """Raise where the record goes on within the selected time, and cannot be read."""
        chain = self._chain
        if (
            chain.damage is not None
            and not chain.around
            and (selection.until_s is None or selection.until_s > chain.last_s + TIME_STEP_S)
        ):
            raise chain.damage

    def _read(self, group: Sequence[Found]) -> tuple[SnapshotRows, Entries]:
        """The snapshots of some frames."""
        reader = self._schema.reader(sum(found.envelope.extra for found in group))
        parts = []
        for found in group:
            body, data = self._chain.body_and_data(found)
            envelope = found.envelope
            with self._chain.damage_at(found):
                parts.append(unpack_entries(body, count=envelope.count, rows=envelope.extra))
                reader.add(decompress(data), envelope.extra)
        entries = parts[0] if len(parts) == 1 else np.concatenate(parts)
        first_row = first_rows(entries)
        samples = entries["samples"].astype(np.int64)
        regions = reader.regions(samples, entries["aggregation_interval_s"], first_row)
        rows = SnapshotRows(
            np.array(entries["time_s"], np.float64),
            np.array(entries["window_s"], np.float64),
            samples,
            np.array(entries["sampling_interval_s"], np.float64),
            first_row,
            regions,
        )
        return rows, entries

    def _pieces(self, selection: Selection) -> Iterator[tuple[Found, SnapshotRows, Entries]]:
        """What is selected of each frame, with the entries of its snapshots."""
        for found in self._frames(Kind.SNAPSHOTS, selection):
            rows, entries = self._read([found])
            selected = selection.of(rows)
            if len(selected):
                first = int(np.searchsorted(rows.time_s, selected.time_s[0]))
                yield found, selected, entries[first : first + len(selected)]
        self._check_end(selection)

    def _snapshot(self, found: Found, rows: SnapshotRows, entries: Entries, index: int) -> Snapshot:
        entry = entries[index]
        with self._chain.damage_at(found):
            texts = self._text(int(entry["texts"]))
            conditions = conditions_of(entry, texts)
        part = slice(int(rows.first_row[index]), int(rows.first_row[index + 1]))
        known = self._targets_at(found)
        # What follows those that were known is other than lost only where something is.
        targets = (*known, *self._targets[len(known) :])[: int(entry["targets"])]
        return Snapshot(float(rows.time_s[index]), targets, rows.regions.take(part), conditions)

    def _targets_at(self, found: Found) -> tuple[TargetInfo, ...]:
        """As they were called when this frame was written."""
        index = bisect_left(self._target_frames, found.offset, key=lambda one: one[0].offset)
        return tuple(self._target_frames[index - 1][1]) if index else ()

    def _text(self, number: int) -> Any:
        """Raises Damaged: there is none."""
        if number not in self._texts and not self._read_texts(number):
            if not self._chain.lost:
                raise Damaged("the texts of a snapshot are missing")
            return _LOST_TEXTS
        return self._texts[number]

    def _read_texts(self, number: int) -> bool:
        """Whether the record has them."""
        frames = self._chain.frames[Kind.TEXTS]
        index = bisect_left(frames, number + 1, key=lambda one: one.envelope.extra) - 1
        if index < 0:
            return False
        if len(self._texts) > _MOST_TEXTS:
            self._texts.clear()
        self._texts.update(enumerate(self._list(frames[index], dict), frames[index].envelope.extra))
        return number in self._texts


class _Ahead:
    """Things with a time, taken up to a time."""

    def __init__(self, things: Iterator[Any]) -> None:
        self._things = things
        self._next = next(things, None)

    def take(self, time_s: float) -> list[Any]:
        """Those of this time; earlier ones are dropped."""
        taken = []
        while self._next is not None and self._next.time_s <= time_s:
            if self._next.time_s == time_s:
                taken.append(self._next)
            self._next = next(self._things, None)
        return taken


def _unknown_mappings(target: int, time_s: float) -> MappingTable:
    none = np.zeros(0, np.uint64)
    return MappingTable(time_s, target, none, none, none, (), ())


def _groups(frames: Iterator[Found]) -> Iterator[list[Found]]:
    """Frames that are read together."""
    group: list[Found] = []
    rows = 0
    for found in frames:
        if group and rows + found.envelope.extra > _ROWS_AT_ONCE:
            yield group
            group, rows = [], 0
        group.append(found)
        rows += found.envelope.extra
    if group:
        yield group
