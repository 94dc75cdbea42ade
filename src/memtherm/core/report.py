"""One window of a session: what was seen and what each scheme did about it."""

from collections.abc import Sequence
from dataclasses import dataclass

from memtherm.core.plan import Outcome, Refusal
from memtherm.core.scheme import Action, SchemeStatistics
from memtherm.core.snapshot import Regions, Snapshot


@dataclass(frozen=True)
class QuotaReport:
    """A scheme's quota in its present charge window.

    Attributes:
        effective_bytes: the limit, all of the quota's limits taken together.
        charged_bytes: used of it.
        goal_score: how far the goals are reached, 1.0 is just reached; None without goals.
    """

    effective_bytes: int
    charged_bytes: int
    goal_score: float | None = None


@dataclass(frozen=True, kw_only=True)
class SchemeReport:
    """What one scheme did in one window, over all targets and applies.

    Attributes:
        matched_bytes: address space of the regions that fit the pattern at the end of the window.
        tried_bytes, applied_bytes, refused, filtered_bytes: see Outcome; all 0 where the scheme paused.
        total: the same since the scheme was started.
        is_active: false while watermarks let it rest, and once it has had all its applies.
        state: in words why it did not act, or not as much as it could; empty where nothing held it back.
        quota: None without a quota.
        free_memory: the watermarks' metric; None without watermarks.
        tried: the memory that was tried, with its rate and age at that time; of several applies one after the other.
            None where nothing was.
    """

    name: str
    action: Action
    matched_bytes: int
    tried_bytes: int
    applied_bytes: int
    refused: tuple[Refusal, ...]
    total: SchemeStatistics
    filtered_bytes: int = 0
    is_active: bool = True
    state: str = ""
    quota: QuotaReport | None = None
    free_memory: float | None = None
    tried: Regions | None = None


@dataclass(frozen=True)
class Report:
    """A snapshot, what each scheme did with it, and what happened meanwhile (`events`, in sentences)."""

    snapshot: Snapshot
    schemes: tuple[SchemeReport, ...]
    events: tuple[str, ...] = ()


def join_refusals(outcomes: Sequence[Outcome]) -> tuple[Refusal, ...]:
    """Refusals of several outcomes with equal reasons added up, most bytes first."""
    total: dict[str, int] = {}
    for outcome in outcomes:
        for refusal in outcome.refused:
            total[refusal.reason] = total.get(refusal.reason, 0) + refusal.size_bytes
    return tuple(Refusal(reason, size) for reason, size in sorted(total.items(), key=lambda item: -item[1]))
