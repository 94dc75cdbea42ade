"""Guards that look while acting: swap that fills up, a limit of bytes a second, accesses since the last look, hints."""

import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from act.scene import (
    GUARD,
    MIB,
    PAGE,
    about,
    act,
    actor_on,
    carry_out,
    map_small_pages,
    meminfo_bytes,
    plan,
    reasons,
    seen_by,
    smaps_bytes,
    status_bytes,
)
from memtherm.act import advice as advice_module
from memtherm.act.brake import Allowance, Brake
from memtherm.core.pattern import AccessPattern, Bounds
from memtherm.core.scheme import Action, Destination
from memtherm.linux.advise import Advice, AdviseResult, advise
from memtherm.linux.nodes import read_nodes
from memtherm.linux.process import Process, open_process
from memtherm.probe.bpf_census import BpfCensusProbe
from support.children import MADV_HUGEPAGE, MADV_NOHUGEPAGE, Child, memory_child
from support.requires import require
from support.swap import swap_on

NEVER_ACCESSED = AccessPattern(access_rate=Bounds(0, 0))
YOUNG = "accessed since the last look"

pytestmark = pytest.mark.system


@pytest.fixture
def census(process: Process) -> Iterator[BpfCensusProbe]:
    require("bpf")
    probe = BpfCensusProbe(process)
    yield probe
    probe.close()


