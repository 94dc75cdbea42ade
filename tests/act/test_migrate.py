"""Which node each page goes to, and pages that really move there; with one node only the choice and the refusals."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from act.scene import HUGE, PAGE
from memtherm.act.effect import Subject
from memtherm.act.migrate import MigrateEffect, choose_nodes, destination_refusal, migrate
from memtherm.act.pieces import Pieces
from memtherm.core.ranges import Addresses, intersect
from memtherm.core.scheme import Destination
from memtherm.linux.advise import Advice, advise_process
from memtherm.linux.maps import read_smaps
from memtherm.linux.move_pages import nodes_of
from memtherm.linux.nodes import read_nodes
from memtherm.linux.pagemap import Pagemap
from memtherm.linux.process import Process, open_process
from support.children import MADV_HUGEPAGE, MADV_NOHUGEPAGE, SHARED, Child, memory_child
from support.requires import require

WITH_MEMORY = [node.number for node in read_nodes() if node.total_bytes]
NOWHERE = 1000


def chosen(pages: int, *weights: int, start: int = 0, offset: int = 0, order: int = 0) -> list[int]:
    """The nodes of consecutive folios of one mapping."""
    addresses = np.uint64(start) + np.arange(pages, dtype=np.uint64) * np.uint64(PAGE << order)
    every = np.ones(pages, np.uint64)
    destinations = tuple(Destination(node, weight) for node, weight in enumerate(weights))
    nodes = choose_nodes(
        addresses, every * np.uint64(start), every * np.uint64(offset), np.full(pages, order), destinations
    )
    found: list[int] = nodes.tolist()
    return found


def test_the_vector_of_the_specification() -> None:
    assert chosen(8, 1, 3) == [0, 1, 1, 1, 0, 1, 1, 1]


def test_huge_pages_are_counted_by_huge_pages() -> None:
    assert chosen(8, 1, 3, order=9) == [0, 1, 1, 1, 0, 1, 1, 1]


def test_a_mapping_begins_where_its_file_offset_says() -> None:
    assert chosen(4, 1, 3, start=64 * PAGE, offset=2 * PAGE) == [1, 1, 0, 1]
    assert chosen(4, 1, 3, start=HUGE, offset=2 * HUGE, order=9) == [1, 1, 0, 1]


def test_a_weight_of_0_gets_nothing() -> None:
    assert chosen(6, 0, 1, 0, 2) == [1, 3, 3, 1, 3, 3]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=5).filter(any), st.integers(0, 1000), st.sampled_from([0, 9]))
def test_as_the_loop_of_the_specification(weights: list[int], offset: int, order: int) -> None:
    def one(index: int) -> int:
        rest = index % sum(weights)
        for node, weight in enumerate(weights):
            if rest < weight:
                return node
            rest -= weight
        raise AssertionError

    found = chosen(50, *weights, start=HUGE, offset=offset * PAGE, order=order)
    assert found == [one((offset >> order) + index) for index in range(50)]


def test_refusals() -> None:
    assert destination_refusal(()) == "no destination is given, so nothing would move"
    assert destination_refusal((Destination(WITH_MEMORY[0]),)) == ""
    there = ", ".join(map(str, WITH_MEMORY))
    assert destination_refusal((Destination(WITH_MEMORY[0]), Destination(NOWHERE))) == (
        f"memory node {NOWHERE} does not exist or has no memory; nodes with memory: {there}"
    )
    # A node without a weight gets nothing, so that it need not be there.
    assert destination_refusal((Destination(WITH_MEMORY[0]), Destination(NOWHERE, weight=0))) == ""


@pytest.fixture
def child() -> Iterator[Child]:
    require("root")
    with memory_child() as fresh:
        yield fresh


@pytest.fixture
def process(child: Child) -> Iterator[Process]:
    with open_process(child.pid) as opened:
        yield opened


def subject_of(
    process: Process, pagemap: Pagemap, start: int, end: int, destinations: tuple[Destination, ...]
) -> Subject:
    mappings = read_smaps(process)
    of = mappings.mappings
    pieces = Pieces(*intersect(np.array([start], np.uint64), np.array([end], np.uint64), of.starts, of.ends))
    return Subject(process, pagemap, pieces, mappings, destinations)


def map_small(child: Child, length: int) -> int:
    """Memory without huge pages, whatever the host's mode."""
    address = child.map_aligned(length)
    child.madvise(address, length, MADV_NOHUGEPAGE)
    return address


def move(process: Process, start: int, end: int, *destinations: Destination) -> tuple[int, int]:
    """Possible and applied bytes."""
    with Pagemap(process) as pagemap:
        subject = subject_of(process, pagemap, start, end, destinations)
        effect = MigrateEffect(subject)
        run_start, run_end, piece = effect.possible_runs()
        of_runs = np.bincount(piece, weights=(run_end - run_start).astype(np.int64), minlength=len(subject.pieces))
        assert (of_runs == effect.possible_bytes).all()
        migrate(process, subject.pieces, destinations, subject.mappings)
        return int(effect.possible_bytes.sum()), int(effect.applied_bytes().sum())


def pages_of(start: int, end: int) -> Addresses:
    return np.arange(start, end, PAGE, dtype=np.uint64)


