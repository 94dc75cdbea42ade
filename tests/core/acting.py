"""Memory that schemes act on, page by page: who acts, in plain Python, for tests of what schemes decide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from memtherm.core.plan import Outcome, PlannedAction, Refusal
from memtherm.core.ranges import Counts
from memtherm.core.scheme_state import Labels, SchemeState
from memtherm.core.snapshot import Regions
from memtherm.units import PAGE_SIZE

Row = tuple[int, int, int, float, float]
"""Target, first page, page behind the last, access rate, age in seconds."""


def regions_of(rows: Sequence[Row]) -> Regions:
    target, first, last, rate, age_s = zip(*rows, strict=True) if rows else ((),) * 5
    return Regions(
        target=np.array(target, np.int32),
        start=np.array(first, np.uint64) * np.uint64(PAGE_SIZE),
        end=np.array(last, np.uint64) * np.uint64(PAGE_SIZE),
        nr_accesses=np.rint(np.array(rate, np.float64) * 20).astype(np.int64),
        access_rate=np.array(rate, np.float64),
        age_s=np.array(age_s, np.float64),
        rate_error=np.zeros(len(rows)),
    )


def pages(start: int, end: int) -> range:
    return range(start // PAGE_SIZE, end // PAGE_SIZE)


def planned_pages(planned: Sequence[PlannedAction]) -> dict[int, set[int]]:
    found: dict[int, set[int]] = {}
    for one in planned:
        for start, end in zip(one.start.tolist(), one.end.tolist(), strict=True):
            found.setdefault(one.target, set()).update(pages(start, end))
    return found


class Memory:
    """Pages of targets, and how often each was acted on.

    Args:
        sizes: pages of each target.
        keeps: an action leaves pages as they are, like `stat`; else it has no effect a second time.
        failing: pages (target, number) on which the action is tried in vain.
    """

    def __init__(
        self, sizes: Mapping[int, int], *, keeps: bool = False, failing: frozenset[tuple[int, int]] = frozenset()
    ) -> None:
        self.can = {target: [True] * size for target, size in sizes.items()}
        self.visits = {target: [0] * size for target, size in sizes.items()}
        self._keeps = keeps
        self._failing = failing

    def examine(self, planned: PlannedAction) -> Counts:
        can = self.can[planned.target]
        ranges = zip(planned.start.tolist(), planned.end.tolist(), strict=True)
        return np.array([PAGE_SIZE * sum(can[page] for page in pages(*span)) for span in ranges], np.int64)

    def carry_out(self, planned: PlannedAction, allowed: Counts, *, action_s: float = 0.0) -> Outcome:
        applied, reached, nr_tried = [], [], 0
        for start, end, left in zip(planned.start.tolist(), planned.end.tolist(), allowed.tolist(), strict=True):
            assert left % PAGE_SIZE == 0
            can = [page for page in pages(start, end) if self.can[planned.target][page]]
            tried = can[: left // PAGE_SIZE]
            done = [page for page in tried if (planned.target, page) not in self._failing]
            for page in tried:
                self.visits[planned.target][page] += 1
            for page in done:
                self.can[planned.target][page] = self._keeps
            nr_tried += bool(tried)
            applied.append(len(done) * PAGE_SIZE)
            reached.append(start if not tried else end if len(tried) == len(can) else (tried[-1] + 1) * PAGE_SIZE)
        failed = int(allowed.sum()) - sum(applied)
        return Outcome(
            name=planned.scheme.name,
            action=planned.action,
            target=planned.target,
            nr_tried=nr_tried,
            tried_bytes=int(allowed.sum()),
            applied_bytes=sum(applied),
            refused=(Refusal("no effect", failed),) if failed else (),
            applied_range_bytes=np.array(applied, np.int64),
            reached=np.array(reached, np.uint64),
            action_s=action_s,
        )


def apply(
    state: SchemeState,
    memory: Memory,
    regions: Regions,
    *,
    labels: Labels | None = None,
    now_s: float = 0.0,
    action_s: float = 0.0,
) -> list[Outcome]:
    """One apply as a session does it; none while the quota is full."""
    if state.quota.quota.is_set and state.quota.window_has_ended(now_s):
        state.open_quota_window(now_s, [])
    if state.quota.is_full:
        state.postpone(now_s)
        return []
    planned = state.plan(regions, labels or {})
    allowed = state.share(regions, planned, [memory.examine(one) for one in planned])
    outcomes = []
    for one, bytes_allowed in zip(planned, allowed, strict=True):
        outcomes.append(memory.carry_out(one, bytes_allowed, action_s=action_s))
        state.charge(one, bytes_allowed, outcomes[-1])
    state.finish(now_s)
    return outcomes
