"""process_madvise in batches: short counts, holes, limits, refusals.  The witness of what happened is smaps."""

import ctypes
import errno
import itertools
import os
import time
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from memtherm.errors import InvalidInput, NotPermitted, NotSupported, TargetGone
from memtherm.linux import libc
from memtherm.linux.advise import Advice, advise
from memtherm.linux.maps import read_smaps
from memtherm.linux.process import Process, open_process
from memtherm.linux.swap import read_swap
from support.children import ANONYMOUS, MAP_NORESERVE, Child, memory_child, on_one_processor
from support.privileges import run_as_nobody
from support.requires import require
from support.swap import swap_on

PAGE = 4096
MIB = 1 << 20
HUGE = 2 * MIB
GIB = 1 << 30
LIMIT = 0x7FFFF000


@pytest.fixture
def child() -> Iterator[Child]:
    require("process_madvise", "root")
    with on_one_processor(), memory_child() as fresh:
        yield fresh


@pytest.fixture
def process(child: Child) -> Iterator[Process]:
    with open_process(child.pid) as opened:
        yield opened


def sum_in(process: Process, start: int, end: int, column: str) -> int:
    details = read_smaps(process)
    inside = (details.mappings.starts >= start) & (details.mappings.ends <= end)
    return int(getattr(details, column)[inside].sum())


