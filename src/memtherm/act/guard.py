"""What must not be touched, and why (design: guards).  Nothing here has an effect."""

import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from memtherm.core.guard import GuardSettings
from memtherm.core.ranges import Flags
from memtherm.core.scheme import Action
from memtherm.linux.maps import DetailedMappings, MappingKind
from memtherm.linux.process import Process
from memtherm.units import format_size

ACTIONS = (Action.WILLNEED, Action.COLD, Action.PAGEOUT, Action.COLLAPSE)


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
    """Why this action cannot be done on another process, or an empty text."""
    if action in ACTIONS:
        return ""
    if action in (Action.HUGEPAGE, Action.NOHUGEPAGE):
        return f"{action} cannot be done on another process in this version; collapse makes huge pages at once"
    return f"{action} is not available in this version"


@dataclass(frozen=True)
class _Rule:
    """Mappings that some actions may not touch."""

    reason: str
    applies: Callable[[DetailedMappings], Flags]
    actions: tuple[Action, ...] = ACTIONS
    is_hint: bool = False


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
    _Rule("the application asked for no huge pages (VmFlags nh)", _flagged("nh"), (Action.COLLAPSE,), True),
)


def mapping_refusals(mappings: DetailedMappings, action: Action, settings: GuardSettings) -> list[tuple[str, Flags]]:
    """Each reason with the mappings that it keeps from the action; a mapping has one reason at most."""
    taken = np.zeros(len(mappings), np.bool_)
    refusals = []
    for rule in _RULES:
        if action not in rule.actions or (rule.is_hint and settings.override_application_hints):
            continue
        refused = rule.applies(mappings) & ~taken
        taken |= refused
        if refused.any():
            refusals.append((rule.reason, refused))
    return refusals
