"""DAMON's sampling: one random page of a region speaks for the region (damon-spec §1.5–§1.13)."""

from collections.abc import Sequence

import numpy as np

from memtherm.core.attributes import MonitoringAttributes
from memtherm.core.moving import left_of_window, moving_sum
from memtherm.core.ranges import Addresses, Counts, Flags
from memtherm.core.regions import (
    Range,
    RegionTable,
    aligned_ranges,
    apply_min_nr_regions,
    convert_results,
    dilute_age,
    join_equal,
    join_in_ranges,
    merge_window,
    reset_age,
    reset_window,
    set_regions,
    split_randomly,
)
from memtherm.core.snapshot import Regions, rate_error
from memtherm.errors import InvalidInput
from memtherm.units import PAGE_SIZE


class Sampler:
    """The regions of a monitor and the steps of its window.

    One sample is `draw_addresses`, (the probe clears, time passes, the probe reads), `record`.
    When `window_is_complete`: `close_window`, look at `regions`, `open_window`; then the next sample.

    Args:
        attributes: intervals and limits.
        rng: source of the random pages and splits.
        min_region_bytes: length of the shortest region; all lengths are multiples of it.
        follows_mappings: regions are the mappings themselves, never merged nor split: for a probe
            that gives one answer a mapping.

    Raises:
        InvalidInput: `min_region_bytes` is not a power of two from one page up (damon-spec §1.3).
    """

    def __init__(
        self,
        attributes: MonitoringAttributes,
        *,
        rng: np.random.Generator,
        min_region_bytes: int = PAGE_SIZE,
        follows_mappings: bool = False,
    ) -> None:
        if min_region_bytes < PAGE_SIZE or min_region_bytes & (min_region_bytes - 1):
            raise InvalidInput(
                f"min_region_bytes is {min_region_bytes}",
                hint=f"a power of two from {PAGE_SIZE} up; regions hold pages",
            )
        self.attributes = attributes
        self.table = RegionTable.from_ranges([])
        self.nr_samples = 0
        self._rng = rng
        self._min_region_bytes = min_region_bytes
        self._follows_mappings = follows_mappings
        self._size_limit = 0 if follows_mappings else min_region_bytes
        self._cuts = np.zeros(0, np.uint64)
        self._splitter = _Splitter(attributes.max_nr_regions, min_region_bytes, rng)

    def set_ranges(self, ranges: Sequence[Range], *, target: int = 0) -> None:
        """Fit the regions of a target to its mappings; the first call makes them.

        Raises:
            InvalidInput: ranges that are empty, unsorted or overlap.
        """
        is_new = len(self.table.of_target(target)) == 0
        self.table = set_regions(self.table, ranges, target=target, min_region_bytes=self._min_region_bytes)
        if self._follows_mappings:
            self._join_mappings(ranges, target)
        elif is_new:
            self._apply_min_nr_regions()

    def remove_target(self, target: int) -> None:
        self.table = self.table.take(self.table.target != target)

    def draw_addresses(self) -> Addresses:
        """One random page of each region, in the order of the regions."""
        offset = (self._rng.random(len(self.table)) * self.table.size_bytes).astype(np.uint64)
        page = np.uint64(PAGE_SIZE)
        # Ranges are page aligned, so the page of a drawn address lies in the region.
        return (self.table.start + offset) // page * page

    def record(self, accessed: Flags) -> None:
        """Count one sample: whether the drawn page of each region was accessed."""
        self.table = self.table.replace(nr_accesses=self.table.nr_accesses + accessed)
        self.nr_samples += 1

    @property
    def window_is_complete(self) -> bool:
        return self.nr_samples >= self.attributes.samples_per_window

    def close_window(self) -> None:
        """Age and merge regions; afterwards they are the result of the window."""
        self._cuts = self._cuts[:0]
        self.table = merge_window(
            self.table,
            threshold=int(self.table.nr_accesses.max(initial=0)) // 10,
            size_limit=self._size_limit,
            max_nr_regions=len(self.table) if self._follows_mappings else self.attributes.max_nr_regions,
            samples_per_window=self.attributes.samples_per_window,
        )
        self._apply_min_nr_regions()

    def open_window(self) -> None:
        """Reset the counts and split regions, so that the next window can find finer borders."""
        self.table = reset_window(self.table)
        self.nr_samples = 0
        if not self._follows_mappings:
            self.table = self._splitter.split(self.table)

    def regions(self) -> Regions:
        """The result of the window that was closed, in absolute units."""
        return self._in_absolute_units(self.table.nr_accesses)

    def moving_regions(self) -> Regions:
        """In the middle of a window: what it has found so far, and of the last what is still to come.

        The same as `regions` where the window is complete (damon-spec §1.9).
        """
        left = left_of_window(self.nr_samples, self.attributes.samples_per_window)
        return self._in_absolute_units(moving_sum(self.table.nr_accesses, self.table.last_nr_accesses, left))

    def set_attributes(self, attributes: MonitoringAttributes) -> None:
        """Go on with other intervals or limits; to be called between windows.

        Ages and access counts are converted to the new intervals (damon-spec §1.16).
        """
        self.table = convert_results(self.table, self.attributes, attributes)
        self.attributes = attributes
        self._splitter.maximum = attributes.max_nr_regions

    def reset_age(self, target: int, start: Addresses, end: Addresses) -> None:
        """Start the age of this memory again: an action was applied to it.  To be called between samples.

        A region that is covered in part is split, where regions are not mappings; there may be more than
        `max_nr_regions` until the next merge.  Parts that tell the same again are joined (damon-spec §2.3).

        Args:
            start, end: address ranges, sorted and disjoint.
        """
        mine = self.table.of_target(target)
        if self._follows_mappings:
            self._replace(target, dilute_age(mine, start, end))
            return
        parts = reset_age(mine, start, end, min_region_bytes=self._min_region_bytes)
        self._cuts = np.union1d(self._cuts, np.setdiff1d(parts.start, mine.start))
        limit = max(int(self.table.size_bytes.sum()) // self.attributes.min_nr_regions, self._min_region_bytes)
        self._replace(target, join_equal(parts, self._cuts, size_limit=limit))

    def _replace(self, target: int, regions: RegionTable) -> None:
        """Put these in the place of the target's regions."""
        rows = self.table.rows_of(target)
        before, after = self.table.take(slice(0, rows.start)), self.table.take(slice(rows.stop, None))
        self.table = RegionTable.concatenate([before, regions, after])

    def _in_absolute_units(self, nr_accesses: Counts) -> Regions:
        table, attributes = self.table, self.attributes
        rate = nr_accesses / attributes.samples_per_window
        return Regions(
            target=table.target,
            start=table.start,
            end=table.end,
            nr_accesses=nr_accesses,
            access_rate=rate,
            age_s=table.age.astype(np.float64) * attributes.aggregation_interval_s,
            rate_error=rate_error(rate, attributes.samples_per_window),
        )

    def _join_mappings(self, ranges: Sequence[Range], target: int) -> None:
        """Two mappings may have become one, as after mprotect; so must their regions."""
        rows = self.table.rows_of(target)
        if rows.stop - rows.start == len(ranges):
            return
        self._replace(target, join_in_ranges(self.table.take(rows), aligned_ranges(ranges, self._min_region_bytes)))

    def _apply_min_nr_regions(self) -> None:
        if self._follows_mappings:
            return
        self.table, self._size_limit = apply_min_nr_regions(
            self.table,
            min_nr_regions=self.attributes.min_nr_regions,
            min_region_bytes=self._min_region_bytes,
        )


class _Splitter:
    """When and how much to split (damon-spec §1.11).

    What the kernel keeps in function statics, shared by all contexts, is kept here for each monitor.
    """

    def __init__(self, max_nr_regions: int, min_region_bytes: int, rng: np.random.Generator) -> None:
        self.maximum = max_nr_regions
        self._min_region_bytes = min_region_bytes
        self._rng = rng
        self._last_count = 0
        self._rotation = 0

    def split(self, table: RegionTable) -> RegionTable:
        count, maximum = len(table), self.maximum
        rows, subregions = np.arange(count), 2
        if count >= maximum:
            rows = rows[:0]
        elif count > maximum // 2:
            step = maximum // (maximum - count)
            offset, self._rotation = self._rotation % step, self._rotation + 1
            rows = rows[rows % step == offset]
            rows = rows[table.size_bytes[rows] >= 2 * self._min_region_bytes]
        elif count == self._last_count and count < maximum // 3:
            subregions = 3
        self._last_count = count
        return split_randomly(
            table, rows, subregions=subregions, min_region_bytes=self._min_region_bytes, rng=self._rng
        )
