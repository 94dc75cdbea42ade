"""What to say where a selection leaves nothing to write."""

from __future__ import annotations

from memtherm.core.history import History
from memtherm.errors import InvalidInput
from memtherm.units import format_time


def nothing_selected(history: History) -> InvalidInput:
    begin_s, end_s = history.time_span_s
    names = ", ".join(target.name for target in history.targets[:3]) + (", …" if len(history.targets) > 3 else "")
    return InvalidInput(
        "nothing is selected that could be written", hint=f"there are {format_time(end_s - begin_s)} of {names}"
    )
