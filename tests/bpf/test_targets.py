"""Whose page table it is: exited, replaced, kernel threads, many at once."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from bpf.witness import mappings, page_addresses
from memtherm.errors import InvalidInput, TargetGone
from memtherm.linux.page_table import PageTableWalker, TargetWalk
from support.children import MADV_NOHUGEPAGE, PAGE_SIZE, Child

MIB = 1 << 20
PATIENCE_S = 30.0
EXIT = {"x86_64": 60, "aarch64": 93}.get(os.uname().machine)


def touched_memory(child: Child, length: int) -> int:
    address = child.map_aligned(length)
    child.madvise(address, length, MADV_NOHUGEPAGE)
    child.write(address, length // PAGE_SIZE)
    return address


def test_no_such_process(walker: PageTableWalker) -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    with pytest.raises(TargetGone, match=str(process.pid)) as caught:
        walker.target(process.pid)
    assert caught.value.hint


@pytest.mark.parametrize("pid", [0, -1])
def test_no_process_id(walker: PageTableWalker, pid: int) -> None:
    with pytest.raises(InvalidInput):
        walker.target(pid)


def test_zombie_is_gone(walker: PageTableWalker, child: Child) -> None:
    child.kill()
    with pytest.raises(TargetGone):
        walker.target(child.pid)


def test_kernel_thread(walker: PageTableWalker) -> None:
    with pytest.raises(InvalidInput, match="kernel thread"):
        walker.target(2)


def test_target_that_exits_between_two_reads(child: Child, target: TargetWalk) -> None:
    start = touched_memory(child, MIB)
    assert target.read_ranges([start], [start + MIB]).present_bytes == MIB
    child.end()
    with pytest.raises(TargetGone):
        target.read_ranges([start], [start + MIB])
    with pytest.raises(TargetGone):
        target.read_addresses([start])


def test_reused_pid_is_not_the_target(target: TargetWalk) -> None:
    target.read_addresses([0])
    target.start_boottime_ns += 1
    with pytest.raises(TargetGone, match="another process"):
        target.read_addresses([0])


def test_start_time_is_that_of_proc(child: Child, target: TargetWalk) -> None:
    ticks = int(Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[19])
    assert target.start_boottime_ns * os.sysconf("SC_CLK_TCK") // 10**9 == ticks


def test_exec_begins_a_new_generation(child: Child, target: TargetWalk) -> None:
    start = touched_memory(child, MIB)
    before = target.read_ranges([start], [start + MIB])
    identity, started_ns = target.mm_identity, target.start_boottime_ns
    assert (before.generation, target.generation, identity > 0) == (0, 0, True)
    child.exec("/bin/sleep", "1000")
    deadline = time.monotonic() + PATIENCE_S
    while target.read_addresses([start]).generation == 0:
        assert time.monotonic() < deadline
    assert (target.generation, target.start_boottime_ns) == (1, started_ns)
    assert target.mm_identity != identity
    # Once its linker maps the C library, the kernel has done with exec and the stack stays where it is.
    while not any("/libc" in one.name for one in mappings(child.pid)):
        assert time.monotonic() < deadline
    one = next(one for one in mappings(child.pid) if one.name == "[stack]")
    units = target.read_ranges([one.start], [one.end])
    assert (units.generation, units.present_bytes > 0) == (1, True)


def test_execs_that_get_the_same_memory_back_are_seen(target: TargetWalk) -> None:
    # As it looks when two execs happen between two reads, and the second is given the mm of the first.
    target._exec_id -= 2
    assert target.read_addresses([0]).generation == 1
    # As it looks when an exec was seen before the kernel had counted it.
    target._exec_id -= 1
    assert target.read_addresses([0]).generation == 1


def test_two_targets_in_two_threads(walker: PageTableWalker) -> None:
    problems: list[str] = []

    def watch(child: Child, start: int, step: int) -> None:
        expected = page_addresses(start, start + 8 * MIB)[::step].tolist()
        everything = page_addresses(start, start + 8 * MIB)
        with walker.target(child.pid) as target:
            for _ in range(200):
                pages = target.read_ranges([start], [start + 8 * MIB]).present_pages().tolist()
                entries = target.read_addresses(everything)
                if pages != expected or everything[entries.present].tolist() != expected:
                    problems.append(f"step {step}: {len(pages)} pages")

    with Child() as one, Child() as other:
        threads = []
        for child, step in ((one, 3), (other, 5)):
            start = child.map_aligned(8 * MIB)
            child.madvise(start, 8 * MIB, MADV_NOHUGEPAGE)
            child.write(start, 2048, step=step)
            threads.append(threading.Thread(target=watch, args=(child, start, step)))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive()
    assert problems == []


def test_target_killed_while_it_is_read(walker: PageTableWalker) -> None:
    """Each read is either right or says that the target is gone."""
    for _ in range(10):
        with Child() as child:
            start = touched_memory(child, 64 * MIB)
            with walker.target(child.pid) as target:
                killer = threading.Timer(0.002, child.kill)
                killer.start()
                with pytest.raises(TargetGone):
                    _read_until_gone(target, start, 64 * MIB)
                killer.join()


def _read_until_gone(target: TargetWalk, start: int, length: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        assert target.read_ranges([start], [start + length]).present_bytes == length


def test_memory_unmapped_while_it_is_read(child: Child, target: TargetWalk) -> None:
    """Tables come and go under the walk: pages of a neighbour are never mixed in, and none is lost outside."""
    length = 16 * MIB
    kept = touched_memory(child, length)
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            address = touched_memory(child, 4 * MIB)
            child.unmap(address, 4 * MIB)

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for _ in range(300):
            units = target.read_ranges([kept - 64 * MIB], [kept + length])
            pages = units.present_pages()
            assert np.count_nonzero(pages >= kept) * PAGE_SIZE == length
    finally:
        stop.set()
        thread.join(PATIENCE_S)
    assert not thread.is_alive()


# The first thread leaves by exit(2) alone, so that the leader is a zombie and a second one lives on.
LEADERLESS = f"""
import ctypes, threading, sys
memory = bytearray(b"x" * (1 << 20))
def live():
    print(ctypes.addressof(ctypes.c_char.from_buffer(memory)), flush=True)
    sys.stdin.readline()
