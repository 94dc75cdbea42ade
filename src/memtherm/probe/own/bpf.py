"""The census by the BPF walk (probe/bpf_census.py) on ranges of this process, where it has the capabilities."""

from collections.abc import Sequence

import numpy as np

from memtherm.core.census import PageBits
from memtherm.core.ranges import Addresses, intersect, join_adjacent
from memtherm.core.regions import Range
from memtherm.linux.clear_refs import ClearKind
from memtherm.probe.bpf_census import BpfCensusProbe
from memtherm.probe.own.hub import own_hub
from memtherm.probe.own.page_bits import limited, merged, no_bits, units_of, without
from memtherm.units import HUGE_PAGE_SIZE

_UNIT = np.uint64(HUGE_PAGE_SIZE)
# The CPU has to set a cleared bit again, and to walk the page table for that.  With 0.35 and with 0.6 µs (0.35 is
# what session/census_windows.py measured) a program that streams through 1 GiB was 1.0 % slower: no room under 1 %.
_TARGET_S_PER_PAGE = 0.9e-6


class OwnBpfCensusProbe(BpfCensusProbe):
    """A CensusProbe for ranges of this process, page by page.

    Attributes:
        grain: `page`.
        describe_changes: nothing: mappings stay as they are.
        target_s_per_page: what clearing a page costs the program at its next access.
    """

    grain = "page"
    target_s_per_page = _TARGET_S_PER_PAGE
    describe_changes: tuple[str, ...] = ()

    def __init__(self, ranges: Sequence[Range]) -> None:
        """Raises HostCannot where the walk cannot be made."""
        columns = np.array(ranges, np.uint64).reshape(-1, 2)
        self._start, self._end = join_adjacent(columns[:, 0], columns[:, 1])
        self._hub = own_hub()
        self._pending = no_bits()
        super().__init__(self._hub.process)
        self._hub.join(self)

    @property
    def clears(self) -> ClearKind:
        return ClearKind.ALL

    def ranges(self) -> list[Range]:
        """What of the ranges is mapped still."""
        super().ranges()
        start, end, _, _ = intersect(*join_adjacent(self._mappings.starts, self._mappings.ends), self._start, self._end)
        units = units_of(start, end)
        self._unit_start, self._unit_end = join_adjacent(units, units + _UNIT)
        return list(zip(start.tolist(), end.tolist(), strict=True))

    def look(self) -> PageBits:
        """The present and accessed bits of the pages of the ranges."""
        with self._hub.lock:
            bits = self._limited_look()
            return merged(bits, self._pending) if len(self._pending) else bits

    def swapped(self) -> Addresses:
        """The units of 2 MiB in which some memory is in swap."""
        units = super().swapped()
        low, _, _, _ = intersect(units, units + _UNIT, self._start, self._end)
        return np.unique(low // _UNIT * _UNIT)

    def clear(self, bits: PageBits) -> PageBits:
        """Clear these accessed bits.  Returns those that could not be cleared."""
        with self._hub.lock:
            self._pending = without(self._pending, bits)
            return super().clear(bits)

    def clear_everything(self, *, longest_stall_s: float) -> bool:
        """Never: the other memory of this process is nobody's to clear here.  What cannot be cleared stays stuck."""
        del longest_stall_s
        return False

    def collect(self) -> None:
        """Another watch is about to clear everything."""
        found = self._limited_look()
        self._pending = merged(found.take(np.flatnonzero(found.accessed.any(axis=1))), self._pending)

    def close(self) -> None:
        """May be called again, and in the child of a fork."""
        if self._hub is own_hub():
            self._hub.leave(self)
        super().close()

    def _limited_look(self) -> PageBits:
        return limited(self._read(self._unit_start, self._unit_end), self._start, self._end)
