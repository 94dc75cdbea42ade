"""The table of regions as numpy columns, and DAMON's operations on it (damon-spec §1.7–§1.13).

Every operation returns a new table; rows stay sorted by target and address, and disjoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from memtherm.core.attributes import MonitoringAttributes, microseconds
from memtherm.core.ranges import Addresses, Counts, Flags, align_down, align_up, join_adjacent, overlap_bytes, sizes
from memtherm.errors import InvalidInput

Range = tuple[int, int]


@dataclass(frozen=True)
class RegionTable:
    """Regions, one a row.

    Attributes:
        target: index of the target (int32).
        start, end: bytes addresses, half-open (uint64).
        nr_accesses: samples of this window that found an access (int64).
        last_nr_accesses: the same of the window before.
        age: aggregation windows for which nr_accesses has stayed about the same.
    """

    target: NDArray[np.int32]
    start: Addresses
    end: Addresses
    nr_accesses: Counts
    last_nr_accesses: Counts
    age: Counts

    @classmethod
    def from_ranges(cls, ranges: Sequence[Range] | Addresses, *, target: int = 0) -> RegionTable:
        """One fresh region for each range; its counters are 0."""
        bounds = np.array(ranges, np.uint64).reshape(-1, 2)
        zeros = np.zeros(len(bounds), np.int64)
        return cls(np.full(len(bounds), target, np.int32), bounds[:, 0], bounds[:, 1], zeros, zeros, zeros)

    @classmethod
    def concatenate(cls, tables: Sequence[RegionTable]) -> RegionTable:
        if not tables:
            return cls.from_ranges([])
        return cls(*(np.concatenate([getattr(table, f.name) for table in tables]) for f in fields(cls)))

    def __len__(self) -> int:
        return len(self.start)

    @property
    def size_bytes(self) -> Counts:
        return sizes(self.start, self.end)

    def replace(self, **columns: NDArray[np.generic]) -> RegionTable:
        """The same rows with some columns changed."""
        values = {f.name: getattr(self, f.name) for f in fields(self)} | columns
        return RegionTable(**values)

    def take(self, rows: NDArray[np.generic] | slice) -> RegionTable:
        return RegionTable(*(getattr(self, f.name)[rows] for f in fields(self)))

    def of_target(self, target: int) -> RegionTable:
        return self.take(self.rows_of(target))

    def rows_of(self, target: int) -> slice:
        """The rows of one target: they are contiguous."""
        first, last = np.searchsorted(self.target, [target, target + 1])
        return slice(int(first), int(last))

    def ranges(self) -> list[Range]:
        return list(zip(self.start.tolist(), self.end.tolist(), strict=True))


def split_rows(table: RegionTable, rows: Counts, cuts: Addresses) -> RegionTable:
    """Split each of `rows` (ascending) at its cut address; both parts keep all counters and the age."""
    pieces = np.ones(len(table), np.int64)
    pieces[rows] = 2
    result = table.take(np.repeat(np.arange(len(table)), pieces))
    left = rows + np.arange(len(rows))
    start, end = result.start.copy(), result.end.copy()
    end[left] = cuts
    start[left + 1] = cuts
    return result.replace(start=start, end=end)


def split_at(table: RegionTable, cuts: Addresses) -> RegionTable:
    """Regions of one target, split at each of `cuts` (ascending) that lies inside one; parts keep all counters."""
    first = np.searchsorted(cuts, table.start, side="right")
    pieces = np.searchsorted(cuts, table.end, side="left") - first + 1
    result = table.take(np.repeat(np.arange(len(table)), pieces))
    part = np.arange(len(result)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    inner = part > 0
    start, end = result.start.copy(), result.end.copy()
    start[inner] = cuts[(np.repeat(first, pieces) + part - 1)[inner]]
    end[:-1][inner[1:]] = start[1:][inner[1:]]
    return result.replace(start=start, end=end)


def reset_age(table: RegionTable, start: Addresses, end: Addresses, *, min_region_bytes: int) -> RegionTable:
    """Regions of one target, those in the ranges (sorted, disjoint) with age 0, and split at the ranges' borders.

    Ranges are aligned outward: an age that is too young makes an action wait, one that is too old repeats it.
    """
    block, some = np.uint64(min_region_bytes), end > start
    start, end = start[some], end[some]
    start, end = join_adjacent(start // block * block, (end + block - np.uint64(1)) // block * block)
    parts = split_at(table, np.sort(np.concatenate([start, end])))
    is_covered = overlap_bytes(parts.start, parts.end, start, end) > 0
    return parts.replace(age=np.where(is_covered, 0, parts.age))


def dilute_age(table: RegionTable, start: Addresses, end: Addresses) -> RegionTable:
    """The same without a split: a region loses as much of its age as the ranges cover of it."""
    left = table.size_bytes - overlap_bytes(table.start, table.end, start, end)
    return table.replace(age=(table.age * (left / table.size_bytes)).astype(np.int64))


def join_equal(table: RegionTable, borders: Addresses, *, size_limit: int) -> RegionTable:
    """Join regions that touch at one of `borders` (ascending) and tell the same, up to `size_limit` bytes.

    What a quota or a filter has split becomes one again (damon-spec §2.3).  Only at their borders:
    the parts of a random split tell the same as well, until they are looked at.
    """
    joins = np.zeros(len(table), np.bool_)
    joins[1:] = (table.start[1:] == table.end[:-1]) & np.isin(table.start[1:], borders)
    for column in (table.target, table.age, table.nr_accesses, table.last_nr_accesses):
        joins[1:] &= column[1:] == column[:-1]
    if not joins.any():
        return table
    run = np.cumsum(~joins) - 1
    run_start = table.start[~joins][run]
    # Where a run is longer than the limit, what lies in the same stretch of the limit's length becomes one.
    begin = sizes(run_start, table.start) // size_limit
    stretch = np.where(begin == (sizes(run_start, table.end) - 1) // size_limit, begin, -1)
    joins[1:] &= (stretch[1:] == stretch[:-1]) & (stretch[1:] >= 0)
    first = np.flatnonzero(~joins)
    last = np.append(first[1:], len(table)) - 1
    return table.take(first).replace(end=table.end[last])


def count_age(table: RegionTable, threshold: int) -> RegionTable:
    """Age one window more, or start again at 0 where the access count changed (damon-spec §1.10)."""
    changed = np.abs(table.nr_accesses - table.last_nr_accesses) > threshold
    changed |= (table.nr_accesses == 0) != (table.last_nr_accesses == 0)
    return table.replace(age=np.where(changed, 0, table.age + 1))


def merge_similar(table: RegionTable, *, threshold: int, size_limit: int) -> RegionTable:
    """Join neighbours whose access counts differ by at most `threshold`, up to `size_limit` bytes.

    Left to right, each compared with the mean of what was joined before it, as the kernel does:
    the order makes the result, so this is a loop (0.3 ms for 1000 regions, once a window).
    """
    if len(table) < 2:
        return table
    target, start, end = table.target.tolist(), table.start.tolist(), table.end.tolist()
    nr, age = table.nr_accesses.tolist(), table.age.tolist()
    kept = [0]
    head = 0
    for row in range(1, len(start)):
        if (
            end[head] == start[row]
            and -threshold <= nr[head] - nr[row] <= threshold
            and end[row] - start[head] <= size_limit
            and target[head] == target[row]
        ):
            left, right = end[head] - start[head], end[row] - start[row]
            nr[head] = (nr[head] * left + nr[row] * right) // (left + right)
            age[head] = (age[head] * left + age[row] * right) // (left + right)
            end[head] = end[row]
        else:
            kept.append(row)
            head = row
    if len(kept) == len(start):
        return table
    merged = table.replace(
        end=np.array(end, np.uint64), nr_accesses=np.array(nr, np.int64), age=np.array(age, np.int64)
    )
    return merged.take(np.array(kept))


def merge_window(
    table: RegionTable, *, threshold: int, size_limit: int, max_nr_regions: int, samples_per_window: int
) -> RegionTable:
    """Age and merge at the end of a window; merge harder until `max_nr_regions` holds (damon-spec §1.10)."""
    table = count_age(table, threshold)
    for level in merge_thresholds(threshold, samples_per_window):
        table = merge_similar(table, threshold=level, size_limit=size_limit)
        if len(table) <= max_nr_regions:
            break
    return table


def merge_thresholds(threshold: int, maximum: int) -> list[int]:
    """The thresholds that are tried in turn: doubled up to the number of samples of a window."""
    levels = [threshold]
    while levels[-1] < maximum:
        levels.append(max(1, 2 * levels[-1]) if levels[-1] < maximum // 2 else maximum)
    return levels


def join_in_ranges(table: RegionTable, ranges: Sequence[Range]) -> RegionTable:
    """One region for each range: those inside it are joined.  Regions of one target, none across ranges."""
    starts = np.array(ranges, np.uint64).reshape(-1, 2)[:, 0]
    # Merging stops between targets; here it shall stop between ranges, which may touch.
    owner = np.searchsorted(starts, table.start, side="right").astype(np.int32)
    no_limit = np.iinfo(np.int64).max
    joined = merge_similar(table.replace(target=owner), threshold=no_limit, size_limit=no_limit)
    return joined.replace(target=np.full(len(joined), table.target[0], np.int32)) if len(table) else table


def reset_window(table: RegionTable) -> RegionTable:
    """Begin a new window: the counts become those of the last window."""
    return table.replace(nr_accesses=np.zeros(len(table), np.int64), last_nr_accesses=table.nr_accesses)


def convert_results(table: RegionTable, old: MonitoringAttributes, new: MonitoringAttributes) -> RegionTable:
    """Counts and ages as they would be in windows of other intervals (damon-spec §1.16)."""
    intervals_s = (
        old.sampling_interval_s, old.aggregation_interval_s, new.sampling_interval_s, new.aggregation_interval_s
    )  # fmt: skip
    if 0 in map(microseconds, intervals_s):
        return table
    old_samples, new_samples = old.samples_per_window, new.samples_per_window

    def convert(counts: Counts) -> Counts:
        return counts * new_samples // old_samples

    return table.replace(
        nr_accesses=convert(table.nr_accesses),
        last_nr_accesses=convert(table.last_nr_accesses),
        age=table.age * microseconds(old.aggregation_interval_s) // microseconds(new.aggregation_interval_s),
    )


def split_evenly(table: RegionTable, pieces: int, *, min_region_bytes: int) -> RegionTable:
    """One region cut into equal pieces; the last one takes the rest.

    Raises:
        InvalidInput: no region, no pieces, or pieces smaller than the smallest region.
    """
    if len(table) != 1 or pieces < 1:
        raise InvalidInput("an even split needs one region and one or more pieces")
    start, end = table.ranges()[0]
    piece = align_down((end - start) // pieces, min_region_bytes)
    if piece == 0:
        raise InvalidInput(f"{end - start} bytes cannot be split into {pieces} regions")
    borders = [start + index * piece for index in range(pieces)] + [end]
    result = table.take(np.zeros(pieces, np.int64))
    return result.replace(start=np.array(borders[:-1], np.uint64), end=np.array(borders[1:], np.uint64))


def apply_min_nr_regions(table: RegionTable, *, min_nr_regions: int, min_region_bytes: int) -> tuple[RegionTable, int]:
    """Cut long regions so that there can be `min_nr_regions`; also the size limit of the next merge."""
    limit = max(int(table.size_bytes.sum()) // min_nr_regions, min_region_bytes)
    limit = align_up(limit, min_region_bytes)
    pieces = np.maximum(-(-table.size_bytes // limit), 1)
    if (pieces == 1).all():
        return table, limit
    result = table.take(np.repeat(np.arange(len(table)), pieces))
    part = np.arange(len(result)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    start = result.start + (part * limit).astype(np.uint64)
    return result.replace(start=start, end=np.minimum(start + np.uint64(limit), result.end)), limit


def split_randomly(
    table: RegionTable, rows: Counts, *, subregions: int, min_region_bytes: int, rng: np.random.Generator
) -> RegionTable:
    """Split each of `rows` at random tenths into up to `subregions` (damon-spec §1.11)."""
    current = table.size_bytes[rows]
    for _ in range(subregions - 1):
        tenths = rng.integers(1, 10, len(rows))
        part = tenths * current // 10 // min_region_bytes * min_region_bytes
        possible = (current > 2 * min_region_bytes) & (part > 0) & (part < current)
        cut = rows[possible]
        table = split_rows(table, cut, table.start[cut] + part[possible].astype(np.uint64))
        # The next attempt cuts the left part again; rows to the right of a cut have moved on by one.
        rows = rows + np.cumsum(possible) - possible
        current = np.where(possible, part, current)
    return table


def set_regions(table: RegionTable, ranges: Sequence[Range], *, target: int = 0, min_region_bytes: int) -> RegionTable:
    """Fit one target's regions to new ranges; what stays keeps its counters (damon-spec §1.7).

    Raises:
        InvalidInput: ranges that are empty, unsorted or overlap.  Nothing is changed then.
    """
    aligned = aligned_ranges(ranges, min_region_bytes)
    mine = table.rows_of(target)
    before, after = table.take(slice(0, mine.start)), table.take(slice(mine.stop, len(table)))
    old = table.take(mine)
    old = old.take(_intersects(old, ranges))
    fitted = _fit(old, ranges, aligned, target) if len(old) else RegionTable.from_ranges(aligned, target=target)
    return RegionTable.concatenate([before, fitted, after])


def aligned_ranges(ranges: Sequence[Range], alignment: int) -> list[Range]:
    """Ranges aligned outward.  Raises InvalidInput where they are empty, or not ascending and disjoint then."""
    aligned: list[Range] = []
    for start, end in ranges:
        aligned.append((align_down(start, alignment), align_up(end, alignment)))
        if not 0 <= start < end or (len(aligned) > 1 and aligned[-1][0] < aligned[-2][1]):
            raise InvalidInput(
                f"range {start:#x}-{end:#x} is empty or overlaps the one before",
                hint="ranges are ascending and disjoint",
            )
    return aligned


def _intersects(table: RegionTable, ranges: Sequence[Range]) -> Flags:
    bounds = np.array(ranges, np.uint64).reshape(-1, 2)
    first = np.searchsorted(bounds[:, 1], table.start, side="right")
    last = np.searchsorted(bounds[:, 0], table.end, side="left")
    return last > first


def _fit(old: RegionTable, ranges: Sequence[Range], aligned: Sequence[Range], target: int) -> RegionTable:
    """Stretch survivors to the borders of their range, and fill what they leave uncovered."""
    borders = np.array(aligned, np.uint64)
    # A region belongs to the first range that it intersects, and to no other: the cursor only moves forward.
    stop = np.searchsorted(old.start, np.array(ranges, np.uint64)[:, 1], side="left")
    first = np.concatenate(([0], stop[:-1]))
    found = first < stop
    start, end = old.start.copy(), old.end.copy()
    start[first[found]] = borders[found, 0]
    end[stop[found] - 1] = borders[found, 1]
    owner = np.repeat(np.arange(len(borders)), stop - first)
    hole = np.flatnonzero((end[:-1] < start[1:]) & (owner[:-1] == owner[1:]))
    fresh = np.concatenate([borders[~found], np.column_stack([end[hole], start[hole + 1]])])
    fitted = RegionTable.concatenate([old.replace(start=start, end=end), RegionTable.from_ranges(fresh, target=target)])
    return fitted.take(np.argsort(fitted.start, kind="stable"))


def three_regions(start: Addresses, end: Addresses, *, page_bytes: int) -> list[Range]:
    """The three ranges that are left when the two largest gaps between mappings are taken out.

    Args:
        start, end: the mappings in address order.

    Raises:
        InvalidInput: fewer than two gaps (damon-spec §1.7).
    """
    gaps = sizes(end[:-1], start[1:]) if len(start) > 1 else np.zeros(0, np.int64)
    # Stable on the negated sizes: of equal gaps the lower address is taken first, as the kernel does.
    largest = np.sort(np.argsort(-gaps, kind="stable")[:2])
    if len(largest) < 2 or (gaps[largest] == 0).any():
        raise InvalidInput("the mappings have fewer than two gaps", hint="give the ranges to watch yourself")
    low, high = (int(gap) for gap in largest)
    borders = [start[0], end[low], start[low + 1], end[high], start[high + 1], end[-1]]
    rounded = [align_up(int(border), page_bytes) for border in borders]
    return [(rounded[0], rounded[1]), (rounded[2], rounded[3]), (rounded[4], rounded[5])]
