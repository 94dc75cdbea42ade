"""Ages that were set back, laid over regions of an engine that cannot be told to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from memtherm.core.ranges import Addresses, intersect
from memtherm.core.snapshot import Regions

_MAX_RANGES = 65536


class AgeResets:
    """Remembers which memory an action was applied to, and when: its age counts from then on.

    Regions are cut where a part of them was reset.  What is remembered is bounded: the oldest is forgotten first.
    """

    def __init__(self) -> None:
        self._of_target: dict[int, tuple[Addresses, Addresses, NDArray[np.float64]]] = {}

    def note(self, target: int, start: Addresses, end: Addresses, now_s: float) -> None:
        """These ranges, sorted and disjoint, begin a new age now."""
        if len(start) == 0:
            return
        old_start, old_end, old_s = self._of_target.get(target, _NOTHING)
        kept_start, kept_end, row = _outside(old_start, old_end, start, end)
        starts = np.concatenate((kept_start, start))
        ends = np.concatenate((kept_end, end))
        times = np.concatenate((old_s[row], np.full(len(start), now_s)))
        newest = np.sort(np.argsort(-times, kind="stable")[:_MAX_RANGES])
        order = newest[np.argsort(starts[newest])]
        self._of_target[target] = starts[order], ends[order], times[order]

    def forget(self, target: int) -> None:
        """The target has gone, or has other memory now."""
        self._of_target.pop(target, None)

    def laid_over(self, regions: Regions, now_s: float) -> Regions:
        """The regions with no age greater than the time since its memory was reset."""
        parts = [self._cut(regions, target, now_s) for target in np.unique(regions.target).tolist()]
        if not parts:
            return regions
        return parts[0] if len(parts) == 1 else _joined(parts)

    def _cut(self, regions: Regions, target: int, now_s: float) -> Regions:
        mine = regions.take(regions.target == target)
        start, end, times = self._of_target.get(target, _NOTHING)
        if len(start) == 0:
            return mine
        in_start, in_end, row, reset = intersect(mine.start, mine.end, start, end)
        out_start, out_end, out_row = _outside(mine.start, mine.end, start, end)
        rows = np.concatenate((row, out_row))
        age_s = np.concatenate((np.minimum(mine.age_s[row], now_s - times[reset]), mine.age_s[out_row]))
        starts, ends = np.concatenate((in_start, out_start)), np.concatenate((in_end, out_end))
        order = np.argsort(starts)
        return replace(mine.take(rows[order]), start=starts[order], end=ends[order], age_s=age_s[order])


_NOTHING = (np.zeros(0, np.uint64), np.zeros(0, np.uint64), np.zeros(0))


def _outside(
    start: Addresses, end: Addresses, other_start: Addresses, other_end: Addresses
) -> tuple[Addresses, Addresses, NDArray[np.int64]]:
    """What of the first ranges the second do not cover, with the row of each in the first."""
    top = np.uint64(2**64 - 1)
    gap_start = np.concatenate((np.zeros(1, np.uint64), other_end))
    gap_end = np.concatenate((other_start, np.array([top])))
    filled = gap_end > gap_start
    out_start, out_end, row, _ = intersect(start, end, gap_start[filled], gap_end[filled])
    return out_start, out_end, row


def _joined(parts: list[Regions]) -> Regions:
    return Regions(*(np.concatenate([getattr(part, name) for part in parts]) for name in Regions.__dataclass_fields__))
