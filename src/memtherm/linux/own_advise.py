"""madvise(2) on memory of this process, which needs no privilege, and what this process alone can ask of its pages."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from memtherm.errors import InvalidInput
from memtherm.linux import libc
from memtherm.units import PAGE_SIZE


class OwnAdvice(IntEnum):
    """What is given to own memory here; COLLAPSE is new in 6.1."""

    WILLNEED = 3
    HUGEPAGE = 14
    NOHUGEPAGE = 15
    DONTDUMP = 16
    DODUMP = 17
    COLD = 20
    PAGEOUT = 21
    COLLAPSE = 25


def advise_own(starts: NDArray[np.uint64], ends: NDArray[np.uint64], advice: OwnAdvice) -> NDArray[np.int64]:
    """Give `advice` for the ranges [start, end), in their order; each in one mapping, as a hole fails its range.

    About 1 µs for a range, and what the kernel needs; the interpreter's lock is free meanwhile.

    Returns:
        For each range 0 or the negative errno: -EINVAL where the mapping takes no such advice, -ENOMEM for a hole,
        no huge page, or one mapping too many, -EAGAIN or -EBUSY for pages that could not be taken.  Success tells
        that the pages were walked, and not what changed (damon-spec §5.2).

    Raises InvalidInput: not whole pages, or an end before its start.
    """
    starts, ends = np.atleast_1d(np.asarray(starts, np.uint64)), np.atleast_1d(np.asarray(ends, np.uint64))
    if starts.shape != ends.shape or starts.ndim != 1 or (ends < starts).any():
        raise InvalidInput("ranges to advise do not have one end behind each start", hint="give start <= end")
    if np.bitwise_or.reduce(starts | ends, initial=np.uint64(0)) & np.uint64(PAGE_SIZE - 1):
        raise InvalidInput("a range does not begin and end on a page border", hint="round to 4096 bytes")
    answers = np.zeros(len(starts), np.int64)
    for row, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        try:
            libc.madvise(start, end - start, advice)
        except OSError as error:
            answers[row] = -(error.errno or errno.EINVAL)
    return answers


def are_in_memory(start: int, end: int) -> NDArray[np.bool_]:
    """For each page of own memory [start, end) whether it is in memory, in the page cache or in the swap cache.

    By mincore(2): exact for anonymous memory.  Of a file that this user neither owns nor may write, the kernel says
    so of every page.  Empty where a part of it is not mapped any more.
    """
    pages = np.zeros((end - start) // PAGE_SIZE, np.uint8)
    try:
        libc.mincore(start, end - start, pages.ctypes.data)
    except OSError as error:
        if error.errno != errno.ENOMEM:
            raise
        return np.zeros(0, np.bool_)
    return (pages & 1).astype(np.bool_)


@contextmanager
def set_apart(
    starts: NDArray[np.uint64], ends: NDArray[np.uint64], are_dumped: NDArray[np.bool_]
) -> Iterator[NDArray[np.bool_]]:
    """For a moment make each range a mapping of its own, so that what tells of mappings tells of it.

    By whether a core dump holds it: the one attribute that means nothing to a running program.  Each range is put
    back as it was; neighbouring mappings then become one again.

    Args:
        are_dumped: whether the mapping of each range is dumped now (no VmFlags `dd`).

    Yields for each range whether it could be done.
    """
    is_apart = np.zeros(len(starts), np.bool_)
    try:
        for dumped, advice in ((True, OwnAdvice.DONTDUMP), (False, OwnAdvice.DODUMP)):
            rows = np.flatnonzero(are_dumped == dumped)
            is_apart[rows] = advise_own(starts[rows], ends[rows], advice) == 0
        yield is_apart
    finally:
        for dumped, advice in ((True, OwnAdvice.DODUMP), (False, OwnAdvice.DONTDUMP)):
            rows = np.flatnonzero(are_dumped == dumped)
            advise_own(starts[rows], ends[rows], advice)
