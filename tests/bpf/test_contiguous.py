"""arm64's contiguous groups on real memory: 64 KiB whose accessed bit is one (Linux 6.9 and newer make them)."""

import platform
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bpf.witness import page_addresses, present_pages
from memtherm.linux.advise import Advice, advise_process
from memtherm.linux.page_entries import UnitKind
from memtherm.linux.page_table import TargetWalk
from memtherm.linux.process import Process, open_process
from memtherm.probe.bpf import BpfProbe
from support.children import MADV_HUGEPAGE, PAGE_SIZE, Child
from support.requires import require

MIB, KIB = 1 << 20, 1 << 10
GROUP = 64 * KIB
SIZES = Path("/sys/kernel/mm/transparent_hugepage")


@pytest.fixture
def memory(child: Child, target: TargetWalk) -> Iterator[int]:
    """4 MiB of the child in groups, all written; other sizes of huge pages are off meanwhile."""
    require("root")
    if platform.machine() != "aarch64":
        pytest.skip("only arm64 has contiguous groups")
    wanted = {SIZES / "hugepages-64kB" / "enabled": "madvise", SIZES / "hugepages-2048kB" / "enabled": "never"}
    if not all(path.exists() for path in wanted):
        pytest.skip("this kernel has no huge pages of 64 KiB (new in 6.8)")
    before = {path: path.read_text().partition("[")[2].partition("]")[0] for path in wanted}
    for path, mode in wanted.items():
        path.write_text(mode)
    try:
        start = child.map_aligned(4 * MIB)
        child.madvise(start, 4 * MIB, MADV_HUGEPAGE)
        child.write(start, 1024)
        if not target.read_addresses([start]).contiguous.any():
            pytest.skip("this kernel makes no contiguous groups (new in 6.9)")
        yield start
    finally:
        for path, mode in before.items():
            path.write_text(mode)


@pytest.fixture
def process(child: Child) -> Iterator[Process]:
    with open_process(child.pid) as one:
        yield one


def referenced_bytes(pid: int, start: int) -> int:
    """The kernel's own word: `Referenced` of the mapping in smaps."""
    text = Path(f"/proc/{pid}/smaps").read_text().partition(f"{start:x}-")[2]
    line = next(line for line in text.splitlines() if line.startswith("Referenced:"))
    return int(line.split()[1]) * KIB


def cool(process: Process, start: int) -> None:
    first, last = np.array([start], np.uint64), np.array([start + 4 * MIB], np.uint64)
    assert not len(advise_process(process, first, last, Advice.COLD).failed_starts)


@pytest.mark.parametrize("access", ["read", "write"])
def test_one_access_is_that_of_its_whole_group(
    child: Child, process: Process, target: TargetWalk, memory: int, access: str
) -> None:
    everything = page_addresses(memory, memory + 4 * MIB)
    entries = target.read_addresses(everything)
    assert entries.contiguous.all()
    assert entries.accessed.all()
    assert set(entries.page_bytes.tolist()) == {GROUP}
    cool(process, memory)
    assert target.read_ranges([memory], [memory + 4 * MIB]).accessed_bytes == 0 == referenced_bytes(child.pid, memory)
    assert not target.read_addresses(everything).accessed.any()

    # A page somewhere in every fifth group.
    touched = [memory + group * GROUP + group % 16 * PAGE_SIZE for group in range(0, 64, 5)]
    for page in touched:
        getattr(child, access)(page)
    units = target.read_ranges([memory], [memory + 4 * MIB])
    assert (units.kind == UnitKind.PTE_TABLE).all()
    assert units.present_pages().tolist() == present_pages(child.pid, memory, memory + 4 * MIB).tolist()
    groups = page_addresses(memory, memory + 4 * MIB).reshape(-1, 16)[::5].reshape(-1).tolist()
    assert units.accessed_pages().tolist() == groups
    assert units.accessed_bytes == referenced_bytes(child.pid, memory)
    entries = target.read_addresses(everything)
    assert everything[entries.accessed].tolist() == groups
    # Asked for one page of a group, though another one was touched.
    assert target.read_addresses([memory + 5 * GROUP]).accessed.all()


def test_a_group_that_was_broken_up_is_single_pages_again(child: Child, target: TargetWalk, memory: int) -> None:
    child.mprotect(memory + 5 * PAGE_SIZE, 2 * PAGE_SIZE, 1)
    entries = target.read_addresses(page_addresses(memory, memory + 2 * GROUP))
    assert entries.present.all()
    assert entries.contiguous.tolist() == [False] * 16 + [True] * 16
    assert entries.page_bytes.tolist() == [PAGE_SIZE] * 16 + [GROUP] * 16


def test_the_probe_clears_whole_groups_and_leaves_them_whole(
    child: Child, process: Process, target: TargetWalk, memory: int
) -> None:
    probe = BpfProbe(process)
    asked = memory + np.arange(0, 64, 3, dtype=np.uint64) * np.uint64(GROUP) + np.uint64(7 * PAGE_SIZE)
    probe.clear(asked)
    assert not probe.read(asked).any()
    child.read(memory + 3 * GROUP + 2 * PAGE_SIZE)
    assert probe.read(asked).tolist() == [False, True] + [False] * 20
    assert target.read_addresses(page_addresses(memory, memory + 4 * MIB)).contiguous.all()
    probe.close()
