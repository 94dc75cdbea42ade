"""Runs to be recorded: reports of windows, from simulated sampling and from real processes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from memtherm.core.attributes import MonitoringAttributes
from memtherm.core.report import Report
from memtherm.core.sampling import Sampler
from memtherm.core.snapshot import Conditions, Regions, Snapshot, TargetInfo
from memtherm.probe.simulated import HotRange, SimulatedProbe
from memtherm.testing.clock import VirtualClock

GIB = 1 << 30
BASE = 0x7F3A_1234_5000
WINDOW_S = 0.1
TARGET = TargetInfo(1234, "server", 5.0)
CONDITIONS = Conditions(
    method="sampling",
    why="as asked for",
    probe="bpf",
    clearing="cold",
    grain="page",
    sampling_interval_s=0.005,
    aggregation_interval_s=WINDOW_S,
    samples=20,
    window_s=WINDOW_S,
)


def report_of(regions: Regions, index: int, *, begin_s: float = 1.7e9) -> Report:
    """The report of one of many windows, with numbers that differ as those of real windows do."""
    conditions = replace(CONDITIONS, window_s=WINDOW_S + index % 7 * 1e-5, agent_cpu_s=1e-3 + index % 11 * 1e-6)
    return Report(Snapshot(begin_s + (index + 1) * WINDOW_S, (TARGET,), regions, conditions), ())


def sampled(windows: int, *, seed: int = 1) -> Iterator[Regions]:
    """Between 1,000 and 2,000 regions of 16 GiB whose borders and counts the sampler draws anew in each window.

    Three tenths of 12,000 stripes are touched, each with a probability of its own; some change each five seconds.
    """
    rng = np.random.default_rng(seed)
    pages = 16 * GIB // 4096
    edges = np.unique(np.append(rng.integers(1, pages, 12_000), [0, pages])) * 4096 + BASE
    chance = np.where(rng.random(len(edges)) < 0.7, 0, rng.random(len(edges)) ** 2)
    sampler = Sampler(MonitoringAttributes(min_nr_regions=10, max_nr_regions=4000), rng=rng)
    sampler.set_ranges([(BASE, BASE + 16 * GIB)])
    warm_up = 250
    for window in range(windows + warm_up):
        if window % 50 == 49:
            changed = rng.integers(0, len(chance), len(chance) // 20)
            chance[changed] = np.where(rng.random(len(changed)) < 0.7, 0, rng.random(len(changed)) ** 2)
        while not sampler.window_is_complete:
            stripe = np.searchsorted(edges, sampler.draw_addresses().astype(np.int64), side="right") - 1
            sampler.record(rng.random(len(stripe)) < chance[stripe])
        sampler.close_window()
        if window >= warm_up:
            yield sampler.regions()
        sampler.open_window()


def simulated(windows: int, *, seed: int = 1) -> Iterator[Regions]:
    """At least 1,000 regions of 4 GiB, of which 30 ranges are hot, by probe/simulated.py."""
    rng, clock = np.random.default_rng(seed), VirtualClock()
    hot = []
    for _ in range(30):
        start = BASE + int(rng.integers(0, 4 * GIB >> 12)) * 4096
        size = int(2 ** rng.uniform(18, 25)) // 4096 * 4096
        hot.append(HotRange(start, min(start + size, BASE + 4 * GIB), period_s=float(2 ** rng.uniform(-8, 2))))
    ranges = [(BASE, BASE + 4 * GIB)]
    probe = SimulatedProbe(ranges, hot=hot, clock=clock)
    sampler = Sampler(MonitoringAttributes(min_nr_regions=1000, max_nr_regions=3000), rng=rng)
    sampler.set_ranges(ranges)
    for _ in range(windows):
        while not sampler.window_is_complete:
            addresses = sampler.draw_addresses()
            probe.clear(addresses)
            clock.sleep(0.005)
            sampler.record(probe.read(addresses))
        sampler.close_window()
        yield sampler.regions()
        sampler.open_window()


def static(windows: int, regions: Regions) -> Iterator[Regions]:
    """Nothing changes but the ages."""
    for window in range(windows):
        yield replace(regions, age_s=regions.age_s + window * WINDOW_S)
