"""See accesses by a BPF walk of the target's page table, and clear them by MADV_COLD or clear_refs.

Facts (Linux 6.18, x86-64), and what they mean here:
1. Reading a thousand accessed bits takes 0.2 ms, clearing them by MADV_COLD 1.8 ms.  So bits are
   read first, and only those that are set are cleared: idle memory costs nothing.
2. MADV_COLD on 4 KiB of a 2 MiB page splits it.  So a huge page is cleared whole, and so are the
   large folios of files (folios.py) and arm64's contiguous groups of 64 KiB, whose accessed bits are one.
3. MADV_COLD passes over pages that several processes map, and refuses locked and hugetlb mappings.
   So bits are read again after clearing, and a few of those that are still set are looked at: one
   that is ours alone was accessed again at once, any other could not be cleared.
4. clear_refs clears everything, holding up the target's own mmap and faults for 10 to 20 ms per GiB,
   and flushes no TLB.  So it is used only where many pages cannot be cleared, and seldom.
"""

import random
import time

import numpy as np

from memtherm.core.ranges import Addresses, Counts, Flags
from memtherm.core.regions import Range
from memtherm.linux.advise import Advice, advise_process
from memtherm.linux.clear_refs import ClearKind, clear
from memtherm.linux.maps import read_maps, read_smaps
from memtherm.linux.page_entries import Entries
from memtherm.linux.page_table import PageTableWalker
from memtherm.linux.pagemap import Pagemap, is_exclusive
from memtherm.linux.process import Process
from memtherm.probe.folios import LargeFolios
from memtherm.probe.layout import three_ranges
from memtherm.probe.pace import shortest_interval_s
from memtherm.units import PAGE_SIZE

# Still-set bits that are looked at after each clearing; each look is a read of 8 bytes, about 1 µs.
_LOOKS = 16
# The share of unclearable pages is a mean over about this many of the latest clearings: 0.3 s at 5 ms.
_MEMORY = 64
# Above this share, of the pages looked at and then of all resident memory, single pages are no longer a
# fair picture of the target, and clear_refs is worth its cost.
_TOO_MANY_UNCLEAR = 0.25
# Looking at all of a target's memory takes 40 ms per GiB.
_SHARING_LOOK_INTERVAL_S = 60.0


