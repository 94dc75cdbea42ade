"""Acting on own memory as a user without any privilege: what is told as applied, against witnesses that look."""

import encodings.ascii  # noqa: F401 - a user who may not read the interpreter's folder cannot import it later
import mmap
import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from act.scene import (
    ALL,
    GUARD,
    HUGE,
    MIB,
    PAGE,
    about,
    bytes_in_page_cache,
    bytes_with_page_flags,
    carry_out,
    drop_from_page_cache,
    meminfo_bytes,
    plan,
    present_bytes,
    reasons,
    smaps_bytes,
    status_bytes,
)
from memtherm.act import own_actor as own_module
from memtherm.act.apply import TargetActor
from memtherm.act.own_actor import own_actor
from memtherm.core.filters import Filter, FilterKind
from memtherm.core.guard import GuardSettings
from memtherm.core.plan import Outcome
from memtherm.core.scheme import Action, Destination
from memtherm.errors import InvalidInput, TargetGone
from memtherm.linux.nodes import read_nodes
from memtherm.linux.own_advise import OwnAdvice, advise_own
from support.privileges import run_as_nobody
from support.requires import require
from support.swap import swap_on

REFERENCED, ACTIVE = 1 << 2, 1 << 6
OUTSIDE = "not the array's own memory, or a page that it shares with other memory"

pytestmark = pytest.mark.system


