"""What must not be touched is not touched, and its bytes are told with the reason."""

import mmap
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from act.scene import (
    ALL,
    GUARD,
    HUGE,
    MIB,
    PAGE,
    about,
    act,
    drop_from_page_cache,
    meminfo_bytes,
    present_bytes,
    reasons,
    smaps_bytes,
    status_bytes,
)
from memtherm.act import advice as advice_module
from memtherm.act.guard import mapping_refusals, target_refusal
from memtherm.core.guard import GuardSettings
from memtherm.core.scheme import Action
from memtherm.errors import NotPermitted, TargetGone
from memtherm.linux.advise import AdviseResult, advise
from memtherm.linux.maps import MappingKind, parse_smaps, read_smaps
from memtherm.linux.process import Process, open_process
from support.children import MADV_HUGEPAGE, MADV_NOHUGEPAGE, SHARED, Child
from support.requires import require
from support.swap import swap_on

NO_SWAP = "anonymous memory, and no swap"
LITTLE_SWAP = "not enough free swap for anonymous memory"
PART = "less than a whole huge page"
MAP_HUGETLB = 0x40000
ACTING = [Action.PAGEOUT, Action.COLD, Action.COLLAPSE, Action.WILLNEED]
HUGE_PAGE_POOL = Path("/proc/sys/vm/nr_hugepages")

pytestmark = pytest.mark.system


@pytest.fixture
def without_swap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMTHERM_WITHOUT", "swap")


@pytest.mark.usefixtures("without_swap")
def test_without_swap_anonymous_memory_stays_and_files_go(child: Child, process: Process, file: Path) -> None:
    anonymous, shared = child.map_aligned(8 * MIB), child.map_aligned(4 * MIB, flags=SHARED)
    mapped = child.map(16 * MIB, flags=mmap.MAP_SHARED, path=str(file))
    child.write(anonymous, 2048)
    child.write(shared, 1024)
    child.read(mapped, 4096)
    ranges = [(anonymous, anonymous + 8 * MIB), (shared, shared + 4 * MIB), (mapped, mapped + 16 * MIB)]
    outcome = act(process, Action.PAGEOUT, *sorted(ranges))
    assert outcome.applied_bytes == 16 * MIB - present_bytes(child.pid, mapped, mapped + 16 * MIB) == about(16 * MIB)
    assert reasons(outcome) == {NO_SWAP: 12 * MIB}
    assert present_bytes(child.pid, anonymous, anonymous + 8 * MIB) == 8 * MIB
    assert smaps_bytes(child.pid, "Referenced", anonymous, anonymous + 8 * MIB) == 8 * MIB


@pytest.mark.usefixtures("without_swap")
def test_without_swap_private_copies_of_file_pages_stay(child: Child, process: Process, file: Path) -> None:
    mapped = child.map(16 * MIB, flags=mmap.MAP_PRIVATE, path=str(file))
    child.read(mapped, 4096)
    child.write(mapped + 4 * MIB, 512)
    child.write(mapped + 10 * MIB, 10, step=7)
    outcome = act(process, Action.PAGEOUT, (mapped, mapped + 16 * MIB))
    copies = smaps_bytes(child.pid, "Anonymous", mapped, mapped + 16 * MIB)
    assert reasons(outcome) == {NO_SWAP: copies}
    assert outcome.applied_bytes == about(16 * MIB - copies)
    assert present_bytes(child.pid, mapped, mapped + 16 * MIB) == 16 * MIB - outcome.applied_bytes


@pytest.mark.usefixtures("without_swap")
@pytest.mark.parametrize("flags", [mmap.MAP_PRIVATE, mmap.MAP_SHARED])
def test_without_swap_files_in_memory_stay(child: Child, process: Process, flags: int) -> None:
    folder = Path("/dev/shm")
    if not folder.is_dir():
        pytest.skip("no /dev/shm")
    path = folder / f"memtherm-act-{os.getpid()}"
    path.write_bytes(b"\1" * 4 * MIB)
    try:
        mapped = child.map(4 * MIB, flags=flags, path=str(path))
        child.read(mapped, 1024)
        outcome = act(process, Action.PAGEOUT, (mapped, mapped + 4 * MIB))
    finally:
        path.unlink()
    assert reasons(outcome) == {NO_SWAP: 4 * MIB}
    assert outcome.applied_bytes == 0


