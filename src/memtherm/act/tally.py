"""What becomes of one plan, counted on the way from a look at it to the outcome."""

import numpy as np

from memtherm.act.pieces import Pieces
from memtherm.core.plan import Outcome, PlannedAction, Refusal
from memtherm.core.ranges import Addresses, Counts

STOPPED = "stopped by the user"
"""Why what was left was refused, where a run ends while it acts."""


class Tally:
    """Counts of one plan; at first all its mapped bytes are tried."""

    def __init__(self, planned: PlannedAction, pieces: Pieces) -> None:
        self._planned = planned
        self._tried = self._by_range(pieces)
        self._filtered_bytes = 0
        self._refused: dict[str, int] = {}
        self._applied: Counts = np.zeros(len(planned), np.int64)

    def filter(self, passing: Pieces) -> None:
        """Only these were left by filters."""
        before, self._tried = self._tried, self._by_range(passing)
        self._filtered_bytes = int((before - self._tried).sum())

    def refuse(self, reason: str, size_bytes: int) -> None:
        if size_bytes > 0:
            self._refused[reason] = self._refused.get(reason, 0) + size_bytes

    def leave(self, range_bytes: Counts) -> None:
        """So many bytes of each range are left for later."""
        self._tried = self._tried - range_bytes

    def apply(self, pieces: Pieces, applied_bytes: Counts) -> None:
        np.add.at(self._applied, pieces.region, applied_bytes)

    def outcome(self, reached: Addresses, action_s: float = 0.0) -> Outcome:
        return Outcome(
            name=self._planned.scheme.name,
            action=self._planned.action,
            target=self._planned.target,
            nr_tried=int((self._tried > 0).sum()),
            tried_bytes=int(self._tried.sum()),
            applied_bytes=int(self._applied.sum()),
            refused=tuple(Refusal(reason, size_bytes) for reason, size_bytes in self._refused.items()),
            filtered_bytes=self._filtered_bytes,
            applied_range_bytes=self._applied,
            reached=reached,
            action_s=action_s,
        )

    def _by_range(self, pieces: Pieces) -> Counts:
        total = np.zeros(len(self._planned), np.int64)
        np.add.at(total, pieces.region, pieces.size_bytes)
        return total
