"""What a quota allows is done, exactly that, from the lowest address on; and where the next apply goes on."""

import mmap
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from act.scene import (
    GUARD,
    HUGE,
    MIB,
    PAGE,
    about,
    actor_on,
    bytes_in_page_cache,
    carry_out,
    drop_from_page_cache,
    fill_huge_pages,
    map_small_pages,
    plan,
    present_bytes,
    reasons,
    smaps_bytes,
    status_bytes,
)
from memtherm.core.scheme import Action
from memtherm.linux.process import Process
from support.children import MADV_NOHUGEPAGE, Child
from support.requires import require
from support.swap import swap_on

pytestmark = pytest.mark.system


def swapped_pages(pid: int, start: int, end: int) -> list[int]:
    """Bit 62 of the pagemap: numbers of pages from `start` on."""
    with open(f"/proc/{pid}/pagemap", "rb") as file:
        file.seek(start // PAGE * 8)
        entries = np.frombuffer(file.read((end - start) // PAGE * 8), np.uint64)
    return np.flatnonzero((entries >> np.uint64(62)) & np.uint64(1)).tolist()


def test_so_many_bytes_as_allowed_leave_memory(child: Child, process: Process) -> None:
    require("swap")
    address = map_small_pages(child, 16 * MIB)
    # Every third page holds something: what is possible lies apart.
    child.write(address, 4096, step=3)
    third = list(range(0, 4096, 3))
    allowed = 300 * PAGE + 100
    with swap_on(64 * MIB), actor_on(process) as actor:
        planned = plan(Action.PAGEOUT, (address, address + 16 * MIB))
        assert actor.examine(planned).tolist() == [len(third) * PAGE]
        outcome = actor.carry_out(np.array([allowed]))
        assert outcome.applied_bytes == 300 * PAGE == status_bytes(child.pid, "VmSwap")
        assert swapped_pages(child.pid, address, address + 16 * MIB) == third[:300]
        assert outcome.reached.tolist() == [address + (third[299] + 1) * PAGE]
        # What is left for later is neither tried nor refused.
        assert outcome.tried_bytes == 16 * MIB - (len(third) - 300) * PAGE
        assert outcome.refused == ()
        assert outcome.action_s > 0
        # The next apply goes on behind it; and a third finds nothing.
        rest = plan(Action.PAGEOUT, (int(outcome.reached[0]), address + 16 * MIB))
        assert carry_out(actor, rest).applied_bytes == (len(third) - 300) * PAGE
        assert swapped_pages(child.pid, address, address + 16 * MIB) == third
        assert actor.examine(planned).tolist() == [0]
        child.end()


def test_ranges_of_which_each_has_its_share(child: Child, process: Process) -> None:
    require("swap")
    address = map_small_pages(child, 16 * MIB)
    child.fill(address, 16 * MIB)
    borders = [address + offset * MIB for offset in (0, 2, 4, 8, 16)]
    with swap_on(64 * MIB), actor_on(process) as actor:
        actor.examine(plan(Action.PAGEOUT, *pairwise(borders)))
        outcome = actor.carry_out(np.array([2 * MIB, 0, MIB + PAGE, 8 * MIB]))
        assert outcome.applied_range_bytes.tolist() == [2 * MIB, 0, MIB + PAGE, 8 * MIB]
        assert outcome.reached.tolist() == [borders[1], borders[1], borders[2] + MIB + PAGE, borders[4]]
        assert (outcome.nr_tried, outcome.tried_bytes) == (3, 11 * MIB + PAGE)
        assert present_bytes(child.pid, borders[1], borders[2]) == 2 * MIB
        child.end()


def test_huge_pages_are_not_split_by_what_is_allowed(child: Child, process: Process) -> None:
    require("swap", "thp")
    address = child.map_aligned(16 * MIB)
    child.madvise(address + 8 * MIB, 8 * MIB, MADV_NOHUGEPAGE)
    child.fill(address, 16 * MIB)
    fill_huge_pages(process, child, address, address + 8 * MIB)
    with swap_on(64 * MIB), actor_on(process) as actor:
        planned = plan(Action.PAGEOUT, (address, address + 16 * MIB))
        actor.examine(planned)
        outcome = actor.carry_out(np.array([3 * MIB]))
        assert outcome.applied_bytes == HUGE == status_bytes(child.pid, "VmSwap")
        assert outcome.reached.tolist() == [address + HUGE]
        assert smaps_bytes(child.pid, "AnonHugePages", address, address + 16 * MIB) == 6 * MIB
        # Less than a huge page is allowed: nothing is done, and the next apply goes on behind it.
        actor.examine(planned)
        outcome = actor.carry_out(np.array([MIB]))
        assert (outcome.applied_bytes, outcome.reached.tolist()) == (0, [address + 2 * HUGE])
        assert outcome.tried_bytes == 16 * MIB - 14 * MIB
        # Behind the huge pages every page counts.
        actor.examine(plan(Action.PAGEOUT, (address + 4 * MIB, address + 16 * MIB)))
        outcome = actor.carry_out(np.array([5 * MIB + PAGE]))
        assert outcome.applied_bytes == 5 * MIB + PAGE
        assert smaps_bytes(child.pid, "AnonHugePages", address, address + 16 * MIB) == 2 * MIB
        child.end()


def test_a_huge_page_of_two_regions_is_not_split_when_one_has_its_turn(child: Child, process: Process) -> None:
    require("swap", "thp")
    address = child.map_aligned(8 * MIB)
    fill_huge_pages(process, child, address, address + 8 * MIB)
    middle = address + 3 * MIB
    with swap_on(64 * MIB), actor_on(process) as actor:
        possible = actor.examine(plan(Action.PAGEOUT, (address, middle), (middle, address + 8 * MIB)))
        assert possible.tolist() == [3 * MIB, 5 * MIB]
        outcome = actor.carry_out(np.array([3 * MIB, 0]))
        assert outcome.applied_bytes == 2 * MIB == status_bytes(child.pid, "VmSwap")
        assert outcome.reached.tolist() == [address + 2 * MIB, middle]
        assert smaps_bytes(child.pid, "AnonHugePages", address, address + 8 * MIB) == 6 * MIB
        child.end()


@pytest.mark.parametrize("hidden", ["", "pagemap_scan"])
def test_collapse_counts_only_what_is_not_huge(
    child: Child, process: Process, hidden: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    require("thp")
    monkeypatch.setenv("MEMTHERM_WITHOUT", hidden)
    address = child.map_aligned(16 * MIB)
    child.write(address, 4096)
    with actor_on(process) as actor:
        planned = plan(Action.COLLAPSE, (address, address + 16 * MIB))
        assert actor.examine(planned).tolist() == [16 * MIB]
        outcome = actor.carry_out(np.array([5 * MIB]))
        assert outcome.reached.tolist() == [address + 4 * MIB]
        assert smaps_bytes(child.pid, "AnonHugePages", address, address + 16 * MIB) == 4 * MIB
        assert outcome.applied_bytes == 4 * MIB
        assert actor.examine(planned).tolist() == [12 * MIB]
        actor.carry_out(np.array([2 * MIB]))
        assert smaps_bytes(child.pid, "AnonHugePages", address, address + 6 * MIB) == 0
        assert smaps_bytes(child.pid, "AnonHugePages", address, address + 16 * MIB) == 6 * MIB


def test_willneed_reads_as_much_of_a_file_as_allowed(child: Child, process: Process, file: Path) -> None:
    address = child.map(16 * MIB, flags=mmap.MAP_SHARED, path=str(file))
    drop_from_page_cache(file)
    with open(file, "rb") as opened:
        opened.seek(2 * MIB)
        opened.read(MIB)
    there = bytes_in_page_cache(file)
    with actor_on(process) as actor:
        assert actor.examine(plan(Action.WILLNEED, (address, address + 16 * MIB))).tolist() == [16 * MIB - there]
        outcome = actor.carry_out(np.array([5 * MIB]))
    assert outcome.applied_bytes == bytes_in_page_cache(file) - there == 5 * MIB
    assert outcome.reached.tolist() == [address + 5 * MIB + there]


def test_a_dry_run_refuses_what_is_allowed_and_no_more(child: Child, process: Process) -> None:
    require("swap")
    address = map_small_pages(child, 8 * MIB)
    child.write(address, 2048)
    with swap_on(64 * MIB), actor_on(process, apply=False) as actor:
        assert actor.examine(plan(Action.PAGEOUT, (address, address + 8 * MIB))).tolist() == [8 * MIB]
        outcome = actor.carry_out(np.array([MIB]))
    assert reasons(outcome) == {"dry run": MIB}
    assert (outcome.tried_bytes, outcome.reached.tolist()) == (MIB, [address + MIB])
    assert present_bytes(child.pid, address, address + 8 * MIB) == 8 * MIB


def test_stat_counts_as_much_as_allowed(child: Child, process: Process) -> None:
    address = map_small_pages(child, 8 * MIB)
    with actor_on(process) as actor:
        assert actor.examine(plan(Action.STAT, (address, address + 8 * MIB))).tolist() == [8 * MIB]
        outcome = actor.carry_out(np.array([3 * MIB]))
    assert (outcome.tried_bytes, outcome.applied_bytes) == (3 * MIB, 0)
    assert outcome.reached.tolist() == [address + 3 * MIB]


def test_cold_of_a_part(child: Child, process: Process) -> None:
    address = map_small_pages(child, 8 * MIB)
    child.write(address, 2048)
    with actor_on(process) as actor:
        actor.examine(plan(Action.COLD, (address, address + 8 * MIB)))
        outcome = actor.carry_out(np.array([3 * MIB]))
    assert outcome.applied_bytes <= 3 * MIB
    assert outcome.applied_bytes == about(3 * MIB)
    assert smaps_bytes(child.pid, "Referenced", address, address + 8 * MIB) == about(5 * MIB)


def test_nothing_allowed(child: Child, process: Process) -> None:
    address = map_small_pages(child, 8 * MIB)
    child.write(address, 2048)
    with actor_on(process, guard=GUARD) as actor:
        actor.examine(plan(Action.COLD, (address, address + 8 * MIB)))
        outcome = actor.carry_out(np.array([0]))
    assert (outcome.nr_tried, outcome.tried_bytes, outcome.refused) == (0, 0, ())
    assert outcome.reached.tolist() == [address]
    assert smaps_bytes(child.pid, "Referenced", address, address + 8 * MIB) == 8 * MIB
