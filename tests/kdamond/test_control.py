import errno
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memtherm.core.scheme import Action
from memtherm.errors import HostCannot, InvalidInput, NotSupported, TargetBusy, TargetGone
from memtherm.kdamond import control, layout
from memtherm.kdamond.control import RunningKdamond
from memtherm.kdamond.ownership import Holder, KdamondSlots
from memtherm.kdamond.parameters import (
    ANY_BOUNDS,
    Context,
    Intervals,
    IntervalsGoal,
    Kdamond,
    KernelFilter,
    KernelFilterKind,
    KernelGoal,
    KernelQuota,
    KernelScheme,
    KernelTarget,
    KernelWatermarkMetric,
    KernelWatermarks,
    Operations,
)
from memtherm.kdamond.registry import Registry
from memtherm.kdamond.tree import CommandCanceled, KernelRefused
from support.children import Child
from support.fake_damon import THREAD, FakeDamonTree

ANYTHING = KernelScheme(size_bytes=ANY_BOUNDS, nr_accesses=ANY_BOUNDS, age_windows=ANY_BOUNDS)
GOAL = IntervalsGoal(access_bp=400, windows=3, min_sampling_interval_s=0.005, max_sampling_interval_s=10)


@pytest.fixture
def parameters(child: Child) -> Kdamond:
    return Kdamond(context=Context(targets=(KernelTarget(pid=child.pid),), schemes=(ANYTHING,)))


@pytest.fixture
def running(slots: KdamondSlots, parameters: Kdamond) -> Iterator[RunningKdamond]:
    with control.start(parameters, slots=slots) as one:
        yield one


def changed(parameters: Kdamond, **values: Any) -> Kdamond:
    return replace(parameters, context=replace(parameters.context, **values))


def test_it_starts_with_all_parameters_and_leaves_nothing(
    tree: FakeDamonTree, slots: KdamondSlots, parameters: Kdamond
) -> None:
    with control.start(parameters, slots=slots) as running:
        assert running.is_running()
        assert running.thread() == THREAD
        assert layout.read(tree, "0/") == parameters
        assert tree.committed(0)["contexts/0/schemes/0/access_pattern/sz/max"] == str(2**64 - 1)
    assert slots.look().holder is Holder.FREE


def test_two_of_one_process_have_slots_of_their_own(
    slots: KdamondSlots, parameters: Kdamond, running: RunningKdamond
) -> None:
    with control.start(parameters, slots=slots) as other:
        assert (running.index, other.index) == (0, 1)
        other.stop()
        assert running.is_running()
        assert other.thread() is None


def test_what_cannot_start_leaves_nothing(tree: FakeDamonTree, slots: KdamondSlots, parameters: Kdamond) -> None:
    tree.fail_next("on", errno.ENOMEM)
    with pytest.raises(InvalidInput, match="cannot build a scheme"):
        control.start(parameters, slots=slots)
    assert slots.look().holder is Holder.FREE
    lacks = FakeDamonTree(tree.root / "old", release="6.12")
    old = KdamondSlots(lacks, registry=Registry(tree.root / "old-registry"), modules=tree.root)
    with pytest.raises(NotSupported, match="pause"):
        control.start(changed(parameters, is_paused=True), slots=old)
    assert old.look().holder is Holder.FREE


def test_a_target_that_exits_before_the_start_is_gone(slots: KdamondSlots, tree: FakeDamonTree) -> None:
    with Child() as child:
        parameters = Kdamond(context=Context(targets=(KernelTarget(pid=child.pid),)))
    with pytest.raises(TargetGone):
        control.start(parameters, slots=slots)
    assert tree.writes == []


def test_a_commit_takes_changes_in_and_writes_only_them(
    tree: FakeDamonTree, parameters: Kdamond, running: RunningKdamond
) -> None:
    tree.writes.clear()
    running.commit(changed(parameters, max_nr_regions=500))
    assert tree.writes == [("0/contexts/0/monitoring_attrs/nr_regions/max", "500"), ("0/state", "commit")]
    assert tree.committed(0)["contexts/0/monitoring_attrs/nr_regions/max"] == "500"
    running.commit(running.parameters)
    assert tree.writes[2:] == [("0/state", "commit")]