class BpfProbe:
    """A Probe for one process; needs the capabilities that choose.py lists."""

    name = "bpf"
    grain = "page"

    def __init__(self, process: Process) -> None:
        """Raises HostCannot where the walk cannot be made, TargetGone where the process is not."""
        self._process = process
        walker = PageTableWalker.open()
        # First what /proc can refuse: of a process that is kept from us the walk says only that it is not there.
        self._mappings = read_maps(process)
        self._walk = walker.target(process.pid)
        self._zero_page = np.uint64(walker.zero_page())
        self._pagemap = Pagemap(process)
        self._folios = LargeFolios(self._pagemap)
        self._folios.update(self._mappings)
        # Mappings on which MADV_COLD fails, such as locked ones; learned anew at each look at the mappings.
        self._refusing = np.zeros(len(self._mappings), np.bool_)
        self._random = random.Random(process.pid)
        self._clear_refs_cost_s = 0.0
        self._next_sharing_look_s = 0.0
        self.clearing = "cold"
        self.unclear_share = 0.0
        self.min_sampling_interval_s = 0.0

    @property
    def generation(self) -> int:
        """How often the target has replaced its memory by exec."""
        return self._walk.generation

    def ranges(self) -> list[Range]:
        """DAMON's three ranges around the two largest gaps."""
        self._mappings = read_maps(self._process)
        self._folios.update(self._mappings)
        self._refusing = np.zeros(len(self._mappings), np.bool_)
        return three_ranges(self._mappings, pid=self._process.pid)

    def clear(self, addresses: Addresses) -> None:
        """Clear the accessed bits of the pages of these addresses, in any order."""
        if self.clearing == "clear_refs":
            self._clear_everything()
            return
        entries = self._walk.read_addresses(addresses)
        is_set = self._accessed(entries)
        can_be_tried = ~entries.huge_pud[is_set] & ~self._in_refusing_mapping(addresses[is_set])
        pages, page_bytes = addresses[is_set][can_be_tried], entries.page_bytes[is_set][can_be_tried]
        unclear = float(int(is_set.sum()) - len(pages))
        if len(pages):
            start, end = self._folios.widen(*_whole_pages(pages, page_bytes))
            self._note_refusing(advise_process(self._process, start, end, Advice.COLD).failed_starts)
            unclear += self._count_unclear(pages)
        self._note_unclear(unclear / max(1, int(entries.present.sum())))

    def read(self, addresses: Addresses) -> Flags:
        """Which of these pages were accessed since they were cleared."""
        return self._accessed(self._walk.read_addresses(addresses))

    def close(self) -> None:
        self._walk.close()
        self._pagemap.close()

    def _accessed(self, entries: Entries) -> Flags:
        # Memory that was only ever read maps the kernel's one zero page: it holds nothing, and nothing clears its bit.
        is_zero_page = (entries.entry & self._zero_page) == self._zero_page
        accessed: Flags = entries.accessed & ~is_zero_page
        return accessed

    def _mapping_of(self, addresses: Addresses) -> tuple[Counts, Flags]:
        """For each address the row of its mapping, and whether there is one."""
        row = np.searchsorted(self._mappings.starts, addresses, side="right") - 1
        inside = (row >= 0) & (addresses < self._mappings.ends[row])
        return row, inside

    def _in_refusing_mapping(self, addresses: Addresses) -> Flags:
        if not self._refusing.any():
            return np.zeros(len(addresses), np.bool_)
        row, inside = self._mapping_of(addresses)
        return inside & self._refusing[row]

    def _note_refusing(self, refused: Addresses) -> None:
        if len(refused) and len(self._mappings):
            row, inside = self._mapping_of(refused)
            self._refusing[row[inside]] = True

    def _count_unclear(self, pages: Addresses) -> float:
        """How many of the pages that should be clear now could not be cleared, estimated from a few."""
        still_set = pages[self._walk.read_addresses(pages).accessed]
        if len(still_set) == 0:
            return 0.0
        few = self._random.sample(range(len(still_set)), min(_LOOKS, len(still_set)))
        looked_at = still_set[few]
        refusing = self._in_refusing_mapping(looked_at)
        unclear = sum(
            is_refusing or not is_exclusive(self._pagemap.read(address, address + PAGE_SIZE))[0]
            for address, is_refusing in zip(looked_at.tolist(), refusing.tolist(), strict=True)
        )
        return float(len(still_set) * unclear / len(few))

    def _note_unclear(self, share: float) -> None:
        self.unclear_share += (share - self.unclear_share) / _MEMORY
        if self.unclear_share > _TOO_MANY_UNCLEAR and time.monotonic() >= self._next_sharing_look_s:
            self._next_sharing_look_s = time.monotonic() + _SHARING_LOOK_INTERVAL_S
            if _shared_share(self._process) > _TOO_MANY_UNCLEAR:
                self._clear_everything()
                self.clearing = "clear_refs"
                self.unclear_share = 0.0

    def _clear_everything(self) -> None:
        began_s = time.monotonic()
        clear(self._process, ClearKind.ALL)
        cost_s = time.monotonic() - began_s
        self._clear_refs_cost_s += (cost_s - self._clear_refs_cost_s) / (4 if self._clear_refs_cost_s else 1)
        self.min_sampling_interval_s = shortest_interval_s(self._clear_refs_cost_s)


def _shared_share(process: Process) -> float:
    """Share of the target's resident memory that MADV_COLD cannot clear: shared with others, or locked."""
    mappings = read_smaps(process)
    unclear_bytes = int(np.maximum(mappings.shared_bytes, mappings.locked_bytes).sum())
    return unclear_bytes / max(1, int(mappings.rss_bytes.sum()))


def _whole_pages(pages: Addresses, page_bytes: Addresses) -> tuple[Addresses, Addresses]:
    """The pages that hold these addresses, each once, in order, and whole where they are larger than 4 KiB."""
    start, first = np.unique(pages // page_bytes * page_bytes, return_index=True)
    return start, start + page_bytes[first]
