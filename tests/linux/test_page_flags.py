"""Flags and control groups of physical pages, of a real process's memory."""

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from memtherm.errors import NotPermitted, NotSupported
from memtherm.linux import page_flags
from memtherm.linux.page_flags import PageFlag, head_frames, read_page_cgroups, read_page_flags
from memtherm.linux.pagemap import Pagemap, frame_numbers
from memtherm.linux.process import open_process
from support.cgroups import counts_memory, fresh_cgroup, join
from support.children import HUGE_PAGE_SIZE, MADV_HUGEPAGE, PAGE_SIZE, SHARED, Child, memory_child
from support.privileges import run_as_nobody
from support.requires import require


@pytest.fixture
def child() -> Iterator[Child]:
    require("root")
    with memory_child() as fresh:
        yield fresh


def _frames(child: Child, address: int, pages: int) -> NDArray[np.uint64]:
    with open_process(child.pid) as process, Pagemap(process) as pagemap:
        return frame_numbers(pagemap.read(address, address + pages * PAGE_SIZE))


def _all_have(flags: NDArray[np.uint64], flag: PageFlag) -> bool:
    return bool((flags & np.uint64(flag)).all())


def test_anonymous_shared_and_huge(child: Child) -> None:
    require("thp")
    small, shared, huge = child.map(8 * PAGE_SIZE), child.map(8 * PAGE_SIZE, flags=SHARED), child.map_aligned(2 << 20)
    child.madvise(huge, HUGE_PAGE_SIZE, MADV_HUGEPAGE)
    for address in (small, shared, huge):
        child.write(address, 8)
    flags = read_page_flags(_frames(child, small, 8))
    assert _all_have(flags, PageFlag.MMAP)
    assert _all_have(flags, PageFlag.ANON)
    assert not (flags & np.uint64(PageFlag.THP)).any()
    flags = read_page_flags(_frames(child, shared, 8))
    assert _all_have(flags, PageFlag.SWAPBACKED)
    assert not (flags & np.uint64(PageFlag.ANON)).any()
    frames = _frames(child, huge, 512)
    flags = read_page_flags(frames)
    assert _all_have(flags, PageFlag.THP)
    assert np.flatnonzero(flags & np.uint64(PageFlag.COMPOUND_HEAD)).tolist() == [0]
    assert (head_frames(frames) == frames[0]).all()


def test_frames_in_any_order_and_beyond_the_last(child: Child) -> None:
    address = child.map(64 * PAGE_SIZE)
    child.write(address, 64)
    frames = _frames(child, address, 64)
    order = np.random.default_rng(4).permutation(np.tile(np.arange(64), 3))
    single = np.concatenate([read_page_flags(frames[i : i + 1]) for i in order])
    together = read_page_flags(frames[order])
    # Of the reclaim's own bits some may change meanwhile.
    stable = np.uint64(PageFlag.ANON | PageFlag.MMAP | PageFlag.SWAPBACKED | PageFlag.THP)
    assert (single & stable == together & stable).all()
    beyond = np.array([frames[0], 1 << 50, (1 << 50) + 1, frames[1]], np.uint64)
    assert ((read_page_flags(beyond) & np.uint64(PageFlag.ANON)) != 0).tolist() == [True, False, False, True]
    assert read_page_flags(np.empty(0, np.uint64)).tolist() == []


def test_the_cgroup_of_a_page(child: Child) -> None:
    require("cgroup", "thp")
    with fresh_cgroup() as cgroup:
        if not counts_memory(cgroup):
            pytest.skip("no memory controller")
        before, small, huge = child.map(PAGE_SIZE), child.map(8 * PAGE_SIZE), child.map_aligned(2 << 20)
        child.write(before)
        join(cgroup, child.pid)
        child.madvise(huge, HUGE_PAGE_SIZE, MADV_HUGEPAGE)
        child.write(small, 8)
        child.write(huge, 1)
        frames = np.concatenate((_frames(child, small, 8), _frames(child, huge, 512)))
        inodes = read_page_cgroups(frames)
        assert set(inodes.tolist()) == {cgroup.inode}
        # Memory stays with the cgroup in which it was touched first.
        assert int(read_page_cgroups(_frames(child, before, 1))[0]) != cgroup.inode
        child.end()


def test_a_kernel_that_knows_the_cgroup_of_heads_only(child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    require("thp")
    huge = child.map_aligned(2 << 20)
    child.madvise(huge, HUGE_PAGE_SIZE, MADV_HUGEPAGE)
    child.write(huge, 1)
    frames = _frames(child, huge, 512)
    real = page_flags._read_frames

    def heads_only(path: str, option: str, asked: NDArray[np.uint64]) -> NDArray[np.uint64]:
        return (
            np.where(asked == frames[0], np.uint64(77), np.uint64(0)) if "cgroup" in path else real(path, option, asked)
        )

    monkeypatch.setattr(page_flags, "_read_frames", heads_only)
    assert set(read_page_cgroups(frames[5:]).tolist()) == {77}


def test_a_kernel_without(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: object) -> int:
        raise FileNotFoundError

    monkeypatch.setattr("os.open", absent)
    with pytest.raises(NotSupported, match="no /proc/kpagecgroup") as caught:
        read_page_cgroups(np.zeros(1, np.uint64))
    monkeypatch.undo()
    assert "CONFIG_MEMCG" in caught.value.hint


def test_only_root_may() -> None:
    require("root")

    def look() -> None:
        with pytest.raises(NotPermitted, match="cannot read /proc/kpageflags"):
            read_page_flags(np.zeros(1, np.uint64))

    run_as_nobody(look)
