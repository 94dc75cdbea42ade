"""Limits of schemes on real processes: quotas, priorities, goals, watermarks, and how often a scheme is applied."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from memtherm import Action, Goal, GoalMetric, Quota, Report, Scheme, Tuner, Weights
from support.cgroups import fresh_cgroup, join
from support.children import PAGE_SIZE, Child, memory_child
from support.requires import require
from support.swap import swap_on
from support.workload import Workload, workload
from system.run_scene import (
    COLD_TEXT,
    MIB,
    OPEN_TEXT,
    acting,
    agent,
    applied_bytes,
    cold_scheme,
    present_bytes,
    small_memory,
    swapped_bytes,
    until,
)

SIZE = 96 * MIB
HOT = [(40 * MIB, 16 * MIB)]
COLD_BYTES = 80 * MIB

pytestmark = pytest.mark.system


@contextmanager
def swap_of_target(child: Workload) -> Iterator[list[tuple[float, int]]]:
    """Times and VmSwap, each 5 ms, as long as the block lasts."""
    samples: list[tuple[float, int]] = []
    done = threading.Event()

    def sample() -> None:
        while not done.wait(0.005):
            samples.append((time.monotonic(), child.swap_bytes()))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        done.set()
        thread.join()


def assert_hot_stays(child: Workload) -> None:
    for start, end in child.hot_ranges:
        assert present_bytes(child.pid, start, end) == end - start


def test_a_quota_of_bytes_is_never_exceeded_and_reaches_all(tmp_path: Path) -> None:
    require("root", "bpf", "swap", "cc")
    policy = tmp_path / "policy.toml"
    policy.write_text(OPEN_TEXT + COLD_TEXT + 'quota = { bytes = "16MiB", every = "500ms" }\n')
    with swap_on(2 * SIZE), workload(size_bytes=SIZE, hot=HOT) as child:
        words = ("run", str(policy), "--pid", str(child.pid), "--json", "--apply")
        with swap_of_target(child) as samples, agent(*words) as running:
            running.until(lambda _: child.swap_bytes() >= COLD_BYTES - MIB)
            quotas = [report["schemes"][0]["quota"] for report in running.reports()]
        assert_hot_stays(child)
        assert child.swap_bytes() <= COLD_BYTES + MIB
    assert all(quota["charged_bytes"] <= quota["effective_bytes"] == 16 * MIB for quota in quotas)
    # Any time t meets at most t / 0.49 s + 1 charge windows that begin in it, and the one that it begins in.
    for at, (began_s, began) in enumerate(samples):
        for ended_s, ended in samples[at + 1 :: 10]:
            assert ended - began <= 16 * MIB * (int((ended_s - began_s) / 0.49) + 2), f"in {ended_s - began_s} s"


def test_a_quota_of_time_follows_the_measured_speed() -> None:
    require("root", "bpf", "swap", "cc")
    scheme = cold_scheme(quota=Quota(time_s=0.002, reset_interval_s=0.25))
    with swap_on(2 * SIZE), workload(size_bytes=SIZE, hot=HOT) as child:
        with acting(scheme, pid=child.pid) as session:
            first = until(session, lambda report: report.schemes[0].total.applied_bytes > 0)
            began_s, began = time.monotonic(), child.swap_bytes()
            later = until(session, lambda _: child.swap_bytes() >= began + 8 * MIB)
            windows = (time.monotonic() - began_s) / 0.225 + 2
        assert_hot_stays(child)
    guessed, measured = (report.schemes[0].quota for report in (first, later))
    assert guessed is not None
    assert measured is not None
    # Before anything was done 4 MiB a millisecond are taken for granted; to compress them takes longer.
    assert guessed.effective_bytes == 8 * MIB
    assert PAGE_SIZE <= measured.effective_bytes < 8 * MIB
    assert later.schemes[0].total.applied_bytes - first.schemes[0].total.applied_bytes <= windows * 8 * MIB


@pytest.mark.parametrize(("window", "interval", "lowest", "highest"), [("500ms", "1s", 1, 4), ("4s", "100ms", 3, 100)])
def test_an_apply_interval_of_its_own(tmp_path: Path, window: str, interval: str, lowest: int, highest: int) -> None:
    """Fewer applies than windows, or more; how many more is for the time that looking takes to say."""
    require("root", "bpf")
    policy = tmp_path / "policy.toml"
    scheme = f'[[scheme]]\naction = "stat"\napply_interval = "{interval}"\n'
    policy.write_text(OPEN_TEXT.replace('"250ms"', f'"{window}"') + scheme)
    with memory_child() as child, agent("run", str(policy), "--pid", str(child.pid), "--json") as running:
        first = running.started()
        last = running.until(lambda report: report["time_s"] >= first["time_s"] + 3.5)
    applies = [report["schemes"][0]["total"]["nr_snapshots"] for report in (first, last)]
    assert lowest <= applies[1] - applies[0] <= highest


@contextmanager
def lately_and_long_unused() -> Iterator[tuple[Child, int, int]]:
    """A child with 32 MiB that it uses, and above them 32 MiB that it never uses."""
    with memory_child() as child:
        used = small_memory(child, 64 * MIB)
        child.keep_touching([(used, 32 * MIB // PAGE_SIZE, 1)], pause_s=0.01)
        yield child, used, used + 32 * MIB


@pytest.mark.parametrize("weights", [Weights(age=1), Weights()])
def test_the_longest_unused_goes_first_and_without_weights_the_lowest_address(weights: Weights) -> None:
    require("root", "bpf", "swap")
    with swap_on(2 * SIZE), lately_and_long_unused() as (child, recent, old):
        counting = Scheme(name="count", action=Action.STAT)
        with acting(counting, pid=child.pid) as session:
            until(session, lambda report: age_of(report, old) >= 3)
            child.stop_touching()
            until(session, lambda report: age_of(report, recent) >= 0.75)
            # Ages outlive a change of the schemes: nothing would be as old as that else.
            quota = Quota(size_bytes=24 * MIB, reset_interval_s=3600, weights=weights)
            session.replace_schemes([cold_scheme(quota=quota, age_s=0.7)])
            until(session, lambda report: report.schemes[0].total.applied_bytes >= 20 * MIB, patience_s=3)
        first, other = (old, recent) if weights.age else (recent, old)
        assert swapped_bytes(child.pid, first, first + 32 * MIB) >= 20 * MIB
        assert present_bytes(child.pid, other, other + 32 * MIB) == 32 * MIB


def age_of(report: Report, address: int) -> float:
    """Of the region in which the middle of 32 MiB lies."""
    regions = report.snapshot.regions
    middle = address + 16 * MIB
    inside = (regions.start <= middle) & (regions.end > middle)
    return float(regions.age_s[inside][0]) if inside.any() else 0.0


def test_after_a_full_quota_it_goes_on_where_it_stopped(tmp_path: Path) -> None:
    require("root", "bpf", "cc")
    policy = tmp_path / "policy.toml"
    quota = '[[scheme]]\naction = "stat"\nsize = ">= 8MiB"\nquota = { bytes = "16MiB", every = "200ms" }\n'
    policy.write_text(OPEN_TEXT + quota)
    with workload(size_bytes=SIZE, hot=[(0, MIB)]) as child:
        words = ("run", str(policy), "--pid", str(child.pid), "--json", "--tried-regions")
        with agent(*words) as running:
            running.until(lambda report: report["schemes"][0]["total"]["nr_snapshots"] >= 9)
            reports = running.reports()
    tried = [
        (region["start"], region["end"])
        for report in reports
        for region in report["schemes"][0]["tried_regions"]
        if child.start <= region["start"] < child.end
    ]
    assert all(sum(part["size_bytes"] for part in r["schemes"][0]["tried_regions"]) <= 17 * MIB for r in reports)
    # Steadily upwards, and from the lowest again only where the end was reached.
    turns = 0
    for (_, before_end), (start, _) in pairwise(tried):
        if start < before_end:
            turns += 1
            assert before_end >= child.end - 16 * MIB
            assert start <= child.start + 9 * MIB
        else:
            assert start - before_end <= 9 * MIB
    assert turns >= 1


WATERMARKS = """\
[[scheme]]
name = "rests"
access_rate = "0%"
action = "pageout"
watermarks = { high = "0.2%", mid = "0.1%", low = "0%", every = "100ms" }
[[scheme]]
name = "too late"
access_rate = "0%"
action = "pageout"
watermarks = { high = "100%", mid = "100%", low = "99.9%", every = "100ms" }
[[scheme]]
name = "active"
action = "stat"
watermarks = { high = "100%", mid = "99.9%", low = "0%", every = "100ms" }
"""


def test_watermarks_let_a_scheme_rest(tmp_path: Path) -> None:
    require("root", "bpf", "swap", "cc")
    policy = tmp_path / "policy.toml"
    policy.write_text(OPEN_TEXT + WATERMARKS)
    with swap_on(2 * SIZE), workload(size_bytes=SIZE, hot=HOT) as child:
        words = ("run", str(policy), "--pid", str(child.pid), "--apply")
        with agent(*words, "--json") as running:
            last = running.until(lambda report: report["schemes"][2]["total"]["nr_snapshots"] >= 4)
        with agent(*words, "--every", "0s", "-n", "2") as text:
            assert text.process.wait(30) == 0
        assert child.swap_bytes() == 0
    rests, late, active = last["schemes"]
    memory = {line.split(":")[0]: int(line.split()[1]) for line in Path("/proc/meminfo").read_text().splitlines()}
    assert rests["free_memory"] == pytest.approx(memory["MemFree"] / memory["MemTotal"], abs=0.1)
    assert [one["is_active"] for one in last["schemes"]] == [False, False, True]
    assert [one["total"]["nr_snapshots"] > 0 for one in last["schemes"]] == [False, False, True]
    assert "it starts below 0.1%" in rests["state"].replace(" %", "%")
    assert "below the low watermark of 99.9%" in late["state"].replace(" %", "%")
    assert active["state"] == ""
    assert "rests: " in text.stdout
    assert "below the low watermark" in text.stdout


def quota_of(report: Report) -> int:
    quota = report.schemes[0].quota
    assert quota is not None
    return quota.effective_bytes


def test_a_goal_of_the_users_own_moves_the_quota() -> None:
    require("root", "bpf", "cc")
    goal = Goal(metric=GoalMetric.USER_INPUT, target=100)
    scheme = cold_scheme(quota=Quota(size_bytes=64 * MIB, reset_interval_s=0.2, goals=(goal,)))
    with workload(size_bytes=SIZE, hot=HOT) as child, acting(scheme, pid=child.pid, apply=False) as session:
        session.set_goal_value("cold", 10)
        grown = until(session, lambda report: quota_of(report) >= MIB)
        assert grown.schemes[0].quota is not None
        assert grown.schemes[0].quota.goal_score == pytest.approx(0.1)
        session.set_goal_value("cold", 190)
        shrunk = until(session, lambda report: quota_of(report) < MIB // 16)
        assert shrunk.schemes[0].quota is not None
        assert shrunk.schemes[0].quota.goal_score == pytest.approx(1.9)


def test_a_goal_is_brought_about_and_then_the_scheme_stops() -> None:
    """`free_memory` of a cgroup, by all or nothing: as much leaves as it takes, and no more."""
    require("root", "bpf", "swap", "cgroup")
    total = int(Path("/proc/meminfo").read_text().split()[1]) * 1024
    with swap_on(2 * SIZE), fresh_cgroup() as cgroup, memory_child() as child:
        join(cgroup, child.pid)
        start = small_memory(child, SIZE)
        used = cgroup.lru_bytes(None)
        goal = Goal(metric=GoalMetric.FREE_MEMORY, target=1 - (used - 48 * MIB) / total, cgroup=cgroup.path)
        quota = Quota(size_bytes=8 * MIB, reset_interval_s=0.2, goals=(goal,), tuner=Tuner.TEMPORAL)
        with acting(cold_scheme(quota=quota), pid=child.pid) as session:
            until(session, lambda report: report.schemes[0].state == "its goals are reached" and quota_of(report) == 0)
            gone = swapped_bytes(child.pid, start, start + SIZE)
            until(session, lambda _: True)
            until(session, lambda _: True)
        # A ten thousandth of memory is the grain of a goal.
        assert swapped_bytes(child.pid, start, start + SIZE) == gone
        assert gone == pytest.approx(48 * MIB, abs=16 * MIB + total // 10_000)
        assert cgroup.lru_bytes(None) <= used - 32 * MIB


@pytest.mark.parametrize(("target", "is_open"), [(1.0, True), (0.0002, False)])
def test_a_goal_of_free_memory(target: float, is_open: bool) -> None:
    require("root", "bpf", "cc")
    goal = Goal(metric=GoalMetric.FREE_MEMORY, target=target)
    quota = Quota(size_bytes=4 * MIB, reset_interval_s=0.2, goals=(goal,), tuner=Tuner.TEMPORAL)
    with (
        workload(size_bytes=SIZE, hot=HOT) as child,
        acting(cold_scheme(quota=quota), pid=child.pid, apply=False) as it,
    ):
        report = until(it, lambda report: report.schemes[0].matched_bytes > 60 * MIB)
    assert quota_of(report) == (4 * MIB if is_open else 0)
    assert (report.schemes[0].state == "its goals are reached") is not is_open


# Sixteen MiB in turn in a cgroup that may hold four: it waits for memory all the time.
THRASHING = """
import mmap, sys
sys.stdin.readline()
memory = mmap.mmap(-1, 16 << 20)
while True:
    for page in range(0, len(memory), 4096):
        memory[page] = page >> 12 & 255
