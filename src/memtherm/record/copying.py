"""A run, or a part of one, as a new record."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from memtherm.core.history import History
from memtherm.core.selection import EVERYTHING, Selection
from memtherm.record.header import RecordHeader
from memtherm.record.nothing import nothing_selected
from memtherm.record.writer import RecordWriter


class _Timed(Protocol):
    @property
    def time_s(self) -> float: ...


Thing = TypeVar("Thing", bound=_Timed)


class _Queue(Generic[Thing]):
    """Things in the order of time, taken up to a time."""

    def __init__(self, things: Iterator[Thing]) -> None:
        self._things = things
        self._next = next(things, None)

    def until(self, time_s: float) -> Iterator[Thing]:
        while self._next is not None and self._next.time_s <= time_s:
            yield self._next
            self._next = next(self._things, None)


def write_record(
    history: History, path: Path | str, header: RecordHeader, *, selection: Selection = EVERYTHING
) -> None:
    """Write what is selected of a run as a new record, with all that belongs to it.

    Raises:
        InvalidInput: nothing is selected; the file exists.
        HostCannot: the file cannot grow.
    """
    mappings, vitals = _Queue(history.mappings(selection)), _Queue(history.vitals(selection))
    events = _Queue(history.events(selection))
    is_empty = True
    with RecordWriter(path, header) as writer:
        for report in history.reports(selection):
            is_empty &= selection != EVERYTHING and len(report.snapshot.regions) == 0
            time_s = report.snapshot.time_s
            for table in mappings.until(time_s):
                writer.add_mappings(table)
            for one in vitals.until(time_s):
                writer.add_vitals(one)
            for event in events.until(time_s):
                if event.time_s != time_s or event.text not in report.events:
                    writer.add_event(event)
            writer.add(report)
    if is_empty:
        raise nothing_selected(history)
