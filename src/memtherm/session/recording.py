"""Writes what a session reports into a record, with what the reports do not say: mappings, memory, CPU time."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from memtherm.core.history import Event
from memtherm.core.report import Report
from memtherm.record.writer import RecordWriter
from memtherm.session.details import DetailReader
from memtherm.session.session import Session

_DETAILS_EVERY_S = 1.0


def record_session(
    session: Session,
    reports: Iterable[Report],
    writer: RecordWriter,
    *,
    every_s: float = 0.0,
    limit: int | None = None,
) -> Iterator[Report]:
    """Write `reports`, which are those of `session`, and hand each on that was written.

    What happens after the last report is written, too, when the iteration ends.  The writer stays open.

    Args:
        every_s: of all snapshots only the first after each such time is written; 0: all.
        limit: write so many at most; None: no limit.
    """
    details = DetailReader()
    try:
        due_s = details_due_s = 0.0
        written = 0
        for report in reports:
            now_s = time.monotonic()
            if now_s >= details_due_s:
                details_due_s = now_s + _DETAILS_EVERY_S
                _write_details(details, report, writer)
            if now_s < due_s:
                _write_events(report.events, report.snapshot.time_s, writer)
                continue
            due_s = max(due_s + every_s, now_s) if every_s else 0.0
            writer.add(report)
            written += 1
            yield report
            if written == limit:
                return
    finally:
        details.close()
        session.close()
        _write_events(session.last_events, time.time(), writer)


def _write_details(details: DetailReader, report: Report, writer: RecordWriter) -> None:
    details.follow(report.snapshot.targets)
    for table in details.mappings():
        writer.add_mappings(table)
    writer.add_vitals(details.vitals())


def _write_events(texts: Iterable[str], time_s: float, writer: RecordWriter) -> None:
    for text in texts:
        writer.add_event(Event(time_s, text))
