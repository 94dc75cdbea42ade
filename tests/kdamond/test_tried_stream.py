"""What the trace event of tried regions tells; the real one is heard in guests (guest/test_session.py)."""

from pathlib import Path

import numpy as np
import pytest

from memtherm.errors import NotSupported
from memtherm.kdamond import tried_stream
from memtherm.kdamond.tried_stream import TriedStream, why_not_heard
from memtherm.linux.tracefs import Loss, TraceEvents

FIELDS = [(name, np.uint64) for name in ("scheme_idx", "target_idx", "start", "end", "nr_accesses", "age")]


class Ring:
    """An EventStream: a test says what is in it, and its counter of lost events."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, ...]] = []
        self.losses: tuple[Loss, ...] = ()
        self.lost = 0

    def read(self) -> TraceEvents:
        rows, losses = self.rows, self.losses
        self.rows, self.losses = [], ()
        count = len(rows)
        return TraceEvents(np.zeros(count, np.int64), np.zeros(count, np.int32), np.array(rows, FIELDS), losses, 0)

    def lost_events(self) -> int:
        return self.lost


@pytest.fixture
def ring(monkeypatch: pytest.MonkeyPatch) -> Ring:
    one = Ring()
    monkeypatch.setattr(tried_stream, "EventStream", lambda *_, **__: one)
    return one


def test_regions_come_with_their_scheme_and_target(ring: Ring) -> None:
    stream = TriedStream(kdamond_pid=7)
    ring.rows = [(2, 1, 4096, 8192, 3, 5)]
    found = stream.read()
    assert (found.scheme.tolist(), found.regions.target.tolist()) == ([2], [1])
    assert (found.regions.start.tolist(), found.regions.end.tolist()) == ([4096], [8192])
    assert (found.regions.nr_accesses.tolist(), found.regions.age_windows.tolist()) == ([3], [5])
    assert found.lost_events == 0


def test_lost_events_are_counted_from_one_time_to_the_next(ring: Ring) -> None:
    stream = TriedStream(kdamond_pid=7)
    loss = Loss(cpu=0, after_ns=0, before_ns=1, count=-1)
    for counter, told in ((5, 5), (5, 0), (8, 3)):
        ring.lost, ring.losses = counter, (loss,)
        assert stream.read().lost_events == told
    assert stream.read().lost_events == 0


def test_why_nothing_is_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tried_stream, "find_tracefs", lambda: tmp_path)
    assert why_not_heard() == "this kernel has no trace event damon:damos_before_apply"
    (tmp_path / "events/damon/damos_before_apply").mkdir(parents=True)
    assert why_not_heard() == ""

    def nowhere() -> Path:
        raise NotSupported("tracefs is not mounted", hint="mount it")

    monkeypatch.setattr(tried_stream, "find_tracefs", nowhere)
    assert why_not_heard() == "tracefs is not mounted"
