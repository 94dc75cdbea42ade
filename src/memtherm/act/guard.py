"""What must not be touched, and why (design: guards).  Nothing here has an effect."""

import os
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

import numpy as np

from memtherm.act.migrate import destination_refusal
from memtherm.core.filters import FilterKind
from memtherm.core.guard import GuardSettings
from memtherm.core.ranges import Flags
from memtherm.core.scheme import Action, Scheme
from memtherm.linux.maps import DetailedMappings, MappingKind
from memtherm.linux.process import Process
from memtherm.units import format_size

ACTIONS = (
    Action.WILLNEED,
    Action.COLD,
    Action.PAGEOUT,
    Action.COLLAPSE,
    Action.HUGEPAGE,
    Action.NOHUGEPAGE,
    Action.MIGRATE_HOT,
    Action.MIGRATE_COLD,
)


def target_refusal(process: Process, settings: GuardSettings) -> str:
    """Why this process may not be acted on at all, or an empty text."""
    if process.pid == 1:
        return "pid 1 is never acted on"
    if process.is_kernel_thread():
        return "a kernel thread has no memory of its own"
    if process.pid == os.getpid():
        return "memtherm does not act on itself"
    owned_bytes = process.rss_bytes() + process.swap_bytes()
    if owned_bytes < settings.min_target_bytes:
        floor = format_size(settings.min_target_bytes)
        return f"the target has only {format_size(owned_bytes)}, and targets below {floor} are left alone"
    return ""


def action_refusal(action: Action) -> str:
    """Why this action cannot be done on a process, or an empty text."""
    if action in ACTIONS:
        return ""
    return f"{action}: only the kernel's DAMON can do it, to physical memory"


def scheme_refusal(
    scheme: Scheme, process: Process, settings: GuardSettings, *, sees_pages: bool, needs_ptrace: bool = True
) -> str:
    """Why nothing of this scheme can be done, or an empty text.

    Args:
        sees_pages: whether there is a probe that tells which pages were accessed.
        needs_ptrace: whether the target must be made to give huge page advice.

    Raises TargetGone.
    """
    if any(one.kind is FilterKind.YOUNG for one in scheme.filters) and not sees_pages:
        return "filter young: the probe does not see pages"
    if scheme.action is Action.STAT:
        return ""
    if reason := action_refusal(scheme.action):
        return reason
    if scheme.action in (Action.HUGEPAGE, Action.NOHUGEPAGE) and needs_ptrace and not settings.allow_ptrace:
        return f"{scheme.action} needs allow_ptrace: the target itself must give the advice; collapse does without"
    if scheme.action in (Action.MIGRATE_HOT, Action.MIGRATE_COLD):
        return destination_refusal(scheme.destinations, process)
    return ""


@dataclass(frozen=True)
class _Rule:
    """Mappings that some actions may not touch; `hint` is the flag by which the application has said so itself."""

    reason: str
    applies: Callable[[DetailedMappings], Flags]
    actions: tuple[Action, ...] = ACTIONS
    hint: str = ""


@dataclass(frozen=True)
class MappingRefusal:
    """Mappings that are kept from an action.

    Attributes:
        refused: for each mapping.
        hint: the flag, where it is advice that also we could have given.
    """

    reason: str
    refused: Flags
    hint: str = ""


def _flagged(*codes: str) -> Callable[[DetailedMappings], Flags]:
    return lambda mappings: mappings.has_any_flag(codes)


def _kernel_made(mappings: DetailedMappings) -> Flags:
    special: Flags = mappings.mappings.kinds == MappingKind.SPECIAL
    return special


def _without_flags(mappings: DetailedMappings) -> Flags:
    return np.fromiter((not flags for flags in mappings.flags), np.bool_, len(mappings))


# In the order in which a reason is given where several hold.
_RULES = (
    # Every mapping has some; without its line nothing tells what must not be touched.
    _Rule("VmFlags cannot be read", _without_flags),
    _Rule("mapped by the kernel", _kernel_made),
    _Rule("locked in memory (VmFlags lo)", _flagged("lo")),
    _Rule("hugetlb pages (VmFlags ht)", _flagged("ht")),
    _Rule("device memory (VmFlags pf, io)", _flagged("pf", "io")),
    _Rule("handled by userfaultfd (VmFlags um, uw, ui, ur)", _flagged("um", "uw", "ui", "ur")),
    _Rule(
        "the application asked for no huge pages (VmFlags nh)",
        _flagged("nh"),
        (Action.COLLAPSE, Action.HUGEPAGE),
        hint="nh",
    ),
    _Rule("the application asked for huge pages (VmFlags hg)", _flagged("hg"), (Action.NOHUGEPAGE,), hint="hg"),
)


def mapping_refusals(
    mappings: DetailedMappings, action: Action, settings: GuardSettings, *, ours: Collection[str] = ()
) -> list[MappingRefusal]:
    """The mappings that each rule keeps from the action; a mapping has one reason at most.

    Args:
        ours: VmFlags that watching has put there, which mean nothing here.
    """
    if ours:
        mappings = replace(mappings, flags=tuple(flags.difference(ours) for flags in mappings.flags))
    taken = np.zeros(len(mappings), np.bool_)
    refusals = []
    for rule in _RULES:
        if action not in rule.actions or (rule.hint and settings.override_application_hints):
            continue
        refused = rule.applies(mappings) & ~taken
        taken |= refused
        if refused.any():
            refusals.append(MappingRefusal(rule.reason, refused, rule.hint))
    return refusals
