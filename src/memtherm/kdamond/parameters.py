"""All that DAMON's sysfs tree takes, up to Linux 7.3, as values that are checked before anything is written.

Defaults are those of fresh directories (damon-spec §3.3).  Times are seconds, sizes and addresses bytes, whatever
the address unit; what the kernel counts in samples, windows, 1/1000 or 1/10000 keeps that unit, and is named so.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from memtherm.core.goals import Tuner
from memtherm.core.scheme import Action
from memtherm.errors import InvalidInput
from memtherm.units import PAGE_SIZE, format_size, format_time

MAX_NR_PROBES = 4
ULONG_MAX = 2**64 - 1
UINT_MAX = 2**32 - 1
INT_MAX = 2**31 - 1
MAX_TIME_S = 1e9  # whole microseconds of it pass through a float and back unchanged


class Operations(StrEnum):
    """What a kdamond watches: `vaddr` processes, `fvaddr` fixed ranges of processes, `paddr` physical memory."""

    VADDR = "vaddr"
    FVADDR = "fvaddr"
    PADDR = "paddr"


MIGRATIONS = (Action.MIGRATE_HOT, Action.MIGRATE_COLD)
# Of processes the kernel asks filters by page for these alone: madvise takes the whole region (damon-spec §2.4, §2.9).
FILTERED_BY_PAGE = (*MIGRATIONS, Action.STAT)
_ON_PROCESSES = (
    *FILTERED_BY_PAGE,
    *(Action.WILLNEED, Action.COLD, Action.PAGEOUT, Action.HUGEPAGE, Action.NOHUGEPAGE, Action.COLLAPSE),
)
# What each can do (damon-spec §2.4); elsewhere the kernel takes the action, and does nothing.
DONE_BY = {
    Operations.VADDR: _ON_PROCESSES,
    Operations.FVADDR: _ON_PROCESSES,
    Operations.PADDR: (*FILTERED_BY_PAGE, Action.PAGEOUT, Action.LRU_PRIO, Action.LRU_DEPRIO),
}


class KernelMetric(StrEnum):
    """What a goal of a quota measures (damon-spec §2.7); names end in the unit of its values."""

    USER_INPUT = "user_input"
    SOME_MEM_PSI_US = "some_mem_psi_us"
    NODE_MEM_USED_BP = "node_mem_used_bp"
    NODE_MEM_FREE_BP = "node_mem_free_bp"
    NODE_MEMCG_USED_BP = "node_memcg_used_bp"
    NODE_MEMCG_FREE_BP = "node_memcg_free_bp"
    ACTIVE_MEM_BP = "active_mem_bp"
    INACTIVE_MEM_BP = "inactive_mem_bp"
    NODE_ELIGIBLE_MEM_BP = "node_eligible_mem_bp"


class KernelFilterKind(StrEnum):
    """What a scheme's filter looks at (damon-spec §2.9): `addr` and `target` on regions, all others on pages."""

    ADDR = "addr"
    TARGET = "target"
    ANON = "anon"
    ACTIVE = "active"
    MEMCG = "memcg"
    YOUNG = "young"
    HUGEPAGE_SIZE = "hugepage_size"
    UNMAPPED = "unmapped"

    @property
    def is_core(self) -> bool:
        return self in (KernelFilterKind.ADDR, KernelFilterKind.TARGET)


class ProbeFilterKind(StrEnum):
    """What a filter of an attribute probe looks at."""

    ANON = "anon"
    MEMCG = "memcg"


class KernelWatermarkMetric(StrEnum):
    NONE = "none"
    FREE_MEM_RATE = "free_mem_rate"


@dataclass(frozen=True)
class KernelBounds:
    """A closed interval of whole numbers.  The default is a fresh directory's, and holds 0 only.

    Attributes:
        maximum: None: no bound.
    """

    minimum: int = 0
    maximum: int | None = 0


ANY_BOUNDS = KernelBounds(0, None)


@dataclass(frozen=True, kw_only=True)
class IntervalsGoal:
    """How the kernel fits the intervals itself (damon-spec §1.14; Linux 6.15).

    Attributes:
        access_bp: wanted access events, in 1/10000 of those possible.
        windows: aggregation windows between two changes; 0: the intervals stay as they are.
    """

    access_bp: int = 0
    windows: int = 0
    min_sampling_interval_s: float = 0.0
    max_sampling_interval_s: float = 0.0

    def __post_init__(self) -> None:
        _check_number("access_bp", self.access_bp)
        _check_number("windows of the intervals goal", self.windows)
        _check_time("min_sampling_interval_s", self.min_sampling_interval_s)
        _check_time("max_sampling_interval_s", self.max_sampling_interval_s)
        if self.windows and self.min_sampling_interval_s > self.max_sampling_interval_s:
            raise InvalidInput(
                f"the shortest sampling interval ({format_time(self.min_sampling_interval_s)}) is above the longest "
                f"({format_time(self.max_sampling_interval_s)})",
                hint="5 ms and 10 s are usual",
            )


