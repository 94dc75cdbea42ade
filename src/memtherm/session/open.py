"""`monitor`: from the name of a target to a running session."""

import functools
import os
import threading
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace

import numpy as np

from memtherm.act.apply import TargetActor
from memtherm.core.attributes import MonitoringAttributes
from memtherm.core.scheme import Scheme
from memtherm.errors import InvalidInput
from memtherm.linux.process import Process
from memtherm.policy.values import Policy, TargetSelector, named
from memtherm.session.clock import SystemClock
from memtherm.session.engines import Engines
from memtherm.session.kernel_schemes import KernelSchemes
from memtherm.session.loop import MonitorLoop
from memtherm.session.metrics import HostMetrics
from memtherm.session.scheme_check import GuardedSchemes
from memtherm.session.schemes import SchemeRunner
from memtherm.session.session import Session
from memtherm.session.targets import TargetFinder
from memtherm.session.watcher import PhysicalMemory, Watcher
from memtherm.session.ways import choose_way, try_canary


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
        targets: more of them: by user, by cgroup, with their children, or physical memory.  Without any, the policy's.
        policy: schemes, intervals and guards from a file.
        schemes: schemes besides those of the policy.
        apply: without it schemes only tell what they would do.
        attributes: intervals and limits in place of the policy's.
        probe: `bpf`, `smaps`, `softdirty` (sees writes only), or `auto` for the best of this host.

    Raises:
        InvalidInput: no target, or one that can have no accesses; a scheme that must not be applied,
            or that means reads, which the probe does not see.
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
    selectors = _selectors(pid, name, targets) or policy.targets
    clock, stop = SystemClock(), threading.Event()
    runner = SchemeRunner(policy.schemes, metrics=HostMetrics(), clock=clock)

    def actor_of(process: Process) -> TargetActor | None:
        if not policy.schemes:
            return None
        actor = TargetActor(process, guard=policy.guard, apply=apply)
        actor.stopped = stop.is_set
        return actor

    def kernel_schemes() -> KernelSchemes:
        return KernelSchemes(lambda: runner.schemes, user_input=runner.user_input, settings=policy.guard, apply=apply)

    finder = None
    if not any(one.physical for one in selectors):
        finder = TargetFinder(selectors, exclude=frozenset((os.getpid(),)))
        finder.find()  # a target that is not there is told before all else
    way = choose_way(probe, attributes=attributes, policy=policy, apply=apply, selectors=selectors)
    watcher = Watcher(selectors, finder, way, actor_of) if finder is not None else PhysicalMemory(selectors)
    with ExitStack() as held:
        held.callback(watcher.close)
        watched = watcher.open_all()
        loop = MonitorLoop(
            watched,
            engines=Engines(
                attributes=replace(attributes, method=way.method),
                clock=clock,
                rng=np.random.default_rng(),
                kernel_schemes=kernel_schemes,
                no_kernel=way.no_kernel,
                kernel_purpose=way.kernel_purpose,
            ),
            schemes=runner,
            clock=clock,
            canary=functools.partial(try_canary, way.probe),
            find=watcher.changes,
        )
        return Session(
            loop,
            schemes=GuardedSchemes(runner, policy=policy, apply=apply, probe=way.probe, by_kernel=not way.no_kernel),
            stop=stop,
            targets=tuple(one.info for one in watched),
            reasons=way.reasons,
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
