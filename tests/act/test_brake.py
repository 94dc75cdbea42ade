"""The guards on refaults and on pressure: decided in virtual time, and seen on a real child that is paged out."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from act.scene import HUGE, MIB, PAGE, present_bytes, smaps_bytes
from memtherm.act.brake import Allowance, Brake, Governor, PressureGuard, RefaultGuard, RefaultWatch
from memtherm.core.guard import GuardSettings
from memtherm.core.ranges import Addresses
from memtherm.core.scheme import Action
from memtherm.linux.advise import Advice, advise_process
from memtherm.linux.cgroups import read_hierarchies
from memtherm.linux.pagemap import Pagemap
from memtherm.linux.pressure import Pressure, PressureLine, PressureReading
from memtherm.linux.process import Process
from support.cgroups import fresh_cgroup, join
from support.children import MADV_DONTNEED, SHARED, Child
from support.requires import require
from support.swap import swap_on

LIMIT = 0.002
FREE = Allowance(1.0)
WORKING_SET = 256 * MIB


def ranges(*pairs: tuple[int, int]) -> tuple[Addresses, Addresses]:
    return np.array([one for one, _ in pairs], np.uint64), np.array([other for _, other in pairs], np.uint64)


# Decided.


def test_slower_from_half_of_the_limit_and_stopped_above_it() -> None:
    governor = Governor(LIMIT)
    assert governor.decide(0.0009, "a", 0) == FREE
    assert governor.decide(0.001, "b", 1) == Allowance(0.5, "slowed down: b; the limit is 0.2 %")
    assert governor.decide(0.002, "c", 2).reason == "slowed down: b; the limit is 0.2 %"
    assert governor.decide(0.0009, "d", 3) == FREE
    assert governor.decide(0.0021, "e", 4) == Allowance(0.0, "stopped: e; the limit is 0.2 %")


def test_a_stop_lasts_a_minute_and_until_the_value_has_fallen_below_half() -> None:
    governor = Governor(LIMIT)
    governor.decide(1, "high", 0)
    assert governor.decide(0, "low", 59).share == 0
    assert governor.decide(0.001, "half", 61).reason == "stopped: high; the limit is 0.2 %"
    assert governor.decide(0.0009, "low", 62) == FREE


def test_each_further_stop_lasts_twice_as_long_up_to_half_an_hour() -> None:
    governor, now_s, pauses = Governor(LIMIT), 0.0, []
    for _ in range(7):
        assert governor.decide(1, "high", now_s).share == 0
        began_s = now_s
        while governor.decide(0, "low", now_s).share == 0:
            now_s += 1
        pauses.append(now_s - began_s)
        now_s += 1
    assert pauses == [60, 120, 240, 480, 960, 1800, 1800]


def test_a_calm_time_makes_the_next_stop_short_again() -> None:
    def second_pause_s(calm_s: float) -> float:
        governor = Governor(LIMIT)
        governor.decide(1, "high", 0)
        governor.decide(0, "low", 60)
        governor.decide(1, "high", 60 + calm_s)
        return next(after for after in range(1000) if governor.decide(0, "low", 60 + calm_s + after).share)

    assert second_pause_s(299) == 120
    assert second_pause_s(300) == 60


def test_a_limit_of_0_is_no_guard() -> None:
    assert Governor(0.0).decide(100.0, "high", 0) == FREE


def test_what_comes_back_within_a_minute_counts_for_a_minute() -> None:
    watch = RefaultWatch()
    watch.note(*ranges((0, 10 * PAGE)), np.zeros(1, np.uint64), 0)
    for second in range(1, 61):
        back = ranges((0, PAGE)) if second == 30 else ranges((9 * PAGE, 10 * PAGE)) if second == 60 else ranges()
        watch.saw(*back, second)
    assert watch.back_bytes(60) == 2 * PAGE
    assert watch.back_bytes(90) == PAGE
    assert watch.back_bytes(120) == 0
    # What has stayed away for a minute is forgotten, and is no refault later.
    assert len(watch.ranges[0]) == 0
    watch.saw(*ranges((0, 10 * PAGE)), 61)
    assert watch.back_bytes(61) == 2 * PAGE


def test_with_looks_far_apart_a_part_of_what_is_back_came_within_the_minute() -> None:
    watch = RefaultWatch()
    watch.note(*ranges((0, 100 * PAGE)), np.zeros(1, np.uint64), 0)
    watch.saw(*ranges((0, 100 * PAGE)), 240)
    assert watch.back_bytes(240) == 25 * PAGE


def test_what_leaves_again_was_back_and_its_time_begins_anew_and_neighbours_become_one() -> None:
    watch = RefaultWatch()
    watch.note(*ranges((0, 4 * PAGE), (4 * PAGE, 6 * PAGE)), np.zeros(2, np.uint64), 0)
    assert [column.tolist() for column in watch.ranges] == [[0], [6 * PAGE]]
    watch.note(*ranges((2 * PAGE, 8 * PAGE)), np.zeros(1, np.uint64), 50)
    assert watch.back_bytes(50) == 4 * PAGE
    watch.saw(*ranges(), 59)
    watch.saw(*ranges(), 61)
    assert [column.tolist() for column in watch.ranges] == [[2 * PAGE], [8 * PAGE]]
    watch.saw(*ranges(), 111)
    assert len(watch.ranges[0]) == 0
    assert watch.back_bytes(111) == 0


def test_what_was_back_and_left_again_between_two_looks_counts_in_full() -> None:
    guard, inode = RefaultGuard(LIMIT), np.zeros(1, np.uint64)
    guard.watch.note(*ranges((0, 1024 * PAGE)), inode, 9)
    guard.watch.saw(*ranges(), 10)
    assert guard.decide(WORKING_SET, 10) == FREE
    # It comes back and goes, and no look finds it in memory.
    guard.watch.note(*ranges((0, 1024 * PAGE)), inode, 10.7)
    guard.watch.saw(*ranges(), 10.9)
    assert guard.watch.back_bytes(10.9) == 1024 * PAGE
    assert guard.decide(WORKING_SET, 10.9).share == 0
    # A look that finds it counts it once more, and each return stays for a minute.
    guard.watch.saw(*ranges((0, 1024 * PAGE)), 11.8)
    assert [guard.watch.back_bytes(at_s) // PAGE for at_s in (11.8, 70.6, 70.8, 71.9)] == [2048, 2048, 1024, 0]


def test_between_two_looks_it_leaves_for_the_first_time_and_again() -> None:
    watch, inode = RefaultWatch(), np.zeros(1, np.uint64)
    watch.saw(*ranges(), 10)
    watch.note(*ranges((0, 1024 * PAGE)), inode, 10.1)
    watch.note(*ranges((0, 1024 * PAGE)), inode, 10.7)
    watch.saw(*ranges(), 10.9)
    assert watch.back_bytes(10.9) == 1024 * PAGE


def test_its_memory_is_bounded_and_its_sum_stays_true() -> None:
    watch = RefaultWatch(max_ranges=1000)
    start = np.arange(100_000, dtype=np.uint64) * np.uint64(2 * PAGE)
    watch.note(start, start + np.uint64(PAGE), np.zeros(len(start), np.uint64), 0)
    assert len(watch.ranges[0]) <= 1000
    watch.saw(start, start + np.uint64(PAGE), 1)
    assert watch.back_bytes(1) == pytest.approx(100_000 * PAGE, rel=0.02)


PAGES = st.lists(st.integers(0, 40), max_size=10).map(set)
STEPS = st.lists(st.tuples(st.sampled_from(["note", "saw", "keep", "forget"]), PAGES, st.floats(1, 40)), max_size=20)


@given(STEPS)
def test_as_a_dictionary_of_pages_does_it(steps: list[tuple[str, set[int], float]]) -> None:
    watch, left, back, now_s, looked_s = RefaultWatch(), dict[int, float](), list[tuple[float, float]](), 0.0, -1e9

    def count_back(pages: set[int]) -> None:
        for page in pages & left.keys():
            since_s = max(left[page], looked_s)
            share = min(1.0, max(0.0, (left[page] + 60 - since_s) / (now_s - since_s)))
            back.append((now_s, PAGE * share))

    for step, pages, later_s in steps:
        now_s += later_s
        columns = ranges(*((page * PAGE, (page + 1) * PAGE) for page in sorted(pages)))
        if step == "note":
            watch.note(*columns, np.zeros(len(pages), np.uint64), now_s)
            count_back(pages)
            left |= dict.fromkeys(pages, now_s)
        elif step == "keep":
            watch.keep(*columns)
            left = {page: since_s for page, since_s in left.items() if page in pages}
        elif step == "forget":
            watch.forget(*columns)
            left = {page: since_s for page, since_s in left.items() if page not in pages}
        else:
            watch.saw(*columns, now_s)
            count_back(pages)
            left = {page: since for page, since in left.items() if page not in pages and since > now_s - 60}
            looked_s = now_s
        expected = sum(size for seen_s, size in back if seen_s > now_s - 60)
        assert abs(watch.back_bytes(now_s) - expected) <= 1
        watched = {page for start, end in zip(*watch.ranges, strict=True) for page in range(start // PAGE, end // PAGE)}
        assert watched == left.keys()


def refault_guard(back_pages: int, working_set_bytes: int) -> Allowance:
    guard = RefaultGuard(LIMIT)
    guard.watch.note(*ranges((0, MIB * PAGE)), np.zeros(1, np.uint64), 0)
    guard.watch.saw(*ranges((0, back_pages * PAGE)), 1)
    return guard.decide(working_set_bytes, 1)


def test_less_than_64_pages_are_never_a_reason() -> None:
    assert refault_guard(63, 0) == FREE
    assert refault_guard(64, 0).share == 0
    assert refault_guard(64, 256 * MIB) == FREE
    assert refault_guard(64, 200 * MIB).share == 0.5


def test_the_reason_names_figures() -> None:
    assert refault_guard(2048, WORKING_SET).reason == (
        "stopped: 8.00 MiB that were paged out came back within a minute, "
        "3.1 % of a working set of 256 MiB; the limit is 0.2 %"
    )


def test_the_largest_working_set_of_the_last_minute_counts() -> None:
    guard = RefaultGuard(LIMIT)
    guard.decide(WORKING_SET, 0)
    guard.watch.note(*ranges((0, 64 * PAGE)), np.zeros(1, np.uint64), 50)
    guard.watch.saw(*ranges((0, 64 * PAGE)), 51)
    assert guard.decide(MIB, 52) == FREE
    assert guard.decide(MIB, 61).share == 0


def test_the_worst_pressure_decides() -> None:
    guard = PressureGuard(0.1)
    assert guard.decide([], 0) == FREE
    assert guard.decide([("the system", 0.04), ("its cgroup /a", 0.01)], 1) == FREE
    assert guard.decide([("the system", 0.04), ("its cgroup /a", 0.08)], 2) == Allowance(
        0.5, "slowed down: tasks of its cgroup /a waited for memory for 8.0 % of the last 10 s; the limit is 10 %"
    )
    assert guard.decide([("the system", 0.2)], 3).reason == (
        "stopped: tasks of the system waited for memory for 20 % of the last 10 s; the limit is 10 %"
    )


# Seen.


class Time:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@contextmanager
def brake_on(process: Process, **limits: float) -> Iterator[tuple[Brake, Time]]:
    """With limits that no other test on this host can reach by its pressure."""
    settings = GuardSettings(**{"max_memory_pressure": 0.0, **limits})  # type: ignore[arg-type]
    clock = Time()
    with Pagemap(process) as pagemap:
        yield Brake(process, pagemap, settings, clock=clock), clock


def page_out(process: Process, start: int, end: int) -> None:
    advise_process(process, [start], [end], Advice.PAGEOUT)


def share_after(brake: Brake, clock: Time, *, later_s: float = 2) -> Allowance:
    clock.now_s += later_s
    return brake.allowance(Action.PAGEOUT, WORKING_SET)


@pytest.mark.system
def test_memory_that_comes_back_stops_the_pageout_of_more(child: Child, process: Process) -> None:
    require("swap")
    size = 8 * MIB
    with swap_on(64 * MIB), brake_on(process) as (brake, clock):
        address = child.map_aligned(size)
        child.fill(address, size)
        assert brake.allowance(Action.PAGEOUT, WORKING_SET) == FREE
        page_out(process, address, address + size)
        swapped = smaps_bytes(child.pid, "Swap", address, address + size)
        assert swapped > 0.98 * size
        brake.note_paged_out(*ranges((address, address + size)))
        assert share_after(brake, clock) == FREE
        child.read(address, size // PAGE)
        assert present_bytes(child.pid, address, address + size) == size
        stopped = share_after(brake, clock)
        assert stopped.share == 0
        assert stopped.reason.startswith("stopped: ")
        assert "MiB that were paged out came back within a minute, 3.1 % of a working set of 256 MiB" in stopped.reason
        # The others go on, and after a minute it tries again.
        assert brake.allowance(Action.COLLAPSE, WORKING_SET) == FREE
        assert share_after(brake, clock, later_s=50) == stopped
        assert share_after(brake, clock, later_s=20) == FREE


@pytest.mark.system
def test_what_the_target_freed_and_used_anew_is_no_refault(child: Child, process: Process) -> None:
    require("swap")
    size = 4 * MIB
    with swap_on(64 * MIB), brake_on(process) as (brake, clock):
        first, second = child.map_aligned(size), child.map_aligned(size)
        for address in (first, second):
            child.fill(address, size)
            page_out(process, address, address + size)
        brake.note_paged_out(*ranges(*sorted([(first, first + size), (second, second + size)])))
        child.madvise(first, size, MADV_DONTNEED)
        child.unmap(second, size)
        assert share_after(brake, clock) == FREE
        child.write(first, size // PAGE)
        assert child.map(size, at=second) == second
        child.write(second, size // PAGE)
        assert share_after(brake, clock) == FREE


@pytest.mark.system
def test_what_we_read_back_is_no_refault(child: Child, process: Process) -> None:
    require("swap")
    size = 4 * MIB
    with swap_on(64 * MIB), brake_on(process) as (brake, clock):
        address = child.map_aligned(size)
        child.fill(address, size)
        page_out(process, address, address + size)
        brake.note_paged_out(*ranges((address, address + size)))
        brake.note_brought_back(*ranges((address, address + size)))
        child.read(address, size // PAGE)
        assert share_after(brake, clock) == FREE


@pytest.mark.system
def test_files_come_back_too(child: Child, process: Process, file: Path) -> None:
    size = 16 * MIB
    with brake_on(process) as (brake, clock):
        address = child.map(size, flags=SHARED & ~0x20, path=str(file))
        child.read(address, size // PAGE)
        page_out(process, address, address + size)
        brake.note_paged_out(*ranges((address, address + size)))
        child.read(address, size // PAGE)
        stopped = share_after(brake, clock)
        assert stopped.share == 0
        assert "16.0 MiB" in stopped.reason


@pytest.mark.system
def test_another_file_at_the_same_place_is_no_refault(child: Child, process: Process, file: Path) -> None:
    size = 16 * MIB
    with brake_on(process) as (brake, clock):
        address = child.map(size, flags=SHARED & ~0x20, path=str(file))
        child.read(address, size // PAGE)
        page_out(process, address, address + size)
        brake.note_paged_out(*ranges((address, address + size)))
        child.unmap(address, size)
        assert child.map(size, at=address) == address
        child.write(address, size // PAGE)
        assert share_after(brake, clock) == FREE


@pytest.mark.system
def test_memory_that_was_never_used_has_not_left(child: Child, process: Process) -> None:
    with brake_on(process) as (brake, clock):
        address = child.map_aligned(2 * HUGE)
        brake.note_paged_out(*ranges((address, address + 2 * HUGE)))
        child.write(address, 2 * HUGE // PAGE)
        assert share_after(brake, clock) == FREE


@pytest.mark.system
def test_exec_begins_anew(process: Process, child: Child) -> None:
    require("swap")
    size = 4 * MIB
    with swap_on(64 * MIB), brake_on(process) as (brake, clock):
        address = child.map_aligned(size)
        child.fill(address, size)
        page_out(process, address, address + size)
        brake.note_paged_out(*ranges((address, address + size)))
        child.exec(
            os.path.realpath(sys.executable), "-I", "-S", "-c", "import signal; print('{}', flush=True); signal.pause()"
        )
        assert child._process.stdout is not None
        assert child._process.stdout.readline() == "{}\n"
        assert share_after(brake, clock) == FREE
        assert len(brake._refaults.watch.ranges[0]) == 0


@pytest.mark.system
def test_looks_that_take_long_become_rare(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    with brake_on(process) as (brake, clock):
        looks: list[float] = []

        def slow_look(now_s: float) -> None:
            looks.append(now_s)
            clock.now_s += 0.05

        monkeypatch.setattr(brake, "_look", slow_look)
        for _ in range(20):
            share_after(brake, clock, later_s=1)
        assert np.diff(looks) == pytest.approx([5.05, 5.05, 5.05], abs=0.06)


@pytest.mark.system
def test_pressure_stops_what_makes_others_wait(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    line = PressureLine(fraction_10s=0.2, fraction_60s=0.0, fraction_300s=0.0, total_s=1.0)
    reading = PressureReading(Pressure(some=line, full=None))
    monkeypatch.setattr("memtherm.act.brake.read_pressure", lambda _resource: reading)
    with brake_on(process, max_memory_pressure=0.1) as (brake, _):
        for action in (Action.PAGEOUT, Action.WILLNEED, Action.MIGRATE_HOT, Action.MIGRATE_COLD, Action.COLLAPSE):
            assert brake.allowance(action, WORKING_SET) == Allowance(
                0.0, "stopped: tasks of the system waited for memory for 20 % of the last 10 s; the limit is 10 %"
            )
        for action in (Action.COLD, Action.HUGEPAGE):
            assert brake.allowance(action, WORKING_SET) == FREE


@pytest.mark.system
def test_pressure_of_this_host_is_read(process: Process) -> None:
    require("psi")
    with brake_on(process, max_refault_rate=0.0, max_memory_pressure=1.0) as (brake, _):
        for action in (Action.PAGEOUT, Action.MIGRATE_COLD, Action.COLLAPSE, Action.COLD):
            assert brake.allowance(action, WORKING_SET) == FREE


@pytest.mark.system
def test_pressure_of_the_targets_cgroup_is_read(process: Process) -> None:
    require("psi", "cgroup")
    unified = [one for one in read_hierarchies() if one.version == 2]
    if not unified:
        pytest.skip("no cgroup file system of version 2")
    with fresh_cgroup(unified[0]) as cgroup, brake_on(process, max_memory_pressure=1.0) as (brake, clock):
        for path in ("", "below"):
            join(cgroup, process.pid, below=path)
            assert share_after(brake, clock) == FREE
            assert [whose for whose, _ in brake._pressures] == [
                "the system",
                f"its cgroup {cgroup.path}/{path}".rstrip("/"),
            ]


def test_without_psi_nothing_is_slowed_down(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMTHERM_WITHOUT", "psi")
    with brake_on(process, max_memory_pressure=0.01) as (brake, clock):
        for _ in range(3):
            assert share_after(brake, clock) == FREE


def test_with_both_switched_off_nothing_is_looked_at(process: Process, child: Child) -> None:
    with brake_on(process, max_refault_rate=0.0) as (brake, clock):
        child.end()
        brake.note_paged_out(*ranges((0, PAGE)))
        assert share_after(brake, clock) == FREE
