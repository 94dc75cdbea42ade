"""The kernel's own selftests of what a kdamond finds and does, done again through ours (damon-spec §6.4).

Time is counted in windows of the kdamond, not by the clock: the two drift apart where the processor is emulated.
sysfs_refresh and tried_regions_hang are in test_real_tree.py.
"""

from dataclasses import replace

import pytest

from kdamond.guest.areas import MIB, Areas
from memtherm.kdamond import control
from memtherm.kdamond.features import Feature
from memtherm.kdamond.ownership import KdamondSlots
from memtherm.kdamond.parameters import (
    ANY_BOUNDS,
    Context,
    Intervals,
    Kdamond,
    KernelBounds,
    KernelGoal,
    KernelQuota,
    KernelScheme,
    KernelTarget,
)

ANYTHING = KernelScheme(size_bytes=ANY_BOUNDS, nr_accesses=ANY_BOUNDS, age_windows=ANY_BOUNDS)
# Long enough for an emulated program to touch 10 MiB between two samples.
UNHURRIED = Intervals(sampling_interval_s=0.02, aggregation_interval_s=0.2)


def watching(areas: Areas, *schemes: KernelScheme, **values: object) -> Kdamond:
    context = Context(targets=(KernelTarget(pid=areas.pid),), schemes=schemes)
    return Kdamond(context=replace(context, **values))  # type: ignore[arg-type]


def test_estimates_the_working_set(slots: KdamondSlots) -> None:
    """Two areas in turn, 20 windows each: at the median, and above, the set is one of them."""
    size_bytes = 10 * MIB
    hot = KernelScheme(size_bytes=ANY_BOUNDS, nr_accesses=KernelBounds(3, 10), age_windows=KernelBounds(2, None))
    found: list[list[int]] = []
    # As the kernel's own: a set may be too small for a cache of translations to forget it.
    while size_bytes <= 160 * MIB:
        found.append([])
        with (
            Areas(2, size_bytes=size_bytes, hot=[0]) as areas,
            control.start(watching(areas, hot, intervals=UNHURRIED), slots=slots) as running,
        ):
            for sample in range(40):
                if sample == 20:
                    areas.heat([1])
                found[-1] += running.tried_bytes()
        found[-1].sort()
        if all(abs(found[-1][rank] - size_bytes) <= 0.2 * size_bytes for rank in (20, 30)):
            return
        size_bytes *= 2
    pytest.fail(f"in MiB: {[[size / MIB for size in sizes] for sizes in found]}")


def test_finds_areas_that_differ(slots: KdamondSlots) -> None:
    """14 areas of which every other one is touched are 14 regions or more."""
    with (
        Areas(14, size_bytes=2 * MIB, hot=range(0, 14, 2)) as areas,
        control.start(watching(areas, ANYTHING, intervals=UNHURRIED), slots=slots) as running,
    ):
        counts = sorted(len(running.tried_regions()[0]) for _ in range(11))
    assert counts[4] >= 14, counts


@pytest.mark.parametrize(("nr_areas", "minimum", "maximum"), [(10, 20, 100), (15, 3, 10)])
def test_as_many_regions_as_allowed(slots: KdamondSlots, nr_areas: int, minimum: int, maximum: int) -> None:
    with (
        Areas(nr_areas, size_bytes=2 * MIB, hot=range(0, nr_areas, 2)) as areas,
        control.start(
            watching(areas, ANYTHING, min_nr_regions=minimum, max_nr_regions=maximum), slots=slots
        ) as running,
    ):
        counts = [len(running.tried_regions()[0]) for _ in range(11)]
    assert all(minimum <= count <= maximum for count in counts), counts


def test_fewer_regions_while_it_runs(slots: KdamondSlots) -> None:
    intervals = Intervals(regions_update_interval_s=0.1)
    with Areas(10, size_bytes=2 * MIB, hot=range(0, 10, 2)) as areas:
        before = watching(areas, ANYTHING, intervals=intervals)
        after = watching(areas, ANYTHING, intervals=intervals, min_nr_regions=3, max_nr_regions=7)
        with control.start(before, slots=slots) as running:
            many = max(len(running.tried_regions()[0]) for _ in range(3))
            running.commit(after)
            for _ in range(3):
                running.tried_bytes()
            few = [len(running.tried_regions()[0]) for _ in range(3)]
    assert many > 7
    assert max(few) <= 7, few


def test_a_quota_is_kept(slots: KdamondSlots) -> None:
    limited = replace(ANYTHING, quota=KernelQuota(size_bytes=MIB, reset_interval_s=0.1))
    with (
        Areas(2, size_bytes=10 * MIB, hot=[0]) as areas,
        control.start(watching(areas, limited), slots=slots) as running,
    ):
        for _ in range(10):  # in some kernels the first charge window has no limit
            running.tried_bytes()
            if running.effective_quotas() == (MIB,):
                break
        sizes = [running.tried_bytes()[0] for _ in range(20)]
        (statistics,) = running.statistics()
    assert max(sizes) <= MIB, sizes
    at_limit = sizes.count(MIB)
    assert at_limit > 10, sizes
    assert statistics.nr_quota_exceeded >= at_limit


def test_a_quota_follows_its_goal(slots: KdamondSlots) -> None:
    """Short of its target it grows, beyond it shrinks, down to a byte."""
    goal = KernelGoal(target_value=10_000)
    scheme = replace(ANYTHING, quota=KernelQuota(reset_interval_s=0.1, goals=(goal,)))
    with Areas(1, size_bytes=MIB, hot=[0]) as areas, control.start(watching(areas, scheme), slots=slots) as running:
        running.tried_bytes()
        (last,) = running.effective_quotas()
        for value in (0, 15_000, 5_000, 18_000):
            running.set_goal_values(0, [value])
            for _ in range(5):
                running.tried_bytes()
            (now,) = running.effective_quotas()
            assert now > last if value < 10_000 else (now < last or now == last == 1), (value, last, now)
            last = now


def test_a_scheme_is_applied_at_its_own_interval(slots: KdamondSlots) -> None:
    slow, fast = replace(ANYTHING, apply_interval_s=0.1), replace(ANYTHING, apply_interval_s=0.01)
    with Areas(1, size_bytes=MIB, hot=[0]) as areas, control.start(watching(areas, slow, fast), slots=slots) as running:
        for _ in range(15):
            running.tried_bytes()
        of_slow, of_fast = running.statistics()
        assert of_fast.nr_tried >= 9 * of_slow.nr_tried, (of_slow, of_fast)
        if running.features.has(Feature.MAX_NR_SNAPSHOTS):
            assert (of_fast.nr_snapshots or 0) >= 9 * (of_slow.nr_snapshots or 1)
