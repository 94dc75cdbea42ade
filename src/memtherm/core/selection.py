"""What a report is about: a part of the time, of the addresses, of the targets, and of the regions."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from memtherm.core.pattern import AccessPattern
from memtherm.core.rows import SnapshotRows
from memtherm.errors import InvalidInput


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Filters that a reader applies while it reads.

    Attributes:
        since_s, until_s: ends of windows, seconds since the epoch, both inclusive; None: no bound.
        start, end: addresses, half-open; regions are cut to them; None: no bound.
        targets: indices as in `Regions.target`; None: all.
        pattern: size, access rate and age of the regions, before they are cut.

    Raises:
        InvalidInput: bounds that exclude each other.
    """

    since_s: float | None = None
    until_s: float | None = None
    start: int | None = None
    end: int | None = None
    targets: frozenset[int] | None = None
    pattern: AccessPattern = field(default_factory=AccessPattern)

    def __post_init__(self) -> None:
        if self.since_s is not None and self.until_s is not None and self.since_s > self.until_s:
            raise InvalidInput("the selected time ends before it begins", hint="give it as FROM..TO")
        if self.start is not None and self.end is not None and self.start >= self.end:
            raise InvalidInput("the selected addresses end before they begin", hint="give them as FROM..TO")

    def has_time(self, first_s: float, last_s: float) -> bool:
        """Whether a window that ended between these two may be selected: what an index is asked."""
        return (self.until_s is None or first_s <= self.until_s) and (self.since_s is None or last_s >= self.since_s)

    def of(self, rows: SnapshotRows) -> SnapshotRows:
        """What of these rows is selected."""
        first = 0 if self.since_s is None else int(np.searchsorted(rows.time_s, self.since_s, side="left"))
        end = len(rows) if self.until_s is None else int(np.searchsorted(rows.time_s, self.until_s, side="right"))
        if first > 0 or end < len(rows):
            rows = rows.take_snapshots(first, max(first, end))
        which = self._which(rows)
        if not which.all():
            rows = rows.take_rows(which)
        return self._cut(rows)

    def _which(self, rows: SnapshotRows) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        regions = rows.regions
        which = np.ones(len(regions), np.bool_)
        if self.targets is not None:
            which &= np.isin(regions.target, list(self.targets))
        if self.start is not None:
            which &= regions.end > np.uint64(self.start)
        if self.end is not None:
            which &= regions.start < np.uint64(self.end)
        if self.pattern != AccessPattern():
            which &= self.pattern.matches(regions)
        return which

    def _cut(self, rows: SnapshotRows) -> SnapshotRows:
        if self.start is None and self.end is None:
            return rows
        regions = rows.regions
        start, end = regions.start, regions.end
        if self.start is not None:
            start = np.maximum(start, np.uint64(self.start))
        if self.end is not None:
            end = np.minimum(end, np.uint64(self.end))
        return replace(rows, regions=replace(regions, start=start, end=end))


EVERYTHING = Selection()