def pages(address: int, indices: NDArray[np.int64] | list[int]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    starts = np.uint64(address) + np.asarray(indices, np.uint64) * np.uint64(PAGE)
    return starts, starts + np.uint64(PAGE)


def test_no_ranges(process: Process) -> None:
    for starts in ([], [4096]):
        result = advise(process.pidfd, starts, starts, Advice.COLD)
        assert (result.requested_bytes, result.done_bytes, len(result.failed_starts)) == (0, 0, 0)


def test_cold_takes_the_marks_away(child: Child, process: Process) -> None:
    address = child.map_aligned(4 * MIB)
    child.write(address, 1024)
    assert sum_in(process, address, address + 4 * MIB, "referenced_bytes") == 4 * MIB
    result = advise(process.pidfd, [address + MIB], [address + 3 * MIB], Advice.COLD)
    assert result.done_bytes == result.requested_bytes == 2 * MIB
    assert sum_in(process, address, address + 4 * MIB, "referenced_bytes") == 2 * MIB
    assert sum_in(process, address, address + 4 * MIB, "rss_bytes") == 4 * MIB


def test_three_thousand_pages_take_three_calls(child: Child, process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    address = child.map_aligned(6000 * PAGE // HUGE * HUGE + HUGE)
    child.write(address, 6000)
    calls: list[int] = []
    real = libc.process_madvise

    def counted(pidfd: int, vectors: int, count: int, advice: int) -> int:
        calls.append(count)
        return real(pidfd, vectors, count, advice)

    monkeypatch.setattr(libc, "process_madvise", counted)
    starts, ends = pages(address, np.arange(0, 6000, 2))
    result = advise(process.pidfd, starts, ends, Advice.COLD)
    assert calls == [1024, 1024, 952]
    assert result.done_bytes == 3000 * PAGE
    assert len(result.failed_errnos) == 0
    assert sum_in(process, address, address + 6000 * PAGE + HUGE, "referenced_bytes") == 3000 * PAGE


def test_what_lies_behind_a_hole_is_advised(child: Child, process: Process) -> None:
    address = child.map_aligned(4 * MIB)
    child.write(address, 1024)
    child.unmap(address + 8 * PAGE, 8 * PAGE)
    ranges = [address + count * PAGE for count in (0, 4, 12, 20, 1023)]
    ends = [address + count * PAGE for count in (4, 12, 20, 24, 1024)]  # the second ends, the third begins in the hole
    result = advise(process.pidfd, ranges, ends, Advice.COLD)
    assert result.requested_bytes == 25 * PAGE
    assert result.done_bytes == 9 * PAGE
    assert result.failed_starts.tolist() == [address + 4 * PAGE, address + 12 * PAGE]
    assert result.failed_ends.tolist() == [address + 12 * PAGE, address + 20 * PAGE]
    assert result.failed_errnos.tolist() == [errno.ENOMEM] * 2
    # The mapped parts of a failed range are advised all the same: 4 pages on each side of the hole.
    still = sum_in(process, address, address + 4 * MIB, "referenced_bytes")
    assert still == (1024 - 8 - 9 - 4 - 4) * PAGE


def test_locked_memory_is_refused_and_the_rest_is_not(child: Child, process: Process) -> None:
    address = child.map_aligned(4 * MIB)
    child.write(address, 1024)
    child.mlock(address + 100 * PAGE, 50 * PAGE)
    borders = np.array([0, 100, 150, 1024]) * PAGE + address
    result = advise(process.pidfd, borders[:-1], borders[1:], Advice.COLD)
    assert result.done_bytes == (1024 - 50) * PAGE
    assert result.failed_starts.tolist() == [address + 100 * PAGE]
    assert result.failed_errnos.tolist() == [errno.EINVAL]
    assert sum_in(process, address, address + 4 * MIB, "referenced_bytes") == 50 * PAGE


@pytest.mark.parametrize("failing", [[0], [2999], [0, 1, 2], [1023, 1024], [1500], list(range(0, 3000, 7))])
def test_failures_anywhere_are_each_reported(child: Child, process: Process, failing: list[int]) -> None:
    address = child.map_aligned(3000 * PAGE // HUGE * HUGE + HUGE)
    child.write(address, 3000)
    for page in failing:
        child.unmap(address + page * PAGE, PAGE)
    starts, ends = pages(address, np.arange(3000))
    result = advise(process.pidfd, starts, ends, Advice.COLD)
    assert result.failed_starts.tolist() == [address + page * PAGE for page in failing]
    assert set(result.failed_errnos.tolist()) == {errno.ENOMEM}
    assert result.done_bytes == (3000 - len(failing)) * PAGE
    assert sum_in(process, address, address + 3000 * PAGE + HUGE, "referenced_bytes") == 0


def test_all_ranges_fail(process: Process) -> None:
    starts, ends = pages(1 << 40, np.arange(0, 5000, 2))
    result = advise(process.pidfd, starts, ends, Advice.COLD)
    assert result.done_bytes == 0
    assert result.failed_starts.tolist() == starts.tolist()


def test_more_than_two_gib_in_one_range(child: Child, process: Process) -> None:
    length = 5 * GIB + 3 * PAGE
    address = child.map(length, flags=ANONYMOUS | MAP_NORESERVE)
    last = address + length // PAGE * PAGE - PAGE
    for page in (address, address + LIMIT, address + 2 * LIMIT, last):
        child.write(page)
    result = advise(process.pidfd, [address], [address + length], Advice.COLD)
    assert result.done_bytes == result.requested_bytes == length
    assert len(result.failed_errnos) == 0
    details = read_smaps(process)
    index = int(np.searchsorted(details.mappings.ends, np.uint64(address), side="right"))
    assert details.rss_bytes[index] >= 4 * PAGE
    assert details.referenced_bytes[index] == details.rss_bytes[index] - 4 * PAGE


def test_ranges_that_together_exceed_one_call(child: Child, process: Process) -> None:
    address = child.map(4 * GIB, flags=ANONYMOUS | MAP_NORESERVE)
    starts = address + np.arange(40, dtype=np.int64) * (100 * MIB)
    result = advise(process.pidfd, starts, starts + 99 * MIB, Advice.COLD)
    assert result.done_bytes == 40 * 99 * MIB
    assert len(result.failed_errnos) == 0


def test_a_cut_of_a_long_range_lies_on_a_huge_page_border(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, int]] = []
    monkeypatch.setattr(libc, "process_madvise", lambda _pidfd, address, count, _advice: record(calls, address, count))
    start, end = 3 * PAGE, 7 * GIB + 5 * PAGE
    assert advise(-1, [start], [end], Advice.PAGEOUT).done_bytes == end - start
    assert calls[0][0] == start
    assert sum(length for _, length in calls) == end - start
    for (before, length), (after, _) in itertools.pairwise(calls):
        assert before + length == after
        assert after % HUGE == 0


def record(calls: list[tuple[int, int]], address: int, count: int) -> int:
    values = np.ctypeslib.as_array((ctypes.c_uint64 * (2 * count)).from_address(address)).reshape(-1, 2)
    total = int(values[:, 1].sum())
    assert 0 < count <= 1024
    assert 0 < total <= LIMIT
    calls.extend((int(start), int(length)) for start, length in values)
    return total


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3 * GIB // PAGE), st.integers(0, 5), st.booleans()), max_size=40),
    st.integers(0, 2**32),
)
def test_any_ranges_and_any_failures(rows: list[tuple[int, int, bool]], seed: int) -> None:
    """A made-up kernel that keeps the rules: a prefix of whole ranges, then an error or a short count."""
    starts = np.cumsum([0, *[pages_ + gap for pages_, gap, _ in rows]], dtype=np.uint64)[:-1] * np.uint64(PAGE)
    lengths = np.array([pages_ for pages_, _, _ in rows], np.uint64) * np.uint64(PAGE)
    bad = {int(start) for start, (_, _, is_bad) in zip(starts, rows, strict=True) if is_bad}
    random = np.random.default_rng(seed)
    seen: list[tuple[int, int]] = []

    def kernel(_pidfd: int, address: int, count: int, _advice: int) -> int:
        vectors: list[tuple[int, int]] = []
        record(vectors, address, count)
        done = 0
        for start, length in vectors:
            if start in bad:
                if done:
                    return done
                raise OSError(errno.ENOMEM, "hole")
            seen.append((start, length))
            done += length
            if random.random() < 0.1:
                return done
        return done

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(libc, "process_madvise", kernel)
        result = advise(-1, starts, starts + lengths, Advice.COLD)
    assert result.requested_bytes == int(lengths.sum())
    failed_bytes = int((result.failed_ends - result.failed_starts).sum())
    assert result.done_bytes + failed_bytes == result.requested_bytes
    assert result.done_bytes == sum(length for _, length in seen)
    assert len(seen) == len(set(seen))
    assert set(result.failed_starts.tolist()) == {
        start for start, length in zip(starts.tolist(), lengths.tolist(), strict=True) if start in bad and length
    }


def test_a_kernel_that_does_nothing_ends_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libc, "process_madvise", lambda *_: 0)
    result = advise(-1, *pages(0, [1, 3, 5]), Advice.COLD)
    assert result.done_bytes == 0
    assert result.failed_errnos.tolist() == [errno.EAGAIN] * 3


def test_pageout_and_willneed_of_written_memory(child: Child, process: Process) -> None:
    require("swap")
    with swap_on(256 * MIB):
        address = child.map_aligned(64 * MIB)
        child.fill(address, 64 * MIB)
        before = child.digest(address, 64 * MIB)
        result = advise(process.pidfd, [address], [address + 64 * MIB], Advice.PAGEOUT)
        assert result.done_bytes == 64 * MIB
        assert sum_in(process, address, address + 64 * MIB, "swap_bytes") == 64 * MIB == process.swap_bytes()
        assert advise(process.pidfd, [address], [address + 64 * MIB], Advice.WILLNEED).done_bytes == 64 * MIB
        assert child.digest(address, 64 * MIB) == before


def test_willneed_of_anonymous_memory_without_swap(child: Child, process: Process) -> None:
    if read_swap().total_bytes:
        pytest.skip("this host has swap")
    address = child.map_aligned(4 * MIB)
    child.write(address, 1024)
    result = advise(process.pidfd, [address], [address + 4 * MIB], Advice.WILLNEED)
    # EBADF is of the range here, not of the descriptor; some kernels skip such memory and call it done.
    assert result.done_bytes in (0, 4 * MIB)
    assert set(result.failed_errnos.tolist()) <= {errno.EBADF}


def test_collapse_makes_huge_pages(child: Child, process: Process) -> None:
    require("thp")
    address = child.map_aligned(4 * MIB)
    child.madvise(address, 2 * MIB, 15)  # MADV_NOHUGEPAGE
    child.write(address, 1024)
    assert sum_in(process, address, address + 4 * MIB, "anonymous_huge_bytes") == 0
    starts = [address, address + HUGE]
    result = advise(process.pidfd, starts, [start + HUGE for start in starts], Advice.COLLAPSE)
    assert result.failed_starts.tolist() == [address]
    assert result.failed_errnos.tolist() == [errno.EINVAL]
    assert result.done_bytes == HUGE == sum_in(process, address, address + 4 * MIB, "anonymous_huge_bytes")


def test_an_ended_process_is_gone(child: Child, process: Process) -> None:
    child.kill()
    with pytest.raises(TargetGone):
        advise(process.pidfd, *pages(1 << 40, [1, 2]), Advice.COLD)
    child.end()
    with pytest.raises(TargetGone):
        advise(process.pidfd, *pages(1 << 40, [1, 2]), Advice.COLD)


def test_nobody_may_advise_a_process_of_root(process: Process) -> None:
    def ask() -> str:
        with pytest.raises(NotPermitted, match="process_madvise: not permitted") as caught:
            advise(process.pidfd, *pages(1 << 40, [1, 2]), Advice.COLD)
        return caught.value.hint

    assert "CAP_SYS_NICE" in run_as_nobody(ask)


def test_a_closed_descriptor_is_an_error_and_not_a_failed_range() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    os.close(writer)
    with pytest.raises(OSError, match="Bad file descriptor"):
        advise(reader, *pages(1 << 40, [1]), Advice.COLD)


def test_without_process_madvise(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMTHERM_WITHOUT", "process_madvise")
    with pytest.raises(NotSupported, match=r"no process_madvise") as caught:
        advise(process.pidfd, *pages(1 << 40, [1]), Advice.COLD)
    assert "5.10" in caught.value.hint


@pytest.mark.parametrize(("starts", "ends"), [([1], [4096]), ([0], [5000]), ([8192], [4096]), ([0, 4096], [4096])])
def test_ranges_that_cannot_be_meant(starts: list[int], ends: list[int]) -> None:
    with pytest.raises(InvalidInput) as caught:
        advise(-1, starts, ends, Advice.COLD)
    assert caught.value.hint


def test_a_thousand_ranges_cost_little_python(monkeypatch: pytest.MonkeyPatch) -> None:
    starts, ends = pages(1 << 40, np.arange(0, 2000, 2))
    monkeypatch.setattr(libc, "process_madvise", lambda *_: 1000 * PAGE)
    timings_s = []
    for _ in range(200):
        start_s = time.perf_counter()
        advise(3, starts, ends, Advice.COLD)
        timings_s.append(time.perf_counter() - start_s)
    assert min(timings_s) < 50e-6
