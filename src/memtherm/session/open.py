"""`monitor`: from the name of a target to a running session."""

import functools
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack

import numpy as np

from memtherm.act.apply import TargetActor
from memtherm.act.guard import action_refusal
from memtherm.core.attributes import MonitoringAttributes
from memtherm.core.guard import GuardSettings
from memtherm.core.protocols import CensusProbe, Probe
from memtherm.core.scheme import Action, Scheme
from memtherm.core.snapshot import TargetInfo
from memtherm.errors import HostCannot, InvalidInput, NotSupported, TargetGone
from memtherm.linux.facts import probe_host
from memtherm.linux.process import Process, find_by_name, open_process
from memtherm.linux.watch_lock import WatchLock
from memtherm.policy.fields import SHORTEST_SAMPLING_S
from memtherm.policy.values import Policy, named
from memtherm.probe.bpf import BpfProbe
from memtherm.probe.bpf_census import BpfCensusProbe
from memtherm.probe.canary import CensusAsProbe, check_probe
from memtherm.probe.choose import choose_probe, rank_probes
from memtherm.probe.smaps import SmapsProbe
from memtherm.session.clock import SystemClock
from memtherm.session.loop import MonitorLoop, Watched
from memtherm.session.session import Session
from memtherm.units import format_time

_FOR_COLD_MEMORY = (Action.COLD, Action.PAGEOUT)
_PROBES: dict[str, Callable[[Process], Probe]] = {"bpf": BpfProbe, "smaps": SmapsProbe}
_CENSUS_PROBES: dict[str, Callable[[Process], CensusProbe]] = {"bpf": BpfCensusProbe}


def monitor(
    *,
    pid: int | Sequence[int] = (),
    name: str | Sequence[str] = (),
    policy: Policy | None = None,
    schemes: Iterable[Scheme] = (),
    apply: bool = False,
    attributes: MonitoringAttributes | None = None,
    probe: str = "auto",
) -> Session:
    """Watch processes, and let schemes act on them if `apply` is true.

    Args:
        pid, name: the targets, one or several.  Without any, the policy's.
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
    all_schemes = named([*policy.schemes, *schemes])
    attributes = attributes or policy.attributes
    pids = _resolve(pid, name, policy)
    chosen, reasons = choose_way(probe, attributes=attributes, schemes=all_schemes, apply=apply)
    with ExitStack() as stack:
        watched = [_watch(one, chosen, stack, guard=policy.guard if all_schemes else None, apply=apply) for one in pids]
        loop = MonitorLoop(
            watched,
            attributes=attributes,
            schemes=all_schemes,
            clock=SystemClock(),
            rng=np.random.default_rng(),
            canary=functools.partial(try_canary, chosen),
        )
        held = stack.pop_all()
    return Session(loop, targets=tuple(one.info for one in watched), reasons=tuple(reasons), held=held)


def _resolve(pid: int | Sequence[int], name: str | Sequence[str], policy: Policy) -> list[int]:
    pids = [pid] if isinstance(pid, int) else list(pid)
    names = [name] if isinstance(name, str) else list(name)
    if not pids and not names:
        pids = [target.pid for target in policy.targets if target.pid is not None]
        names = [target.name for target in policy.targets if target.name is not None]
    for one in names:
        found = [pid for pid in find_by_name(one) if pid != os.getpid()]
        if not found:
            raise TargetGone(f"no process has the name {one!r}", hint="`ps -eo pid,comm` lists names")
        pids += found
    if not pids:
        raise InvalidInput("no target was named", hint="name one by its pid or by its name")
    return list(dict.fromkeys(pids))


def _watch(pid: int, chosen: str, stack: ExitStack, *, guard: GuardSettings | None, apply: bool) -> Watched:
    process = stack.enter_context(open_process(pid))
    identity = process.identity
    if process.is_kernel_thread():
        raise InvalidInput(
            f"pid {pid} ({identity.name}) is a kernel thread: it has no memory of its own", hint="name a program"
        )
    lock = WatchLock(pid, identity.start_time_ticks)
    stack.callback(lock.close)
    info = TargetInfo(pid, identity.name, identity.start_time_s)
    probe = _PROBES[chosen](process)
    stack.callback(probe.close)
    census = _CENSUS_PROBES[chosen](process) if chosen in _CENSUS_PROBES else None
    if census is not None:
        stack.callback(census.close)
    actor = None if guard is None else TargetActor(process, guard=guard, apply=apply)
    if actor is not None:
        stack.callback(actor.close)
    return Watched(info, probe, census, actor)


def choose_way(
    wanted: str, *, attributes: MonitoringAttributes, schemes: Sequence[Scheme] = (), apply: bool = False
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
    for scheme in schemes if apply else ():
        _refuse_unbounded(scheme)
        if scheme.action is not Action.STAT and (reason := action_refusal(scheme.action)):
            raise NotSupported(f'scheme "{scheme.name}": {reason}', hint="`memtherm doctor` lists the actions")
    chosen, reasons = choose_probe(rank_probes(probe_host()), wanted=wanted, canary=canary_failure)
    if not chosen:
        raise NotSupported(
            "no way to see accesses works here: " + "; ".join(reasons), hint="`memtherm doctor` shows each way"
        )
    return chosen, reasons


def _refuse_unbounded(scheme: Scheme) -> None:
    """A scheme for cold memory that forgot to say so would act on the hottest as well."""
    if scheme.action in _FOR_COLD_MEMORY and scheme.pattern.access_rate.maximum is None:
        raise InvalidInput(
            f'scheme "{scheme.name}": {scheme.action} without an upper bound of the access rate acts on hot memory',
            hint='for memory that was not accessed write access_rate = "0%", or 0% 0% in a scheme line; '
            "an upper bound of 100% where hot memory is really meant",
        )


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
