"""An actor that notes what it was asked to do."""

from collections.abc import Callable

import numpy as np

from memtherm.core.plan import Outcome, PlannedAction
from memtherm.core.protocols import Accessed
from memtherm.core.ranges import Counts, sizes
from memtherm.core.scheme import Action
from memtherm.errors import InvalidInput


class RecordingActor:
    """An Actor that keeps each planned action; every allowed byte counts as applied unless told otherwise.

    Attributes:
        planned: what was to be examined, in order.
        allowed: what was then allowed of each, in order.
        works: whether actions have an effect.
        possible: of a plan, the bytes of each range on which the action can have one; all without it.
    """

    def __init__(self, *, works: bool = True, possible: Callable[[PlannedAction], Counts] | None = None) -> None:
        self.planned: list[PlannedAction] = []
        self.allowed: list[Counts] = []
        self.works = works
        self.possible = possible
        self._examined: tuple[PlannedAction, Counts] | None = None

    def examine(self, planned: PlannedAction, accessed: Accessed | None = None) -> Counts:
        del accessed  # nothing is in use
        self.planned.append(planned)
        possible = self.possible(planned) if self.possible else sizes(planned.start, planned.end)
        self._examined = planned, possible
        return possible

    def carry_out(self, allowed_bytes: Counts) -> Outcome:
        if self._examined is None:
            raise InvalidInput("nothing was examined", hint="call examine before each carry_out")
        (planned, possible), self._examined = self._examined, None
        self.allowed.append(allowed_bytes)
        acts = self.works and planned.action is not Action.STAT
        applied = allowed_bytes if acts else np.zeros_like(allowed_bytes)
        # What is possible is at the beginning of its range.
        tried = sizes(planned.start, planned.end) - (possible - allowed_bytes)
        reached = np.where(allowed_bytes == possible, planned.end, planned.start + allowed_bytes.astype(np.uint64))
        return Outcome(
            name=planned.scheme.name,
            action=planned.action,
            target=planned.target,
            nr_tried=int((tried > 0).sum()),
            tried_bytes=int(tried.sum()),
            applied_bytes=int(applied.sum()),
            refused=(),
            applied_range_bytes=applied,
            reached=np.where(allowed_bytes > 0, reached, planned.start),
        )

    def end(self) -> tuple[str, ...]:
        return ()

    def close(self) -> None:
        """Nothing is held."""
