"""Writes what a session reports into a record, with what the reports do not say: mappings, memory, CPU time."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable

from memtherm.core.history import Event
from memtherm.core.report import Report
from memtherm.record.writer import RecordWriter
from memtherm.session.details import DetailReader
from memtherm.session.session import Session

_VITALS_EVERY_S = 1.0
# Mappings are looked at after each window, or so seldom that it takes this share of a CPU, but each second.
_SHARE_FOR_MAPPINGS = 0.002
_MAPPINGS_AT_LEAST_EVERY_S = 1.0


def record_session(
    session: Session,
    reports: Iterable[Report],
    writer: RecordWriter,
    *,
    every_s: float = 0.0,
    limit: int | None = None,
) -> Generator[Report]:
    """Write `reports`, which are those of `session`, and hand each on that was written.

    What happens after the last report is written, too, when the iteration ends.  The writer stays open.

    Args:
        every_s: of all snapshots only the first after each such time is written; 0: all.
        limit: write so many at most; None: no limit.
    """
    details = DetailReader()
    try:
        due_s = mappings_due_s = vitals_due_s = 0.0
        written = 0
        for report in reports:
            now_s = time.monotonic()
            details.follow(report.snapshot.targets)
            if now_s >= mappings_due_s:
                cost_s = _write_mappings(details, writer)
                mappings_due_s = now_s + min(_MAPPINGS_AT_LEAST_EVERY_S, cost_s / _SHARE_FOR_MAPPINGS)
            if now_s >= vitals_due_s:
                vitals_due_s = now_s + _VITALS_EVERY_S
                writer.add_vitals(details.vitals())
            if now_s < due_s:
                _write_events(report.events, report.snapshot.time_s, writer)
                continue
            due_s = (due_s if now_s - due_s < every_s else now_s) + every_s
            writer.add(report)
            written += 1
            yield report
            if written == limit:
                return
    finally:
        details.close()
        session.close()
        _write_events(session.last_events, time.time(), writer)


def _write_mappings(details: DetailReader, writer: RecordWriter) -> float:
    """Returns the CPU time that it took."""
    began_s = time.thread_time()
    for table in details.mappings():
        writer.add_mappings(table)
    return time.thread_time() - began_s


def _write_events(texts: Iterable[str], time_s: float, writer: RecordWriter) -> None:
    for text in texts:
        writer.add_event(Event(time_s, text))
