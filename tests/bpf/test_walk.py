"""The walk against the truth: children touch known pages, and /proc/PID/pagemap is the second witness."""

import mmap
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bpf.witness import mappings, page_addresses, pagemap, present_pages, swapped_pages
from memtherm.errors import InvalidInput
from memtherm.linux.page_entries import UnitKind
from memtherm.linux.page_table import PageTableWalker, TargetWalk
from support.children import (
    ANONYMOUS,
    HUGE_PAGE_SIZE,
    MADV_DONTNEED,
    MADV_HUGEPAGE,
    MADV_NOHUGEPAGE,
    MAP_NORESERVE,
    PAGE_SIZE,
    READ_WRITE,
    SHARED,
    Child,
)
from support.requires import require
from support.swap import swap_on

MADV_PAGEOUT = 21
PROT_NONE = 0
MIB, TIB = 1 << 20, 1 << 40
PAGE = np.uint64(PAGE_SIZE)

# Another watcher of this host, such as the kernel's DAMON, may clear a bit between our write and our look.
NEARLY_ALL = 0.98


def small_pages(child: Child, length: int) -> int:
    address = child.map_aligned(length, flags=ANONYMOUS | MAP_NORESERVE)
    child.madvise(address, length, MADV_NOHUGEPAGE)
    return address


def test_finds_exactly_the_touched_pages(child: Child, target: TargetWalk) -> None:
    start = small_pages(child, 8 * MIB)
    end = start + 8 * MIB
    assert child.write(start, 2048, step=7) == 293
    touched = page_addresses(start, end)[::7]

    units = target.read_ranges([start], [end])
    assert units.present_pages().tolist() == touched.tolist() == present_pages(child.pid, start, end).tolist()
    assert set(units.accessed_pages().tolist()) <= set(touched.tolist())
    assert units.accessed_bytes >= NEARLY_ALL * 293 * PAGE_SIZE
    assert (units.kind == UnitKind.PTE_TABLE).all()
    assert (units.address.tolist(), units.failed_reads) == ([start + i * HUGE_PAGE_SIZE for i in range(4)], 0)

    entries = target.read_addresses(page_addresses(start, end))
    assert page_addresses(start, end)[entries.present].tolist() == touched.tolist()
    assert entries.accessed.sum() >= NEARLY_ALL * 293
    assert entries.dirty[::7].all()
    assert (entries.empty == ~entries.present).all()


@pytest.mark.parametrize("access", ["read", "write"])
def test_sees_what_is_accessed_after_clearing(child: Child, target: TargetWalk, access: str) -> None:
    start = small_pages(child, 8 * MIB)
    end = start + 8 * MIB
    child.write(start, 2048)
    Path(f"/proc/{child.pid}/clear_refs").write_text("1")
    # That leaves the TLB as it is, which would hide accesses; a change of protection flushes it.
    child.mprotect(start, 8 * MIB, PROT_NONE)
    child.mprotect(start, 8 * MIB, READ_WRITE)
    assert target.read_ranges([start], [end]).accessed_bytes == 0
    assert target.read_ranges([start], [end]).present_bytes == 8 * MIB
    assert getattr(child, access)(start + 3 * PAGE_SIZE, 1000, step=13) == 77
    expected = page_addresses(start + 3 * PAGE_SIZE, start + 1003 * PAGE_SIZE)[::13].tolist()
    seen = target.read_ranges([start], [end]).accessed_pages().tolist()
    assert set(seen) <= set(expected)
    assert len(seen) >= NEARLY_ALL * 77
    assert target.read_addresses(expected).accessed.sum() >= NEARLY_ALL * 77


