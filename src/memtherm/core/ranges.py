"""Arithmetic on address ranges: half-open `[start, end)`, as uint64 columns or an (n, 2) array."""

import numpy as np
from numpy.typing import NDArray

Addresses = NDArray[np.uint64]
Counts = NDArray[np.int64]
Flags = NDArray[np.bool_]


def align_down(value: int, alignment: int) -> int:
    return value - value % alignment


def align_up(value: int, alignment: int) -> int:
    return align_down(value + alignment - 1, alignment)


def sizes(start: Addresses, end: Addresses) -> Counts:
    """Bytes of each range, signed so that differences of sizes do not wrap."""
    return (end - start).astype(np.int64)


def intersect(
    start: Addresses, end: Addresses, other_start: Addresses, other_end: Addresses
) -> tuple[Addresses, Addresses, Counts, Counts]:
    """The overlaps of two lists of ranges, both sorted and disjoint.

    Returns:
        start, end, and for each overlap the index of its range in the first and in the second list.
    """
    first = np.searchsorted(other_end, start, side="right")
    last = np.searchsorted(other_start, end, side="left")
    count = np.maximum(last - first, 0)
    index = np.repeat(np.arange(len(start)), count)
    offset = np.arange(len(index)) - np.repeat(np.cumsum(count) - count, count)
    other = np.repeat(first, count) + offset
    return (
        np.maximum(start[index], other_start[other]),
        np.minimum(end[index], other_end[other]),
        index.astype(np.int64),
        other.astype(np.int64),
    )


def overlap_bytes(start: Addresses, end: Addresses, other_start: Addresses, other_end: Addresses) -> Counts:
    """For each range of the first list, how many of its bytes the second covers.

    The second list must be sorted and disjoint; the first may be in any order.
    """
    if len(other_start) == 0:
        return np.zeros(len(start), np.int64)
    covered = np.concatenate(([0], np.cumsum(sizes(other_start, other_end))))

    def covered_below(address: Addresses) -> Counts:
        index = np.searchsorted(other_start, address, side="right") - 1
        inside = np.minimum(address, other_end[np.maximum(index, 0)]) - other_start[np.maximum(index, 0)]
        return np.where(index < 0, 0, covered[np.maximum(index, 0)] + inside.astype(np.int64))

    return covered_below(end) - covered_below(start)


def round_inward(start: Addresses, end: Addresses, alignment: int) -> tuple[Addresses, Addresses]:
    """The whole blocks of `alignment` bytes inside each range; empty ranges come back with end == start."""
    block = np.uint64(alignment)
    inner_start = (start + block - np.uint64(1)) // block * block
    inner_end = np.maximum(end // block * block, inner_start)
    return inner_start, inner_end


def join_adjacent(start: Addresses, end: Addresses) -> tuple[Addresses, Addresses]:
    """Sorted ranges with those that touch or overlap made one."""
    if len(start) == 0:
        return start, end
    order = np.argsort(start, kind="stable")
    start, end = start[order], np.maximum.accumulate(end[order])
    opens = np.concatenate(([True], start[1:] > end[:-1]))
    closes = np.concatenate((opens[1:], [True]))
    return start[opens], end[closes]
