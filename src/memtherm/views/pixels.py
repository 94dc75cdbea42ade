"""Sums over the pixels of a picture, without a loop over regions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class TimeSlots:
    """Snapshots that lie in one column together, and each that lies across a border alone.

    Attributes:
        slot: of each snapshot.
        weight: seconds of each snapshot that count, 1 for those across a border.
        nr_slots: how many there are.
        pair_slot, pair_column, pair_weight: what each slot gives to which column.
    """

    slot: Indices
    weight: Floats
    nr_slots: int
    pair_slot: Indices
    pair_column: Indices
    pair_weight: Floats


def time_slots(time_s: Floats, window_s: Floats, edges_s: Floats) -> TimeSlots:
    """How windows lie in the columns between `edges_s`; what is outside of all columns has no weight."""
    columns = len(edges_s) - 1
    begin = time_s - window_s
    first = np.clip(np.searchsorted(edges_s, begin, side="right") - 1, 0, columns - 1)
    last = np.maximum(first, np.clip(np.searchsorted(edges_s, time_s, side="left") - 1, 0, columns - 1))
    in_one = first == last
    opens = np.ones(len(time_s), np.bool_)
    opens[1:] = ~in_one[1:] | ~in_one[:-1] | (first[1:] != first[:-1])
    slot = np.cumsum(opens) - 1
    inside = np.maximum(0.0, np.minimum(time_s, edges_s[-1]) - np.maximum(begin, edges_s[0]))
    opening = np.flatnonzero(opens)
    count = last[opening] - first[opening] + 1
    pair = np.repeat(np.arange(len(opening)), count)
    column = np.repeat(first[opening], count) + np.arange(len(pair)) - np.repeat(np.cumsum(count) - count, count)
    snapshot = opening[pair]
    overlap = np.minimum(time_s[snapshot], edges_s[column + 1]) - np.maximum(begin[snapshot], edges_s[column])
    return TimeSlots(
        slot.astype(np.int64),
        np.where(in_one, inside, 1.0),
        len(opening),
        pair.astype(np.int64),
        column.astype(np.int64),
        np.where(in_one[snapshot], 1.0, np.maximum(0.0, overlap)),
    )


def row_sums(begin: Floats, end: Floats, line: Indices, weight: Floats, shape: tuple[int, int]) -> Floats:
    """For each line and row the sum of weight × part of the row that is covered.

    A stretch from `begin` to `end` (in rows, 0 to the number of rows) adds its weight to the sum as a step up at
    its begin and a step down at its end; a step counts for a part of its own row and wholly for those above.

    Args:
        line: which line of the result each stretch belongs to.
        shape: lines and rows.
    """
    lines, rows = shape
    whole, part = np.zeros(lines * (rows + 1)), np.zeros(lines * (rows + 1))
    base = line * (rows + 1)
    for border, step in ((begin, weight), (end, -weight)):
        row = border.astype(np.int64)
        index = base + row
        whole += np.bincount(index, weights=step, minlength=len(whole))
        part += np.bincount(index, weights=step * (row + 1 - border), minlength=len(part))
    steps = whole.reshape(lines, rows + 1)
    sums: Floats = part.reshape(lines, rows + 1)[:, :-1]
    sums[:, 1:] += np.cumsum(steps[:, :-2], axis=1)
    return sums


def add_slots(total: Floats, slots: TimeSlots, sums: Floats) -> None:
    """Add what each slot gives to its columns (columns, rows)."""
    if len(slots.pair_slot) == 0:
        return
    low, high = int(slots.pair_column.min()), int(slots.pair_column.max()) + 1
    if low + 1 == high:
        total[low] += slots.pair_weight @ sums[slots.pair_slot]
    else:
        np.add.at(total, slots.pair_column, slots.pair_weight[:, None] * sums[slots.pair_slot])
