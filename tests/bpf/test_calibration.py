"""What the walk must know of the host: texts of /proc, and the proof by our own pages."""

import dataclasses
import mmap
import os
import platform
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from memtherm.errors import InvalidInput, NotSupported
from memtherm.linux import page_table
from memtherm.linux.page_table import PageTableWalker, parse_ram
from support.requires import require

IOMEM = """\
00000000-00000fff : Reserved
00001000-0009fbff : System RAM
00100000-bfffffff : System RAM
  01000000-0220bb07 : Kernel code
fec00000-fec003ff : IOAPIC 0
100000000-63fffffff : System RAM
4000000000-7fffffffff : PCI Bus 0000:00
"""
PLUGGED = "1000000000-107fffffff : CXL Window 0\n  1000000000-107fffffff : System RAM (kmem)\n"
HIDDEN = "00000000-00000000 : Reserved\n00000000-00000000 : System RAM\n"


def test_ram() -> None:
    known = [(0x1000, 0x9FC00), (0x10_0000, 0xC000_0000), (0x1_0000_0000, 0x6_4000_0000)]
    assert parse_ram(IOMEM) == known
    assert parse_ram(IOMEM + PLUGGED) == [*known, (0x10_0000_0000, 0x10_8000_0000)]
    assert parse_ram(HIDDEN) == []
    assert parse_ram("") == []


@pytest.fixture
def own_walker() -> Iterator[PageTableWalker]:
    """Not the shared one: its settings may be spoilt."""
    require("root", "bpf")
    walker = PageTableWalker()
    yield walker
    walker.close()


@pytest.fixture
def own_pages() -> Iterator[NDArray[np.uint64]]:
    """Addresses of 32 touched pages of this process."""
    memory = mmap.mmap(-1, 32 * 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    array = np.frombuffer(memory, dtype=np.uint8)
    array[:] = 1
    yield array.__array_interface__["data"][0] + np.arange(32, dtype=np.uint64) * np.uint64(4096)
    assert array.all()  # and so it lived until now


def test_calibration_is_plausible_and_stable(own_walker: PageTableWalker) -> None:
    found = own_walker.calibrate()
    assert found.page_offset % (1 << 30) == 0
    assert found.page_offset >= 1 << 63
    assert found.levels in (3, 4, 5)
    assert found.physical_limit <= found.physical_mask
    assert own_walker.calibrate() is found
    assert PageTableWalker.open().calibrate() == found


def test_wrong_offset_shows_as_failed_reads(own_walker: PageTableWalker, own_pages: NDArray[np.uint64]) -> None:
    right = own_walker.calibrate()
    # Not canonical, so that no table can be there.
    own_walker._set_calibration(dataclasses.replace(right, page_offset=1 << 63))
    start, end = int(own_pages[0]), int(own_pages[-1]) + 4096
    with own_walker.target(os.getpid()) as own:
        assert own.read_addresses(own_pages).failed.all()
        units = own.read_ranges([start], [end])
        assert (len(units), units.failed_reads > 0) == (0, True)
        own_walker._set_calibration(right)
        assert own.read_addresses(own_pages).present.all()
        units = own.read_ranges([start], [end])
        assert (units.present_bytes, units.failed_reads) == (end - start, 0)


def test_nothing_is_read_above_the_end_of_ram(
    own_walker: PageTableWalker, own_pages: NDArray[np.uint64], monkeypatch: pytest.MonkeyPatch
) -> None:
    low = dataclasses.replace(own_walker.calibrate(), physical_limit=4096)
    own_walker._calibration = low
    own_walker._set_calibration(low)
    monkeypatch.setattr(page_table, "read_ram", lambda: [(0, 4096)])
    with own_walker.target(os.getpid()) as own:
        assert own.read_addresses(own_pages).failed.all()
        assert own.read_ranges([int(own_pages[0])], [int(own_pages[-1])]).failed_reads == 1
        # Memory is plugged in.
        monkeypatch.undo()
        assert own.read_addresses(own_pages).present.all()
    assert own_walker.calibrate() == PageTableWalker.open().calibrate()


def test_memory_beyond_what_an_entry_is_known_to_hold(
    own_walker: PageTableWalker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_table, "read_ram", lambda: [(0, 1 << 60)])
    with pytest.raises(NotSupported, match="RAM reaches up to 0x1000000000000000"):
        own_walker.calibrate()


def test_no_guess_is_right(own_walker: PageTableWalker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_table, "_page_offset_candidates", lambda *_: range(1 << 63, (1 << 63) + 1))
    with pytest.raises(NotSupported, match="no guess") as caught:
        own_walker.calibrate()
    assert "lockdown" in caught.value.hint


def test_other_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    with pytest.raises(NotSupported, match="not made for this architecture"):
        PageTableWalker()


def test_one_walker_for_the_process_until_closed() -> None:
    require("root", "bpf")
    first = PageTableWalker.open()
    assert PageTableWalker.open() is first
    first.close()
    second = PageTableWalker.open()
    assert second is not first
    with second.target(os.getpid()) as own:
        assert own.read_addresses([0]).empty.all()


def _in_a_fork(function: Callable[[], int]) -> int:
    with warnings.catch_warnings():
        # Python 3.12 warns of forks in a process with threads; the child takes no lock of theirs.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        os._exit(function())
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_forked_child_gets_a_walker_of_its_own() -> None:
    require("root", "bpf")
    parents = PageTableWalker.open()
    with parents.target(os.getpid()) as of_parent:

        def child() -> int:
            try:
                of_parent.read_addresses([0])
            except InvalidInput:
                own = PageTableWalker.open()
                with own.target(os.getpid()) as target:
                    return 0 if own is not parents and target.read_addresses([0]).empty.all() else 2
            return 1

        assert _in_a_fork(child) == 0
        assert of_parent.read_addresses([0]).empty.all()
