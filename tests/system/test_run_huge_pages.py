"""Huge pages for the hot memory of another program: by ptrace or by collapse, exactly there, and taken back."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.command import assert_refused, memtherm
from support.requires import require
from support.workload import Workload, workload
from system.run_scene import (
    GUARD_TEXT,
    HUGE,
    MIB,
    MONITOR_TEXT,
    Agent,
    agent,
    applied_bytes,
    flagged_ranges,
    is_traced_or_stopped,
    reasons,
    smaps,
)

SIZE = 80 * MIB
HOT = [(21 * MIB, 22 * MIB)]
BY_PTRACE = MONITOR_TEXT + GUARD_TEXT + "allow_ptrace = true\n"
HOT_TEXT = '[[scheme]]\nname = "hot"\naccess_rate = ">= 50%"\nsize = ">= 2MiB"\naction = "{}"\n'
COLD_TEXT = '[[scheme]]\nname = "cold"\naccess_rate = "0%"\nsize = ">= 2MiB"\nage = ">= 500ms"\naction = "{}"\n'
MODE = Path("/sys/kernel/mm/transparent_hugepage/enabled")

pytestmark = pytest.mark.system


@pytest.fixture
def child() -> Iterator[Workload]:
    """Small pages, and no advice of its own."""
    require("root", "bpf", "cc", "thp")
    if "[always]" in MODE.read_text():
        pytest.skip("huge pages without being asked for")
    with workload(size_bytes=SIZE, hot=HOT, pages="default") as one:
        yield one


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    return tmp_path / "policy.toml"


def whole_huge_pages(start: int, end: int) -> tuple[int, int]:
    """Those inside of a range."""
    return (start + HUGE - 1) // HUGE * HUGE, end // HUGE * HUGE


def huge_bytes(child: Workload) -> int:
    return sum(int(line.split()[1]) * 1024 for line in smaps(child.pid) if line.startswith("AnonHugePages:"))


def inside(child: Workload, flag: str) -> list[tuple[int, int]]:
    """Its large mapping's parts with a flag."""
    return [one for one in flagged_ranges(child.pid, flag) if one[0] >= child.start and one[1] <= child.end]


@contextmanager
def applying(policy: Path, text: str, child: Workload) -> Iterator[Agent]:
    policy.write_text(text)
    with agent("run", str(policy), "--pid", str(child.pid), "--apply", "--json") as running:
        yield running


def assert_runs_on(child: Workload) -> None:
    assert not is_traced_or_stopped(child.pid)
    before = child.passes()
    time.sleep(0.1)
    assert child.passes() > before


def test_advice_for_the_hot_memory_by_ptrace_and_its_end(child: Workload, policy: Path) -> None:
    require("ptrace")
    hot = whole_huge_pages(*child.hot_ranges[0])
    with applying(policy, BY_PTRACE + HOT_TEXT.format("hugepage"), child) as running:
        report = running.until(lambda _: inside(child, "hg") == [hot])
        report = running.until(lambda report: applied_bytes(report) >= hot[1] - hot[0])
        time.sleep(0.5)
        assert inside(child, "hg") == [hot]
        assert running.end(signal.SIGTERM) == 143
    assert applied_bytes(report) == hot[1] - hot[0]
    # There is no advice that takes advice away: in the mode `madvise` its absence is as good as nohugepage.
    assert inside(child, "hg") == []
    assert inside(child, "nh") == [hot]
    assert "that had no huge page advice have nohugepage now" in running.stderr
    assert_runs_on(child)


def test_advice_that_is_to_stay(child: Workload, policy: Path) -> None:
    require("ptrace")
    hot = whole_huge_pages(*child.hot_ranges[0])
    text = BY_PTRACE + "keep_huge_page_advice = true\n" + HOT_TEXT.format("hugepage")
    with applying(policy, text, child) as running:
        running.until(lambda _: inside(child, "hg") == [hot])
        assert running.end(signal.SIGINT) == 130
    assert inside(child, "hg") == [hot]
    assert "huge page advice" not in running.stderr
    assert_runs_on(child)


def test_no_huge_pages_for_cold_memory(child: Workload, policy: Path) -> None:
    require("ptrace")
    hot = child.hot_ranges[0]
    with applying(policy, BY_PTRACE + COLD_TEXT.format("nohugepage"), child) as running:
        running.until(lambda _: sum(end - start for start, end in inside(child, "nh")) >= SIZE - 22 * MIB - 4 * HUGE)
        ranges = inside(child, "nh")
        assert running.end(signal.SIGTERM) == 143
    assert all(end <= hot[0] or start >= hot[1] for start, end in ranges)
    assert "that had no huge page advice keep nohugepage now" in running.stderr
    assert_runs_on(child)


def test_without_leave_nobody_is_stopped(child: Workload, policy: Path) -> None:
    policy.write_text(MONITOR_TEXT + GUARD_TEXT + HOT_TEXT.format("hugepage"))
    words = ("run", str(policy), "--pid", str(child.pid))
    assert_refused(memtherm(*words, "--apply"), 2, "hugepage stops the target for a moment", "allow_ptrace = true")
    dry = memtherm(*words, "--json", "-n", "4")
    told = set().union(*(reasons(report) for report in dry.json_lines()))
    assert told == {"hugepage needs allow_ptrace: the target itself must give the advice; collapse does without"}
    assert inside(child, "hg") == []


def test_collapse_makes_huge_pages_of_the_hot_memory(child: Workload, policy: Path) -> None:
    start, end = whole_huge_pages(*child.hot_ranges[0])
    with applying(policy, MONITOR_TEXT + GUARD_TEXT + HOT_TEXT.format("collapse"), child) as running:
        report = running.until(lambda report: applied_bytes(report) >= end - start)
        assert huge_bytes(child) == end - start == applied_bytes(report)
        assert running.end(signal.SIGTERM) == 143
    # It changed no advice, and what is huge stays so.
    assert huge_bytes(child) == end - start
    assert inside(child, "hg") == inside(child, "nh") == []
    assert_runs_on(child)


def test_sigterm_between_two_pieces_of_advice(child: Workload, policy: Path) -> None:
    """Each time at another moment: what was given till then is taken back, and nothing is left half done."""
    require("ptrace")
    text = BY_PTRACE.replace("250ms", "100ms").replace("50ms", "20ms") + HOT_TEXT.format("hugepage")
    hot = whole_huge_pages(*child.hot_ranges[0])
    for delay_s, told in ((0.0, "have nohugepage now"), (0.004, "have the huge page advice again")):
        with applying(policy, text, child) as running:
            running.started()
            deadline_s = time.monotonic() + 20
            while not inside(child, "hg") and time.monotonic() < deadline_s:
                pass
            time.sleep(delay_s)
            assert running.end(signal.SIGTERM) == 143
        assert inside(child, "hg") == []
        assert all(hot[0] <= start and end <= hot[1] for start, end in inside(child, "nh"))
        # The second time it is advice that was there before.
        assert told in running.stderr
        assert_runs_on(child)
        text = text.replace("allow_ptrace", "override_application_hints = true\nallow_ptrace", 1)
