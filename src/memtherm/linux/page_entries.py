"""What the page-table walk returns: its memory layout, and entries in words.

Pure numpy.  The layouts mirror bpf/walk.h; tests/bpf/test_layout.py compares them with the BTF of the object.
"""

import enum
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memtherm.linux.entry_format import X86_64, EntryFormat
from memtherm.units import HUGE_PAGE_SIZE, PAGE_SIZE

PAGES_PER_UNIT = HUGE_PAGE_SIZE // PAGE_SIZE

ADDRESS_CAPACITY = 4096
RANGE_CAPACITY = 1024
UNIT_CAPACITY = 4096

_BITMAP_WORDS = PAGES_PER_UNIT // 64


class WalkStatus(enum.IntEnum):
    """enum walk_status."""

    NO_TASK = 0
    DONE = 1
    NO_MEMORY = 2
    KERNEL_THREAD = 3
    CHANGED = 4
    OTHER_PROCESS = 5


class UnitKind(enum.IntEnum):
    """enum unit_kind: what the 512 pages of a unit are."""

    PTE_TABLE = 1
    PMD_LEAF = 2
    PUD_LEAF = 3


REQUEST = np.dtype(
    [
        ("page_offset", "<u8"),
        ("physical_mask", "<u8"),
        ("physical_limit", "<u8"),
        ("expected_start_ns", "<u8"),
        ("cursor_address", "<u8"),
        ("cursor_range", "<u4"),
        ("levels", "<u4"),
        ("count", "<u4"),
        ("prot_none_shift", "<u4"),
    ]
)
RESPONSE = np.dtype(
    [
        ("start_ns", "<u8"),
        ("mm", "<u8"),
        ("exec_id", "<u8"),
        ("pgd", "<u8"),
        ("failed_reads", "<u8"),
        ("refused_reads", "<u8"),
        ("moved_tables", "<u8"),
        ("cursor_address", "<u8"),
        ("cursor_range", "<u4"),
        ("unit_count", "<u4"),
        ("table_reads", "<u4"),
        ("status", "<u4"),
    ]
)
RANGE = np.dtype([("start", "<u8"), ("end", "<u8")])
UNIT = np.dtype(
    [
        ("address", "<u8"),
        ("kind", "<u4"),
        ("unused", "<u4"),
        ("present", "<u8", (_BITMAP_WORDS,)),
        ("accessed", "<u8", (_BITMAP_WORDS,)),
    ]
)
SCRATCH = np.dtype(
    [
        ("pmd_base", "<u8"),
        ("pmd_physical", "<u8"),
        ("mask", "<u8", (_BITMAP_WORDS,)),
        ("pmd_table", "<u8", (PAGES_PER_UNIT,)),
        ("pte_table", "<u8", (PAGES_PER_UNIT,)),
    ]
)
SHARED = np.dtype(
    [
        ("request", REQUEST),
        ("response", RESPONSE),
        ("addresses", "<u8", (ADDRESS_CAPACITY,)),
        ("entries", "<u8", (ADDRESS_CAPACITY,)),
        ("entry_levels", "<u1", (ADDRESS_CAPACITY,)),
        ("ranges", RANGE, (RANGE_CAPACITY,)),
        ("units", UNIT, (UNIT_CAPACITY,)),
        ("scratch", SCRATCH),
    ]
)

_LEVEL_PTE, _LEVEL_PMD, _LEVEL_PUD = 1, 2, 3
_SIZE_AT_LEVEL = np.array([0, PAGE_SIZE, HUGE_PAGE_SIZE, 1 << 30, 0, 0], dtype=np.uint64)
_GROUP_ENTRIES = np.uint64(16)


