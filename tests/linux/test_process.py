"""Processes: identity, life and death, memory, names."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from memtherm.errors import InvalidInput, NotPermitted, NotSupported, TargetGone
from memtherm.linux.process import open_process, parse_stat
from support.children import Child, memory_child
from support.privileges import run_as_nobody
from support.requires import require

MIB = 1 << 20
UNUSED_PID = 2**22  # the highest that pid_max allows is one less
_TAIL = "S 7 1 1 0 -1 {flags} " + "0 " * 12 + "4711 0 0"


@pytest.fixture
def child() -> Iterator[Child]:
    with memory_child() as fresh:
        yield fresh


@pytest.mark.parametrize("name", ["plain", "two words", "a) S 1 (b", ")", "", "kworker/0:1-ev"])
def test_stat_is_parsed_whatever_the_name(name: str) -> None:
    stat = parse_stat(f"12 ({name}) {_TAIL.format(flags=0x200040)}\n".encode())
    assert (stat.name, stat.state, stat.parent_pid, stat.start_time_ticks) == (name, "S", 7, 4711)
    assert stat.is_kernel_thread
    assert not parse_stat(f"12 ({name}) {_TAIL.format(flags=0x400000)}".encode()).is_kernel_thread


def test_identity_of_a_child(child: Child) -> None:
    child.rename("odd) name (x")
    with open_process(child.pid) as process:
        assert process.identity.pid == process.pid == child.pid
        assert process.identity.name == "odd) name (x"
        assert process.identity.user_id == os.getuid()
        # Second witness: ps counts the seconds since the start.
        ticks = os.sysconf("SC_CLK_TCK")
        uptime_s = float(Path("/proc/uptime").read_text().split()[0])
        assert 0 <= uptime_s - process.identity.start_time_ticks / ticks < 60
        assert process.is_alive()
        assert not process.is_kernel_thread()


def test_a_zombie_is_gone(child: Child) -> None:
    with open_process(child.pid) as process:
        child.kill()
        assert Path(f"/proc/{child.pid}").exists()  # not reaped
        assert not process.is_alive()
        for question in (process.stat, process.rss_bytes, process.swap_bytes, process.check_alive):
            with pytest.raises(TargetGone):
                question()
    with pytest.raises(TargetGone, match=f"process {child.pid} is gone"):
        open_process(child.pid)


def test_a_reaped_process_is_gone(child: Child) -> None:
    with open_process(child.pid) as process:
        child.end()
        assert not process.is_alive()
        for question in (process.stat, process.rss_bytes, process.is_kernel_thread):
            with pytest.raises(TargetGone) as caught:
                question()
            assert caught.value.hint
    with pytest.raises(TargetGone):
        open_process(child.pid)


def test_another_process_with_the_pid_is_not_the_target() -> None:
    require("root")
    last_pid = Path("/proc/sys/kernel/ns_last_pid")
    if not last_pid.exists():
        pytest.skip("no /proc/sys/kernel/ns_last_pid to choose the next pid")
    with memory_child() as first, open_process(first.pid) as process:
        first.end()
        for _ in range(20):  # somebody else may take the pid meanwhile
            last_pid.write_text(str(process.pid - 1))
            with memory_child() as second:
                if second.pid != process.pid:
                    continue
                assert not process.is_alive()
                with pytest.raises(TargetGone):
                    process.read_file("maps")
                return
    pytest.skip("could not get the same pid again")


@pytest.mark.parametrize("pid", [0, -1, 2**31, 10**12])
def test_no_process_id(pid: int) -> None:
    with pytest.raises(InvalidInput, match="is not a process id"):
        open_process(pid)


def test_a_pid_that_nobody_has() -> None:
    with pytest.raises(TargetGone, match=f"process {UNUSED_PID} is gone"):
        open_process(UNUSED_PID)


def test_a_thread_is_not_a_process() -> None:
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        with pytest.raises(InvalidInput, match="is a thread") as caught:
            open_process(thread.native_id or 0)
        assert "Tgid" in caught.value.hint
    finally:
        done.set()
        thread.join()


def test_a_failed_open_leaks_no_descriptor(child: Child) -> None:
    child.kill()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for pid in (child.pid, UNUSED_PID):
        with pytest.raises(TargetGone):
            open_process(pid)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_closing_twice_is_harmless(child: Child) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    process = open_process(child.pid)
    process.close()
    process.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_resident_memory_follows_the_pages(child: Child) -> None:
    address = child.map_aligned(64 * MIB)
    with open_process(child.pid) as process:
        before = process.rss_bytes()
        child.write(address, 64 * MIB // 4096)
        # The counters of each processor may be 64 pages behind or more (see rss_bytes).
        assert process.rss_bytes() - before == pytest.approx(64 * MIB, abs=2 * MIB)
        assert process.swap_bytes() == 0


def test_a_kernel_thread() -> None:
    if not Path("/proc/2/comm").exists() or Path("/proc/2/comm").read_text() != "kthreadd\n":
        pytest.skip("pid 2 is not kthreadd in this pid namespace")
    with open_process(2) as process:
        assert process.is_kernel_thread()
        assert process.is_alive()
        assert process.rss_bytes() == 0
        assert process.swap_bytes() == 0


def test_a_file_that_proc_lacks(child: Child) -> None:
    with open_process(child.pid) as process, pytest.raises(NotSupported, match="no /proc/PID/no_such_file"):
        process.open_file("no_such_file")


def test_nobody_may_look_into_a_process_of_root(child: Child) -> None:
    require("root")

    def look() -> tuple[bool, str]:
        with open_process(child.pid) as process:
            with pytest.raises(NotPermitted, match="may not use its maps") as caught:
                process.read_file("maps")
            return process.is_alive(), caught.value.hint

    assert run_as_nobody(look) == (True, "run as root or as its user, or with CAP_SYS_PTRACE")
