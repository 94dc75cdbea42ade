"""Targets that end, exec, free and unmap while they are acted on; and privileges that are missing."""

import ctypes
import mmap
import struct
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from act.scene import (
    MIB,
    about,
    act,
    actor_on,
    carry_out,
    drop_from_page_cache,
    plan,
    reasons,
    smaps_bytes,
    status_bytes,
)
from memtherm.act import advice as advice_module
from memtherm.core.plan import Outcome
from memtherm.core.scheme import Action
from memtherm.errors import InvalidInput, NotPermitted, TargetGone
from memtherm.linux.advise import AdviseResult, advise
from memtherm.linux.process import Process, open_process
from support.children import Child, memory_child
from support.privileges import run_as_nobody
from support.requires import require
from support.swap import swap_on

CAPABILITIES = {"CAP_SYS_NICE": 23, "CAP_SYS_ADMIN": 21}

pytestmark = pytest.mark.system


def just_before_the_advice(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], object]) -> list[int]:
    """Once, between the last look and the system call.  Returns the number of calls, in a list."""
    calls = [0]

    def late(pidfd: int, start: np.ndarray, end: np.ndarray, advice: int) -> AdviseResult:
        calls[0] += 1
        if calls[0] == 1:
            happens()
        return advise(pidfd, start, end, advice)  # type: ignore[arg-type]

    monkeypatch.setattr(advice_module, "advise", late)
    return calls


