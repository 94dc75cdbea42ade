"""Intervals of a record of damo: in the record, or in the file with the settings that damo writes beside it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memtherm.record.damo_values import is_plain, read_number, read_time, read_whole

_LATE = 0.1  # where damo draws the line between a late window and a tuned one


@dataclass(frozen=True)
class DamoIntervals:
    """How DAMON was set; 0 where that is not known.

    Attributes:
        is_tuned: intervals fit themselves to the target, the number of looks in a window stays.
    """

    sampling_s: float = 0.0
    aggregation_s: float = 0.0
    is_tuned: bool = False

    @property
    def looks(self) -> float:
        """In a window; not rounded."""
        return max(1.0, self.aggregation_s / self.sampling_s) if self.sampling_s > 0 else 0.0

    def aggregation_of(self, window_s: float, tuned: object = None) -> float:
        """The aggregation interval of a window, as damo has it (damo-format §1.3); 0 if unknown.

        Args:
            tuned: what its snapshot says of its sampling interval.
        """
        if not self.looks or not self.is_tuned or not self.aggregation_s:
            return self.aggregation_s
        if tuned is None:
            return self.aggregation_s if abs(window_s / self.aggregation_s - 1) < _LATE else window_s
        if not is_plain(tuned):
            return read_time(tuned, unit_s=1e-6) * self.looks
        # damo 3.4 writes nanoseconds here, and reads microseconds; whichever fits the window is meant.
        return min(
            (read_number(tuned) * unit_s * self.looks for unit_s in (1e-9, 1e-6)),
            key=lambda aggregation_s: abs(math.log(max(aggregation_s, 1e-12) / max(window_s, 1e-12))),
        )


def intervals_of(values: Mapping[str, Any]) -> DamoIntervals:
    """Of damo's object of them.  Raises InvalidInput, KeyError, TypeError, AttributeError."""
    goal = values.get("intervals_goal") or {}
    return DamoIntervals(
        read_time(values["sample_us"], unit_s=1e-6),
        read_time(values["aggr_us"], unit_s=1e-6),
        is_tuned=read_number(goal.get("aggrs") or 0) > 0,
    )


@dataclass(frozen=True)
class Beside:
    """What the file of settings says of the first context."""

    pids: tuple[int, ...] = ()
    intervals: DamoIntervals = DamoIntervals()


def read_beside(path: str | Path) -> Beside:
    """From `PATH.kdamonds`, which `damo record` writes; nothing where there is none that can be read."""
    try:
        kdamonds = json.loads(Path(f"{path}.kdamonds").read_text(encoding="utf-8"))
        kdamonds = kdamonds["kdamonds"] if isinstance(kdamonds, dict) else kdamonds
        context = kdamonds[0]["contexts"][0]
        pids = tuple(read_whole(target["pid"] or 0) for target in context["targets"])
        return Beside(pids, intervals_of(context["intervals"]) if "intervals" in context else DamoIntervals())
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        return Beside()  # ValueError: not JSON, not UTF-8, or a value that InvalidInput says is wrong
