"""What schemes want done (Plan) and what came of it (Outcome)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from memtherm.core.ranges import Addresses, Counts
from memtherm.core.scheme import Action, Scheme, SchemeStatistics
from memtherm.core.snapshot import Regions


@dataclass(frozen=True)
class PlannedAction:
    """One action on some regions of one target, sorted by address.

    Attributes:
        rows: the regions' rows in the table that was matched.
        start, end: their addresses.
    """

    scheme: str
    action: Action
    target: int
    rows: Counts
    start: Addresses
    end: Addresses


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
        tried_bytes: mapped bytes that the scheme asked for; refused and ineffective ones included.
        applied_bytes: verified effect, never a system call's word.
        refused: each reason with its bytes; a dry run is a reason.
        applied_region_bytes: verified bytes of each planned region (int64), for the age reset.
    """

    name: str
    action: Action
    target: int
    nr_tried: int
    tried_bytes: int
    applied_bytes: int
    refused: tuple[Refusal, ...]
    applied_region_bytes: Counts

    @property
    def nr_applied(self) -> int:
        return int((self.applied_region_bytes > 0).sum())

    @property
    def refused_bytes(self) -> int:
        return sum(refusal.size_bytes for refusal in self.refused)


def plan_scheme(scheme: Scheme, regions: Regions) -> list[PlannedAction]:
    """The regions that a scheme matches, as one action for each target that has some."""
    rows = np.flatnonzero(scheme.pattern.matches(regions))
    planned = []
    for target in np.unique(regions.target[rows]).tolist():
        mine = rows[regions.target[rows] == target]
        planned.append(PlannedAction(scheme.name, scheme.action, target, mine, regions.start[mine], regions.end[mine]))
    return planned


def rows_to_reset(planned: PlannedAction, outcome: Outcome) -> Counts:
    """Regions whose age starts again: something was applied, and it was more than counting.

    The kernel resets the age even where nothing was applied; damon-spec §7 lists that as a quirk.
    """
    if planned.action is Action.STAT:
        return planned.rows[:0]
    return planned.rows[outcome.applied_region_bytes > 0]


def add_outcomes(statistics: SchemeStatistics, outcomes: Sequence[Outcome]) -> SchemeStatistics:
    """Statistics with some more outcomes counted."""
    return replace(
        statistics,
        nr_tried=statistics.nr_tried + sum(outcome.nr_tried for outcome in outcomes),
        tried_bytes=statistics.tried_bytes + sum(outcome.tried_bytes for outcome in outcomes),
        nr_applied=statistics.nr_applied + sum(outcome.nr_applied for outcome in outcomes),
        applied_bytes=statistics.applied_bytes + sum(outcome.applied_bytes for outcome in outcomes),
        refused_bytes=statistics.refused_bytes + sum(outcome.refused_bytes for outcome in outcomes),
    )


def nothing_applied(planned: PlannedAction) -> NDArray[np.int64]:
    return np.zeros(len(planned.rows), np.int64)
