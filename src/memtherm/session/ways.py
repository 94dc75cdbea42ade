"""How a session can watch: what this host offers for what is asked, before any target is touched."""

import functools
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from memtherm.core.attributes import MonitoringAttributes
from memtherm.core.protocols import CensusProbe, Probe
from memtherm.core.scheme import Action
from memtherm.errors import HostCannot, InvalidInput, NotSupported
from memtherm.kdamond.ownership import KdamondSlots
from memtherm.linux.facts import probe_host
from memtherm.linux.process import Process, open_process
from memtherm.policy.kinds import SHORTEST_SAMPLING_S
from memtherm.policy.values import Policy, TargetSelector
from memtherm.probe.bpf import BpfProbe
from memtherm.probe.bpf_census import BpfCensusProbe
from memtherm.probe.canary import CensusAsProbe, check_probe
from memtherm.probe.choose import WRITES_ONLY, choose_probe, rank_probes
from memtherm.probe.smaps import SmapsProbe
from memtherm.probe.softdirty import SoftDirtyProbe
from memtherm.session.method import ASKED_FOR
from memtherm.session.scheme_check import refuse_unsafe, refuse_unseen
from memtherm.units import format_time

PROBES: dict[str, Callable[[Process], Probe]] = {
    "bpf": BpfProbe,
    "smaps": SmapsProbe,
    "softdirty": SoftDirtyProbe,
}
CENSUS_PROBES: dict[str, Callable[[Process], CensusProbe]] = {"bpf": BpfCensusProbe}
_ADVICE = (Action.HUGEPAGE, Action.NOHUGEPAGE)


@dataclass(frozen=True, kw_only=True)
class Way:
    """How to watch.

    Attributes:
        method: what was asked for, `auto` included; `kdamond` where only that will do.
        probe: of our own engine; empty where the kernel's DAMON does everything.
        no_kernel: why the kernel's DAMON cannot be used; empty where it can.
        kernel_purpose: why it is the one for this purpose, whatever a census costs; mostly empty.
        reasons: all that in sentences.
    """

    method: str
    probe: str = ""
    no_kernel: str = ""
    kernel_purpose: str = ""
    reasons: tuple[str, ...] = ()


def choose_way(
    wanted: str,
    *,
    attributes: MonitoringAttributes,
    policy: Policy,
    apply: bool = False,
    selectors: Sequence[TargetSelector] = (),
) -> Way:
    """All that can be said before a target is touched.

    Args:
        wanted: the probe, or `auto`.

    Raises:
        InvalidInput: an unknown probe, intervals, targets or schemes that must not be let loose.
        NotSupported: no probe works here.
        TargetBusy: only the kernel's DAMON will do, and somebody else has it.
    """
    if wanted not in ("auto", *PROBES):
        raise InvalidInput(f"{wanted!r} is not a probe", hint=f"use auto, {', '.join(PROBES)}")
    if attributes.sampling_interval_s < SHORTEST_SAMPLING_S:
        raise InvalidInput(
            f"a sampling interval of {format_time(attributes.sampling_interval_s)} leaves the monitor no rest",
            hint=f"{format_time(SHORTEST_SAMPLING_S)} is the least; 5ms is usual",
        )
    if attributes.method == "smaps" and wanted not in ("auto", "smaps"):
        raise InvalidInput(f"method smaps by the {wanted} probe", hint="leave --probe out, or use --method sampling")
    kernel_reason = needs_kernel(attributes.method, selectors)
    state = KdamondSlots().look() if kernel_reason or (attributes.method == "auto" and wanted == "auto") else None
    no_kernel = "a probe was asked for" if state is None else "" if state.is_usable else state.sentence
    refuse_unsafe(policy.schemes, guard=policy.guard, apply=apply, by_kernel=not no_kernel)
    if kernel_reason:
        assert state is not None
        state.require_usable()
        return Way(method="kdamond", reasons=(f"watching by the kernel's DAMON: {kernel_reason}",))
    refuse_unseen(policy.schemes, probe=wanted)
    probe, reasons = choose_probe(
        rank_probes(probe_host()),
        wanted="smaps" if attributes.method == "smaps" else wanted,
        canary=canary_failure,
    )
    if state is not None and no_kernel:
        reasons.append(f"not by the kernel's DAMON: {no_kernel}")
    if not probe and no_kernel:
        raise NotSupported(
            "no way to see accesses works here: " + "; ".join(reasons), hint="`memtherm doctor` shows each way"
        )
    return Way(
        method=attributes.method if probe else "kdamond",
        probe=probe,
        no_kernel=no_kernel,
        kernel_purpose=_kernel_purpose(policy, apply=apply),
        reasons=tuple(reasons),
    )


def needs_kernel(method: str, selectors: Sequence[TargetSelector]) -> str:
    """Why nothing but the kernel's DAMON will do, or an empty text.

    Raises InvalidInput for targets that do not go together, or with the method.
    """
    needs = ""
    if any(one.physical for one in selectors):
        needs = "only the kernel's DAMON sees physical memory"
        if not all(one.physical for one in selectors):
            raise InvalidInput("both physical memory and processes", hint="watch them by two commands")
    elif any(one.ranges for one in selectors):
        needs = "only the kernel's DAMON keeps to given addresses"
        if not all(one.ranges for one in selectors):
            raise InvalidInput(
                "some targets have ranges of addresses, others not", hint="give ranges to all, or to none"
            )
    if needs and method not in ("auto", "kdamond"):
        raise InvalidInput(
            f"method {method} for such a target: {needs}", hint="leave the method to auto, or use kdamond"
        )
    return needs or (ASKED_FOR if method == "kdamond" else "")


def _kernel_purpose(policy: Policy, *, apply: bool) -> str:
    """What the kernel's DAMON can do that we should need the target's help for."""
    if apply and not policy.guard.allow_ptrace and any(one.action in _ADVICE for one in policy.schemes):
        return "it gives huge page advice without stopping the target"
    return ""


@functools.cache
def canary_failure(name: str) -> str:
    """What `try_canary` says, asked once a process."""
    return try_canary(name)


def try_canary(name: str) -> str:
    """Why a probe, or its census, fails on known memory now; or an empty text.  About 80 ms.

    The kernel's DAMON, which is no probe, has an empty name, and nothing is tried.

    A failure counts when it comes twice in a row.  A probe that sees wrong fails each time; but someone
    else may clear a bit of the child between its access and our look, as the kernel's own DAMON does
    with one page in a while.
    """
    if not name:
        return ""
    makers: list[Callable[[Process], Probe]] = [PROBES[name]]
    if name in CENSUS_PROBES:
        makers.append(lambda process: CensusAsProbe(CENSUS_PROBES[name](process)))
    ask = functools.partial(_canary_problem, writes_only=name in WRITES_ONLY)
    for make in makers:
        if ask(make) and (problem := ask(make)):
            return problem
    return ""


def _canary_problem(make: Callable[[Process], Probe], *, writes_only: bool) -> str:
    try:
        with ExitStack() as stack:
            check_probe(lambda pid: make(stack.enter_context(open_process(pid))), writes_only=writes_only)
    except HostCannot as problem:
        return str(problem).splitlines()[0]  # libbpf's log may follow
    return ""
