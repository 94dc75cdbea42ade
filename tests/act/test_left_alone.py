"""What an actor leaves alone: targets that cannot give advice, too many mappings, what is left at a stop, and exec."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from mmap import MAP_PRIVATE
from pathlib import Path

import numpy as np
import pytest

from act.scene import ALL, GUARD, HUGE, MIB, actor_on, carry_out, map_small_pages, plan, reasons, smaps_bytes
from memtherm.act import huge_advice
from memtherm.act import migrate as migrate_module
from memtherm.act.pieces import Pieces
from memtherm.core.ranges import Addresses, intersect
from memtherm.core.scheme import Action, Destination
from memtherm.errors import NotPermitted, NotSupported, TargetGone
from memtherm.linux.maps import read_smaps
from memtherm.linux.nodes import read_nodes
from memtherm.linux.process import Process
from memtherm.linux.remote_call import PtraceAdvice, advise_by_ptrace
from support.children import MADV_HUGEPAGE, MAP_FIXED, Child
from support.held_programs import compiled_programs, flagged, running
from support.requires import require

BY_PTRACE = replace(GUARD, allow_ptrace=True)
STOPPED = "stopped by the user"

pytestmark = pytest.mark.system


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    os.waitid(os.P_PID, pid, os.WSTOPPED)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_target_with_seccomp_is_refused_and_lives_on() -> None:
    require("root", "ptrace", "thp")
    with compiled_programs() as folder, running(folder, "held_program", "seccomp") as program:
        assert program.line() == "ready\n"
        with actor_on(program.process, guard=BY_PTRACE) as actor:
            for action in (Action.HUGEPAGE, Action.NOHUGEPAGE):
                outcome = carry_out(actor, plan(action, ALL))
                ((reason, size_bytes),) = reasons(outcome).items()
                assert "seccomp" in reason
                assert size_bytes == outcome.tried_bytes > 0
            assert actor.end() == ()
        program.say()
        assert program.answer()[:2] == (0, 0)


def test_a_stopped_target_is_refused_and_lives_on(child: Child, process: Process) -> None:
    require("ptrace", "thp")
    address = child.map_aligned(2 * HUGE)
    with actor_on(process, guard=BY_PTRACE) as actor:
        planned = plan(Action.HUGEPAGE, (address, address + 2 * HUGE))
        with stopped(child.pid):
            assert reasons(carry_out(actor, planned)) == {f"process {child.pid} is stopped": 2 * HUGE}
        # Between the look and the act.
        possible = actor.examine(planned)
        with stopped(child.pid):
            outcome = actor.carry_out(possible)
        assert (outcome.applied_bytes, reasons(outcome)) == (0, {f"process {child.pid} is stopped": 2 * HUGE})
        assert carry_out(actor, planned).applied_bytes == 2 * HUGE


@pytest.mark.parametrize("error", [NotPermitted("a debugger came", hint=""), NotSupported("no way back", hint="")])
def test_what_was_done_before_a_refusal_counts_and_is_undone(
    child: Child, process: Process, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    require("ptrace", "thp")
    address = child.map_aligned(4 * HUGE)

    def half(process: Process, start: Addresses, end: Addresses, advice: PtraceAdvice) -> np.ndarray:
        advise_by_ptrace(process, start, start + (end - start) // np.uint64(2), advice, patience_s=5)
        raise error

    with actor_on(process, guard=BY_PTRACE) as actor:
        with monkeypatch.context() as patch:
            patch.setattr(huge_advice, "advise_by_ptrace", half)
            outcome = carry_out(actor, plan(Action.NOHUGEPAGE, (address, address + 4 * HUGE)))
        assert (outcome.applied_bytes, reasons(outcome)) == (2 * HUGE, {str(error): 2 * HUGE})
        assert flagged(process, "nh") == [(address, address + 2 * HUGE)]
        assert "4.00 MiB that had no huge page advice" in actor.end()[0]


def test_advice_that_failed_is_not_taken_for_ours(
    child: Child, process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    require("ptrace", "thp")
    address = child.map_aligned(2 * HUGE)
    span = (address, address + 2 * HUGE)

    def failing(_process: Process, start: Addresses, _end: Addresses, _advice: PtraceAdvice) -> np.ndarray:
        return np.full(len(start), -22, np.int64)

    with actor_on(process, guard=BY_PTRACE) as actor:
        with monkeypatch.context() as patch:
            patch.setattr(huge_advice, "advise_by_ptrace", failing)
            assert carry_out(actor, plan(Action.HUGEPAGE, span)).applied_bytes == 0
        child.madvise(address, 2 * HUGE, MADV_HUGEPAGE)
        outcome = carry_out(actor, plan(Action.NOHUGEPAGE, span))
        assert reasons(outcome) == {"the application asked for huge pages (VmFlags hg)": 2 * HUGE}
        assert actor.end() == ()


def test_a_new_mapping_with_advice_is_not_taken_for_ours(child: Child, process: Process, tmp_path: Path) -> None:
    require("ptrace", "thp")
    address = child.map_aligned(2 * HUGE)
    span = (address, address + 2 * HUGE)
    path = tmp_path / "file"
    path.write_bytes(bytes(2 * HUGE))
    with actor_on(process, guard=BY_PTRACE) as actor:
        assert carry_out(actor, plan(Action.HUGEPAGE, span)).applied_bytes == 2 * HUGE
        child.unmap(address, 2 * HUGE)
        assert child.map(2 * HUGE, at=address, path=str(path), flags=MAP_PRIVATE | MAP_FIXED) == address
        child.madvise(address, 2 * HUGE, MADV_HUGEPAGE)
        assert set(reasons(carry_out(actor, plan(Action.NOHUGEPAGE, span)))) == {
            "the application asked for huge pages (VmFlags hg)"
        }
        assert actor.end() == ()


@pytest.mark.parametrize("looks_again", [False, True])
def test_after_exec_nothing_is_undone(child: Child, process: Process, looks_again: bool) -> None:
    require("ptrace", "thp")
    address = child.map_aligned(2 * HUGE)
    with actor_on(process, guard=BY_PTRACE) as actor:
        planned = plan(Action.HUGEPAGE, (address, address + 2 * HUGE))
        assert carry_out(actor, planned).applied_bytes == 2 * HUGE
        assert len(actor._advice_log) == 1
        child.exec("/bin/cat")
        while process.read_file("comm") != b"cat\n":
            os.sched_yield()
        if looks_again:
            carry_out(actor, plan(Action.HUGEPAGE, ALL))
            assert len(actor._advice_log) == 0
        assert actor.end() == ()
        assert flagged(process, "nh") == []


def test_mappings_are_not_split_beyond_half_of_the_hosts_limit(
    child: Child, process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    require("ptrace", "thp")
    address = child.map_aligned(16 * MIB)
    planned = plan(Action.HUGEPAGE, *((address + at * MIB, address + (at + 2) * MIB) for at in (0, 4, 8, 12)))
    count = len(read_smaps(process))
    for room, applied in ((-1, 0), (1, 0), (5, 4 * MIB)):
        monkeypatch.setattr(huge_advice, "read_max_map_count", lambda room=room: 2 * (count + room))
        with actor_on(process, guard=replace(BY_PTRACE, keep_huge_page_advice=True)) as actor:
            outcome = carry_out(actor, planned)
        ((reason, size_bytes),) = reasons(outcome).items()
        assert (outcome.applied_bytes, size_bytes) == (applied, 8 * MIB - applied)
        assert f"{count} mappings, and to split off 4 ranges" in reason
        assert f"vm.max_map_count ({2 * (count + room)})" in reason


@pytest.mark.parametrize("action", [Action.COLD, Action.COLLAPSE])
def test_a_stop_is_seen_between_calls(child: Child, process: Process, action: Action) -> None:
    require("thp")
    address = map_small_pages(child, 48 * MIB) if action is Action.COLD else child.map_aligned(48 * MIB)
    child.write(address, 48 * 256)
    with actor_on(process) as actor:
        possible = actor.examine(plan(action, (address, address + 48 * MIB)))
        answers = iter([False, True])
        actor.stopped = lambda: next(answers)
        outcome = actor.carry_out(possible)
    assert reasons(outcome) == {STOPPED: 32 * MIB}
    if action is Action.COLD:
        assert outcome.applied_bytes == 16 * MIB
        assert smaps_bytes(child.pid, "Referenced", address, address + 48 * MIB) == 32 * MIB


def test_a_stop_is_seen_before_the_target_is(child: Child, process: Process) -> None:
    require("ptrace", "thp")
    address = child.map_aligned(2 * HUGE)
    with actor_on(process, guard=BY_PTRACE) as actor:
        actor.stopped = lambda: True
        outcome = carry_out(actor, plan(Action.HUGEPAGE, (address, address + 2 * HUGE)))
    assert (outcome.applied_bytes, reasons(outcome)) == (0, {STOPPED: 2 * HUGE})
    assert flagged(process, "hg") == []


def pieces_of(process: Process, start: int, end: int) -> Pieces:
    mappings = read_smaps(process).mappings
    span = np.array([start], np.uint64), np.array([end], np.uint64)
    return Pieces(*intersect(*span, mappings.starts, mappings.ends))


def test_pages_are_moved_in_batches(child: Child, process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    address = map_small_pages(child, 8 * MIB)
    child.write(address, 8 * 256)
    pieces, mappings = pieces_of(process, address, address + 8 * MIB), read_smaps(process)
    here = next(node.number for node in read_nodes() if node.total_bytes)
    monkeypatch.setattr(migrate_module, "_BATCH_BYTES", 2 * MIB)
    batches: list[int] = []

    def spy(_pid: int, pages: Addresses, nodes: np.ndarray, *, move_shared: bool) -> np.ndarray:
        del move_shared
        batches.append(len(pages))
        return nodes

    monkeypatch.setattr(migrate_module, "move_pages", spy)
    destinations = (Destination(here),)
    assert migrate_module.migrate(process, pieces, destinations, mappings) == 0
    assert sum(batches) == 2048
    assert max(batches) <= 512
    answers = iter([False, True])
    done = len(batches)
    left = migrate_module.migrate(process, pieces, destinations, mappings, stopped=lambda: next(answers))
    assert left == 8 * MIB - 4096 * sum(batches[done:])
    assert len(batches) == done + 1


def test_after_its_end_no_batch_is_moved(child: Child, process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    address = map_small_pages(child, 8 * MIB)
    child.write(address, 8 * 256)
    pieces, mappings = pieces_of(process, address, address + 8 * MIB), read_smaps(process)
    monkeypatch.setattr(migrate_module, "_BATCH_BYTES", 2 * MIB)
    batches: list[int] = []

    def last_one(_pid: int, pages: Addresses, nodes: np.ndarray, *, move_shared: bool) -> np.ndarray:
        del move_shared
        batches.append(len(pages))
        child.kill()
        return nodes

    monkeypatch.setattr(migrate_module, "move_pages", last_one)
    with pytest.raises(TargetGone):
        migrate_module.migrate(process, pieces, (Destination(0),), mappings)
    assert len(batches) == 1
