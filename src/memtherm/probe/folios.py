"""Which files the kernel keeps in large folios, so that pages of one folio are cleared together.

Facts (Linux 6.18, ext4, files written in pieces of 256 KiB, so in folios of 64 pages):
1. MADV_COLD on a part of a folio splits it, for good: 200 single pages left 1 of 64 folios whole.
2. A folio that cannot be split, such as a dirty one, it passes over without an error: of 200 single pages
   200 bits stayed set, so that idle memory looked hot.
3. Whole folios are cheap to clear: 220 ranges of 2 MiB took 2.6 ms, 500 single pages in them 11 ms.
   In a file of small pages a range of 2 MiB takes 40 µs, so this is done only where a folio was found.
"""

import random

import numpy as np

from memtherm.core.ranges import Addresses, Counts, Flags
from memtherm.errors import NotPermitted
from memtherm.linux.maps import MappingKind, Mappings
from memtherm.linux.page_flags import PageFlag, read_page_flags
from memtherm.linux.pagemap import Pagemap, frame_numbers
from memtherm.units import HUGE_PAGE_SIZE, PAGE_SIZE

# Pages that are looked at in each call, while there are files of which nothing is known.
_LOOKS = 2
# No folio of a file is larger, and each begins at a multiple of its size in its file.
_BLOCK = np.uint64(HUGE_PAGE_SIZE)


class LargeFolios:
    """Learns which files have large folios, and widens ranges in them.

    Call `update` before anything else, and at each change of the mappings.
    """

    def __init__(self, pagemap: Pagemap) -> None:
        self._pagemap = pagemap
        self._random = random.Random(PAGE_SIZE)
        self._known: set[tuple[int, int]] = set()
        self._may_look = True

    def update(self, mappings: Mappings) -> None:
        """Take these mappings from now on; what was learned of their files stays."""
        self._mappings = mappings
        self._is_file = (mappings.inodes > 0) & (mappings.kinds != MappingKind.SPECIAL)
        files = zip(mappings.devices.tolist(), mappings.inodes.tolist(), strict=True)
        self._is_large = np.array([file in self._known for file in files], np.bool_)

    def widen(self, start: Addresses, end: Addresses) -> tuple[Addresses, Addresses]:
        """Ranges, each inside of one mapping; those in files with large folios widened to hold whole ones.

        No two begin at the same address.  A folio that its mapping holds in part only stays cut.
        """
        row = np.searchsorted(self._mappings.starts, start, side="right") - 1
        inside = (row >= 0) & (start < self._mappings.ends[row])
        self._learn(start, row, inside & self._is_file[row] & ~self._is_large[row])
        wide = inside & self._is_large[row]
        if not wide.any():
            return start, end
        start, end = start.copy(), end.copy()
        first, last, offset = (
            column[row[wide]] for column in (self._mappings.starts, self._mappings.ends, self._mappings.offsets)
        )
        # Blocks of the file, not of the address space; unsigned arithmetic wraps, and comes back.
        shift = offset - first
        start[wide] = np.maximum((start[wide] + shift) // _BLOCK * _BLOCK - shift, first)
        end[wide] = np.minimum((end[wide] + shift + _BLOCK - np.uint64(1)) // _BLOCK * _BLOCK - shift, last)
        start, group = np.unique(start, return_inverse=True)
        widest = np.zeros_like(start)
        np.maximum.at(widest, group, end)
        return start, widest

    def _learn(self, start: Addresses, row: Counts, unknown: Flags) -> None:
        candidates = np.flatnonzero(unknown).tolist()
        if not candidates or not self._may_look:
            return
        looked_at = self._random.sample(candidates, min(_LOOKS, len(candidates)))
        entries = [self._pagemap.read(one, one + PAGE_SIZE)[0] for one in start[looked_at].tolist()]
        try:
            flags = read_page_flags(frame_numbers(np.array(entries, np.uint64)))
        except NotPermitted:
            self._may_look = False
            return
        in_large = (flags & np.uint64(PageFlag.COMPOUND_HEAD | PageFlag.COMPOUND_TAIL)) != 0
        found = row[looked_at][in_large].tolist()
        if found:
            self._known |= {(int(self._mappings.devices[one]), int(self._mappings.inodes[one])) for one in found}
            self.update(self._mappings)
