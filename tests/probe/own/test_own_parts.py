"""Parts of own memory, by smaps, as a user without any privilege: which were accessed, and nothing left behind."""

import mmap
import os
import threading
from collections.abc import Sequence

import numpy as np
import pytest

from memtherm.core.census import PageBits
from memtherm.errors import NotPermitted
from memtherm.linux import libc, mapping_cuts
from memtherm.linux.maps import read_maps
from memtherm.linux.process import open_process
from memtherm.linux.userfaultfd import Mode, UserFaultFd
from memtherm.probe.own.choose import open_own_probe
from memtherm.probe.own.cuts import CutKind
from memtherm.probe.own.parts import PartsCensusProbe
from probe.own.own_memory import MIB, UNIT, Memory, accessed_units, fork, mapping_count, referenced_bytes
from support.privileges import run_as_nobody
from support.requires import require


def looked(probe: PartsCensusProbe) -> PageBits:
    bits = probe.look()
    assert not len(probe.clear(bits))
    return bits


def precision_and_recall() -> tuple[int, float, float]:
    """Of 256 MiB watched, in which random pages are touched."""
    memory = Memory(units=128)
    rng = np.random.default_rng(7)
    probe = PartsCensusProbe([memory.range])
    looked(probe)
    found = touched = right = 0
    for _ in range(10):
        hot = set(rng.choice(128, 20, replace=False).tolist())
        for unit in hot:
            memory.read(unit * 512 + int(rng.integers(512)))
        seen = accessed_units(looked(probe), memory.start)
        found, touched, right = found + len(seen), touched + len(hot), right + len(seen & hot)
    count = sum(len(one.parts) for one in probe._cuts)
    probe.close()
    return count, right / found, right / touched


def test_hot_and_cold_parts_are_told_apart_without_privilege() -> None:
    require("root")
    count, precision, recall = run_as_nobody(precision_and_recall)
    assert count == 128
    assert precision >= 0.95
    assert recall >= 0.95


def test_a_look_forgets_nothing_and_a_clear_forgets_what_it_is_told() -> None:
    memory = Memory(units=6)
    probe = PartsCensusProbe([memory.range])
    looked(probe)
    memory.read(1 * 512 + 7)
    memory.write(4 * 512 + 9)
    for _ in range(2):
        bits = probe.look()
        assert accessed_units(bits, memory.start) == {1, 4}
    probe.clear(bits.take(np.flatnonzero(bits.address == memory.start + UNIT)))
    assert accessed_units(probe.look(), memory.start) == {4}
    probe.close()


def test_what_lies_beside_the_range_does_not_count() -> None:
    memory = Memory(units=6)
    inside = (memory.start + 2 * UNIT + 5 * mmap.PAGESIZE, memory.start + 4 * UNIT - 3 * mmap.PAGESIZE)
    probe = PartsCensusProbe([inside])
    assert probe.ranges() == [inside]
    looked(probe)
    memory.read(2 * 512 + 4)
    memory.read(4 * 512 - 3)
    bits = looked(probe)
    assert not bits.accessed.any()
    memory.read(2 * 512 + 5)
    memory.read(4 * 512 - 4)
    bits = looked(probe)
    assert accessed_units(bits, memory.start) == {2, 3}
    pages = int(np.bitwise_count(bits.present).sum())
    assert pages == (inside[1] - inside[0]) // mmap.PAGESIZE
    probe.close()


@pytest.mark.parametrize("kinds", [(CutKind.POLICY,), (CutKind.NO_DUMP,), tuple(CutKind)])
@pytest.mark.parametrize("units", [4, 5])
def test_what_was_changed_is_undone(kinds: Sequence[CutKind], units: int) -> None:
    memory = Memory(units=units + 2)
    inside = (memory.start + UNIT, memory.start + (units + 1) * UNIT)
    before = mapping_count(memory)
    probe = PartsCensusProbe([inside], kinds=kinds)
    assert mapping_count(memory) >= before + units
    assert "cut into" in probe.describe_changes[0]
    probe.close()
    assert mapping_count(memory) == before
    probe.close()


def test_memory_without_a_page_becomes_one_mapping_again() -> None:
    memory = Memory(units=8, written=False)
    probe = PartsCensusProbe([memory.range])
    for unit in range(8):
        memory.write(unit * 512 + 3)
    probe.close()
    assert mapping_count(memory) == 1


