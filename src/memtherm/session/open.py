"""`monitor`: from the name of a target to a running session."""

import functools
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace

import numpy as np

from memtherm.act.apply import TargetActor
from memtherm.core.attributes import MonitoringAttributes
from memtherm.core.protocols import CensusProbe, Probe
from memtherm.core.scheme import Scheme
from memtherm.core.snapshot import TargetInfo
from memtherm.errors import HostCannot, InvalidInput, NotSupported, TargetGone
from memtherm.linux.facts import probe_host
from memtherm.linux.process import Process, open_process
from memtherm.linux.watch_lock import WatchLock
from memtherm.policy.kinds import SHORTEST_SAMPLING_S
from memtherm.policy.values import Policy, TargetSelector, named
from memtherm.probe.bpf import BpfProbe
from memtherm.probe.bpf_census import BpfCensusProbe
from memtherm.probe.canary import CensusAsProbe, check_probe
from memtherm.probe.choose import choose_probe, rank_probes
from memtherm.probe.smaps import SmapsProbe
from memtherm.session.clock import SystemClock
from memtherm.session.loop import Changes, MonitorLoop, Watched
from memtherm.session.metrics import HostMetrics
from memtherm.session.scheme_check import GuardedSchemes, refuse_unsafe
from memtherm.session.schemes import SchemeRunner
from memtherm.session.session import Session
from memtherm.session.targets import TargetFinder
from memtherm.units import format_time

_PROBES: dict[str, Callable[[Process], Probe]] = {"bpf": BpfProbe, "smaps": SmapsProbe}
_CENSUS_PROBES: dict[str, Callable[[Process], CensusProbe]] = {"bpf": BpfCensusProbe}


def monitor(
    *,
    pid: int | Sequence[int] = (),
    name: str | Sequence[str] = (),
    targets: Sequence[TargetSelector] = (),
    policy: Policy | None = None,
    schemes: Iterable[Scheme] = (),
    apply: bool = False,
    attributes: MonitoringAttributes | None = None,
    probe: str = "auto",
) -> Session:
    """Watch processes, and let schemes act on them if `apply` is true.

    Args:
        pid, name: the targets, one or several; a name may be a shell pattern.
        targets: more of them: by user, by cgroup, with their children.  Without any, the policy's.
        policy: schemes, intervals and guards from a file.
        schemes: schemes besides those of the policy.
        apply: without it schemes only tell what they would do.
        attributes: intervals and limits in place of the policy's.
        probe: `bpf`, `smaps`, or `auto` for the best of this host.

    Raises:
        InvalidInput: no target, or one that can have no accesses; a scheme that must not be applied.
        HostCannot: no probe works here, a privilege is missing, or the target is watched already.
        TargetGone: a target does not exist.

    Example:
        >>> with memtherm.monitor(pid=4242) as session:
        ...     for snapshot in session.snapshots(limit=50):
        ...         print(snapshot.time_s, snapshot.working_set_bytes(min_access_rate=0.05))
    """
    policy = policy or Policy()
    if not isinstance(policy, Policy):
        raise InvalidInput(f"{policy!r} is not a policy", hint="read a file with memtherm.load_policy")
    policy = replace(policy, schemes=named([*policy.schemes, *schemes]))
    attributes = attributes or policy.attributes
    finder = TargetFinder(_selectors(pid, name, targets) or policy.targets, exclude=frozenset((os.getpid(),)))
    found = finder.find()
    chosen, reasons = choose_way(probe, attributes=attributes, policy=policy, apply=apply)
    stop = threading.Event()

    def actor_of(process: Process) -> TargetActor | None:
        if not policy.schemes:
            return None
        actor = TargetActor(process, guard=policy.guard, apply=apply)
        actor.stopped = stop.is_set
        return actor

    watcher = _Watcher(finder, lambda process, labels, stack: _watch(process, labels, chosen, stack, actor_of=actor_of))
    with ExitStack() as held:
        held.callback(watcher.close)
        watched = watcher.open_all(found)
        runner = SchemeRunner(policy.schemes, metrics=HostMetrics(), clock=SystemClock())
        loop = MonitorLoop(
            watched,
            attributes=attributes,
            schemes=runner,
            clock=SystemClock(),
            rng=np.random.default_rng(),
            canary=functools.partial(try_canary, chosen),
            find=watcher.changes,
        )
        return Session(
            loop,
            schemes=GuardedSchemes(runner, policy=policy, apply=apply),
            stop=stop,
            targets=tuple(one.info for one in watched),
            reasons=tuple(reasons),
            held=held.pop_all(),
        )


def _selectors(
    pid: int | Sequence[int], name: str | Sequence[str], targets: Sequence[TargetSelector]
) -> tuple[TargetSelector, ...]:
    pids = [pid] if isinstance(pid, int) else pid
    names = [name] if isinstance(name, str) else name
    return (
        *(TargetSelector(pid=one) for one in pids),
        *(TargetSelector(name=one) for one in names),
        *targets,
    )