"""


def test_a_goal_of_memory_pressure_follows_real_pressure() -> None:
    require("root", "bpf", "cc", "psi", "cgroup", "swap")
    goal = Goal(metric=GoalMetric.MEMORY_PRESSURE, target=0.001)
    quota = Quota(size_bytes=4 * MIB, reset_interval_s=0.2, goals=(goal,), tuner=Tuner.TEMPORAL)
    with swap_on(2 * SIZE), workload(size_bytes=SIZE, hot=HOT) as child, fresh_cgroup() as cgroup:
        limits = [Path(cgroup.directory, name) for name in ("memory.max", "memory.limit_in_bytes")]
        limit = next(one for one in limits if one.exists())
        with acting(cold_scheme(quota=quota), pid=child.pid, apply=False) as session:
            until(session, lambda report: quota_of(report) == 4 * MIB)
            with subprocess.Popen([sys.executable, "-S", "-c", THRASHING], stdin=subprocess.PIPE) as thrashing:
                # What it has before belongs to the cgroup where it was.
                join(cgroup, thrashing.pid)
                limit.write_text(str(4 * MIB))
                waited = pressure_us()
                assert thrashing.stdin is not None
                thrashing.stdin.close()
                try:
                    pressed = until(session, lambda report: quota_of(report) == 0)
                    assert pressure_us() > waited + 1000
                finally:
                    thrashing.kill()
            score = pressed.schemes[0].quota.goal_score if pressed.schemes[0].quota else None
            assert score is not None
            assert score >= 1
            until(session, lambda report: quota_of(report) == 4 * MIB)


def pressure_us() -> int:
    """What PSI has counted of tasks that waited for memory."""
    return int(Path("/proc/pressure/memory").read_text().split()[4].partition("=")[2])


def test_a_number_of_applies_and_no_more(tmp_path: Path) -> None:
    require("root", "bpf", "swap", "cc")
    policy = tmp_path / "policy.toml"
    quota = 'max_nr_snapshots = 4\nquota = { bytes = "4MiB", every = "100ms" }\n'
    policy.write_text(OPEN_TEXT + COLD_TEXT.replace('age = ">= 500ms"', "") + quota)
    with swap_on(2 * SIZE), workload(size_bytes=SIZE, hot=HOT) as child:
        words = ("run", str(policy), "--pid", str(child.pid), "--json", "--apply")
        with agent(*words) as running:
            running.until(lambda report: not report["schemes"][0]["is_active"])
            swapped = child.swap_bytes()
            time.sleep(1)
            last = running.reports()[-1]
        assert child.swap_bytes() == swapped
    scheme = last["schemes"][0]
    assert (scheme["state"], scheme["total"]["nr_snapshots"]) == ("finished after 4 applies", 4)
    assert 4 * MIB <= applied_bytes(last) <= 16 * MIB
