"""What runs behind a watched array: the session of one target, which is memory of this process."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, replace

import numpy as np

from memtherm.act.guard import action_refusal
from memtherm.act.own_actor import own_actor
from memtherm.arrays.held import ArrayActor, Held
from memtherm.arrays.memory import Owner
from memtherm.arrays.rows import RowMap
from memtherm.core.attributes import TUNED, MonitoringAttributes
from memtherm.core.guard import GuardSettings
from memtherm.core.plan import Outcome, PlannedAction
from memtherm.core.protocols import CensusProbe
from memtherm.core.ranges import Addresses
from memtherm.core.regions import Range
from memtherm.core.scheme import Action, Destination, Scheme
from memtherm.core.snapshot import TargetInfo
from memtherm.errors import InvalidInput, NotSupported
from memtherm.policy.kinds import SHORTEST_SAMPLING_S
from memtherm.policy.values import Policy, named
from memtherm.probe.own.choose import WAYS, OwnWay, open_own_probe
from memtherm.session.clock import SystemClock
from memtherm.session.engines import Engines, Watched
from memtherm.session.loop import MonitorLoop
from memtherm.session.metrics import HostMetrics
from memtherm.session.scheme_check import GuardedSchemes, refuse_unsafe, refuse_unseen
from memtherm.session.schemes import SchemeRunner
from memtherm.session.session import Session
from memtherm.units import PAGE_SIZE, format_size, format_time

# Looks of a window at an interval that was asked for: five, and fewer where that would last longer than 10 s.
_MOST_LOOKS, _FEWEST_LOOKS, _LONGEST_WINDOW_S = 5, 2, 10.0
_USERFAULTFD_FLAGS = ("um", "uw", "ui", "ur")
_MIGRATE = (Action.MIGRATE_HOT, Action.MIGRATE_COLD)


@dataclass(frozen=True, kw_only=True)
class WatchPlan:
    """How an array is to be watched, checked as far as that can be before it begins."""

    way: str
    policy: Policy
    apply: bool


def planned_watch(
    *,
    way: str,
    interval_s: float | None,
    schemes: Iterable[Scheme],
    policy: Policy | None,
    apply: bool,
) -> WatchPlan:
    """Raises InvalidInput or NotSupported for what cannot be meant, or must not be applied."""
    policy = policy or Policy()
    if not isinstance(policy, Policy):
        raise InvalidInput(f"{policy!r} is not a policy", hint="read a file with memtherm.load_policy")
    if way not in ("auto", *WAYS):
        raise InvalidInput(f"{way!r} is no way to watch an array", hint=f"use auto, {', '.join(WAYS)}")
    schemes = _checked(schemes)
    attributes = policy.attributes if interval_s is None else _at_interval(interval_s)
    if attributes.method not in ("auto", "census"):
        raise InvalidInput(
            f"method {attributes.method} for an array", hint="its pages are counted, all of them: census"
        )
    if attributes.interval_goal is None and attributes.sampling_interval_s < SHORTEST_SAMPLING_S:
        raise InvalidInput(
            f"an interval of {format_time(attributes.sampling_interval_s)} leaves the watch no rest",
            hint=f"{format_time(SHORTEST_SAMPLING_S)} is the least; 1 s is usual",
        )
    policy = replace(
        policy, schemes=named([*policy.schemes, *schemes]), attributes=replace(attributes, method="census")
    )
    refuse_unsafe(policy.schemes, guard=policy.guard, apply=apply, own_memory=True)
    refuse_unseen(policy.schemes, probe=way)
    return WatchPlan(way=way, policy=policy, apply=apply)


def _checked(schemes: Iterable[Scheme]) -> tuple[Scheme, ...]:
    found = tuple(schemes) if isinstance(schemes, Iterable) else ()
    if not isinstance(schemes, Iterable) or not all(isinstance(one, Scheme) for one in found):
        raise InvalidInput(f"{schemes!r} is no list of schemes", hint="schemes=[memtherm.Scheme(…)]")
    return found


def _at_interval(interval_s: float) -> MonitoringAttributes:
    if not isinstance(interval_s, int | float) or not 0 < interval_s < 1e6:
        raise InvalidInput(f"an interval of {interval_s!r}", hint="seconds between two looks, such as 1.0")
    looks = min(max(int(_LONGEST_WINDOW_S / interval_s), _FEWEST_LOOKS), _MOST_LOOKS)
    return replace(TUNED, sampling_interval_s=interval_s, aggregation_interval_s=looks * interval_s, interval_goal=None)


class Engine:
    """The running parts of one watched array.

    Attributes:
        stop: tells the session to end.
        pausing: tells actors to leave the rest of what they do, as a fork waits.
        changes: what was changed on the mappings, in sentences.
    """

    def __init__(self, held: Held, probe: CensusProbe, way: OwnWay, within: list[Range], guard: GuardSettings) -> None:
        self.held = held
        self.way = way
        self.stop = threading.Event()
        self.pausing = threading.Event()
        self.changes: tuple[str, ...] = tuple(getattr(probe, "describe_changes", ()))
        self._release = getattr(probe, "release", None)
        self._within = within
        self._guard = guard
        self._advising = threading.Lock()
        self._adviser: ArrayActor | None = None
        self.session: Session
        self.loop: MonitorLoop

    def open_actor(self, *, apply: bool) -> ArrayActor:
        """One more actor for the array's own pages."""
        flags = _USERFAULTFD_FLAGS if self.way.name.startswith("userfaultfd") else ()
        actor = own_actor(self._within, guard=self._guard, apply=apply, ours=lambda: flags, owner=self.held.owner.get)
        actor.stopped = lambda: self.stop.is_set() or self.pausing.is_set()
        return self.held.add_actor(actor, release=self._release)

    def advise(
        self, action: Action | str, start: Addresses, end: Addresses, *, node: int | None, working_set_bytes: int
    ) -> tuple[PlannedAction, Outcome]:
        """Act on these ranges now.  Raises InvalidInput, NotSupported, TargetGone."""
        scheme = _scheme_of(action, node)
        planned = PlannedAction(
            scheme,
            0,
            rows=np.arange(len(start)),
            start=start,
            end=end,
            is_unfiltered=np.zeros(len(start), np.bool_),
            working_set_bytes=working_set_bytes,
        )
        with self._advising, self.held.step():
            if self._adviser is None:
                self._adviser = self.open_actor(apply=True)
            return planned, self._adviser.carry_out(self._adviser.examine(planned))