class _Watcher:
    """Opens what the finder finds: at first all of it, later what is new."""

    def __init__(self, finder: TargetFinder, watch: Callable[[Process, tuple[str, ...], ExitStack], Watched]) -> None:
        self._finder = finder
        self._watch = watch
        self._processes: dict[int, Process] = {}
        self._held: dict[int, ExitStack] = {}
        self._refused: set[int] = set()
        self._left: dict[int, str] = {}

    def open_all(self, found: Mapping[int, tuple[str, ...]]) -> list[Watched]:
        """Raises what hinders any of them."""
        return [self._open(pid, labels) for pid, labels in found.items()]

    def changes(self) -> Changes:
        """What has come, what is no longer meant, and why something cannot be watched, since this was asked last."""
        # Not before the loop has let go of them: it would look through what is closed, or is another's by then.
        self._release(self._left)
        self._left = {}
        if not self._finder.may_grow:
            return Changes()
        found = self._finder.find()
        self._refused &= found.keys()
        opened, problems = [], []
        for pid in sorted(found.keys() - self._processes.keys() - self._refused):
            try:
                opened.append(self._open(pid, found[pid]))
            except TargetGone:
                continue
            except (InvalidInput, HostCannot) as problem:
                self._refused.add(pid)
                problems.append(f"not watched: {problem}")
        for pid, process in self._processes.items():
            if not process.is_alive():
                self._left[pid] = "has exited"
            elif pid not in found:
                self._left[pid] = "no longer belongs to what was named"
        return Changes(opened, self._left, problems)

    def close(self) -> None:
        for stack in self._held.values():
            stack.close()
        self._held.clear()
        self._processes.clear()

    def _release(self, pids: Iterable[int]) -> None:
        for pid in pids:
            self._held.pop(pid).close()
            del self._processes[pid]

    def _open(self, pid: int, labels: tuple[str, ...]) -> Watched:
        with ExitStack() as stack:
            process = stack.enter_context(open_process(pid))
            watched = self._watch(process, labels, stack)
            self._processes[pid], self._held[pid] = process, stack.pop_all()
        return watched


def _watch(
    process: Process,
    labels: tuple[str, ...],
    chosen: str,
    stack: ExitStack,
    *,
    actor_of: Callable[[Process], TargetActor | None],
) -> Watched:
    identity = process.identity
    if process.is_kernel_thread():
        raise InvalidInput(
            f"pid {process.pid} ({identity.name}) is a kernel thread: it has no memory of its own",
            hint="name a program",
        )
    lock = WatchLock(process.pid, identity.start_time_ticks)
    stack.callback(lock.close)
    info = TargetInfo(process.pid, identity.name, identity.start_time_s, labels)
    probe = _PROBES[chosen](process)
    stack.callback(probe.close)
    census = _CENSUS_PROBES[chosen](process) if chosen in _CENSUS_PROBES else None
    if census is not None:
        stack.callback(census.close)
    actor = actor_of(process)
    if actor is not None:
        stack.callback(actor.close)
    return Watched(info, probe, census, actor)


def choose_way(
    wanted: str, *, attributes: MonitoringAttributes, policy: Policy, apply: bool = False
) -> tuple[str, list[str]]:
    """All that can be said before a target is touched.

    Returns:
        The name of the probe, and in sentences why it is this one.

    Raises:
        InvalidInput: an unknown probe, intervals or schemes that must not be let loose.
        NotSupported: no probe works here.
    """
    if wanted not in ("auto", *_PROBES):
        raise InvalidInput(f"{wanted!r} is not a probe", hint=f"use auto, {' or '.join(_PROBES)}")
    if attributes.sampling_interval_s < SHORTEST_SAMPLING_S:
        raise InvalidInput(
            f"a sampling interval of {format_time(attributes.sampling_interval_s)} leaves the monitor no rest",
            hint=f"{format_time(SHORTEST_SAMPLING_S)} is the least; 5ms is usual",
        )
    refuse_unsafe(policy.schemes, guard=policy.guard, apply=apply)
    chosen, reasons = choose_probe(rank_probes(probe_host()), wanted=wanted, canary=canary_failure)
    if not chosen:
        raise NotSupported(
            "no way to see accesses works here: " + "; ".join(reasons), hint="`memtherm doctor` shows each way"
        )
    return chosen, reasons


@functools.cache
def canary_failure(name: str) -> str:
    """What `try_canary` says, asked once a process."""
    return try_canary(name)


def try_canary(name: str) -> str:
    """Why a probe, or its census, fails on known memory now; or an empty text.  About 80 ms.

    A failure counts when it comes twice in a row.  A probe that sees wrong fails each time; but someone
    else may clear a bit of the child between its access and our look, as the kernel's own DAMON does
    with one page in a while.
    """
    makers: list[Callable[[Process], Probe]] = [_PROBES[name]]
    if name in _CENSUS_PROBES:
        makers.append(lambda process: CensusAsProbe(_CENSUS_PROBES[name](process)))
    for make in makers:
        if _canary_problem(make) and (problem := _canary_problem(make)):
            return problem
    return ""


def _canary_problem(make: Callable[[Process], Probe]) -> str:
    try:
        with ExitStack() as stack:
            check_probe(lambda pid: make(stack.enter_context(open_process(pid))))
    except HostCannot as problem:
        return str(problem).splitlines()[0]  # libbpf's log may follow
    return ""
