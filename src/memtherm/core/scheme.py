"""A scheme: which memory (access pattern), what to do with it (action), and within which limits."""

from dataclasses import dataclass, field
from enum import StrEnum

from memtherm.core.filters import Filter
from memtherm.core.pattern import AccessPattern
from memtherm.core.quota import Quota
from memtherm.core.watermarks import Watermarks
from memtherm.errors import InvalidInput


class Action(StrEnum):
    """What a scheme does with memory (damon-spec §2.4; design §7)."""

    WILLNEED = "willneed"
    COLD = "cold"
    PAGEOUT = "pageout"
    COLLAPSE = "collapse"
    HUGEPAGE = "hugepage"
    NOHUGEPAGE = "nohugepage"
    LRU_PRIO = "lru_prio"
    LRU_DEPRIO = "lru_deprio"
    MIGRATE_HOT = "migrate_hot"
    MIGRATE_COLD = "migrate_cold"
    STAT = "stat"


@dataclass(frozen=True)
class Destination:
    """A NUMA node that memory moves to; of several each gets its share of the weights."""

    node: int
    weight: int = 1


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """An access pattern, the action for the memory that fits it, and limits.

    Attributes:
        apply_interval_s: time between two applies; None: each aggregation window.
        filters: in this order; the first that matches decides.
        destinations: of migrate_hot and migrate_cold, which do nothing without.
        max_nr_snapshots: it ends after so many applies; 0: never.
        targets: labels of the targets that it is for; none: for all.

    Raises:
        InvalidInput: destinations of an action that moves nothing, negative values.

    Example:
        >>> Scheme(
        ...     name="page out what is cold for two minutes",
        ...     pattern=AccessPattern(access_rate=Bounds(0, 0), age_s=Bounds(120, None)),
        ...     action=Action.PAGEOUT,
        ...     quota=Quota(size_bytes=128 * 2**20, weights=Weights(age=1)),
        ... )
    """

    action: Action
    pattern: AccessPattern = field(default_factory=AccessPattern)
    name: str = ""
    apply_interval_s: float | None = None
    quota: Quota = field(default_factory=Quota)
    watermarks: Watermarks | None = None
    filters: tuple[Filter, ...] = ()
    destinations: tuple[Destination, ...] = ()
    max_nr_snapshots: int = 0
    targets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.destinations and self.action not in (Action.MIGRATE_HOT, Action.MIGRATE_COLD):
            raise InvalidInput(
                f"{self.action} has destinations, and moves nothing", hint="migrate_hot and migrate_cold do"
            )
        if any(one.node < 0 or not 0 <= one.weight < 2**32 for one in self.destinations):
            raise InvalidInput("a destination has a negative node or weight", hint="both are from 0 up")
        if self.destinations and not sum(one.weight for one in self.destinations):
            raise InvalidInput("the weights of all destinations are 0", hint="nothing would move: give one a weight")
        if self.apply_interval_s is not None and not self.apply_interval_s >= 0:
            raise InvalidInput(f"apply_interval_s is {self.apply_interval_s}", hint="an interval is from 0 up")
        if self.max_nr_snapshots < 0:
            raise InvalidInput(f"max_nr_snapshots is {self.max_nr_snapshots}", hint="0 is no limit")


@dataclass(frozen=True)
class SchemeStatistics:
    """What a scheme did since it was started (damon-spec §2.10).

    Attributes:
        nr_tried, tried_bytes: regions, and their bytes, for which the action was asked; see Outcome.
        nr_applied, applied_bytes: regions with one byte or more of verified effect, and those bytes.
        refused_bytes: bytes of the tried that a guard kept from the action.
        filtered_bytes: mapped bytes that fit the pattern and were left out by filters; not among the tried.
        nr_quota_exceeded: charge windows that ended with a full quota.
        nr_snapshots: applies.
    """

    nr_tried: int = 0
    tried_bytes: int = 0
    nr_applied: int = 0
    applied_bytes: int = 0
    refused_bytes: int = 0
    filtered_bytes: int = 0
    nr_quota_exceeded: int = 0
    nr_snapshots: int = 0
