"""A session over the kernel's DAMON: what it sees, what it hands down, who stops it, and what it leaves behind."""

import itertools
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from memtherm.core.attributes import MonitoringAttributes
from memtherm.core.guard import GuardSettings
from memtherm.core.pattern import AccessPattern, Bounds
from memtherm.core.quota import Quota
from memtherm.core.report import Report, SchemeReport
from memtherm.core.scheme import Action, Scheme
from memtherm.errors import InvalidInput, NotSupported, TargetBusy
from memtherm.linux.process import open_process
from memtherm.policy.values import Policy, TargetSelector
from memtherm.session.open import monitor
from memtherm.session.session import Session
from memtherm.session.window_source import TracedWindows
from support.children import HUGE_PAGE_SIZE, Child
from support.command import assert_refused, forked
from support.requires import require
from support.swap import swap_on

MIB = 2**20
TREE = Path("/sys/kernel/mm/damon/admin/kdamonds")
# Slow enough for an emulated processor.
SLOW = MonitoringAttributes(
    sampling_interval_s=0.02, aggregation_interval_s=0.4, regions_update_interval_s=2.0, method="kdamond"
)
NO_FLOOR = GuardSettings(min_target_bytes=0, max_memory_pressure=0, max_refault_rate=0)
COLD = Scheme(
    name="cold", action=Action.PAGEOUT, pattern=AccessPattern(access_rate=Bounds(0, 0), age_s=Bounds(1.5, None))
)


@pytest.fixture(scope="module", autouse=True)
def allowed() -> None:
    require("root", "kdamond")


