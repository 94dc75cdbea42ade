"""What goals and watermarks of schemes measure, from /proc, /sys and control groups (damon-spec §2.7, §2.8)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from memtherm.core.goals import Goal, GoalMetric
from memtherm.core.watermarks import WatermarkMetric
from memtherm.errors import InvalidInput, NotSupported, TargetGone
from memtherm.linux.cgroups import Cgroup, Hierarchy, find_cgroup, read_hierarchies
from memtherm.linux.facts import HostFacts
from memtherm.linux.nodes import NumaNode, read_nodes
from memtherm.linux.pressure import read_pressure
from memtherm.linux.swap import read_meminfo


class HostMetrics:
    """The metrics of this host."""

    def __init__(self) -> None:
        self._pressure: dict[int, _PressureGoal] = {}

    def goal_value(self, goal: Goal) -> float:
        """See core.protocols.Metrics.

        Raises:
            NotSupported: this host does not measure it, or has no such node.
            TargetGone: the cgroup does not exist now.
            InvalidInput: `user_input`, which is not measured.
        """
        if goal.metric is GoalMetric.USER_INPUT:
            raise InvalidInput("user_input is not measured", hint="the program gives it: Session.set_goal_value")
        if goal.metric is GoalMetric.MEMORY_PRESSURE:
            return self._pressure_since_last(goal)
        if goal.metric in (GoalMetric.ACTIVE_MEMORY, GoalMetric.INACTIVE_MEMORY):
            return _list_share(goal.metric)
        used = _used_share(goal)
        return used if goal.metric is GoalMetric.USED_MEMORY else 1 - used

    def watermark_value(self, metric: WatermarkMetric) -> float:
        """The share of memory that nothing uses, in whole thousandths as the kernel takes it."""
        assert metric is WatermarkMetric.FREE_MEMORY
        memory = read_meminfo()
        return memory["MemFree"] * 1000 // memory["MemTotal"] / 1000

    def _pressure_since_last(self, goal: Goal) -> float:
        waited_s = _waited_s(goal.cgroup)
        # By identity: two schemes may have equal goals, and each looks at its own times.
        last = self._pressure.setdefault(id(goal), _PressureGoal(goal, waited_s))
        # A cgroup that was made anew counts from 0 again.
        increase_s = waited_s - last.waited_s if waited_s >= last.waited_s else waited_s
        last.waited_s = waited_s
        return increase_s


@dataclass
class _PressureGoal:
    """Waiting time at the last look; the goal is kept so that its id stays its own."""

    goal: Goal
    waited_s: float


def _waited_s(cgroup: str) -> float:
    """For how long some task has waited for memory, of the host or of a cgroup."""
    reading = _cgroup(cgroup).pressure() if cgroup else read_pressure("memory")
    if reading.value is None or reading.value.some is None:
        raise NotSupported(
            f"memory pressure is not measured: {reading.reason}", hint="take another metric, such as free_memory"
        )
    return reading.value.some.total_s


def _list_share(metric: GoalMetric) -> float:
    """Active or inactive memory among both."""
    memory = read_meminfo()
    both = memory["Active"] + memory["Inactive"]
    share = memory["Active"] / both if both else 0.0
    return share if metric is GoalMetric.ACTIVE_MEMORY else 1 - share


def _used_share(goal: Goal) -> float:
    """Used memory of the system, of a node, or of a cgroup on either."""
    memory = read_meminfo()
    total, free = memory["MemTotal"], memory["MemFree"]
    if goal.node is not None:
        node = _node(goal.node, read_nodes())
        total, free = node.total_bytes, node.free_bytes
    used = _cgroup(goal.cgroup).lru_bytes(goal.node) if goal.cgroup else total - free
    return min(1.0, used / total)


def _node(number: int, nodes: Sequence[NumaNode]) -> NumaNode:
    for node in nodes:
        if node.number == number and node.total_bytes:
            return node
    known = ", ".join(str(node.number) for node in nodes if node.total_bytes)
    raise NotSupported(f"this host has no memory node {number}", hint=f"nodes with memory: {known}")


def _cgroup(path: str) -> Cgroup:
    try:
        return find_cgroup(path)
    except InvalidInput as problem:
        raise TargetGone(str(problem), hint=problem.hint) from problem


@dataclass(frozen=True)
class MetricWay:
    """Whether goals can measure something on this host.

    Attributes:
        name: what is measured, and of what, such as `memory_pressure of a cgroup`.
        reason: why it can be measured or not.
        remedy: what would help.
    """

    name: str
    usable: bool
    reason: str
    remedy: str = ""


def rank_metrics(facts: HostFacts) -> list[MetricWay]:
    """What goals can measure here."""
    hierarchies = read_hierarchies()
    nodes = ", ".join(str(node.number) for node in read_nodes() if node.total_bytes)
    has_pressure = facts.memory_pressure.value is not None
    return [
        MetricWay(
            "memory_pressure",
            has_pressure,
            "by PSI" if has_pressure else facts.memory_pressure.reason,
            "" if has_pressure else "boot a kernel that has PSI, with psi=1",
        ),
        _pressure_of_cgroups(hierarchies, has_pressure=has_pressure),
        MetricWay("memory of the host", True, "free, used, active, inactive memory, by /proc/meminfo"),
        MetricWay("memory of a node", True, f"free and used memory; nodes with memory: {nodes}"),
        _memory_of_cgroups(hierarchies),
    ]


def _pressure_of_cgroups(hierarchies: Sequence[Hierarchy], *, has_pressure: bool) -> MetricWay:
    name = "memory_pressure of a cgroup"
    if not any(one.version == 2 for one in hierarchies):
        return MetricWay(name, False, "no cgroup file system of version 2 is mounted", "mount cgroup2")
    if not has_pressure:
        return MetricWay(name, False, "this host does not measure memory pressure", "as for memory_pressure")
    return MetricWay(name, True, "by PSI, of cgroups of version 2")


def _memory_of_cgroups(hierarchies: Sequence[Hierarchy]) -> MetricWay:
    name = "memory of a cgroup"
    for one in hierarchies:
        controllers = one.controllers
        if one.version == 2:
            controllers = frozenset((Path(one.mount_point) / "cgroup.controllers").read_text("ascii").split())
        if "memory" in controllers:
            return MetricWay(name, True, f"free and used memory, by the controller in {one.mount_point}")
    return MetricWay(name, False, "no cgroup file system with a memory controller is mounted", "mount one")
