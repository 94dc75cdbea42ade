"""Huge page advice that another process gives itself for us, what it did, and how it is taken back."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from act.scene import HUGE, MIB, PAGE
from memtherm.act.effect import Subject
from memtherm.act.huge_advice import AdviceLog, HugeAdviceEffect, advise_huge_pages
from memtherm.act.pieces import Pieces
from memtherm.core.ranges import intersect
from memtherm.core.scheme import Action
from memtherm.linux import huge_pages
from memtherm.linux.huge_pages import HugePageFacts
from memtherm.linux.maps import Permission, read_smaps
from memtherm.linux.pagemap import Pagemap
from memtherm.linux.process import Process, open_process
from support.children import MADV_HUGEPAGE, MADV_NOHUGEPAGE, SHARED, Child, memory_child
from support.requires import require

SIZE = 2 * HUGE
pytestmark = pytest.mark.system


@pytest.fixture
def child() -> Iterator[Child]:
    require("root", "ptrace", "thp")
    with memory_child() as fresh:
        yield fresh


@pytest.fixture
def process(child: Child) -> Iterator[Process]:
    with open_process(child.pid) as opened:
        yield opened


@pytest.fixture
def mode(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The host's mode for anonymous memory and for shared memory, as undo sees it: a list to be filled."""
    modes = ["madvise", "never"]
    monkeypatch.setattr(
        "memtherm.act.huge_advice.read_huge_pages",
        lambda: HugePageFacts(mode=modes[0], shared_memory_mode=modes[1], pmd_size_bytes=HUGE),
    )
    return modes


def advice_of(pid: int, address: int) -> str:
    """`hg`, `nh` or nothing, of the mapping that holds the address; a witness that knows nothing of memtherm."""
    inside = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        words = line.split()
        if "-" in words[0]:
            start, end = (int(text, 16) for text in words[0].split("-"))
            inside = start <= address < end
        elif inside and words[0] == "VmFlags:":
            return "".join(flag for flag in words if flag in ("hg", "nh"))
    raise AssertionError(f"{address:#x} is not mapped")


def subject_of(process: Process, pagemap: Pagemap, *ranges: tuple[int, int]) -> Subject:
    mappings = read_smaps(process)
    starts, ends = (np.array([one[side] for one in sorted(ranges)], np.uint64) for side in (0, 1))
    pieces = Pieces(*intersect(starts, ends, mappings.mappings.starts, mappings.mappings.ends))
    return Subject(process, pagemap, pieces, mappings)


def advise(process: Process, log: AdviceLog, action: Action, *ranges: tuple[int, int]) -> tuple[int, int]:
    """Possible and applied bytes."""
    with Pagemap(process) as pagemap:
        subject = subject_of(process, pagemap, *ranges)
        effect = HugeAdviceEffect(subject, action=action)
        start, end, piece = effect.possible_runs()
        assert (end - start).sum() == effect.possible_bytes.sum()
        assert (start >= subject.pieces.start[piece]).all()
        advise_huge_pages(process, subject.pieces, action, log)
        return int(effect.possible_bytes.sum()), int(effect.applied_bytes().sum())


def test_advice_is_given_and_looked_at(child: Child, process: Process) -> None:
    log = AdviceLog()
    address = child.map_aligned(SIZE)
    assert advise(process, log, Action.HUGEPAGE, (address, address + HUGE)) == (HUGE, HUGE)
    assert [advice_of(child.pid, address), advice_of(child.pid, address + HUGE)] == ["hg", ""]
    # What has it is not possible any more, and the other advice is.
    assert advise(process, log, Action.HUGEPAGE, (address, address + SIZE)) == (HUGE, HUGE)
    assert advise(process, log, Action.NOHUGEPAGE, (address, address + SIZE)) == (SIZE, SIZE)
    assert advice_of(child.pid, address) == "nh"


def test_memory_that_the_target_touches_then_becomes_huge(child: Child, process: Process) -> None:
    if huge_pages.read_huge_pages().mode == "never":
        pytest.skip("huge pages: never")
    address = child.map_aligned(SIZE)
    advise(process, AdviceLog(), Action.HUGEPAGE, (address, address + SIZE))
    child.write(address)
    with Pagemap(process) as pagemap:
        assert pagemap.count([address], [address + SIZE]).present_bytes == HUGE
    # The other advice leaves it huge.
    advise(process, AdviceLog(), Action.NOHUGEPAGE, (address, address + SIZE))
    smaps = read_smaps(process)
    row = int(np.searchsorted(smaps.mappings.starts, address, side="right")) - 1
    assert smaps.anonymous_huge_bytes[row] == HUGE


def test_only_memory_that_can_be_huge_counts(child: Child, process: Process, tmp_path: Path) -> None:
    shared = child.map_aligned(SIZE, flags=SHARED)
    path = tmp_path / "file"
    path.write_bytes(bytes(SIZE))
    data = child.map(SIZE, path=str(path), flags=SHARED & ~0x20)
    with Pagemap(process) as pagemap:
        subject = subject_of(process, pagemap, (0, 2**47))
        possible = HugeAdviceEffect(subject, action=Action.NOHUGEPAGE).possible_bytes
    of = subject.mappings.mappings
    names = {name for row, name in enumerate(of.names) if (possible[subject.pieces.mapping == row] > 0).any()}
    by_start = dict(zip(subject.pieces.start.tolist(), possible.tolist(), strict=True))
    assert by_start[shared] == SIZE
    assert by_start[data] == 0
    assert "[vdso]" not in names
    assert "[heap]" in names
    # The program's code, and none of its data.
    program = [row for row, name in enumerate(of.names) if "python" in name]
    executable = of.has_permission(Permission.EXECUTE)
    assert {row for row in program if possible[subject.pieces.mapping == row].sum()} == {
        row for row in program if executable[row]
    }