def pages_by_node(pid: int, address: int) -> dict[int, int]:
    """Of the mapping at the address, by /proc/PID/numa_maps: a witness that knows nothing of memtherm."""
    for line in Path(f"/proc/{pid}/numa_maps").read_text().splitlines():
        words = line.split()
        if int(words[0], 16) == address:
            counts = (word[1:].split("=") for word in words if word[0] == "N" and word[1].isdigit())
            return {int(node): int(count) for node, count in counts}
    raise AssertionError(f"{address:#x} is not mapped")


@pytest.mark.system
def test_what_is_on_its_node_already_is_not_possible(child: Child, process: Process) -> None:
    address = child.map_aligned(2 * HUGE)
    child.write(address, 100)
    child.read(address + HUGE, 100)  # the shared page of zeros
    node = int(nodes_of(child.pid, pages_of(address, address + PAGE))[0])
    assert move(process, address, address + 2 * HUGE, Destination(node)) == (0, 0)


@pytest.mark.system
def test_the_targets_cpuset_is_asked(process: Process) -> None:
    assert destination_refusal(tuple(Destination(node) for node in WITH_MEMORY), process) == ""


@pytest.mark.system
def test_a_cpuset_that_forbids_a_node(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    status = process.read_file("status").replace(b"Mems_allowed_list:\t", b"Mems_allowed_list:\t5-6,8,")
    status = status.replace(b"8,0", b"8,9")
    monkeypatch.setattr(Process, "read_file", lambda _self, _name: status)
    assert destination_refusal((Destination(0),), process) == "the target's cpuset keeps its memory off node 0"


@pytest.mark.system
def test_to_another_node_and_back(child: Child, process: Process) -> None:
    require("numa")
    address = map_small(child, 2 * HUGE)
    child.write(address, 1000)
    (there,) = pages_by_node(child.pid, address)
    other = next(node for node in WITH_MEMORY if node != there)
    for node in (other, there):
        assert move(process, address, address + 2 * HUGE, Destination(node)) == (1000 * PAGE, 1000 * PAGE)
        assert pages_by_node(child.pid, address) == {node: 1000}


@pytest.mark.system
def test_by_weights(child: Child, process: Process) -> None:
    require("numa")
    first, second = WITH_MEMORY[:2]
    address = map_small(child, HUGE)
    child.write(address, 400)
    move(process, address, address + HUGE, Destination(first))
    destinations = (Destination(first, 1), Destination(second, 3))
    assert move(process, address, address + HUGE, *destinations) == (300 * PAGE, 300 * PAGE)
    assert pages_by_node(child.pid, address) == {first: 100, second: 300}
    expected = [first, second, second, second] * 2
    assert nodes_of(child.pid, pages_of(address, address + 8 * PAGE)).tolist() == expected
    # A part of it, looked at alone, is where it should be.
    assert move(process, address + 5 * PAGE, address + 9 * PAGE, *destinations) == (0, 0)


@pytest.mark.system
def test_huge_pages_move_whole(child: Child, process: Process) -> None:
    require("numa", "thp")
    first, second = WITH_MEMORY[:2]
    count = 4
    address = child.map_aligned(count * HUGE)
    child.madvise(address, count * HUGE, MADV_HUGEPAGE)
    child.write(address, count * HUGE // PAGE)
    advise_process(process, [address], [address + count * HUGE], Advice.COLLAPSE)
    with Pagemap(process) as pagemap:
        if not pagemap.count([address], [address + count * HUGE]).huge_bytes:
            pytest.skip("no huge pages to be had")
    move(process, address, address + count * HUGE, Destination(first))
    _, applied = move(process, address, address + count * HUGE, Destination(first, 1), Destination(second, 1))
    assert applied == 2 * HUGE
    assert pages_by_node(child.pid, address) == {first: 2 * 512, second: 2 * 512}
    with Pagemap(process) as pagemap:
        assert pagemap.count([address], [address + count * HUGE]).huge_bytes == count * HUGE


@pytest.mark.system
def test_memory_that_others_map_moves_with_the_capability_only(
    child: Child, process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    require("numa")
    address = map_small(child, HUGE)
    child.write(address, 64)
    (there,) = pages_by_node(child.pid, address)
    other = next(node for node in WITH_MEMORY if node != there)
    twin = child.fork()
    try:
        monkeypatch.setenv("MEMTHERM_WITHOUT", "CAP_SYS_NICE")
        assert move(process, address, address + HUGE, Destination(other)) == (64 * PAGE, 0)
        assert pages_by_node(child.pid, address) == {there: 64}
        monkeypatch.delenv("MEMTHERM_WITHOUT")
        assert move(process, address, address + HUGE, Destination(other)) == (64 * PAGE, 64 * PAGE)
        assert pages_by_node(twin, address) == {other: 64}
    finally:
        child.reap(twin)


@pytest.mark.system
def test_shared_memory_and_files_move(child: Child, process: Process, tmp_path: Path) -> None:
    require("numa")
    path = tmp_path / "file"
    path.write_bytes(bytes(64 * PAGE))
    shared = child.map_aligned(HUGE, flags=SHARED)
    data = child.map(64 * PAGE, flags=SHARED & ~0x20, path=str(path))
    for address in (shared, data):
        child.write(address, 64)
        for node in (*WITH_MEMORY[:2], WITH_MEMORY[0]):
            move(process, address, address + 64 * PAGE, Destination(node))
            assert pages_by_node(child.pid, address) == {node: 64}
