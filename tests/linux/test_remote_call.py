"""madvise in another process's name, on real programs; the witnesses are smaps and the programs' own checks."""

import errno
import os
import platform
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from memtherm.errors import InvalidInput, NotPermitted, NotSupported, TargetGone
from memtherm.linux import remote_call
from memtherm.linux import remote_call_x86_64 as machine
from memtherm.linux.held_thread import HeldThread, NotNow, thread_refusal
from memtherm.linux.process import Process, open_process
from memtherm.linux.remote_call import PtraceAdvice, advise_by_ptrace, remote_call_refusal
from support.held_programs import (
    MIB,
    advise_once,
    asleep,
    flagged,
    prepare,
    running,
    status,
    stopped,
    wait_until,
)
from support.privileges import run_as_nobody
from support.requires import require

PAGE = 4096

pytestmark = pytest.mark.skipif(platform.machine() != machine.MACHINE, reason=f"only on {machine.MACHINE}")


def test_the_flags_are_set_on_the_exact_ranges_and_only_there(programs: Path) -> None:
    require("thp")
    with running(programs, "steady_registers") as program:
        process, start = program.process, program.start
        assert remote_call_refusal(process) == ""
        before = flagged(process, "hg")
        starts = np.array([start + 2 * MIB, start + 10 * MIB, start + 20 * MIB], np.uint64)
        ends = starts + np.array([PAGE, 3 * MIB, 0], np.uint64)
        assert advise_by_ptrace(process, starts, ends, PtraceAdvice.HUGEPAGE, patience_s=5).tolist() == [0, 0, 0]
        wanted = [(int(begin), int(end)) for begin, end in zip(starts[:2], ends[:2], strict=True)]
        assert flagged(process, "hg") == sorted(before + wanted)
        assert advise_by_ptrace(process, starts[1], ends[1], PtraceAdvice.NOHUGEPAGE, patience_s=5).tolist() == [0]
        assert flagged(process, "hg") == sorted([*before, wanted[0]])
        assert flagged(process, "nh") == [wanted[1]]
        assert program.end() == 0


def test_many_ranges_and_the_errno_of_each(programs: Path) -> None:
    require("thp")
    with running(programs, "steady_registers") as program:
        starts = program.start + np.arange(1000, dtype=np.uint64) * np.uint64(2 * PAGE)
        starts[[0, 500, 999]] = 1 << 45
        result = advise_by_ptrace(
            program.process, starts, starts + np.uint64(PAGE), PtraceAdvice.HUGEPAGE, patience_s=10
        )
        assert np.flatnonzero(result).tolist() == [0, 500, 999]
        assert set(result[[0, 500, 999]].tolist()) == {-errno.ENOMEM}
        assert len(flagged(program.process, "hg")) == 997
        assert program.end() == 0


def test_all_registers_are_unharmed_after_two_hundred_stops(programs: Path) -> None:
    require("thp")
    with running(programs, "steady_registers") as program:
        for count in range(200):
            assert advise_once(program, PtraceAdvice(14 + count % 2)) == 0
            assert not program.has_ended()
        assert status(program.process.pid, "TracerPid") == "0"
        program.say()
        assert int(program.line()) > 0
        assert program.end() == 0


