"""arm64 entries in words, as Linux writes them, and what the walk knows of an architecture."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memtherm.errors import NotSupported
from memtherm.linux.entry_format import ARM64, ARM64_BEFORE_6_10, X86_64, EntryFormat, arm64_format_by
from memtherm.linux.page_entries import Entries
from memtherm.linux.page_table import _page_offset_candidates
from memtherm.linux.walk_machine import _MACHINES, parse_physical_bits, walk_refusal

GIB = 1 << 30
VALID, TABLE, USER, READ_ONLY, INNER_SHAREABLE, ACCESSED, NOT_GLOBAL = 1, 2, 1 << 6, 1 << 7, 3 << 8, 1 << 10, 1 << 11
WRITE, CONTIGUOUS, PXN, UXN, DIRTY, SPECIAL = 1 << 51, 1 << 52, 1 << 53, 1 << 54, 1 << 55, 1 << 56
OLD_PROT_NONE, OLD_SPLITTING = 1 << 58, 1 << 59
ADDRESS = 0x1_2340_0000
USUAL = ADDRESS | USER | INNER_SHAREABLE | NOT_GLOBAL | PXN | UXN
PAGE, PMD, PUD = 1, 2, 3
PROPERTIES = (
    "present", "accessed", "dirty", "prot_none", "swapped", "empty", "failed",
    "huge", "huge_pmd", "huge_pud", "contiguous",
)  # fmt: skip
BOTH = (ARM64, ARM64_BEFORE_6_10)

# As Linux writes them: type 5, offset 0x12345.
SWAPPED = 5 << 6 | 0x12345 << 12
OLD_SWAPPED = 5 << 3 | 0x12345 << 8

CASES = {
    "an ordinary page": (
        USUAL | VALID | TABLE | ACCESSED | WRITE | DIRTY,
        PAGE,
        BOTH,
        {"present", "accessed", "dirty"},
    ),
    "a page written by way of the hardware": (
        USUAL | VALID | TABLE | ACCESSED | WRITE,
        PAGE,
        BOTH,
        {"present", "accessed", "dirty"},
    ),
    "a clean page that may be written": (USUAL | VALID | TABLE | WRITE | READ_ONLY, PAGE, BOTH, {"present"}),
    "a page that was not accessed": (USUAL | VALID | TABLE | READ_ONLY, PAGE, BOTH, {"present"}),
    "one of a contiguous group": (
        USUAL | VALID | TABLE | READ_ONLY | CONTIGUOUS | ACCESSED,
        PAGE,
        BOTH,
        {"present", "accessed", "contiguous"},
    ),
    "a PROT_NONE page": (
        USUAL | TABLE | READ_ONLY | ACCESSED,
        PAGE,
        (ARM64,),
        {"present", "accessed", "prot_none"},
    ),
    "a PROT_NONE page before 6.10": (
        USUAL | TABLE | READ_ONLY | ACCESSED | OLD_PROT_NONE,
        PAGE,
        (ARM64_BEFORE_6_10,),
        {"present", "accessed", "prot_none"},
    ),
    "a swap entry": (SWAPPED, PAGE, (ARM64,), {"swapped"}),
    "a swap entry of a page that was write-protected by userfaultfd": (SWAPPED | 1 << 3, PAGE, (ARM64,), {"swapped"}),
    # Bit 11 is of the offset there.
    "a swap entry before 6.10": (OLD_SWAPPED | 1 << 11 | ACCESSED, PAGE, (ARM64_BEFORE_6_10,), {"swapped"}),
    "a migration entry with its age": (SWAPPED | 1 << 52 | 1 << 53, PMD, (ARM64,), {"swapped"}),
    "nothing in the last table": (0, PAGE, BOTH, {"empty"}),
    "no last table": (0, PMD, BOTH, {"empty"}),
    "a hole in the top table": (0, 5, BOTH, {"empty"}),
    "a 2 MiB block": (USUAL | VALID | ACCESSED, PMD, BOTH, {"present", "accessed", "huge", "huge_pmd"}),
    "a PROT_NONE 2 MiB block": (USUAL | READ_ONLY, PMD, (ARM64,), {"present", "prot_none", "huge", "huge_pmd"}),
    "a PROT_NONE 2 MiB block before 6.10": (
        USUAL | READ_ONLY | OLD_PROT_NONE,
        PMD,
        (ARM64_BEFORE_6_10,),
        {"present", "prot_none", "huge", "huge_pmd"},
    ),
    "a 2 MiB block being split before 6.10": (
        USUAL | READ_ONLY | OLD_SPLITTING,
        PMD,
        (ARM64_BEFORE_6_10,),
        {"present", "prot_none", "huge", "huge_pmd"},
    ),
    "one of 16 blocks of a 32 MiB page": (
        USUAL | VALID | READ_ONLY | CONTIGUOUS,
        PMD,
        BOTH,
        {"present", "huge", "huge_pmd", "contiguous"},
    ),
    "a 1 GiB block": (USUAL | VALID | WRITE, PUD, BOTH, {"present", "dirty", "huge", "huge_pud"}),
    "not read": (0, 0, BOTH, {"failed"}),
}


def entries(format_: EntryFormat, *pairs: tuple[int, int]) -> Entries:
    return Entries(
        entry=np.array([entry for entry, _ in pairs], dtype=np.uint64),
        level=np.array([level for _, level in pairs], dtype=np.uint8),
        generation=0,
        format=format_,
    )


@pytest.mark.parametrize("case", CASES)
def test_arm64_entry_is_told_from_all_others(case: str) -> None:
    entry, level, formats, expected = CASES[case]
    for one_format in formats:
        one = entries(one_format, (entry, level))
        assert {name for name in PROPERTIES if getattr(one, name)[0]} == expected


@given(st.integers(0, 2**64 - 1), st.integers(0, 5), st.sampled_from([X86_64, *BOTH]))
def test_entry_is_in_exactly_one_state(entry: int, level: int, format_: EntryFormat) -> None:
    one = entries(format_, (entry, level))
    assert sum(bool(getattr(one, state)[0]) for state in ("present", "swapped", "empty", "failed")) == 1
    for more in ("accessed", "dirty", "prot_none", "huge_pmd", "huge_pud", "huge", "contiguous"):
        assert one.present[0] >= getattr(one, more)[0]


def test_a_contiguous_group_is_accessed_as_one_and_so_large() -> None:
    page, block = USUAL | VALID | TABLE, USUAL | VALID
    some = entries(ARM64, (page, PAGE), (page | CONTIGUOUS, PAGE), (block, PMD), (block | CONTIGUOUS, PMD), (0, PAGE))
    assert some.page_bytes.tolist() == [4096, 64 << 10, 2 << 20, 32 << 20, 0]
    # On x86-64 the bit is one of software's.
    assert entries(X86_64, (page | CONTIGUOUS, PAGE)).page_bytes.tolist() == [4096]


def test_the_format_is_found_by_an_entry_without_access() -> None:
    assert arm64_format_by(CASES["a PROT_NONE page"][0]) is ARM64
    assert arm64_format_by(CASES["a PROT_NONE page before 6.10"][0]) is ARM64_BEFORE_6_10
    assert arm64_format_by(CASES["an ordinary page"][0]) is None
    assert arm64_format_by(ADDRESS) is None


def test_physical_bits() -> None:
    assert parse_physical_bits("model : x\naddress sizes\t: 46 bits physical, 57 bits virtual\n") == 46
    with pytest.raises(NotSupported):
        parse_physical_bits("model : x\n")


def test_levels_by_where_the_kernel_is() -> None:
    x86_64, arm64 = (_MACHINES[name].levels for name in ("x86_64", "aarch64"))
    assert x86_64(0xFFFF_9A80_0123_4000) == (4, 5)
    assert x86_64(0xFF11_0001_0123_4000) == (5, 4)
    assert arm64(0xFFFF_FF80_0123_4000) == (3,)
    assert arm64(0xFFFF_0000_C123_4000) == (4, 5)
    assert arm64(0xFFF0_0000_C123_4000) == (5,)


@pytest.mark.parametrize(
    ("top_table", "end_of_linear_map"),
    [(0xFFFF_0000_C123_4000, 0xFFFF_8000_0000_0000), (0xFFFF_FF80_0123_4000, 0xFFFF_FFC0_0000_0000)],
)
def test_no_guess_leads_behind_the_linear_map(top_table: int, end_of_linear_map: int) -> None:
    highest = _MACHINES["aarch64"].highest_page_offset
    assert highest(top_table, 3 * GIB) == top_table
    assert highest(end_of_linear_map - 4096, 3 * GIB) == end_of_linear_map - 3 * GIB
    # A tag of memory tagging is no part of the address.
    assert highest(top_table & ~(0xFF << 56) | 0xF3 << 56, 3 * GIB) == top_table


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 200), st.integers(1, 40)), min_size=1, max_size=5), st.data())
def test_candidates_are_all_that_have_the_table_in_memory(ram: list[tuple[int, int]], data: st.DataObject) -> None:
    half = GIB // 2
    ranges = [(start * half, (start + length) * half) for start, length in ram]
    start, end = data.draw(st.sampled_from(ranges))
    physical = data.draw(st.integers(start, end - 1)) // 4096 * 4096
    offset = data.draw(st.integers(1 << 30, 1 << 33)) * GIB
    found = list(_page_offset_candidates(offset + physical, ranges, offset + physical))
    assert offset in found
    assert found == sorted(set(found), reverse=True)
    all_there_are = range((offset + physical) // GIB * GIB, offset - 121 * GIB, -GIB)
    assert found == [one for one in all_there_are if any(low <= offset + physical - one < high for low, high in ranges)]


def test_what_the_walk_is_made_for() -> None:
    assert walk_refusal("x86_64", 4096) == walk_refusal("aarch64", 4096) == ""
    assert "not made for this architecture: it knows x86-64 and arm64, not riscv64" in walk_refusal("riscv64", 4096)
    assert "4 KiB only, and this aarch64 kernel has pages of 64 KiB" in walk_refusal("aarch64", 65536)
