"""The numpy engine against the naive one, on random input: they must agree to the last byte and count."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.naive import (
    NaiveRegion,
    NaiveSampler,
    NaiveSplitter,
    apply_min_nr_regions,
    from_table,
    merge_regions,
    set_regions,
    three_regions,
    to_table,
)
from memtherm.core import regions as numpy_engine
from memtherm.core.attributes import MonitoringAttributes
from memtherm.core.regions import Range, merge_window
from memtherm.core.sampling import Sampler, _Splitter
from memtherm.errors import InvalidInput
from memtherm.units import PAGE_SIZE

MIN_REGION = 4
SAMPLES = 20


@st.composite
def region_lists(draw: st.DrawFn, targets: int = 2, longest: int = 30) -> list[NaiveRegion]:
    """Regions of some targets, sorted, aligned, some touching and some apart."""
    counts = st.integers(0, SAMPLES) | st.sampled_from([0, SAMPLES])
    result = []
    for target in range(targets):
        cursor = 0
        for gap, length, nr, last, age in draw(
            st.lists(
                st.tuples(st.sampled_from([0, 0, 0, 1, 5]), st.integers(1, 40), counts, counts, st.integers(0, 9)),
                max_size=longest,
            )
        ):
            start = cursor + gap * MIN_REGION
            cursor = start + length * MIN_REGION
            result.append(NaiveRegion(target, start, cursor, nr, last, age))
    return result


@st.composite
def range_lists(draw: st.DrawFn, unit: int = 1, longest: int = 6, span: int = 400) -> list[Range]:
    """Valid ranges with borders that need not be aligned; touching ones included."""
    points = sorted(draw(st.lists(st.integers(0, span), min_size=0, max_size=2 * longest)))
    ranges: list[Range] = []
    for start, end in zip(points[::2], points[1::2], strict=False):
        aligned_start = start * unit // MIN_REGION * MIN_REGION
        if start < end and (not ranges or -(-ranges[-1][1] // MIN_REGION) * MIN_REGION <= aligned_start):
            ranges.append((start * unit, end * unit))
    return ranges


@given(
    regions=region_lists(),
    threshold=st.integers(0, SAMPLES + 1),
    size_limit=st.integers(1, 400),
    max_nr=st.integers(3, 60),
)
def test_merge(regions: list[NaiveRegion], threshold: int, size_limit: int, max_nr: int) -> None:
    merged = merge_window(
        to_table(regions), threshold=threshold, size_limit=size_limit, max_nr_regions=max_nr, samples_per_window=SAMPLES
    )
    expected = merge_regions(regions, threshold, size_limit, max_nr_regions=max_nr, max_threshold=SAMPLES)
    assert from_table(merged) == expected
    touching = (merged.end[:-1] == merged.start[1:]) & (merged.target[:-1] == merged.target[1:])
    joint = merged.size_bytes[:-1] + merged.size_bytes[1:]
    assert len(merged) <= max_nr or (joint[touching] > size_limit).all(), "more could have been merged"


@given(regions=region_lists(), min_nr=st.integers(3, 40))
def test_apply_min(regions: list[NaiveRegion], min_nr: int) -> None:
    table, limit = numpy_engine.apply_min_nr_regions(
        to_table(regions), min_nr_regions=min_nr, min_region_bytes=MIN_REGION
    )
    assert (from_table(table), limit) == apply_min_nr_regions(regions, min_nr, MIN_REGION)


@given(regions=region_lists(targets=3, longest=12), ranges=range_lists(), target=st.integers(0, 3))
def test_set_regions(regions: list[NaiveRegion], ranges: list[Range], target: int) -> None:
    fitted = numpy_engine.set_regions(to_table(regions), ranges, target=target, min_region_bytes=MIN_REGION)
    assert from_table(fitted) == set_regions(regions, ranges, target=target, min_region=MIN_REGION)


@given(
    steps=st.lists(st.tuples(st.integers(0, 4), st.integers(1, 9)), min_size=1, max_size=60),
    page_bytes=st.sampled_from([1, 4]),
)
def test_three_regions(steps: list[tuple[int, int]], page_bytes: int) -> None:
    """Many mappings with few different gaps, so that equal ones have to be told apart by address."""
    mappings: list[Range] = []
    cursor = 0
    for gap, size in steps:
        mappings.append((cursor + gap, cursor + gap + size))
        cursor += gap + size
    table = numpy_engine.RegionTable.from_ranges(mappings)
    expected = three_regions(mappings, page_bytes)
    if expected is None:
        with pytest.raises(InvalidInput):
            numpy_engine.three_regions(table.start, table.end, page_bytes=page_bytes)
    else:
        assert numpy_engine.three_regions(table.start, table.end, page_bytes=page_bytes) == expected


@given(regions=region_lists(), maximum=st.integers(3, 200), seed=st.integers(0, 2**32), calls=st.integers(1, 4))
def test_split(regions: list[NaiveRegion], maximum: int, seed: int, calls: int) -> None:
    """Several calls on the same count, so that thirds and the rotation have their turn."""
    splitter = _Splitter(maximum, MIN_REGION, np.random.default_rng(seed))
    naive = NaiveSplitter(maximum, MIN_REGION, np.random.default_rng(seed))
    for _ in range(calls):
        table = splitter.split(to_table(regions))
        assert from_table(table) == naive.split(regions)
        assert len(table) <= max(maximum, len(regions))


@given(
    changes=st.lists(range_lists(unit=PAGE_SIZE // 4, longest=4, span=3000), min_size=1, max_size=4),
    seed=st.integers(0, 2**32),
    max_nr=st.integers(10, 60),
)
def test_whole_windows(changes: list[list[Range]], seed: int, max_nr: int) -> None:
    """Sampling two targets whose mappings change, window after window, with the same random numbers."""
    samples = 31  # so that a tenth of the counts is a threshold that matters
    attributes = MonitoringAttributes(
        sampling_interval_s=0.005, aggregation_interval_s=0.155, min_nr_regions=5, max_nr_regions=max_nr
    )
    sampler = Sampler(attributes, rng=np.random.default_rng(seed))
    naive = NaiveSampler(
        min_nr=5,
        max_nr=max_nr,
        samples=samples,
        min_region=PAGE_SIZE,
        page=PAGE_SIZE,
        rng=np.random.default_rng(seed),
    )
    for turn, ranges in enumerate(changes):
        pages = [(s // PAGE_SIZE * PAGE_SIZE, -(-e // PAGE_SIZE) * PAGE_SIZE) for s, e in ranges]
        disjoint = [one for i, one in enumerate(pages) if i == 0 or pages[i - 1][1] <= one[0]]
        sampler.set_ranges(disjoint, target=turn % 2)
        naive.set_ranges(disjoint, target=turn % 2)
        for _ in range(3):
            for _ in range(samples):
                drawn = sampler.draw_addresses()
                assert drawn.tolist() == naive.draw()
                hot = drawn // np.uint64(PAGE_SIZE) % np.uint64(100) < 30
                sampler.record(hot)
                naive.record(hot.tolist())
            assert sampler.window_is_complete
            sampler.close_window()
            naive.close_window()
            assert from_table(sampler.table) == naive.regions
            sampler.open_window()
            naive.open_window()
            assert from_table(sampler.table) == naive.regions
