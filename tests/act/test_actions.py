"""Each action on real memory: what is told as applied, against a witness that looks for itself."""

import mmap
import os
from itertools import pairwise
from pathlib import Path

import pytest

from act.scene import (
    HUGE,
    MIB,
    PAGE,
    about,
    act,
    bytes_in_page_cache,
    bytes_with_page_flags,
    drop_from_page_cache,
    meminfo_bytes,
    present_bytes,
    reasons,
    smaps_bytes,
    status_bytes,
    write_small_pages,
)
from memtherm.act import advice as advice_module
from memtherm.core.scheme import Action
from memtherm.linux.advise import Advice, advise
from memtherm.linux.process import Process, open_process
from support.children import MADV_HUGEPAGE, SHARED, Child
from support.requires import require
from support.swap import swap_on

REFERENCED, ACTIVE = 1 << 2, 1 << 6

pytestmark = pytest.mark.system


@pytest.mark.parametrize("hidden", ["", "pagemap_scan"])
def test_pageout_of_anonymous_memory_goes_to_swap(
    child: Child, process: Process, hidden: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    require("swap")
    monkeypatch.setenv("MEMTHERM_WITHOUT", hidden)
    address = child.map_aligned(32 * MIB)
    child.fill(address, 32 * MIB)
    digest = child.digest(address, 32 * MIB)
    with swap_on(128 * MIB):
        outcome = act(process, Action.PAGEOUT, (address, address + 32 * MIB))
        assert outcome.applied_bytes == about(32 * MIB)
        assert outcome.applied_bytes == about(status_bytes(child.pid, "VmSwap"))
        assert outcome.refused == ()
        assert smaps_bytes(child.pid, "Rss", address, address + 32 * MIB) == 32 * MIB - outcome.applied_bytes
        # Nothing of it was lost.
        assert child.digest(address, 32 * MIB) == digest


def test_pageout_of_huge_pages(child: Child, process: Process) -> None:
    require("swap", "thp")
    address = child.map_aligned(16 * MIB)
    child.madvise(address, 16 * MIB, MADV_HUGEPAGE)
    child.fill(address, 16 * MIB)
    assert smaps_bytes(child.pid, "AnonHugePages", address, address + 16 * MIB) == 16 * MIB
    with swap_on(128 * MIB):
        outcome = act(process, Action.PAGEOUT, (address + HUGE, address + 9 * MIB))
        assert outcome.applied_bytes == about(3 * HUGE)
        assert outcome.applied_bytes == about(status_bytes(child.pid, "VmSwap"))
        assert reasons(outcome) == {"less than a whole huge page": MIB}
        # Neither the huge page of the last MiB nor any other was split.
        assert smaps_bytes(child.pid, "AnonHugePages", address, address + 16 * MIB) == 10 * MIB
        child.end()


@pytest.mark.parametrize("flags", [mmap.MAP_PRIVATE, mmap.MAP_SHARED])
@pytest.mark.parametrize("hidden", ["", "swap"])
def test_pageout_of_clean_file_pages_drops_them(
    child: Child, file: Path, flags: int, hidden: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMTHERM_WITHOUT", hidden)
    address = child.map(16 * MIB, flags=flags, path=str(file))
    child.read(address, 4096)
    assert present_bytes(child.pid, address, address + 16 * MIB) == 16 * MIB
    with open_process(child.pid) as process:
        outcome = act(process, Action.PAGEOUT, (address, address + 16 * MIB))
    still = present_bytes(child.pid, address, address + 16 * MIB)
    assert outcome.applied_bytes == 16 * MIB - still == about(16 * MIB)
    assert bytes_in_page_cache(file) == still
    assert outcome.refused == ()


def test_pageout_of_pages_that_another_process_maps_too_changes_nothing(
    child: Child, process: Process, file: Path
) -> None:
    address = child.map(16 * MIB, flags=mmap.MAP_SHARED, path=str(file))
    child.read(address, 4096)
    child.fork()
    with open(file, "r+b") as opened, mmap.mmap(opened.fileno(), 16 * MIB) as view:
        assert sum(view[:: 16 * PAGE]) > 0
        outcome = act(process, Action.PAGEOUT, (address, address + 16 * MIB))
    # One page in 16 is ours too; read-ahead maps some around it.
    assert outcome.applied_bytes == 16 * MIB - present_bytes(child.pid, address, address + 16 * MIB)
    assert outcome.applied_bytes <= 15 * MIB


def test_pageout_of_shared_memory_goes_to_swap(child: Child, process: Process) -> None:
    require("swap")
    address = child.map_aligned(16 * MIB, flags=SHARED)
    child.fill(address, 16 * MIB)
    with swap_on(128 * MIB):
        outcome = act(process, Action.PAGEOUT, (address, address + 16 * MIB))
        assert outcome.applied_bytes == about(16 * MIB)
        # VmSwap does not know of shared memory.
        assert outcome.applied_bytes == about(smaps_bytes(child.pid, "Swap", address, address + 16 * MIB))
        child.end()


def test_willneed_brings_a_file_to_the_page_cache(child: Child, process: Process, file: Path) -> None:
    address = child.map(16 * MIB, flags=mmap.MAP_SHARED, path=str(file))
    drop_from_page_cache(file)
    assert bytes_in_page_cache(file) == 0
    # More than a device reads at once.
    wanted = (address + MIB, address + 15 * MIB)
    outcome = act(process, Action.WILLNEED, wanted)
    assert outcome.applied_bytes == about(14 * MIB)
    assert outcome.applied_bytes == about(bytes_in_page_cache(file))
    # Brought near, not mapped; and a second time there is nothing to do.
    assert present_bytes(child.pid, address, address + 16 * MIB) == 0
    assert act(process, Action.WILLNEED, wanted).applied_bytes == 0


def test_willneed_of_a_mapping_that_reaches_beyond_its_file(child: Child, process: Process, file: Path) -> None:
    with open(file, "r+b") as opened:
        opened.truncate(MIB + 100)
    address = child.map(4 * MIB, flags=mmap.MAP_PRIVATE, path=str(file))
    drop_from_page_cache(file)
    outcome = act(process, Action.WILLNEED, (address, address + 4 * MIB))
    assert outcome.applied_bytes == MIB + PAGE == bytes_in_page_cache(file)


def test_willneed_brings_anonymous_memory_to_the_swap_cache(child: Child, process: Process) -> None:
    require("swap")
    address = child.map_aligned(16 * MIB)
    child.fill(address, 16 * MIB)
    with swap_on(128 * MIB):
        advise(process.pidfd, [address], [address + 16 * MIB], Advice.PAGEOUT)
        swapped, before = status_bytes(child.pid, "VmSwap"), meminfo_bytes("SwapCached")
        outcome = act(process, Action.WILLNEED, (address, address + 16 * MIB))
        assert outcome.applied_bytes == about(swapped) == about(meminfo_bytes("SwapCached") - before)
        assert status_bytes(child.pid, "VmSwap") == swapped
        child.end()


def test_willneed_brings_shared_memory_to_the_swap_cache(child: Child, process: Process) -> None:
    require("swap")
    address = child.map_aligned(16 * MIB, flags=SHARED)
    child.fill(address, 16 * MIB)
    with swap_on(128 * MIB):
        advise(process.pidfd, [address], [address + 16 * MIB], Advice.PAGEOUT)
        swapped, before = smaps_bytes(child.pid, "Swap", address, address + 16 * MIB), meminfo_bytes("SwapCached")
        assert swapped == about(16 * MIB)
        outcome = act(process, Action.WILLNEED, (address, address + 16 * MIB))
        assert outcome.applied_bytes == about(swapped) == about(meminfo_bytes("SwapCached") - before)
        child.end()


def test_cold_makes_active_pages_inactive(child: Child, process: Process, file: Path) -> None:
    address = child.map(16 * MIB, flags=mmap.MAP_SHARED, path=str(file))
    child.read(address, 4096)
    with open(file, "rb", buffering=0) as opened:
        # What is read twice is what reclaim calls active.
        assert [len(os.pread(opened.fileno(), 16 * MIB, 0)) for _ in range(3)] == [16 * MIB] * 3
    middle = (address + 4 * MIB, address + 12 * MIB)
    assert bytes_with_page_flags(child.pid, *middle, any_of=ACTIVE) == about(8 * MIB)
    outcome = act(process, Action.COLD, middle)
    assert outcome.applied_bytes == about(8 * MIB)
    assert bytes_with_page_flags(child.pid, *middle, any_of=REFERENCED | ACTIVE) <= MIB // 16
    assert present_bytes(child.pid, address, address + 16 * MIB) == 16 * MIB
    assert bytes_with_page_flags(child.pid, address, address + 4 * MIB, any_of=ACTIVE) == about(4 * MIB)


def test_cold_takes_the_marks_of_anonymous_pages_away(child: Child, process: Process) -> None:
    address = child.map_aligned(16 * MIB)
    child.write(address, 4096)
    outcome = act(process, Action.COLD, (address + 4 * MIB, address + 12 * MIB))
    assert outcome.applied_bytes == about(8 * MIB)
    assert smaps_bytes(child.pid, "Referenced", address, address + 16 * MIB) == about(8 * MIB)
    assert present_bytes(child.pid, address, address + 16 * MIB) == 16 * MIB


def test_cold_is_told_of_each_region_however_many(child: Child, process: Process) -> None:
    address = child.map_aligned(16 * MIB)
    child.write(address, 4096)
    child.fork()
    # What is written again is the child's alone.
    child.write(address + 8 * MIB, 2048)
    borders = [address + 2 * PAGE * index for index in range(2049)]
    outcome = act(process, Action.COLD, *pairwise(borders))
    assert outcome.applied_range_bytes.tolist() == [0] * 1024 + [2 * PAGE] * 1024


def test_cold_of_pages_that_another_process_maps_too_is_not_told_as_applied(child: Child, process: Process) -> None:
    address = child.map_aligned(16 * MIB)
    child.write(address, 2048)
    child.fork()
    child.write(address + 8 * MIB, 2048)
    outcome = act(process, Action.COLD, (address, address + 8 * MIB), (address + 8 * MIB, address + 16 * MIB))
    assert outcome.applied_range_bytes.tolist() == [0, about(8 * MIB)]


@pytest.mark.parametrize("way", ["scan", "smaps"])
def test_collapse_makes_huge_pages(child: Child, process: Process, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    require("thp")
    if way == "smaps":
        monkeypatch.setenv("MEMTHERM_WITHOUT", "pagemap_scan")
    address = child.map_aligned(16 * MIB)
    write_small_pages(child, address, address + 16 * MIB)
    assert smaps_bytes(child.pid, "AnonHugePages", address, address + 16 * MIB) == 0
    outcome = act(process, Action.COLLAPSE, (address + MIB, address + 4 * MIB), (address + 4 * MIB, address + 9 * MIB))
    grown = smaps_bytes(child.pid, "AnonHugePages", address, address + 16 * MIB)
    assert outcome.applied_bytes == grown == 6 * MIB
    # Without PAGEMAP_SCAN the growth of a mapping is shared out by size.
    assert outcome.applied_range_bytes.tolist() == [2 * MIB, 4 * MIB]
    assert reasons(outcome) == {"less than a whole huge page": 2 * MIB}
    again = act(process, Action.COLLAPSE, (address + 2 * MIB, address + 8 * MIB))
    assert again.applied_bytes == 0


def test_collapse_is_told_of_the_region_that_grew(child: Child, process: Process) -> None:
    require("thp", "pagemap_scan")
    address = child.map_aligned(8 * MIB)
    write_small_pages(child, address, address + 4 * MIB)
    # The second half is empty: the kernel makes no huge page of nothing.
    outcome = act(process, Action.COLLAPSE, (address, address + 4 * MIB), (address + 4 * MIB, address + 8 * MIB))
    assert outcome.applied_range_bytes.tolist() == [4 * MIB, 0]


@pytest.mark.parametrize("action", [Action.PAGEOUT, Action.COLD, Action.COLLAPSE, Action.WILLNEED])
def test_a_call_that_succeeds_and_changes_nothing_is_not_told_as_applied(
    child: Child, process: Process, file: Path, action: Action, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = child.map(16 * MIB, flags=mmap.MAP_SHARED, path=str(file))
    if action is Action.WILLNEED:
        drop_from_page_cache(file)
    else:
        child.read(address, 4096)
        assert sum(len(file.read_bytes()) for _ in range(3)) == 48 * MIB  # active now
    calls: list[int] = []
    monkeypatch.setattr(advice_module, "advise", lambda *_: calls.append(1))
    outcome = act(process, action, (address, address + 16 * MIB))
    assert calls
    assert outcome.applied_bytes <= MIB // 16


def test_stat_only_counts_what_is_mapped(child: Child, process: Process) -> None:
    # Far from where the kernel would put anything else.
    address = child.map(8 * MIB, at=1 << 40)
    child.unmap(address + 3 * MIB, 2 * MIB)
    outcome = act(process, Action.STAT, (address - HUGE, address + 4 * MIB), (address + 6 * MIB, address + 10 * MIB))
    assert (outcome.nr_tried, outcome.tried_bytes) == (2, 5 * MIB)
    assert (outcome.applied_bytes, outcome.refused) == (0, ())
    empty = act(process, Action.STAT, (address + 3 * MIB, address + 4 * MIB))
    assert (empty.nr_tried, empty.tried_bytes) == (0, 0)


@pytest.mark.parametrize("action", [Action.PAGEOUT, Action.COLD, Action.COLLAPSE, Action.WILLNEED])
def test_a_dry_run_says_what_it_would_do_and_does_nothing(child: Child, process: Process, action: Action) -> None:
    require("swap", "thp")
    address = child.map_aligned(16 * MIB)
    child.fill(address, 8 * MIB)
    with swap_on(128 * MIB):
        if action is Action.WILLNEED:
            advise(process.pidfd, [address], [address + 8 * MIB], Advice.PAGEOUT)

        def state() -> list[int]:
            fields = ("Rss", "Swap", "Referenced", "AnonHugePages")
            return [smaps_bytes(child.pid, field, address, address + 16 * MIB) for field in fields]

        before = state()
        outcome = act(process, action, (address, address + 16 * MIB), apply=False)
        assert state() == before
        assert outcome.tried_bytes == 16 * MIB
        assert outcome.applied_bytes == 0
        # A huge page could be made of what is empty, too; of the rest there is nothing to act on.
        would = 16 * MIB if action is Action.COLLAPSE else 8 * MIB
        assert list(reasons(outcome)) == ["dry run"]
        assert reasons(outcome)["dry run"] == about(would)
        child.end()


@pytest.mark.parametrize(
    ("action", "reason"),
    [
        (Action.HUGEPAGE, "needs allow_ptrace"),
        (Action.NOHUGEPAGE, "needs allow_ptrace"),
        (Action.MIGRATE_COLD, "no destination"),
        (Action.LRU_PRIO, "only the kernel's DAMON"),
    ],
)
def test_what_cannot_be_done_is_refused_with_its_reason(
    child: Child, process: Process, action: Action, reason: str
) -> None:
    address = child.map_aligned(4 * MIB)
    child.write(address, 1024)
    outcome = act(process, action, (address, address + 4 * MIB))
    (refusal,) = outcome.refused
    assert reason in refusal.reason
    assert refusal.size_bytes == outcome.tried_bytes == 4 * MIB
