"""Facts about the host → actions on other processes: usable or not, and why.  A pure function."""

from dataclasses import dataclass

from memtherm.act.guard import ACTIONS, action_refusal
from memtherm.core.scheme import Action
from memtherm.linux.facts import HostFacts

_TO_ADVISE = ("CAP_SYS_NICE", "CAP_SYS_PTRACE")
# What only CAP_SYS_ADMIN shows is needed to verify: frame numbers for cold, mapped files for willneed.
_NEEDED = {
    Action.WILLNEED: (*_TO_ADVISE, "CAP_SYS_ADMIN"),
    Action.COLD: (*_TO_ADVISE, "CAP_SYS_ADMIN"),
    Action.PAGEOUT: _TO_ADVISE,
    Action.COLLAPSE: _TO_ADVISE,
}


@dataclass(frozen=True)
class ActionWay:
    """One action on this host.

    Attributes:
        usable: whether it can be tried; guards may still refuse it for some memory.
        reason: why it is usable or not.
        remedy: what would make it usable, or lift a limit of it.
    """

    action: Action
    usable: bool
    reason: str
    remedy: str = ""


def rank_actions(facts: HostFacts) -> list[ActionWay]:
    """Every action, in the order of `Action`."""
    return [_way(action, facts) for action in Action]


def _way(action: Action, facts: HostFacts) -> ActionWay:
    if action is Action.STAT:
        return ActionWay(action, True, "counts matching memory, changes nothing")
    if action not in ACTIONS:
        return ActionWay(action, False, action_refusal(action), "use another action")
    if not facts.has_process_madvise:
        return ActionWay(action, False, "this kernel has no process_madvise", "boot Linux 6.1 or newer")
    missing = [name for name in _NEEDED[action] if name not in facts.capabilities]
    if missing:
        return ActionWay(action, False, f"missing {', '.join(missing)}", "run as root, or grant these capabilities")
    if action is Action.PAGEOUT and facts.swap.total_bytes == 0:
        return ActionWay(
            action,
            True,
            "file-mapped memory only: this host has no swap",
            "add a swap file or zram for anonymous memory",
        )
    if action is Action.COLLAPSE and not facts.huge_pages.is_usable:
        return ActionWay(action, False, "this kernel has no transparent huge pages", "boot another kernel")
    return ActionWay(action, True, "by process_madvise")
