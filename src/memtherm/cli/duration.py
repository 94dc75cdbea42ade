"""The reports of a session, until its time is up."""

import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from memtherm.core.report import Report
    from memtherm.session.session import Session


def reports_until(session: "Session", *, limit: int | None, duration_s: float | None) -> "Iterator[Report]":
    """At most `limit` reports, and no longer than `duration_s`, but not less than one window."""
    end_s = float("inf") if duration_s is None else time.monotonic() + duration_s
    timer = None
    for report in session.reports(limit=limit):
        if timer is None and duration_s is not None:
            # After the first window the end does not wait for the end of a long one.
            timer = threading.Timer(max(0.0, end_s - time.monotonic()), session.close)
            timer.daemon = True
            timer.start()
        yield report
        if time.monotonic() >= end_s:
            return
