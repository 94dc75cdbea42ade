"""Own memory watched by userfaultfd, as an ordinary user: exactly what was touched, and all undone in the end."""

import ctypes
import mmap
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from memtherm.core.census import PageBits, unpacked
from memtherm.errors import InvalidInput, TargetBusy, TargetGone
from memtherm.linux.userfaultfd import Mode, UserFaultFd
from memtherm.probe.own.userfaultfd import RwpCensusProbe, WriteCensusProbe
from support.own_memory import (
    PAGE,
    UNIT,
    OwnMemory,
    as_ordinary_user,
    faults,
    flags_of,
    huge_kibibytes,
    require_tracking,
)
from support.requires import require
from support.swap import swap_on

PAGES = 512
Probe = RwpCensusProbe | WriteCensusProbe
Kind = type[RwpCensusProbe] | type[WriteCensusProbe]
MADV_COLLAPSE = 25
MADV_PAGEOUT = 21


@pytest.fixture(params=[RwpCensusProbe, WriteCensusProbe], ids=["all", "writes"])
def kind(request: pytest.FixtureRequest) -> Kind:
    require_tracking(Mode.ACCESSES if request.param is RwpCensusProbe else Mode.WRITES)
    chosen: Kind = request.param
    return chosen


def seen(bits: PageBits, memory: OwnMemory) -> list[int]:
    """The accessed pages, by their number in the memory."""
    unit, page = np.nonzero(unpacked(bits.accessed))
    address = bits.address[unit].astype(np.int64) + page * PAGE
    pages: list[int] = ((address - memory.start) // PAGE).tolist()
    return pages


def map_at(address: int, size_bytes: int) -> None:
    """A new anonymous mapping at this place."""
    function = ctypes.CDLL(None, use_errno=True).mmap
    function.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long)
    function.restype = ctypes.c_void_p
    fixed = 0x100000  # MAP_FIXED_NOREPLACE
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | fixed
    assert function(address, size_bytes, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0) == address


def nr_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def present(bits: PageBits) -> int:
    return int(unpacked(bits.present).sum())


def begun(kind: Kind, memory: OwnMemory) -> Probe:
    """A probe that has cleared all."""
    probe = kind([(memory.start, memory.end)])
    assert len(probe.clear(probe.look())) == 0
    return probe


@as_ordinary_user
def test_exactly_the_touched_pages(kind: Kind) -> None:
    memory = OwnMemory(8 * UNIT)
    numbers = np.random.default_rng(5).permutation(8 * PAGES)
    read, written = sorted(numbers[:700].tolist()), sorted(numbers[700:1000].tolist())
    probe = begun(kind, memory)
    assert seen(probe.look(), memory) == []
    assert memory.read(read) == sum(page % 60_000 for page in read)
    memory.write(written)
    bits = probe.look()
    assert seen(bits, memory) == (sorted(read + written) if kind is RwpCensusProbe else written)
    assert present(bits) == 8 * PAGES
    # A look changes nothing; clearing some units clears those.
    probe.clear(bits.take(np.arange(4)))
    assert seen(probe.look(), memory) == [page for page in seen(bits, memory) if page >= 4 * PAGES]
    probe.clear(probe.look())
    assert seen(probe.look(), memory) == []
    probe.close()


@as_ordinary_user
def test_only_what_was_cleared_costs_a_fault_and_only_once(kind: Kind) -> None:
    memory = OwnMemory(4 * UNIT)
    probe = kind([(memory.start, memory.end)])
    probe.clear(probe.look().take(np.array([1])))
    numbers = range(4 * PAGES)
    memory.write(numbers)  # everything else that this needs is in memory afterwards
    probe.clear(probe.look().take(np.array([1])))
    before = faults()
    memory.write(numbers)
    assert PAGES <= faults() - before <= PAGES + 20
    before = faults()
    memory.write(numbers)
    assert faults() - before <= 20
    probe.close()