@pytest.mark.parametrize("leaves_a_zombie", [True, False])
@pytest.mark.parametrize("action", [Action.PAGEOUT, Action.STAT])
def test_a_target_that_is_gone(
    child: Child, process: Process, leaves_a_zombie: bool, action: Action, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = just_before_the_advice(monkeypatch, lambda: None)
    address = child.map_aligned(4 * MIB)
    with actor_on(process) as actor:
        if leaves_a_zombie:
            child.kill()
        else:
            child.end()
        with pytest.raises(TargetGone):
            carry_out(actor, plan(action, (address, address + 4 * MIB)))
    assert calls == [0]


def test_a_closed_process_is_never_another_one(child: Child) -> None:
    address = child.map_aligned(4 * MIB)
    process = open_process(child.pid)
    with actor_on(process) as actor:
        process.close()
        with pytest.raises(TargetGone):
            carry_out(actor, plan(Action.COLD, (address, address + 4 * MIB)))


@pytest.mark.parametrize("action", [Action.PAGEOUT, Action.COLD, Action.COLLAPSE])
def test_a_target_that_ends_between_plan_and_act(
    child: Child, process: Process, file: Path, action: Action, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = child.map(16 * MIB, flags=mmap.MAP_SHARED, path=str(file))
    child.read(address, 4096)
    just_before_the_advice(monkeypatch, child.kill)
    with pytest.raises(TargetGone):
        act(process, action, (address, address + 16 * MIB))


def test_a_target_that_is_killed_while_it_is_paged_out(child: Child, process: Process) -> None:
    require("swap")
    size = 300 * MIB
    address = child.map_aligned(size)
    child.fill(address, size)
    with swap_on(512 * MIB):
        began = threading.Event()

        def kill_when_half_is_gone() -> None:
            began.wait()
            while status_bytes(child.pid, "VmSwap") < size // 3:
                time.sleep(0.001)
            child.kill()

        killer = threading.Thread(target=kill_when_half_is_gone)
        killer.start()
        try:
            with actor_on(process) as actor:
                began.set()
                with pytest.raises(TargetGone):
                    carry_out(actor, plan(Action.PAGEOUT, (address, address + size)))
        finally:
            killer.join()
            child.end()


def test_what_is_unmapped_between_plan_and_act_is_not_told_as_applied(
    child: Child, process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    require("swap")
    address = child.map_aligned(16 * MIB)
    child.fill(address, 16 * MIB)
    just_before_the_advice(monkeypatch, lambda: child.unmap(address + 4 * MIB, 8 * MIB))
    with swap_on(64 * MIB):
        outcome = act(
            process, Action.PAGEOUT, *[(address + at * MIB, address + (at + 4) * MIB) for at in (0, 4, 8, 12)]
        )
        assert outcome.applied_bytes == status_bytes(child.pid, "VmSwap")
        assert outcome.applied_range_bytes.tolist() == [about(size * MIB) for size in (4, 0, 0, 4)]
        child.end()


def test_what_the_target_frees_itself_is_not_told_as_applied(
    child: Child, process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    require("swap")
    address = child.map_aligned(16 * MIB)
    child.fill(address, 16 * MIB)
    just_before_the_advice(monkeypatch, lambda: child.madvise(address, 8 * MIB, mmap.MADV_DONTNEED))
    with swap_on(64 * MIB):
        outcome = act(process, Action.PAGEOUT, (address, address + 16 * MIB))
        assert outcome.applied_bytes == status_bytes(child.pid, "VmSwap") == about(8 * MIB)
        child.end()


def test_a_file_that_is_mapped_elsewhere_meanwhile_is_not_told_as_applied(
    child: Child, process: Process, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = child.map(16 * MIB, flags=mmap.MAP_SHARED, path=str(file), at=1 << 40)
    child.read(address, 4096)

    def remap() -> None:
        child.unmap(address, 16 * MIB)
        child.map(8 * MIB, at=address)

    just_before_the_advice(monkeypatch, remap)
    outcome = act(process, Action.PAGEOUT, (address, address + 8 * MIB), (address + 8 * MIB, address + 16 * MIB))
    assert outcome.applied_bytes == 0


def test_willneed_of_a_file_that_is_unmapped_meanwhile(
    child: Child, process: Process, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = child.map(16 * MIB, flags=mmap.MAP_SHARED, path=str(file), at=1 << 40)
    just_before_the_advice(monkeypatch, lambda: child.unmap(address, 16 * MIB))
    assert act(process, Action.WILLNEED, (address, address + 16 * MIB)).applied_bytes == 0


@pytest.mark.parametrize("goes", ["exit", "exec"])
def test_a_target_that_goes_between_the_look_and_the_act(
    child: Child, process: Process, goes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = just_before_the_advice(monkeypatch, lambda: None)
    address = child.map_aligned(4 * MIB)
    child.write(address, 1024)
    with actor_on(process) as actor:
        possible = actor.examine(plan(Action.COLD, (address, address + 4 * MIB)))
        if goes == "exit":
            child.kill()
            with pytest.raises(TargetGone):
                actor.carry_out(possible)
        else:
            child.exec(sys.executable, "-c", "import time; print(flush=True); time.sleep(60)")
            assert child._process.stdout is not None
            child._process.stdout.readline()
            assert actor.carry_out(possible).applied_bytes == 0
    assert calls == [0]


def test_what_was_not_examined_is_not_acted_on(child: Child, process: Process) -> None:
    address = child.map_aligned(4 * MIB)
    child.write(address, 1024)
    with actor_on(process) as actor:
        for _ in range(2):
            with pytest.raises(InvalidInput, match="nothing was examined"):
                actor.carry_out(np.array([4 * MIB]))
            # Nor twice on one look.
            carry_out(actor, plan(Action.COLD, (address, address + 4 * MIB)))


def test_after_exec_nothing_is_done_on_the_old_plan(child: Child, process: Process) -> None:
    everything = plan(Action.COLD, (0, 1 << 47))
    with actor_on(process) as actor:
        assert carry_out(actor, everything).applied_bytes > 0
        child.exec(sys.executable, "-c", "import time; print(flush=True); time.sleep(60)")
        assert child._process.stdout is not None
        child._process.stdout.readline()
        outcome = carry_out(actor, everything)
        assert reasons(outcome) == {
            "the target has called exec: what was planned was for its old memory": outcome.tried_bytes
        }
        # A plan made after that is for the new memory.
        assert carry_out(actor, everything).applied_bytes > 0


def test_exec_in_the_middle_ends_the_action(
    child: Child, process: Process, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    addresses = sorted(child.map(16 * MIB, flags=mmap.MAP_SHARED, path=str(file)) for _ in range(3))
    child.read(addresses[0], 4096)

    def exec_another() -> None:
        child.exec(sys.executable, "-c", "import time; print(flush=True); time.sleep(60)")
        assert child._process.stdout is not None
        child._process.stdout.readline()

    calls = just_before_the_advice(monkeypatch, exec_another)
    outcome = act(process, Action.PAGEOUT, *[(address, address + 16 * MIB) for address in addresses])
    assert outcome.applied_bytes == 0
    assert calls == [1]


def drop_capability(name: str) -> None:
    """Of this process, for good.  capset(2), version 3."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = ctypes.create_string_buffer(struct.pack("=II", 0x20080522, 0))
    data = ctypes.create_string_buffer(24)
    assert libc.capget(header, data) == 0
    words = list(struct.unpack("=6I", data.raw[:24]))
    for word in range(3):
        words[word] &= ~(1 << CAPABILITIES[name])
    assert libc.capset(header, ctypes.create_string_buffer(struct.pack("=6I", *words))) == 0


@pytest.mark.parametrize("action", [Action.COLD, Action.PAGEOUT, Action.COLLAPSE, Action.WILLNEED])
def test_without_cap_sys_nice_the_first_attempt_says_so(
    child: Child, process: Process, file: Path, action: Action
) -> None:
    address = child.map(16 * MIB, flags=mmap.MAP_PRIVATE, path=str(file))
    if action is Action.WILLNEED:
        drop_from_page_cache(file)
    else:
        child.read(address, 4096)
        child.write(address, 1024)
    before = smaps_bytes(child.pid, "Referenced", address, address + 16 * MIB)

    def attempt() -> Outcome:
        drop_capability("CAP_SYS_NICE")
        return act(process, action, (address, address + 16 * MIB))

    with pytest.raises(NotPermitted) as caught:
        run_as_nobody(attempt, user_id=0)
    assert "CAP_SYS_NICE" in caught.value.hint
    assert smaps_bytes(child.pid, "Referenced", address, address + 16 * MIB) == before
    assert before == (0 if action is Action.WILLNEED else 16 * MIB)


def test_what_could_not_be_verified_is_not_done(child: Child, process: Process) -> None:
    address = child.map_aligned(8 * MIB)
    child.write(address, 2048)

    def attempt() -> Outcome:
        drop_capability("CAP_SYS_ADMIN")
        return act(process, Action.COLD, (address, address + 8 * MIB))

    with pytest.raises(NotPermitted) as caught:
        run_as_nobody(attempt, user_id=0)
    assert "CAP_SYS_ADMIN" in caught.value.hint
    assert smaps_bytes(child.pid, "Referenced", address, address + 8 * MIB) == 8 * MIB


def test_a_target_that_maps_and_unmaps_without_pause(process: Process, child: Child) -> None:
    require("swap")
    address = child.map_aligned(8 * MIB)
    child.fill(address, 8 * MIB)
    program = (
        "import mmap\nprint(flush=True)\nwhile True:\n"
        " kept = [mmap.mmap(-1, (1 + i % 3) * 65536) for i in range(64)]\n"
        " [one.write(b'x' * 4096) for one in kept]\n [one.close() for one in kept[::2]]\n"
    )
    child.exec(sys.executable, "-c", program)
    assert child._process.stdout is not None
    child._process.stdout.readline()
    with swap_on(64 * MIB), actor_on(process) as actor:
        for action in (Action.PAGEOUT, Action.COLD, Action.WILLNEED, Action.COLLAPSE) * 3:
            outcome = carry_out(actor, plan(action, (0, 1 << 47)))
            assert outcome.tried_bytes >= outcome.applied_bytes + outcome.refused_bytes
        child.end()


def test_one_target_does_not_end_the_other(child: Child, process: Process) -> None:
    address = child.map_aligned(4 * MIB)
    child.write(address, 1024)
    with memory_child() as first, open_process(first.pid) as one:
        first.end()
        with pytest.raises(TargetGone):
            act(one, Action.COLD, (address, address + 4 * MIB))
    assert act(process, Action.COLD, (address, address + 4 * MIB)).applied_bytes == about(4 * MIB)