def test_the_time_of_a_stop(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Quiet machine: see the numbers that a failure prints.  The bound holds for a loaded one."""
    require("thp")
    held_s: list[float] = []
    real = remote_call._hold

    def measured(process: Process, thread_id: int, work: remote_call._Work) -> remote_call._Outcome:
        outcome = real(process, thread_id, work)
        held_s.append(outcome.held_s)
        return outcome

    monkeypatch.setattr(remote_call, "_hold", measured)
    with running(programs, "steady_registers") as program:
        for count in range(100):
            assert advise_once(program, PtraceAdvice(14 + count % 2)) == 0
    print(f"held for one range: {np.percentile(held_s, [0, 50, 90, 100]) * 1e6} µs")
    assert np.median(held_s) < 10e-3


@pytest.mark.parametrize(
    "habit", ["nanosleep", "clock_nanosleep", "poll", "ppoll", "select", "futex", "read", "epoll_endless"]
)
def test_an_interrupted_wait_goes_on_with_its_remaining_time(programs: Path, habit: str) -> None:
    require("thp")
    with running(programs, "held_program", habit, "700") as program:
        wait_until(lambda: asleep(program), "it never waits")
        end_s = time.monotonic() + 0.5
        stops = 0
        while time.monotonic() < end_s:
            assert advise_once(program, PtraceAdvice(14 + stops % 2)) == 0
            stops += 1
        assert stops > 5
        assert not program.has_ended()
        program.say()
        result, number, elapsed_ms = program.answer()
        assert (result, number) == (0, 0)
        if habit not in ("read", "epoll_endless"):
            assert 699 <= elapsed_ms < 900


def test_a_short_epoll_wait_begins_anew_and_a_long_one_is_left_alone(programs: Path) -> None:
    require("thp")
    with running(programs, "held_program", "epoll_short", "400") as program:
        wait_until(lambda: asleep(program), "it never waits")
        assert advise_once(program) == 0
        result, number, elapsed_ms = program.answer()
        assert (result, number) == (0, 0)
        assert 399 <= elapsed_ms < 1000
    with running(programs, "held_program", "epoll_short", "30000") as program:
        wait_until(lambda: asleep(program), "it never waits")
        ranges = [program.start], [program.start + MIB]
        result_of = advise_by_ptrace(program.process, *ranges, PtraceAdvice.HUGEPAGE, patience_s=0.05)
        assert result_of.tolist() == [-errno.EINTR]
        program.say()
        assert program.answer()[:2] == (1, 0)


@pytest.mark.parametrize("habit", ["sigsuspend", "epoll_signal"])
def test_a_signal_still_ends_a_wait_that_is_held_all_the_time(programs: Path, habit: str) -> None:
    require("thp")
    with running(programs, "held_program", habit) as program:
        wait_until(lambda: asleep(program), "it never waits")
        for count in range(20):
            assert advise_once(program, PtraceAdvice(14 + count % 2)) == 0
        os.kill(program.process.pid, signal.SIGUSR1)
        assert program.answer()[:2] == (-1, errno.EINTR)


@pytest.mark.parametrize("habit", ["many_threads", "main_exits"])
def test_processes_of_several_threads(programs: Path, habit: str) -> None:
    require("thp")
    with running(programs, "held_program", habit) as program:
        pid = program.process.pid
        if habit == "main_exits":
            program.say()
        wait_until(lambda: int(status(pid, "Threads")) == {"many_threads": 51, "main_exits": 2}[habit], "no threads")
        if habit == "main_exits":
            wait_until(lambda: status(pid, "State").startswith("Z"), "the main thread lives")
        assert remote_call_refusal(program.process) == ""
        for count in range(20):
            assert advise_once(program, PtraceAdvice(14 + count % 2)) == 0
        program.say()
        assert program.answer()[:2] == (0, 0)


@pytest.mark.parametrize("habit", ["signals", "signals_restart"])
def test_a_timer_of_a_thousand_signals_a_second_loses_none(programs: Path, habit: str) -> None:
    require("thp")
    with running(programs, "held_program", habit) as program:
        for count in range(60):
            assert advise_once(program, PtraceAdvice(14 + count % 2)) == 0
        program.say()
        handled, interrupted, elapsed_ms = program.answer()
        assert abs(handled - elapsed_ms) < 10
        assert (interrupted == 0) == (habit == "signals_restart")


def test_queued_signals_are_all_taken(programs: Path) -> None:
    require("thp")
    with running(programs, "held_program", "queued") as program:
        assert program.line() == "ready\n"
        for count in range(100):
            for _ in range(5):
                os.kill(program.process.pid, signal.SIGRTMIN)
            assert advise_once(program, PtraceAdvice(14 + count % 2)) == 0
        program.say()
        assert program.answer()[0] == 500


def test_a_program_that_uses_vfork_all_the_time(programs: Path) -> None:
    require("thp")
    with running(programs, "held_program", "forks", "4000") as program:
        done = 0
        with suppress(TargetGone):  # on a slow machine it ends first
            for count in range(20):
                done += advise_once(program, PtraceAdvice(14 + count % 2)) == 0
        assert done > 0
        assert program.answer()[:2] == (0, 0)


def test_a_stopped_process_is_refused_and_stays_stopped(programs: Path) -> None:
    with running(programs, "held_program", "read") as program:
        pid = program.process.pid
        wait_until(lambda: asleep(program), "it never waits")
        os.kill(pid, signal.SIGSTOP)
        wait_until(lambda: status(pid, "State").startswith("T"), "it does not stop")
        assert "is stopped" in remote_call_refusal(program.process)
        with pytest.raises(NotSupported, match="is stopped"):
            advise_once(program)
        thread = HeldThread(program.process, pid)
        with pytest.raises(NotNow, match="it is stopped"):
            thread.stop(5)
        thread.close()
        wait_until(lambda: status(pid, "State").startswith("T"), "it runs")
        assert status(pid, "TracerPid") == "0"
        os.kill(pid, signal.SIGCONT)
        program.say()
        assert program.answer()[:2] == (0, 0)


def test_a_stop_signal_in_the_middle_stops_it_afterwards(programs: Path) -> None:
    require("thp")
    with running(programs, "held_program", "read") as program:
        pid = program.process.pid
        wait_until(lambda: asleep(program), "it never waits")
        thread = stopped(program)
        prepare(program, thread)
        thread.arm(program.start, MIB, PtraceAdvice.HUGEPAGE)
        os.kill(pid, signal.SIGSTOP)
        assert thread.call(program.start, MIB, PtraceAdvice.HUGEPAGE) == 0
        assert thread.restore(5)
        thread.tracee.detach()
        thread.close()
        wait_until(lambda: status(pid, "State").startswith("T"), "it runs")
        os.kill(pid, signal.SIGCONT)
        program.say()
        assert program.answer()[:2] == (0, 0)


def test_a_target_that_dies_meanwhile(programs: Path) -> None:
    require("thp")
    with running(programs, "steady_registers") as program:
        starts = program.start + np.arange(8000, dtype=np.uint64) * np.uint64(2 * PAGE)
        ends = starts + np.uint64(PAGE)

        def advise_for_ever() -> None:
            for count in range(10**6):
                advise_by_ptrace(program.process, starts, ends, PtraceAdvice(14 + count % 2), patience_s=5)

        with subprocess.Popen(["sh", "-c", f"sleep 0.2; kill -9 {program.process.pid}"]) as killer:
            with pytest.raises(TargetGone):
                advise_for_ever()
            killer.wait()
        assert killer.returncode == 0
        with pytest.raises(TargetGone):
            remote_call_refusal(program.process)
        # Its end is still its parent's to see.
        assert program.end() == -signal.SIGKILL


def test_a_target_that_became_another_program(programs: Path) -> None:
    require("thp")
    with running(programs, "held_program", "exec") as program:
        assert advise_once(program) == 0
        program.say()
        pid, program.start, program.length = map(int, program.line().split())
        assert pid == program.process.pid
        assert advise_once(program) == 0
        assert (program.start, program.start + MIB) in flagged(program.process, "hg")
        program.say()
        assert program.answer()[:2] == (0, 0)


def test_a_restartable_sequence_is_not_left_in_the_middle(programs: Path) -> None:
    with running(programs, "held_program", "sequence") as program:
        reasons = set()
        for _ in range(20):
            thread = stopped(program)
            try:
                prepare(program, thread)
            except NotNow as reason:
                reasons.add(str(reason))
            thread.tracee.detach()
            thread.close()
        # Without support in the kernel or the C library it is never in one.
        assert reasons in ({"it is in a restartable sequence"}, set())
        if platform.libc_ver() >= ("glibc", "2.35"):
            assert reasons
        program.say()
        assert program.answer()[:2] == (0, 0)


def test_seccomp_is_refused_and_lives(programs: Path) -> None:
    with running(programs, "held_program", "seccomp") as program:
        assert program.line() == "ready\n"
        assert "seccomp" in remote_call_refusal(program.process)
        with pytest.raises(NotSupported, match="seccomp"):
            advise_once(program)
        thread = stopped(program)
        with pytest.raises(NotNow, match="seccomp"):
            prepare(program, thread)
        thread.tracee.detach()
        thread.close()
        program.say()
        assert program.answer()[:2] == (0, 0)


def test_a_traced_target_is_refused(programs: Path) -> None:
    with running(programs, "held_program", "read") as program:
        wait_until(lambda: asleep(program), "it never waits")
        thread = HeldThread(program.process, program.process.pid)
        assert f"already traced, by {os.getpid()}" in remote_call_refusal(program.process)
        with pytest.raises(NotPermitted, match="already traced"):
            advise_once(program)
        thread.stop(5)
        thread.tracee.detach()
        thread.close()
        program.say()
        assert program.answer()[:2] == (0, 0)


def test_a_stack_that_is_not_known_is_not_written(programs: Path) -> None:
    with running(programs, "held_program", "own_stack") as program:
        wait_until(lambda: asleep(program), "it never waits")
        ranges = [program.start], [program.start + MIB]
        with pytest.raises(NotSupported, match="its stack is not known"):
            advise_by_ptrace(program.process, *ranges, PtraceAdvice.HUGEPAGE, patience_s=0.05)
        program.say()
        assert program.answer()[:2] == (0, 0)


def test_nobody_may_not(programs: Path) -> None:
    require("root")
    with running(programs, "held_program", "read") as program:
        text = run_as_nobody(lambda: remote_call_refusal(program.process))
        assert "may not be traced" in text


def test_other_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    with open_process(os.getpid()) as own:
        assert "is this process" in remote_call_refusal(own)
        monkeypatch.setattr(platform, "machine", lambda: "aarch64")
        assert "ptrace on aarch64 is not supported" in remote_call_refusal(own)
    monkeypatch.undo()
    require("root")
    with open_process(2) as kernel_thread:
        assert "no memory of its own" in remote_call_refusal(kernel_thread)


@pytest.mark.parametrize(("starts", "ends"), [([1], [4096]), ([0], [5000]), ([8192], [4096]), ([0, 4096], [4096])])
def test_ranges_that_cannot_be_meant(starts: list[int], ends: list[int]) -> None:
    with open_process(os.getpid()) as own, pytest.raises(InvalidInput):
        advise_by_ptrace(own, starts, ends, PtraceAdvice.HUGEPAGE)


def test_a_shadow_stack_is_refused() -> None:
    assert "shadow stack" in thread_refusal(b"Seccomp:\t0\nx86_Thread_features:\tshstk wrss \n")
    assert thread_refusal(b"Seccomp:\t0\nx86_Thread_features:\t\n") == ""