def _scheme_of(action: Action | str, node: int | None) -> Scheme:
    try:
        action = Action(action)
    except ValueError:
        raise InvalidInput(f"{action!r} is no action", hint=f"use one of {', '.join(Action)}") from None
    if action is Action.STAT:
        raise NotSupported("stat only counts, and changes nothing", hint="a scheme can count; advise acts")
    if reason := action_refusal(action):
        raise NotSupported(reason, hint="pageout, cold, willneed, collapse, hugepage, nohugepage and migrate_hot can")
    if (action in _MIGRATE) != (node is not None):
        raise InvalidInput(f"{action} {'without' if node is None else 'with'} a node", hint="migrate_hot, node=1")
    destinations = () if node is None else (Destination(node),)
    return Scheme(name=f"advise {action}", action=action, destinations=destinations)


def begin_engine(plan: WatchPlan, *, name: str, owner: Owner, rows: RowMap, on_end: Callable[[str], None]) -> Engine:
    """Open probe and actor, and make their session, which is not started yet.

    Raises:
        InvalidInput: schemes need reads to be seen, where only writes are; or nothing is mapped there.
        HostCannot: no way works here.
    """
    policy, clock = plan.policy, SystemClock()
    start, end = int(rows.pages[0]), int(rows.pages[-1]) + PAGE_SIZE
    probe, way = open_own_probe([(start, end)], wanted=plan.way)
    with ExitStack() as opened:
        opened.callback(probe.close)
        refuse_unseen(policy.schemes, probe=way.name)
        if unmapped_bytes := end - start - sum(high - low for low, high in probe.ranges()):
            raise InvalidInput(
                f'nothing is mapped at {format_size(unmapped_bytes)} of "{name}"',
                hint="its memory was given back, or its address is wrong",
            )
        within = [(int(first), int(last)) for first, last in zip(*rows.ranges(rows.own), strict=True)]
        held = Held(name, owner, on_end=on_end)
        engine = Engine(held, probe, way, within, policy.guard)
        census = held.add(probe)
        opened.pop_all()
        opened.callback(held.end, "could not be watched")
        actor = engine.open_actor(apply=plan.apply) if policy.schemes else None
        runner = SchemeRunner(policy.schemes, metrics=HostMetrics(), clock=clock)
        target = TargetInfo(os.getpid(), name, labels=(name,))
        engine.loop = MonitorLoop(
            [Watched(target, None, census, actor)],
            engines=Engines(attributes=policy.attributes, clock=clock, rng=np.random.default_rng()),
            schemes=runner,
            clock=clock,
            canary=functools.partial(_canary_failure, way.name),
        )
        engine.session = Session(
            engine.loop,
            schemes=GuardedSchemes(runner, policy=policy, apply=plan.apply, probe=way.name, own_memory=True),
            stop=engine.stop,
            targets=(target,),
            reasons=way.reasons,
            held=opened.pop_all(),
        )
    return engine


def _canary_failure(way: str) -> str:
    """Asked now and then: whether the way still sees right what is known."""
    from memtherm.probe.choose import WRITES_ONLY
    from memtherm.probe.own.canary import canary_problem

    return canary_problem(WAYS[way], writes_only=way in WRITES_ONLY)
