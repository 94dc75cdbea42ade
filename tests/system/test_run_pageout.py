"""The main job, whole: a monitor with a scheme on a real process pages out what is cold, and only that."""

import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import numpy as np
import pytest

import memtherm
from memtherm import AccessPattern, Action, Bounds, GuardSettings, MonitoringAttributes, Policy, Report, Scheme
from memtherm.session.ways import canary_failure
from support.children import on_one_processor
from support.command import memtherm as memtherm_command
from support.privileges import run_as_nobody
from support.requires import require
from support.swap import swap_on
from support.workload import Workload, workload

PAGE = 4096
MIB = 1 << 20
SIZE = 512 * MIB
HOT = [(100 * MIB, 48 * MIB), (300 * MIB, 16 * MIB)]
COLD_BYTES = 448 * MIB
PATIENCE_S = 40.0

pytestmark = pytest.mark.system


@pytest.fixture(autouse=True, scope="module")
def _trusted_probe() -> None:
    """The canary's answer is kept.  On one processor no page of its child waits for the LRU elsewhere, unclearable."""
    with on_one_processor():
        canary_failure("bpf")


def scheme(action: Action = Action.PAGEOUT, *, age_s: float = 1.0) -> Scheme:
    pattern = AccessPattern(access_rate=Bounds(0, 0), age_s=Bounds(age_s))
    return Scheme(name="what is cold", action=action, pattern=pattern)


