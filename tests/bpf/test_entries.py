"""Entries and bitmaps in words: pure arithmetic, by the x86-64 layout of page-table entries."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memtherm.linux.page_entries import UNIT, Entries, UnitKind, Units
from memtherm.units import HUGE_PAGE_SIZE, PAGE_SIZE

PRESENT, WRITABLE, ACCESSED, DIRTY, HUGE, PROT_NONE = 1 << 0, 1 << 1, 1 << 5, 1 << 6, 1 << 7, 1 << 8
NO_EXECUTE = 1 << 63
ADDRESS = 0x1234_5000
PAGE, PMD, PUD = 1, 2, 3
STATES = ("present", "swapped", "empty", "failed")

CASES = {
    "an ordinary page": (
        ADDRESS | PRESENT | WRITABLE | ACCESSED | DIRTY | NO_EXECUTE,
        PAGE,
        {"present", "accessed", "dirty"},
    ),
    "a page that was not accessed": (ADDRESS | PRESENT, PAGE, {"present"}),
    "a global page is not PROT_NONE": (ADDRESS | PRESENT | PROT_NONE, PAGE, {"present"}),
    "a PROT_NONE page": (ADDRESS | PROT_NONE | ACCESSED, PAGE, {"present", "accessed", "prot_none"}),
    "PAT is not huge": (ADDRESS | PRESENT | HUGE, PAGE, {"present"}),
    "a swap entry; its bits 5 and 6 mean something else": (0x7FFF_F000 << 32 | ACCESSED | DIRTY, PAGE, {"swapped"}),
    "nothing in the last table": (0, PAGE, {"empty"}),
    "no last table": (0, PMD, {"empty"}),
    "a hole of 1 GiB": (0, PUD, {"empty"}),
    "a hole in the top table": (0, 5, {"empty"}),
    "a 2 MiB page": (ADDRESS | PRESENT | HUGE | ACCESSED, PMD, {"present", "accessed", "huge", "huge_pmd"}),
    "a 2 MiB page being split": (ADDRESS | HUGE | DIRTY, PMD, {"present", "dirty", "huge", "huge_pmd"}),
    "a PROT_NONE 2 MiB page": (ADDRESS | HUGE | PROT_NONE, PMD, {"present", "prot_none", "huge", "huge_pmd"}),
    "a 2 MiB page under migration": (0x3FFF_F000 << 32 | 2, PMD, {"swapped"}),
    "a 1 GiB page": (ADDRESS | PRESENT | HUGE | DIRTY, PUD, {"present", "dirty", "huge", "huge_pud"}),
    "not read": (0, 0, {"failed"}),
}
PROPERTIES = ("present", "accessed", "dirty", "prot_none", "swapped", "empty", "failed", "huge", "huge_pmd", "huge_pud")


def entries(*pairs: tuple[int, int]) -> Entries:
    return Entries(
        entry=np.array([entry for entry, _ in pairs], dtype=np.uint64),
        level=np.array([level for _, level in pairs], dtype=np.uint8),
        generation=0,
    )


@pytest.mark.parametrize("case", CASES)
def test_entry_is_told_from_all_others(case: str) -> None:
    entry, level, expected = CASES[case]
    one = entries((entry, level))
    assert {name for name in PROPERTIES if getattr(one, name)[0]} == expected


@given(st.integers(0, 2**64 - 1), st.integers(0, 5))
def test_entry_is_in_exactly_one_state(entry: int, level: int) -> None:
    one = entries((entry, level))
    assert sum(bool(getattr(one, state)[0]) for state in STATES) == 1
    for more in ("accessed", "dirty", "prot_none", "huge_pmd", "huge_pud", "huge"):
        assert one.present[0] >= getattr(one, more)[0]


def test_page_sizes() -> None:
    some = entries((PRESENT, PAGE), (PRESENT | HUGE, PMD), (PRESENT | HUGE, PUD), (0, PMD), (0, 5), (0, 0))
    assert some.page_bytes.tolist() == [4096, 2 << 20, 1 << 30, 0, 0, 0]


def units(pages_by_unit: dict[int, tuple[set[int], set[int]]]) -> Units:
    rows = np.zeros(len(pages_by_unit), dtype=UNIT)
    for row, (unit, (present, accessed)) in zip(rows, sorted(pages_by_unit.items()), strict=True):
        row["address"], row["kind"] = unit * HUGE_PAGE_SIZE, UnitKind.PTE_TABLE
        for column, pages in (("present", present), ("accessed", accessed)):
            for page in pages:
                row[column][page // 64] |= np.uint64(1 << page % 64)
    return Units(rows=rows, generation=0, failed_reads=0, table_reads=len(rows))


pages_of_a_unit = st.sets(st.integers(0, 511), max_size=20)


@given(st.dictionaries(st.integers(0, 2**35 - 1), st.tuples(pages_of_a_unit, pages_of_a_unit), max_size=8))
def test_pages_come_back_in_order(content: dict[int, tuple[set[int], set[int]]]) -> None:
    some = units(content)
    for column, pages, size_bytes in (
        (0, some.present_pages(), some.present_bytes),
        (1, some.accessed_pages(), some.accessed_bytes),
    ):
        expected = sorted(
            unit * HUGE_PAGE_SIZE + page * PAGE_SIZE for unit, both in content.items() for page in both[column]
        )
        assert pages.dtype == np.uint64
        assert pages.tolist() == expected
        assert size_bytes == len(expected) * PAGE_SIZE


def test_no_unit_is_no_page() -> None:
    nothing = units({})
    assert (len(nothing), nothing.present_bytes, nothing.accessed_pages().tolist()) == (0, 0, [])
    assert nothing.present.shape == (0, 8)
