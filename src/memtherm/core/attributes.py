"""What a user sets about monitoring: intervals and limits, checked as DAMON checks them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from memtherm.errors import InvalidInput
from memtherm.units import format_time

METHODS = ("auto", "census", "sampling", "smaps", "kdamond")


@dataclass(frozen=True, kw_only=True)
class IntervalGoal:
    """How intervals fit themselves to the target.

    Attributes:
        access_rate: wanted share of access events, 0..1; more of them shorten the intervals of sampling,
            fewer lengthen them (DAMON's recommendation, damon-spec §1.14).  The census needs none: a bit stays
            set until it is looked at, so that no access is too rare to be seen.
        windows: aggregation windows between two changes.
        min_sampling_interval_s, max_sampling_interval_s: limits.
        cpu_share: the monitor's share of one CPU; for both methods it makes intervals as long as they must be.

    Raises:
        InvalidInput: shares outside of 0..1, limits that exclude each other.
    """

    access_rate: float = 0.04
    windows: int = 3
    min_sampling_interval_s: float = 0.005
    max_sampling_interval_s: float = 10.0
    cpu_share: float = 0.01

    def __post_init__(self) -> None:
        for name in ("access_rate", "cpu_share"):
            if not 0 < getattr(self, name) <= 1:
                raise InvalidInput(f"{name} is {getattr(self, name)}", hint="a share is above 0 and at most 1")
        if self.windows < 1:
            raise InvalidInput(f"windows is {self.windows}", hint="1 is the least; 3 is usual")
        if not 0 < self.min_sampling_interval_s <= self.max_sampling_interval_s:
            raise InvalidInput(
                f"the shortest sampling interval ({self.min_sampling_interval_s} s) is above the longest "
                f"({self.max_sampling_interval_s} s), or 0",
                hint="5 ms and 10 s are usual",
            )


@dataclass(frozen=True, kw_only=True)
class MonitoringAttributes:
    """Intervals (seconds) and limits of a monitor (damon-spec §1.2, §1.3).

    The defaults are DAMON's, except that new mappings are looked for each second and not each
    minute: reading a memory map costs about a millisecond here, and a program that has just
    started does most of its mapping in its first minute.

    Attributes:
        interval_goal: intervals fit themselves to the target; without it they stay as they are.
        method: `census` counts every page, `sampling` lets one speak for its region, `smaps` samples whole mappings
            without privilege, `kdamond` is the kernel's own DAMON; `auto` takes the census while it can be had for the
            goal's share of a CPU, and beyond that the best of the others that this host has.

    Raises:
        InvalidInput: a value that DAMON refuses as well.
    """

    sampling_interval_s: float = 0.005
    aggregation_interval_s: float = 0.1
    regions_update_interval_s: float = 1.0
    min_nr_regions: int = 10
    max_nr_regions: int = 1000
    interval_goal: IntervalGoal | None = None
    method: str = "auto"

    def __post_init__(self) -> None:
        for name in ("sampling_interval_s", "aggregation_interval_s", "regions_update_interval_s"):
            value = getattr(self, name)
            if not 0 <= value < 1e9:
                raise InvalidInput(f"{name} is {value}", hint="an interval is a time from 0 up")
        if self.sampling_interval_s > self.aggregation_interval_s:
            raise InvalidInput(
                f"the sampling interval ({format_time(self.sampling_interval_s)}) is longer than "
                f"the aggregation interval ({format_time(self.aggregation_interval_s)})",
                hint="an aggregation window holds one or more samples; 20 is usual",
            )
        if self.min_nr_regions < 3:
            raise InvalidInput(f"min_nr_regions is {self.min_nr_regions}", hint="3 is the least")
        if self.min_nr_regions > self.max_nr_regions:
            raise InvalidInput(
                f"min_nr_regions ({self.min_nr_regions}) is more than max_nr_regions ({self.max_nr_regions})",
                hint="10 and 1000 are usual",
            )
        if self.method not in METHODS:
            raise InvalidInput(f"{self.method!r} is no method", hint=f"one of {', '.join(METHODS)}")

    @property
    def samples_per_window(self) -> int:
        """The highest possible nr_accesses; at least 1."""
        return samples_in(self.aggregation_interval_s, self.sampling_interval_s) or 1

    @property
    def samples_per_update(self) -> int:
        """Samples between two looks at the target's mappings; 0 means after each sample."""
        return samples_in(self.regions_update_interval_s, self.sampling_interval_s)


TUNED = MonitoringAttributes(interval_goal=IntervalGoal())
"""What is used where nobody asks for intervals."""


def with_given(base: MonitoringAttributes, given: Mapping[str, Any]) -> MonitoringAttributes:
    """`base` with what a user gave in its place.

    Intervals that somebody asks for stay as they are.  A sampling interval alone keeps the number of
    samples of a window, so that it makes longer windows.
    """
    values = dict(given)
    if "sampling_interval_s" in values and "aggregation_interval_s" not in values:
        longer_s = base.samples_per_window * values["sampling_interval_s"]
        values["aggregation_interval_s"] = max(base.aggregation_interval_s, longer_s)
    if values.keys() & {"sampling_interval_s", "aggregation_interval_s"}:
        values.setdefault("interval_goal", None)
    return replace(base, **values)


def samples_in(interval_s: float, sampling_interval_s: float) -> int:
    """Whole samples in an interval.

    Counted in microseconds like the kernel: in floating point 0.1 // 0.005 is 19.
    """
    return microseconds(interval_s) // (microseconds(sampling_interval_s) or 1)


def microseconds(interval_s: float) -> int:
    return round(interval_s * 1e6)