def test_huge_pages(child: Child, target: TargetWalk) -> None:
    require("thp")
    start = child.map_aligned(8 * MIB)
    end = start + 8 * MIB
    child.madvise(start, 8 * MIB, MADV_HUGEPAGE)
    for index in (0, 2, 3):
        child.write(start + index * HUGE_PAGE_SIZE)
    units = target.read_ranges([start], [end])
    assert units.address.tolist() == [start + index * HUGE_PAGE_SIZE for index in (0, 2, 3)]
    assert (units.kind == UnitKind.PMD_LEAF).all()
    assert units.present_bytes == 6 * MIB
    assert units.accessed_bytes in (6 * MIB, 4 * MIB)
    assert units.present_pages().tolist() == present_pages(child.pid, start, end).tolist()

    entries = target.read_addresses([start + 5 * PAGE_SIZE, start + HUGE_PAGE_SIZE, end - 1])
    assert entries.huge_pmd.tolist() == entries.present.tolist() == [True, False, True]
    assert entries.page_bytes.tolist() == [HUGE_PAGE_SIZE, 0, HUGE_PAGE_SIZE]

    # Only the part of a huge page that was asked for.
    part = target.read_ranges([start + 3 * PAGE_SIZE], [start + 70 * PAGE_SIZE])
    assert part.present_pages().tolist() == page_addresses(start + 3 * PAGE_SIZE, start + 70 * PAGE_SIZE).tolist()


@pytest.mark.parametrize("huge", [False, True])
def test_unreadable_pages_are_still_present(child: Child, target: TargetWalk, huge: bool) -> None:
    if huge:
        require("thp")
    start = child.map_aligned(4 * MIB)
    child.madvise(start, 4 * MIB, MADV_HUGEPAGE if huge else MADV_NOHUGEPAGE)
    child.write(start, 1024)
    child.mprotect(start, 4 * MIB, PROT_NONE)
    units = target.read_ranges([start], [start + 4 * MIB])
    assert units.present_bytes == 4 * MIB
    assert (units.kind == (UnitKind.PMD_LEAF if huge else UnitKind.PTE_TABLE)).all()
    entries = target.read_addresses(page_addresses(start, start + 4 * MIB))
    assert entries.prot_none.all()
    assert entries.huge.all() == huge
    child.mprotect(start, 4 * MIB, READ_WRITE)
    assert not target.read_addresses(page_addresses(start, start + 4 * MIB)).prot_none.any()


def test_swapped_pages(child: Child, target: TargetWalk) -> None:
    require("root", "swap")
    start = small_pages(child, 4 * MIB)
    end = start + 4 * MIB
    child.write(start, 1024)
    with swap_on(64 * MIB):
        child.madvise(start + MIB, 2 * MIB, MADV_PAGEOUT)
        # The kernel leaves a page or two of these: it is the witness, and nothing moves between the two looks.
        out = swapped_pages(child.pid, start, end)
        assert 400 < len(out) <= 512
        entries = target.read_addresses(page_addresses(start, end))
        assert page_addresses(start, end)[entries.swapped].tolist() == out.tolist()
        assert not (entries.present & entries.swapped).any()
        assert not entries.accessed[entries.swapped].any()
        units = target.read_ranges([start], [end])
        assert units.present_pages().tolist() == present_pages(child.pid, start, end).tolist()
        child.read(start, 1024)
        assert not target.read_addresses(page_addresses(start, end)).swapped.any()


def test_pages_shared_by_fork_and_copied_at_a_write(walker: PageTableWalker, child: Child, target: TargetWalk) -> None:
    start = small_pages(child, 2 * MIB)
    everything = page_addresses(start, start + 2 * MIB)
    child.write(start, 512)
    forked = child.fork()
    child.write(start, 512, step=2)
    with walker.target(forked) as of_forked:
        own, others = target.read_addresses(everything), of_forked.read_addresses(everything)
        assert of_forked.read_ranges([start], [start + 2 * MIB]).present_bytes == 2 * MIB
    assert own.present.all()
    assert others.present.all()
    frame = np.uint64(((1 << 46) - 1) & -PAGE_SIZE)
    is_same = (own.entry & frame) == (others.entry & frame)
    words, others_words = pagemap(child.pid, start, start + 2 * MIB), pagemap(forked, start, start + 2 * MIB)
    assert is_same.tolist() == [False, True] * 256 == ((words ^ others_words) << np.uint64(9) == 0).tolist()
    child.reap(forked)


