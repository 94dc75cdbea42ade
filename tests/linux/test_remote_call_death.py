"""We die, at any moment, while we hold another program by ptrace: it must run on unharmed.

The witnesses are the program's own checks of its registers, and /proc.
"""

import errno
import os
import platform
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from memtherm.linux import held_thread, remote_call
from memtherm.linux import remote_call_x86_64 as machine
from memtherm.linux.process import Process
from memtherm.linux.remote_call import PtraceAdvice, advise_by_ptrace
from support.held_programs import (
    MIB,
    Program,
    advise_once,
    asleep,
    assert_unharmed,
    flagged,
    prepare,
    running,
    status,
    stopped,
    wait_until,
    wait_until_let_go,
)
from support.requires import require

PAGE = 4096

pytestmark = pytest.mark.skipif(platform.machine() != machine.MACHINE, reason=f"only on {machine.MACHINE}")


STEPS = ("stop", "prepare", "arm", "call", "second call", "mask", "restore", "detach")


def die_after(program: Program, step: str) -> None:
    """In a fork: hold the program, and kill ourselves after that step."""

    def reached(name: str) -> None:
        if name == step:
            os.kill(os.getpid(), signal.SIGKILL)

    thread = stopped(program)
    reached("stop")
    prepare(program, thread)
    reached("prepare")
    thread.arm(program.start, MIB, PtraceAdvice.HUGEPAGE)
    reached("arm")
    thread.call(program.start, MIB, PtraceAdvice.HUGEPAGE)
    reached("call")
    thread._set_call(program.start + MIB, MIB, PtraceAdvice.HUGEPAGE)
    thread.tracee.resume_to_system_call()
    thread.tracee.wait(5)
    reached("second call")
    mask = thread._signal_mask
    thread.tracee.set_signal_mask(mask)
    reached("mask")
    thread.restore(5)
    reached("restore")
    thread.tracee.detach()
    reached("detach")


def in_fork(work: Callable[[], None]) -> None:
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL


@pytest.mark.parametrize("step", STEPS)
def test_a_death_of_ours_after_each_step_harms_no_register(programs: Path, step: str) -> None:
    require("thp")
    with running(programs, "steady_registers") as program:
        blocked = status(program.process.pid, "SigBlk")
        for _ in range(5):
            in_fork(lambda: die_after(program, step))
            assert_unharmed(program, blocked=blocked)
            program.say()
            assert int(program.line()) >= 0
        has_advised = (program.start, program.start + MIB) in flagged(program.process, "hg")
        if step in ("stop", "prepare"):
            assert not has_advised
        elif step == "arm":
            assert has_advised
        assert program.end() == 0


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("habit", ["read", "epoll_endless", "nanosleep"])
def test_a_death_of_ours_during_a_wait(programs: Path, habit: str, step: str) -> None:
    require("thp")
    with running(programs, "held_program", habit, "500") as program:
        wait_until(lambda: asleep(program), "it never waits")
        in_fork(lambda: die_after(program, step))
        wait_until_let_go(program.process.pid)
        with suppress(BrokenPipeError):  # it may have ended
            program.say()
        result, number, _ = program.answer()
        # Only what kept its remaining time in the kernel is told of an interruption, and only by the parachute.
        # Between the stop and the first look at the registers nothing can be hidden.
        allowed = {(0, 0)}
        if (habit == "nanosleep" and step in STEPS[2:6]) or (habit == "epoll_endless" and step == "stop"):
            allowed.add((-1 if habit == "nanosleep" else -2, errno.EINTR))
        assert (result, number) in allowed


HAMMER = """
import sys
from memtherm.linux.process import open_process
from memtherm.linux.remote_call import PtraceAdvice, advise_by_ptrace
pid, start = map(int, sys.argv[1:])
starts = [start + index * 8192 for index in range(64)]
with open_process(pid) as process:
    for count in range(10**9):
        advice = PtraceAdvice(14 + count % 2)
        advise_by_ptrace(process, starts, [start + 4096 for start in starts], advice, patience_s=5)
        if count == 0:
            print("hammering", flush=True)
"""


def test_sigkill_of_ours_at_a_hundred_random_moments(programs: Path) -> None:
    require("thp")
    generator = random.Random(4)
    with running(programs, "steady_registers") as program:
        process = program.process
        blocked = status(process.pid, "SigBlk")
        agents_of_one = 25
        for _ in range(4):
            for _ in range(agents_of_one):
                pid = os.fork()
                if pid == 0:
                    hammer(process, program.start)
                # Long enough to be in the middle of it, at every phase.
                wait_until(lambda: status(process.pid, "TracerPid") != "0", "it is never held")
                end_s = time.monotonic() + generator.uniform(0, 10e-3)
                while time.monotonic() < end_s:
                    pass
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                assert_unharmed(program, blocked=blocked)
            program.say()
            assert int(program.line()) >= 0
        assert program.end() == 0


def hammer(process: Process, start: int) -> None:
    """Never returns."""
    try:
        starts = start + np.arange(64, dtype=np.uint64) * np.uint64(2 * PAGE)
        count = 0
        while True:
            advice = PtraceAdvice(14 + count % 2)
            advise_by_ptrace(process, starts, starts + np.uint64(PAGE), advice, patience_s=5)
            count += 1
    finally:
        os._exit(1)


def test_sigkill_of_a_whole_program_of_ours(programs: Path) -> None:
    require("thp")
    with running(programs, "steady_registers") as program:
        blocked = status(program.process.pid, "SigBlk")
        for _ in range(5):
            arguments = [sys.executable, "-c", HAMMER, str(program.process.pid), str(program.start)]
            with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as agent:
                assert agent.stdout is not None
                assert agent.stdout.readline() == "hammering\n"
                agent.kill()
            assert_unharmed(program, blocked=blocked)
        assert program.end() == 0


def test_a_thread_that_does_not_come_back_in_time_is_let_go_unharmed(
    programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require("thp")
    monkeypatch.setattr(held_thread, "RETURN_S", 0.0)
    monkeypatch.setattr(remote_call, "RETURN_S", 0.0)
    monkeypatch.setattr(remote_call, "_INTERRUPT_S", 0.0)
    with running(programs, "steady_registers") as program:
        blocked = status(program.process.pid, "SigBlk")
        results = set()
        for count in range(50):
            results.add(advise_once(program, PtraceAdvice(14 + count % 2)))
            assert_unharmed(program, blocked=blocked)
        assert -errno.EINPROGRESS in results
        assert results <= {0, -errno.EINTR, -errno.EINPROGRESS}
        program.say()
        assert int(program.line()) > 0
        assert program.end() == 0
