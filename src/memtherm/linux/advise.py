"""process_madvise(2) on many ranges of one process, with its short counts and limits (damon-spec §5.1)."""

import errno
import os
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from memtherm.errors import InvalidInput, NotPermitted, NotSupported, TargetGone
from memtherm.linux import libc
from memtherm.linux.hidden import is_hidden
from memtherm.linux.process import Process
from memtherm.units import HUGE_PAGE_SIZE, PAGE_SIZE

_CALL_RANGES = 1024
# The kernel silently clips a longer call to 2 GiB − 4 KiB.
_CALL_BYTES = 0x7FFFF000
_PIECE_BYTES = _CALL_BYTES // HUGE_PAGE_SIZE * HUGE_PAGE_SIZE


class Advice(IntEnum):
    """What the kernel accepts for another process."""

    WILLNEED = 3
    COLD = 20
    PAGEOUT = 21
    COLLAPSE = 25


@dataclass(frozen=True)
class AdviseResult:
    """How far an advice went.

    Attributes:
        requested_bytes: length of all ranges.
        done_bytes: length of the ranges that the kernel walked without an error: not what changed, which
            only pagemap or smaps can tell.  A failed range may have been advised in part.
        failed_starts, failed_ends: uint64, bytes; a range over 2 GiB counts as several.
        failed_errnos: int32; why each of them failed.
    """

    requested_bytes: int
    done_bytes: int
    failed_starts: NDArray[np.uint64]
    failed_ends: NDArray[np.uint64]
    failed_errnos: NDArray[np.int32]


def advise_process(process: Process, starts: ArrayLike, ends: ArrayLike, advice: Advice) -> AdviseResult:
    """As `advise`, with errors that name the process."""
    try:
        return advise(process.pidfd, starts, ends, advice)
    except TargetGone as error:
        raise TargetGone(f"process {process.pid} is gone", hint=error.hint) from error


def advise(pidfd: int, starts: ArrayLike, ends: ArrayLike, advice: Advice) -> AdviseResult:
    """Give `advice` for the ranges [start, end) of the process behind `pidfd`, in their order.

    A range that cannot be advised is reported, and the ranges behind it are advised all the same.  Make one
    range per mapping: a hole inside a range fails it.

    Raises NotPermitted (needs CAP_SYS_NICE and ptrace read access), TargetGone, NotSupported (before Linux
    5.10), InvalidInput (not whole pages, or an end before its start).
    """
    if is_hidden("process_madvise"):
        raise _not_supported()
    vectors = _vectors(starts, ends)
    address = vectors.ctypes.data
    # What the calls have done is a sum from the first range on; this tells at which range that is.
    sums = np.cumsum(vectors[:, 1], dtype=np.int64)
    count, position, done_bytes = len(vectors), 0, 0
    failed: list[int] = []
    errnos: list[int] = []
    while position < count:
        before = int(sums[position - 1]) if position else 0
        stop = min(position + _CALL_RANGES, int(np.searchsorted(sums, before + _CALL_BYTES, side="right")))
        try:
            walked = libc.process_madvise(pidfd, address + 16 * position, stop - position, advice)
        except OSError as error:
            _raise_if_hopeless(error, pidfd)
            # The call ended at its first range.  A short count loses the errno of the range that ended it:
            # the next call begins with that one, and so comes here.
            failed.append(position)
            errnos.append(error.errno or 0)
            position += 1
            continue
        following = int(np.searchsorted(sums, before + walked, side="right"))
        done_bytes += (int(sums[following - 1]) if following else 0) - before
        if following == position:
            # Neither progress nor an error: never seen, but it must not become an endless loop.
            failed.append(position)
            errnos.append(errno.EAGAIN)
            following += 1
        position = following
    begin = vectors[failed, 0]
    return AdviseResult(
        requested_bytes=int(sums[-1]) if count else 0,
        done_bytes=done_bytes,
        failed_starts=begin,
        failed_ends=begin + vectors[failed, 1],
        failed_errnos=np.array(errnos, np.int32),
    )


def _vectors(starts: ArrayLike, ends: ArrayLike) -> NDArray[np.uint64]:
    """`struct iovec` of each range, as rows (address, length); none empty, none longer than one call takes."""
    begin, end = np.atleast_1d(np.asarray(starts, np.uint64)), np.atleast_1d(np.asarray(ends, np.uint64))
    if begin.shape != end.shape or begin.ndim != 1:
        raise InvalidInput(f"{begin.shape} starts and {end.shape} ends", hint="give one end for each start")
    if np.bitwise_or.reduce(begin | end) & np.uint64(PAGE_SIZE - 1):
        raise InvalidInput("a range does not begin and end on a page border", hint="round to 4096 bytes")
    if (end < begin).any():
        raise InvalidInput("a range ends before it starts", hint="give start < end")
    vectors = np.empty((len(begin), 2), np.uint64)
    vectors[:, 0] = begin
    np.subtract(end, begin, out=vectors[:, 1])
    if not len(vectors):
        return vectors
    lengths = vectors[:, 1]
    if not lengths.min():
        vectors = vectors[lengths > 0]
    if lengths.max() > _PIECE_BYTES:
        vectors = _split_long(vectors)
    return vectors


def _split_long(vectors: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Cut on borders of huge pages, so that none is split by the cut."""
    begin = vectors[:, 0]
    end = begin + vectors[:, 1]
    piece_bytes = np.uint64(_PIECE_BYTES)
    base = begin - begin % np.uint64(HUGE_PAGE_SIZE)
    pieces = ((end - base + piece_bytes - np.uint64(1)) // piece_bytes).astype(np.int64)
    owner = np.repeat(np.arange(len(begin)), pieces)
    index = (np.arange(len(owner)) - np.repeat(np.cumsum(pieces) - pieces, pieces)).astype(np.uint64)
    piece_begin = np.maximum(base[owner] + index * piece_bytes, begin[owner])
    piece_end = np.minimum(base[owner] + (index + np.uint64(1)) * piece_bytes, end[owner])
    return np.ascontiguousarray(np.stack((piece_begin, piece_end - piece_begin), axis=1))


def _raise_if_hopeless(error: OSError, pidfd: int) -> None:
    """Raise what no other range can do better; return where only this range failed."""
    if error.errno in (errno.EPERM, errno.EACCES):
        raise NotPermitted(
            "process_madvise: not permitted on this process",
            hint="needs CAP_SYS_NICE and CAP_SYS_PTRACE (root has them)",
        ) from error
    if error.errno == errno.ESRCH:
        raise TargetGone("process_madvise: the process is gone", hint="it exited, or has no memory") from error
    if error.errno == errno.ENOSYS:
        raise _not_supported() from error
    if error.errno == errno.EBADF:
        # Also the answer to WILLNEED on anonymous memory without swap; then the descriptor is good, and this passes.
        os.fstat(pidfd)
    if error.errno == errno.EFAULT:
        raise error


def _not_supported() -> NotSupported:
    return NotSupported("this kernel has no process_madvise", hint="Linux 5.10 or newer is needed")
