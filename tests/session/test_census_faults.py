"""How much a census clears where each access to a cleared page costs the target a fault; on virtual time."""

import numpy as np
import pytest

from memtherm.core.attributes import IntervalGoal, MonitoringAttributes
from memtherm.core.census import PageBits, page_count
from memtherm.probe.simulated import HotRange, SimulatedCensusProbe
from memtherm.testing import VirtualClock
from session.scene import COSTS, GIB, MIB, make_loop, take, watched

FAULT_S = 1e-6
# A look each second; a share of 1 % bears 10,000 faults of 1 µs between two looks.
EACH_SECOND = MonitoringAttributes(sampling_interval_s=1.0, aggregation_interval_s=5.0, method="census")


class FaultingProbe(SimulatedCensusProbe):
    """Counts at each look what of the last clear was accessed again: those were faults."""

    target_s_per_page = FAULT_S
    _cleared: PageBits | None = None
    faults: list[int]

    def look(self) -> PageBits:
        bits = super().look()
        if self._cleared is not None:
            row = np.searchsorted(bits.address, self._cleared.address)
            self.faults.append(page_count(bits.accessed[row] & self._cleared.accessed))
        return bits

    def clear(self, bits: PageBits) -> PageBits:
        self._cleared = bits
        return super().clear(bits)


def probe_with(clock: VirtualClock, *, hot_bytes: int) -> FaultingProbe:
    probe = FaultingProbe(
        [(0, GIB)],
        hot=[HotRange(0, hot_bytes, period_s=0.01)] if hot_bytes else [],
        present=[(0, GIB)],
        clock=clock,
        costs=COSTS,
        use_cpu=clock.use_cpu,
    )
    probe.faults = []
    return probe


def test_a_hot_gibibyte_costs_the_target_its_share_and_no_more() -> None:
    clock = VirtualClock()
    probe = probe_with(clock, hot_bytes=GIB)
    snapshot = take(make_loop([watched(clock, probe)], clock, attributes=EACH_SECOND), 4)[-1].snapshot
    # All of it once, so that nothing is taken for idle that is not; from then on 4 % of it.
    assert probe.faults[0] == 262_144
    assert max(probe.faults[1:]) <= 20_000
    assert np.mean(probe.faults[1:]) * FAULT_S == pytest.approx(0.01, rel=0.3)
    assert snapshot.conditions.sampling_interval_s == 1.0
    assert 0.5 < snapshot.conditions.uncovered_share < 1
    assert (snapshot.regions.access_rate > 0).all()


def test_what_becomes_idle_is_known_after_a_few_looks() -> None:
    """What was cleared and did not come back makes more clearing bearable: 20, 160, then all units."""
    clock = VirtualClock()
    probe = probe_with(clock, hot_bytes=GIB)
    loop = make_loop([watched(clock, probe)], clock, attributes=EACH_SECOND)
    take(loop, 2)
    probe.hot = ()
    take(loop, 1)
    probe.faults.clear()
    assert take(loop, 1)[0].snapshot.conditions.uncovered_share == 0.0
    assert sum(probe.faults) == 0


def test_a_small_hot_set_in_much_idle_memory() -> None:
    clock = VirtualClock()
    probe = probe_with(clock, hot_bytes=32 * MIB)
    loop = make_loop([watched(clock, probe)], clock, attributes=EACH_SECOND)
    take(loop, 3)
    snapshot = take(loop, 1)[0].snapshot
    regions = snapshot.regions
    hot = regions.access_rate > 0.5
    assert int(regions.size_bytes[hot].sum()) == 32 * MIB
    assert int(regions.start[hot].min()) == 0
    assert snapshot.conditions.uncovered_share == 0.0


def test_the_interval_follows_the_faults_where_it_may() -> None:
    clock = VirtualClock()
    probe = probe_with(clock, hot_bytes=64 * MIB)
    attributes = MonitoringAttributes(interval_goal=IntervalGoal(), method="census")
    snapshot = take(make_loop([watched(clock, probe)], clock, attributes=attributes), 8)[-1].snapshot
    # 16,384 faults are 1.6 s at 1 %.
    assert 1.4 <= snapshot.conditions.sampling_interval_s <= 2.6
    assert np.mean(probe.faults[-5:]) * FAULT_S / snapshot.conditions.sampling_interval_s <= 0.013
