"""The soft-dirty probe beyond the contract: reads, huge pages, swap, new memory, cost."""

from collections.abc import Iterator

import numpy as np
import pytest

from memtherm.core.ranges import Addresses, Flags
from memtherm.errors import NotPermitted, NotSupported
from memtherm.linux.advise import Advice, advise_process
from memtherm.linux.hidden import VARIABLE
from memtherm.linux.process import Process, open_process
from memtherm.probe.softdirty import SoftDirtyProbe
from support.children import HUGE_PAGE_SIZE, MADV_HUGEPAGE, PAGE_SIZE, Child, memory_child
from support.privileges import run_as_nobody
from support.requires import require
from support.swap import swap_on

MIB = 1 << 20
NOTHING = np.zeros(0, np.uint64)


@pytest.fixture
def child() -> Iterator[Child]:
    require("soft_dirty")
    with memory_child() as one:
        yield one


@pytest.fixture
def process(child: Child) -> Iterator[Process]:
    with open_process(child.pid) as one:
        yield one


@pytest.fixture
def probe(process: Process) -> Iterator[SoftDirtyProbe]:
    one = SoftDirtyProbe(process)
    try:
        yield one
    finally:
        one.close()


def pages_of(address: int, count: int) -> Addresses:
    return np.uint64(address) + np.arange(count, dtype=np.uint64) * np.uint64(PAGE_SIZE)


def every_other(count: int) -> Flags:
    flags: Flags = np.arange(count) % 2 == 0
    return flags


def test_what_is_only_read_looks_idle(child: Child, probe: SoftDirtyProbe) -> None:
    address = child.map_aligned(MIB)
    child.write(address, 256)
    probe.clear(NOTHING)
    child.read(address, 256)
    assert not probe.read(pages_of(address, 256)).any()
    child.write(address, 256, step=2)
    np.testing.assert_array_equal(probe.read(pages_of(address, 256)), every_other(256))


def test_a_write_to_a_huge_page_marks_all_of_it(child: Child, probe: SoftDirtyProbe) -> None:
    require("thp")
    address = child.map_aligned(4 * MIB)
    child.madvise(address, 4 * MIB, MADV_HUGEPAGE)
    child.write(address, 1024)
    probe.clear(NOTHING)
    child.write(address + 5 * PAGE_SIZE)
    seen = probe.read(pages_of(address, 1024))
    assert seen[5]
    assert not seen[HUGE_PAGE_SIZE // PAGE_SIZE :].any()


def test_a_page_that_was_swapped_out_stays_written(child: Child, process: Process, probe: SoftDirtyProbe) -> None:
    require("swap", "process_madvise")
    with swap_on(64 * MIB):
        address = child.map_aligned(MIB)
        child.fill(address, MIB)
        probe.clear(NOTHING)
        child.write(address, 256, step=2)
        advise_process(process, np.array([address], np.uint64), np.array([address + MIB], np.uint64), Advice.PAGEOUT)
        assert process.swap_bytes() > MIB // 2
        np.testing.assert_array_equal(probe.read(pages_of(address, 256)), every_other(256))
        child.end()


def test_new_memory_is_written_as_far_as_it_is_there(child: Child, probe: SoftDirtyProbe) -> None:
    probe.clear(NOTHING)
    address = child.map_aligned(MIB)
    child.write(address, 100)
    np.testing.assert_array_equal(probe.read(pages_of(address, 256)), np.arange(256) < 100)
    probe.clear(NOTHING)
    assert not probe.read(pages_of(address, 256)).any()


def test_looks_are_farther_apart_where_more_is_written(child: Child, probe: SoftDirtyProbe) -> None:
    address = child.map_aligned(64 * MIB)
    child.write(address, 16384)
    some = pages_of(address, 16384)[::128]
    intervals_s = []
    for writes in (False, True):
        for _ in range(8):
            probe.clear(NOTHING)
            if writes:
                child.write(address, 16384)
            probe.read(some)
        intervals_s.append(probe.min_sampling_interval_s)
    # 16,384 faults of 1 µs may take a twentieth of the time; after 8 looks a tenth of the mean is still the past.
    assert intervals_s[1] >= 0.9 * 16384 * 1e-6 * 20
    assert intervals_s[1] > intervals_s[0] >= 0.1


def test_it_needs_no_privilege_but_its_own_user(process: Process) -> None:
    require("root")

    def ask() -> str:
        with pytest.raises(NotPermitted) as caught:
            SoftDirtyProbe(process)
        return caught.value.hint

    assert run_as_nobody(ask)


def test_a_kernel_without_soft_dirty_bits_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "soft_dirty")
    with memory_child() as child, open_process(child.pid) as process, pytest.raises(NotSupported, match="soft-dirty"):
        SoftDirtyProbe(process)