@dataclass(frozen=True, kw_only=True)
class Intervals:
    """Sampling, aggregation and update intervals (damon-spec §1.2)."""

    sampling_interval_s: float = 0.005
    aggregation_interval_s: float = 0.1
    regions_update_interval_s: float = 60.0
    goal: IntervalsGoal = field(default_factory=IntervalsGoal)

    def __post_init__(self) -> None:
        for name in ("sampling_interval_s", "aggregation_interval_s", "regions_update_interval_s"):
            _check_time(name, getattr(self, name))
        sampling_s, goal = self.sampling_interval_s, self.goal
        if microseconds(sampling_s) > microseconds(self.aggregation_interval_s):
            raise InvalidInput(
                f"the sampling interval ({format_time(sampling_s)}) is longer than "
                f"the aggregation interval ({format_time(self.aggregation_interval_s)})",
                hint="an aggregation window holds one or more samples; 20 is usual",
            )
        if goal.windows and not goal.min_sampling_interval_s <= sampling_s <= goal.max_sampling_interval_s:
            raise InvalidInput(
                f"the sampling interval ({format_time(sampling_s)}) is outside of its goal's limits, "
                f"{format_time(goal.min_sampling_interval_s)} to {format_time(goal.max_sampling_interval_s)}",
                hint="begin within the limits; the kernel goes on from there",
            )

    @property
    def samples_per_window(self) -> int:
        """The highest possible nr_accesses; at least 1."""
        samples = microseconds(self.aggregation_interval_s) // (microseconds(self.sampling_interval_s) or 1)
        return min(samples, UINT_MAX) or 1


@dataclass(frozen=True, kw_only=True)
class ProbeFilter:
    """Whose pages an attribute probe counts (damon-spec §1.15).

    Attributes:
        path: of `memcg`: the cgroup's path below its mount, such as `/a/b`.
    """

    kind: ProbeFilterKind = ProbeFilterKind.ANON
    matching: bool = False
    allow: bool = False
    path: str = ""

    def __post_init__(self) -> None:
        _check_path(self.kind.value, self.path, is_needed=self.kind is ProbeFilterKind.MEMCG)


@dataclass(frozen=True, kw_only=True)
class KernelProbe:
    """An attribute that is counted beside accesses; physical memory only (Linux 7.2, weight 7.3)."""

    filters: tuple[ProbeFilter, ...] = ()
    weight: int = 0

    def __post_init__(self) -> None:
        _check_number("the weight of a probe", self.weight, maximum=UINT_MAX)


@dataclass(frozen=True, kw_only=True)
class KernelTarget:
    """What is watched.

    Attributes:
        pid: of vaddr and fvaddr; 0 for paddr.
        regions: (start, end) in bytes, half-open, ascending; without any, vaddr finds its own.
        is_obsolete: take this target out at the next commit (Linux 6.19).
    """

    pid: int = 0
    regions: tuple[tuple[int, int], ...] = ()
    is_obsolete: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.pid <= INT_MAX:
            raise InvalidInput(f"{self.pid} is not a process id", hint="give the number that ps or pgrep shows")


@dataclass(frozen=True, kw_only=True)
class KernelGoal:
    """A value that a quota follows (damon-spec §2.7; Linux 6.8).

    Attributes:
        target_value, current_value: in the metric's own unit, in which its name ends; `current_value` is given
            for user_input only.
        node: of metrics of a node.
        path: of metrics of a cgroup: its path below its mount.
    """

    metric: KernelMetric = KernelMetric.USER_INPUT
    target_value: int = 0
    current_value: int = 0
    node: int = 0
    path: str = ""

    def __post_init__(self) -> None:
        _check_number("the target of a goal", self.target_value)
        _check_number("the current value of a goal", self.current_value)
        _check_number("the node of a goal", self.node, maximum=INT_MAX)
        is_of_cgroup = self.metric in (KernelMetric.NODE_MEMCG_USED_BP, KernelMetric.NODE_MEMCG_FREE_BP)
        _check_path(self.metric.value, self.path, is_needed=is_of_cgroup)