@contextmanager
def busy_child(size_bytes: int, hot_bytes: int) -> Iterator[tuple[Child, int]]:
    """A child that has `size_bytes`, and touches the first `hot_bytes` all the time; and where that begins."""
    with Child() as child:
        address = child.map_aligned(size_bytes)
        child.fill(address, size_bytes)
        child.keep_touching([(address, hot_bytes // 4096, 1)])
        yield child, address


def watch(child: Child, *schemes: Scheme, apply: bool = False, guard: GuardSettings = NO_FLOOR) -> Session:
    return monitor(pid=child.pid, policy=Policy(schemes=schemes, attributes=SLOW, guard=guard), apply=apply)


def seen_bytes(report: Report, start: int, end: int, *, min_rate: float) -> int:
    """How much of a range lies in regions of at least this rate."""
    regions = report.snapshot.regions.take(report.snapshot.regions.access_rate >= min_rate)
    low, high = regions.start.clip(start, end), regions.end.clip(start, end)
    return int((high - low).sum())


def until(session: Session, condition: Callable[[Report], bool], *, limit: int = 60) -> Report:
    for report in session.reports(limit=limit):
        if condition(report):
            return report
    raise AssertionError(f"not within {limit} windows")


def test_what_is_touched_is_hot_and_the_conditions_say_who_saw_it() -> None:
    with busy_child(64 * MIB, 16 * MIB) as (child, address), watch(child) as session:
        assert session.reasons[0] == "watching by the kernel's DAMON: asked for"
        # The first regions are larger than either part.
        report = until(
            session,
            lambda one: (
                seen_bytes(one, address, address + 16 * MIB, min_rate=0.25) >= 12 * MIB
                and seen_bytes(one, address + 20 * MIB, address + 64 * MIB, min_rate=0.25) <= 4 * MIB
            ),
        )
        conditions = report.snapshot.conditions
        assert (conditions.method, conditions.probe, conditions.samples) == ("kdamond", "kdamond", 20)
        assert conditions.why == "asked for"
        assert conditions.doubts == ()
        assert report.snapshot.targets[0].pid == child.pid
    assert (TREE / "nr_kdamonds").read_text() == "0\n"


def test_each_window_of_the_kernel_becomes_a_snapshot() -> None:
    with busy_child(16 * MIB, 4 * MIB) as (child, _), watch(child) as session:
        times = [report.snapshot.time_s for report in session.reports(limit=8)]
        steps = [late - early for early, late in itertools.pairwise(times)]
        assert min(steps) > 0.3
        assert sum(steps) / len(steps) < 1.5


def test_the_kernel_pages_out_what_is_cold_and_the_guard_of_rates_holds() -> None:
    require("swap")
    with swap_on(256 * MIB), busy_child(96 * MIB, 8 * MIB) as (child, address):
        scheme = replace(COLD, quota=Quota(size_bytes=16 * MIB))
        # Not the whole process: the kernel charges a quota for what nothing maps, up to a gigabyte before its heap.
        selector = TargetSelector(pid=child.pid, ranges=((address, address + 96 * MIB),))
        policy = Policy(targets=(selector,), schemes=(scheme,), attributes=SLOW, guard=NO_FLOOR)
        with open_process(child.pid) as process, monitor(policy=policy, apply=True) as session:
            first = next(session.reports(limit=1))
            assert 'scheme "cold" runs in the kernel' in first.events
            report = until(session, lambda one: one.schemes[0].total.applied_bytes >= 32 * MIB)
            done: SchemeReport = report.schemes[0]
            assert done.state == "runs in the kernel"
            assert done.total.tried_bytes >= done.total.applied_bytes
            assert done.quota is not None
            assert process.swap_bytes() >= 24 * MIB
            assert done.total.applied_bytes <= 96 * MIB


def test_without_swap_it_stays_in_user_space_and_says_so() -> None:
    with busy_child(16 * MIB, 4 * MIB) as (child, _), watch(child, COLD, apply=True) as session:
        report = next(session.reports(limit=1))
        assert any('"cold" runs in user space: without swap' in event for event in report.events)
        assert not report.schemes[0].state.startswith("runs in the kernel")


def test_a_dry_run_counts_in_user_space() -> None:
    with busy_child(16 * MIB, 4 * MIB) as (child, _), watch(child, COLD) as session:
        report = until(session, lambda one: one.schemes[0].matched_bytes > 0)
        assert report.schemes[0].applied_bytes == 0


def test_huge_page_advice_of_the_kernel_needs_no_ptrace() -> None:
    require("thp")
    scheme = Scheme(name="huge", action=Action.HUGEPAGE)
    with Child() as child:
        address = child.map_aligned(8 * HUGE_PAGE_SIZE)
        child.fill(address, HUGE_PAGE_SIZE)
        with watch(child, scheme, apply=True) as session:
            until(session, lambda one: one.schemes[0].total.applied_bytes > 0)
        smaps = Path(f"/proc/{child.pid}/smaps").read_text()
        mine = smaps[smaps.index(f"{address:x}-") :]
        assert " hg" in mine[mine.index("VmFlags:") :].splitlines()[0]


def test_a_second_session_has_a_kdamond_of_its_own_and_each_sees_its_target() -> None:
    with (
        busy_child(16 * MIB, 4 * MIB) as (one, _),
        busy_child(16 * MIB, 4 * MIB) as (other, _),
        watch(one) as first,
    ):
        assert next(first.snapshots(limit=1)).targets[0].pid == one.pid
        done = forked("monitor", "--pid", str(other.pid), "--method", "kdamond", "--json", "-n", "1")
        assert done.exit_code == 0
        assert json.loads(done.stdout.splitlines()[0])["targets"][0]["pid"] == other.pid
        assert next(first.snapshots(limit=1)).targets[0].pid == one.pid


def test_a_target_that_exits_ends_the_session_and_leaves_an_empty_tree() -> None:
    with busy_child(16 * MIB, 4 * MIB) as (child, _), watch(child) as session:
        next(session.reports(limit=1))
        child.kill()
        began_s = time.monotonic()
        list(session.reports(limit=50))
        assert session.all_gone
        assert time.monotonic() - began_s < 30
    assert (TREE / "nr_kdamonds").read_text() == "0\n"


def test_physical_memory_is_watched_and_counts_in_a_dry_run() -> None:
    scheme = Scheme(name="hot", action=Action.LRU_PRIO, pattern=AccessPattern(access_rate=Bounds(0.05, None)))
    policy = Policy(targets=(TargetSelector(physical=True),), schemes=(scheme,), attributes=SLOW)
    with monitor(policy=policy) as session:
        report = until(session, lambda one: one.schemes[0].total.tried_bytes > 0)
        assert report.snapshot.targets[0].name == "physical memory"
        assert report.schemes[0].applied_bytes == 0
        assert report.schemes[0].state == "dry run: the kernel counts what it would try"


def test_given_addresses_alone_are_watched() -> None:
    with Child() as child:
        address = child.map(32 * MIB)
        child.fill(address, 32 * MIB)
        selector = TargetSelector(pid=child.pid, ranges=((address, address + 8 * MIB),))
        with monitor(targets=[selector], attributes=SLOW) as session:
            regions = next(session.snapshots(limit=1)).regions
            assert int(regions.start.min()) == address
            assert int(regions.end.max()) == address + 8 * MIB


def test_physical_memory_and_processes_do_not_go_together() -> None:
    with Child() as child, pytest.raises(InvalidInput, match="both physical memory and processes"):
        monitor(targets=[TargetSelector(pid=child.pid), TargetSelector(physical=True)])


def test_somebody_elses_kdamond_is_said_and_left_alone() -> None:
    try:
        (TREE / "nr_kdamonds").write_text("1")
        before = sorted(str(path) for path in (TREE / "0").rglob("*"))
        with Child() as child:
            with pytest.raises(TargetBusy, match="occupied by another owner"):
                watch(child)
            done = forked("monitor", "--pid", str(child.pid), "--method", "kdamond")
            assert_refused(done, 3, "occupied by another owner")
        assert sorted(str(path) for path in (TREE / "0").rglob("*")) == before
    finally:
        (TREE / "nr_kdamonds").write_text("0")


def test_auto_decides_by_what_a_census_costs_here() -> None:
    """Emulated, one look takes so long that the kernel's DAMON may be the cheaper way."""
    require("bpf")
    with busy_child(16 * MIB, 4 * MIB) as (child, _), monitor(pid=child.pid) as session:
        conditions = next(session.snapshots(limit=1)).conditions
    said = {"census": "every page can be counted within", "kdamond": "a census within 1 % of one CPU would look only"}
    assert conditions.why.startswith(said[conditions.method])


def test_without_tracefs_windows_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(_self: TracedWindows, **_given: int) -> None:
        raise NotSupported("there is no tracefs here", hint="mount it")

    monkeypatch.setattr(TracedWindows, "__init__", absent)
    with (
        busy_child(64 * MIB, 16 * MIB) as (child, address),
        busy_child(16 * MIB, 4 * MIB) as (other, second),
        monitor(pid=[child.pid, other.pid], attributes=SLOW) as session,
    ):
        first = next(session.reports(limit=1))
        assert any("windows are asked for one by one" in event for event in first.events)

        def found(report: Report) -> bool:
            return (
                seen_bytes(report, address, address + 16 * MIB, min_rate=0.25) >= 8 * MIB
                and seen_bytes(report, second, second + 4 * MIB, min_rate=0.25) >= 2 * MIB
            )

        regions = until(session, found).snapshot.regions
        assert set(regions.target.tolist()) == {0, 1}
