"""The walk's own source on made-up page tables: every number of levels, arm64's groups, what no kernel here has."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bpf.native_walk import NativeWalk, Tables, build
from memtherm.linux.entry_format import ARM64, ARM64_BEFORE_6_10, X86_64, EntryFormat
from memtherm.linux.page_entries import UnitKind
from support.requires import require

PAGE, HUGE, GIB = 4096, 2 << 20, 1 << 30
BEHIND = 0x1234_5000  # an address; nothing there is ever read
CONTIGUOUS = 1 << 52


@dataclass(frozen=True)
class Kind:
    """An architecture with a number of levels, and its entries."""

    name: str
    format: EntryFormat
    options: tuple[str, ...]
    levels: int
    address_bits: int
    table: int
    page: int
    block: int
    prot_none: int
    accessed: int
    swapped: int

    def entry(self, state: str) -> int:
        kind, _, accessed = state.partition(" ")
        bits = {"page": self.page, "prot_none": self.prot_none, "swapped": self.swapped, "empty": 0}[kind]
        return bits | (self.accessed if accessed else 0)


def _x86_64(levels: int, address_bits: int) -> Kind:
    swapped = 0x3FFF << 45 | 0x2AA << 9
    page, block = BEHIND | 0x67 & ~0x20, BEHIND | 0xE7 & ~0x20
    return Kind(
        f"x86-64, {levels}", X86_64, (), levels, address_bits, 0x67, page, block, BEHIND | 1 << 8, 1 << 5, swapped
    )


def _arm64(levels: int, address_bits: int, *, is_new: bool = True) -> Kind:
    # Of user memory, not global, inner shareable, write-protected.
    page, block = BEHIND | 0xBC3 & ~0x400, BEHIND & -HUGE | 0xBC1 & ~0x400
    return Kind(
        f"arm64{'' if is_new else ' before 6.10'}, {levels}",
        ARM64 if is_new else ARM64_BEFORE_6_10,
        ("-DWALK_ARM64",),
        levels,
        address_bits,
        # PXN for all that is below, as Linux sets it.
        1 << 59 | 3,
        page,
        block,
        page & ~1 | (0 if is_new else 1 << 58),
        1 << 10,
        # Bits 10 and 11 are of the offset in a swap entry of the older kernels.
        5 << 6 | 0x3FF << 12 if is_new else 5 << 3 | 0x3FF << 8,
    )


KINDS = [
    _x86_64(4, 47),
    _x86_64(5, 56),
    _arm64(3, 39),
    _arm64(4, 48),
    _arm64(5, 52),
    _arm64(3, 39, is_new=False),
    _arm64(4, 48, is_new=False),
]
ARM64_KINDS = [kind for kind in KINDS if kind.options]
each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
each_arm64 = pytest.mark.parametrize("kind", ARM64_KINDS, ids=lambda kind: kind.name)
plainly = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, ...], Path]:
    require("cc")
    return {options: build(tmp_path_factory.mktemp("walk"), *options) for options in {kind.options for kind in KINDS}}


def walk_of(kind: Kind, libraries: dict[tuple[str, ...], Path]) -> NativeWalk:
    return NativeWalk(libraries[kind.options], kind.format)


def tables_of(kind: Kind) -> Tables:
    return Tables(levels=kind.levels, table_bits=kind.table)


STATES = ("page", "page accessed", "prot_none", "prot_none accessed", "swapped", "swapped accessed", "empty")
Pages = dict[int, str]


@each_kind
@plainly
@given(pages=st.dictionaries(st.integers(0, 1023), st.sampled_from(STATES), max_size=60), place=st.data())
def test_every_page_is_seen_as_it_is(
    kind: Kind, libraries: dict[tuple[str, ...], Path], pages: Pages, place: st.DataObject
) -> None:
    start = place.draw(st.integers(0, (1 << kind.address_bits) // HUGE - 2)) * HUGE
    tables, walk = tables_of(kind), walk_of(kind, libraries)
    for page, state in pages.items():
        tables.set(start + page * PAGE, kind.entry(state))
    present = [start + page * PAGE for page in sorted(pages) if pages[page].startswith(("page", "prot_none"))]
    accessed = [one for one in present if pages[(one - start) // PAGE].endswith("accessed")]

    units = walk.read_ranges(tables, (start, start + 2 * HUGE))
    assert units.failed_reads == 0
    assert units.present_pages().tolist() == present
    assert units.accessed_pages().tolist() == accessed

    addresses = start + np.arange(1024, dtype=np.uint64) * np.uint64(PAGE)
    entries = walk.read_addresses(tables, addresses)
    assert addresses[entries.present].tolist() == present
    assert addresses[entries.accessed].tolist() == accessed
    swapped = [start + page * PAGE for page in sorted(pages) if pages[page].startswith("swapped")]
    assert addresses[entries.swapped].tolist() == swapped
    # A part of it, cut anywhere.
    cut = place.draw(st.integers(0, 1024))
    part = walk.read_ranges(tables, (start, start + cut * PAGE), (start + cut * PAGE, start + 2 * HUGE))
    assert part.present_pages().tolist() == present


@each_kind
def test_the_whole_address_space(kind: Kind, libraries: dict[tuple[str, ...], Path]) -> None:
    """A page at each end and in the middle, with holes as large as there are."""
    end = 1 << kind.address_bits
    pages = [0, PAGE, end // 2 - PAGE, end // 2, end // 2 + 3 * GIB, end - PAGE]
    tables, walk = tables_of(kind), walk_of(kind, libraries)
    for page in pages:
        tables.set(page, kind.entry("page accessed"))
    units = walk.read_ranges(tables, (0, end))
    assert (units.accessed_pages().tolist(), units.failed_reads) == (pages, 0)
    assert walk.read_addresses(tables, np.array(pages, np.uint64)).accessed.all()
    # Behind its end nothing is looked at, however the tables would go on.
    outside = np.array([end, end + PAGE, (1 << 64) - PAGE], np.uint64)
    assert walk.read_addresses(tables, outside).empty.all()
    assert len(walk.read_ranges(tables, (end, end + HUGE))) == 0


@each_kind
def test_blocks(kind: Kind, libraries: dict[tuple[str, ...], Path]) -> None:
    tables, walk = tables_of(kind), walk_of(kind, libraries)
    # 2 MiB accessed and not, an empty one, pages; and a block of 1 GiB behind.
    for at, accessed in ((0, kind.accessed), (1, 0)):
        tables.set(GIB + at * HUGE, kind.block | accessed, level=2)
    tables.set(GIB + 3 * HUGE, kind.entry("page"))
    tables.set(2 * GIB, kind.block | kind.accessed, level=3)
    units = walk.read_ranges(tables, (GIB, 2 * GIB + HUGE))
    expected = [UnitKind.PMD_LEAF, UnitKind.PMD_LEAF, UnitKind.PTE_TABLE, UnitKind.PUD_LEAF]
    assert units.kind.tolist() == expected
    assert (units.present_bytes, units.accessed_bytes) == (3 * HUGE + PAGE, 2 * HUGE)
    entries = walk.read_addresses(
        tables, GIB + np.array([5 * PAGE, HUGE, 2 * HUGE, 3 * HUGE, GIB + 7 * HUGE], np.uint64)
    )
    assert entries.huge_pmd.tolist() == [True, True, False, False, False]
    assert entries.huge_pud.tolist() == [False, False, False, False, True]
    assert entries.accessed.tolist() == [True, False, False, False, True]
    assert entries.empty.tolist() == [False, False, True, False, False]


@each_arm64
def test_a_block_that_is_not_valid(kind: Kind, libraries: dict[tuple[str, ...], Path]) -> None:
    tables, walk = tables_of(kind), walk_of(kind, libraries)
    tables.set(GIB, kind.prot_none & ~2 & ~0x1FF000 | kind.accessed, level=2)
    tables.set(GIB + HUGE, kind.swapped, level=2)  # under migration
    units = walk.read_ranges(tables, (GIB, 2 * GIB))
    assert (units.kind.tolist(), units.accessed_bytes, units.failed_reads) == ([UnitKind.PMD_LEAF], HUGE, 0)
    entries = walk.read_addresses(tables, np.array([GIB, GIB + HUGE], np.uint64))
    assert (entries.prot_none & entries.huge).tolist() == [True, False]
    assert entries.swapped.tolist() == [False, True]


@each_arm64
@plainly
@given(
    groups=st.dictionaries(st.integers(0, 31), st.sets(st.integers(0, 15), max_size=3), max_size=8),
    single=st.sets(st.integers(0, 511), max_size=20),
)
def test_a_contiguous_group_is_accessed_as_one(
    kind: Kind, libraries: dict[tuple[str, ...], Path], groups: dict[int, set[int]], single: set[int]
) -> None:
    """Groups of 16 with the bit in some of their entries, accessed single pages between them."""
    tables, walk = tables_of(kind), walk_of(kind, libraries)
    expected = {page for page in single if page // 16 not in groups}
    for page in expected:
        tables.set(GIB + page * PAGE, kind.entry("page accessed"))
    for group, accessed in groups.items():
        for member in range(16):
            bits = kind.accessed if member in accessed else 0
            tables.set(GIB + (group * 16 + member) * PAGE, kind.page | CONTIGUOUS | bits)
        expected |= set(range(group * 16, group * 16 + 16)) if accessed else set()
    units = walk.read_ranges(tables, (GIB, GIB + HUGE))
    assert ((units.accessed_pages() - np.uint64(GIB)) // np.uint64(PAGE)).tolist() == sorted(expected)
    entries = walk.read_addresses(tables, GIB + np.arange(512, dtype=np.uint64) * np.uint64(PAGE))
    assert np.flatnonzero(entries.accessed).tolist() == sorted(expected)
    assert set((np.flatnonzero(entries.contiguous) // 16).tolist()) == set(groups)
    # Asked for a part of a group, the group still speaks, but only that part is reported.
    part = walk.read_ranges(tables, (GIB + 5 * PAGE, GIB + 21 * PAGE))
    assert part.accessed_bytes == len(expected & set(range(5, 21))) * PAGE


@each_arm64
def test_a_group_is_written_by_either_way(kind: Kind, libraries: dict[tuple[str, ...], Path]) -> None:
    writable, read_only, linux_dirty = 1 << 51, 1 << 7, 1 << 55
    tables, walk = tables_of(kind), walk_of(kind, libraries)
    for group, of_the_ninth in enumerate((writable | read_only, writable, read_only | linux_dirty)):
        for member in range(16):
            bits = of_the_ninth if member == 9 else writable | read_only
            tables.set(GIB + (group * 16 + member) * PAGE, kind.page & ~read_only | CONTIGUOUS | bits)
    entries = walk.read_addresses(tables, GIB + np.arange(48, dtype=np.uint64) * np.uint64(PAGE))
    assert entries.dirty.tolist() == [False] * 16 + [True] * 32


@each_arm64
def test_a_group_of_blocks(kind: Kind, libraries: dict[tuple[str, ...], Path]) -> None:
    """hugetlb's 32 MiB."""
    tables, walk = tables_of(kind), walk_of(kind, libraries)
    for member in range(32):
        bits = kind.accessed if member == 21 else 0
        tables.set(GIB + member * HUGE, kind.block | CONTIGUOUS | bits, level=2)
    units = walk.read_ranges(tables, (GIB, GIB + 32 * HUGE))
    assert units.accessed_pages()[::512].tolist() == [GIB + member * HUGE for member in range(16, 32)]
    entries = walk.read_addresses(tables, GIB + np.arange(32, dtype=np.uint64) * np.uint64(HUGE))
    assert entries.accessed.tolist() == [False] * 16 + [True] * 16
    assert set(entries.page_bytes.tolist()) == {16 * HUGE}


@each_kind
def test_a_table_outside_of_memory_is_counted_and_its_pages_are_missing(
    kind: Kind, libraries: dict[tuple[str, ...], Path]
) -> None:
    tables, walk = tables_of(kind), walk_of(kind, libraries)
    tables.set(GIB, kind.entry("page"))
    tables.set(GIB + HUGE, 1 << 39 | kind.table, level=2)  # nothing can be read there
    tables.set(GIB + 2 * HUGE, 1 << 41 | kind.table, level=2)  # behind the end of RAM
    units = walk.read_ranges(tables, (GIB, 2 * GIB))
    assert (units.present_bytes, units.failed_reads) == (PAGE, 2)
    entries = walk.read_addresses(tables, GIB + np.array([0, HUGE, 2 * HUGE], np.uint64))
    assert entries.failed.tolist() == [False, True, True]