@dataclass(frozen=True, kw_only=True)
class KernelQuota:
    """What limits a scheme (damon-spec §2.5); a limit of 0 is none.

    Attributes:
        time_s, reset_interval_s: whole milliseconds.
        size_permil, nr_accesses_permil, age_permil: weights of a region's priority.
        fail_charge_numerator, fail_charge_denominator: what a byte tried in vain costs; denominator 0: a whole byte.
    """

    time_s: float = 0.0
    size_bytes: int = 0
    reset_interval_s: float = 0.0
    size_permil: int = 0
    nr_accesses_permil: int = 0
    age_permil: int = 0
    goals: tuple[KernelGoal, ...] = ()
    tuner: Tuner = Tuner.CONSIST
    fail_charge_numerator: int = 0
    fail_charge_denominator: int = 0

    def __post_init__(self) -> None:
        _check_time("time_s of a quota", self.time_s, units_per_s=1000)
        _check_time("reset_interval_s of a quota", self.reset_interval_s, units_per_s=1000)
        _check_number("size_bytes of a quota", self.size_bytes, maximum=None)
        for name in ("size_permil", "nr_accesses_permil", "age_permil"):
            _check_number(name, getattr(self, name), maximum=UINT_MAX)
        for name in ("fail_charge_numerator", "fail_charge_denominator"):
            _check_number(name, getattr(self, name), maximum=UINT_MAX)

    @property
    def is_set(self) -> bool:
        return bool(self.time_s or self.size_bytes or self.goals)


@dataclass(frozen=True, kw_only=True)
class KernelWatermarks:
    """When a scheme rests (damon-spec §2.8); marks in 1/1000."""

    metric: KernelWatermarkMetric = KernelWatermarkMetric.NONE
    interval_s: float = 0.0
    high_permil: int = 0
    mid_permil: int = 0
    low_permil: int = 0

    def __post_init__(self) -> None:
        _check_time("interval_s of watermarks", self.interval_s)
        for name in ("high_permil", "mid_permil", "low_permil"):
            _check_number(name, getattr(self, name))


@dataclass(frozen=True, kw_only=True)
class KernelFilter:
    """Allows or rejects memory for which `kind` holds, or with `matching` false does not hold (damon-spec §2.9).

    Attributes:
        memcg_path: of `memcg`: the cgroup's path below its mount; cgroups below it do not match.
        start, end: of `addr`, in bytes, half-open.
        size_bytes: of `hugepage_size`: closed bounds.
        target: of `target`: index into the context's targets.
    """

    kind: KernelFilterKind = KernelFilterKind.ANON
    matching: bool = False
    allow: bool = False
    memcg_path: str = ""
    start: int = 0
    end: int = 0
    size_bytes: KernelBounds = KernelBounds()
    target: int = 0

    def __post_init__(self) -> None:
        _check_path(self.kind.value, self.memcg_path, is_needed=self.kind is KernelFilterKind.MEMCG)
        _check_number("the start of a filter", self.start, maximum=None)
        _check_number("the end of a filter", self.end, maximum=None)
        if self.end < self.start:
            raise InvalidInput(f"the range {self.start:#x}-{self.end:#x} ends before it starts", hint="swap the two")
        # In bytes whatever the address unit: the kernel compares it with the size of a page.
        _check_bounds("size_bytes of a filter", self.size_bytes, maximum=ULONG_MAX, is_ordered=True)
        _check_number("the target of a filter", self.target, maximum=INT_MAX)


@dataclass(frozen=True, kw_only=True)
class KernelDestination:
    """A NUMA node that memory of processes moves to, and its share (Linux 6.17)."""

    node: int = 0
    weight: int = 0

    def __post_init__(self) -> None:
        _check_number("the node of a destination", self.node, maximum=UINT_MAX)
        _check_number("the weight of a destination", self.weight, maximum=UINT_MAX)