def test_the_policy_of_the_application_stays() -> None:
    memory = Memory(units=4)
    mapping_cuts.set_policy(*memory.range, 1)
    probe = PartsCensusProbe([memory.range], kinds=(CutKind.POLICY, CutKind.NO_DUMP))
    assert "core dumps" in probe.describe_changes[0]
    probe.close()
    assert mapping_cuts.has_own_policy(memory.start)
    probe = PartsCensusProbe([memory.range], kinds=(CutKind.POLICY,))
    assert probe.grain == "mapping"
    assert "could not be cut" in probe.describe_changes[0]
    looked(probe)
    memory.read(3)
    assert accessed_units(looked(probe), memory.start) == {0, 1, 2, 3}
    probe.close()


def test_memory_with_a_userfaultfd_is_left_as_it_is() -> None:
    memory = Memory(units=4, written=False)
    with UserFaultFd(Mode.WRITES) as theirs:
        theirs.register(memory.start, memory.start + 2 * UNIT)
        before = mapping_count(memory)
        probe = PartsCensusProbe([memory.range])
        assert probe.describe_changes[-1].startswith("1 mappings could not be cut")
        # A page that we had made would be told to whoever has the userfaultfd.
        held = probe.look().address
        assert not len(held[held < memory.start + 2 * UNIT])
        assert mapping_count(memory) == before + 1
        probe.close()
        assert mapping_count(memory) == before


def test_memory_that_is_unmapped_meanwhile() -> None:
    memory = Memory(units=4)
    probe = PartsCensusProbe([memory.range])
    bits = probe.look()
    memory.close()
    assert probe.ranges() == []
    assert not len(probe.clear(bits))
    assert not len(probe.look())
    probe.close()


def test_a_part_that_a_child_shares_stays_accessed_until_everything_is_cleared() -> None:
    memory = Memory(units=4)
    probe = PartsCensusProbe([memory.range])
    looked(probe)
    reader, writer = os.pipe()
    child = fork()
    if child == 0:
        os.close(writer)
        os.read(reader, 1)
        os._exit(0)
    memory.read(2 * 512)
    stuck = probe.clear(probe.look())
    assert accessed_units(stuck, memory.start) >= {2}
    assert probe.clear_everything(longest_stall_s=60)
    assert probe.clearing == "clear_refs"
    assert not len(probe.clear(probe.look()))
    assert accessed_units(probe.look(), memory.start) == set()
    memory.read(512)
    assert accessed_units(probe.look(), memory.start) == {1}
    os.close(writer)
    os.close(reader)
    os.waitpid(child, 0)
    probe.close()


def test_clearing_everything_takes_nothing_from_another_watch() -> None:
    one, other = Memory(units=4), Memory(units=4)
    first, second = PartsCensusProbe([one.range]), PartsCensusProbe([other.range])
    looked(first)
    looked(second)
    first.clear_everything(longest_stall_s=60)
    for unit in range(4):
        one.read(unit * 512)
        other.read(unit * 512 + 3)
        looked(first)
    assert accessed_units(looked(second), other.start) == {0, 1, 2, 3}
    assert accessed_units(looked(second), other.start) == set()
    first.close()
    second.close()


def test_a_small_set_in_the_tlb_is_seen_after_clear_refs() -> None:
    """clear_refs does not flush the TLB; without a flush about one in twenty of these is missed."""
    memory = Memory(units=4)
    probe = PartsCensusProbe([memory.range])
    probe.clear_everything(longest_stall_s=60)
    missed = 0
    for turn in range(80):
        unit = turn % 4
        memory.read(unit * 512)
        looked(probe)
        memory.read(unit * 512)
        missed += unit not in accessed_units(probe.look(), memory.start)
    probe.close()
    assert missed == 0


def test_larger_parts_where_mappings_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory(units=32)
    monkeypatch.setattr("memtherm.probe.own.hub.read_max_map_count", lambda: 8 * 10)
    probe = PartsCensusProbe([memory.range])
    assert 4 <= sum(len(one.parts) for one in probe._cuts) <= 10
    looked(probe)
    memory.read(512)
    assert 1 in accessed_units(looked(probe), memory.start)
    probe.close()
    assert mapping_count(memory) == 1


