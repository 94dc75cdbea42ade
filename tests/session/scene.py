"""Loops on virtual time over simulated memory."""

from collections.abc import Callable, Sequence
from itertools import islice

import numpy as np

from memtherm.core.attributes import IntervalGoal, MonitoringAttributes
from memtherm.core.protocols import Actor
from memtherm.core.regions import Range
from memtherm.core.report import Report
from memtherm.core.scheme import Scheme
from memtherm.core.snapshot import TargetInfo
from memtherm.probe.simulated import CensusCosts, HotRange, SimulatedCensusProbe, SimulatedProbe
from memtherm.session.loop import MonitorLoop, Watched
from memtherm.testing import VirtualClock

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30
TIB = 1 << 40
COSTS = CensusCosts()
CENSUS = MonitoringAttributes(interval_goal=IntervalGoal(), method="census")
SAMPLING = MonitoringAttributes(interval_goal=IntervalGoal(), method="sampling")
AUTO = MonitoringAttributes(interval_goal=IntervalGoal())


def census_probe(
    clock: VirtualClock,
    ranges: Sequence[Range],
    *,
    hot: Sequence[HotRange] = (),
    present: Sequence[Range] = (),
    huge: Sequence[Range] = (),
    costs: CensusCosts = COSTS,
) -> SimulatedCensusProbe:
    """A census whose cost is charged to the clock."""
    return SimulatedCensusProbe(
        ranges, hot=hot, present=present, huge=huge, clock=clock, costs=costs, use_cpu=clock.use_cpu
    )


def watched(
    clock: VirtualClock, census: SimulatedCensusProbe | None, *, pid: int = 7, actor: Actor | None = None
) -> Watched:
    """A target that can be seen both ways, as the same memory."""
    mapped, hot = (census.mapped, census.hot) if census else ([(0, GIB)], ())
    return Watched(TargetInfo(pid, "simulated"), SimulatedProbe(mapped, hot=hot, clock=clock), census, actor)


def make_loop(
    targets: Sequence[Watched],
    clock: VirtualClock,
    *,
    attributes: MonitoringAttributes = CENSUS,
    schemes: Sequence[Scheme] = (),
    canary: Callable[[], str] = lambda: "",
) -> MonitorLoop:
    return MonitorLoop(
        targets, attributes=attributes, schemes=schemes, clock=clock, rng=np.random.default_rng(3), canary=canary
    )


def take(loop: MonitorLoop, count: int) -> list[Report]:
    return list(islice(loop.reports(), count))


def take_until(loop: MonitorLoop, clock: VirtualClock, time_s: float) -> list[Report]:
    """Reports up to this time."""
    reports = []
    for report in loop.reports():
        reports.append(report)
        if clock.monotonic_s() >= time_s:
            break
    return reports
