"""Pages and their memory nodes, of a real process; what a full or busy node answers is played."""

import ctypes
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from memtherm.errors import InvalidInput, NotPermitted, NotSupported, TargetGone
from memtherm.linux import libc
from memtherm.linux.move_pages import move_pages, nodes_of
from memtherm.linux.nodes import read_nodes
from support.children import MADV_HUGEPAGE, MADV_NOHUGEPAGE, PAGE_SIZE, SHARED, Child, memory_child
from support.privileges import run_as_nobody
from support.requires import require

UNUSED_PID = 2**22
EBUSY, EACCES, EFAULT, ENOENT, ENOMEM = -errno.EBUSY, -errno.EACCES, -errno.EFAULT, -errno.ENOENT, -errno.ENOMEM


@pytest.fixture
def child() -> Iterator[Child]:
    with memory_child() as fresh:
        yield fresh


def _pages(address: int, count: int) -> NDArray[np.uint64]:
    return np.arange(count, dtype=np.uint64) * np.uint64(PAGE_SIZE) + np.uint64(address)


def _to(node: int, count: int) -> NDArray[np.int32]:
    return np.full(count, node, np.int32)


def test_where_pages_are(child: Child) -> None:
    address = child.map(8 * PAGE_SIZE)
    child.write(address, 2)
    child.read(address + 2 * PAGE_SIZE)  # the shared page of zeros
    nodes = nodes_of(child.pid, _pages(address, 4))
    assert set(nodes[:2].tolist()) <= {node.number for node in read_nodes()}
    assert nodes[2:].tolist() == [EFAULT, ENOENT]
    child.unmap(address, 8 * PAGE_SIZE)
    assert nodes_of(child.pid, _pages(address, 1)).tolist() == [EFAULT]
    assert nodes_of(child.pid, _pages(0, 0)).tolist() == []


def test_pages_that_are_there_already(child: Child) -> None:
    count = 10_000  # more than one call
    address = child.map(count * PAGE_SIZE)
    child.madvise(address, count * PAGE_SIZE, MADV_NOHUGEPAGE)
    child.write(address, count, step=2)
    pages = _pages(address, count)
    nodes = nodes_of(child.pid, pages)
    assert (nodes[0::2] >= 0).all()
    assert (nodes[1::2] == ENOENT).all()
    wanted = np.where(nodes < 0, 0, nodes).astype(np.int32)
    assert (move_pages(child.pid, pages, wanted) == nodes).all()


def test_pages_move_to_another_node_and_back(child: Child) -> None:
    require("numa", "root")
    first, second = [node.number for node in read_nodes() if node.total_bytes][:2]
    count = 5_000
    address, huge = child.map(count * PAGE_SIZE), child.map_aligned(4 << 20)
    child.madvise(huge, 4 << 20, MADV_HUGEPAGE)
    child.write(address, count)
    child.write(huge, 1024)
    pages = np.concatenate((_pages(address, count), _pages(huge, 1024)))
    for node in (second, first, second):
        wanted = _to(node, len(pages))
        assert (move_pages(child.pid, pages, wanted) == node).mean() > 0.99
        assert (nodes_of(child.pid, pages) == node).mean() > 0.99
    # By turns; the second witness is the kernel's own count of each mapping.
    wanted = np.where(np.arange(count) % 3 == 0, first, second).astype(np.int32)
    assert (move_pages(child.pid, pages[:count], wanted) == wanted).mean() > 0.99
    text = Path(f"/proc/{child.pid}/numa_maps").read_text()
    line = next(line for line in text.splitlines() if f"N{first}=" in line and f"N{second}=" in line and "anon" in line)
    assert line


def test_shared_pages_move_only_if_told_so(child: Child) -> None:
    require("numa", "root")
    first, second = [node.number for node in read_nodes() if node.total_bytes][:2]
    address = child.map(64 * PAGE_SIZE, flags=SHARED)
    child.write(address, 64)
    other = child.fork()
    pages = _pages(address, 64)
    try:
        child.read(address, 64)
        target = second if nodes_of(child.pid, pages)[0] == first else first
        # The fork maps them once it touches them; a fork of shared memory may have no entries yet.
        status = move_pages(child.pid, pages, _to(target, 64), move_shared=True)
        assert (status == target).all()
    finally:
        child.reap(other)


def test_a_page_that_fork_shares(child: Child) -> None:
    require("numa", "root")
    first, second = [node.number for node in read_nodes() if node.total_bytes][:2]
    address = child.map(64 * PAGE_SIZE)
    child.write(address, 64)
    other = child.fork()
    pages = _pages(address, 64)
    try:
        target = second if nodes_of(child.pid, pages)[0] == first else first
        assert set(move_pages(child.pid, pages, _to(target, 64)).tolist()) == {EACCES}
        assert (move_pages(child.pid, pages, _to(target, 64), move_shared=True) == target).all()
    finally:
        child.reap(other)


@pytest.mark.parametrize("node", [57, 1023, 100_000, -1])
def test_a_node_without_memory(child: Child, node: int) -> None:
    address = child.map(PAGE_SIZE)
    child.write(address)
    with pytest.raises(InvalidInput, match=f"node {node} has no memory") as caught:
        move_pages(child.pid, _pages(address, 1), _to(node, 1))
    assert "0" in caught.value.hint


def test_processes_that_are_gone(child: Child) -> None:
    address = child.map(PAGE_SIZE)
    child.write(address)
    pages = _pages(address, 1)
    child.kill()
    for pid in (child.pid, UNUSED_PID):  # a zombie, and none
        with pytest.raises(TargetGone, match=f"process {pid} is gone"):
            nodes_of(pid, pages)
        with pytest.raises(TargetGone):
            move_pages(pid, pages, _to(0, 1))


