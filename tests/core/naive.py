"""The pseudo-code of damon-spec §1.7–§1.12, line for line on a list of objects: second witness of the engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from itertools import pairwise

import numpy as np

from memtherm.core.regions import Range, RegionTable


@dataclass
class NaiveRegion:
    target: int
    start: int
    end: int
    nr: int = 0
    last: int = 0
    age: int = 0

    def __len__(self) -> int:
        return self.end - self.start


def to_table(regions: Sequence[NaiveRegion]) -> RegionTable:
    target, start, end, nr, last, age = zip(*map(astuple, regions), strict=True) if regions else ((),) * 6
    return RegionTable(
        np.array(target, np.int32),
        np.array(start, np.uint64),
        np.array(end, np.uint64),
        np.array(nr, np.int64),
        np.array(last, np.int64),
        np.array(age, np.int64),
    )


def from_table(table: RegionTable) -> list[NaiveRegion]:
    columns = (table.target, table.start, table.end, table.nr_accesses, table.last_nr_accesses, table.age)
    return [NaiveRegion(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]


def _up(value: int, alignment: int) -> int:
    return (value + alignment - 1) // alignment * alignment


# -- merge and age (§1.10) ---------------------------------------------------------------------


def merge_of(regions: list[NaiveRegion], threshold: int, size_limit: int, *, count_age: bool) -> list[NaiveRegion]:
    """One target."""
    result: list[NaiveRegion] = []
    for r in regions:
        if count_age:
            if abs(r.nr - r.last) > threshold or (r.nr == 0) != (r.last == 0):
                r.age = 0
            else:
                r.age += 1
        if result:
            prev = result[-1]
            if prev.end == r.start and abs(prev.nr - r.nr) <= threshold and len(prev) + len(r) <= size_limit:
                both = len(prev) + len(r)
                prev.nr = (prev.nr * len(prev) + r.nr * len(r)) // both
                prev.age = (prev.age * len(prev) + r.age * len(r)) // both
                prev.end = r.end
                continue
        result.append(r)
    return result


def merge_regions(
    regions: list[NaiveRegion], threshold: int, size_limit: int, *, max_nr_regions: int, max_threshold: int
) -> list[NaiveRegion]:
    regions = [replace(r) for r in regions]
    count_age = True
    while True:
        merged: list[NaiveRegion] = []
        for target in sorted({r.target for r in regions}):
            mine = [r for r in regions if r.target == target]
            merged += merge_of(mine, threshold, size_limit, count_age=count_age)
        regions = merged
        count_age = False
        if len(regions) <= max_nr_regions or threshold >= max_threshold:
            return regions
        threshold = max(1, 2 * threshold) if threshold < max_threshold // 2 else max_threshold


# -- split (§1.7, §1.11) -----------------------------------------------------------------------


def apply_min_nr_regions(
    regions: list[NaiveRegion], min_nr_regions: int, min_region: int
) -> tuple[list[NaiveRegion], int]:
    limit = _up(max(sum(map(len, regions)) // min_nr_regions, min_region), min_region)
    result = []
    for region in regions:
        rest = replace(region)
        while len(rest) > limit:
            result.append(replace(rest, end=rest.start + limit))
            rest = replace(rest, start=rest.start + limit)
        result.append(rest)
    return result, limit


class NaiveSplitter:
    def __init__(self, maximum: int, min_region: int, rng: np.random.Generator) -> None:
        self.maximum = maximum
        self.min_region = min_region
        self.rng = rng
        self.previous = 0
        self.rotation = 0

    def split(self, regions: list[NaiveRegion]) -> list[NaiveRegion]:
        n, maximum = len(regions), self.maximum
        chosen, subs = list(range(n)), 2
        if n >= maximum:
            chosen = []
        elif n > maximum // 2:
            step = maximum // (maximum - n)
            offset = self.rotation % step
            self.rotation += 1
            chosen = [i for i in chosen if i % step == offset and len(regions[i]) >= 2 * self.min_region]
        elif n == self.previous and n < maximum // 3:
            subs = 3
        self.previous = n
        # The same numbers as the numpy engine: it draws one for each region, attempt after attempt.
        tenths = [self.rng.integers(1, 10, len(chosen)).tolist() for _ in range(subs - 1)]
        drawn = {index: [attempt[place] for attempt in tenths] for place, index in enumerate(chosen)}
        result: list[NaiveRegion] = []
        for index, region in enumerate(regions):
            result += self._split_one(replace(region), drawn.get(index, []))
        return result

    def _split_one(self, region: NaiveRegion, tenths: list[int]) -> list[NaiveRegion]:
        parts = [region]
        current = len(region)
        for tenth in tenths:
            if current <= 2 * self.min_region:
                break
            sub = tenth * current // 10 // self.min_region * self.min_region
            if sub == 0 or sub >= current:
                continue
            left = parts[0]
            parts.insert(1, replace(left, start=left.start + sub))
            left.end = left.start + sub
            current = sub
        return parts


def reset(regions: list[NaiveRegion]) -> list[NaiveRegion]:
    return [replace(r, nr=0, last=r.nr) for r in regions]


# -- three regions (§1.7) ----------------------------------------------------------------------


def three_regions(mappings: list[Range], page_bytes: int) -> list[Range] | None:
    """None where there are fewer than two gaps."""
    largest, second = (0, 0), (0, 0)
    for (_, left_end), (right_start, _) in pairwise(mappings):
        gap = (left_end, right_start)
        if gap[1] - gap[0] > largest[1] - largest[0]:
            largest, second = gap, largest
        elif gap[1] - gap[0] > second[1] - second[0]:
            second = gap
    if second[0] == second[1]:
        return None
    low, high = sorted((largest, second))
    borders = [mappings[0][0], *low, *high, mappings[-1][1]]
    first, low_start, low_end, high_start, high_end, last = (_up(border, page_bytes) for border in borders)
    return [(first, low_start), (low_end, high_start), (high_end, last)]


# -- set_regions (§1.7) ------------------------------------------------------------------------


def set_regions(regions: list[NaiveRegion], ranges: list[Range], *, target: int, min_region: int) -> list[NaiveRegion]:
    """Valid ranges only."""
    others_before = [r for r in regions if r.target < target]
    others_after = [r for r in regions if r.target > target]
    mine = [
        replace(r)
        for r in regions
        if r.target == target and any(r.start < end and start < r.end for start, end in ranges)
    ]
    aligned = [(start // min_region * min_region, _up(end, min_region)) for start, end in ranges]
    if mine:
        mine = _refit(mine, ranges, aligned, target)
    else:
        mine = [NaiveRegion(target, start, end) for start, end in aligned]
    return others_before + mine + others_after


def _refit(mine: list[NaiveRegion], ranges: list[Range], aligned: list[Range], target: int) -> list[NaiveRegion]:
    cursor = 0
    for (start, end), (aligned_start, aligned_end) in zip(ranges, aligned, strict=True):
        first = last = None
        while cursor < len(mine) and mine[cursor].start < end:
            if mine[cursor].end > start:
                last = cursor
                first = cursor if first is None else first
            cursor += 1
        if first is None or last is None:
            mine.insert(cursor, NaiveRegion(target, aligned_start, aligned_end))
            cursor += 1
            continue
        mine[first].start = aligned_start
        mine[last].end = aligned_end
        index = first
        while index < last:
            if mine[index].end < mine[index + 1].start:
                mine.insert(index + 1, NaiveRegion(target, mine[index].end, mine[index + 1].start))
                index, last, cursor = index + 1, last + 1, cursor + 1
            index += 1
    return mine


# -- the whole window (§1.6) -------------------------------------------------------------------


class NaiveSampler:
    """`Sampler` over lists, with the same use of the random generator."""

    def __init__(
        self, *, min_nr: int, max_nr: int, samples: int, min_region: int, page: int, rng: np.random.Generator
    ) -> None:
        self.regions: list[NaiveRegion] = []
        self.limit = min_region
        self.min_nr, self.max_nr, self.samples, self.min_region, self.page = min_nr, max_nr, samples, min_region, page
        self.rng = rng
        self.splitter = NaiveSplitter(max_nr, min_region, rng)

    def set_ranges(self, ranges: list[Range], *, target: int) -> None:
        is_new = all(r.target != target for r in self.regions)
        self.regions = set_regions(self.regions, ranges, target=target, min_region=self.min_region)
        if is_new:
            self._apply_min()

    def draw(self) -> list[int]:
        share = self.rng.random(len(self.regions)).tolist()
        drawn = [r.start + int(u * len(r)) for r, u in zip(self.regions, share, strict=True)]
        return [address // self.page * self.page for address in drawn]

    def record(self, accessed: list[bool]) -> None:
        for region, hit in zip(self.regions, accessed, strict=True):
            region.nr += hit

    def close_window(self) -> None:
        threshold = max((r.nr for r in self.regions), default=0) // 10
        self.regions = merge_regions(
            self.regions, threshold, self.limit, max_nr_regions=self.max_nr, max_threshold=self.samples
        )
        self._apply_min()

    def open_window(self) -> None:
        self.regions = self.splitter.split(reset(self.regions))

    def _apply_min(self) -> None:
        self.regions, self.limit = apply_min_nr_regions(self.regions, self.min_nr, self.min_region)
