"""How much of what is to be paged out finds room in swap."""

import math

import numpy as np

from memtherm.act.pieces import Pieces
from memtherm.core.ranges import Addresses, Counts, Flags, align_up, sizes
from memtherm.linux.pagemap import PageCategory, Pagemap
from memtherm.linux.swap import SwapState, read_swap
from memtherm.units import PAGE_SIZE


def within_swap(
    pieces: Pieces, *, is_memory_backed: Flags, pagemap: Pagemap, swap: SwapState, min_free_swap: float = 0.0
) -> tuple[Pieces, int, str]:
    """What can leave memory, in the order of addresses: what needs swap only as far as swap is free.

    A pageout for which there is no swap changes nothing, and reports success all the same (damon-spec §5.2).

    Args:
        is_memory_backed: for each mapping: its pages have no file on a disk, so all of them need swap.  In other
            mappings those do that were written to a private copy.
        min_free_swap: share of all swap that stays free.

    Returns:
        the pieces left, the resident bytes that they leave out, and the reason.
    """
    room_bytes = max(0, swap.free_bytes - reserve_bytes(swap, min_free_swap))
    start, end, piece = needing_swap(pieces, is_memory_backed, pagemap)
    needed_bytes = np.cumsum(sizes(start, end))
    over = np.flatnonzero(needed_bytes > room_bytes)
    if len(over) == 0:
        return pieces, 0, ""
    first = int(over[0])
    border = end[first] - np.uint64(needed_bytes[first] - room_bytes)
    # Mappings that need swap are cut off whole: their holes would only be many more ranges for a call.
    whole = is_memory_backed[pieces.mapping] & (pieces.end > border)
    copied = (end > border) & ~whole[piece]
    out_start = np.maximum(np.concatenate((pieces.start[whole], start[copied])), border)
    out_end = np.concatenate((pieces.end[whole], end[copied]))
    order = np.argsort(out_start)
    left = pieces.without(out_start[order], out_end[order])
    reason = "not enough free swap for anonymous memory" if swap.total_bytes else "anonymous memory, and no swap"
    return left, int(needed_bytes[-1]) - room_bytes, reason


def reserve_bytes(swap: SwapState, min_free_swap: float) -> int:
    """How much swap stays free: whole pages of a share of it all."""
    return align_up(math.ceil(swap.total_bytes * min_free_swap), PAGE_SIZE)


def is_swap_full(min_free_swap: float) -> bool:
    """Whether no more may go to swap now; without any swap there is none that could be full."""
    swap = read_swap()
    return swap.total_bytes > 0 and swap.free_bytes <= reserve_bytes(swap, min_free_swap)


def needing_swap(pieces: Pieces, is_memory_backed: Flags, pagemap: Pagemap) -> tuple[Addresses, Addresses, Counts]:
    """Start, end and piece of the pages that leave memory for swap only."""
    runs = pagemap.scan(
        pieces.start, pieces.end, any_of=PageCategory.PRESENT, report=PageCategory.FILE | PageCategory.ZERO
    )
    start, end, run, piece = pieces.parts_of(runs.starts, runs.ends)
    is_file = (runs.categories[run] & np.uint64(PageCategory.FILE)) != 0
    is_zero = (runs.categories[run] & np.uint64(PageCategory.ZERO)) != 0
    needs = ~is_zero & (~is_file | is_memory_backed[pieces.mapping[piece]])
    return start[needs], end[needs], piece[needs]