@dataclass(frozen=True, kw_only=True)
class KernelScheme:
    """An action for the regions within three bounds (damon-spec §2).

    The bounds of a fresh directory, which are the defaults, fit no region: give each, ANY_BOUNDS for no bound.

    Attributes:
        nr_accesses: samples of a window that found an access.
        age_windows: aggregation windows.
        apply_interval_s: 0: each aggregation window.
        target_node: of migrate_hot and migrate_cold without destinations; -1: none.
        core_filters, ops_filters: by region, then by page; each in this order.
        max_nr_snapshots: it ends after so many; 0: never (Linux 7.0).
    """

    action: Action = Action.STAT
    size_bytes: KernelBounds = KernelBounds()
    nr_accesses: KernelBounds = KernelBounds()
    age_windows: KernelBounds = KernelBounds()
    apply_interval_s: float = 0.0
    target_node: int = -1
    quota: KernelQuota = field(default_factory=KernelQuota)
    watermarks: KernelWatermarks = field(default_factory=KernelWatermarks)
    core_filters: tuple[KernelFilter, ...] = ()
    ops_filters: tuple[KernelFilter, ...] = ()
    destinations: tuple[KernelDestination, ...] = ()
    max_nr_snapshots: int = 0

    def __post_init__(self) -> None:
        # A minimum above its maximum fits no region, and the kernel takes it.
        _check_bounds("size_bytes", self.size_bytes, maximum=None)
        _check_bounds("nr_accesses", self.nr_accesses, maximum=UINT_MAX)
        _check_bounds("age_windows", self.age_windows, maximum=UINT_MAX)
        _check_time("apply_interval_s", self.apply_interval_s)
        _check_number("max_nr_snapshots", self.max_nr_snapshots)
        if not -1 <= self.target_node <= INT_MAX:
            raise InvalidInput(f"the target node is {self.target_node}", hint="nodes are from 0 up; -1 is none")
        for one in self.core_filters:
            if not one.kind.is_core:
                raise InvalidInput(f"{one.kind} is no filter by region", hint="put it into ops_filters")
        for one in self.ops_filters:
            if one.kind.is_core:
                raise InvalidInput(f"{one.kind} is no filter by page", hint="put it into core_filters")


@dataclass(frozen=True, kw_only=True)
class Context:
    """What one kdamond watches and does.

    Attributes:
        address_unit: bytes of an address in the kernel's reckoning; other than 1 for paddr only (Linux 6.18).
        is_paused: (Linux 7.2)

    Raises:
        InvalidInput: what the kernel would refuse at start or commit (damon-spec §1.3).
    """

    operations: Operations = Operations.VADDR
    address_unit: int = 1
    is_paused: bool = False
    intervals: Intervals = field(default_factory=Intervals)
    min_nr_regions: int = 10
    max_nr_regions: int = 1000
    probes: tuple[KernelProbe, ...] = ()
    targets: tuple[KernelTarget, ...] = ()
    schemes: tuple[KernelScheme, ...] = ()

    def __post_init__(self) -> None:
        self._check_unit()
        _check_number("min_nr_regions", self.min_nr_regions)
        _check_number("max_nr_regions", self.max_nr_regions)
        if self.min_nr_regions < 3:
            raise InvalidInput(f"min_nr_regions is {self.min_nr_regions}", hint="3 is the least")
        if self.min_nr_regions > self.max_nr_regions:
            raise InvalidInput(
                f"min_nr_regions ({self.min_nr_regions}) is more than max_nr_regions ({self.max_nr_regions})",
                hint="10 and 1000 are usual",
            )
        if self.operations is Operations.PADDR and len(self.targets) > 1:
            raise InvalidInput(
                f"{len(self.targets)} targets of physical memory", hint="it is one: give its target several regions"
            )
        self._check_probes()
        for target in self.targets:
            _check_regions(target.regions, alignment=max(PAGE_SIZE, self.address_unit), unit=self.address_unit)
        for scheme in self.schemes:
            self._check_scheme(scheme)

    def _check_unit(self) -> None:
        unit = self.address_unit
        if not 1 <= unit <= ULONG_MAX or (unit < PAGE_SIZE and unit & (unit - 1)):
            raise InvalidInput(f"an address unit of {unit} bytes", hint="below the page size it is a power of two")
        if unit != 1 and self.operations is not Operations.PADDR:
            raise InvalidInput(
                f"an address unit of {unit} bytes for {self.operations}", hint="only paddr has units other than 1"
            )

    def _check_probes(self) -> None:
        if not self.probes:
            return
        if self.operations is not Operations.PADDR:
            raise InvalidInput(f"attribute probes of {self.operations}", hint="only paddr has them")
        if len(self.probes) > MAX_NR_PROBES:
            raise InvalidInput(f"{len(self.probes)} attribute probes", hint=f"{MAX_NR_PROBES} are the most")
        samples = self.intervals.samples_per_window
        weight = sum(probe.weight for probe in self.probes)
        if weight and samples > 255:
            raise InvalidInput(
                f"{samples} samples a window, and weighted probes count up to 255",
                hint="make the aggregation interval shorter, or the sampling interval longer",
            )
        if weight * samples > UINT_MAX:
            raise InvalidInput(f"the weights of the probes add up to {weight}", hint="smaller weights tell as much")

    def _check_scheme(self, scheme: KernelScheme) -> None:
        unit = self.address_unit
        _check_whole("size_bytes of a scheme", scheme.size_bytes.minimum, unit)
        _check_whole("size_bytes of a scheme", scheme.size_bytes.maximum or 0, unit)
        _check_whole("size_bytes of a quota", scheme.quota.size_bytes, unit)
        for one in scheme.core_filters:
            _check_whole("the start of a filter", one.start, unit)
            _check_whole("the end of a filter", one.end, unit)
        needs_paddr = KernelMetric.NODE_ELIGIBLE_MEM_BP
        if self.operations is not Operations.PADDR and any(goal.metric is needs_paddr for goal in scheme.quota.goals):
            raise InvalidInput(f"a goal of {needs_paddr} for {self.operations}", hint="only paddr has it")


