"""Goals: a quota that follows a measured value, such as memory pressure (damon-spec §2.7)."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from memtherm.core.tuning import feed_loop, multiply_divide
from memtherm.errors import InvalidInput

_FULL = 10_000
_NUMBER_MAX = 2**64 - 1


class GoalMetric(StrEnum):
    """What a goal measures: of the whole system, of a NUMA node, or of a cgroup.

    `memory_pressure`: time in which some task waited for memory since the goal was looked at last (PSI `some`).
    `free_memory`, `used_memory`: share of the system's, or of a node's memory; of a cgroup what it and those
    below it use.  `active_memory`, `inactive_memory`: share of the reclaimable memory on these lists.
    `user_input`: a number that the program itself gives.
    """

    MEMORY_PRESSURE = "memory_pressure"
    FREE_MEMORY = "free_memory"
    USED_MEMORY = "used_memory"
    ACTIVE_MEMORY = "active_memory"
    INACTIVE_MEMORY = "inactive_memory"
    USER_INPUT = "user_input"


class Tuner(StrEnum):
    """`consist`: the quota grows and shrinks with the distance from the goal; `temporal`: all or nothing."""

    CONSIST = "consist"
    TEMPORAL = "temporal"


_OF_NODES = (GoalMetric.FREE_MEMORY, GoalMetric.USED_MEMORY)
_OF_CGROUPS = (GoalMetric.MEMORY_PRESSURE, GoalMetric.FREE_MEMORY, GoalMetric.USED_MEMORY)


@dataclass(frozen=True, kw_only=True)
class Goal:
    """A value that a scheme shall bring about by its own doing.

    Attributes:
        target: seconds for memory_pressure, a share (0..1) for memory, any number for user_input.
        node: measure this NUMA node instead of the system.
        cgroup: measure this cgroup and those below it, such as `/system.slice/db.service`; with a node, there.

    Raises:
        InvalidInput: a target that is 0 or less, a share above 1, a metric that nodes or cgroups do not have.
    """

    metric: GoalMetric
    target: float
    node: int | None = None
    cgroup: str = ""

    def __post_init__(self) -> None:
        if not self.target > 0:
            raise InvalidInput(f"the target of a goal is {self.target:g}", hint="a target is above 0")
        if self.is_share and self.target > 1:
            raise InvalidInput(f"the target of {self.metric} is above 100 %", hint="it is a share of memory")
        if self.node is not None and (self.node < 0 or self.metric not in _OF_NODES):
            raise InvalidInput(f"{self.metric} of node {self.node}", hint=f"nodes have {' and '.join(_OF_NODES)}")
        if self.cgroup and self.metric not in _OF_CGROUPS:
            raise InvalidInput(f"{self.metric} of a cgroup", hint=f"cgroups have {', '.join(_OF_CGROUPS)}")

    @property
    def is_share(self) -> bool:
        return self.metric not in (GoalMetric.MEMORY_PRESSURE, GoalMetric.USER_INPUT)

    def score(self, value: float) -> int:
        """How far the goal is reached, in 1/10000, by whole microseconds or 1/10000 of memory as in the kernel."""
        scale = _FULL if self.is_share else 1_000_000
        return multiply_divide(round(value * scale), _FULL, max(1, round(self.target * scale)))


def highest_score(goals: Sequence[Goal], values: Sequence[float]) -> int:
    """The score of all goals together: the highest, which is the least aggressive."""
    return max((goal.score(value) for goal, value in zip(goals, values, strict=True)), default=_FULL)


def tuned_size(last: int, *, score: int, tuner: Tuner, size_bytes: int) -> int:
    """The next size of a quota, in 1/10000 of a byte.

    Args:
        last: the size before.
        size_bytes: the quota's limit in bytes; 0: none.
    """
    if tuner is Tuner.CONSIST:
        return feed_loop(max(last, _FULL), score)
    if score >= _FULL:
        return 0
    return size_bytes * _FULL if size_bytes else _NUMBER_MAX
