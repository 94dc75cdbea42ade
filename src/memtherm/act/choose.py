"""Facts about the host → actions, on other processes and on own memory: usable or not, and why."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from memtherm.act.guard import action_refusal
from memtherm.core.scheme import Action
from memtherm.linux.facts import HostFacts
from memtherm.linux.nodes import NumaNode, read_nodes

_TO_ADVISE = ("CAP_SYS_NICE", "CAP_SYS_PTRACE")
# What only CAP_SYS_ADMIN shows is needed to verify: frame numbers for cold, mapped files for willneed.
_TO_ADVISE_AND_SEE = (*_TO_ADVISE, "CAP_SYS_ADMIN")
_PTRACE_MACHINE = "x86_64"


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


def rank_actions(facts: HostFacts, nodes: Sequence[NumaNode] | None = None) -> list[ActionWay]:
    """Every action, in the order of `Action`.

    Args:
        nodes: as from read_nodes, which is asked where it is None; else this is a pure function.
    """
    nodes = read_nodes() if nodes is None else nodes
    return [_way(action, facts, nodes) for action in Action]


def rank_own_actions(
    facts: HostFacts, nodes: Sequence[NumaNode] | None = None, *, numa_maps: bool | None = None
) -> list[ActionWay]:
    """Every action on memory of this process, in the order of `Action`; none needs a privilege.

    Args:
        nodes: as from read_nodes, which is asked where it is None.
        numa_maps: whether the kernel has /proc/PID/numa_maps, which shows what is cold; asked where it is None.
    """
    nodes = read_nodes() if nodes is None else nodes
    numa_maps = Path("/proc/self/numa_maps").exists() if numa_maps is None else numa_maps
    return [_own_way(action, facts, nodes, numa_maps=numa_maps) for action in Action]


def _own_way(action: Action, facts: HostFacts, nodes: Sequence[NumaNode], *, numa_maps: bool) -> ActionWay:
    if action in (Action.MIGRATE_HOT, Action.MIGRATE_COLD):
        return _between_nodes(action, facts, nodes)
    if action is Action.COLD and not numa_maps and "CAP_SYS_ADMIN" not in facts.capabilities:
        return ActionWay(
            action,
            False,
            "cannot be verified: this kernel has no numa_maps, and page frames are hidden",
            "boot a kernel with CONFIG_NUMA, or run with CAP_SYS_ADMIN",
        )
    if action in (Action.COLD, Action.WILLNEED):
        return ActionWay(action, True, "by madvise")
    if action in (Action.PAGEOUT, Action.COLLAPSE):
        return _limited_by_host(action, facts, how="madvise")
    if action in (Action.HUGEPAGE, Action.NOHUGEPAGE):
        if not facts.huge_pages.is_usable:
            return _without_huge_pages(action)
        return _limited_by_mode(action, facts, "by madvise")
    return _way(action, facts, nodes)


def _way(action: Action, facts: HostFacts, nodes: Sequence[NumaNode]) -> ActionWay:
    if action is Action.STAT:
        return ActionWay(action, True, "counts matching memory, changes nothing")
    if action in (Action.MIGRATE_HOT, Action.MIGRATE_COLD):
        return _by_move_pages(action, facts, nodes)
    if action in _WAYS:
        return _WAYS[action](action, facts)
    return ActionWay(action, False, action_refusal(action), "watch --physical where the kernel's DAMON is free")


def _by_process_madvise(action: Action, facts: HostFacts) -> ActionWay:
    if not facts.has_process_madvise:
        return ActionWay(action, False, "this kernel has no process_madvise", "boot Linux 6.1 or newer")
    needed = _TO_ADVISE_AND_SEE if action in (Action.COLD, Action.WILLNEED) else _TO_ADVISE
    if lacking := _lacking(action, facts, needed):
        return lacking
    return _limited_by_host(action, facts, how="process_madvise")


def _limited_by_host(action: Action, facts: HostFacts, *, how: str) -> ActionWay:
    if action is Action.PAGEOUT and facts.swap.total_bytes == 0:
        return ActionWay(
            action,
            True,
            "file-mapped memory only: this host has no swap",
            "add a swap file or zram for anonymous memory",
        )
    if action is Action.COLLAPSE and not facts.huge_pages.is_usable:
        return _without_huge_pages(action)
    return ActionWay(action, True, f"by {how}")


def _by_ptrace(action: Action, facts: HostFacts) -> ActionWay:
    if facts.machine != _PTRACE_MACHINE:
        reason = f"by ptrace, which is written for {_PTRACE_MACHINE} only; this host is {facts.machine}"
        return ActionWay(action, False, reason, "collapse makes huge pages without ptrace")
    if not facts.huge_pages.is_usable:
        return _without_huge_pages(action)
    if lacking := _lacking(action, facts, ("CAP_SYS_PTRACE",)):
        return lacking
    if facts.ptrace_scope == 3:
        reason = "Yama forbids ptrace to everyone (kernel.yama.ptrace_scope is 3)"
        return ActionWay(action, False, reason, "it can be lowered only by a reboot; collapse does without ptrace")
    reason = "by ptrace: the target is stopped for a moment and gives the advice itself; opt-in: allow_ptrace"
    return _limited_by_mode(action, facts, reason)


def _limited_by_mode(action: Action, facts: HostFacts, reason: str) -> ActionWay:
    if action is Action.HUGEPAGE and facts.huge_pages.mode == "never":
        reason += "; without effect while the host's mode of huge pages is never"
        return ActionWay(action, True, reason, "write madvise to /sys/kernel/mm/transparent_hugepage/enabled")
    return ActionWay(action, True, reason)


def _by_move_pages(action: Action, facts: HostFacts, nodes: Sequence[NumaNode]) -> ActionWay:
    way = _between_nodes(action, facts, nodes)
    return (_lacking(action, facts, ("CAP_SYS_PTRACE",)) or way) if way.usable else way


def _between_nodes(action: Action, facts: HostFacts, nodes: Sequence[NumaNode]) -> ActionWay:
    with_memory = [node.number for node in nodes if node.total_bytes]
    if len(with_memory) < 2:
        return ActionWay(action, False, "this host has one NUMA node", "it needs a second node with memory")
    reason = f"by move_pages, between the nodes {', '.join(map(str, with_memory))}"
    if "CAP_SYS_NICE" not in facts.capabilities:
        reason += "; pages that other processes map too stay where they are"
        return ActionWay(action, True, reason, "CAP_SYS_NICE moves those as well")
    return ActionWay(action, True, reason)


def _without_huge_pages(action: Action) -> ActionWay:
    return ActionWay(action, False, "this kernel has no transparent huge pages", "boot another kernel")


def _lacking(action: Action, facts: HostFacts, needed: Sequence[str]) -> ActionWay | None:
    missing = [name for name in needed if name not in facts.capabilities]
    if not missing:
        return None
    return ActionWay(action, False, f"missing {', '.join(missing)}", "run as root, or grant these capabilities")


_WAYS: dict[Action, Callable[[Action, HostFacts], ActionWay]] = {
    Action.WILLNEED: _by_process_madvise,
    Action.COLD: _by_process_madvise,
    Action.PAGEOUT: _by_process_madvise,
    Action.COLLAPSE: _by_process_madvise,
    Action.HUGEPAGE: _by_ptrace,
    Action.NOHUGEPAGE: _by_ptrace,
}
