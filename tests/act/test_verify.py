"""Where an action is possible, page by page: what an effect tells against what a witness finds."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from act.scene import HUGE, MIB, PAGE, drop_from_page_cache
from memtherm.act.effect import Effect, Subject
from memtherm.act.pieces import Pieces
from memtherm.act.verify import EFFECTS
from memtherm.core.ranges import intersect
from memtherm.core.scheme import Action
from memtherm.linux.advise import Advice, advise_process
from memtherm.linux.maps import read_smaps
from memtherm.linux.pagemap import Pagemap
from memtherm.linux.process import Process
from support.children import MADV_HUGEPAGE, MADV_NOHUGEPAGE, SHARED, Child
from support.requires import require
from support.swap import swap_on

pytestmark = pytest.mark.system


@pytest.fixture
def pagemap(process: Process) -> Iterator[Pagemap]:
    with Pagemap(process) as opened:
        yield opened


def effect_of(action: Action, process: Process, pagemap: Pagemap, *ranges: tuple[int, int]) -> Effect:
    """Of ranges that may share mappings."""
    mappings = read_smaps(process)
    starts, ends = (np.array([one[side] for one in sorted(ranges)], np.uint64) for side in (0, 1))
    pieces = Pieces(*intersect(starts, ends, mappings.mappings.starts, mappings.mappings.ends))
    return EFFECTS[action](Subject(process, pagemap, pieces, mappings))


def pages_in(effect: Effect) -> set[int]:
    """Addresses of the pages in its runs, after a check that they add up piece by piece."""
    start, end, piece = effect.possible_runs()
    assert (start[1:] >= end[:-1]).all()
    lengths = (end - start).astype(np.int64)
    found = np.bincount(piece, weights=lengths, minlength=len(effect.possible_bytes))
    assert found.tolist() == effect.possible_bytes.tolist()
    return {page for first, last in zip(start.tolist(), end.tolist(), strict=True) for page in range(first, last, PAGE)}


def entries(pid: int, start: int, end: int) -> list[int]:
    with open(f"/proc/{pid}/pagemap", "rb") as file:
        file.seek(start // PAGE * 8)
        numbers: list[int] = np.frombuffer(file.read((end - start) // PAGE * 8), np.uint64).tolist()
    return numbers


@pytest.mark.parametrize("action", [Action.PAGEOUT, Action.COLD])
def test_what_is_in_memory(child: Child, process: Process, pagemap: Pagemap, action: Action) -> None:
    address = child.map_aligned(HUGE)
    child.madvise(address, HUGE, MADV_NOHUGEPAGE)
    child.write(address, 200, step=3)
    middle = address + 100 * PAGE
    found = pages_in(effect_of(action, process, pagemap, (address, middle), (middle, address + HUGE)))
    present = {
        address + page * PAGE for page, one in enumerate(entries(child.pid, address, address + HUGE)) if one >> 63
    }
    assert found == present
    assert len(found) == 67


def test_what_is_not_huge_yet(child: Child, process: Process, pagemap: Pagemap) -> None:
    require("thp", "pagemap_scan")
    address = child.map_aligned(4 * HUGE)
    child.madvise(address, 4 * HUGE, MADV_NOHUGEPAGE)
    child.write(address, 4 * HUGE // PAGE)
    child.madvise(address + HUGE, HUGE, MADV_HUGEPAGE)
    advise_process(process, [address + HUGE], [address + 2 * HUGE], Advice.COLLAPSE)
    if not pagemap.count([address], [address + 4 * HUGE]).huge_bytes:
        pytest.skip("no huge page to be had")
    found = pages_in(effect_of(Action.COLLAPSE, process, pagemap, (address, address + 4 * HUGE)))
    huge = {address + HUGE + offset for offset in range(0, HUGE, PAGE)}
    assert found == set(range(address, address + 4 * HUGE, PAGE)) - huge


def test_what_is_in_swap(child: Child, process: Process, pagemap: Pagemap) -> None:
    require("swap")
    with swap_on(64 * MIB):
        address = child.map_aligned(HUGE)
        child.fill(address, HUGE)
        advise_process(process, [address + MIB], [address + HUGE], Advice.PAGEOUT)
        found = pages_in(effect_of(Action.WILLNEED, process, pagemap, (address, address + HUGE)))
        swapped = (page for page, one in enumerate(entries(child.pid, address, address + HUGE)) if one >> 62 & 1)
        assert found == {address + page * PAGE for page in swapped}
        assert len(found) > 0.9 * MIB / PAGE


def test_what_of_a_file_is_not_in_memory(child: Child, process: Process, pagemap: Pagemap, file: Path) -> None:
    size = 16 * MIB
    # Beyond the end of the file there is nothing to read.
    address = child.map(size + HUGE, flags=SHARED & ~0x20, path=str(file))
    drop_from_page_cache(file)
    effect = effect_of(Action.WILLNEED, process, pagemap, (address, address + size + HUGE))
    assert pages_in(effect) == set(range(address, address + size, PAGE))
    child.read(address, size // PAGE)
    assert effect.applied_bytes().sum() == size
    effect = effect_of(Action.WILLNEED, process, pagemap, (address, address + size + HUGE))
    assert pages_in(effect) == set()
