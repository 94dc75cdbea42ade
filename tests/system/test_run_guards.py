"""The guards of a whole run: what stops it, slows it down, or keeps it from memory, and that it says so."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from memtherm import AccessPattern, Action, Bounds, GuardSettings, Report, Scheme
from support.children import MADV_HUGEPAGE, Child, memory_child
from support.command import memtherm
from support.requires import require
from support.swap import swap_on
from support.workload import workload
from system.run_scene import (
    COLD_TEXT,
    GUARD_TEXT,
    MIB,
    MONITOR_TEXT,
    OPEN,
    OPEN_TEXT,
    PAGE,
    acting,
    agent,
    applied_bytes,
    cold_scheme,
    present_bytes,
    reasons,
    small_memory,
    smaps,
    status_bytes,
    swap_with_room_for,
    swapped_bytes,
    until,
)

SIZE = 96 * MIB

pytestmark = pytest.mark.system


def told(report: Report) -> dict[str, int]:
    return {refusal.reason: refusal.size_bytes for refusal in report.schemes[0].refused}


def stop_reasons(report: dict[str, Any]) -> list[str]:
    return [reason for reason in reasons(report) if reason.startswith("stopped: ")]


def write_once(child: Child, cold: int, hot: tuple[int, int, int]) -> None:
    child.stop_touching()
    child.write(cold, 16 * MIB // PAGE)
    child.keep_touching([hot], pause_s=0.01)


def test_memory_that_comes_back_stops_the_scheme(tmp_path: Path) -> None:
    require("root", "bpf", "swap")
    policy = tmp_path / "policy.toml"
    guard = GUARD_TEXT.replace('max_refault_rate = "0%"', 'max_refault_rate = "5%"')
    policy.write_text(MONITOR_TEXT + guard + COLD_TEXT)
    with swap_on(2 * SIZE), memory_child() as child:
        start = small_memory(child, 64 * MIB)
        hot, cold = (start, 16 * MIB // PAGE, 1), start + 16 * MIB
        child.keep_touching([hot], pause_s=0.01)
        with agent("run", str(policy), "--pid", str(child.pid), "--apply", "--json") as running:
            running.until(lambda _: swapped_bytes(child.pid, cold, start + 64 * MIB) >= 47 * MIB)
            # It wants a third of it back, and then leaves it alone for long enough.
            write_once(child, cold, hot)
            # That is looked for once a second: it may go again before, and then nothing is left to be refused.
            running.until(
                lambda report: bool(stop_reasons(report)) or swapped_bytes(child.pid, cold, cold + 16 * MIB) >= 15 * MIB
            )
            write_once(child, cold, hot)
            report = running.until(lambda report: bool(stop_reasons(report)))
            (reason,) = stop_reasons(report)
            # All that came back has grown cold again, and stays.
            last = running.until(lambda report: reasons(report).get(reason, 0) >= 15 * MIB)
        assert present_bytes(child.pid, cold, cold + 16 * MIB) == 16 * MIB
    assert "that were paged out came back within a minute" in reason
    assert reason.endswith("the limit is 5 %")
    # What began the stop is what is told: some of it back and not yet all, up to all of it twice.
    assert 1 * MIB <= float(reason.split()[1]) * MIB <= 33 * MIB
    assert list(reasons(last)) == [reason]
    assert applied_bytes(last) == applied_bytes(report)


def test_swap_that_does_not_reach_for_all_is_left_free_in_part() -> None:
    require("root", "bpf", "swap")
    with swap_with_room_for(36 * MIB) as share, memory_child() as child:
        small_memory(child, SIZE, is_random=True)
        guard = replace(OPEN, min_free_swap=share)
        with acting(cold_scheme(), pid=child.pid, guard=guard) as session:
            until(session, lambda _: status_bytes(child.pid, "VmSwap") >= 34 * MIB)
            # Not all of it is found cold in the same window.
            reason, left = "not enough free swap for anonymous memory", SIZE - 40 * MIB
            until(session, lambda report: told(report).get(reason, 0) >= left)
        assert status_bytes(child.pid, "VmSwap") <= 37 * MIB


def test_swap_that_fills_up_while_acting() -> None:
    """Two targets, and swap for each of them but not for both: the second finds it full in the middle of its turn."""
    require("root", "bpf", "swap")
    with swap_with_room_for(64 * MIB) as share, memory_child() as one, memory_child() as other:
        starts = [small_memory(child, 48 * MIB, is_random=True) for child in (one, other)]
        digests = [child.digest(start, 48 * MIB) for child, start in zip((one, other), starts, strict=True)]
        guard = replace(OPEN, min_free_swap=share)
        with acting(cold_scheme(age_s=1.0), pid=[one.pid, other.pid], guard=guard) as session:
            report = until(session, lambda report: "swap filled up while acting" in told(report))
        assert told(report)["swap filled up while acting"] >= 20 * MIB
        total = sum(status_bytes(child.pid, "VmSwap") for child in (one, other))
        assert 48 * MIB < total <= 65 * MIB
        assert [child.digest(start, 48 * MIB) for child, start in zip((one, other), starts, strict=True)] == digests


def test_no_swap(tmp_path: Path) -> None:
    require("root", "bpf", "cc")
    policy = tmp_path / "policy.toml"
    policy.write_text(OPEN_TEXT + COLD_TEXT)
    with workload(size_bytes=SIZE, hot=[(0, 16 * MIB)]) as child:
        words = ("run", str(policy), "--pid", str(child.pid), "--apply", "--json")
        with agent(*words, environment={"MEMTHERM_WITHOUT": "swap"}) as running:
            reason = "anonymous memory, and no swap"
            report = running.until(lambda report: reasons(report).get(reason, 0) >= 79 * MIB)
        assert present_bytes(child.pid, child.start, child.end) == SIZE
    assert "file-mapped memory only: this host has no swap" in running.stderr
    assert applied_bytes(report) <= 8 * MIB


def test_the_rate_limit_holds(tmp_path: Path) -> None:
    require("root", "bpf", "swap", "cc")
    policy = tmp_path / "policy.toml"
    policy.write_text(MONITOR_TEXT + GUARD_TEXT + 'max_bytes_per_s = "4MiB"\n' + COLD_TEXT)
    with swap_on(2 * SIZE), workload(size_bytes=SIZE, hot=[(0, MIB)]) as child:
        began_s = time.monotonic()
        with agent("run", str(policy), "--pid", str(child.pid), "--apply", "--json") as running:
            # What five seconds would give may come at once.
            running.until(lambda _: child.swap_bytes() >= 15 * MIB)
            for _ in range(10):
                time.sleep(0.1)
                limit = 4 * MIB * (5 + time.monotonic() - began_s)
                assert child.swap_bytes() <= limit
            report = running.until(lambda _: child.swap_bytes() >= 24 * MIB)
            assert child.swap_bytes() <= 4 * MIB * (5 + time.monotonic() - began_s)
            found = set().union(*(reasons(one) for one in running.reports()))
    assert "rate limit of the target: 4.00 MiB a second" in found
    assert applied_bytes(report) > 20 * MIB


def huge_bytes(pid: int) -> int:
    return sum(int(line.split()[1]) * 1024 for line in smaps(pid) if line.startswith("AnonHugePages:"))


def test_who_asked_for_no_huge_pages_gets_none() -> None:
    require("root", "bpf", "thp")
    scheme = Scheme(name="all", action=Action.COLLAPSE, pattern=AccessPattern(size_bytes=Bounds(4 * MIB)))
    reason = "the application asked for no huge pages (VmFlags nh)"
    with memory_child() as child:
        small_memory(child, 16 * MIB)
        with acting(scheme, pid=child.pid) as session:
            report = until(session, lambda report: reason in told(report))
            until(session, lambda _: True)
        assert told(report)[reason] >= 12 * MIB
        assert huge_bytes(child.pid) == 0


def test_huge_pages_that_the_application_asked_for_are_not_forbidden() -> None:
    require("root", "bpf", "thp", "ptrace")
    scheme = Scheme(name="all", action=Action.NOHUGEPAGE, pattern=AccessPattern(size_bytes=Bounds(4 * MIB)))
    with memory_child() as child:
        start = child.map_aligned(16 * MIB)
        child.madvise(start, 16 * MIB, MADV_HUGEPAGE)
        child.write(start, 16 * MIB // PAGE)
        guard = GuardSettings(min_target_bytes=MIB, allow_ptrace=True)
        with acting(scheme, pid=child.pid, guard=guard) as session:
            reason = "the application asked for huge pages (VmFlags hg)"
            report = until(session, lambda report: reason in told(report))
        assert told(report)[reason] >= 12 * MIB
        assert any("hg" in line.split() for line in smaps(child.pid) if line.startswith("VmFlags"))


@contextmanager
def userfault_program() -> Iterator[tuple[int, int]]:
    """Pid, and the address of 8 MiB that userfaultfd handles."""
    program = Path(__file__).parents[1] / "act" / "userfault_program.py"
    with subprocess.Popen(
        [sys.executable, "-S", str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                pytest.skip("no userfaultfd here")
            yield process.pid, int(line)
        finally:
            process.kill()


def test_memory_of_userfaultfd_is_never_touched() -> None:
    require("root", "bpf", "swap")
    with swap_on(2 * SIZE), userfault_program() as (pid, start):
        with acting(cold_scheme(), pid=pid) as session:
            reason = "handled by userfaultfd (VmFlags um, uw, ui, ur)"
            report = until(session, lambda report: reason in told(report))
            # What is beside it goes.
            until(session, lambda report: report.schemes[0].total.applied_bytes > 0)
        assert told(report)[reason] >= 7 * MIB
        assert present_bytes(pid, start, start + 8 * MIB) == 8 * MIB


def test_a_small_target_is_left_alone_by_the_command(tmp_path: Path) -> None:
    require("root", "bpf", "swap", "cc")
    policy = tmp_path / "policy.toml"
    policy.write_text(MONITOR_TEXT + COLD_TEXT)
    with swap_on(2 * SIZE), workload(size_bytes=32 * MIB, hot=[(0, MIB)]) as child:
        words = ("run", str(policy), "--pid", str(child.pid), "--apply", "--json", "-n", "6")
        reports = memtherm(*words).json_lines()
        assert child.swap_bytes() == 0
        assert present_bytes(child.pid, child.start, child.end) == 32 * MIB
    (reason,) = set().union(*(reasons(report) for report in reports))
    assert "targets below 64.0 MiB are left alone" in reason
    assert applied_bytes(reports[-1]) == 0


def test_the_pressure_guard_is_not_asked_where_psi_is_off(tmp_path: Path) -> None:
    require("root", "bpf", "swap", "cc")
    policy = tmp_path / "policy.toml"
    goal = 'quota = { bytes = "32MiB" }\ngoals = [{ metric = "memory_pressure", target = "10ms" }]\n'
    limited = COLD_TEXT.replace('"cold"', '"by pressure"') + goal
    guard = GUARD_TEXT.replace('max_memory_pressure = "0%"', 'max_memory_pressure = "1%"')
    policy.write_text(MONITOR_TEXT + guard + COLD_TEXT + limited)
    with swap_on(2 * SIZE), workload(size_bytes=SIZE, hot=[(0, 16 * MIB)]) as child:
        words = ("run", str(policy), "--pid", str(child.pid), "--apply", "--json")
        with agent(*words, environment={"MEMTHERM_WITHOUT": "psi"}) as running:
            report = running.until(lambda _: child.swap_bytes() >= 79 * MIB)
    # One goes on without the guard; the other cannot know how much it may do, and does nothing.
    assert applied_bytes(report, 1) == 0
    assert report["schemes"][1]["state"].startswith("stopped: memory pressure is not measured")
    assert "memory pressure is not measured" in running.stderr


def test_willneed_brings_back_what_was_paged_out() -> None:
    """It is in memory before it is wanted: faults become minor, and nobody waits for the swap."""
    require("root", "bpf", "swap")
    with swap_on(2 * SIZE), memory_child() as child:
        start = small_memory(child, 32 * MIB)
        with acting(cold_scheme(), pid=child.pid) as session:
            until(session, lambda _: swapped_bytes(child.pid, start, start + 32 * MIB) >= 31 * MIB)
            swapped, cached = swapped_bytes(child.pid, start, start + 32 * MIB), swap_cached_bytes()
            session.replace_schemes([cold_scheme(Action.WILLNEED)])
            report = until(session, lambda report: report.schemes[0].applied_bytes >= 0.9 * swapped)
            assert report.schemes[0].action is Action.WILLNEED
            assert swap_cached_bytes() - cached >= 0.9 * swapped
        major, minor = faults(child)
        child.write(start, 32 * MIB // PAGE)
        major_after, minor_after = faults(child)
    assert minor_after - minor >= 0.9 * swapped / PAGE
    assert major_after - major <= 0.1 * swapped / PAGE


def swap_cached_bytes() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("SwapCached:"))


def faults(child: Child) -> tuple[int, int]:
    """Major and minor ones since its start, by /proc/PID/stat."""
    fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[9]), int(fields[7])
