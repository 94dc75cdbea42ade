"""One window of a session: what was seen and what each scheme did about it."""

from collections.abc import Sequence
from dataclasses import dataclass

from memtherm.core.plan import Outcome, Refusal
from memtherm.core.scheme import Action, SchemeStatistics
from memtherm.core.snapshot import Snapshot


@dataclass(frozen=True, kw_only=True)
class SchemeReport:
    """What one scheme did in one window, over all targets.

    Attributes:
        matched_bytes: address space of the regions that fit the pattern.
        tried_bytes, applied_bytes, refused: see Outcome; all 0 where the scheme paused.
        total: the same since the scheme was started.
    """

    name: str
    action: Action
    matched_bytes: int
    tried_bytes: int
    applied_bytes: int
    refused: tuple[Refusal, ...]
    total: SchemeStatistics


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
