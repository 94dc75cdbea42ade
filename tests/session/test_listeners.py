"""Who is told of each report of a session, and readers that do not wait."""

from __future__ import annotations

import threading
from contextlib import ExitStack

import numpy as np
import pytest

from memtherm.core.report import Report
from memtherm.core.snapshot import TargetInfo
from memtherm.policy.values import Policy
from memtherm.session.scheme_check import GuardedSchemes
from memtherm.session.schemes import SchemeRunner
from memtherm.session.session import Session
from memtherm.testing import VirtualClock
from session.scene import GIB, MIB, StillMetrics, census_probe, make_loop, watched


def make_session(*, after: int | None = None) -> tuple[Session, threading.Event]:
    """A session on virtual time that waits for the event before its first report, and fails after some."""
    clock, go = VirtualClock(), threading.Event()
    loop = make_loop([watched(clock, census_probe(clock, [(0, GIB)], present=[(0, 4 * MIB)]))], clock)
    take = loop.reports

    def reports(**options: object) -> object:
        go.wait()
        for number, report in enumerate(take(**options)):  # type: ignore[arg-type]
            if number == after:
                raise RuntimeError("the loop broke")
            yield report

    loop.reports = reports  # type: ignore[method-assign, assignment]
    runner = SchemeRunner((), metrics=StillMetrics(), clock=clock)
    session = Session(
        loop,
        schemes=GuardedSchemes(runner, policy=Policy(), apply=False, probe="simulated"),
        stop=threading.Event(),
        targets=(TargetInfo(7, "simulated"),),
        reasons=(),
        held=ExitStack(),
    )
    return session, go


def test_a_listener_hears_each_report_and_the_end() -> None:
    session, go = make_session(after=3)
    heard: list[Report | None] = []
    session.listen(heard.append)
    session.start()
    go.set()
    with pytest.raises(RuntimeError, match="the loop broke"):
        list(session.reports())
    session.close()
    assert [one is None for one in heard] == [False, False, False, True]


def test_one_who_has_left_hears_nothing() -> None:
    session, go = make_session(after=3)
    heard: list[Report | None] = []
    leave = session.listen(heard.append)
    leave()
    leave()
    session.start()
    go.set()
    with pytest.raises(RuntimeError):
        list(session.reports())
    assert heard == []


def test_a_reader_may_take_what_is_there() -> None:
    session, go = make_session(after=2)
    session.start()
    assert session.take_waiting() is None
    assert not session.has_ended
    ended = threading.Event()
    session.listen(lambda report: ended.set() if report is None else None)
    go.set()
    assert ended.wait(60)
    assert session.has_ended
    assert session.take_waiting() is not None
    assert session.take_waiting() is not None
    with pytest.raises(RuntimeError, match="the loop broke"):
        session.take_waiting()
    assert session.take_waiting() is None
    session.close()


def test_a_session_may_be_closed_by_its_own_thread() -> None:
    session, go = make_session()
    session.listen(lambda _: session.close())
    session.start()
    go.set()
    assert len(list(session.reports())) >= 1
    session.close()
    assert session.has_ended


def test_actions_of_others_begin_ages_again() -> None:
    clock = VirtualClock()
    loop = make_loop([watched(clock, census_probe(clock, [(0, GIB)], present=[(0, 8 * MIB)]))], clock)
    reports = loop.reports()
    for _ in range(3):
        next(reports)
    loop.note_acted_on(0, np.array([0], np.uint64), np.array([2 * MIB], np.uint64))
    loop.note_acted_on(5, np.array([0], np.uint64), np.array([2 * MIB], np.uint64))
    regions = next(reports).snapshot.regions
    assert regions.age_s[regions.start == 0] < regions.age_s[-1]
    heat = loop.page_heat(0)
    assert heat is not None
    assert heat.rates(np.array([0], np.uint64)).tolist() == [0]