@as_ordinary_user
def test_what_comes_after_the_look_is_in_the_next(kind: Kind) -> None:
    memory = OwnMemory(2 * UNIT)
    probe = begun(kind, memory)
    memory.write([3, 600])
    bits = probe.look()
    memory.write([4, 700])
    probe.clear(bits.take(np.array([0])))
    assert seen(probe.look(), memory) == [4, 600, 700]
    probe.clear(bits)
    assert seen(probe.look(), memory) == [700]
    assert seen(probe.look(), memory) == []
    probe.close()


@as_ordinary_user
def test_only_the_ranges_are_watched(kind: Kind) -> None:
    memory = OwnMemory(4 * UNIT)
    ranges = [(memory.start + 100 * PAGE, memory.start + 110 * PAGE), (memory.start + 200 * PAGE, memory.end - PAGE)]
    probe = kind(ranges)
    assert probe.ranges() == ranges
    bits = probe.look()
    assert present(bits) == 10 + 4 * PAGES - 201
    probe.clear(bits)
    memory.write(range(4 * PAGES))
    assert seen(probe.look(), memory) == [*range(100, 110), *range(200, 4 * PAGES - 1)]
    assert flags_of(memory.start).isdisjoint({"uw", "ur"})
    probe.close()


def test_ranges_are_checked(kind: Kind) -> None:
    with pytest.raises(InvalidInput, match="page border"):
        kind([(4096, 5000)])
    with pytest.raises(InvalidInput, match="no memory to watch"):
        kind([])


@as_ordinary_user
def test_all_is_undone(kind: Kind) -> None:
    memory = OwnMemory(2 * UNIT)
    flag = "ur" if kind is RwpCensusProbe else "uw"
    before = flags_of(memory.start)
    files = nr_files()
    probe = begun(kind, memory)
    assert flag in flags_of(memory.start)
    assert "4.00 MiB" in probe.describe_changes[0]
    assert f"`{flag}`" in probe.describe_changes[0]
    probe.close()
    probe.close()
    assert flags_of(memory.start) == before
    assert nr_files() == files
    count = faults()
    assert memory.read(range(2 * PAGES)) == sum(range(2 * PAGES))
    memory.write(range(2 * PAGES))
    assert faults() - count <= 20
    with pytest.raises(TargetGone, match="closed"):
        probe.look()


@as_ordinary_user
def test_memory_with_a_userfaultfd_is_refused_and_left_alone(kind: Kind) -> None:
    memory = OwnMemory(4 * UNIT)
    files = nr_files()
    with UserFaultFd(Mode.WRITES) as theirs:
        theirs.register(memory.start + UNIT, memory.start + 2 * UNIT)
        theirs.protect(memory.start + UNIT, memory.start + 2 * UNIT)
        with pytest.raises(TargetBusy):
            kind([(memory.start, memory.start + PAGE), (memory.start + UNIT, memory.end)])
        assert flags_of(memory.start).isdisjoint({"uw", "ur"})
        assert "uw" in flags_of(memory.start + UNIT)
    assert nr_files() == files


@as_ordinary_user
def test_two_watches_of_other_memory_go_on_beside_each_other(kind: Kind) -> None:
    memory = OwnMemory(4 * UNIT)
    lower, upper = kind([(memory.start, memory.start + 2 * UNIT)]), kind([(memory.start + 2 * UNIT, memory.end)])
    lower.clear(lower.look())
    upper.clear(upper.look())
    memory.write([1, 2000])
    upper.clear(upper.look())
    assert seen(lower.look(), memory) == [1]
    upper.close()
    memory.write([2])
    assert seen(lower.look(), memory) == [1, 2]
    lower.close()


@as_ordinary_user
def test_a_child_made_by_fork_is_not_watched_and_the_parent_is_still(kind: Kind) -> None:
    memory = OwnMemory(2 * UNIT)
    probe = begun(kind, memory)
    probe._lock.acquire()  # a thread of the parent was just looking
    pid = os.fork()
    if pid == 0:
        try:
            probe.look()
        except TargetGone:
            probe.close()
            memory.write(range(100))
            os._exit(0 if memory.read([7]) == 7 else 2)
        os._exit(1)
    probe._lock.release()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    memory.write([5])
    assert seen(probe.look(), memory) == [5]
    probe.clear(probe.look())
    pid = os.fork()
    if pid == 0:
        threading.Event().wait(60)
        os._exit(0)
    probe.close()
    # The child still has the descriptor.
    assert flags_of(memory.start).isdisjoint({"uw", "ur"})
    os.kill(pid, 9)
    os.waitpid(pid, 0)


