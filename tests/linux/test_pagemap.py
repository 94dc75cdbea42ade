"""pagemap by both ways, against smaps and against each other."""

import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from memtherm.errors import InvalidInput, NotPermitted, TargetGone
from memtherm.linux import pagemap as pagemap_module
from memtherm.linux.advise import Advice, advise
from memtherm.linux.maps import read_maps, read_smaps
from memtherm.linux.pagemap import (
    IN_MEMORY_OR_SWAP,
    PageCategory,
    Pagemap,
    PageRuns,
    frame_numbers,
    is_exclusive,
    is_file,
    is_present,
    is_soft_dirty,
    is_swapped,
)
from memtherm.linux.process import Process, open_process
from support.children import ANONYMOUS, MADV_HUGEPAGE, MAP_NORESERVE, SHARED, Child, memory_child, on_one_processor
from support.privileges import run_as_nobody
from support.requires import require
from support.swap import swap_on

PAGE = 4096
MIB = 1 << 20
KNOWN_TO_BOTH = IN_MEMORY_OR_SWAP | PageCategory.FILE


@pytest.fixture
def child() -> Iterator[Child]:
    with on_one_processor(), memory_child() as fresh:
        yield fresh


@pytest.fixture
def process(child: Child) -> Iterator[Process]:
    with open_process(child.pid) as opened:
        yield opened


@pytest.fixture(params=["scan", "fallback"])
def pagemap(request: pytest.FixtureRequest, process: Process, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pagemap]:
    """The same questions to both ways."""
    if request.param == "scan":
        require("pagemap_scan")
    else:
        monkeypatch.setenv("MEMTHERM_WITHOUT", "pagemap_scan")
    with Pagemap(process) as opened:
        assert opened.uses_scan == (request.param == "scan")
        yield opened


def test_bits_of_an_entry() -> None:
    bits = (63, 62, 61, 56, 55)
    entries = np.array([1 << bit for bit in bits], np.uint64)
    questions = (is_present, is_swapped, is_file, is_exclusive, is_soft_dirty)
    for index, question in enumerate(questions):
        assert question(entries).tolist() == [position == index for position in range(5)]
    frames = np.array([1 << 63 | (1 << 55) - 1, 1 << 62 | 12345, 1 << 63 | 7], np.uint64)
    assert frame_numbers(frames).tolist() == [(1 << 55) - 1, 0, 7]


def test_counts_of_touched_pages(child: Child, pagemap: Pagemap) -> None:
    address = child.map_aligned(16 * MIB)
    child.write(address, 4096, step=3)
    counts = pagemap.count([address], [address + 16 * MIB])
    assert counts.present_bytes == 1366 * PAGE
    assert counts.swapped_bytes == counts.file_bytes == 0
    assert counts.huge_bytes == counts.zero_bytes == (0 if pagemap.uses_scan else None)