@pytest.mark.parametrize(("release", "limit"), [("6.12", 1 << 62), ("7.3", 0)])
def test_a_quota_that_is_taken_back_holds_no_longer(
    tmp_path: Path, parameters: Kdamond, release: str, limit: int
) -> None:
    tree = FakeDamonTree(tmp_path / "other", release=release)
    slots = KdamondSlots(tree, registry=Registry(tmp_path / "other-registry"), modules=tmp_path)
    limited = changed(parameters, schemes=(replace(ANYTHING, quota=KernelQuota(size_bytes=4096)),))
    unlimited = changed(parameters, schemes=(ANYTHING,))
    with control.start(limited, slots=slots) as running:
        running.commit(unlimited)
        assert tree.committed(0)["contexts/0/schemes/0/quotas/bytes"] == str(limit)
        assert running.parameters == unlimited


def test_a_refused_commit_puts_the_files_back(
    tree: FakeDamonTree, parameters: Kdamond, running: RunningKdamond
) -> None:
    tree.fail_next("commit", errno.EINVAL)
    with pytest.raises(KernelRefused):
        running.commit(changed(parameters, schemes=(ANYTHING, replace(ANYTHING, action=Action.COLD))))
    assert layout.read(tree, "0/") == parameters
    assert running.parameters == parameters
    running.commit(changed(parameters, min_nr_regions=20))
    assert layout.read(tree, "0/") == running.parameters


def test_tuned_intervals_are_kept_by_a_commit_unless_they_are_changed(
    tree: FakeDamonTree, slots: KdamondSlots, parameters: Kdamond
) -> None:
    tuning = changed(parameters, intervals=Intervals(goal=GOAL))
    with control.start(tuning, slots=slots) as running:
        tree.set_results(tuned=(80_000, 1_600_000))
        assert running.tuned_intervals().sampling_interval_s == 0.08
        running.commit(changed(tuning, max_nr_regions=500))
        assert tree.committed(0)["contexts/0/monitoring_attrs/intervals/sample_us"] == "80000"
        assert running.parameters.context.intervals == tuning.context.intervals
        # The kernel's own refresh may have written the files since we looked last.
        tree.set_results(tuned=(40_000, 800_000))
        running._tree.write(running._claim.ownership, "state", "update_tuned_intervals")
        running.commit(changed(parameters, intervals=Intervals()))
        assert tree.committed(0)["contexts/0/monitoring_attrs/intervals/sample_us"] == "5000"


def test_a_refresh_of_the_kernel_never_meets_a_commit(
    tree: FakeDamonTree, slots: KdamondSlots, parameters: Kdamond
) -> None:
    """It would write the intervals of now over the new ones, just before they are taken in."""
    refreshing = replace(changed(parameters, intervals=Intervals(goal=GOAL)), refresh_interval_s=0.1)
    with control.start(refreshing, slots=slots) as running:
        tree.writes.clear()
        running.commit(changed(refreshing, intervals=Intervals(sampling_interval_s=0.01)))
        assert [text for path, text in tree.writes if path.endswith(("refresh_ms", "/sample_us", "state"))] == [
            *("0", "update_schemes_stats"),
            *("10000", "commit"),
            "100",
        ]
        tree.fail_next("commit", errno.EINVAL)
        with pytest.raises(KernelRefused):
            running.commit(refreshing)
        assert tree.read("0/refresh_ms") == "100"
        with pytest.raises(InvalidInput):
            running.commit(replace(refreshing, context=Context()))
        assert tree.read("0/refresh_ms") == "100"


@pytest.mark.parametrize("is_resting", [True, False])
def test_a_commit_that_an_old_kernel_would_never_answer_becomes_a_new_start(
    tmp_path: Path, parameters: Kdamond, is_resting: bool
) -> None:
    tree = FakeDamonTree(tmp_path / "old", release="6.12")
    slots = KdamondSlots(tree, registry=Registry(tmp_path / "registry"), modules=tmp_path)
    marks = KernelWatermarks(metric=KernelWatermarkMetric.FREE_MEM_RATE, interval_s=0.1, high_permil=500)
    with control.start(changed(parameters, schemes=(replace(ANYTHING, watermarks=marks),)), slots=slots) as running:
        tree.set_resting(is_resting)
        running.commit(parameters)
        assert running.is_running()
        assert tree.committed(0)["contexts/0/schemes/0/watermarks/metric"] == "none"
        assert [text for path, text in tree.writes if path == "0/state"] == [
            *("on", "commit"),
            *(["off", "on"] if is_resting else []),
        ]
        assert ["started again" in said for said in running.events] == [True] * is_resting


