"""The census's interval within a window, and what clearing costs the target; on virtual time."""

import numpy as np
import pytest

from memtherm.core.ranges import Addresses
from memtherm.core.snapshot import TargetInfo
from memtherm.probe.simulated import HotRange, SimulatedCensusProbe, SimulatedProbe
from memtherm.session.engines import Watched
from memtherm.testing import VirtualClock
from session.scene import CENSUS, COSTS, GIB, MIB, census_probe, make_loop, take, watched


def test_clearing_takes_no_more_than_its_share_of_the_targets_time() -> None:
    """256 MiB hot: 65,536 bits of 0.35 µs are 23 ms a look, so that it takes 2.3 s; 2 s are the most."""
    clock = VirtualClock()
    hot = [HotRange(0, 256 * MIB, period_s=0.01)]
    probe = census_probe(clock, [(0, GIB)], hot=hot, present=[(0, GIB)])
    conditions = take(make_loop([watched(clock, probe)], clock), 6)[-1].snapshot.conditions
    assert 2.0 <= conditions.sampling_interval_s <= 2.6


def test_huge_pages_cost_the_target_next_to_nothing() -> None:
    clock = VirtualClock()
    hot = [HotRange(0, 256 * MIB, period_s=0.01)]
    probe = census_probe(clock, [(0, GIB)], hot=hot, huge=[(0, GIB)])
    assert take(make_loop([watched(clock, probe)], clock), 6)[-1].snapshot.conditions.sampling_interval_s < 1.0


def test_an_interval_becomes_shorter_within_a_window() -> None:
    """What was hot becomes idle: the rest of the window does not wait as long as it needed to before."""
    clock = VirtualClock()
    probe = census_probe(clock, [(0, GIB)], hot=[HotRange(0, 512 * MIB, period_s=0.01)], present=[(0, GIB)])
    loop = make_loop([watched(clock, probe)], clock)
    before = take(loop, 6)[-1].snapshot.conditions
    probe.hot = ()
    began_s = clock.monotonic_s()
    after = take(loop, 1)[0].snapshot.conditions
    assert after.sampling_interval_s < before.sampling_interval_s / 5
    # Two looks at most at the old interval: the second is the first that finds nothing.
    assert clock.monotonic_s() - began_s <= 2.5 * before.sampling_interval_s
    assert after.aggregation_interval_s == pytest.approx(clock.monotonic_s() - began_s, abs=0.1)
    assert COSTS.look_s > 0


class HalfSwapped(SimulatedCensusProbe):
    """Of 1 GiB the lower half is present, and the upper in swap."""

    def swapped(self) -> Addresses:
        return np.arange(512 * MIB, GIB, 2 * MIB, dtype=np.uint64)


def test_what_was_in_swap_before_is_watched_as_idle() -> None:
    clock = VirtualClock()
    probe = HalfSwapped([(0, GIB)], present=[(0, 512 * MIB)], clock=clock)
    target = Watched(TargetInfo(7, "simulated"), SimulatedProbe([(0, GIB)], hot=(), clock=clock), probe)
    regions = take(make_loop([target], clock, attributes=CENSUS), 2)[-1].snapshot.regions
    assert int(regions.size_bytes.sum()) == GIB
    assert (regions.access_rate == 0).all()
