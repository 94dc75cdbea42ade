"""A scheme at work: when it is due, what it asks for, and what of its limits it has used (damon-spec §2.3–§2.10)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from memtherm.core.filters import Filter, FilterKind, default_rejects, judge
from memtherm.core.goals import highest_score
from memtherm.core.plan import Outcome, PlannedAction, add_outcomes
from memtherm.core.priority import lowest_score, scores
from memtherm.core.quota import Continuation, QuotaState, interval_of
from memtherm.core.ranges import Addresses, Counts, Flags, align_down
from memtherm.core.scheme import Scheme, SchemeStatistics
from memtherm.core.snapshot import Regions
from memtherm.core.watermarks import WatermarkState
from memtherm.units import PAGE_SIZE

Labels = Mapping[int, Sequence[str]]
"""For each target the names by which schemes and filters mean it."""


class SchemeState:
    """One scheme with its statistics, quota and watermarks.

    An apply is: `plan`; who acts tells how many bytes of each range are possible; `share`; the action;
    `charge` for each outcome; `finish`.

    Attributes:
        scheme, statistics, quota: as they are now.
        watermarks: None where the scheme has none.
    """

    def __init__(self, scheme: Scheme) -> None:
        self.scheme = scheme
        self.statistics = SchemeStatistics()
        self.quota = QuotaState(scheme.quota)
        self.watermarks = WatermarkState(scheme.watermarks) if scheme.watermarks else None
        self._due_s = float("-inf")
        self._is_cut_short = False

    def replace(self, scheme: Scheme) -> None:
        """Go on as another scheme: statistics and what was charged stay; watermarks begin anew (damon-spec §1.16)."""
        if scheme.apply_interval_s != self.scheme.apply_interval_s:
            self._due_s = float("-inf")
        self.scheme = scheme
        self.quota.replace(scheme.quota)
        self.watermarks = WatermarkState(scheme.watermarks) if scheme.watermarks else None

    @property
    def is_finished(self) -> bool:
        """Whether the scheme has had all its applies."""
        return 0 < self.scheme.max_nr_snapshots <= self.statistics.nr_snapshots

    @property
    def is_active(self) -> bool:
        return not self.is_finished and (self.watermarks is None or self.watermarks.is_active)

    def is_due(self, now_s: float, *, window_ended: bool) -> bool:
        """Whether it is time for an apply; without an interval of its own at the end of each window."""
        return window_ended if self.scheme.apply_interval_s is None else now_s >= self._due_s

    def open_quota_window(self, now_s: float, goal_values: Sequence[float]) -> None:
        """Begin a charge window; `goal_values` are those of the quota's goals, in their order."""
        self.quota.open_window(now_s, goals_score=highest_score(self.scheme.quota.goals, goal_values))
        self.statistics = replace(self.statistics, nr_quota_exceeded=self.quota.nr_exceeded)

    def matches(self, regions: Regions, labels: Labels) -> Flags:
        """Which regions fit the pattern and belong to a target of the scheme."""
        fits = self.scheme.pattern.matches(regions)
        if self.scheme.targets:
            fits &= _of_targets(regions, labels, self.scheme.targets)
        return fits

    def plan(self, regions: Regions, labels: Labels) -> list[PlannedAction]:
        """What the scheme asks for, as one action for each target; behind where a full quota has stopped it."""
        self._is_cut_short = False
        rows = np.flatnonzero(self.matches(regions, labels))
        start, rows = _cut(regions.start, regions.end, rows, self.scheme.filters)
        end = _ends(start, rows, regions.end)
        start, end, rows = self._behind_continuation(regions, start, end, rows)
        allowed, outright = self._core_filtered(regions, labels, start, end, rows)
        start, end, rows, outright = start[allowed], end[allowed], rows[allowed], outright[allowed]
        working = regions.size_bytes * (regions.access_rate > 0)
        planned = []
        for target in np.unique(regions.target[rows]).tolist():
            mine = regions.target[rows] == target
            working_set_bytes = int(working[regions.target == target].sum())
            planned.append(
                PlannedAction(
                    self.scheme, target, rows[mine], start[mine], end[mine], outright[mine], working_set_bytes
                )
            )
        return planned

    def share(self, regions: Regions, planned: Sequence[PlannedAction], possible: Sequence[Counts]) -> list[Counts]:
        """How many bytes of each planned range the quota allows: the best regions, in the order of addresses.

        Args:
            possible: for each plan and range the bytes that the action can have an effect on.
        """
        if not self.quota.quota.is_set or not planned:
            return list(possible)
        rows = np.concatenate([one.rows for one in planned])
        size = np.concatenate(list(possible))
        score = scores(
            self.scheme.action,
            self.scheme.quota.weights,
            access_rate=regions.access_rate[rows],
            age_s=regions.age_s[rows],
        )
        lowest = lowest_score(score, size, effective_bytes=self.quota.effective_bytes)
        eligible = np.where(score >= lowest, size, 0)
        # A window that could take everything may be larger than any number of bytes that numpy adds up.
        wanted = int(eligible.sum())
        left = min(self.quota.left_bytes, wanted)
        self._is_cut_short = left < wanted
        allowed = np.clip(left - (np.cumsum(eligible) - eligible), 0, eligible)
        borders = np.cumsum([len(one) for one in planned])[:-1]
        return np.split(allowed, borders)

    def charge(self, planned: PlannedAction, allowed: Counts, outcome: Outcome) -> None:
        """Count one outcome; where the quota did not reach for all, the next apply goes on behind it."""
        self.statistics = add_outcomes(self.statistics, [outcome])
        if not self.quota.quota.is_set:
            return
        self.quota.charge(int(allowed.sum()), outcome.applied_bytes, outcome.action_s)
        tried = np.flatnonzero(allowed)
        if self._is_stopped and len(tried):
            self.quota.continuation = Continuation(planned.target, int(outcome.reached[tried[-1]]))

    def finish(self, now_s: float) -> None:
        """End an apply."""
        if not self._is_stopped:
            self.quota.continuation = None
        self.statistics = replace(self.statistics, nr_snapshots=self.statistics.nr_snapshots + 1)
        self.postpone(now_s)

    def postpone(self, now_s: float) -> None:
        """Let this apply go by, and wait for the next."""
        self._due_s = now_s + interval_of(self.scheme.apply_interval_s or 0.0)

    @property
    def _is_stopped(self) -> bool:
        """Whether the quota has stopped this apply.

        Not only where it is full now: what was tried in vain may cost nearly nothing (fail charge), and
        the same head must not be tried again before all else.
        """
        return self.quota.is_full or self._is_cut_short

    def _behind_continuation(
        self, regions: Regions, start: Addresses, end: Addresses, rows: Counts
    ) -> tuple[Addresses, Addresses, Counts]:
        """Without what was served before the quota was full; everything where nothing lies behind it."""
        stop = self.quota.continuation
        if stop is None:
            return start, end, rows
        target = regions.target[rows]
        left = (target > stop.target) | ((target == stop.target) & (end > np.uint64(stop.address)))
        if not left.any():
            return start, end, rows
        start, end, rows, target = start[left], end[left], rows[left], target[left]
        return np.where(target == stop.target, np.maximum(start, np.uint64(stop.address)), start), end, rows

    def _core_filtered(
        self, regions: Regions, labels: Labels, start: Addresses, end: Addresses, rows: Counts
    ) -> tuple[Flags, Flags]:
        """Which ranges the filters by address and target let through, and which of them outright."""
        filters = [one for one in self.scheme.filters if one.is_core]

        def holds(one: Filter) -> Flags:
            if one.kind is FilterKind.TARGET:
                return _of_targets(regions, labels, (one.target,))[rows]
            low, high = _aligned(one)
            inside: Flags = (start >= np.uint64(low)) & (end <= np.uint64(high))
            return inside

        rejects = default_rejects(self.scheme.filters)[0]
        passes, is_decided = judge(filters, holds, default_rejects=rejects, count=len(rows))
        return passes, passes & is_decided


