"""The loop of a monitor: take a window, let schemes act, hand out a report."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np

from memtherm.core.attributes import MonitoringAttributes
from memtherm.core.plan import add_outcomes, plan_scheme, rows_to_reset
from memtherm.core.protocols import Actor, CensusProbe, Clock, Probe
from memtherm.core.report import Report, SchemeReport, join_refusals
from memtherm.core.scheme import Scheme, SchemeStatistics
from memtherm.core.snapshot import Conditions, Snapshot, TargetInfo
from memtherm.errors import TargetGone
from memtherm.session.belief import doubts
from memtherm.session.census_windows import CensusWindows
from memtherm.session.method import Choice, MethodChooser
from memtherm.session.sampling_windows import SamplingWindows

# Looking up mappings and verifying effects takes 40 to 60 ms per GiB of a target.  After an action the
# scheme waits this many times as long as the action took: acting takes 5 % of the time at most, and 1 %
# where nothing comes of it, as in a dry run.
_PAUSE_AFTER_EFFECT = 19
_PAUSE_AFTER_NONE = 99


@dataclass(frozen=True)
class Watched:
    """One target with its ways to be seen, and to be acted on where schemes need it.

    Attributes:
        census: None where its every page cannot be seen.
    """

    info: TargetInfo
    probe: Probe
    census: CensusProbe | None = None
    actor: Actor | None = None

    @property
    def name(self) -> str:
        return f"pid {self.info.pid} ({self.info.name})"

    def close(self) -> None:
        for part in (self.probe, self.census, self.actor):
            if part is not None:
                part.close()


class MonitorLoop:
    """Runs in the thread that iterates over `reports`; ends when all targets are gone.

    Args:
        watched: the targets; their order gives `Regions.target`.
        schemes: tried in this order on each window; they need actors.
        canary: why the probe is not to be believed now, or an empty text; asked now and then.
    """

    def __init__(
        self,
        watched: Sequence[Watched],
        *,
        attributes: MonitoringAttributes,
        schemes: Sequence[Scheme] = (),
        clock: Clock,
        rng: np.random.Generator,
        canary: Callable[[], str] = lambda: "",
    ) -> None:
        self._watched = dict(enumerate(watched))
        self._targets = tuple(one.info for one in watched)
        self._attributes = attributes
        self._clock = clock
        self._rng = rng
        self._canary = _Canary(canary, clock)
        self._schemes = [_RunningScheme(scheme) for scheme in schemes]
        self._events: list[str] = []
        self._nr_gone = 0
        self._counted_from = (0.0, 0.0)
        blind = [one.name for one in watched if one.census is None]
        self._chooser = MethodChooser(
            attributes,
            no_census=f"the probe of {', '.join(blind)} does not see every page" if blind else "",
            time_of_look_s=self._time_of_look_s,
        )
        self._choice = Choice("", "")
        self._windows: CensusWindows | SamplingWindows

    def reports(self, *, stopped: Callable[[], bool] = lambda: False) -> Iterator[Report]:
        """One report for each aggregation window, until `stopped` or no target is left."""
        # CPU time is that of the running thread, which need not be the one that made the loop.
        self._counted_from = (self._clock.monotonic_s(), self._clock.cpu_s())
        if not self._choice.method and self._watched:
            self._begin(self._chooser.first(self._clock.monotonic_s()))
        while self._watched and not stopped():
            took_all = self._windows.take(stopped)
            self._collect()
            if not took_all:
                break
            snapshot = Snapshot(self._clock.epoch_s(), self._targets, self._windows.regions(), self._conditions())
            schemes = tuple(self._run_scheme(scheme) for scheme in self._schemes)
            events, self._events = tuple(self._events), []
            yield Report(snapshot, schemes, events)
            self._review_method()

    def last_events(self) -> tuple[str, ...]:
        """What happened after the last report."""
        return tuple(self._events)

    @property
    def all_gone(self) -> bool:
        """Whether every target has exited, rather than been let go."""
        return self._nr_gone == len(self._targets)

    def close(self) -> None:
        for one in self._watched.values():
            one.close()
        self._watched.clear()

    def _begin(self, choice: Choice) -> None:
        names = {target: one.name for target, one in self._watched.items()}
        self._choice = choice
        if choice.method == "census":
            census = {target: one.census for target, one in self._watched.items() if one.census is not None}
            self._windows = CensusWindows(
                census, names=names, attributes=self._attributes, clock=self._clock, rng=self._rng
            )
        else:
            probes = {target: one.probe for target, one in self._watched.items()}
            self._windows = SamplingWindows(
                probes, names=names, attributes=self._attributes, clock=self._clock, rng=self._rng
            )

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

    def _run_scheme(self, scheme: "_RunningScheme") -> SchemeReport:
        # Matched anew for each scheme: one before it in the list may have reset ages (damon-spec §2.3).
        regions = self._windows.regions()
        planned = plan_scheme(scheme.scheme, regions)
        outcomes = []
        began_s = self._clock.monotonic_s()
        if began_s >= scheme.not_before_s and not self._canary.failure:
            for action in planned:
                actor = self._watched[action.target].actor if action.target in self._watched else None
                if actor is None or self._windows.is_outdated(action.target):
                    continue
                try:
                    outcome = actor.carry_out(action)
                except TargetGone as problem:
                    self._drop(action.target, str(problem))
                    break  # the rows of the other plans are those of the table before
                outcomes.append(outcome)
                self._windows.reset_age(regions, rows_to_reset(action, outcome))
            now_s = self._clock.monotonic_s()
            has_effect = any(outcome.applied_bytes for outcome in outcomes)
            pause = _PAUSE_AFTER_EFFECT if has_effect else _PAUSE_AFTER_NONE
            scheme.not_before_s = now_s + pause * (now_s - began_s)
        scheme.statistics = add_outcomes(scheme.statistics, outcomes)
        return SchemeReport(
            name=scheme.scheme.name,
            action=scheme.scheme.action,
            matched_bytes=sum(int((action.end - action.start).sum()) for action in planned),
            tried_bytes=sum(outcome.tried_bytes for outcome in outcomes),
            applied_bytes=sum(outcome.applied_bytes for outcome in outcomes),
            refused=join_refusals(outcomes),
            total=scheme.statistics,
        )

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
        """Let go of a target that has exited."""
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


class _RunningScheme:
    """A scheme with what it has done so far."""

    def __init__(self, scheme: Scheme) -> None:
        self.scheme = scheme
        self.statistics = SchemeStatistics()
        self.not_before_s = float("-inf")
