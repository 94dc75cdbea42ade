"""Which ranges of an address space a page-grained probe watches."""

from memtherm.core.ranges import join_adjacent
from memtherm.core.regions import Range, three_regions
from memtherm.errors import InvalidInput, TargetGone
from memtherm.linux.maps import Mappings
from memtherm.units import PAGE_SIZE


def three_ranges(mappings: Mappings, *, pid: int) -> list[Range]:
    """DAMON's three ranges around the two largest gaps; the mappings themselves where there are fewer gaps.

    Raises:
        TargetGone: there is no mapping: the process has exited.
    """
    if len(mappings) == 0:
        raise TargetGone(f"pid {pid} has exited")
    try:
        return three_regions(mappings.starts, mappings.ends, page_bytes=PAGE_SIZE)
    except InvalidInput:
        start, end = join_adjacent(mappings.starts, mappings.ends)
        return list(zip(start.tolist(), end.tolist(), strict=True))