@dataclass(frozen=True, kw_only=True)
class Kdamond:
    """All of one kdamond directory.

    Attributes:
        refresh_interval_s: the kernel renews tuned intervals, statistics and effective quotas in the files this
            often, in whole milliseconds; 0: on request only (Linux 6.17).
    """

    context: Context = field(default_factory=Context)
    refresh_interval_s: float = 0.0

    def __post_init__(self) -> None:
        _check_time("refresh_interval_s", self.refresh_interval_s, units_per_s=1000)
        if round(self.refresh_interval_s * 1000) > UINT_MAX:
            raise InvalidInput(f"refresh_interval_s is {self.refresh_interval_s}", hint="0.1 is usual")


def microseconds(time_s: float) -> int:
    return round(time_s * 1e6)


def milliseconds(time_s: float) -> int:
    return round(time_s * 1e3)


def _check_number(what: str, value: int, *, maximum: int | None = ULONG_MAX) -> None:
    """A whole number from 0 up; without a maximum of its own it is one of bytes, which the address unit divides."""
    if not isinstance(value, int) or value < 0 or (maximum is not None and value > maximum):
        top = "2^64 - 1 units" if maximum is None else str(maximum)
        raise InvalidInput(f"{what} is {value}", hint=f"it is a whole number from 0 to {top}")


def _check_whole(what: str, value: int, unit: int) -> None:
    if value % unit:
        raise InvalidInput(f"{what} is {value}, no multiple of the address unit", hint=f"the unit is {unit} bytes")
    if value // unit > ULONG_MAX:
        raise InvalidInput(f"{what} is {value}", hint="it is at most 2^64 - 1 address units")


def _check_bounds(what: str, bounds: KernelBounds, *, maximum: int | None, is_ordered: bool = False) -> None:
    _check_number(f"the minimum of {what}", bounds.minimum, maximum=maximum)
    if bounds.maximum is None:
        return
    _check_number(f"the maximum of {what}", bounds.maximum, maximum=maximum)
    if is_ordered and bounds.minimum > bounds.maximum:
        raise InvalidInput(
            f"{what}: the minimum {format_size(bounds.minimum)} is above the maximum {format_size(bounds.maximum)}",
            hint="no page can match; swap the bounds",
        )


def _check_time(what: str, value: float, *, units_per_s: int = 1_000_000) -> None:
    if not 0 <= value <= MAX_TIME_S:
        raise InvalidInput(f"{what} is {value}", hint="it is a time from 0 up to 31 years")
    if value and not round(value * units_per_s):
        unit = "ms" if units_per_s == 1000 else "us"
        raise InvalidInput(f"{what} is {value}, which the kernel would take for 0", hint=f"it counts whole {unit}")


def _check_path(kind: str, path: str, *, is_needed: bool) -> None:
    if is_needed and not path.startswith("/"):
        raise InvalidInput(f"{kind} of the cgroup {path!r}", hint="give its path below the mount, such as /a/b")
    if "\n" in path or "\0" in path:
        raise InvalidInput(f"the cgroup {path!r} has a line break in its name", hint="the kernel takes one line")


def _check_regions(regions: tuple[tuple[int, int], ...], *, alignment: int, unit: int) -> None:
    """The kernel aligns start down and end up, and refuses what is empty, unsorted or overlapping then."""
    last_end = 0
    for start, end in regions:
        _check_whole("the start of a region", start, unit)
        _check_whole("the end of a region", end, unit)
        if not 0 <= start < end:
            raise InvalidInput(f"the region {start:#x}-{end:#x} is empty", hint="a region is start and end, half-open")
        if start // alignment * alignment < last_end:
            raise InvalidInput(
                f"the region {start:#x}-{end:#x} begins before the one ahead of it has ended",
                hint=f"give regions in ascending order; each counts in whole {format_size(alignment)}",
            )
        last_end = (end + alignment - 1) // alignment * alignment
