"""A running monitor: its thread, its lifetime, and the reports that it hands out."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from types import TracebackType

from memtherm.core.report import Report, SchemeReport
from memtherm.core.scheme import Scheme
from memtherm.core.snapshot import Snapshot, TargetInfo
from memtherm.linux.libc import give_back_memory
from memtherm.session.loop import MonitorLoop
from memtherm.session.scheme_check import GuardedSchemes

# A reader that is slower than the windows gets the newest; 64 windows are 6 s at the default intervals.
_KEPT_REPORTS = 64
_REPORTS_TO_TRIM = 256


class Session:
    """Watches from `with` to its end, in a thread of its own.

    Reports wait for the reader; a reader that is too slow loses the oldest ones and is told how many.
    An error of the watching thread is raised in the reader.

    Attributes:
        targets: what is watched from the beginning; a snapshot's `targets` has those that came later, too.
        reasons: why it is watched this way, in sentences.

    Example:
        >>> with memtherm.monitor(pid=4242) as session:
        ...     for snapshot in session.snapshots(limit=10):
        ...         print(snapshot.working_set_bytes(min_access_rate=0.05))
    """

    def __init__(
        self,
        loop: MonitorLoop,
        *,
        schemes: GuardedSchemes,
        stop: threading.Event,
        targets: tuple[TargetInfo, ...],
        reasons: tuple[str, ...],
        held: ExitStack,
    ) -> None:
        self.targets = targets
        self.reasons = reasons
        self._schemes = schemes
        self._loop = loop
        self._held = held
        self._waiting: deque[Report] = deque()
        self._changed = threading.Condition()
        self._nr_lost = 0
        self._stop = stop
        self._ended = False
        self._problem: BaseException | None = None
        self._listeners: list[Callable[[Report | None], None]] = []
        self._thread = threading.Thread(target=self._run, name="memtherm", daemon=True)
        self._started = False

    def __enter__(self) -> Session:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def reports(self, *, limit: int | None = None) -> Iterator[Report]:
        """Reports as they come, at most `limit`; ends when all targets are gone or the session is closed."""
        self.start()
        given = 0
        while limit is None or given < limit:
            report = self._next(wait=True)
            if report is None:
                return
            given += 1
            yield report

    def snapshots(self, *, limit: int | None = None) -> Iterator[Snapshot]:
        """Only the snapshots of `reports`."""
        for report in self.reports(limit=limit):
            yield report.snapshot

    def take_waiting(self) -> Report | None:
        """The report that has waited longest, or None where none waits; raises an error of the watching thread."""
        return self._next(wait=False)

    @property
    def has_ended(self) -> bool:
        """Whether no more reports will come; some may still wait."""
        return self._ended

    def listen(self, listener: Callable[[Report | None], None]) -> Callable[[], None]:
        """Have this called with each report, and with None at the end, in the thread that watches: it must be quick.

        Returns what ends it.
        """
        with self._changed:
            self._listeners = [*self._listeners, listener]

        def leave() -> None:
            with self._changed:
                self._listeners = [one for one in self._listeners if one is not listener]

        return leave

    def replace_schemes(self, schemes: Iterable[Scheme]) -> None:
        """From the next window on let these schemes act instead.

        Ages stay; a scheme with the name of an old one keeps its statistics and what was charged to its quota.

        Raises:
            InvalidInput, NotSupported: what must not be applied; then the old ones stay.
        """
        self._schemes.replace(tuple(schemes))

    def set_goal_value(self, scheme: str, value: float) -> None:
        """Tell the present value of the `user_input` goal of a scheme, named by its name.

        Raises:
            InvalidInput: no such goal, or a negative value.

        Example:
            >>> session.set_goal_value("page out what is cold", requests_per_second)
        """
        self._schemes.set_goal_value(scheme, value)

    @property
    def last_schemes(self) -> tuple[SchemeReport, ...]:
        """After the end: what schemes did after the last report; `total` has all since the start."""
        return self._loop.last_schemes()

    @property
    def last_events(self) -> tuple[str, ...]:
        """What happened after the last report, such as the exit of the last target."""
        return self._loop.last_events()

    @property
    def all_gone(self) -> bool:
        """Whether every target has exited."""
        return self._loop.all_gone

    def close(self) -> None:
        """Stop watching and give up what is held on the targets.  May be called more than once.

        Waits for the watching thread; called in it, as by a finalizer, it lets that end by itself.
        """
        self._stop.set()
        if not self._started:
            self._release()
        elif threading.current_thread() is not self._thread:
            self._thread.join()

    def start(self) -> None:
        """What `with` does at its beginning, where `close` is called by hand."""
        if not self._started:
            self._started = True
            self._thread.start()

    def _run(self) -> None:
        try:
            for number, report in enumerate(self._loop.reports(stopped=self._stop.is_set)):
                self._put(report)
                if number % _REPORTS_TO_TRIM == 0:
                    # The first look at all memory leaves some MiB behind it.
                    give_back_memory()
        except BaseException as problem:  # handed over to the reader, whatever it is
            self._problem = problem
        finally:
            try:
                self._release()
            except BaseException as problem:  # as above
                self._problem = self._problem or problem
            with self._changed:
                self._ended = True
                self._changed.notify_all()
            self._tell_listeners(None)

    def _release(self) -> None:
        try:
            self._loop.close()
        finally:
            self._held.close()

    def _put(self, report: Report) -> None:
        with self._changed:
            self._waiting.append(report)
            if len(self._waiting) > _KEPT_REPORTS:
                self._waiting.popleft()
                self._nr_lost += 1
            self._changed.notify_all()
        self._tell_listeners(report)

    def _tell_listeners(self, report: Report | None) -> None:
        for listener in self._listeners:
            listener(report)

    def _next(self, *, wait: bool) -> Report | None:
        with self._changed:
            if wait:
                self._changed.wait_for(lambda: self._waiting or self._ended)
            if self._waiting:
                report, lost = self._waiting.popleft(), self._nr_lost
                self._nr_lost = 0
                if lost:
                    told = f"{lost} reports were lost: the reader is slower than the windows"
                    report = replace(report, events=(*report.events, told))
                return report
        self.raise_problem()
        return None

    def raise_problem(self) -> None:
        """Raise an error of the watching thread, if there was one that nobody was told of."""
        problem, self._problem = self._problem, None
        if problem is not None:
            raise problem
