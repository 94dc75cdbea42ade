"""Regions as a few rows that a person can read."""

from dataclasses import dataclass

import numpy as np

from memtherm.core.snapshot import Regions

# Neighbours whose rates fall between the same two of these are shown as one row.
_RATE_CLASSES = np.array([1e-9, 0.05, 0.25, 0.5, 0.75])


@dataclass(frozen=True)
class Row:
    """Some neighbouring regions.  Rate and age are means over their bytes."""

    target: int
    start: int
    end: int
    access_rate: float
    age_s: float

    @property
    def size_bytes(self) -> int:
        return self.end - self.start


def region_rows(regions: Regions, *, limit: int) -> tuple[list[Row], int]:
    """At most `limit` rows in address order: the largest of what was accessed, and the largest of what was not.

    Returns:
        The rows, and how many more there are.
    """
    if len(regions) == 0:
        return [], 0
    kind = np.searchsorted(_RATE_CLASSES, regions.access_rate, side="right")
    begins = np.ones(len(regions), np.bool_)
    begins[1:] = (kind[1:] != kind[:-1]) | (regions.start[1:] != regions.end[:-1])
    begins[1:] |= regions.target[1:] != regions.target[:-1]
    first = np.flatnonzero(begins)
    last = np.append(first[1:], len(regions)) - 1
    size = regions.size_bytes
    total = np.maximum(np.add.reduceat(size, first), 1)
    rate = np.add.reduceat(size * regions.access_rate, first) / total
    age = np.add.reduceat(size * regions.age_s, first) / total
    by_size = np.argsort(-total, kind="stable")
    hot, cold = by_size[rate[by_size] > 0], by_size[rate[by_size] == 0]
    # Two thirds for the one, a third for the other, and what one does not need for the other.
    nr_cold = min(len(cold), max(limit // 3, limit - len(hot)))
    shown = np.sort(np.concatenate([hot[: limit - nr_cold], cold[:nr_cold]]))
    rows = [
        Row(
            int(regions.target[first[index]]),
            int(regions.start[first[index]]),
            int(regions.end[last[index]]),
            float(rate[index]),
            float(age[index]),
        )
        for index in shown.tolist()
    ]
    return rows, len(first) - len(rows)
