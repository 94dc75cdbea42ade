"""`watch`: which rows of an array are hot, and schemes and advice for its memory, in a thread of its own."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from memtherm.arrays import lifetime
from memtherm.arrays.engine import Engine, WatchPlan, begin_engine, planned_watch
from memtherm.arrays.memory import ArrayMemory, Owner, as_numpy
from memtherm.arrays.rows import RowMap, Rows
from memtherm.core.page_heat import PageHeat
from memtherm.core.plan import Outcome, Refusal, ranges_to_reset
from memtherm.core.ranges import Addresses, Counts
from memtherm.core.regions import Range
from memtherm.core.report import Report
from memtherm.core.scheme import Action, Scheme
from memtherm.core.snapshot import Snapshot
from memtherm.errors import InvalidInput, TargetGone
from memtherm.policy.values import Policy
from memtherm.units import PAGE_SIZE

_KEPT_EVENTS = 100
_FORKED = "is watched by the process that this one is a fork of"
_NOT_BEGUN = "use it in a with statement, or call start()"


def watch(
    array: object,
    *,
    name: str | None = None,
    way: str = "auto",
    interval_s: float | None = None,
    schemes: Iterable[Scheme] = (),
    policy: Policy | None = None,
    apply: bool = False,
) -> WatchedArray:
    """Watch the memory of an array of this process, as an ordinary user; nothing begins before `with` or `start`.

    The array stays the program's own: it is held weakly, and the watch ends when it is freed.  (A bytes or bytearray
    is held while it is watched.)  The watch ends, too, at the exit of the interpreter, and in the child of a fork.

    Args:
        array: a numpy array, or what gives its memory by the buffer protocol, `__array_interface__`, DLPack or
            `to_numpy` (a column of pandas); views, strides and read-only memory are fine.
        name: how messages and reports call it; schemes can be meant for it by this name (`Scheme.targets`).
        way: `userfaultfd`, `bpf`, `smaps`, `userfaultfd-writes`, `softdirty`, or `auto` for the best of this host.
        interval_s: seconds between two looks, in place of the policy's intervals; without either they fit themselves
            to 1 % of a CPU.
        schemes: act on the array's memory; besides those of the policy.
        policy: schemes, intervals and guards from a file; its targets mean nothing here.
        apply: without it schemes only tell what they would do.

    Raises:
        InvalidInput: what has no memory of its own that could be watched, a wrong way or interval, or schemes that
            must not be applied.

    Example:
        >>> with memtherm.watch(table, name="embeddings") as watched:
        ...     cold = watched.rows_below(0.01)
        ...     print(watched.advise("pageout", cold).applied_bytes)
    """
    values = as_numpy(array)
    plan = planned_watch(way=way, interval_s=interval_s, schemes=schemes, policy=policy, apply=apply)
    name = name or f"{values.dtype}{list(values.shape)}"
    return WatchedArray(name, Owner(array, values), RowMap(ArrayMemory.of(values)), plan)


class WatchedArray:
    """An array that is watched from `with` (or `start`) to its end (or `close`), in a thread of its own.

    May be used from any thread.  Pages count that lie wholly inside the array; a row is an index of the first axis.
    An error of the watching thread is raised in whoever reads.

    Attributes:
        name: of the array.
    """

    def __init__(self, name: str, owner: Owner, rows: RowMap, plan: WatchPlan) -> None:
        self.name = name
        self._owner = owner
        self._rows = rows
        self._plan = plan
        self._engine: Engine | None = None
        self._pid = os.getpid()
        self._latest: tuple[Snapshot, PageHeat | None] | None = None
        self._events: list[str] = []
        self._why_ended = ""
        self._changed = threading.Condition()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        beginning = asyncio.ensure_future(asyncio.to_thread(self.start))
        try:
            return await asyncio.shield(beginning)
        except asyncio.CancelledError:
            # The thread begins the watch all the same, and nobody would end it.
            beginning.add_done_callback(self._close_begun)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.close)

    def start(self) -> Self:
        """Begin to watch; a watch begins once.

        Raises:
            InvalidInput: the array has been freed, its memory is watched already, or schemes need reads to be seen
                where only writes are.
            HostCannot: no way to see accesses works here; the message has the reason of each.
        """
        with lifetime.beginning:
            if self._why_ended:
                raise InvalidInput(f'"{self.name}" {self._why_ended}', hint="call memtherm.watch again")
            if self._engine is not None:
                return self
            owner = self._owner.get()
            if why := self._owner.why_gone(owner):
                raise InvalidInput(
                    f'the array "{self.name}" {why} before its watch began', hint="keep a reference to it"
                )
            lifetime.begin(self)
            try:
                self._engine = begin_engine(
                    self._plan, name=self.name, owner=self._owner, rows=self._rows, on_end=self._note_end
                )
            except BaseException:
                lifetime.end(self)
                raise
            self._engine.session.listen(self._note)
            self._engine.session.start()
        # The last reference may be this one; then the array dies here.
        del owner
        return self

    def _close_begun(self, beginning: asyncio.Future[Self]) -> None:
        if not beginning.cancelled() and beginning.exception() is None:
            self.close()

    def close(self) -> None:
        """End the watch, and undo what was changed on the mappings.  May be called again; results stay readable."""
        engine = self._engine
        if engine is not None and not self._is_fork:
            engine.session.close()
        self._note_end("is not watched any more")
        if engine is None:
            self._owner.let_go()

    @property
    def way(self) -> str:
        """The way that accesses are seen by; before the beginning the one that was asked for."""
        return self._engine.way.name if self._engine else self._plan.way

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it is watched this way, in sentences; from the beginning on."""
        return self._engine.way.reasons if self._engine else ()

    @property
    def writes_only(self) -> bool:
        """Whether memory that is only read looks idle: then take no rate of 0 for cold."""
        return self._engine.way.writes_only if self._engine else False

    @property
    def changes(self) -> tuple[str, ...]:
        """What was changed on the mappings to watch them, in sentences; undone at the end."""
        return self._engine.changes if self._engine else ()

    @property
    def pages(self) -> Addresses:
        """Addresses of the watched pages (uint64): those that lie wholly inside the array."""
        return self._rows.pages

    @property
    def shared_pages(self) -> Addresses:
        """Addresses of the pages that hold elements of the array and something else: never acted on (uint64)."""
        return self._rows.shared

    @property
    def own_bytes(self) -> int:
        """Memory that holds nothing but elements of the array: only this is acted on."""
        return int(self._rows.own.sum()) * PAGE_SIZE

    @property
    def range(self) -> Range:
        """Start and end of the watched pages."""
        return int(self.pages[0]), int(self.pages[-1]) + PAGE_SIZE

    @property
    def cost(self) -> float:
        """CPU time of watching as a share of one CPU, 0..1, as measured in the last window; NaN before there is one.

        What cleared pages cost the program at their next access is not in it; benchmarks/arrays.py measures that.
        """
        latest = self._latest
        return latest[0].conditions.agent_cpu_percent / 100 if latest else float("nan")

    @property
    def events(self) -> tuple[str, ...]:
        """What happened, in sentences, such as the end of the array; the latest 100."""
        engine = self._engine
        ended = [f'"{self.name}" {self._why_ended}'] if self._why_ended else []
        last = [] if engine is None or self._is_fork else [*engine.session.last_events, *engine.held.events]
        return tuple(dict.fromkeys([*self._events, *last, *ended]))

    def reports(self, limit: int | None = None) -> Iterator[Report]:
        """Reports as they come, at most `limit`; ends with the watch.

        Each report goes to one reader; those that nobody read yet wait, the newest 64 of them.

        Raises InvalidInput where the watch has not begun.
        """
        session = self._begun().session
        reports = session.reports(limit=limit)
        while not self._is_fork and (report := next(reports, None)) is not None:
            yield report

    def snapshots(self, limit: int | None = None) -> Iterator[Snapshot]:
        """Only the snapshots of `reports`."""
        for report in self.reports(limit):
            yield report.snapshot

    async def async_snapshots(self, limit: int | None = None) -> AsyncIterator[Snapshot]:
        """`snapshots` for programs that run on asyncio; the event loop is free meanwhile, and may cancel it.

        Example:
            >>> async with memtherm.watch(table) as watched:
            ...     async for snapshot in watched.async_snapshots(limit=10):
            ...         print(snapshot.working_set_bytes())
        """
        session, loop, news = self._begun().session, asyncio.get_running_loop(), asyncio.Event()

        def tell(_: Report | None) -> None:
            with suppress(RuntimeError):  # the loop was closed before its reader
                loop.call_soon_threadsafe(news.set)

        leave = session.listen(tell)
        try:
            given = 0
            while (limit is None or given < limit) and not self._is_fork:
                news.clear()
                has_ended = session.has_ended
                report = session.take_waiting()
                if report is not None:
                    given += 1
                    yield report.snapshot
                elif has_ended:
                    return
                else:
                    await news.wait()
        finally:
            leave()

    def access_rate(self, by: str = "row") -> NDArray[np.float64]:
        """Share of the looks of the last window that found an access, 0..1, for each row or each of `pages`.

        A row is as hot as its hottest page; NaN for rows that lie on no watched page.  A page that the budget did
        not allow to look at has the rate that is estimated for its region.  Waits for the first window.

        Args:
            by: `row` or `page`.  An array of one axis has a row for each element.

        Raises:
            InvalidInput: neither of them, or the watch has not begun.
            TargetGone: the watch ended before there was a window.
        """
        rates = self._rates()
        return self._rows.hottest(rates) if _is_by_row(by) else rates

    def age(self, by: str = "row") -> NDArray[np.float64]:
        """How long the rate has stayed about the same, seconds, for each row or each of `pages`.

        A row is as old as its youngest page.  Waits, and raises, as `access_rate`.
        """
        snapshot, heat = self._window()
        ages = _ages(snapshot, heat, self.pages)
        return self._rows.lowest(ages) if _is_by_row(by) else ages

    def rows_below(self, rate: float) -> Counts:
        """The rows whose access rate is below this, ascending (int64); not those that lie on no watched page.

        Waits, and raises, as `access_rate`.
        """
        if not isinstance(rate, int | float | np.number) or not 0 <= rate <= 1:
            raise InvalidInput(f"an access rate of {rate!r}", hint="a rate is from 0 to 1")
        return self._rows.rows_below(self._rates(), rate)

    def advise(self, action: Action | str, rows: Rows = None, *, node: int | None = None) -> Outcome:
        """Act on the memory of some rows now: on the pages that hold nothing but elements of these rows.

        This is not a dry run, whatever `apply` is.  Guards hold as for schemes; huge page advice is undone at the end.

        Args:
            action: `pageout`, `cold`, `willneed`, `collapse`, `hugepage`, `nohugepage`, `migrate_hot`, `migrate_cold`.
            rows: a slice, row numbers or a mask; all without.
            node: the NUMA node to migrate to.

        Returns:
            Bytes that were tried, and applied as found afterwards, and what was refused with each reason; among it the
            pages that these rows share.

        Raises:
            InvalidInput: an unknown action or row, migration without a node, or the watch has not begun.
            NotSupported: an action that cannot be done on own memory.
            TargetGone: the watch has ended.
        """
        engine = self._begun()
        if self._is_fork:
            raise TargetGone(f'"{self.name}" {_FORKED}', hint="call memtherm.watch in the child")
        theirs, which = self._rows.pages_and_own_pages_of(rows)
        shared_bytes = int((theirs & ~which).sum()) * PAGE_SIZE
        working_set_bytes = self._latest[0].working_set_bytes() if self._latest else 0
        planned, outcome = engine.advise(
            action, *self._rows.ranges(which), node=node, working_set_bytes=working_set_bytes
        )
        engine.loop.note_acted_on(0, *ranges_to_reset(planned, outcome))
        if not shared_bytes:
            return outcome
        refusal = Refusal("pages that these rows share with other memory", shared_bytes)
        return replace(outcome, tried_bytes=outcome.tried_bytes + shared_bytes, refused=(*outcome.refused, refusal))

    def replace_schemes(self, schemes: Iterable[Scheme]) -> None:
        """From the next window on let these schemes act instead; see Session.replace_schemes.

        Raises InvalidInput or NotSupported for what must not be applied; then the old ones stay.
        """
        self._begun().session.replace_schemes(schemes)

    def set_goal_value(self, scheme: str, value: float) -> None:
        """Tell the present value of the `user_input` goal of a scheme; see Session.set_goal_value."""
        self._begun().session.set_goal_value(scheme, value)

    def pause(self, *, timeout_s: float) -> bool:
        """For a fork: let no step run from now on; whether that came about in time."""
        engine = self._engine
        if engine is None:
            return False
        engine.pausing.set()
        is_paused = engine.held.turn.acquire(timeout=timeout_s)
        engine.pausing.clear()
        return is_paused

    def go_on(self) -> None:
        """After a fork."""
        if self._engine is not None:
            self._engine.held.turn.release()

    def end_in_child(self, *, is_whole: bool) -> None:
        """In the child of a fork."""
        # What its threads held at the fork stays locked for ever.
        self._changed = threading.Condition()
        if self._engine is not None:
            self._engine.held.end_in_child(_FORKED, is_whole=is_whole)

    @property
    def _is_fork(self) -> bool:
        return os.getpid() != self._pid

    def _begun(self) -> Engine:
        if self._engine is None:
            raise InvalidInput(f'"{self.name}" is not watched yet', hint=_NOT_BEGUN)
        return self._engine

    def _note(self, report: Report | None) -> None:
        """In the watching thread, after each window and at the end."""
        engine = self._begun()
        if report is None:
            self._note_end(engine.held.why_ended or "is not watched any more")
            return
        heat = engine.loop.page_heat(0)
        with self._changed:
            self._latest = report.snapshot, heat
            self._events = [*self._events, *report.events][-_KEPT_EVENTS:]
            self._changed.notify_all()

    def _note_end(self, why: str) -> None:
        if self._engine is not None:
            self._engine.stop.set()
        lifetime.end(self)
        with self._changed:
            self._why_ended = self._why_ended or why
            self._changed.notify_all()

    def _window(self) -> tuple[Snapshot, PageHeat | None]:
        """The last window; waits for the first."""
        engine = self._begun()
        with self._changed:
            self._changed.wait_for(lambda: self._latest is not None or bool(self._why_ended))
            latest = self._latest
        if latest is None:
            engine.session.raise_problem()
            raise TargetGone(
                f'"{self.name}" {self._why_ended}: no window had ended', hint="keep the array, and watch it for longer"
            )
        return latest

    def _rates(self) -> NDArray[np.float64]:
        snapshot, heat = self._window()
        return _rates(snapshot, heat, self.pages)


