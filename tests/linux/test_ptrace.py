"""ptrace primitives on a real thread: seize, stop, look, let go.  The witness is /proc/PID/status."""

import os
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from memtherm.linux.ptrace import ALL_SIGNALS, Stop, Tracee
from support.privileges import run_as_nobody
from support.requires import require

GENERAL_REGISTERS = 1


@pytest.fixture
def sleeper() -> Iterator[int]:
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield process.pid
        process.kill()


def status(pid: int, key: str) -> str:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.partition(":")[2].strip() for line in lines if line.startswith(f"{key}:"))


def test_seize_stop_and_detach(sleeper: int) -> None:
    tracee = Tracee(sleeper)
    assert status(sleeper, "TracerPid") == str(os.getpid())
    assert tracee.wait(0.01) is None
    tracee.interrupt()
    stop = tracee.wait(5)
    assert stop is not None
    assert stop.is_trap
    assert not stop.is_group_stop
    assert tracee.is_stopped
    assert status(sleeper, "State").startswith("t")
    tracee.detach()
    assert not tracee.is_stopped
    wait_until_free(sleeper)


def test_registers_and_mask_come_back_as_they_were_set(sleeper: int) -> None:
    tracee = Tracee(sleeper)
    tracee.interrupt()
    assert tracee.wait(5) is not None
    registers = tracee.register_set(GENERAL_REGISTERS, 4096)
    tracee.set_register_set(GENERAL_REGISTERS, registers)
    assert tracee.register_set(GENERAL_REGISTERS, 4096) == registers
    mask = tracee.signal_mask()
    tracee.set_signal_mask(ALL_SIGNALS)
    unblockable = 1 << signal.SIGKILL - 1 | 1 << signal.SIGSTOP - 1
    assert tracee.signal_mask() == ALL_SIGNALS & ~unblockable
    assert int(status(sleeper, "SigBlk"), 16) == ALL_SIGNALS & ~unblockable
    tracee.set_signal_mask(mask)
    assert not tracee.dispatches_system_calls()
    tracee.detach()
    assert int(status(sleeper, "SigBlk"), 16) == mask


def test_a_signal_on_its_way_is_seen_and_can_be_delivered(sleeper: int) -> None:
    tracee = Tracee(sleeper)
    os.kill(sleeper, signal.SIGTERM)
    stop = tracee.wait(5)
    assert stop == Stop(signal=signal.SIGTERM, event=0)
    assert stop.signal_to_deliver == signal.SIGTERM
    tracee.detach(stop.signal_to_deliver)
    assert os.waitpid(sleeper, 0)[1] == signal.SIGTERM


def test_a_stopped_process_tells_so_and_stays_stopped(sleeper: int) -> None:
    os.kill(sleeper, signal.SIGSTOP)
    os.waitpid(sleeper, os.WUNTRACED)
    tracee = Tracee(sleeper)
    tracee.interrupt()
    stop = tracee.wait(5)
    assert stop is not None
    assert stop.is_group_stop
    assert stop.signal_to_deliver == 0
    tracee.detach()
    wait_until_free(sleeper, states="T")


def test_the_end_of_the_os_thread_lets_go_even_of_a_stopped_one(sleeper: int) -> None:
    def hold() -> str:
        tracee = Tracee(sleeper)
        tracee.interrupt()
        assert tracee.wait(5) is not None
        return status(sleeper, "State")

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(hold).result().startswith("t")
    wait_until_free(sleeper)


def wait_until_free(pid: int, *, states: str = "SR") -> None:
    """The OS thread ends a moment after Python's, and a thread enters its next state a moment after its detach."""
    for _ in range(100_000):
        if status(pid, "TracerPid") == "0" and status(pid, "State")[0] in states:
            return
    pytest.fail(f"process {pid} is still traced or not in state {states}")


def test_a_death_is_seen_and_left_to_the_parent(sleeper: int) -> None:
    tracee = Tracee(sleeper)
    tracee.interrupt()
    assert tracee.wait(5) is not None
    os.kill(sleeper, signal.SIGKILL)
    os.waitid(os.P_PID, sleeper, os.WEXITED | os.WNOWAIT)
    with pytest.raises(ProcessLookupError, match="ptrace"):
        tracee.register_set(GENERAL_REGISTERS, 4096)
    with pytest.raises(ProcessLookupError, match="has ended"):
        tracee.wait(5)
    assert os.waitpid(sleeper, 0)[1] == signal.SIGKILL
    with pytest.raises(ProcessLookupError, match="has ended"):
        tracee.wait(5)


def test_no_thread_and_no_permission(sleeper: int) -> None:
    with pytest.raises(ProcessLookupError, match="ptrace: No such process"):
        Tracee(2**22 - 1)
    require("root")

    def ask() -> str:
        with pytest.raises(PermissionError) as caught:
            Tracee(sleeper)
        return str(caught.value)

    assert "ptrace: Operation not permitted" in run_as_nobody(ask)
