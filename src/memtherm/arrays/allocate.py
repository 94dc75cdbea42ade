"""Arrays on pages of their own: each page can be watched, and advised."""

import errno
import math
import mmap
import operator
from collections.abc import Iterable
from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import DTypeLike, NDArray

from memtherm.core.ranges import align_up
from memtherm.errors import InvalidInput, NotSupported
from memtherm.units import HUGE_PAGE_SIZE, PAGE_SIZE


class Block(mmap.mmap):
    """Memory of one array, and of nobody else; given back when the array and all its views are gone.

    Attributes:
        start: address of the array, a multiple of 2 MiB.
        end: one beyond its last byte.
        free_end: end of its last page, or of its last huge page: nobody uses what lies between.
    """

    start: int
    end: int
    free_end: int


def allocate(
    shape: SupportsIndex | Iterable[SupportsIndex], dtype: DTypeLike = np.float64, *, huge_pages: bool | None = None
) -> NDArray[Any]:
    """A new array of zeros, aligned to 2 MiB, on pages that it shares with nothing.

    So every page of it can be watched and advised, its last one too.  A page takes memory once it is touched.

    Args:
        huge_pages: True: the kernel is advised to use huge pages; False: not to; None: as the system does.

    Raises:
        InvalidInput: no element, a negative size, or a dtype of objects.
        NotSupported: huge pages on a kernel that has none.
        MemoryError: more than there is.

    Example:
        >>> table = memtherm.allocate((1_000_000, 64), "float32")
        >>> with memtherm.watch(table, name="embeddings") as watched:
        ...     print(watched.access_rate(by="row"))
    """
    kind, sizes = np.dtype(dtype), _checked_shape(shape)
    if kind.hasobject:
        raise InvalidInput(f"an array of {kind} holds references, and its objects lie elsewhere", hint="use numbers")
    nr_elements = math.prod(sizes)
    size_bytes = nr_elements * kind.itemsize
    if not size_bytes:
        raise InvalidInput(f"an array of shape {sizes} is empty", hint="each size is from 1 up")
    block = _map(align_up(size_bytes, HUGE_PAGE_SIZE if huge_pages else PAGE_SIZE), huge_pages=huge_pages)
    offset = block.start - _address(block)
    block.end = block.start + size_bytes
    return np.frombuffer(block, kind, count=nr_elements, offset=offset).reshape(sizes)


def _checked_shape(shape: SupportsIndex | Iterable[SupportsIndex]) -> tuple[int, ...]:
    try:
        sizes = tuple(operator.index(size) for size in (shape if isinstance(shape, Iterable) else (shape,)))
    except TypeError:
        raise InvalidInput(f"{shape!r} is no shape", hint="give a number, or a tuple of numbers") from None
    if any(size < 0 for size in sizes):
        raise InvalidInput(f"the shape {sizes} has a negative size", hint="each size is from 1 up")
    return sizes


def _map(length: int, *, huge_pages: bool | None) -> Block:
    try:
        # Longer than asked for: somewhere in it a multiple of 2 MiB must lie.  What is not touched takes no memory.
        block = Block(-1, length + HUGE_PAGE_SIZE - PAGE_SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (OSError, OverflowError, ValueError) as problem:
        raise MemoryError(f"{length} bytes cannot be had: {problem}") from None
    block.start = align_up(_address(block), HUGE_PAGE_SIZE)
    block.end = block.free_end = block.start + length
    if huge_pages is not None:
        advice = mmap.MADV_HUGEPAGE if huge_pages else mmap.MADV_NOHUGEPAGE
        try:
            block.madvise(advice, block.start - _address(block), length)
        except OSError as problem:
            if problem.errno != errno.EINVAL:
                raise
            if huge_pages:
                raise NotSupported("this kernel has no huge pages", hint="leave huge_pages out") from None
    return block


def _address(block: Block) -> int:
    return int(np.frombuffer(block, np.uint8, count=1).__array_interface__["data"][0])
