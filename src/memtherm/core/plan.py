"""What schemes want done (PlannedAction) and what came of it (Outcome)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from memtherm.core.ranges import Addresses, Counts, Flags
from memtherm.core.scheme import Action, Scheme, SchemeStatistics


@dataclass(frozen=True)
class PlannedAction:
    """One action on some memory of one target, sorted by address and disjoint.

    Attributes:
        target: number of the target, as in `Regions.target`.
        rows: for each range the row of the region that it is a part of; a region may have several.
        start, end: addresses.
        is_unfiltered: for each range, whether a filter by address or target has allowed it outright: then no
            filter by pages is asked (damon-spec §2.9).
        working_set_bytes: memory of the target that was accessed in the last window.
    """

    scheme: Scheme
    target: int
    rows: Counts
    start: Addresses
    end: Addresses
    is_unfiltered: Flags
    working_set_bytes: int = 0

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def action(self) -> Action:
        return self.scheme.action

    def take(self, which: Flags) -> PlannedAction:
        """Only these ranges."""
        return replace(
            self,
            rows=self.rows[which],
            start=self.start[which],
            end=self.end[which],
            is_unfiltered=self.is_unfiltered[which],
        )


@dataclass(frozen=True)
class Refusal:
    """Bytes that were not acted on, and why."""

    reason: str
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of one PlannedAction.

    Attributes:
        name: the scheme's.
        nr_tried: ranges with a tried byte.
        tried_bytes: mapped bytes that the action was asked for, the refused and the ineffective ones included.
            What a quota leaves for later is not among them.
        applied_bytes: verified effect, never a system call's word.
        refused: each reason with its bytes; a dry run is a reason.
        filtered_bytes: mapped bytes that filters left out, not among the tried.
        applied_range_bytes: verified bytes of each planned range (int64).
        reached: for each planned range the address up to which it was done: its start where nothing was, its end
            where all was, else where the allowed bytes ended (uint64).
        action_s: time that the action itself took, without looking.
    """

    name: str
    action: Action
    target: int
    nr_tried: int
    tried_bytes: int
    applied_bytes: int
    refused: tuple[Refusal, ...]
    filtered_bytes: int = 0
    applied_range_bytes: Counts
    reached: Addresses
    action_s: float = 0.0

    @property
    def nr_applied(self) -> int:
        return int((self.applied_range_bytes > 0).sum())

    @property
    def refused_bytes(self) -> int:
        return sum(refusal.size_bytes for refusal in self.refused)


def ranges_to_reset(planned: PlannedAction, outcome: Outcome) -> tuple[Addresses, Addresses]:
    """Start and end of the memory whose age starts again: something was applied, and it was more than counting.

    The kernel resets the age even where nothing was applied; damon-spec §7 lists that as a quirk.
    """
    which = outcome.applied_range_bytes > 0
    if planned.action is Action.STAT:
        which = np.zeros(len(planned), np.bool_)
    return planned.start[which], outcome.reached[which]


def add_outcomes(statistics: SchemeStatistics, outcomes: Sequence[Outcome]) -> SchemeStatistics:
    """Statistics with some more outcomes counted."""
    return replace(
        statistics,
        nr_tried=statistics.nr_tried + sum(outcome.nr_tried for outcome in outcomes),
        tried_bytes=statistics.tried_bytes + sum(outcome.tried_bytes for outcome in outcomes),
        nr_applied=statistics.nr_applied + sum(outcome.nr_applied for outcome in outcomes),
        applied_bytes=statistics.applied_bytes + sum(outcome.applied_bytes for outcome in outcomes),
        refused_bytes=statistics.refused_bytes + sum(outcome.refused_bytes for outcome in outcomes),
        filtered_bytes=statistics.filtered_bytes + sum(outcome.filtered_bytes for outcome in outcomes),
    )