def test_holes(child: Child, target: TargetWalk) -> None:
    start = small_pages(child, 8 * MIB)
    end = start + 8 * MIB
    child.write(start, 2048)
    child.unmap(start + MIB, 3 * MIB + PAGE_SIZE)
    child.madvise(start + 6 * MIB, MIB, MADV_DONTNEED)
    units = target.read_ranges([start - 64 * MIB], [end + 64 * MIB])
    inside = units.present_pages()
    inside = inside[(inside >= start) & (inside < end)]
    expected = [
        *page_addresses(start, start + MIB),
        *page_addresses(start + 4 * MIB + PAGE_SIZE, start + 6 * MIB),
        *page_addresses(start + 7 * MIB, end),
    ]
    assert inside.tolist() == expected
    entries = target.read_addresses([start + MIB, start + 2 * MIB, start + 6 * MIB])
    assert entries.empty.all()


def test_memory_that_was_only_read_maps_the_zero_page(
    walker: PageTableWalker, child: Child, target: TargetWalk
) -> None:
    zero = np.uint64(walker.zero_page())
    start = small_pages(child, 2 * MIB)
    child.read(start, 256)
    child.write(start + MIB, 256)
    entries = target.read_addresses(page_addresses(start, start + 2 * MIB))
    assert entries.present.all()
    assert entries.accessed.sum() >= NEARLY_ALL * 512
    assert ((entries.entry & zero) == zero).tolist() == [True] * 256 + [False] * 256
    assert not entries.dirty[:256].any()
    assert target.read_ranges([start], [start + 2 * MIB]).present_bytes == 2 * MIB


def test_many_addresses_in_any_order(child: Child, target: TargetWalk) -> None:
    start = small_pages(child, 64 * MIB)
    end = start + 64 * MIB
    child.write(start, 16384, step=3)
    random = np.random.default_rng(1)
    pages = random.integers(-100, 16484, 5003).astype(np.int64)
    addresses = (start + pages * PAGE_SIZE + random.integers(0, PAGE_SIZE, 5003)).astype(np.uint64)
    entries = target.read_addresses(addresses)
    inside = (pages >= 0) & (pages < 16384)
    assert (entries.present[inside] == (pages[inside] % 3 == 0)).all()
    assert not entries.present[(pages < 0) & (addresses // PAGE * PAGE == start - PAGE_SIZE)].any()
    assert not entries.failed.any()
    assert len(target.read_addresses([]).entry) == 0
    assert present_pages(child.pid, start, end).size == 5462


def test_kernel_addresses_are_empty(target: TargetWalk) -> None:
    entries = target.read_addresses([0xFFFF_FFFF_FF60_0000, 0xFFFF_8880_0000_0000, 1 << 63, 0])
    assert entries.empty.all()
    units = target.read_ranges([0xFFFF_FFFF_FF60_0000], [0xFFFF_FFFF_FF60_1000])
    assert (len(units), units.failed_reads) == (0, 0)


def test_huge_sparse_mapping_costs_next_to_nothing(child: Child, target: TargetWalk) -> None:
    start = child.map(TIB, flags=ANONYMOUS | MAP_NORESERVE)
    assert len(target.read_ranges([start], [start + TIB])) == 0
    child.madvise(start, TIB, MADV_NOHUGEPAGE)
    pages = [start + offset // PAGE_SIZE * PAGE_SIZE for offset in (0, TIB // 7, TIB // 2, TIB - PAGE_SIZE)]
    for page in pages:
        child.write(page)
    units = target.read_ranges([start], [start + TIB])
    assert units.present_pages().tolist() == pages
    # For each page the table of its GiB and that of its 2 MiB.
    assert units.table_reads == 8


def test_more_units_than_one_call_takes(child: Child, target: TargetWalk) -> None:
    count = 5003
    start = small_pages(child, count * HUGE_PAGE_SIZE)
    child.write(start, count * 512, step=512)
    units = target.read_ranges([start], [start + count * HUGE_PAGE_SIZE])
    assert units.address.tolist() == units.present_pages().tolist()
    assert units.address.tolist() == [start + index * HUGE_PAGE_SIZE for index in range(count)]
    # The tables stay when the pages go: empty units, so that the cursor moves with nothing to show.
    child.madvise(start, count * HUGE_PAGE_SIZE, MADV_DONTNEED)
    units = target.read_ranges([start], [start + count * HUGE_PAGE_SIZE])
    assert (len(units), units.present_bytes, units.failed_reads) == (0, 0, 0)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 2048), min_size=2, max_size=24, unique=True))