@dataclass(frozen=True, kw_only=True)
class Entries:
    """The page-table entry of each address asked for, in the order of the question.

    Attributes:
        entry: uint64[n], the last entry on the way down, as it stands in the table; one of a contiguous group with
            the accessed and dirty bits of all 16.
        level: uint8[n], where it stands: 1 PTE, 2 PMD, 3 PUD, 4 P4D (top of a 4-level table), 5 PGD;
            0: it could not be read.
        generation: `TargetWalk.generation` of the address space that was read.

        format: what the bits of `entry` mean.

    The properties are bool[n].  Each address with `level` > 0 is exactly one of present, swapped, empty.
    """

    entry: NDArray[np.uint64]
    level: NDArray[np.uint8]
    generation: int
    format: EntryFormat = X86_64

    @property
    def failed(self) -> NDArray[np.bool_]:
        """Nothing is known: a table could not be read."""
        return self._at(0)

    @property
    def huge_pmd(self) -> NDArray[np.bool_]:
        """Mapped by a 2 MiB page (also while the kernel splits it: then it is not valid)."""
        return self._at(_LEVEL_PMD) & self.format.is_leaf(self.entry)

    @property
    def huge_pud(self) -> NDArray[np.bool_]:
        """Mapped by a 1 GiB page."""
        return self._at(_LEVEL_PUD) & self.format.is_leaf(self.entry)

    @property
    def huge(self) -> NDArray[np.bool_]:
        return (self._at(_LEVEL_PMD) | self._at(_LEVEL_PUD)) & self.format.is_leaf(self.entry)

    @property
    def present(self) -> NDArray[np.bool_]:
        """Memory stands behind it, readable or (after mprotect, or for NUMA balancing) PROT_NONE."""
        return (self._at(_LEVEL_PTE) & self.format.is_present(self.entry)) | self.huge

    @property
    def accessed(self) -> NDArray[np.bool_]:
        return self.present & self.format.is_accessed(self.entry)

    @property
    def dirty(self) -> NDArray[np.bool_]:
        """Written since it was last cleaned."""
        return self.present & self.format.is_dirty(self.entry)

    @property
    def prot_none(self) -> NDArray[np.bool_]:
        prot_none = self.format.is_present(self.entry) & self.format.is_invalid(self.entry)
        return self.present & prot_none

    @property
    def contiguous(self) -> NDArray[np.bool_]:
        """One of 16 entries that map neighbouring memory and are accessed as one (arm64 alone has such)."""
        return self.present & self.format.is_contiguous(self.entry)

    @property
    def swapped(self) -> NDArray[np.bool_]:
        """Not present, but the entry holds something: swapped out, or for a moment under migration."""
        return self.entry.astype(np.bool_) & ~self.present & ~self.failed

    @property
    def empty(self) -> NDArray[np.bool_]:
        return ~self.entry.astype(np.bool_) & ~self.failed

    def _at(self, level: int) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = self.level == level
        return found

    @property
    def page_bytes(self) -> NDArray[np.uint64]:
        """uint64[n]: size of what is accessed as one there, a page or a contiguous group; 0 where none is present."""
        size = _SIZE_AT_LEVEL[self.level] * self.present
        return np.where(self.contiguous, size * _GROUP_ENTRIES, size)


@dataclass(frozen=True, kw_only=True)
class Units:
    """The present and accessed bits of ranges, in units of 2 MiB; units without a present page are left out.

    Bits outside of the ranges are 0; of a contiguous group (arm64) all accessed bits are set, or none.
    Addresses ascend; one comes again where several ranges share its 2 MiB.

    Attributes:
        rows: structured array[n] with the fields of `UNIT`; the properties below are views of it.
        generation: `TargetWalk.generation` of the address space that was read.
        failed_reads: tables that could not be read: their pages are missing here.
        table_reads: page tables that were read: the cost of the walk.
    """

    rows: NDArray[np.void]
    generation: int
    failed_reads: int
    table_reads: int

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def address(self) -> NDArray[np.uint64]:
        """uint64[n], multiples of 2 MiB."""
        return self.rows["address"]

    @property
    def kind(self) -> NDArray[np.uint32]:
        """uint32[n] of `UnitKind`."""
        return self.rows["kind"]

    @property
    def present(self) -> NDArray[np.uint64]:
        """uint64[n, 8]: bit j of word i is page 64 i + j of the unit.  A huge page sets all its bits."""
        return self.rows["present"]

    @property
    def accessed(self) -> NDArray[np.uint64]:
        """uint64[n, 8], as `present`, and only where present."""
        return self.rows["accessed"]

    def present_pages(self) -> NDArray[np.uint64]:
        """Sorted addresses of all present 4 KiB pages."""
        return _page_addresses(self.address, self.present)

    def accessed_pages(self) -> NDArray[np.uint64]:
        """Sorted addresses of all accessed 4 KiB pages; an accessed huge page gives its 512."""
        return _page_addresses(self.address, self.accessed)

    @property
    def present_bytes(self) -> int:
        return int(np.bitwise_count(self.present).sum(dtype=np.uint64)) * PAGE_SIZE

    @property
    def accessed_bytes(self) -> int:
        return int(np.bitwise_count(self.accessed).sum(dtype=np.uint64)) * PAGE_SIZE


def _page_addresses(address: NDArray[np.uint64], bitmaps: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Addresses of the set bits: sorted, for units ascend, and of one 2 MiB the earlier range comes first."""
    bits = np.unpackbits(np.ascontiguousarray(bitmaps).view(np.uint8), bitorder="little")
    pages = np.flatnonzero(bits).astype(np.uint64)
    pages *= np.uint64(PAGE_SIZE)
    # What to add to a page's place among the bits: `pages` counts as if unit followed unit without a gap.
    shift = address - np.arange(len(address), dtype=np.uint64) * np.uint64(HUGE_PAGE_SIZE)
    pages += np.repeat(shift, np.bitwise_count(bitmaps).sum(axis=1, dtype=np.int64))
    return pages
