"""How much of what is to be paged out finds room in swap."""

import numpy as np

from memtherm.act.pieces import Pieces
from memtherm.core.ranges import Addresses, Counts, Flags, sizes
from memtherm.linux.pagemap import PageCategory, Pagemap
from memtherm.linux.swap import SwapState


def within_swap(
    pieces: Pieces, *, is_memory_backed: Flags, pagemap: Pagemap, swap: SwapState
) -> tuple[Pieces, int, str]:
    """What can leave memory, in the order of addresses: what needs swap only as far as swap is free.

    A pageout for which there is no swap changes nothing, and reports success all the same (damon-spec §5.2).

    Args:
        is_memory_backed: for each mapping: its pages have no file on a disk, so all of them need swap.  In other
            mappings those do that were written to a private copy.

    Returns:
        the pieces left, the resident bytes that they leave out, and the reason.
    """
    start, end, piece = _needing_swap(pieces, is_memory_backed, pagemap)
    needed_bytes = np.cumsum(sizes(start, end))
    over = np.flatnonzero(needed_bytes > swap.free_bytes)
    if len(over) == 0:
        return pieces, 0, ""
    first = int(over[0])
    border = end[first] - np.uint64(needed_bytes[first] - swap.free_bytes)
    # Mappings that need swap are cut off whole: their holes would only be many more ranges for a call.
    whole = is_memory_backed[pieces.mapping] & (pieces.end > border)
    copied = (end > border) & ~whole[piece]
    out_start = np.maximum(np.concatenate((pieces.start[whole], start[copied])), border)
    out_end = np.concatenate((pieces.end[whole], end[copied]))
    order = np.argsort(out_start)
    left = pieces.without(out_start[order], out_end[order])
    reason = "not enough free swap for anonymous memory" if swap.total_bytes else "anonymous memory, and no swap"
    return left, int(needed_bytes[-1]) - swap.free_bytes, reason


def _needing_swap(pieces: Pieces, is_memory_backed: Flags, pagemap: Pagemap) -> tuple[Addresses, Addresses, Counts]:
    """Start, end and piece of the pages that leave memory for swap only."""
    runs = pagemap.scan(
        pieces.start, pieces.end, any_of=PageCategory.PRESENT, report=PageCategory.FILE | PageCategory.ZERO
    )
    start, end, run, piece = pieces.parts_of(runs.starts, runs.ends)
    is_file = (runs.categories[run] & np.uint64(PageCategory.FILE)) != 0
    is_zero = (runs.categories[run] & np.uint64(PageCategory.ZERO)) != 0
    needs = ~is_zero & (~is_file | is_memory_backed[pieces.mapping[piece]])
    return start[needs], end[needs], piece[needs]