def test_runs_of_touched_pages(child: Child, pagemap: Pagemap) -> None:
    address = child.map_aligned(16 * MIB)
    for first, length in ((0, 5), (100, 1), (4000, 96)):
        child.write(address + first * PAGE, length)
    runs = pagemap.scan([address], [address + 16 * MIB])
    assert ((runs.starts - np.uint64(address)) // np.uint64(PAGE)).tolist() == [0, 100, 4000]
    assert ((runs.ends - runs.starts) // np.uint64(PAGE)).tolist() == [5, 1, 96]
    assert runs.categories.tolist() == [PageCategory.PRESENT] * 3


def test_counts_agree_with_smaps(child: Child, process: Process, pagemap: Pagemap) -> None:
    child.write(child.map_aligned(8 * MIB), 2048, step=5)
    child.write(child.map(4 * MIB, flags=SHARED), 300)
    details = read_smaps(process)
    checked = 0
    for index in np.flatnonzero(details.rss_bytes).tolist():
        if details.mappings.names[index].startswith("[v"):
            continue  # pages of the kernel, which Rss leaves out
        counts = pagemap.count(details.mappings.starts[index], details.mappings.ends[index])
        if counts.zero_bytes is None:
            assert counts.present_bytes >= details.rss_bytes[index], details.mappings.names[index]
        else:
            assert counts.present_bytes - counts.zero_bytes == details.rss_bytes[index], details.mappings.names[index]
        assert counts.file_bytes == details.rss_bytes[index] - details.anonymous_bytes[index]
        checked += 1
    assert checked > 5


def test_the_whole_process_in_one_question(process: Process, pagemap: Pagemap) -> None:
    mappings = read_maps(process)
    one_by_one = sum(
        pagemap.count(start, end).present_bytes for start, end in zip(mappings.starts, mappings.ends, strict=True)
    )
    assert pagemap.count(mappings.starts, mappings.ends).present_bytes == one_by_one > MIB


def test_three_thousand_single_pages(child: Child, pagemap: Pagemap) -> None:
    address = child.map_aligned(32 * MIB)
    child.write(address, 6000)
    starts = np.uint64(address) + np.arange(0, 6000, 2, dtype=np.uint64) * np.uint64(PAGE)
    assert pagemap.count(starts, starts + np.uint64(PAGE)).present_bytes == 3000 * PAGE
    runs = pagemap.scan(starts, starts + np.uint64(PAGE))
    np.testing.assert_array_equal(runs.starts, starts)
    np.testing.assert_array_equal(runs.ends, starts + np.uint64(PAGE))


def test_more_runs_than_one_call_takes(child: Child, pagemap: Pagemap) -> None:
    address = child.map_aligned(160 * MIB)
    child.write(address, 40960, step=2)
    runs = pagemap.scan([address], [address + 160 * MIB])
    np.testing.assert_array_equal(
        runs.starts, np.uint64(address) + np.arange(0, 40960, 2, dtype=np.uint64) * np.uint64(PAGE)
    )
    assert runs.bytes_with(PageCategory.PRESENT) == 20480 * PAGE


def test_both_ways_see_the_same(child: Child, process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    require("pagemap_scan")
    random = np.random.default_rng(7)
    address = child.map_aligned(32 * MIB)
    for page in random.integers(0, 8000, 300).tolist():
        child.write(address + page * PAGE, int(random.integers(1, 20)))
    shared = child.map(MIB, flags=SHARED)
    child.write(shared, 256, step=3)
    mappings = read_maps(process)
    with Pagemap(process) as scanning:
        monkeypatch.setenv("MEMTHERM_WITHOUT", "pagemap_scan")
        with Pagemap(process) as reading:
            assert scanning.uses_scan
            assert not reading.uses_scan
            for any_of in (IN_MEMORY_OR_SWAP, PageCategory.FILE):
                first = scanning.scan(mappings.starts, mappings.ends, any_of=any_of, report=KNOWN_TO_BOTH)
                second = reading.scan(mappings.starts, mappings.ends, any_of=any_of, report=KNOWN_TO_BOTH)
                assert bits_of_pages(first) == bits_of_pages(second)


def bits_of_pages(runs: PageRuns) -> dict[int, int]:
    return {
        page: category
        for start, end, category in zip(runs.starts.tolist(), runs.ends.tolist(), runs.categories.tolist(), strict=True)
        for page in range(start, end, PAGE)
    }


def test_huge_and_zero_pages(child: Child, process: Process) -> None:
    require("pagemap_scan", "thp")
    address = child.map_aligned(8 * MIB)
    child.madvise(address, 4 * MIB, MADV_HUGEPAGE)
    child.write(address, 1)
    child.read(address + 4 * MIB, 10)
    with Pagemap(process) as pagemap:
        counts = pagemap.count([address], [address + 8 * MIB])
    assert counts.huge_bytes == 2 * MIB
    assert counts.zero_bytes == 10 * PAGE
    assert counts.present_bytes == 2 * MIB + 10 * PAGE


def test_swapped_pages(child: Child, process: Process, pagemap: Pagemap) -> None:
    require("swap", "process_madvise")
    with swap_on(64 * MIB):
        address = child.map_aligned(8 * MIB)
        child.fill(address, 8 * MIB)
        advise(process.pidfd, [address + MIB], [address + 3 * MIB], Advice.PAGEOUT)
        counts = pagemap.count([address], [address + 8 * MIB])
        assert counts.swapped_bytes == 2 * MIB == process.swap_bytes()
        assert counts.present_bytes == 6 * MIB
        runs = pagemap.scan([address], [address + 8 * MIB], any_of=PageCategory.SWAPPED)
        assert runs.starts.tolist() == [address + MIB]
        assert runs.ends.tolist() == [address + 3 * MIB]
        assert is_swapped(pagemap.read(address, address + 8 * MIB)).sum() == 512
        child.end()


def test_single_pages_in_any_order(child: Child, pagemap: Pagemap) -> None:
    address = child.map_aligned(MIB)
    child.write(address, 256, step=3)
    order = np.random.default_rng(5).permutation(np.arange(256, dtype=np.uint64).repeat(2))
    entries = pagemap.read_pages(np.uint64(address + 17) + order * np.uint64(PAGE))
    assert is_present(entries).tolist() == (order % np.uint64(3) == 0).tolist()
    assert len(pagemap.read_pages(order[:0])) == 0
    child.kill()
    with pytest.raises(TargetGone):
        pagemap.read_pages(order)


def test_an_exec_is_a_new_generation(child: Child, process: Process, pagemap: Pagemap) -> None:
    page = np.array([child.map_aligned(MIB)], np.uint64)
    pagemap.read_pages(page)
    assert pagemap.generation == 0
    child.exec("/bin/sleep", "60")
    while process.stat().name != "sleep":
        pass
    assert pagemap.read_pages(page).tolist() == [0]
    assert pagemap.generation == 1


def test_raw_entries(child: Child, pagemap: Pagemap) -> None:
    require("root")
    address = child.map_aligned(4 * MIB)
    child.write(address, 1024, step=2)
    entries = pagemap.read(address, address + 4 * MIB)
    assert len(entries) == 1024
    assert is_present(entries).tolist() == [True, False] * 512
    assert np.all(frame_numbers(entries)[::2] > 0)
    assert len(np.unique(frame_numbers(entries)[::2])) == 512
    assert is_exclusive(entries)[::2].all()
    assert not is_file(entries).any()
    other = child.fork()
    assert not is_exclusive(pagemap.read(address, address + 4 * MIB)).any()
    child.reap(other)


def test_a_terabyte_that_nobody_touched_is_free_to_scan(child: Child, process: Process) -> None:
    require("pagemap_scan")
    address = child.map(1 << 40, flags=ANONYMOUS | MAP_NORESERVE)
    child.write(address + (1 << 39), 3)
    with Pagemap(process) as pagemap:
        assert pagemap.count([address], [address + (1 << 40)]).present_bytes >= 3 * PAGE


def test_no_ranges(pagemap: Pagemap) -> None:
    for starts in ([], [PAGE, PAGE]):
        assert pagemap.count(starts, starts).present_bytes == 0
        assert len(pagemap.scan(starts, starts).starts) == 0
    assert len(pagemap.read(PAGE, PAGE)) == 0


@pytest.mark.parametrize(
    ("starts", "ends"), [([1], [PAGE]), ([PAGE], [0]), ([PAGE, 0], [2 * PAGE, PAGE]), ([0, PAGE], [2 * PAGE, 3 * PAGE])]
)
def test_ranges_that_cannot_be_meant(pagemap: Pagemap, starts: list[int], ends: list[int]) -> None:
    with pytest.raises(InvalidInput) as caught:
        pagemap.count(starts, ends)
    assert caught.value.hint


def test_an_ended_process_is_gone(child: Child, process: Process, pagemap: Pagemap) -> None:
    address = child.map_aligned(MIB)
    child.kill()
    with pytest.raises(TargetGone):
        pagemap.count([address], [address + MIB])
    with pytest.raises(TargetGone):
        pagemap.read(address, address + MIB)
    with pytest.raises(TargetGone):
        Pagemap(process)


def test_the_process_is_followed_through_exec(child: Child, process: Process, pagemap: Pagemap) -> None:
    mappings = read_maps(process)
    assert pagemap.count(mappings.starts, mappings.ends).present_bytes
    child.exec("/bin/sleep", "60")
    while not any(name.endswith("/sleep") for name in mappings.names):
        mappings = read_maps(process)
    assert pagemap.count(mappings.starts, mappings.ends).present_bytes > 0


def test_nobody_may_look_into_a_process_of_root(process: Process) -> None:
    require("root")

    def ask() -> str:
        with pytest.raises(NotPermitted, match="pagemap") as caught:
            Pagemap(process)
        return caught.value.hint

    assert "CAP_SYS_PTRACE" in run_as_nobody(ask)


def test_without_privilege_frame_numbers_are_hidden_and_the_rest_is_not() -> None:
    require("root")

    def ask() -> tuple[int, int]:
        with open_process(os.getpid()) as process, Pagemap(process) as pagemap:
            memory = np.ones(2 * MIB, np.uint8)
            address = memory.ctypes.data // PAGE * PAGE + PAGE
            entries = pagemap.read(address, address + MIB)
            return int(is_present(entries).sum()), int(frame_numbers(entries).sum())

    assert run_as_nobody(ask) == (256, 0)


def test_closing_twice_is_harmless(process: Process) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    pagemap = Pagemap(process)
    pagemap.close()
    pagemap.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_scan_that_does_not_advance_ends(child: Child, process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    require("pagemap_scan")
    with Pagemap(process) as pagemap:
        # As if all records had been filled, with nothing.
        monkeypatch.setattr(fcntl, "ioctl", lambda *_: len(pagemap._records))
        pagemap._records[:] = 0
        with pytest.raises(OSError, match="PAGEMAP_SCAN stays at") as caught:
            pagemap.count([child.pid * PAGE], [child.pid * PAGE + PAGE])
    assert caught.value.errno == errno.EIO


_STEPS = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 6)), max_size=12)


def _columns(steps: list[tuple[int, int]]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    borders = np.cumsum(np.array(steps, np.uint64).ravel()) * np.uint64(PAGE)
    return borders[0::2], borders[1::2]


@settings(deadline=None)
@given(_STEPS, _STEPS)
def test_clipping_is_the_intersection(run_steps: list[tuple[int, int]], range_steps: list[tuple[int, int]]) -> None:
    run_starts, run_ends = _columns(run_steps)
    starts, ends = _columns(range_steps)
    categories = np.arange(len(run_starts), dtype=np.uint64)
    clipped = pagemap_module._clipped(PageRuns(run_starts, run_ends, categories), starts, ends)
    inside = {page for start, end in zip(starts, ends, strict=True) for page in range(int(start), int(end), PAGE)}
    whole = bits_of_pages(PageRuns(run_starts, run_ends, categories))
    assert bits_of_pages(clipped) == {page: bits for page, bits in whole.items() if page in inside}
    assert np.all(clipped.ends > clipped.starts)