def test_any_ranges_give_their_pages(child: Child, target: TargetWalk, borders: list[int]) -> None:
    start = _patterned_memory(child)
    borders = sorted(borders[: len(borders) // 2 * 2])
    starts, ends = (start + np.array(half) * PAGE_SIZE for half in (borders[::2], borders[1::2]))
    units = target.read_ranges(starts, ends)
    expected = np.concatenate(
        [present_pages(child.pid, int(first), int(last)) for first, last in zip(starts, ends, strict=True)]
    )
    assert units.present_pages().tolist() == expected.tolist()
    assert units.present_bytes == len(expected) * PAGE_SIZE


_patterned: dict[int, int] = {}


def _patterned_memory(child: Child) -> int:
    """8 MiB with pages here and there; the same for all examples of one test."""
    if child.pid not in _patterned:
        start = small_pages(child, 8 * MIB)
        child.write(start, 600, step=3)
        child.write(start + 700 * PAGE_SIZE, 100)
        child.write(start + 1500 * PAGE_SIZE, 548, step=5)
        _patterned.clear()
        _patterned[child.pid] = start
    return _patterned[child.pid]


def test_more_ranges_than_one_call_takes(child: Child, target: TargetWalk) -> None:
    start = _patterned_memory(child)
    starts = start + np.arange(0, 2048, dtype=np.uint64) * PAGE
    one_by_one = target.read_ranges(starts, starts + PAGE)
    at_once = target.read_ranges([start], [start + 8 * MIB])
    assert one_by_one.present_pages().tolist() == at_once.present_pages().tolist()
    assert len(one_by_one) == 200 + 100 + 110


def test_whole_process_is_as_its_pagemap_says(child: Child, target: TargetWalk, tmp_path: Path) -> None:
    shared = child.map(4 * MIB, flags=SHARED)
    child.write(shared, 1024, step=2)
    (tmp_path / "file").write_bytes(b"x" * MIB)
    child.read(child.map(MIB, flags=mmap.MAP_PRIVATE, protection=mmap.PROT_READ, path=str(tmp_path / "file")), 256)
    child.read(small_pages(child, MIB), 100)
    # The child waits for a command: nothing of it moves.  [vvar] has no pages that pagemap counts.
    all_mappings = [one for one in mappings(child.pid) if not one.name.startswith("[vvar")]
    units = target.read_ranges([one.start for one in all_mappings], [one.end for one in all_mappings])
    expected = np.concatenate([present_pages(child.pid, one.start, one.end) for one in all_mappings])
    assert len(expected) > 1000
    assert units.present_pages().tolist() == expected.tolist()
    entries = target.read_addresses(expected)
    assert entries.present.all()
    words = np.concatenate([pagemap(child.pid, int(page), int(page) + PAGE_SIZE) for page in expected[::17]])
    frames = entries.entry[::17] >> np.uint64(12) & np.uint64((1 << 28) - 1)
    small = ~entries.huge[::17]
    assert (frames[small] == (words[small] & np.uint64((1 << 28) - 1))).all()


@pytest.mark.parametrize(
    ("starts", "ends"),
    [([4096], []), ([1], [4096]), ([4096], [5000]), ([8192], [4096]), ([0, 4096], [8192, 12288]), ([[0]], [[4096]])],
)
def test_ranges_that_cannot_be_meant(target: TargetWalk, starts: list[int], ends: list[int]) -> None:
    with pytest.raises(InvalidInput):
        target.read_ranges(starts, ends)


def test_no_range_and_empty_ranges(target: TargetWalk) -> None:
    assert len(target.read_ranges([], [])) == 0
    assert target.read_ranges([4096, 8192], [4096, 8192]).present_pages().tolist() == []