@pytest.mark.parametrize(("release", "times"), [("6.12", 2), ("6.14", 1)])
def test_nothing_tried_is_asked_again_on_old_kernels(
    tmp_path: Path, parameters: Kdamond, release: str, times: int
) -> None:
    tree = FakeDamonTree(tmp_path / "old", release=release)
    slots = KdamondSlots(tree, registry=Registry(tmp_path / "registry"), modules=tmp_path)
    with control.start(parameters, slots=slots) as running:
        assert running.tried_bytes() == (0,)
        assert [text for _, text in tree.writes].count("update_schemes_tried_bytes") == times
        tree.set_results(regions=[[0, 4096, 1, 1]])
        assert len(running.tried_regions()[0]) == 1
        assert [text for _, text in tree.writes].count("update_schemes_tried_regions") == 1


def test_goals_are_committed_alone(tree: FakeDamonTree, slots: KdamondSlots, parameters: Kdamond) -> None:
    quota = KernelQuota(goals=(KernelGoal(target_value=10_000),), reset_interval_s=0.1)
    with control.start(changed(parameters, schemes=(replace(ANYTHING, quota=quota),)), slots=slots) as running:
        tree.writes.clear()
        running.set_goal_values(0, [7_000])
        assert tree.writes == [
            ("0/contexts/0/schemes/0/quotas/goals/0/current_value", "7000"),
            ("0/state", "commit_schemes_quota_goals"),
        ]
        assert running.parameters.context.schemes[0].quota.goals[0].current_value == 7_000
        with pytest.raises(InvalidInput, match="something else than goals"):
            running.commit_goals(changed(running.parameters, max_nr_regions=77))
        with pytest.raises(ValueError, match="shorter"):
            running.set_goal_values(0, [])


def test_pause_and_resume(tree: FakeDamonTree, running: RunningKdamond) -> None:
    running.pause()
    assert tree.committed(0)["contexts/0/pause"] == "Y"
    running.resume()
    assert tree.committed(0)["contexts/0/pause"] == "N"


def test_results_are_read_in_bytes(tree: FakeDamonTree, slots: KdamondSlots) -> None:
    target = KernelTarget(regions=((0, 1 << 20),))
    context = Context(operations=Operations.PADDR, address_unit=4096, targets=(target,), schemes=(ANYTHING,))
    stats = {"nr_tried": 3, "sz_tried": 5, "nr_applied": 2, "sz_applied": 4, "qt_exceeds": 1, "nr_snapshots": 6}
    rows = [[0, 10, 20, 7], [10, 2**40, 0, 99]]
    tree.set_results(stats=stats, regions=rows, effective_bytes=256)
    with control.start(Kdamond(context=context), slots=slots) as running:
        (statistics,) = running.statistics()
        assert (statistics.nr_tried, statistics.tried_bytes, statistics.applied_bytes) == (3, 5 * 4096, 4 * 4096)
        assert (statistics.nr_quota_exceeded, statistics.nr_snapshots, statistics.filter_passed_bytes) == (1, 6, 0)
        assert running.tried_bytes() == (2**40 * 4096,)
        (regions,) = running.tried_regions()
        assert regions.start.tolist() == [0, 10 * 4096]
        assert regions.end.tolist() == [10 * 4096, 2**52]
        assert regions.nr_accesses.tolist() == [20, 0]
        assert regions.age_windows.tolist() == [7, 99]
        assert regions.probe_hits.shape == (2, 0)
        assert (regions.start.dtype, regions.age_windows.dtype) == (np.dtype(np.uint64), np.dtype(np.int64))
        assert regions.total_bytes == 2**52
        assert running.effective_quotas() == (256 * 4096,)
        running.clear_tried_regions()
        assert running.statistics(renew=False) == (statistics,)


def test_no_region_is_an_empty_table(running: RunningKdamond) -> None:
    (regions,) = running.tried_regions()
    assert (len(regions), regions.total_bytes) == (0, 0)