threading.Thread(target=live).start()
ctypes.CDLL(None).syscall({EXIT}, 0)
"""

MANY_THREADS = """
import threading, sys
wait = threading.Event()
for _ in range(300):
    threading.Thread(target=wait.wait, daemon=True).start()
print(1, flush=True)
sys.stdin.readline()
"""


@contextmanager
def running(program: str) -> Iterator[tuple[int, int]]:
    """(pid, the number that it prints) of a Python program, killed afterwards."""
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            yield process.pid, int(process.stdout.readline())
        finally:
            process.send_signal(signal.SIGKILL)


def test_leader_that_left_before_its_threads(walker: PageTableWalker) -> None:
    with running(LEADERLESS) as (pid, address):
        deadline = time.monotonic() + PATIENCE_S
        while "Z (zombie)" not in Path(f"/proc/{pid}/status").read_text():
            assert time.monotonic() < deadline
        page = address // PAGE_SIZE * PAGE_SIZE + PAGE_SIZE
        with walker.target(pid) as target:
            assert target.read_ranges([page], [page + 100 * PAGE_SIZE]).present_bytes == 100 * PAGE_SIZE
            assert target.read_addresses([page]).present.all()


def test_one_thread_of_many_is_looked_at(walker: PageTableWalker) -> None:
    with running(MANY_THREADS) as (pid, _), walker.target(pid) as target:
        assert len(list(Path(f"/proc/{pid}/task").iterdir())) == 301
        # The program writes a byte for a thread that it serves, and a read of one byte ends with it.
        walker._response_bytes[:] = 0
        assert target._addresses_link.run() == b"\1"
        assert target.read_addresses([0]).empty.all()


def test_closing_releases_the_descriptors(walker: PageTableWalker, child: Child) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        with walker.target(child.pid) as target:
            target.read_addresses([0])
    with pytest.raises(TargetGone):
        walker.target(2**22 + 1)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
