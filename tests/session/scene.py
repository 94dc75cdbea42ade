"""Loops on virtual time over simulated memory."""

from collections.abc import Callable, Sequence
from itertools import islice

import numpy as np

from memtherm.core.attributes import IntervalGoal, MonitoringAttributes
from memtherm.core.goals import Goal
from memtherm.core.protocols import Actor
from memtherm.core.regions import Range
from memtherm.core.report import Report
from memtherm.core.scheme import Scheme
from memtherm.core.snapshot import TargetInfo
from memtherm.core.watermarks import WatermarkMetric
from memtherm.errors import NotSupported
from memtherm.probe.simulated import CensusCosts, HotRange, SimulatedCensusProbe, SimulatedProbe
from memtherm.session.engines import Engines, Watched
from memtherm.session.loop import Changes, MonitorLoop
from memtherm.session.schemes import SchemeRunner
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


def engines(attributes: MonitoringAttributes, clock: VirtualClock) -> Engines:
    """Our own methods; the kernel's DAMON is not asked."""
    return Engines(attributes=attributes, clock=clock, rng=np.random.default_rng(3))


def make_loop(
    targets: Sequence[Watched],
    clock: VirtualClock,
    *,
    attributes: MonitoringAttributes = CENSUS,
    schemes: Sequence[Scheme] = (),
    canary: Callable[[], str] = lambda: "",
    find: Callable[[], Changes] = Changes,
) -> MonitorLoop:
    return MonitorLoop(
        targets,
        engines=engines(attributes, clock),
        schemes=SchemeRunner(schemes, metrics=StillMetrics(), clock=clock),
        clock=clock,
        canary=canary,
        find=find,
    )


class StillMetrics:
    """Metrics that a test sets.

    Attributes:
        values: by metric; a missing one is refused.
    """

    def __init__(self, **values: float) -> None:
        self.values = values

    def goal_value(self, goal: Goal) -> float:
        if goal.metric not in self.values:
            raise NotSupported(f"{goal.metric} cannot be measured", hint="set it")
        return self.values[goal.metric]

    def watermark_value(self, metric: WatermarkMetric) -> float:
        return self.values[metric]


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
