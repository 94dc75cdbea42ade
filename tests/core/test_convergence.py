"""What sampling finds in simulated memory at virtual time: the hot set, and selftests of damon-spec §6.4."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from memtherm.core.attributes import MonitoringAttributes
from memtherm.core.pattern import AccessPattern, Bounds
from memtherm.core.ranges import Addresses, Flags, overlap_bytes, sizes
from memtherm.core.regions import Range
from memtherm.core.sampling import Sampler
from memtherm.core.scheme import Action, Scheme
from memtherm.core.scheme_state import SchemeState
from memtherm.core.snapshot import Regions

MIB = 1 << 20

Touched = Callable[[Addresses, int], Flags]
"""Whether pages are touched within one sampling interval of a window, by the window's number."""


def watch(sampler: Sampler, touched: Touched, *, windows: int) -> Iterator[Regions]:
    for window in range(windows):
        while not sampler.window_is_complete:
            sampler.record(touched(sampler.draw_addresses(), window))
        sampler.close_window()
        yield sampler.regions()
        sampler.open_window()


def inside(ranges: list[Range]) -> Callable[[Addresses], Flags]:
    starts, ends = (np.array(column, np.uint64) for column in zip(*ranges, strict=True))

    def touched(addresses: Addresses) -> Flags:
        index = np.searchsorted(starts, addresses, side="right") - 1
        return (index >= 0) & (addresses < ends[index])

    return touched


def sampler_over(ranges: list[Range], *, seed: int, min_nr: int = 10, max_nr: int = 1000) -> Sampler:
    attributes = MonitoringAttributes(min_nr_regions=min_nr, max_nr_regions=max_nr)
    sampler = Sampler(attributes, rng=np.random.default_rng(seed))
    sampler.set_ranges(ranges)
    return sampler


@pytest.mark.parametrize("seed", range(5))
def test_hot_set_is_found(seed: int) -> None:
    """Two stripes of a 1 GiB process, 10 seconds of 5 ms / 100 ms; from 1 s on it stays found."""
    hot: list[Range] = [(100 * MIB, 164 * MIB), (600 * MIB, 728 * MIB)]
    hot_start, hot_end = (np.array(column, np.uint64) for column in zip(*hot, strict=True))
    hot_bytes = int(sizes(hot_start, hot_end).sum())
    is_hot = inside(hot)
    sampler = sampler_over([(0, 1024 * MIB)], seed=seed)
    for window, regions in enumerate(watch(sampler, lambda addresses, _: is_hot(addresses), windows=100)):
        seen = regions.take(np.flatnonzero(regions.access_rate >= 0.5))
        found_bytes = int(overlap_bytes(seen.start, seen.end, hot_start, hot_end).sum())
        if window >= 10:
            assert found_bytes / hot_bytes >= 0.95, f"recall in window {window}"
            assert found_bytes / int(seen.size_bytes.sum()) >= 0.95, f"precision in window {window}"
    assert len(regions) < 30, "quiet memory needs few regions"
    assert regions.age_s.max() > 5


def program_around(areas_bytes: int) -> list[Range]:
    """The three ranges of a small program that mapped its areas between its libraries."""
    mapped = 1 << 46
    return [(1 << 40, (1 << 40) + MIB), (mapped, mapped + areas_bytes + 4 * MIB), (1 << 47, (1 << 47) + 132 * 1024)]


def areas_of(count: int, area_bytes: int) -> list[Range]:
    begin = (1 << 46) + 2 * MIB
    return [(begin + index * area_bytes, begin + (index + 1) * area_bytes) for index in range(count)]


@pytest.mark.parametrize("seed", range(3))
def test_wss_estimation(seed: int) -> None:
    """Two areas in turn, 2 s each: what is hot for two windows is as much as one area, give or take 20 %."""
    area_bytes = 10 * MIB
    areas = areas_of(2, area_bytes)
    touched = [inside([area]) for area in areas]
    pattern = AccessPattern(access_rate=Bounds(5 / 20, 20 / 20), age_s=Bounds(0.2, None))
    scheme = SchemeState(Scheme(action=Action.STAT, pattern=pattern))
    sampler = sampler_over(program_around(2 * area_bytes), seed=seed)
    tried = [
        sum(int(sizes(action.start, action.end).sum()) for action in scheme.plan(regions, {}))
        for regions in watch(sampler, lambda addresses, window: touched[window // 20 % 2](addresses), windows=60)
    ]
    for percentile in (50, 75):
        assert np.percentile(tried[20:], percentile) == pytest.approx(area_bytes, rel=0.2)


@pytest.mark.parametrize("seed", range(3))
def test_damos_tried_regions(seed: int) -> None:
    """14 areas, the even ones touched: no fewer regions than areas in seven of eleven windows."""
    even = inside(areas_of(14, 10 * MIB)[::2])
    sampler = sampler_over(program_around(140 * MIB), seed=seed)
    counts = [len(regions) for regions in watch(sampler, lambda addresses, _: even(addresses), windows=11)]
    assert sorted(counts)[4] >= 14


@pytest.mark.parametrize(("areas", "min_nr", "max_nr"), [(10, 20, 100), (15, 3, 10)])
def test_damon_nr_regions(areas: int, min_nr: int, max_nr: int) -> None:
    even = inside(areas_of(areas, 10 * MIB)[::2])
    sampler = sampler_over(program_around(areas * 10 * MIB), seed=1, min_nr=min_nr, max_nr=max_nr)
    counts = [len(regions) for regions in watch(sampler, lambda addresses, _: even(addresses), windows=30)]
    assert min_nr <= min(counts)
    assert max(counts) <= max_nr


def test_damon_nr_regions_changed_online() -> None:
    """From 20..100 to 3..7 regions: kept from the third window on."""
    even = inside(areas_of(10, 10 * MIB)[::2])
    sampler = sampler_over(program_around(100 * MIB), seed=1, min_nr=20, max_nr=100)
    before = [len(regions) for regions in watch(sampler, lambda addresses, _: even(addresses), windows=5)]
    assert min(before) > 7
    sampler.set_attributes(MonitoringAttributes(min_nr_regions=3, max_nr_regions=7))
    after = [len(regions) for regions in watch(sampler, lambda addresses, _: even(addresses), windows=10)]
    assert min(after) >= 3
    assert max(after[2:]) <= 7
