"""What acting on own memory stands on: madvise and mincore of our own, numa_maps, and what is said before a run."""

import errno
import mmap
import os
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from act.scene import GUARD, MIB, PAGE
from memtherm.act.choose import rank_actions, rank_own_actions
from memtherm.act.guard import mapping_refusals
from memtherm.core.scheme import Action, Scheme
from memtherm.errors import InvalidInput, NotSupported
from memtherm.linux.facts import probe_host
from memtherm.linux.maps import parse_smaps
from memtherm.linux.nodes import NumaNode
from memtherm.linux.numa_maps import parse_active, read_active
from memtherm.linux.own_advise import OwnAdvice, advise_own, are_in_memory, set_apart
from memtherm.linux.process import open_process
from memtherm.session.scheme_check import refuse_unsafe

MAPPING = b"7f0000000000-7f0000400000 rw-p 00000000 00:00 0 \nSize: 4096 kB\nVmFlags: rd wr mr mw me ac%b \n"


def own_pages(count: int) -> tuple[mmap.mmap, int]:
    """Pages of an own mapping, of which nothing was touched, and the address of the first one."""
    memory = mmap.mmap(-1, count * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return memory, np.frombuffer(memory, np.uint8).ctypes.data


def ranges(*pairs: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    start, end = np.array(pairs, np.uint64).reshape(-1, 2).T
    return start, end


def mappings_in(start: int, end: int) -> list[tuple[int, int]]:
    lines = Path("/proc/self/maps").read_text().splitlines()
    found = [tuple(int(text, 16) for text in line.split()[0].split("-")) for line in lines]
    return [(max(first, start), min(last, end)) for first, last in found if first < end and last > start]


def test_advice_is_given_range_by_range_and_a_failed_one_stops_nothing() -> None:
    memory, start = own_pages(8)
    memory[:] = b"x" * len(memory)
    unmapped = 1 << 46
    answers = advise_own(
        *ranges((start, start + PAGE), (unmapped, unmapped + PAGE), (start + PAGE, start + 2 * PAGE)), OwnAdvice.COLD
    )
    assert answers.tolist() == [0, -errno.ENOMEM, 0]
    assert advise_own(*ranges(), OwnAdvice.COLD).tolist() == []
    assert advise_own(*ranges((start, start)), OwnAdvice.PAGEOUT).tolist() == [0]


@pytest.mark.parametrize(
    ("pair", "message"), [((4096, 4097), "page border"), ((8192, 4096), "one end behind each start")]
)
def test_ranges_that_are_none_are_refused(pair: tuple[int, int], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        advise_own(*ranges(pair), OwnAdvice.COLD)


def test_pages_in_memory_are_told_one_by_one() -> None:
    memory, start = own_pages(4)
    memory[PAGE] = 1
    memory[3 * PAGE] = 1
    assert are_in_memory(start, start + 4 * PAGE).tolist() == [False, True, False, True]
    memory.madvise(mmap.MADV_DONTNEED, PAGE, PAGE)
    assert are_in_memory(start, start + 4 * PAGE).tolist() == [False, False, False, True]
    assert len(are_in_memory(1 << 46, (1 << 46) + PAGE)) == 0


@pytest.mark.parametrize("is_dumped", [True, False])
def test_ranges_are_mappings_of_their_own_for_a_moment(is_dumped: bool) -> None:
    memory, start = own_pages(16)
    memory[:] = b"x" * len(memory)
    whole = start, start + 16 * PAGE
    if not is_dumped:
        advise_own(*ranges(whole), OwnAdvice.DONTDUMP)
    parts = [(start + 2 * PAGE, start + 3 * PAGE), (start + 8 * PAGE, start + 12 * PAGE)]
    with suppress(ZeroDivisionError), set_apart(*ranges(*parts), np.full(2, is_dumped)) as is_apart:
        assert is_apart.all()
        assert set(parts) < set(mappings_in(*whole))
        raise ZeroDivisionError
    before = mappings_in(*whole)
    assert not set(parts) & set(before)
    assert memory[:] == b"x" * len(memory)


def test_numa_maps_tell_what_is_active() -> None:
    text = (
        "5555dbf31000 default file=/a\\040b=c mapped=2 N0=1 N1=1 kernelpagesize_kB=4\n"
        "7f0000000000 prefer (many):0 anon=8 dirty=8 active=3 N0=8 kernelpagesize_kB=4\n"
        "7f0000100000 default\n"
        "7f0000200000 default anon=512 dirty=512 active=0 N0=512 kernelpagesize_kB=4\n"
    )
    start, active_bytes = parse_active(text)
    assert start.tolist() == [0x5555DBF31000, 0x7F0000000000, 0x7F0000100000, 0x7F0000200000]
    assert active_bytes.tolist() == [2 * PAGE, 3 * PAGE, 0, 0]


def test_numa_maps_of_this_process_have_its_mappings() -> None:
    memory, start = own_pages(64)
    memory[:] = b"x" * len(memory)
    with open_process(os.getpid()) as process:
        try:
            starts, active_bytes = read_active(process)
        except NotSupported:
            pytest.skip("no numa_maps in this kernel")
    row = int(np.searchsorted(starts, start, side="right")) - 1
    assert (np.diff(starts.astype(np.int64)) > 0).all()
    assert int(starts[row]) <= start
    assert 0 <= active_bytes[row] <= sum(end - first for first, end in mappings_in(0, 1 << 47))


@pytest.mark.parametrize(("flags", "refused"), [(b" uw", False), (b" ur uw", True), (b" lo uw", True)])
def test_flags_that_watching_has_put_there_are_no_refusal(flags: bytes, refused: bool) -> None:
    mappings = parse_smaps(MAPPING % flags)
    assert bool(mapping_refusals(mappings, Action.PAGEOUT, GUARD, ours={"uw"})) is refused
    # Without our own watching it is the program's.
    assert mapping_refusals(mappings, Action.PAGEOUT, GUARD)


def test_huge_page_advice_on_own_memory_needs_no_leave() -> None:
    schemes = [Scheme(name="advise", action=action) for action in (Action.HUGEPAGE, Action.NOHUGEPAGE)]
    refuse_unsafe(schemes, guard=GUARD, apply=True, own_memory=True)
    with pytest.raises(InvalidInput, match="stops the target"):
        refuse_unsafe(schemes, guard=GUARD, apply=True)


@pytest.mark.parametrize("action", [Action.PAGEOUT, Action.MIGRATE_COLD])
def test_what_is_unsafe_on_own_memory_too_stays_refused(action: Action) -> None:
    with pytest.raises(InvalidInput):
        refuse_unsafe([Scheme(name="unbounded", action=action)], guard=GUARD, apply=True, own_memory=True)


def test_lru_sorting_of_own_memory_stays_refused() -> None:
    with pytest.raises(NotSupported, match="only the kernel's DAMON"):
        refuse_unsafe([Scheme(name="sort", action=Action.LRU_PRIO)], guard=GUARD, apply=True, own_memory=True)


def test_actions_on_own_memory_need_no_capability(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMTHERM_WITHOUT", "CAP_SYS_ADMIN,CAP_SYS_NICE,CAP_SYS_PTRACE,process_madvise")
    facts = probe_host()
    nodes = [NumaNode(number, 64 * MIB, 32 * MIB) for number in range(2)]
    usable = {way.action for way in rank_own_actions(facts, nodes, numa_maps=True) if way.usable}
    lru = {Action.LRU_PRIO, Action.LRU_DEPRIO}
    huge = {Action.COLLAPSE, Action.HUGEPAGE, Action.NOHUGEPAGE} if not facts.huge_pages.is_usable else set()
    assert usable == set(Action) - lru - huge
    assert {way.action for way in rank_actions(facts, nodes) if way.usable} == {Action.STAT}
    (cold,) = [way for way in rank_own_actions(facts, nodes, numa_maps=False) if way.action is Action.COLD]
    assert not cold.usable
    assert "CAP_SYS_ADMIN" in cold.remedy
    one_node = {way.action: way for way in rank_own_actions(facts, nodes[:1], numa_maps=True)}
    assert one_node[Action.MIGRATE_HOT].reason == "this host has one NUMA node"
    assert [way.action for way in rank_own_actions(facts)] == list(Action)