def test_of_a_part_in_use_all_over_few_pages_are_cleared_and_an_access_to_any_page_is_seen_afterwards() -> None:
    memory = Memory(units=4)
    probe = PartsCensusProbe([memory.range])
    looked(probe)
    for turn in range(4):
        for page in range(512, 1024):
            memory.read(page)
        assert accessed_units(looked(probe), memory.start) == {1}
        assert referenced_bytes(memory) == ((512 - 16) * 4096 if turn else 0)
    assert accessed_units(looked(probe), memory.start) == set()
    assert referenced_bytes(memory) == 0
    for page in (512, 700, 1023):
        memory.read(page)
        assert accessed_units(looked(probe), memory.start) == {1}
    probe.close()


def test_samples_of_one_watch_when_another_clears_everything() -> None:
    one, other = Memory(units=2), Memory(units=2)
    first, second = PartsCensusProbe([one.range]), PartsCensusProbe([other.range])
    second.clear_everything(longest_stall_s=60)
    looked(first)
    for _ in range(2):
        for page in range(512):
            one.read(page)
        assert accessed_units(looked(first), one.start) == {0}
    assert referenced_bytes(one) == (512 - 16) * 4096
    looked(second)
    one.read(300)
    assert accessed_units(looked(first), one.start) == {0}
    assert accessed_units(looked(first), one.start) == set()
    first.close()
    second.close()


def test_huge_pages_stay_huge() -> None:
    require("thp")
    memory = Memory(units=4, huge=True)
    probe = PartsCensusProbe([memory.range])
    for unit in range(4):
        looked(probe)
        memory.read(unit * 512 + 100)
        assert accessed_units(probe.look(), memory.start) == {unit}
    probe.close()
    assert memory.huge_bytes() == 4 * UNIT


def test_a_mapped_file_tells_parts_too(tmp_path: object) -> None:
    path = f"{tmp_path}/file"
    with open(path, "wb") as file:
        file.write(b"\1" * 8 * MIB)
    array = np.memmap(path, np.uint8, "r")
    start = array.ctypes.data
    int(array[:: mmap.PAGESIZE].sum())
    probe = PartsCensusProbe([(start, start + 8 * MIB)])
    looked(probe)
    int(array[5 * MIB])
    bits = probe.look()
    accessed = np.flatnonzero(np.unpackbits(bits.accessed.view(np.uint8)))
    assert 0 < len(accessed) <= 512
    probe.close()
    with open_process(os.getpid()) as process:
        assert read_maps(process).names.count(path) == 1


def test_two_threads_look_at_two_arrays() -> None:
    memories = [Memory(units=4) for _ in range(2)]
    problems: list[str] = []

    def work(memory: Memory) -> None:
        probe = PartsCensusProbe([memory.range])
        looked(probe)
        for turn in range(30):
            memory.read(turn % 4 * 512)
            if (seen := accessed_units(looked(probe), memory.start)) != {turn % 4}:
                problems.append(f"turn {turn}: {seen}")
        probe.close()

    threads = [threading.Thread(target=work, args=(memory,)) for memory in memories]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []


def test_the_child_of_a_fork_gives_its_attributes_up_and_the_parents_stay() -> None:
    memory = Memory(units=4)
    probe = PartsCensusProbe([memory.range], kinds=(CutKind.POLICY,))
    child = fork()
    if child == 0:
        try:
            probe.close()
            is_undone = all(mapping_cuts.has_default_policy(memory.start + unit * UNIT) for unit in range(4))
            os._exit(0 if is_undone else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert mapping_count(memory) == 4
    assert mapping_cuts.has_own_policy(memory.start)
    probe.close()


def test_a_process_that_may_not_read_its_own_files() -> None:
    require("root")

    def refusal() -> tuple[str, str]:
        libc.prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE, as the kernel does for a program that changes its user
        memory = Memory(units=1)
        try:
            open_own_probe([memory.range])
        except NotPermitted as problem:
            return problem.message, problem.hint
        return "", ""

    message, hint = run_as_nobody(refusal)
    assert "may not read its own /proc/self" in message
    assert "PR_SET_DUMPABLE" in hint