def test_what_cannot_be_meant(child: Child) -> None:
    for pid in (0, -1, 2**31):
        with pytest.raises(InvalidInput, match="is not a process id"):
            nodes_of(pid, _pages(0, 1))
        with pytest.raises(InvalidInput, match="is not a process id"):
            move_pages(pid, _pages(0, 1), _to(0, 1))
    with pytest.raises(InvalidInput, match="pages and"):
        move_pages(child.pid, _pages(0, 2), _to(0, 1))


def test_a_kernel_thread() -> None:
    require("root")
    if Path("/proc/2/comm").read_text() != "kthreadd\n":
        pytest.skip("pid 2 is not kthreadd in this pid namespace")
    with pytest.raises(InvalidInput, match="kernel thread"):
        nodes_of(2, _pages(0, 1))


def test_nobody_may_not_move_pages_of_root(child: Child) -> None:
    require("root")
    address = child.map(PAGE_SIZE)

    def move() -> str:
        with pytest.raises(NotPermitted) as caught:
            move_pages(child.pid, _pages(address, 1), _to(0, 1))
        return caught.value.hint

    assert "CAP_SYS_PTRACE" in run_as_nobody(move)


def _answer_with(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(*_: int, **__: int) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(libc, "move_pages", refuse)


def test_a_cpuset_and_a_kernel_without(monkeypatch: pytest.MonkeyPatch) -> None:
    _answer_with(monkeypatch, errno.EACCES)
    with pytest.raises(InvalidInput, match="node 1 is outside the target's cpuset") as caught:
        move_pages(os.getpid(), _pages(0, 1), _to(1, 1))
    assert "Mems_allowed_list" in caught.value.hint
    _answer_with(monkeypatch, errno.ENOSYS)
    with pytest.raises(NotSupported, match="no move_pages"):
        nodes_of(os.getpid(), _pages(0, 1))
    _answer_with(monkeypatch, errno.EFAULT)
    with pytest.raises(OSError, match="Bad address"):
        nodes_of(os.getpid(), _pages(0, 1))


class _PlayedKernel:
    """The kernel's rules for queues of pages, on pages numbered by their address; all are on node 0 at first.

    busy: pages that cannot be queued.  stuck: pages that can be queued, but do not move.
    """

    def __init__(self, count: int, *, busy: set[int], stuck: set[int], room: int = 1 << 30) -> None:
        self.node = [0] * count
        self.busy, self.stuck, self.room = busy, stuck, room
        self.calls = 0

    def move_pages(
        self, _pid: int, *, count: int, pages_address: int, nodes_address: int, status_address: int, flags: int
    ) -> int:
        asked = np.ctypeslib.as_array((ctypes.c_uint64 * count).from_address(pages_address)).tolist()
        answer = np.ctypeslib.as_array((ctypes.c_int32 * count).from_address(status_address))
        if not nodes_address:
            assert flags == 0
            answer[:] = [self.node[page] for page in asked]
            return 0
        self.calls += 1
        wanted = np.ctypeslib.as_array((ctypes.c_int32 * count).from_address(nodes_address)).tolist()
        queue: list[int] = []
        for index, (page, node) in enumerate(zip(asked, wanted, strict=True)):
            if page not in self.busy and self.node[page] != node:
                queue.append(index)
                continue
            answer[index] = EBUSY if page in self.busy else node
            if failed := self._move(queue, asked, node, answer):
                return failed + count - index - 1
            queue = []
        return self._move(queue, asked, wanted[-1], answer)

    def _move(self, queue: list[int], asked: list[int], node: int, answer: NDArray[np.int32]) -> int:
        failed = 0
        for index in queue:
            if asked[index] in self.stuck:
                failed += 1
            elif self.room == 0:
                raise OSError(errno.ENOMEM, "no room")
            else:
                self.node[asked[index]] = node
                self.room -= 1
        if not failed:
            answer[queue] = node
        return failed


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Callable[..., _PlayedKernel]:
    def start(count: int, *, busy: set[int], stuck: set[int], room: int = 1 << 30) -> _PlayedKernel:
        kernel = _PlayedKernel(count, busy=busy, stuck=stuck, room=room)
        monkeypatch.setattr(libc, "move_pages", kernel.move_pages)
        return kernel

    return start


@pytest.mark.parametrize("seed", range(20))
def test_one_page_that_does_not_move_holds_up_no_other(play: Callable[..., _PlayedKernel], seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = 9_000
    busy, stuck = (set(rng.integers(0, count, int(rng.integers(0, 20))).tolist()) for _ in range(2))
    kernel = play(count, busy=busy, stuck=stuck)
    pages = rng.permutation(count).astype(np.uint64)
    nodes = rng.integers(0, 3, count).astype(np.int32)
    status = move_pages(os.getpid(), pages, nodes)
    for page, node, told in zip(pages.tolist(), nodes.tolist(), status.tolist(), strict=True):
        held = page in busy or page in stuck
        assert told == (EBUSY if held and node != 0 else node)
        assert kernel.node[page] == (0 if held else node)
    assert kernel.calls < 60


def test_a_full_node_is_tried_no_more(play: Callable[..., _PlayedKernel]) -> None:
    kernel = play(20_000, busy=set(), stuck={7}, room=1000)
    pages = np.arange(20_000, dtype=np.uint64)
    status = move_pages(os.getpid(), pages, _to(1, 20_000))
    assert (status == 1).sum() == 1000 == sum(kernel.node)
    assert (status[status != 1] == ENOMEM).all()
    assert kernel.calls == 1
