"""Writes a record, frame by frame, and begins a new file where one has become too large or too long."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import numpy as np

from memtherm.core.history import Event, MappingTable, SchemeTimes, Vitals
from memtherm.core.report import Report
from memtherm.core.rows import rows_of
from memtherm.core.snapshot import Regions, Snapshot, TargetInfo
from memtherm.errors import HostCannot, InvalidInput
from memtherm.record import side
from memtherm.record.columns import BatchWriter, to_columns
from memtherm.record.entries import TEXTS, pack_entries, texts_of
from memtherm.record.frames import NO_TARGET, ROW_OPTIONS, Kind, compress
from memtherm.record.header import RecordHeader
from memtherm.record.outcomes import plain_schemes
from memtherm.record.part import Part, next_number, numbered
from memtherm.units import format_time

# A frame of fewer rows is put off: what stays equal from window to window is written once in a frame.
_FEW_ROWS = 1 << 14
_MOST_ROWS = 1 << 17
# But never longer than this share of the run, nor than so many frames of usual length.
_SHARE_PUT_OFF = 0.1
_FRAMES_PUT_OFF = 10
_MOST_COUNT = 2**32 - 1


class RecordWriter:
    """The one writer of a record.

    A frame is written about each `frame_s`.  Where that would be few rows it waits for more: at most a tenth of
    the time that the record has lasted, and at most ten times `frame_s`.  A writer that is killed loses no more
    than what it has not written yet.

    Args:
        path: a new file.  Where the record is rotated, the newest part has this name, and complete ones are
            `NAME-0001.EXTENSION` and so on; each is a record by itself.
        frame_s: length of a frame in the time of the snapshots.
        rotate_bytes, rotate_s: begin a new file when one is so large, or so long.
        keep: remove all but so many complete parts of this run; None: keep all.
        overwrite: replace the record that has this name.

    Raises:
        InvalidInput: the file exists, somebody writes it, or it cannot be made; a limit that is not above 0.
    """

    def __init__(
        self,
        path: Path | str,
        header: RecordHeader,
        *,
        frame_s: float = 1.0,
        rotate_bytes: int | None = None,
        rotate_s: float | None = None,
        keep: int | None = None,
        overwrite: bool = False,
    ) -> None:
        for name, value in (("frame_s", frame_s), ("rotate_bytes", rotate_bytes), ("rotate_s", rotate_s)):
            if value is not None and not value > 0:
                raise InvalidInput(f"{name} is {value}", hint="it is to be above 0")
        if keep is not None and keep < 0:
            raise InvalidInput(f"keep is {keep}", hint="0 keeps the newest part alone")
        self.path = Path(path)
        self._header = header
        self._frame_s = frame_s
        self._rotate_bytes = rotate_bytes or math.inf
        self._rotate_s = rotate_s or math.inf
        self._keep = keep
        self._parts: list[Path] = []
        self._batches = BatchWriter()
        self._targets: tuple[TargetInfo, ...] = ()
        self._shift_s = 0.0
        self._last_s = -math.inf
        self._pending = _Pending()
        self._is_open = True
        self._part = Part(self.path, header, overwrite=overwrite)

    def __enter__(self) -> RecordWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def add(self, report: Report) -> None:
        """One window.  The arrays of its regions must not change afterwards.

        Raises:
            InvalidInput: numbers that cannot be, or targets that are others than those before.
            HostCannot: the file cannot grow.
        """
        if not self._is_open:
            raise InvalidInput(f"{self.path}: the record is closed", hint="a closed record stays as it is")
        snapshot = report.snapshot
        _check(snapshot)
        self._check_targets(snapshot.targets)
        snapshot = self._in_order(snapshot)
        if self._rotate_is_due(snapshot.time_s):
            self._rotate()
        pending = self._pending
        pending.snapshots.append(snapshot)
        pending.rows += len(snapshot.regions)
        if report.schemes:
            pending.schemes.append(SchemeTimes(snapshot.time_s, report.schemes))
        pending.events += [(Event(snapshot.time_s, text), True) for text in report.events]
        if self._is_due():
            self.flush()

    def add_mappings(self, table: MappingTable) -> None:
        """The mappings of a target; nothing is written where they are as they were."""
        last = self._part.mappings.get(table.target)
        if last is None or not side.same_mappings(last, table):
            table = replace(table, time_s=table.time_s + self._shift_s)
            self._part.mappings[table.target] = table
            self._pending.mappings.append(table)

    def add_vitals(self, vitals: Vitals) -> None:
        self._pending.vitals.append(replace(vitals, time_s=vitals.time_s + self._shift_s))

    def add_event(self, event: Event) -> None:
        """Something that happened besides the events of the reports."""
        self._pending.events.append((replace(event, time_s=event.time_s + self._shift_s), False))

    def flush(self) -> None:
        """Write what is not written yet.

        Raises:
            HostCannot: the file cannot grow; what was to be written is lost, all before is whole.
        """
        pending, self._pending = self._pending, _Pending()
        if pending.is_empty:
            return
        self._add_side_frames(pending)
        if pending.snapshots:
            self._add_snapshots(pending.snapshots)
        self._part.write()

    def close(self) -> None:
        """Write the rest, and that the record is complete; again: nothing.

        Raises:
            HostCannot: the file cannot grow; where that was said before, it is not said again.
        """
        if not self._is_open:
            return
        self._is_open = False
        try:
            if self._part.is_whole:
                self.flush()
        finally:
            self._part.close(time_s=self._end_s, is_continued=False)

    @property
    def files(self) -> tuple[Path, ...]:
        """What this run has written and kept, in the order of time; the last one has the name that was asked for."""
        return (*self._parts, self.path)

    @property
    def _end_s(self) -> float:
        return self._last_s if math.isfinite(self._last_s) else self._header.created_s

    def _check_targets(self, targets: tuple[TargetInfo, ...]) -> None:
        """Indices keep their meaning, though a target may change its name by exec."""
        if targets is self._targets or targets == self._targets:
            return
        known = self._targets
        pids = [one.pid for one in targets[: len(known)]]
        if pids != [one.pid for one in known[: len(pids)]]:
            raise InvalidInput("the targets of a record have changed places", hint="new targets come after the old")
        self._targets = targets + known[len(targets) :]

    def _in_order(self, snapshot: Snapshot) -> Snapshot:
        """With a time after the last one, though the clock was set back."""
        time_s = snapshot.time_s + self._shift_s
        if time_s == self._last_s:
            # An index by time needs different times.
            time_s = math.nextafter(time_s, math.inf)
        elif time_s < self._last_s:
            back_s = self._last_s - time_s
            self._shift_s += back_s + snapshot.conditions.window_s
            time_s = snapshot.time_s + self._shift_s
            text = f"the clock was set back by about {format_time(back_s)}; times of this record go on without it"
            self._pending.events.append((Event(time_s, text), False))
        self._last_s = time_s
        return snapshot if time_s == snapshot.time_s else replace(snapshot, time_s=time_s)

    def _is_due(self) -> bool:
        pending = self._pending
        begin_s = pending.snapshots[0].time_s
        lasts_s = self._last_s - begin_s + pending.snapshots[0].conditions.window_s
        first_s = begin_s if self._part.begin_s is None else self._part.begin_s
        # Ends of windows that are sums of floats are not quite where they should be.
        wanted_s = self._frame_s * (1 - 1e-6)
        if pending.rows < _FEW_ROWS:
            wanted_s = max(wanted_s, min(_FRAMES_PUT_OFF * self._frame_s, _SHARE_PUT_OFF * (self._last_s - first_s)))
        return lasts_s >= wanted_s or pending.rows >= _MOST_ROWS

    def _rotate_is_due(self, time_s: float) -> bool:
        part = self._part
        begin_s = part.begin_s
        if begin_s is None:
            begin_s = self._pending.snapshots[0].time_s if self._pending.snapshots else time_s
        return part.size_bytes >= self._rotate_bytes or time_s - begin_s >= self._rotate_s

    def _rotate(self) -> None:
        """The file gets a number, and a new one its name."""
        self.flush()
        old = self._part
        old.close(time_s=self._end_s, is_continued=True)
        name = numbered(self.path, next_number(self.path))
        try:
            self.path.rename(name)
        except OSError as problem:
            raise HostCannot(f"{self.path}: {problem.strerror}", hint="no new part can be begun") from problem
        self._parts.append(name)
        self._header = replace(self._header, part=self._header.part + 1, created_s=self._end_s)
        self._part = Part(self.path, self._header, overwrite=False)
        self._pending.mappings += old.mappings.values()
        self._part.mappings = old.mappings
        if self._keep is not None:
            while len(self._parts) > self._keep:
                self._parts.pop(0).unlink(missing_ok=True)

    def _add_side_frames(self, pending: _Pending) -> None:
        part = self._part
        for table in pending.mappings:
            times_s = (table.time_s, table.time_s)
            part.add(Kind.MAPPINGS, side.pack_mappings(table), times_s=times_s, counts=(len(table), table.target))
        lists = (
            (Kind.VITALS, side.plain_vitals(pending.vitals), [one.time_s for one in pending.vitals]),
            (Kind.SCHEMES, plain_schemes(pending.schemes), [one.time_s for one in pending.schemes]),
            (Kind.EVENTS, side.plain_events(pending.events), [one.time_s for one, _ in pending.events]),
        )
        for kind, plain, times in lists:
            if plain:
                self._add_list(kind, plain, (min(times), max(times)), NO_TARGET)

    def _add_list(self, kind: Kind, plain: list[object], times_s: tuple[float, float], extra: int) -> None:
        self._part.add(kind, side.pack_plain(plain), times_s=times_s, counts=(len(plain), extra))

    def _add_snapshots(self, snapshots: Sequence[Snapshot]) -> None:
        part = self._part
        times_s = (snapshots[0].time_s, snapshots[-1].time_s)
        part.begin_s = times_s[0] if part.begin_s is None else part.begin_s
        self._add_targets(snapshots, times_s)
        numbers, new = part.text_numbers([texts_of(one.conditions) for one in snapshots])
        if new:
            plain: list[object] = [dict(zip(TEXTS, key, strict=True)) for key in new]
            self._add_list(Kind.TEXTS, plain, times_s, part.nr_texts - len(new))
        rows = rows_of(snapshots)
        columns, is_given = to_columns(rows)
        data = compress(self._batches.message(columns, is_given), ROW_OPTIONS)
        counts = (len(snapshots), len(is_given))
        part.add(Kind.SNAPSHOTS, pack_entries(snapshots, numbers), times_s=times_s, counts=counts, data=data)

    def _add_targets(self, snapshots: Sequence[Snapshot], times_s: tuple[float, float]) -> None:
        """Those that the part does not have yet, or has otherwise."""
        part = self._part
        for snapshot in snapshots:
            targets = snapshot.targets
            if targets == part.targets[: len(targets)]:
                continue
            first = 0
            while part.targets[first : first + 1] == targets[first : first + 1]:
                first += 1
            self._add_list(Kind.TARGETS, side.plain_targets(targets[first:]), times_s, first)
            part.targets = targets + part.targets[len(targets) :]


class _Pending:
    """What is not written yet."""

    def __init__(self) -> None:
        self.snapshots: list[Snapshot] = []
        self.rows = 0
        self.schemes: list[SchemeTimes] = []
        self.events: list[tuple[Event, bool]] = []
        self.mappings: list[MappingTable] = []
        self.vitals: list[Vitals] = []

    @property
    def is_empty(self) -> bool:
        return not (self.snapshots or self.events or self.mappings or self.vitals)


def _check(snapshot: Snapshot) -> None:
    regions: Regions = snapshot.regions
    if not math.isfinite(snapshot.time_s):
        raise InvalidInput(f"a snapshot has the time {snapshot.time_s}", hint="seconds since the epoch")
    if len({len(column) for column in vars(regions).values()}) != 1:
        raise InvalidInput("the columns of a snapshot's regions differ in length", hint="one value for each region")
    if len(regions) == 0:
        return
    if int(regions.nr_accesses.min()) < 0 or int(regions.nr_accesses.max()) > _MOST_COUNT:
        raise InvalidInput("a region has an impossible nr_accesses", hint="it is from 0 to 2^32 - 1")
    if int(np.max(regions.target)) >= len(snapshot.targets) or int(np.min(regions.target)) < 0:
        raise InvalidInput("a region is of a target that the snapshot does not have", hint="see Snapshot.targets")