def present_bytes(pid: int, start: int, end: int) -> int:
    """By bit 63 of the pagemap."""
    with open(f"/proc/{pid}/pagemap", "rb") as file:
        file.seek(start // PAGE * 8)
        entries = np.frombuffer(file.read((end - start) // PAGE * 8), np.uint64)
    return int((entries >> np.uint64(63)).sum()) * PAGE


def until(reports: Iterator[Report], *, applied_bytes: int) -> Report:
    """The first report whose scheme has applied so much in all."""
    deadline_s = time.monotonic() + PATIENCE_S
    for report in reports:
        if report.schemes[0].total.applied_bytes >= applied_bytes:
            return report
        assert time.monotonic() < deadline_s, f"only {report.schemes[0].total} after {PATIENCE_S} s"
    raise AssertionError("the reports ended")


def assert_goes_on(child: Workload) -> None:
    before = child.passes()
    time.sleep(0.2)
    assert child.passes() > before + 2


@pytest.mark.parametrize("method", ["sampling", "auto"])
def test_three_hundred_mib_leave_and_the_hot_set_stays(method: str) -> None:
    require("root", "bpf", "swap", "cc")
    with swap_on(512 * MIB), workload(size_bytes=SIZE, hot=HOT) as child:
        before = child.rss_bytes()
        attributes = MonitoringAttributes(method=method)
        with memtherm.monitor(
            pid=child.pid, schemes=[scheme()], apply=True, attributes=attributes, probe="bpf"
        ) as session:
            report = until(session.reports(), applied_bytes=300 * MIB)
        # The session may have acted once more before it ended.
        total = [report, *session.reports()][-1].schemes[0].total
        swapped, now = child.swap_bytes(), child.rss_bytes()
        assert before - now > 300 * MIB
        assert before - now == pytest.approx(swapped, rel=0.02)
        assert total.applied_bytes == pytest.approx(swapped, rel=0.01)
        assert total.tried_bytes >= total.applied_bytes + total.refused_bytes
        assert_goes_on(child)
        hot_present = sum(present_bytes(child.pid, *stripe) for stripe in child.hot_ranges)
        assert hot_present == child.hot_bytes
        # What the program wanted back since: hardly anything.
        assert child.swap_bytes() >= 0.99 * swapped


def test_a_dry_run_says_what_it_would_do_and_changes_nothing() -> None:
    require("root", "bpf", "swap", "cc")
    with swap_on(512 * MIB), workload(size_bytes=SIZE, hot=HOT) as child:
        before = child.rss_bytes()
        would_bytes = 0
        with memtherm.monitor(pid=child.pid, schemes=[scheme()], probe="bpf") as session:
            deadline_s = time.monotonic() + PATIENCE_S
            for report in session.reports():
                assert report.schemes[0].total.applied_bytes == 0
                told = {refusal.reason: refusal.size_bytes for refusal in report.schemes[0].refused}
                would_bytes = told.get("dry run", 0)
                if would_bytes > 0.95 * COLD_BYTES:
                    break
                assert time.monotonic() < deadline_s, f"{would_bytes} bytes after {PATIENCE_S} s"
        assert would_bytes < 1.05 * COLD_BYTES
        assert child.swap_bytes() == 0
        assert child.rss_bytes() == pytest.approx(before, rel=0.01)
        assert_goes_on(child)


def test_without_swap_anonymous_memory_is_refused_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    require("root", "bpf", "cc")
    monkeypatch.setenv("MEMTHERM_WITHOUT", "swap")
    with workload(size_bytes=128 * MIB, hot=[(32 * MIB, 32 * MIB)]) as child:
        before = child.rss_bytes()
        refused: dict[str, int] = {}
        with memtherm.monitor(pid=child.pid, schemes=[scheme()], apply=True, probe="bpf") as session:
            for report in session.reports(limit=100):
                refused = {refusal.reason: refusal.size_bytes for refusal in report.schemes[0].refused}
                if refused.get("anonymous memory, and no swap", 0) > 90 * MIB:
                    break
        assert refused["anonymous memory, and no swap"] == pytest.approx(96 * MIB, rel=0.05)
        # Nothing but pages of files can have gone.
        assert child.rss_bytes() > before - 2 * MIB
        assert present_bytes(child.pid, child.start, child.end) == 128 * MIB


def test_without_swap_cold_pages_of_a_file_still_go(monkeypatch: pytest.MonkeyPatch) -> None:
    require("root", "bpf", "cc")
    monkeypatch.setenv("MEMTHERM_WITHOUT", "swap")
    with workload(size_bytes=128 * MIB, hot=[(32 * MIB, 32 * MIB)], memory="file") as child:
        with memtherm.monitor(pid=child.pid, schemes=[scheme()], apply=True, probe="bpf") as session:
            report = until(session.reports(), applied_bytes=90 * MIB)
        left = present_bytes(child.pid, child.start, child.end)
        gone = 128 * MIB - left
        # The program's own pages of its file and of libc are cold, too.
        assert gone <= report.schemes[0].total.applied_bytes <= gone + 4 * MIB
        assert_goes_on(child)
        assert sum(present_bytes(child.pid, *stripe) for stripe in child.hot_ranges) == child.hot_bytes


def test_a_target_that_is_killed_ends_the_session_without_an_error() -> None:
    require("root", "bpf", "swap", "cc")
    with swap_on(512 * MIB), workload(size_bytes=SIZE, hot=HOT) as child:

        def kill_when_swapping() -> None:
            deadline_s = time.monotonic() + PATIENCE_S
            while child.swap_bytes() < 20 * MIB and time.monotonic() < deadline_s:
                time.sleep(0.002)
            child._process.kill()

        killer = threading.Thread(target=kill_when_swapping)
        with memtherm.monitor(pid=child.pid, schemes=[scheme()], apply=True, probe="bpf") as session:
            killer.start()
            reports = list(session.reports(limit=400))
            killer.join()
        assert 0 < len(reports) < 400
        events = [event for report in reports for event in report.events] + list(session.last_events)
        assert any("gone" in event or "ending" in event for event in events)


def test_a_small_target_is_left_alone_unless_it_is_meant() -> None:
    require("root", "bpf", "swap", "cc")
    with swap_on(64 * MIB), workload(size_bytes=32 * MIB, hot=[(0, MIB)]) as child:
        with memtherm.monitor(pid=child.pid, schemes=[scheme(age_s=0.3)], apply=True, probe="bpf") as session:
            report = next(report for report in session.reports(limit=40) if report.schemes[0].tried_bytes)
        (refusal,) = report.schemes[0].refused
        assert "targets below 64.0 MiB are left alone" in refusal.reason
        assert child.swap_bytes() == 0
        policy = Policy(schemes=(scheme(age_s=0.3),), guard=GuardSettings(min_target_bytes=0))
        with memtherm.monitor(pid=child.pid, policy=policy, apply=True, probe="bpf") as session:
            until(session.reports(), applied_bytes=8 * MIB)
        assert child.swap_bytes() >= 8 * MIB


def test_a_missing_capability_is_told_at_the_first_attempt() -> None:
    require("root", "cc")
    with workload(size_bytes=96 * MIB, hot=[(0, MIB)], memory="file") as child:
        before = child.rss_bytes()

        def attempt() -> int:
            from act.test_faults import drop_capability

            drop_capability("CAP_SYS_NICE")
            attributes = MonitoringAttributes(sampling_interval_s=0.2, aggregation_interval_s=0.2)
            with memtherm.monitor(
                pid=child.pid, schemes=[scheme(age_s=0.2)], apply=True, attributes=attributes, probe="smaps"
            ) as session:
                return len(list(session.reports(limit=20)))

        with pytest.raises(memtherm.NotPermitted) as caught:
            run_as_nobody(attempt, user_id=0)
        assert "CAP_SYS_NICE" in caught.value.hint
        assert child.rss_bytes() == before


def test_pid_1_is_refused() -> None:
    require("root", "bpf")
    # Some hosts keep its memory from root, too; then not even a session begins.
    with (
        suppress(memtherm.NotPermitted),
        memtherm.monitor(pid=1, schemes=[scheme(Action.COLD, age_s=0)], apply=True, probe="bpf") as session,
    ):
        for report in session.reports(limit=3):
            assert report.schemes[0].total.applied_bytes == 0


def test_the_command_pages_out_what_nobody_touches() -> None:
    """`run --apply`: applied_bytes agrees with VmSwap within 1 %, and the hot set stays."""
    require("root", "bpf", "swap", "cc")
    with swap_on(600 * MIB), workload(size_bytes=SIZE, hot=HOT) as child:
        line = "4K max 0% 0% 1s max pageout"
        result = memtherm_command(
            "run", "--scheme", line, "--pid", str(child.pid), "--apply", "--duration", "20s", "--json"
        )
        assert result.exit_code == 0, result.stderr
        total = result.json_lines()[-1]["schemes"][0]["total"]
        assert total["applied_bytes"] >= 300 * MIB
        assert total["applied_bytes"] == pytest.approx(child.swap_bytes(), rel=0.01)
        for start, end in child.hot_ranges:
            assert present_bytes(child.pid, start, end) == end - start