def _is_by_row(by: str) -> bool:
    if by not in ("row", "page"):
        raise InvalidInput(f"by {by!r}", hint="by is row or page")
    return by == "row"


def _rates(snapshot: Snapshot, heat: PageHeat | None, pages: Addresses) -> NDArray[np.float64]:
    rates = np.full(len(pages), np.nan) if heat is None else heat.rates(pages)
    unknown = np.flatnonzero(np.isnan(rates))
    if len(unknown):
        rates[unknown] = _of_regions(snapshot, snapshot.regions.access_rate, pages[unknown])
    return rates


def _ages(snapshot: Snapshot, heat: PageHeat | None, pages: Addresses) -> NDArray[np.float64]:
    return _of_regions(snapshot, snapshot.regions.age_s, pages) if heat is None else heat.ages_s(pages)


def _of_regions(snapshot: Snapshot, values: NDArray[np.float64], pages: Addresses) -> NDArray[np.float64]:
    """For each page the value of the region that it lies in; NaN where it lies in none."""
    regions, found = snapshot.regions, np.full(len(pages), np.nan)
    row = np.searchsorted(regions.end, pages, side="right")
    inside = np.flatnonzero(row < len(regions))
    inside = inside[regions.start[row[inside]] <= pages[inside]]
    found[inside] = values[row[inside]]
    return found
