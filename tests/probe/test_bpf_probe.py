"""The bpf probe on memory of every kind: huge, locked, shared after fork, empty, closed, of a file."""

import mmap
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from memtherm.core.ranges import Addresses
from memtherm.linux.advise import Advice, AdviseResult, advise_process
from memtherm.linux.page_flags import PageFlag, read_page_flags
from memtherm.linux.pagemap import Pagemap, frame_numbers
from memtherm.linux.process import Process, open_process
from memtherm.probe import bpf
from memtherm.probe.bpf import BpfProbe
from probe.stages import write_settled
from support.children import ANONYMOUS, HUGE_PAGE_SIZE, MADV_HUGEPAGE, MADV_NOHUGEPAGE, PAGE_SIZE, Child
from support.requires import require

MIB = 1 << 20
PROT_NONE = 0


@pytest.fixture
def child() -> Iterator[Child]:
    require("root", "bpf", "process_madvise")
    with Child() as one:
        yield one


@pytest.fixture
def process(child: Child) -> Iterator[Process]:
    with open_process(child.pid) as one:
        yield one


def pages_at(start: int, length: int) -> Addresses:
    return np.arange(start, start + length, PAGE_SIZE, dtype=np.uint64)


def small_pages(child: Child, length: int) -> int:
    start = child.map_aligned(length)
    child.madvise(start, length, MADV_NOHUGEPAGE)
    write_settled(child, start, length // PAGE_SIZE)
    return start


def smaps_bytes(child: Child, start: int, field: str) -> int:
    lines = Path(f"/proc/{child.pid}/smaps").read_text().splitlines()
    row = next(number for number, line in enumerate(lines) if line.startswith(f"{start:x}-"))
    return next(int(line.split()[1]) * 1024 for line in lines[row:] if line.startswith(f"{field}:"))


def test_one_hot_page_is_seen_each_time_and_its_neighbours_never(child: Child, process: Process) -> None:
    start = small_pages(child, 64 * PAGE_SIZE)
    probe, hot = BpfProbe(process), 31
    asked = pages_at(start, 64 * PAGE_SIZE)
    for _ in range(30):
        probe.clear(asked)
        child.read(start + hot * PAGE_SIZE)
        np.testing.assert_array_equal(np.flatnonzero(probe.read(asked)), [hot])


def test_a_hot_page_that_never_leaves_the_tlb_is_seen(child: Child, process: Process) -> None:
    start = small_pages(child, 64 * PAGE_SIZE)
    probe, hot = BpfProbe(process), np.array([start + 31 * PAGE_SIZE], np.uint64)
    child.keep_touching([(start + 31 * PAGE_SIZE, 1, 1)])
    probe.clear(hot)
    deadline = time.monotonic() + 10
    while not probe.read(hot)[0]:
        assert time.monotonic() < deadline
    assert child.stop_touching() > 0


def test_huge_pages_are_seen_whole_and_stay_whole(child: Child, process: Process) -> None:
    require("thp")
    start = child.map_aligned(8 * HUGE_PAGE_SIZE)
    child.madvise(start, 8 * HUGE_PAGE_SIZE, MADV_HUGEPAGE)
    child.write(start, 8 * 512, step=512)
    assert smaps_bytes(child, start, "AnonHugePages") == 8 * HUGE_PAGE_SIZE
    probe, random = BpfProbe(process), np.random.default_rng(1)
    for _ in range(20):
        # A page anywhere in each huge page, as the sampler draws them.
        pages = np.arange(8) * 512 + random.integers(512, size=8)
        asked = start + pages.astype(np.uint64) * np.uint64(PAGE_SIZE)
        probe.clear(asked)
        assert not probe.read(asked).any()
        child.read(start + 3 * HUGE_PAGE_SIZE + 77 * PAGE_SIZE)
        np.testing.assert_array_equal(np.flatnonzero(probe.read(asked)), [3])
    assert smaps_bytes(child, start, "AnonHugePages") == 8 * HUGE_PAGE_SIZE
    assert probe.unclear_share < 0.01


class CountedAdvice:
    """Stands before the system call and notes the ranges that it was asked for."""

    def __init__(self) -> None:
        self.starts: list[int] = []

    def __call__(self, process: Process, starts: Addresses, ends: Addresses, advice: Advice) -> AdviseResult:
        self.starts += starts.tolist()
        return advise_process(process, starts, ends, advice)


def test_a_mapping_that_refuses_is_asked_once(child: Child, process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    locked = small_pages(child, 32 * PAGE_SIZE)
    free = small_pages(child, 32 * PAGE_SIZE)
    child.mlock(locked, 32 * PAGE_SIZE)
    counted = CountedAdvice()
    monkeypatch.setattr(bpf, "advise_process", counted)
    probe = BpfProbe(process)
    # One page of each mapping a look, as the sampler draws them.
    for index in range(32):
        probe.clear(np.array([locked, free], np.uint64) + np.uint64(index * PAGE_SIZE))
    assert sum(locked <= start < locked + 32 * PAGE_SIZE for start in counted.starts) == 1
    assert sum(free <= start < free + 32 * PAGE_SIZE for start in counted.starts) == 32
    assert 0.1 < probe.unclear_share < 0.5
    assert probe.clearing == "cold", "most memory of the child can be cleared"
    # What cannot be cleared counts as accessed: a scheme for cold memory leaves it alone.
    assert probe.read(np.array([locked], np.uint64))[0]
    probe.ranges()
    probe.clear(np.array([locked], np.uint64))
    assert sum(locked <= start < locked + 32 * PAGE_SIZE for start in counted.starts) == 2


def test_memory_shared_after_a_fork_is_cleared_by_clear_refs(child: Child, process: Process) -> None:
    start = small_pages(child, 64 * MIB)
    probe, random = BpfProbe(process), np.random.default_rng(1)
    grandchild = child.fork()
    assert probe.min_sampling_interval_s == 0
    for _ in range(60):
        probe.clear(start + random.integers(64 * MIB // PAGE_SIZE, size=50).astype(np.uint64) * np.uint64(PAGE_SIZE))
    assert probe.clearing == "clear_refs"
    assert probe.min_sampling_interval_s >= 0.1
    asked = pages_at(start, 64 * MIB)
    probe.clear(asked)
    assert not probe.read(asked).any()
    child.read(start + MIB, 64)
    np.testing.assert_array_equal(asked[probe.read(asked)], pages_at(start + MIB, 64 * PAGE_SIZE))
    child.reap(grandchild)


def test_a_few_shared_pages_are_told_and_change_nothing_else(child: Child, process: Process) -> None:
    start = small_pages(child, 16 * MIB)
    grandchild = child.fork()
    write_settled(child, start, 16 * MIB // PAGE_SIZE)  # copies of its own again
    shared = small_pages(child, 16 * PAGE_SIZE)
    probe = BpfProbe(process)
    for _ in range(20):
        probe.clear(pages_at(start, MIB))
        assert not probe.read(pages_at(start, MIB)).any()
    assert probe.unclear_share < 0.01
    assert probe.clearing == "cold"
    assert shared
    child.reap(grandchild)


def test_the_zero_page_is_no_access(child: Child, process: Process) -> None:
    start = child.map_aligned(64 * PAGE_SIZE)
    child.madvise(start, 64 * PAGE_SIZE, MADV_NOHUGEPAGE)
    child.read(start, 64)
    probe, asked = BpfProbe(process), pages_at(start, 64 * PAGE_SIZE)
    for _ in range(20):
        probe.clear(asked)
        assert not probe.read(asked).any()
    assert probe.unclear_share == 0
    child.write(start + 5 * PAGE_SIZE)
    np.testing.assert_array_equal(np.flatnonzero(probe.read(asked)), [5])


def test_closed_memory_is_cleared_too(child: Child, process: Process) -> None:
    start = small_pages(child, 64 * PAGE_SIZE)
    child.mprotect(start, 64 * PAGE_SIZE, PROT_NONE)
    probe, asked = BpfProbe(process), pages_at(start, 64 * PAGE_SIZE)
    assert probe.read(asked).all()
    probe.clear(asked)
    assert not probe.read(asked).any()
    child.mprotect(start, 64 * PAGE_SIZE, mmap.PROT_READ)
    child.read(start + 9 * PAGE_SIZE)
    np.testing.assert_array_equal(np.flatnonzero(probe.read(asked)), [9])


def compound_pages(child: Child, start: int, pages: int) -> int:
    """Pages that are part of a large folio."""
    with open_process(child.pid) as process, Pagemap(process) as pagemap:
        flags = read_page_flags(frame_numbers(pagemap.read(start, start + pages * PAGE_SIZE)))
    return int(((flags & np.uint64(PageFlag.COMPOUND_HEAD | PageFlag.COMPOUND_TAIL)) != 0).sum())


@pytest.fixture
def folder() -> Iterator[Path]:
    # Not the default folder for temporary files: that may be a tmpfs, which is no file in the sense of reclaim.
    with tempfile.TemporaryDirectory(prefix="memtherm-test-", dir="/var/tmp") as path:
        yield Path(path)


@pytest.mark.parametrize("is_clean", [False, True])
@pytest.mark.parametrize("flags", [mmap.MAP_SHARED, mmap.MAP_PRIVATE])
def test_a_file_whose_pages_are_kept_together(
    child: Child, process: Process, folder: Path, flags: int, is_clean: bool
) -> None:
    with (folder / "data").open("wb", buffering=0) as file:
        for _ in range(16):
            file.write(bytes(64 * PAGE_SIZE))  # with large folios 64 pages are one
        if is_clean:
            os.fsync(file)
    # From the second page on, so that blocks of the file are none of the address space.
    start = child.map(1024 * PAGE_SIZE, flags=flags, protection=mmap.PROT_READ, path=str(folder / "data"))
    child.unmap(start, PAGE_SIZE)
    start += PAGE_SIZE
    child.read(start, 1023)
    inner = start + 63 * PAGE_SIZE  # without the folio that was cut
    compound_before = compound_pages(child, inner, 960)
    probe, random = BpfProbe(process), np.random.default_rng(1)
    asked = pages_at(inner, 960 * PAGE_SIZE)
    for _ in range(10):
        some = random.permutation(asked)[:40]
        probe.clear(some)
        assert not probe.read(some).any()
        child.read(int(some[0]))
        np.testing.assert_array_equal(np.flatnonzero(probe.read(some)), [0])
    assert probe.unclear_share < 0.01
    assert compound_pages(child, inner, 960) == compound_before, "watching has split large folios"


def test_memory_that_goes_while_it_is_watched(child: Child, process: Process) -> None:
    start = small_pages(child, 64 * PAGE_SIZE)
    probe, asked = BpfProbe(process), pages_at(start, 64 * PAGE_SIZE)
    probe.clear(asked)
    child.unmap(start, 32 * PAGE_SIZE)
    child.read(start + 32 * PAGE_SIZE, 32)
    seen = probe.read(asked)
    assert not seen[:32].any()
    assert seen[32:].all()
    probe.clear(asked)
    assert not probe.read(asked).any()
    child.map(32 * PAGE_SIZE, flags=ANONYMOUS, at=start)
    child.write(start, 1)
    assert probe.read(asked)[0]