class Memory:
    """Own pages of random bytes, with one page of the same mapping on each side of them."""

    def __init__(self, size_bytes: int, *, huge_advice: OwnAdvice | None = None) -> None:
        self._map = mmap.mmap(-1, size_bytes + 2 * HUGE + PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._whole = np.frombuffer(self._map, np.uint8)
        base = self._whole.ctypes.data
        self.start = (base // HUGE + 1) * HUGE
        self.end = self.start + size_bytes
        self.bytes = self._whole[self.start - base : self.end - base]
        if huge_advice is not None:
            advise_own(np.array([self.start]), np.array([self.end]), huge_advice)
        self._whole[self.start - base - PAGE : self.end - base + PAGE] = 1
        self.bytes[:] = np.frombuffer(os.urandom(size_bytes), np.uint8)

    @property
    def range(self) -> tuple[int, int]:
        return self.start, self.end

    def count(self, field: str) -> int:
        """Sum of a field of smaps over the mappings that the pages lie in."""
        return smaps_bytes(os.getpid(), field, self.start - HUGE - PAGE, self.end + HUGE + PAGE)


@contextmanager
def actor_in(*ranges: tuple[int, int], guard: GuardSettings = GUARD, **more: Any) -> Iterator[TargetActor]:
    actor = own_actor(ranges, guard=guard, apply=True, **more)
    try:
        yield actor
    finally:
        actor.close()


def act(memory: Memory, action: Action, *, guard: GuardSettings = GUARD, **of_scheme: Any) -> Outcome:
    with actor_in(memory.range, guard=guard) as actor:
        return carry_out(actor, plan(action, memory.range, **of_scheme))


def flags_at(address: int) -> set[str]:
    """VmFlags of the mapping there."""
    is_inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        words = line.split()
        if "-" in words[0]:
            first, last = (int(text, 16) for text in words[0].split("-"))
            is_inside = first <= address < last
        elif is_inside and words[0] == "VmFlags:":
            return set(words[1:])
    raise AssertionError(f"nothing is mapped at {address:#x}")


def borders() -> list[str]:
    return [line.split()[0] for line in Path("/proc/self/maps").read_text().splitlines()]


def test_pageout_as_nobody_goes_to_swap_and_loses_nothing() -> None:
    require("root", "swap")

    def attempt() -> tuple[Outcome, int, bool]:
        memory = Memory(16 * MIB)
        before = memory.bytes.copy()
        # A guard of whole targets is none of memory that was named.
        outcome = act(memory, Action.PAGEOUT, guard=replace(GUARD, min_target_bytes=1 << 40))
        return outcome, status_bytes(os.getpid(), "VmSwap"), bool((memory.bytes == before).all())

    with swap_on(128 * MIB):
        outcome, swapped_bytes, is_whole = run_as_nobody(attempt)
    assert outcome.applied_bytes == about(16 * MIB) == about(swapped_bytes)
    assert outcome.refused == ()
    assert is_whole


def test_pageout_without_swap_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMTHERM_WITHOUT", "swap")
    outcome = act(Memory(4 * MIB), Action.PAGEOUT)
    assert (outcome.applied_bytes, reasons(outcome)) == (0, {"anonymous memory, and no swap": 4 * MIB})


@pytest.mark.parametrize("action", [Action.PAGEOUT, Action.COLD])
def test_nothing_outside_of_the_given_pages_is_acted_on(action: Action) -> None:
    require("root", "swap")

    def attempt() -> tuple[Outcome, list[int], int]:
        memory = Memory(8 * MIB, huge_advice=OwnAdvice.NOHUGEPAGE)
        own = [(memory.start + MIB, memory.start + 2 * MIB), (memory.start + 4 * MIB, memory.end - PAGE)]
        with actor_in(*own) as actor:
            outcome = carry_out(actor, plan(action, ALL))
        present = [present_bytes(os.getpid(), *one) for one in [*own, memory.range]]
        return outcome, present, status_bytes(os.getpid(), "VmSwap")

    with swap_on(128 * MIB):
        outcome, (first, second, whole), swapped_bytes = run_as_nobody(attempt)
    own_bytes = 5 * MIB - PAGE
    assert outcome.applied_bytes == about(own_bytes)
    assert reasons(outcome)[OUTSIDE] == outcome.tried_bytes - own_bytes
    if action is Action.PAGEOUT:
        assert swapped_bytes == outcome.applied_bytes == 8 * MIB - whole
        assert first + second == own_bytes - outcome.applied_bytes


def test_cold_is_verified_without_privilege() -> None:
    require("root")

    def attempt() -> tuple[Outcome, int, int]:
        memory = Memory(16 * MIB, huge_advice=OwnAdvice.NOHUGEPAGE)
        before = memory.count("Referenced")
        middle = memory.start + 4 * MIB, memory.start + 12 * MIB
        with actor_in(memory.range) as actor:
            # Every second page: each a range of its own, with hot neighbours in the same mapping.
            ranges = [(start, start + PAGE) for start in range(*middle, 16 * PAGE)]
            outcome = carry_out(actor, plan(Action.COLD, *ranges))
        return outcome, before, memory.count("Referenced")

    outcome, before, after = run_as_nobody(attempt)
    assert outcome.applied_bytes == 8 * MIB // 16 == before - after
    assert outcome.refused == ()


@pytest.mark.parametrize("share", [0, 1, 2])
def test_cold_agrees_with_what_the_kernel_knows_of_each_page(
    file: Path, share: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    require("root")
    view, pages = map_file(file, writable=True)
    for _ in range(3):
        # What is read twice is active.
        file.read_bytes()
    assert sum(view[::PAGE]) > 0
    if bytes_with_page_flags(os.getpid(), *pages, any_of=ACTIVE) != about(16 * MIB):
        pytest.skip("this kernel marks no pages as active (MGLRU), or the folder is in memory")
    # Two ranges of one mapping, told apart, and neither of them cuts a large folio.
    ranges = [(pages[0], pages[0] + 6 * MIB), (pages[1] - 6 * MIB, pages[1])]
    done = ranges[share - 1][1] if share else pages[0]

    def partly(start: Any, end: Any, advice: OwnAdvice) -> Any:
        end = np.maximum(np.minimum(end, np.uint64(done)), start)
        return advise_own(start, end, advice)

    monkeypatch.setattr(own_module, "advise_own", partly)
    with actor_in(pages) as actor:
        outcome = carry_out(actor, plan(Action.COLD, *ranges))
    warm_bytes = sum(bytes_with_page_flags(os.getpid(), *one, any_of=REFERENCED | ACTIVE) for one in ranges)
    assert 12 * MIB - warm_bytes == about(share * 6 * MIB)
    assert outcome.applied_bytes == about(12 * MIB - warm_bytes)


def test_cold_keeps_huge_pages_whole() -> None:
    require("thp")
    memory = Memory(8 * MIB, huge_advice=OwnAdvice.HUGEPAGE)
    assert memory.count("AnonHugePages") == 8 * MIB
    with actor_in(memory.range) as actor:
        outcome = carry_out(actor, plan(Action.COLD, (memory.start + HUGE, memory.end - PAGE)))
    assert outcome.applied_bytes == 4 * MIB
    assert reasons(outcome) == {"less than a whole huge page": HUGE - PAGE}
    assert memory.count("AnonHugePages") == 8 * MIB


def test_cold_of_what_is_touched_again_at_once_is_not_told_as_applied(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory(8 * MIB, huge_advice=OwnAdvice.NOHUGEPAGE)
    touched: list[int] = []

    def late(start: Any, end: Any, advice: OwnAdvice) -> Any:
        answers = advise_own(start, end, advice)
        touched.append(int(memory.bytes[: 3 * MIB : PAGE].sum()))
        return answers

    monkeypatch.setattr(own_module, "advise_own", late)
    outcome = act(memory, Action.COLD)
    assert touched
    assert outcome.applied_bytes == 5 * MIB


def test_cold_that_the_kernel_did_not_do_is_not_told_as_applied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_module, "advise_own", lambda start, *_: np.zeros(len(start), np.int64))
    memory = Memory(4 * MIB)
    outcome = act(memory, Action.COLD)
    assert (outcome.tried_bytes, outcome.applied_bytes) == (4 * MIB, 0)


def test_cold_of_pages_that_a_fork_shares_is_not_told_as_applied() -> None:
    memory = Memory(4 * MIB)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(writer)
        os.read(reader, 1)
        os._exit(0)
    os.close(reader)
    try:
        outcome = act(memory, Action.COLD)
    finally:
        os.close(writer)
        os.waitpid(pid, 0)
    assert (outcome.tried_bytes, outcome.applied_bytes) == (4 * MIB, 0)


@pytest.mark.parametrize("is_dumped", [True, False])
def test_cold_leaves_the_mappings_as_they_were(is_dumped: bool) -> None:
    memory = Memory(8 * MIB)
    if not is_dumped:
        advise_own(np.array([memory.start]), np.array([memory.end]), OwnAdvice.DONTDUMP)
    before, flags = borders(), flags_at(memory.start)
    with actor_in(memory.range) as actor:
        part = memory.start + 2 * MIB, memory.start + 4 * MIB
        assert carry_out(actor, plan(Action.COLD, part)).applied_bytes == about(2 * MIB)
    assert ("dd" in flags) is not is_dumped
    assert flags_at(memory.start + 2 * MIB) == flags
    assert borders() == before


def test_cold_that_nothing_could_verify_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMTHERM_WITHOUT", "CAP_SYS_ADMIN")
    monkeypatch.setattr(own_module, "has_numa_maps", lambda _process: False)
    memory = Memory(4 * MIB)
    before = memory.count("Referenced")
    outcome = act(memory, Action.COLD)
    (refusal,) = outcome.refused
    assert "CAP_SYS_ADMIN" in refusal.reason
    assert refusal.size_bytes == 4 * MIB
    assert (outcome.applied_bytes, memory.count("Referenced")) == (0, before)


def test_willneed_brings_anonymous_memory_to_the_swap_cache_as_nobody() -> None:
    require("root", "swap")

    def attempt() -> tuple[Outcome, Outcome, Outcome, int]:
        memory = Memory(16 * MIB)
        with actor_in(memory.range) as actor:
            out = carry_out(actor, plan(Action.PAGEOUT, memory.range))
            before = meminfo_bytes("SwapCached")
            back = carry_out(actor, plan(Action.WILLNEED, memory.range))
            grown = meminfo_bytes("SwapCached") - before
            # A second time there is nothing to do.
            return out, back, carry_out(actor, plan(Action.WILLNEED, memory.range)), grown

    with swap_on(128 * MIB):
        out, back, again, grown = run_as_nobody(attempt)
    assert back.applied_bytes == about(out.applied_bytes) == about(grown)
    assert (again.applied_bytes, again.refused) == (0, ())


def map_file(path: Path, *, writable: bool) -> tuple[mmap.mmap, tuple[int, int]]:
    with open(path, "r+b" if writable else "rb") as file:
        view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ)
    address = np.frombuffer(view, np.uint8).ctypes.data
    return view, (address, address + path.stat().st_size)


def drop_or_skip(file: Path) -> None:
    drop_from_page_cache(file)
    if bytes_in_page_cache(file):
        pytest.skip(f"{file.parent} is in memory")


def test_willneed_brings_an_own_file_to_the_page_cache_as_nobody(file: Path) -> None:
    require("root")
    os.chown(file, 65534, 65534)
    drop_or_skip(file)

    def attempt() -> tuple[Outcome, Outcome]:
        _view, pages = map_file(file, writable=True)
        with actor_in(pages) as actor:
            return carry_out(actor, plan(Action.WILLNEED, pages)), carry_out(actor, plan(Action.WILLNEED, pages))

    outcome, again = run_as_nobody(attempt)
    assert outcome.applied_bytes == about(16 * MIB) == about(bytes_in_page_cache(file))
    assert (again.applied_bytes, again.refused) == (0, ())


def test_willneed_of_a_file_that_hides_its_pages_is_refused(file: Path) -> None:
    require("root")
    file.chmod(0o644)
    drop_or_skip(file)

    def attempt() -> Outcome:
        _view, pages = map_file(file, writable=False)
        with actor_in(pages) as actor:
            return carry_out(actor, plan(Action.WILLNEED, pages))

    outcome = run_as_nobody(attempt)
    (refusal,) = outcome.refused
    assert "mincore" in refusal.reason
    assert (refusal.size_bytes, outcome.applied_bytes) == (16 * MIB, 0)
    assert bytes_in_page_cache(file) == 0


@pytest.mark.parametrize("hidden", ["", "pagemap_scan"])
def test_collapse_makes_huge_pages_as_nobody(hidden: str, monkeypatch: pytest.MonkeyPatch) -> None:
    require("root", "thp")
    monkeypatch.setenv("MEMTHERM_WITHOUT", hidden)

    def attempt() -> tuple[Outcome, int]:
        memory = Memory(4 * HUGE, huge_advice=OwnAdvice.NOHUGEPAGE)
        guard = replace(GUARD, override_application_hints=True)
        assert memory.count("AnonHugePages") == 0
        advise_own(np.array([memory.start]), np.array([memory.end]), OwnAdvice.HUGEPAGE)
        outcome = act(memory, Action.COLLAPSE, guard=guard)
        return outcome, memory.count("AnonHugePages")

    outcome, huge_bytes = run_as_nobody(attempt)
    assert outcome.applied_bytes == about(4 * HUGE) == huge_bytes
    assert outcome.refused == ()


@pytest.mark.parametrize(("action", "flag"), [(Action.HUGEPAGE, "hg"), (Action.NOHUGEPAGE, "nh")])
def test_huge_page_advice_needs_no_leave_and_is_undone(action: Action, flag: str) -> None:
    require("root", "thp")

    def attempt() -> tuple[Outcome, set[str], tuple[str, ...], set[str], set[str]]:
        memory = Memory(2 * HUGE)
        with actor_in(memory.range) as actor:
            outcome = carry_out(actor, plan(action, (memory.start - PAGE, memory.end + PAGE)))
            given = flags_at(memory.start)
            return outcome, given, actor.end(), flags_at(memory.start), flags_at(memory.start - PAGE)

    outcome, given, sentences, left, beside = run_as_nobody(attempt)
    assert outcome.applied_bytes == 2 * HUGE
    assert reasons(outcome) == {OUTSIDE: 2 * PAGE}
    assert flag in given
    # No advice can be taken away: what it has at the end is what comes nearest to none here.
    (sentence,) = sentences
    assert "that had no huge page advice" in sentence
    assert ("hg" in left) is ("hugepage now" in sentence and "nohugepage" not in sentence)
    assert beside.isdisjoint({"hg", "nh"})


def test_huge_page_advice_stays_where_that_is_asked_for() -> None:
    require("thp")
    memory = Memory(2 * HUGE)
    with actor_in(memory.range, guard=replace(GUARD, keep_huge_page_advice=True)) as actor:
        carry_out(actor, plan(Action.HUGEPAGE, memory.range))
        assert actor.end() == ()
    assert "hg" in flags_at(memory.start)


def test_a_fork_takes_back_the_advice_that_it_has_inherited() -> None:
    require("thp")
    memory = Memory(2 * HUGE, huge_advice=OwnAdvice.NOHUGEPAGE)
    guard = replace(GUARD, override_application_hints=True)
    with actor_in(memory.range, guard=guard) as actor:
        assert carry_out(actor, plan(Action.HUGEPAGE, memory.range)).applied_bytes == 2 * HUGE

        def in_fork() -> tuple[str, bool, tuple[str, ...], set[str]]:
            try:
                carry_out(actor, plan(Action.COLD, memory.range))
                said = ""
            except TargetGone as gone:
                said = str(gone)
            inherited = "hg" in flags_at(memory.start)
            return said, inherited, actor.end(), flags_at(memory.start)

        said, inherited, sentences, flags = run_in_fork(in_fork)
        assert "fork" in said
        assert inherited
        assert sentences == ("4.00 MiB have the huge page advice again that the application gave",)
        assert "nh" in flags
        # The parent goes on.
        assert "hg" in flags_at(memory.start)
        assert actor.end() == sentences
        assert "nh" in flags_at(memory.start)


def run_in_fork(function: Any) -> Any:
    require("root")
    return run_as_nobody(function, user_id=0)


@pytest.mark.parametrize(
    ("action", "had", "reason"),
    [
        (Action.COLLAPSE, OwnAdvice.NOHUGEPAGE, "the application asked for no huge pages (VmFlags nh)"),
        (Action.HUGEPAGE, OwnAdvice.NOHUGEPAGE, "the application asked for no huge pages (VmFlags nh)"),
        (Action.NOHUGEPAGE, OwnAdvice.HUGEPAGE, "the application asked for huge pages (VmFlags hg)"),
    ],
)
def test_what_the_program_has_advised_itself_is_respected(action: Action, had: OwnAdvice, reason: str) -> None:
    require("thp")
    outcome = act(Memory(2 * HUGE, huge_advice=had), action)
    assert (outcome.applied_bytes, reasons(outcome)) == (0, {reason: 2 * HUGE})


def test_migrate_as_nobody_finds_all_pages_on_the_only_node() -> None:
    require("root")
    here = read_nodes()[0].number
    run = run_as_nobody(lambda: act(Memory(2 * MIB), Action.MIGRATE_COLD, destinations=(Destination(here, 1),)))
    assert run.tried_bytes == 2 * MIB
    assert run.refused == ()


def test_migrate_to_a_node_that_does_not_exist_is_refused() -> None:
    outcome = act(Memory(2 * MIB), Action.MIGRATE_HOT, destinations=(Destination(1023, 1),))
    (refusal,) = outcome.refused
    assert "1023 does not exist" in refusal.reason
    assert refusal.size_bytes == 2 * MIB


@contextmanager
def no_numa_balancing() -> Iterator[None]:
    """The kernel moves pages between nodes by itself, too."""
    setting = Path("/proc/sys/kernel/numa_balancing")
    before = setting.read_text() if setting.exists() else ""
    if before:
        setting.write_text("0")
    try:
        yield
    finally:
        if before:
            setting.write_text(before)


def bytes_on_node(memory: Memory, node: int) -> int:
    """By numa_maps."""
    pages = 0
    for line in Path("/proc/self/numa_maps").read_text().splitlines():
        words = line.split()
        if memory.start - HUGE - PAGE <= int(words[0], 16) < memory.end:
            pages += sum(int(word.split("=")[1]) for word in words if word.startswith(f"N{node}="))
    return pages * PAGE


def test_migrate_moves_pages_between_nodes_as_nobody() -> None:
    require("root", "numa")
    first, second, *_ = [node.number for node in read_nodes() if node.total_bytes]

    def attempt() -> list[tuple[int, int]]:
        memory, found = Memory(4 * MIB), []
        for node in (first, second, first):
            outcome = act(memory, Action.MIGRATE_COLD, destinations=(Destination(node, 1),))
            found.append((outcome.applied_bytes, bytes_on_node(memory, node)))
        return found

    with no_numa_balancing():
        _, there, back = run_as_nobody(attempt)
    for applied_bytes, bytes_there in (there, back):
        assert applied_bytes == about(4 * MIB)
        assert bytes_there >= applied_bytes


@pytest.mark.parametrize("action", [Action.LRU_PRIO, Action.LRU_DEPRIO])
def test_what_only_the_kernel_can_do_is_refused(action: Action) -> None:
    outcome = act(Memory(2 * MIB), action)
    assert reasons(outcome) == {f"{action}: only the kernel's DAMON can do it, to physical memory": 2 * MIB}


def test_stat_counts_and_changes_nothing() -> None:
    memory = Memory(2 * MIB)
    before = borders()
    outcome = act(memory, Action.STAT)
    assert (outcome.tried_bytes, outcome.applied_bytes, outcome.refused) == (2 * MIB, 0, ())
    assert borders() == before


def test_a_filter_that_needs_a_privilege_refuses_and_ends_nothing() -> None:
    require("root")

    def attempt() -> Outcome:
        return act(Memory(2 * MIB), Action.COLD, filters=(Filter(kind=FilterKind.ACTIVE, allow=True),))

    outcome = run_as_nobody(attempt)
    (refusal,) = outcome.refused
    assert "CAP_SYS_ADMIN" in refusal.reason
    assert (refusal.size_bytes, outcome.applied_bytes) == (2 * MIB, 0)


def test_a_stop_leaves_the_rest() -> None:
    memory = Memory(64 * MIB)
    with actor_in(memory.range) as actor:
        asked: list[bool] = []

        def stopped() -> bool:
            asked.append(True)
            return len(asked) > 1

        actor.stopped = stopped
        outcome = carry_out(actor, plan(Action.COLD, memory.range))
    assert reasons(outcome) == {"stopped by the user": 48 * MIB}
    assert outcome.applied_bytes == about(16 * MIB)


def test_memory_whose_owner_has_gone_is_left_alone() -> None:
    memory = Memory(2 * MIB)
    owner = np.zeros(1)
    with actor_in(memory.range, owner=weakref.ref(owner)) as actor:
        planned = plan(Action.COLD, memory.range)
        assert carry_out(actor, planned).applied_bytes == 2 * MIB
        allowed = actor.examine(planned)
        del owner
        with pytest.raises(TargetGone, match="freed"):
            actor.carry_out(allowed)


def test_memory_unmapped_meanwhile_is_no_error() -> None:
    memory = Memory(4 * MIB)
    with actor_in(memory.range) as actor:
        allowed = actor.examine(plan(Action.COLD, memory.range))
        memory.bytes = memory._whole = np.zeros(0, np.uint8)
        memory._map.close()
        assert actor.carry_out(allowed).applied_bytes == 0


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        ([(4096, 8191)], "page border"),
        ([(8192, 4096)], "ascending"),
        ([(4096, 12288), (8192, 16384)], "ascending"),
    ],
)
def test_ranges_that_are_none_are_refused(ranges: list[tuple[int, int]], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        own_actor(ranges, guard=GUARD, apply=True)


def test_a_dry_run_changes_nothing() -> None:
    memory = Memory(4 * MIB)
    before = memory.count("Referenced")
    actor = own_actor([memory.range], guard=GUARD, apply=False)
    outcome = carry_out(actor, plan(Action.COLD, memory.range))
    actor.close()
    assert reasons(outcome) == {"dry run": 4 * MIB}
    assert memory.count("Referenced") == before
