"""The workload does what it says: the ground truth of the other system tests, held against /proc."""

import time
from pathlib import Path

import pytest

from support.requires import require
from support.workload import Workload, workload

MIB = 1 << 20
SIZE = 32 * MIB
# A prime number of pages, and one page alone, both inside huge pages.
HOT = [(3 * MIB, 811 * 4096), (20 * MIB + 4096, 4096)]

pytestmark = pytest.mark.system


def smaps_field(child: Workload, field: str) -> int:
    """Bytes of `field` for the mapping of the workload, which must be one mapping."""
    lines = Path(f"/proc/{child.pid}/smaps").read_text().splitlines()
    row = next(number for number, line in enumerate(lines) if line.startswith(f"{child.start:x}-{child.end:x} "))
    return next(int(line.split()[1]) * 1024 for line in lines[row:] if line.startswith(f"{field}:"))


def clear_accessed_bits(child: Workload) -> None:
    # 1 clears them but flushes no TLB, so that pages which the CPU still knows would stay unseen (measured:
    # 91 of 812); 4 clears what we do not use, the soft-dirty bits, and flushes it.
    for command in "14":
        Path(f"/proc/{child.pid}/clear_refs").write_text(command)


def wait_for_passes(child: Workload, count: int) -> None:
    wanted = child.passes() + count
    deadline = time.monotonic() + 30
    while child.passes() < wanted:
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize("memory", ["anonymous", "shared", "file"])
@pytest.mark.parametrize("access", ["read", "write"])
def test_touches_its_hot_pages_and_no_other(memory: str, access: str) -> None:
    with workload(size_bytes=SIZE, hot=HOT, memory=memory, access=access) as child:  # type: ignore[arg-type]
        assert child.rss_bytes() >= SIZE
        assert smaps_field(child, "Rss") == SIZE
        clear_accessed_bits(child)
        wait_for_passes(child, 2)
        assert smaps_field(child, "Referenced") == child.hot_bytes == 812 * 4096


def test_file_pages_are_clean_so_that_they_can_be_dropped() -> None:
    with workload(size_bytes=SIZE, hot=HOT, memory="file") as child:
        assert smaps_field(child, "Private_Dirty") + smaps_field(child, "Shared_Dirty") == 0


def test_huge_pages_where_they_are_asked_for() -> None:
    require("thp")
    with workload(size_bytes=SIZE, hot=HOT, pages="huge") as child:
        assert smaps_field(child, "AnonHugePages") == SIZE
    with workload(size_bytes=SIZE, hot=HOT, pages="small") as child:
        assert smaps_field(child, "AnonHugePages") == 0


def test_keeps_its_rhythm_and_counts() -> None:
    with workload(size_bytes=SIZE, hot=HOT, period_s=0.02) as child:
        before, began_s = child.progress(), time.monotonic()
        time.sleep(0.5)
        after, took_s = child.progress(), time.monotonic() - began_s
    assert 5 <= after.passes - before.passes <= took_s / 0.02 + 2
    assert 0 < after.busy_s - before.busy_s < took_s
    assert 0 < after.longest_pass_s <= after.busy_s - before.busy_s


def test_without_a_pause_it_does_nothing_else() -> None:
    with workload(size_bytes=SIZE, hot=HOT, period_s=0) as child:
        before = child.progress()
        time.sleep(0.2)
        assert child.progress().passes - before.passes > 100


def test_has_gone_after_the_block() -> None:
    with workload(size_bytes=MIB, hot=[]) as child:
        assert child.swap_bytes() == 0
    assert not Path(f"/proc/{child.pid}").exists()


def test_ends_with_its_input() -> None:
    with workload(size_bytes=MIB, hot=[]) as child:
        # What the kernel does for a parent that dies.
        assert child._process.stdin is not None
        child._process.stdin.close()
        assert child._process.wait(timeout=10) == 0


def test_a_stripe_outside_is_refused() -> None:
    with pytest.raises(ProcessLookupError, match="status 2"), workload(size_bytes=MIB, hot=[(MIB, 4096)]):
        pass