def test_a_swap_that_is_too_small_takes_what_it_can(child: Child, process: Process) -> None:
    require("swap")
    address = child.map_aligned(48 * MIB)
    child.fill(address, 48 * MIB)
    regions = [(address + offset * MIB, address + (offset + 6) * MIB) for offset in range(0, 48, 6)]
    with swap_on(20 * MIB):
        total = meminfo_bytes("SwapTotal")
        free = meminfo_bytes("SwapFree")
        assert free == total, "something else uses swap"
        outcome = act(process, Action.PAGEOUT, *regions)
        assert outcome.applied_bytes == about(free)
        assert outcome.applied_bytes == about(status_bytes(child.pid, "VmSwap"))
        assert reasons(outcome) == {LITTLE_SWAP: 48 * MIB - free}
        # The first regions went, one in part, and the others were not touched.
        assert outcome.applied_range_bytes.tolist()[:3] == [about(6 * MIB)] * 3
        assert outcome.applied_range_bytes.tolist()[4:] == [0] * 4
        assert smaps_bytes(child.pid, "Referenced", address, address + 48 * MIB) == about(48 * MIB - free)
        again = act(process, Action.PAGEOUT, *regions)
        assert again.applied_bytes <= PAGE * 64
        child.end()


def test_a_swap_that_is_too_small_splits_no_huge_page(child: Child, process: Process) -> None:
    require("swap", "thp")
    address = child.map_aligned(24 * MIB)
    child.madvise(address, 24 * MIB, MADV_HUGEPAGE)
    child.fill(address, 24 * MIB)
    with swap_on(9 * MIB):
        free = meminfo_bytes("SwapFree")
        outcome = act(process, Action.PAGEOUT, (address, address + 24 * MIB))
        assert set(reasons(outcome)) == {LITTLE_SWAP, PART}
        assert outcome.applied_bytes == free // HUGE * HUGE
        assert smaps_bytes(child.pid, "AnonHugePages", address, address + 24 * MIB) == 24 * MIB - outcome.applied_bytes
        child.end()


@pytest.mark.parametrize("action", ACTING)
def test_locked_memory_is_left_alone(child: Child, process: Process, action: Action) -> None:
    address = child.map_aligned(8 * MIB)
    child.write(address, 2048)
    child.mlock(address + 2 * MIB, 4 * MIB)
    before = smaps_bytes(child.pid, "Referenced", address + 2 * MIB, address + 6 * MIB)
    outcome = act(process, action, (address, address + 8 * MIB))
    assert reasons(outcome)["locked in memory (VmFlags lo)"] == 4 * MIB
    assert smaps_bytes(child.pid, "Referenced", address + 2 * MIB, address + 6 * MIB) == before == 4 * MIB
    assert smaps_bytes(child.pid, "AnonHugePages", address + 2 * MIB, address + 6 * MIB) == 0


@pytest.mark.parametrize("action", ACTING)
def test_hugetlb_pages_are_left_alone(child: Child, process: Process, action: Action) -> None:
    with reserved_huge_pages(2):
        address = child.map(2 * HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_HUGETLB)
        child.write(address, 1024)
        outcome = act(process, action, (address, address + 2 * HUGE))
        assert reasons(outcome) == {"hugetlb pages (VmFlags ht)": 2 * HUGE}
        assert smaps_bytes(child.pid, "Private_Hugetlb", address, address + 2 * HUGE) == 2 * HUGE
        child.end()


@contextmanager
def reserved_huge_pages(count: int) -> Iterator[None]:
    before = HUGE_PAGE_POOL.read_text()
    HUGE_PAGE_POOL.write_text(str(int(before) + count))
    try:
        if int(HUGE_PAGE_POOL.read_text()) < int(before) + count:
            pytest.skip("no 2 MiB blocks are free for hugetlb")
        yield
    finally:
        HUGE_PAGE_POOL.write_text(before)