@as_ordinary_user
def test_memory_that_is_unmapped_meanwhile_is_forgotten(kind: Kind) -> None:
    other = mmap.mmap(-1, 8 * UNIT, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    array = np.frombuffer(other, np.uint8)
    start = array.ctypes.data
    array[:] = 1
    memory = OwnMemory(2 * UNIT)
    ranges = sorted([(start, start + 8 * UNIT), (memory.start, memory.end)])
    probe = kind(ranges)
    probe.clear(probe.look())
    del array
    other.close()
    bits = probe.look()
    assert present(bits) == 2 * PAGES
    # Something new at the same place: not what was watched.
    map_at(start, 8 * UNIT)
    ctypes.memset(start, 1, 8 * UNIT)
    assert probe.ranges() == [(memory.start, memory.end)]
    memory.write([9])
    bits = probe.look()
    assert seen(bits, memory) == [9]
    assert present(bits) == 2 * PAGES
    probe.clear(bits)
    probe.close()
    assert ctypes.string_at(start + 8 * UNIT - 2, 2) == b"\1\1"


@as_ordinary_user
def test_what_system_calls_access(kind: Kind) -> None:
    memory = OwnMemory(UNIT)
    probe = begun(kind, memory)
    with tempfile.TemporaryFile() as file:
        os.pwrite(file.fileno(), memory.pages[3].data, 0)
        assert os.preadv(file.fileno(), [memory.pages[8].data], 0) == PAGE
    assert memory.pages[8, 0] == 3
    assert seen(probe.look(), memory) == ([3, 8] if kind is RwpCensusProbe else [8])
    probe.close()


@as_ordinary_user
def test_memory_that_comes_and_goes(kind: Kind) -> None:
    memory = OwnMemory(2 * UNIT, is_present=False)
    memory.write(range(10))
    probe = begun(kind, memory)
    assert len(probe.swapped()) == 0
    memory.read([20])  # the shared page of zeros
    memory.write([30])
    bits = probe.look()
    assert seen(bits, memory) == ([20, 30] if kind is RwpCensusProbe else [30])
    probe.clear(bits)
    assert seen(probe.look(), memory) == []
    memory.advise(mmap.MADV_DONTNEED, 0, 10)
    assert present(probe.look()) == 2
    memory.write([0])
    assert seen(probe.look(), memory) == [0]
    probe.close()


@pytest.fixture
def _thp() -> None:
    require("thp")


@pytest.mark.usefixtures("_thp")
@as_ordinary_user
def test_huge_pages(kind: Kind) -> None:
    memory = OwnMemory(4 * UNIT, huge=True)
    if huge_kibibytes(memory.start, memory.end) < 4 * 2048:
        pytest.skip("the kernel had no four huge pages to give")
    probe = begun(kind, memory)
    assert huge_kibibytes(memory.start, memory.end) == 4 * 2048
    memory.read([5])
    memory.write([PAGES + 7])
    bits = probe.look()
    if kind is RwpCensusProbe:
        # A huge page has one bit for all.
        assert bits.is_huge.all()
        assert seen(bits, memory) == list(range(2 * PAGES))
        assert huge_kibibytes(memory.start, memory.end) == 4 * 2048
    else:
        # Split by the first write: each page has its own, at once.
        assert not bits.is_huge.any()
        assert seen(bits, memory) == [PAGES + 7]
        assert huge_kibibytes(memory.start, memory.end) == 3 * 2048
    probe.clear(bits)
    probe.close()
    assert huge_kibibytes(memory.start, memory.end) == 4 * 2048


@pytest.mark.usefixtures("_thp")
@as_ordinary_user
def test_released_memory_can_be_collapsed(kind: Kind) -> None:
    memory = OwnMemory(2 * UNIT)
    memory.advise(mmap.MADV_HUGEPAGE)
    probe = begun(kind, memory)
    with pytest.raises(OSError, match="Invalid argument"):
        memory.advise(MADV_COLLAPSE, 0, PAGES)
    probe.release(memory.start, memory.start + UNIT)
    memory.advise(MADV_COLLAPSE, 0, PAGES)
    assert huge_kibibytes(memory.start, memory.end) == 2048
    assert len(seen(probe.look(), memory)) == PAGES
    probe.clear(probe.look())
    assert seen(probe.look(), memory) == []
    probe.close()


def test_the_mark_goes_to_swap_and_back(kind: Kind) -> None:
    require("swap")
    with swap_on(64 << 20):
        check_swap(kind)


@as_ordinary_user
def check_swap(kind: Kind) -> None:
    memory = OwnMemory(4 * UNIT)
    memory.pages[:] = np.random.default_rng(1).integers(0, 60_000, memory.pages.shape, np.uint16)
    probe = begun(kind, memory)
    before = memory.pages[700].copy()
    probe.clear(probe.look())
    memory.advise(MADV_PAGEOUT, 0, 2 * PAGES)
    assert present(probe.look()) == 2 * PAGES
    assert probe.swapped().tolist() == [memory.start, memory.start + UNIT]
    memory.read([5])
    memory.write([6])
    found = seen(probe.look(), memory)
    assert set(found) >= {6}
    assert (5 in found) == (kind is RwpCensusProbe)
    assert not {*range(7, 2 * PAGES)} & set(found)
    assert (memory.pages[700] == before).all()
    probe.close()


@as_ordinary_user
def test_nothing_is_lost_while_threads_write(kind: Kind) -> None:
    """What one look does not show, another does: every write is found once it is followed by a look."""
    memory = OwnMemory(4 * UNIT)
    probe = begun(kind, memory)
    found: set[int] = set()
    # Ascending, so that there are few runs: only those are seen and protected without loss by both kinds.
    parts = [list(range(part * 2 * PAGES, (part + 1) * 2 * PAGES)) for part in range(2)]
    writers = [threading.Thread(target=write_in_steps, args=(memory, part)) for part in parts]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        bits = probe.look()
        found |= set(seen(bits, memory))
        probe.clear(bits)
    found |= set(seen(probe.look(), memory))
    assert found == set(range(4 * PAGES))
    probe.close()


def write_in_steps(memory: OwnMemory, numbers: list[int]) -> None:
    for number in numbers:
        memory.write([number])


@as_ordinary_user
def test_several_threads_may_look_and_clear(kind: Kind) -> None:
    memory = OwnMemory(4 * UNIT)
    probe = begun(kind, memory)
    errors: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(20):
                probe.clear(probe.look())
                probe.ranges()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    memory.write(range(4 * PAGES))
    for thread in threads:
        thread.join()
    assert errors == []
    probe.clear(probe.look())
    memory.write([77])
    assert seen(probe.look(), memory) == [77]
    probe.close()


@pytest.fixture
def small_file() -> Iterator[str]:
    with tempfile.NamedTemporaryFile(dir="/var/tmp") as file:
        file.write(os.urandom(16 * PAGE))
        file.flush()
        yield file.name


def test_a_file_in_memory_can_be_watched_for_writes(small_file: str) -> None:
    require_tracking(Mode.WRITES)
    array = np.memmap(small_file, np.uint8, mode="c")
    start = array.ctypes.data
    assert int(array.sum()) > 0
    probe = WriteCensusProbe([(start, start + 16 * PAGE)])
    probe.clear(probe.look())
    assert not probe.look().accessed.any()
    array[3 * PAGE] ^= 1
    unit, page = np.nonzero(unpacked(probe.look().accessed))
    assert len(unit) == 1
    assert page[0] == (start + 3 * PAGE) % UNIT // PAGE
    probe.close()
