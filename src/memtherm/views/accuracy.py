"""A snapshot against the truth: how many bytes it found hot, and how many of those are."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from memtherm.core.ranges import intersect, join_adjacent, overlap_bytes, sizes
from memtherm.core.regions import Range
from memtherm.core.snapshot import Snapshot


@dataclass(frozen=True)
class Accuracy:
    """Bytes that are hot, bytes that were seen as hot, and bytes that are both."""

    true_bytes: int
    seen_bytes: int
    both_bytes: int

    @property
    def precision(self) -> float:
        """Share of what was seen as hot that is hot; 1 where nothing was seen."""
        return self.both_bytes / self.seen_bytes if self.seen_bytes else 1.0

    @property
    def recall(self) -> float:
        """Share of what is hot that was seen; 1 where nothing is hot."""
        return self.both_bytes / self.true_bytes if self.true_bytes else 1.0


def accuracy(snapshot: Snapshot, *, hot: Sequence[Range], within: Sequence[Range], min_access_rate: float) -> Accuracy:
    """Compare the regions of the first target with known hot ranges.

    Args:
        hot: what is hot.
        within: where the truth is known; what was seen outside does not count.
        min_access_rate: regions at this rate or more are taken for hot (0..1).
    """
    regions = snapshot.regions.take((snapshot.regions.target == 0) & snapshot.rows_at_least(min_access_rate))
    bounds = [np.array(ranges, np.uint64).reshape(-1, 2) for ranges in (hot, within)]
    (hot_start, hot_end), (known_start, known_end) = (join_adjacent(b[:, 0], b[:, 1]) for b in bounds)
    seen_start, seen_end, _, _ = intersect(regions.start, regions.end, known_start, known_end)
    return Accuracy(
        true_bytes=int(sizes(hot_start, hot_end).sum()),
        seen_bytes=int(sizes(seen_start, seen_end).sum()),
        both_bytes=int(overlap_bytes(seen_start, seen_end, hot_start, hot_end).sum()),
    )