def _of_targets(regions: Regions, labels: Labels, wanted: Sequence[str]) -> Flags:
    """Which regions belong to a target with one of these labels."""
    numbers = [number for number, names in labels.items() if set(wanted) & set(names)]
    return np.isin(regions.target, numbers)


def _aligned(one: Filter) -> tuple[int, int]:
    return align_down(one.start, PAGE_SIZE), align_down(one.end, PAGE_SIZE)


def _cut(start: Addresses, end: Addresses, rows: Counts, filters: Sequence[Filter]) -> tuple[Addresses, Counts]:
    """The starts of these regions' parts, cut at the borders of filters by address; with the row of each."""
    borders = {border for one in filters if one.kind is FilterKind.ADDRESS for border in _aligned(one)}
    cuts = np.array(sorted(borders), np.uint64)
    first = np.searchsorted(cuts, start[rows], side="right")
    count = np.searchsorted(cuts, end[rows], side="left") - first
    part_row = np.repeat(np.arange(len(rows)), 1 + np.maximum(count, 0))
    number = np.arange(len(part_row)) - np.searchsorted(part_row, part_row)
    starts = start[rows][part_row]
    inner = number > 0
    starts[inner] = cuts[(first[part_row] + number - 1)[inner]]
    return starts, rows[part_row]


def _ends(start: Addresses, rows: Counts, region_end: Addresses) -> Addresses:
    """Where the parts of regions end: at the next part of the same region, or with the region."""
    end = region_end[rows]
    same = rows[1:] == rows[:-1]
    end[:-1][same] = start[1:][same]
    return end