def test_what_the_application_had_is_put_back_exactly(child: Child, process: Process) -> None:
    log = AdviceLog()
    huge, not_huge = child.map_aligned(SIZE), child.map_aligned(SIZE)
    child.madvise(huge, SIZE, MADV_HUGEPAGE)
    child.madvise(not_huge, SIZE, MADV_NOHUGEPAGE)
    advise(process, log, Action.NOHUGEPAGE, (huge, huge + SIZE))
    advise(process, log, Action.HUGEPAGE, (not_huge, not_huge + HUGE))
    assert [advice_of(child.pid, one) for one in (huge, not_huge)] == ["nh", "hg"]
    assert log.undo(process) == ("6.00 MiB have the huge page advice again that the application gave",)
    assert [advice_of(child.pid, one) for one in (huge, not_huge)] == ["hg", "nh"]
    assert log.undo(process) == ()


@pytest.mark.parametrize(
    "case",
    [
        ("madvise", Action.HUGEPAGE, "nh", "have nohugepage"),
        ("never", Action.HUGEPAGE, "nh", "have nohugepage"),
        ("madvise", Action.NOHUGEPAGE, "nh", "keep nohugepage"),
        ("always", Action.HUGEPAGE, "hg", "keep hugepage"),
        ("always", Action.NOHUGEPAGE, "hg", "have hugepage"),
    ],
)
def test_where_there_was_none_what_comes_nearest_to_none(
    child: Child, process: Process, mode: list[str], case: tuple[str, Action, str, str]
) -> None:
    mode[0], action, after, verb = case
    log = AdviceLog()
    address = child.map_aligned(SIZE)
    advise(process, log, action, (address, address + SIZE))
    (sentence,) = log.undo(process)
    assert sentence == (
        f"4.00 MiB that had no huge page advice {verb} now: no advice can be taken away, and with this host's "
        "settings this comes nearest to none"
    )
    assert advice_of(child.pid, address) == after


def test_shared_memory_has_a_mode_of_its_own(child: Child, process: Process, mode: list[str]) -> None:
    mode[:] = ["always", "never"]
    log = AdviceLog()
    address = child.map_aligned(SIZE, flags=SHARED)
    advise(process, log, Action.HUGEPAGE, (address, address + SIZE))
    assert "have nohugepage now" in log.undo(process)[0]
    assert advice_of(child.pid, address) == "nh"


def test_the_first_of_several_advices_is_undone(child: Child, process: Process) -> None:
    log = AdviceLog()
    address = child.map_aligned(SIZE)
    child.madvise(address, SIZE, MADV_HUGEPAGE)
    advise(process, log, Action.NOHUGEPAGE, (address, address + SIZE))
    advise(process, log, Action.HUGEPAGE, (address + HUGE, address + SIZE))
    advise(process, log, Action.NOHUGEPAGE, (address + HUGE + MIB, address + SIZE))
    log.undo(process)
    assert {advice_of(child.pid, address + offset) for offset in range(0, SIZE, MIB)} == {"hg"}


def test_what_the_target_changed_since_is_left_alone(child: Child, process: Process) -> None:
    log = AdviceLog()
    gone, anew, own = (child.map_aligned(SIZE) for _ in range(3))
    advise(process, log, Action.NOHUGEPAGE, *((one, one + SIZE) for one in (gone, anew, own)))
    child.unmap(gone, SIZE)
    child.unmap(anew, SIZE)
    assert child.map(SIZE, at=anew) == anew
    child.madvise(own, SIZE, MADV_HUGEPAGE)
    assert log.undo(process) == ()
    assert [advice_of(child.pid, one) for one in (anew, own)] == ["", "hg"]


def test_a_target_that_has_ended_needs_nothing(child: Child, process: Process) -> None:
    log = AdviceLog()
    address = child.map_aligned(SIZE)
    advise(process, log, Action.HUGEPAGE, (address, address + SIZE))
    child.kill()
    assert log.undo(process) == ()


def test_what_cannot_be_undone_is_said(child: Child, process: Process, mode: list[str]) -> None:
    mode[0] = "madvise"
    log = AdviceLog()
    address = child.map_aligned(SIZE)
    advise(process, log, Action.HUGEPAGE, (address, address + SIZE))
    os.kill(child.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, child.pid, os.WSTOPPED)
    try:
        (sentence,) = log.undo(process)
    finally:
        os.kill(child.pid, signal.SIGCONT)
    assert sentence.startswith("4.00 MiB keep the huge page advice that was given: ")
    assert "stopped" in sentence
    assert advice_of(child.pid, address) == "hg"


def test_pages_keep_their_content(child: Child, process: Process) -> None:
    address = child.map_aligned(SIZE)
    child.fill(address, SIZE)
    before, log = child.digest(address, SIZE), AdviceLog()
    for action in (Action.HUGEPAGE, Action.NOHUGEPAGE):
        advise(process, log, action, (address, address + SIZE))
    log.undo(process)
    assert child.digest(address, SIZE) == before
    assert len(log) == 0
    assert child.write(address, SIZE // PAGE) == SIZE // PAGE
