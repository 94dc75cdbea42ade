"""An actor that notes what it was asked to do."""

from memtherm.core.plan import Outcome, PlannedAction, nothing_applied
from memtherm.core.ranges import sizes
from memtherm.core.scheme import Action


class RecordingActor:
    """An Actor that keeps each planned action; every byte counts as applied unless told otherwise.

    Attributes:
        planned: what was asked for, in order.
        works: whether actions have an effect.
    """

    def __init__(self, *, works: bool = True) -> None:
        self.planned: list[PlannedAction] = []
        self.works = works

    def carry_out(self, planned: PlannedAction) -> Outcome:
        self.planned.append(planned)
        region_bytes = sizes(planned.start, planned.end)
        acts = self.works and planned.action is not Action.STAT
        applied = region_bytes if acts else nothing_applied(planned)
        return Outcome(
            name=planned.scheme,
            action=planned.action,
            target=planned.target,
            nr_tried=len(planned.rows),
            tried_bytes=int(region_bytes.sum()),
            applied_bytes=int(applied.sum()),
            refused=(),
            applied_region_bytes=applied,
        )

    def close(self) -> None:
        """Nothing is held."""