def test_many_regions_come_in_the_kernels_order(tree: FakeDamonTree, running: RunningKdamond) -> None:
    tree.set_results(regions=[[row * 4096, row * 4096 + 4096, 1, 1] for row in range(25)])
    (regions,) = running.tried_regions(schemes=[0])
    assert regions.start.tolist() == [row * 4096 for row in range(25)]


def test_a_kdamond_that_ended_though_its_target_lives_was_stopped(running: RunningKdamond, tree: FakeDamonTree) -> None:
    assert running.has_living_targets()
    tree.end(running.index)
    for ask in (running.statistics, lambda: running.commit(running.parameters)):
        with pytest.raises(HostCannot, match="kdamond 0 was stopped by somebody else"):
            ask()


def test_a_kdamond_that_ended_with_its_targets_says_so(running: RunningKdamond, child: Child) -> None:
    running.tried_bytes()
    child.end()
    for ask in (running.tried_regions, running.statistics, running.effective_quotas, running.tried_bytes):
        with pytest.raises(TargetGone, match="all targets of kdamond 0 have exited"):
            ask()
    assert not running.is_running()


def test_a_command_given_up_is_told_apart(tree: FakeDamonTree, running: RunningKdamond) -> None:
    tree.fail_next("update_schemes_tried_regions", errno.ECANCELED)
    with pytest.raises(CommandCanceled):
        running.tried_regions()
    assert running.tried_regions()


def test_one_that_we_stopped_says_so(running: RunningKdamond) -> None:
    running.stop()
    running.stop()
    with pytest.raises(InvalidInput, match="was stopped"):
        running.tried_bytes()


def test_physical_memory_stopped_by_another_says_so(tree: FakeDamonTree, slots: KdamondSlots) -> None:
    target = KernelTarget(regions=((0, 1 << 20),))
    context = Context(operations=Operations.PADDR, targets=(target,), schemes=(ANYTHING,))
    with control.start(Kdamond(context=context), slots=slots) as running:
        tree.end(0)
        with pytest.raises(HostCannot, match="stopped by somebody else"):
            running.statistics()


def test_a_module_that_came_meanwhile_is_named(
    tree: FakeDamonTree, slots: KdamondSlots, parameters: Kdamond, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memtherm.kdamond.control.layout.write", lambda *_: enable_module(slots))
    with pytest.raises(TargetBusy, match="DAMON_STAT"):
        control.start(parameters, slots=slots)
    assert tree.read("nr_kdamonds") == "0"


def enable_module(slots: KdamondSlots) -> None:
    folder = slots.modules / "damon_stat" / "parameters"
    folder.mkdir(parents=True)
    (folder / "enabled").write_text("Y")


def test_obsolete_targets_are_gone_after_the_commit(tree: FakeDamonTree, slots: KdamondSlots, child: Child) -> None:
    with Child() as other:
        targets = (KernelTarget(pid=child.pid), KernelTarget(pid=other.pid))
        parameters = Kdamond(context=Context(targets=targets, schemes=(ANYTHING,)))
        with control.start(parameters, slots=slots) as running:
            running.commit(changed(parameters, targets=(replace(targets[0], is_obsolete=True), targets[1])))
            assert tree.committed(0)["contexts/0/targets/0/obsolete_target"] == "Y"
            assert running.parameters.context.targets == targets[1:]
            assert layout.read(tree, "0/") == running.parameters
            with pytest.raises(InvalidInput, match="never there"):
                running.commit(changed(parameters, targets=(targets[1], replace(targets[0], is_obsolete=True))))


def test_a_filter_that_the_kernel_would_answer_with_enomem(running: RunningKdamond, parameters: Kdamond) -> None:
    gone = KernelFilter(kind=KernelFilterKind.MEMCG, memcg_path="/no/such/cgroup", matching=True)
    with pytest.raises(InvalidInput, match="cgroup"):
        running.commit(changed(parameters, schemes=(replace(ANYTHING, ops_filters=(gone,)),)))


def test_busy_states_are_waited_for(tree: FakeDamonTree, slots: KdamondSlots, parameters: Kdamond) -> None:
    waits: list[float] = []
    with control.start(parameters, slots=slots) as running, tree.locked():
        tree._sleep = waits.append
        tree._monotonic_s = lambda: sum(waits)
        with pytest.raises(TargetBusy):
            running.statistics()
        assert sum(waits) == pytest.approx(tree.patience.limit_s)
    assert slots.look().holder is Holder.FREE