@pytest.mark.parametrize("action", ACTING)
def test_memory_that_userfaultfd_handles_is_left_alone(action: Action) -> None:
    require("root", "process_madvise")
    program = Path(__file__).with_name("userfault_program.py")
    with subprocess.Popen(
        [sys.executable, str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        line = child.stdout.readline()
        if not line:
            pytest.skip("no userfaultfd here")
        address = int(line)
        with open_process(child.pid) as process:
            outcome = act(process, action, (address, address + 8 * MIB))
        assert reasons(outcome) == {"handled by userfaultfd (VmFlags um, uw, ui, ur)": 8 * MIB}
        assert smaps_bytes(child.pid, "Referenced", address, address + 8 * MIB) == 8 * MIB


@pytest.mark.parametrize("action", ACTING)
def test_of_a_whole_process_nothing_forbidden_is_advised(
    child: Child, process: Process, action: Action, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = child.map_aligned(16 * MIB)
    child.write(address, 4096)
    # All else that the child maps of files may be in memory: then there is nothing to bring there.
    child.map(MIB, flags=mmap.MAP_SHARED, path=str(file))
    drop_from_page_cache(file)
    child.mlock(address + 4 * MIB, MIB)
    child.madvise(address + 8 * MIB, HUGE, MADV_NOHUGEPAGE)
    mappings = read_smaps(process)
    forbidden = mappings.has_any_flag(("lo", "ht", "pf", "io", "um", "uw"))
    forbidden |= mappings.mappings.kinds == MappingKind.SPECIAL
    if action is Action.COLLAPSE:
        forbidden |= mappings.has_flag("nh")
    assert forbidden.sum() >= 3
    advised: list[tuple[int, int]] = []

    def spy(pidfd: int, start: np.ndarray, end: np.ndarray, advice: int) -> AdviseResult:
        advised.extend(zip(start.tolist(), end.tolist(), strict=True))
        return advise(pidfd, start, end, advice)  # type: ignore[arg-type]

    monkeypatch.setattr(advice_module, "advise", spy)
    monkeypatch.setenv("MEMTHERM_WITHOUT", "swap")
    outcome = act(process, action, ALL)
    assert "locked in memory (VmFlags lo)" in reasons(outcome)
    assert "mapped by the kernel" in reasons(outcome)
    rows = mappings.mappings
    allowed = list(zip(rows.starts[~forbidden].tolist(), rows.ends[~forbidden].tolist(), strict=True))
    for start, end in advised:
        assert any(first <= start < end <= last for first, last in allowed)
    assert len(advised) > 0
    # It lives on, and answers.
    assert child.read(address, 4096) == 4096


@pytest.mark.parametrize("code", ["lo", "ht", "pf", "io", "um", "uw", "ui", "ur"])
@pytest.mark.parametrize("action", ACTING)
def test_every_flag_that_forbids(code: str, action: Action) -> None:
    text = b"00400000-00800000 rw-p 00000000 00:00 0 \nRss: 4096 kB\nVmFlags: rd wr mr mw me %s \n" % code.encode()
    text += b"00800000-00c00000 rw-p 00000000 00:00 0 \nRss: 4096 kB\nVmFlags: rd wr mr mw me zz \n"
    for settings in (GuardSettings(), GuardSettings(override_application_hints=True)):
        (refusal,) = mapping_refusals(parse_smaps(text), action, settings)
        assert code in refusal.reason
        assert refusal.refused.tolist() == [True, False]


def test_a_mapping_without_flags_is_not_trusted() -> None:
    text = b"00400000-00800000 rw-p 00000000 00:00 0 \nRss: 4096 kB\n"
    (refusal,) = mapping_refusals(parse_smaps(text), Action.PAGEOUT, GuardSettings())
    assert (refusal.reason, refusal.refused.tolist()) == ("VmFlags cannot be read", [True])


def test_a_mapping_has_one_reason() -> None:
    text = b"00400000-00800000 rw-p 00000000 00:00 0 \nRss: 4096 kB\nVmFlags: rd lo ht um nh \n"
    (refusal,) = mapping_refusals(parse_smaps(text), Action.COLLAPSE, GuardSettings())
    assert refusal.reason == "locked in memory (VmFlags lo)"


@pytest.mark.parametrize("override", [False, True])
def test_who_asked_for_no_huge_pages_gets_none(child: Child, process: Process, override: bool) -> None:
    require("thp")
    address = child.map_aligned(8 * MIB)
    child.madvise(address, 4 * MIB, MADV_NOHUGEPAGE)
    child.write(address, 2048)
    guard = replace(GUARD, override_application_hints=override)
    outcome = act(process, Action.COLLAPSE, (address, address + 8 * MIB), guard=guard)
    # Overridden, the kernel itself still refuses it (damon-spec §5.2); nothing is told as applied that was not.
    assert outcome.applied_bytes == 4 * MIB == smaps_bytes(child.pid, "AnonHugePages", address, address + 8 * MIB)
    assert reasons(outcome) == ({} if override else {"the application asked for no huge pages (VmFlags nh)": 4 * MIB})


@pytest.mark.parametrize("action", [Action.COLD, Action.PAGEOUT])
def test_no_huge_page_is_split(child: Child, process: Process, action: Action) -> None:
    require("swap", "thp")
    address = child.map_aligned(16 * MIB)
    child.madvise(address, 16 * MIB, MADV_HUGEPAGE)
    child.write(address, 4096)

    def huge_bytes() -> int:
        return smaps_bytes(child.pid, "AnonHugePages", address, address + 16 * MIB)

    assert huge_bytes() == 16 * MIB
    with swap_on(64 * MIB):
        within_one = act(process, action, (address + 4 * PAGE, address + MIB))
        assert reasons(within_one) == {PART: MIB - 4 * PAGE}
        assert within_one.applied_bytes == 0
        assert huge_bytes() == 16 * MIB
        # Two regions that meet inside the huge page of 4 MiB: together they are whole, alone neither is.
        meeting = act(process, action, (address + 3 * MIB, address + 5 * MIB), (address + 5 * MIB, address + 9 * MIB))
        assert meeting.applied_range_bytes.tolist() == [about(MIB), about(3 * MIB)]
        assert reasons(meeting) == {PART: 2 * MIB}
        gone = meeting.applied_bytes if action is Action.PAGEOUT else 0
        assert huge_bytes() == 16 * MIB - gone
        child.end()


def test_willneed_of_a_part_of_a_huge_page_is_not_refused(child: Child, process: Process) -> None:
    require("thp")
    address = child.map_aligned(4 * MIB)
    child.madvise(address, 4 * MIB, MADV_HUGEPAGE)
    child.write(address, 1024)
    assert act(process, Action.WILLNEED, (address + PAGE, address + MIB)).refused == ()
    assert smaps_bytes(child.pid, "AnonHugePages", address, address + 4 * MIB) == 4 * MIB


def test_a_small_target_is_left_alone(child: Child, process: Process) -> None:
    address = child.map_aligned(8 * MIB)
    child.write(address, 2048)
    outcome = act(process, Action.COLD, (address, address + 8 * MIB), guard=GuardSettings())
    (refusal,) = outcome.refused
    assert "targets below 64.0 MiB are left alone" in refusal.reason
    assert refusal.size_bytes == outcome.tried_bytes == 8 * MIB
    assert smaps_bytes(child.pid, "Referenced", address, address + 8 * MIB) == 8 * MIB


def test_a_target_that_is_small_because_it_was_paged_out_counts_whole(child: Child, process: Process) -> None:
    require("swap")
    address = child.map_aligned(72 * MIB)
    child.write(address, 72 * 256)
    with swap_on(128 * MIB):
        for _ in range(2):
            outcome = act(
                process, Action.PAGEOUT, (address, address + 72 * MIB), guard=replace(GUARD, min_target_bytes=64 * MIB)
            )
            assert outcome.refused == ()
        assert status_bytes(child.pid, "VmRSS") < 64 * MIB
        child.end()


def test_memtherm_does_not_act_on_itself() -> None:
    require("root", "process_madvise")
    with open_process(os.getpid()) as process:
        outcome = act(process, Action.PAGEOUT, ALL)
    assert reasons(outcome) == {"memtherm does not act on itself": outcome.tried_bytes}
    assert outcome.tried_bytes > 0


def test_pid_1_is_never_acted_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> AdviseResult:
        raise AssertionError("pid 1 was advised")

    monkeypatch.setattr(advice_module, "advise", never)
    with open_process(1) as process:
        assert target_refusal(process, GuardSettings()) == "pid 1 is never acted on"
        # Some hosts keep its memory from root, too.
        with suppress(NotPermitted):
            outcome = act(process, Action.PAGEOUT, ALL)
            assert list(reasons(outcome)) == ["pid 1 is never acted on"]


def test_a_kernel_thread_is_never_acted_on() -> None:
    require("root")
    with open_process(2) as process:  # kthreadd
        assert target_refusal(process, GuardSettings()) == "a kernel thread has no memory of its own"
        with pytest.raises(TargetGone):
            act(process, Action.PAGEOUT, ALL)