def test_swap_that_fills_up_while_acting_stops_it(
    child: Child, process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    require("swap")
    address = map_small_pages(child, 48 * MIB)
    child.fill(address, 48 * MIB)
    with memory_child() as other, open_process(other.pid) as neighbour, swap_on(96 * MIB):
        room = map_small_pages(other, 46 * MIB)
        other.fill(room, 46 * MIB)
        assert meminfo_bytes("SwapFree") == about(96 * MIB), "something else uses swap"

        def late(pidfd: int, start: np.ndarray, end: np.ndarray, advice: int) -> AdviseResult:
            if not status_bytes(other.pid, "VmSwap"):
                advise(neighbour.pidfd, [room], [room + 46 * MIB], Advice.PAGEOUT)
            return advise(pidfd, start, end, advice)  # type: ignore[arg-type]

        monkeypatch.setattr(advice_module, "advise", late)
        # Of 96 MiB 19 MiB stay free; the neighbour takes 46, so that 31 are left: two calls of 16 MiB.
        guard = replace(GUARD, min_free_swap=0.2)
        outcome = act(process, Action.PAGEOUT, (address, address + 48 * MIB), guard=guard)
        assert outcome.applied_bytes == about(status_bytes(child.pid, "VmSwap")) == about(32 * MIB)
        assert list(reasons(outcome)) == ["swap filled up while acting"]
        assert outcome.applied_bytes + outcome.refused_bytes == about(48 * MIB)
        child.end()


def test_some_swap_stays_free(child: Child, process: Process) -> None:
    require("swap")
    address = map_small_pages(child, 32 * MIB)
    child.fill(address, 32 * MIB)
    with swap_on(32 * MIB):
        total = meminfo_bytes("SwapTotal")
        assert total == about(32 * MIB), "something else uses swap"
        outcome = act(process, Action.PAGEOUT, (address, address + 32 * MIB), guard=replace(GUARD, min_free_swap=0.25))
        assert meminfo_bytes("SwapFree") == about(total // 4)
        assert reasons(outcome) == {"not enough free swap for anonymous memory": 32 * MIB - outcome.applied_bytes}
        child.end()


def test_all_schemes_together_keep_to_the_rate_limit(
    child: Child, process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    require("swap")
    address = map_small_pages(child, 32 * MIB)
    child.fill(address, 32 * MIB)
    now_s = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now_s[0])
    reason = "rate limit of the target: 2.00 MiB a second"
    with swap_on(64 * MIB), actor_on(process, guard=replace(GUARD, max_bytes_per_s=2 * MIB)) as actor:
        first, second = ((address + at * MIB, address + (at + 16) * MIB) for at in (0, 16))
        outcome = carry_out(actor, plan(Action.PAGEOUT, first))
        # Five seconds' worth at once.
        assert outcome.applied_bytes == 10 * MIB == status_bytes(child.pid, "VmSwap")
        assert reasons(outcome) == {reason: 6 * MIB}
        assert outcome.reached.tolist() == [address + 10 * MIB]
        assert reasons(carry_out(actor, plan(Action.PAGEOUT, second))) == {reason: 16 * MIB}
        # Of what is paged out nothing is brought back beyond the limit, either; what costs little is not limited.
        outcome = carry_out(actor, plan(Action.WILLNEED, first))
        assert (outcome.applied_bytes, reasons(outcome)) == (0, {reason: 10 * MIB})
        assert carry_out(actor, plan(Action.COLD, second)).refused == ()
        now_s[0] += 1.5
        assert carry_out(actor, plan(Action.PAGEOUT, second)).applied_bytes == 3 * MIB
        child.end()


def test_the_brake_leaves_half_or_nothing(child: Child, process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    require("swap")
    address = map_small_pages(child, 16 * MIB)
    child.fill(address, 16 * MIB)
    asked: list[tuple[Action, int]] = []
    answer = Allowance(0.5, "slowed down: a test")

    def allowance(_: Brake, action: Action, working_set_bytes: int) -> Allowance:
        asked.append((action, working_set_bytes))
        return answer

    monkeypatch.setattr(Brake, "allowance", allowance)
    planned = replace(plan(Action.PAGEOUT, (address, address + 16 * MIB)), working_set_bytes=5 * MIB)
    with swap_on(64 * MIB), actor_on(process) as actor:
        outcome = carry_out(actor, planned)
        assert outcome.applied_bytes == 8 * MIB == status_bytes(child.pid, "VmSwap")
        assert reasons(outcome) == {"slowed down: a test": 8 * MIB}
        answer = Allowance(0.0, "stopped: a test")
        outcome = carry_out(actor, planned)
        assert (outcome.applied_bytes, reasons(outcome)) == (0, {"stopped: a test": 8 * MIB})
        assert asked == [(Action.PAGEOUT, 5 * MIB)] * 2
        child.end()


@pytest.mark.parametrize("action", [Action.PAGEOUT, Action.COLD])
def test_what_was_accessed_since_the_last_look_is_spared(
    child: Child, process: Process, census: BpfCensusProbe, action: Action
) -> None:
    require("swap")
    address = map_small_pages(child, 16 * MIB)
    child.fill(address, 16 * MIB)
    census.ranges()
    census.clear(census.look())
    assert smaps_bytes(child.pid, "Referenced", address, address + 16 * MIB) <= MIB // 16
    # Between the look and the act.
    child.write(address + 5 * MIB, 256)
    child.read(address + 9 * MIB, 100, step=2)
    touched = MIB + 50 * PAGE
    with swap_on(64 * MIB), actor_on(process) as actor:
        outcome = carry_out(actor, plan(action, (address, address + 16 * MIB), pattern=NEVER_ACCESSED), seen_by(census))
        assert reasons(outcome) == {YOUNG: touched}
        assert outcome.applied_bytes == about(16 * MIB - touched)
        assert smaps_bytes(child.pid, "Referenced", address, address + 16 * MIB) == touched
        if action is Action.PAGEOUT:
            assert status_bytes(child.pid, "VmSwap") == outcome.applied_bytes
        child.end()


def test_who_plans_accessed_memory_gets_it(child: Child, process: Process, census: BpfCensusProbe) -> None:
    address = map_small_pages(child, 4 * MIB)
    child.write(address, 1024)
    with actor_on(process) as actor:
        for pattern in (AccessPattern(), AccessPattern(access_rate=Bounds(0, 0.5))):
            child.write(address, 1024)
            outcome = carry_out(
                actor, plan(Action.COLD, (address, address + 4 * MIB), pattern=pattern), seen_by(census)
            )
            assert (outcome.applied_bytes, outcome.refused) == (about(4 * MIB), ())


@pytest.mark.parametrize("override", [False, True])
def test_hints_of_the_application(child: Child, process: Process, override: bool) -> None:
    require("thp", "ptrace")
    address = child.map_aligned(8 * MIB)
    child.madvise(address, 4 * MIB, MADV_HUGEPAGE)
    child.madvise(address + 4 * MIB, 4 * MIB, MADV_NOHUGEPAGE)
    child.write(address, 2048)
    guard = replace(GUARD, allow_ptrace=True, override_application_hints=override)
    with actor_on(process, guard=guard) as actor:
        outcome = carry_out(actor, plan(Action.NOHUGEPAGE, (address, address + 4 * MIB)))
        wanted = {} if override else {"the application asked for huge pages (VmFlags hg)": 4 * MIB}
        assert (reasons(outcome), outcome.applied_bytes) == (wanted, 4 * MIB * override)
        outcome = carry_out(actor, plan(Action.HUGEPAGE, (address + 4 * MIB, address + 8 * MIB)))
        wanted = {} if override else {"the application asked for no huge pages (VmFlags nh)": 4 * MIB}
        assert (reasons(outcome), outcome.applied_bytes) == (wanted, 4 * MIB * override)
        assert bool(actor.end()) == override
    assert child.read(address, 2048) == 2048


def flags_at(pid: int, address: int) -> list[str]:
    """VmFlags of the mapping that begins there."""
    is_it = False
    with open(f"/proc/{pid}/smaps", encoding="utf-8") as file:
        for line in file:
            words = line.split()
            if "-" in words[0]:
                is_it = int(words[0].split("-")[0], 16) == address
            elif is_it and words[0] == "VmFlags:":
                return words[1:]
    return []


@pytest.mark.parametrize("keep", [False, True])
def test_our_own_advice_is_no_wish_of_the_application(child: Child, process: Process, keep: bool) -> None:
    require("thp", "ptrace")
    address = child.map_aligned(8 * MIB)
    child.write(address, 2048)
    guard = replace(GUARD, allow_ptrace=True, keep_huge_page_advice=keep)
    with actor_on(process, guard=guard) as actor:
        planned = {action: plan(action, (address, address + 8 * MIB)) for action in Action}
        assert actor.examine(planned[Action.HUGEPAGE]).tolist() == [8 * MIB]
        outcome = actor.carry_out(np.array([5 * MIB]))
        assert (outcome.applied_bytes, outcome.reached.tolist()) == (4 * MIB, [address + 4 * MIB])
        assert "hg" in flags_at(child.pid, address)
        outcome = carry_out(actor, planned[Action.NOHUGEPAGE])
        assert (outcome.applied_bytes, outcome.refused) == (8 * MIB, ())
        assert "nh" in flags_at(child.pid, address)
        outcome = carry_out(actor, planned[Action.HUGEPAGE])
        assert (outcome.applied_bytes, outcome.refused) == (8 * MIB, ())
        told = actor.end()
        assert bool(told) == (not keep)
        assert "hg" in flags_at(child.pid, address) or not keep


def test_migrate_says_what_is_wrong_with_its_destination(child: Child, process: Process) -> None:
    address = map_small_pages(child, 4 * MIB)
    child.write(address, 1024)
    absent = max(node.number for node in read_nodes()) + 5
    with actor_on(process) as actor:
        planned = plan(Action.MIGRATE_COLD, (address, address + 4 * MIB), destinations=(Destination(absent),))
        (refusal,) = carry_out(actor, planned).refused
        assert f"node {absent} does not exist" in refusal.reason
        assert refusal.size_bytes == 4 * MIB


def test_migrate_to_where_memory_is_already(child: Child, process: Process) -> None:
    if len(read_nodes()) > 1:
        pytest.skip("memory may lie on another node")
    address = map_small_pages(child, 4 * MIB)
    child.write(address, 1024)
    with actor_on(process) as actor:
        planned = plan(Action.MIGRATE_HOT, (address, address + 4 * MIB), destinations=(Destination(0),))
        assert actor.examine(planned).tolist() == [0]
        outcome = actor.carry_out(np.array([0]))
    assert (outcome.applied_bytes, outcome.refused, outcome.tried_bytes) == (0, (), 4 * MIB)
