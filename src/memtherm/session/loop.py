"""The loop of a monitor: take a window, let schemes act, hand out a report."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from memtherm.core.page_heat import PageHeat
from memtherm.core.protocols import Clock
from memtherm.core.ranges import Addresses
from memtherm.core.report import Report, SchemeReport
from memtherm.core.snapshot import Conditions, Snapshot
from memtherm.errors import HostCannot, TargetGone
from memtherm.session.belief import doubts
from memtherm.session.census_windows import CensusWindows
from memtherm.session.engines import AnyWindows, Engines, Watched
from memtherm.session.method import ASKED_FOR, Choice, MethodChooser
from memtherm.session.schemes import SchemeRunner
from memtherm.units import format_size

# How often newcomers are looked for, where targets are named by what several processes have in common.
_FIND_EVERY_S = 1.0


@dataclass(frozen=True)
class Changes:
    """Targets that have come, pids of those to let go of with the reason, and what went wrong, in sentences."""

    newcomers: Sequence[Watched] = ()
    left: Mapping[int, str] = field(default_factory=dict)
    problems: Sequence[str] = ()


class MonitorLoop:
    """Runs in the thread that iterates over `reports`; ends when all targets are gone.

    Args:
        watched: the targets; their order gives `Regions.target`.
        engines: makes the windows of a method.
        schemes: what acts on each window; it needs actors.
        canary: why the probe is not to be believed now, or an empty text; asked now and then.
        find: what has changed about the targets since it was asked last.
    """

    def __init__(
        self,
        watched: Sequence[Watched],
        *,
        engines: Engines,
        schemes: SchemeRunner,
        clock: Clock,
        canary: Callable[[], str] = lambda: "",
        find: Callable[[], Changes] = Changes,
    ) -> None:
        self._watched = dict(enumerate(watched))
        self._targets = [one.info for one in watched]
        self._engines = engines
        self._clock = clock
        self._canary = _Canary(canary, clock)
        self._schemes = schemes
        self._find = find
        self._find_at_s = clock.monotonic_s() + _FIND_EVERY_S
        self._events: list[str] = []
        self._nr_gone = 0
        self._counted_from = (0.0, 0.0)
        blind = [one.name for one in watched if one.census is None]
        self._chooser = MethodChooser(
            engines.attributes,
            no_census=f"the probe of {', '.join(blind)} does not see every page" if blind else "",
            time_of_look_s=self._time_of_look_s,
            no_kernel=engines.no_kernel,
            kernel_purpose=engines.kernel_purpose,
        )
        self._choice = Choice("", "")
        self._windows: AnyWindows
        # Filled by other threads, and taken in at the end of a window.
        self._acted_on: deque[tuple[int, Addresses, Addresses]] = deque()

    def reports(self, *, stopped: Callable[[], bool] = lambda: False) -> Iterator[Report]:
        """One report for each aggregation window, until `stopped` or no target is left."""
        # CPU time is that of the running thread, which need not be the one that made the loop.
        self._counted_from = (self._clock.monotonic_s(), self._clock.cpu_s())
        if not self._choice.method and self._watched:
            self._begin(self._chooser.first(self._clock.monotonic_s()))
        while self._watched and not stopped():
            try:
                took_all = self._windows.take(stopped, self._between_looks)
            except HostCannot as problem:
                if not self._may_leave_kernel(self._choice):
                    raise
                self._leave_kernel(problem)
                continue
            self._collect()
            if not took_all:
                break
            self._take_in_actions()
            ended_s = self._windows.ended_s
            snapshot = Snapshot(
                self._clock.epoch_s() if ended_s is None else ended_s,
                tuple(self._targets),
                self._windows.regions(),
                self._conditions(),
            )
            self._apply_schemes(window_ended=True)
            schemes = self._scheme_reports()
            events, self._events = tuple(self._events), []
            yield Report(snapshot, schemes, events)
            self._follow_targets()
            self._review_method()

    def last_schemes(self) -> tuple[SchemeReport, ...]:
        """What schemes did after the last report; `total` is all since the start."""
        return self._scheme_reports()

    def last_events(self) -> tuple[str, ...]:
        """What happened after the last report."""
        return tuple(self._events)

    @property
    def all_gone(self) -> bool:
        """Whether no target was left to watch, rather than the session ended by its user."""
        return self._nr_gone == len(self._targets)

    def page_heat(self, target: int) -> PageHeat | None:
        """Rates and ages page by page; None without a census.  For the running thread, between two reports."""
        return self._windows.heat(target) if isinstance(self._windows, CensusWindows) else None

    def note_acted_on(self, target: int, start: Addresses, end: Addresses) -> None:
        """Somebody else acted on this memory (sorted, disjoint): its age starts again.  From any thread."""
        self._acted_on.append((target, start, end))

    def close(self) -> None:
        """Undo what shall not outlast the session, and let go of all targets."""
        try:
            for one in self._watched.values():
                try:
                    self._undo(one)
                finally:
                    one.close()
        finally:
            self._watched.clear()
            if self._choice.method:
                self._windows.close()
                self._collect()

    def _begin(self, choice: Choice) -> None:
        """Go on with another method; without the kernel's DAMON where that turns out not to work."""
        if self._choice.method:
            self._windows.close()
            self._collect()
        try:
            self._windows = self._engines.begin(choice.method, self._watched)
        except HostCannot as problem:
            if not self._may_leave_kernel(choice):
                raise
            choice = self._without_kernel(problem)
            self._windows = self._engines.begin(choice.method, self._watched)
        self._choice = choice

    @staticmethod
    def _may_leave_kernel(choice: Choice) -> bool:
        return choice.method == "kdamond" and choice.why != ASKED_FOR

    def _without_kernel(self, problem: HostCannot) -> Choice:
        self._events.append(f"not by the kernel's DAMON: {problem}")
        return self._chooser.without_kernel(f"the kernel's DAMON cannot be used: {problem}", self._clock.monotonic_s())

    def _leave_kernel(self, problem: HostCannot) -> None:
        """Go on without the kernel's DAMON, which somebody else has taken away in the middle of a window."""
        self._collect()
        if not self._watched:
            return
        for report in self._windows.handed_down_reports():
            if report.total.applied_bytes:
                done = format_size(report.total.applied_bytes)
                self._events.append(f'scheme "{report.name}": the kernel had applied it to {done} by then')
        choice = self._without_kernel(problem)
        self._events.append(f"{choice.method} from here on, with new ages: {choice.why}")
        self._begin(choice)

    def _review_method(self) -> None:
        choice = self._chooser.next(
            self._choice.method,
            needed_interval_s=self._windows.needed_interval_s,
            now_s=self._clock.monotonic_s(),
        )
        if choice is not None:
            self._events.append(f"{choice.method} from here on, with new ages: {choice.why}")
            self._begin(choice)

    def _time_of_look_s(self) -> float:
        began_s = self._clock.cpu_s()
        for one in self._watched.values():
            if one.census is not None:
                with suppress(TargetGone):  # the first window will find it out
                    one.census.ranges()
                    one.census.look()
        return self._clock.cpu_s() - began_s

    def _collect(self) -> None:
        """What happened in the window: targets that have gone, and events."""
        self._events += self._windows.events
        self._windows.events.clear()
        for target, reason in self._windows.gone.items():
            self._drop(target, reason)
        self._windows.gone.clear()

    def _take_in_actions(self) -> None:
        while self._acted_on:
            target, start, end = self._acted_on.popleft()
            if target in self._watched:
                self._windows.reset_age(target, start, end)

    def _labels(self) -> dict[int, tuple[str, ...]]:
        return {target: one.info.labels for target, one in self._watched.items()}

    def _between_looks(self) -> None:
        if self._schemes.acts_between_windows:
            self._apply_schemes(window_ended=False)

    def _scheme_reports(self) -> tuple[SchemeReport, ...]:
        """Of all schemes in the policy's order, whoever carries them out."""
        reports = self._schemes.reports()
        if not self._choice.method:
            return reports
        handed_down = {report.name: report for report in self._windows.handed_down_reports()}
        return tuple(handed_down.get(report.name, report) for report in reports)

    def _apply_schemes(self, *, window_ended: bool) -> None:
        actors = {target: one.actor for target, one in self._watched.items() if one.actor is not None}
        blocked = f"stopped: {self._canary.failure}" if self._canary.failure else ""
        self._schemes.apply(self._windows, actors, self._labels(), window_ended=window_ended, blocked=blocked)
        if window_ended:
            for target, reason in self._schemes.gone.items():
                self._drop(target, reason)
            self._schemes.gone.clear()

    def _follow_targets(self) -> None:
        now_s = self._clock.monotonic_s()
        if now_s < self._find_at_s:
            return
        self._find_at_s = now_s + _FIND_EVERY_S
        changes = self._find()
        self._events += changes.problems
        for target, one in list(self._watched.items()):
            if one.info.pid in changes.left:
                self._undo(one)
                self._drop(target, f"{one.name} {changes.left[one.info.pid]}")
        for one in changes.newcomers:
            self._add(one)

    def _add(self, one: Watched) -> None:
        target = len(self._targets)
        self._targets.append(one.info)
        self._watched[target] = one
        self._engines.add(self._windows, target, one)
        self._events.append(f"{one.name} is watched, too")

    def _undo(self, one: Watched) -> None:
        if one.actor is None:
            return
        try:
            with suppress(TargetGone):
                self._events += (f"{one.name}: {what}" for what in one.actor.end())
        except HostCannot as problem:  # the other targets are to be undone, or watched, all the same
            self._events.append(f"{one.name}: what was changed could not be undone: {problem}")

    def _conditions(self) -> Conditions:
        canary_failure = self._canary.ask()
        # From one snapshot to the next, so that splitting, mappings and actions are counted too.
        (began_s, began_cpu_s), now = self._counted_from, (self._clock.monotonic_s(), self._clock.cpu_s())
        self._counted_from = now
        conditions = replace(
            self._windows.conditions(),
            why=self._choice.why,
            window_s=now[0] - began_s,
            agent_cpu_s=now[1] - began_cpu_s,
        )
        return replace(conditions, doubts=doubts(conditions, canary_failure=canary_failure))

    def _drop(self, target: int, reason: str) -> None:
        """Let go of a target that has exited, or is no longer meant."""
        if target not in self._watched:
            return
        self._watched.pop(target).close()
        self._windows.remove(target)
        self._nr_gone += 1
        self._events.append(reason)


class _Canary:
    """Asks now and then whether the probe still sees right; once wrong, it is never believed again."""

    _EVERY_S = 300.0

    def __init__(self, ask: Callable[[], str], clock: Clock) -> None:
        self._ask = ask
        self._clock = clock
        self._due_s = clock.monotonic_s() + self._EVERY_S
        self.failure = ""

    def ask(self) -> str:
        if not self.failure and self._clock.monotonic_s() >= self._due_s:
            self._due_s = self._clock.monotonic_s() + self._EVERY_S
            self.failure = self._ask()
        return self.failure
