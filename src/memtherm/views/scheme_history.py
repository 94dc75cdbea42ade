"""What each scheme matched, tried, applied and refused, and why: over time and in total."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from memtherm.core.history import History
from memtherm.core.plan import Refusal
from memtherm.core.ranges import Counts, Flags
from memtherm.core.report import SchemeReport
from memtherm.core.selection import EVERYTHING, Selection


@dataclass(frozen=True)
class SchemeState:
    """Why a scheme did not act, or not as much as it could, and in how many windows."""

    text: str
    nr_windows: int


@dataclass(frozen=True, kw_only=True)
class SchemeHistory:
    """One scheme in n windows.

    Attributes:
        name, action: of the scheme.
        time_s: ends of the windows, seconds since the epoch (n).
        matched_bytes, tried_bytes, applied_bytes, refused_bytes, filtered_bytes: in each window (int64, n).
        is_active: false while it rested (n).
        quota_bytes, charged_bytes: the quota's limit and what was used of it; NaN without one (n).
        goal_score: NaN without goals (n).
        refused: all windows together, most bytes first.
        states: what held it back, most windows first.
        last: its last report; its `total` counts since the scheme was started.
    """

    name: str
    action: str
    time_s: NDArray[np.float64]
    matched_bytes: Counts
    tried_bytes: Counts
    applied_bytes: Counts
    refused_bytes: Counts
    filtered_bytes: Counts
    is_active: Flags
    quota_bytes: NDArray[np.float64]
    charged_bytes: NDArray[np.float64]
    goal_score: NDArray[np.float64]
    refused: tuple[Refusal, ...]
    states: tuple[SchemeState, ...]
    last: SchemeReport


@dataclass
class _Gathered:
    last: SchemeReport
    numbers: list[tuple[float, ...]] = field(default_factory=list)
    refused: dict[str, int] = field(default_factory=dict)
    states: dict[str, int] = field(default_factory=dict)

    def add(self, time_s: float, scheme: SchemeReport) -> None:
        quota = scheme.quota
        self.numbers.append(
            (
                time_s,
                scheme.matched_bytes,
                scheme.tried_bytes,
                scheme.applied_bytes,
                sum(one.size_bytes for one in scheme.refused),
                scheme.filtered_bytes,
                scheme.is_active,
                np.nan if quota is None else quota.effective_bytes,
                np.nan if quota is None else quota.charged_bytes,
                np.nan if quota is None or quota.goal_score is None else quota.goal_score,
            )
        )
        for refusal in scheme.refused:
            self.refused[refusal.reason] = self.refused.get(refusal.reason, 0) + refusal.size_bytes
        if scheme.state:
            self.states[scheme.state] = self.states.get(scheme.state, 0) + 1
        self.last = scheme


def scheme_histories(history: History, *, selection: Selection = EVERYTHING) -> tuple[SchemeHistory, ...]:
    """What each scheme did in the selected time, in the order of the policy; empty where there were none."""
    gathered: dict[tuple[int, str, str], _Gathered] = {}
    for times in history.schemes(selection):
        for index, scheme in enumerate(times.schemes):
            key = (index, scheme.name, str(scheme.action))
            gathered.setdefault(key, _Gathered(scheme)).add(times.time_s, scheme)
    return tuple(_history_of(name, action, one) for (_, name, action), one in gathered.items())


def _history_of(name: str, action: str, gathered: _Gathered) -> SchemeHistory:
    columns = np.array(gathered.numbers, np.float64).T
    counts = columns[1:6].astype(np.int64)
    by_size = sorted(gathered.refused.items(), key=lambda item: -item[1])
    by_windows = sorted(gathered.states.items(), key=lambda item: -item[1])
    return SchemeHistory(
        name=name,
        action=action,
        time_s=columns[0],
        matched_bytes=counts[0],
        tried_bytes=counts[1],
        applied_bytes=counts[2],
        refused_bytes=counts[3],
        filtered_bytes=counts[4],
        is_active=columns[6] > 0,
        quota_bytes=columns[7],
        charged_bytes=columns[8],
        goal_score=columns[9],
        refused=tuple(Refusal(reason, size) for reason, size in by_size),
        states=tuple(SchemeState(text, count) for text, count in by_windows),
        last=gathered.last,
    )
