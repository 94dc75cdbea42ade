"""Against the kernel's own tree, in a guest: its files, and a kdamond that is started, changed, asked and stopped."""

import stat
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from memtherm.core.goals import Tuner
from memtherm.core.scheme import Action
from memtherm.errors import InvalidInput, NotSupported, TargetGone
from memtherm.kdamond import control, layout
from memtherm.kdamond import features as kernel_features
from memtherm.kdamond.features import Feature, KernelFeatures
from memtherm.kdamond.ownership import Holder, KdamondSlots
from memtherm.kdamond.parameters import (
    ANY_BOUNDS,
    Context,
    Intervals,
    IntervalsGoal,
    Kdamond,
    KernelBounds,
    KernelDestination,
    KernelFilter,
    KernelFilterKind,
    KernelGoal,
    KernelMetric,
    KernelQuota,
    KernelScheme,
    KernelTarget,
    KernelWatermarkMetric,
    KernelWatermarks,
    Operations,
)
from memtherm.kdamond.tree import CommandCanceled, KernelRefused, Ownership
from support.children import Child
from support.fake_damon import RELEASES, FakeDamonTree

MIB = 1 << 20
ANYTHING = KernelScheme(size_bytes=ANY_BOUNDS, nr_accesses=ANY_BOUNDS, age_windows=ANY_BOUNDS)


@pytest.fixture
def child() -> Iterator[Child]:
    with Child() as one:
        one.write(one.map(16 * MIB), 16 * MIB // 4096)
        yield one


def watching(pid: int, *schemes: KernelScheme, intervals: Intervals | None = None) -> Kdamond:
    return Kdamond(
        context=Context(targets=(KernelTarget(pid=pid),), schemes=schemes, intervals=intervals or Intervals())
    )


def changed(parameters: Kdamond, **values: Any) -> Kdamond:
    return replace(parameters, context=replace(parameters.context, **values))


def full(pid: int, features: KernelFeatures) -> Kdamond:
    """Everything at once that this kernel has, with values that are no defaults."""
    has = features.has
    goal = IntervalsGoal(access_bp=400, windows=3, min_sampling_interval_s=0.005, max_sampling_interval_s=10.0)
    node_goal = KernelGoal(metric=KernelMetric.NODE_MEM_USED_BP, target_value=9950, node=1)
    destinations = (KernelDestination(node=1, weight=30), KernelDestination(node=0, weight=70))
    scheme = KernelScheme(
        action=Action.STAT,
        size_bytes=KernelBounds(1024, 4096),
        nr_accesses=KernelBounds(3, 317),
        age_windows=KernelBounds(5, 71),
        apply_interval_s=1.0,
        target_node=1,
        quota=KernelQuota(
            time_s=0.1,
            size_bytes=100 * MIB,
            reset_interval_s=1.5,
            size_permil=20,
            nr_accesses_permil=200,
            age_permil=1000,
            goals=(node_goal if has(Feature.NODE_GOALS) else KernelGoal(target_value=10_000, current_value=3),),
            tuner=Tuner.TEMPORAL if has(Feature.GOAL_TUNER) else Tuner.CONSIST,
            fail_charge_numerator=1 if has(Feature.FAIL_CHARGE) else 0,
            fail_charge_denominator=4096 if has(Feature.FAIL_CHARGE) else 0,
        ),
        watermarks=KernelWatermarks(
            metric=KernelWatermarkMetric.FREE_MEM_RATE, interval_s=0.5, high_permil=500, mid_permil=400, low_permil=50
        ),
        core_filters=(KernelFilter(kind=KernelFilterKind.ADDR, start=42, end=4242, matching=True),),
        ops_filters=(KernelFilter(allow=True, matching=True),) if has(Feature.DESTINATIONS) else (),
        destinations=destinations if has(Feature.DESTINATIONS) else (),
        max_nr_snapshots=0,
    )
    intervals = Intervals(
        sampling_interval_s=0.1,
        aggregation_interval_s=2.0,
        regions_update_interval_s=2.0,
        goal=goal if has(Feature.INTERVALS_GOAL) else IntervalsGoal(),
    )
    return Kdamond(
        context=Context(
            targets=(KernelTarget(pid=pid, regions=((4096, 8192), (16384, 65536))),),
            schemes=(scheme,),
            intervals=intervals,
            min_nr_regions=20,
            max_nr_regions=500,
        ),
        refresh_interval_s=0.25 if has(Feature.REFRESH) else 0.0,
    )


def ask_on(running: control.RunningKdamond) -> None:
    for _ in range(100):
        running.tried_bytes()


def shape_of(folder: Path) -> dict[str, tuple[str, str]]:
    """Path → mode and text of every file."""
    return {
        str(path.relative_to(folder)): (oct(stat.S_IMODE(path.stat().st_mode)), path.read_text().strip())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_free_tree_is_free_again_afterwards(slots: KdamondSlots) -> None:
    assert slots.look().holder is Holder.FREE
    with slots.claim() as claim:
        assert slots.look().holder is Holder.OURS
        assert [one.index for one in slots.look().kdamonds] == [0, 1, 2]
        assert claim.index == 0
    assert slots.look().holder is Holder.FREE
    assert slots.tree.numbered("") == []


def test_our_fake_has_the_files_modes_and_defaults_of_the_kernel(slots: KdamondSlots, tmp_path: Path) -> None:
    with slots.claim() as claim:
        kernel_features.unfold(slots.tree, claim.ownership)
        features = kernel_features.look(slots.tree, owner=claim.ownership)
        real = shape_of(slots.tree.kdamonds / "0")
    release = max((kernel_features.since(one) for one in features.present), key=RELEASES.index)
    fake = FakeDamonTree(tmp_path / "fake", release=release)
    fake.rewrite(1)
    owner = Ownership(fake, "0")
    kernel_features.unfold(fake, owner)
    imitated = kernel_features.look(fake, owner=owner)
    owner.close()
    assert imitated.present == features.present
    assert shape_of(fake.kdamonds / "0") == real


def test_every_keyword_that_features_promise_is_taken(slots: KdamondSlots) -> None:
    with slots.claim() as claim:
        tree, owner = slots.tree, claim.ownership
        kernel_features.unfold(tree, owner)
        features = kernel_features.look(tree, owner=owner)
        scheme = "contexts/0/schemes/0"
        groups = ("core_filters", "ops_filters") if features.has(Feature.FILTER_GROUPS) else ("filters",)
        for group in groups:
            tree.write(owner, f"{scheme}/{group}/nr_filters", "1")
        words: list[tuple[str, Action | KernelFilterKind | KernelMetric]]
        words = [(f"{scheme}/action", action) for action in Action]
        words += [(f"{scheme}/quotas/goals/0/target_metric", metric) for metric in KernelMetric]
        words += [(f"{scheme}/{groups[0] if kind.is_core else groups[-1]}/0/type", kind) for kind in KernelFilterKind]
        for path, word in words:
            feature = kernel_features.feature_of(word)
            if feature is None or features.has(feature):
                tree.write(owner, path, word.value)
                assert tree.read(path, owner=owner) == word.value
            else:
                with pytest.raises(KernelRefused):
                    tree.write(owner, path, word.value)


def test_all_parameters_are_read_back(slots: KdamondSlots, child: Child) -> None:
    small = watching(child.pid)
    with control.start(small, slots=slots) as running:
        everything = full(child.pid, running.features)
        assert running.is_running()
        running.commit(everything)
        assert layout.read(slots.tree, f"{running.index}/") == everything
        running.commit(small)
        assert layout.read(slots.tree, f"{running.index}/") == small
        assert running.is_running()
    assert slots.look().holder is Holder.FREE


def test_a_commit_of_the_same_leaves_everything_as_it_is(slots: KdamondSlots, child: Child) -> None:
    parameters = watching(child.pid, ANYTHING)
    with control.start(parameters, slots=slots) as running:
        before = shape_of(slots.tree.kdamonds / "0" / "contexts")
        for _ in range(3):
            running.commit(parameters)
        assert shape_of(slots.tree.kdamonds / "0" / "contexts") == before
        assert running.is_running()


def test_statistics_tried_bytes_and_regions_agree(slots: KdamondSlots, child: Child) -> None:
    with control.start(watching(child.pid, ANYTHING), slots=slots) as running:
        (regions,) = running.tried_regions()
        assert len(regions) >= 10
        assert regions.total_bytes >= 16 * MIB
        assert (regions.end > regions.start).all()
        assert (regions.start[1:] >= regions.end[:-1]).all()
        assert (regions.nr_accesses <= 20).all()
        (total,) = running.tried_bytes()
        assert total == regions.total_bytes
        (statistics,) = running.statistics()
        assert statistics.nr_tried >= 2 * len(regions) // 2
        assert statistics.tried_bytes >= 2 * total
        assert statistics.nr_quota_exceeded == 0
        running.clear_tried_regions()
        assert slots.tree.numbered("0/contexts/0/schemes/0/tried_regions") == []


def test_a_commit_is_taken_while_all_schemes_rest(slots: KdamondSlots, child: Child) -> None:
    """6.12 waits for ever: there the kdamond is started again."""
    marks = KernelWatermarks(
        metric=KernelWatermarkMetric.FREE_MEM_RATE, interval_s=0.2, high_permil=2, mid_permil=1, low_permil=1
    )
    with control.start(watching(child.pid, replace(ANYTHING, watermarks=marks)), slots=slots) as running:
        awake = watching(child.pid, ANYTHING)
        running.commit(awake)
        assert running.is_running()
        assert layout.read(slots.tree, "0/") == awake
        is_old = running.features.has(Feature.ALLOW_FILTERS) is False
        assert not running.events or is_old


def test_effective_quotas_follow_goals(slots: KdamondSlots, child: Child) -> None:
    goal = KernelGoal(target_value=10_000, current_value=0)
    quota = KernelQuota(reset_interval_s=0.1, goals=(goal,))
    with control.start(watching(child.pid, replace(ANYTHING, quota=quota)), slots=slots) as running:
        sizes = [0]
        for _ in range(6):
            running.tried_bytes()  # an apply has passed
            sizes += running.effective_quotas()
        assert sizes[-1] > sizes[1], "short of the goal it grows"
        running.set_goal_values(0, [19_000])
        for _ in range(6):
            running.tried_bytes()
        assert running.effective_quotas()[0] < sizes[-1], "beyond the goal it shrinks"


def test_refresh_renews_files_without_commands(slots: KdamondSlots, child: Child) -> None:
    parameters = replace(watching(child.pid, ANYTHING), refresh_interval_s=0.1)
    try:
        running = control.start(parameters, slots=slots)
    except NotSupported as lacks:
        pytest.skip(str(lacks))
    with running:
        ends_s = time.monotonic() + 20
        # No command meanwhile: the kernel leaves out a refresh that finds its lock held.
        while not (nr_tried := running.statistics(renew=False)[0].nr_tried) and time.monotonic() < ends_s:
            time.sleep(0.2)
        assert nr_tried > 0


def test_tuned_intervals_survive_a_commit(slots: KdamondSlots, child: Child) -> None:
    goal = IntervalsGoal(access_bp=10_000, windows=1, min_sampling_interval_s=0.001, max_sampling_interval_s=0.5)
    parameters = watching(child.pid, ANYTHING, intervals=Intervals(goal=goal))
    try:
        running = control.start(parameters, slots=slots)
    except NotSupported as lacks:
        pytest.skip(str(lacks))
    with running:
        for _ in range(4):
            running.tried_bytes()
        tuned = running.tuned_intervals()
        assert tuned.sampling_interval_s > 0.005
        running.commit(changed(parameters, max_nr_regions=500))
        kept = layout.read_intervals(slots.tree, running._claim.ownership)
        assert kept.sampling_interval_s >= tuned.sampling_interval_s
        running.commit(changed(parameters, intervals=Intervals()))
        assert running.tuned_intervals().sampling_interval_s == 0.005


def test_pause_and_resume(slots: KdamondSlots, child: Child) -> None:
    with control.start(watching(child.pid, ANYTHING), slots=slots) as running:
        if not running.features.has(Feature.PAUSE):
            with pytest.raises(NotSupported, match="pause"):
                running.pause()
            return
        running.pause()
        with pytest.raises(CommandCanceled):
            running.tried_bytes()
        assert running.is_running()
        running.resume()
        assert running.tried_bytes()[0] > 0


def test_a_kdamond_without_schemes_has_tried_nothing(slots: KdamondSlots, child: Child) -> None:
    with control.start(watching(child.pid), slots=slots) as running:
        assert running.statistics() == ()
        assert running.tried_regions() == ()
        assert running.tried_bytes() == ()


def test_targets_that_exit_end_it(slots: KdamondSlots) -> None:
    with Child() as child, control.start(watching(child.pid, ANYTHING), slots=slots) as running:
        running.tried_bytes()
        child.end()
        with pytest.raises(TargetGone, match="exited"):
            ask_on(running)
        assert running.thread() is None


def test_nothing_that_fits_does_not_hang_when_the_target_exits(slots: KdamondSlots) -> None:
    none = replace(ANYTHING, nr_accesses=KernelBounds(200, 200))
    with Child() as child, control.start(watching(child.pid, none), slots=slots) as running:
        assert running.tried_bytes() == (0,)
        child.end()
        with pytest.raises(TargetGone):
            ask_on(running)


def test_an_obsolete_target_is_forgotten(slots: KdamondSlots) -> None:
    with Child() as first, Child() as second, Child() as third:
        targets = tuple(KernelTarget(pid=one.pid) for one in (first, second, third))
        parameters = Kdamond(context=Context(targets=targets, schemes=(ANYTHING,)))
        with control.start(parameters, slots=slots) as running:
            without = (targets[0], replace(targets[1], is_obsolete=True), targets[2])
            if not running.features.has(Feature.OBSOLETE_TARGET):
                with pytest.raises(NotSupported, match="obsolete_target"):
                    running.commit(changed(parameters, targets=without))
                return
            running.commit(changed(parameters, targets=without))
            assert running.parameters.context.targets == (targets[0], targets[2])
            assert layout.read(slots.tree, "0/") == running.parameters
            second.end()
            assert running.tried_bytes()[0] > 0


def test_physical_memory(slots: KdamondSlots) -> None:
    target = KernelTarget(regions=((256 * MIB, 512 * MIB),))
    context = Context(operations=Operations.PADDR, targets=(target,), schemes=(ANYTHING,))
    with control.start(Kdamond(context=context), slots=slots) as running:
        (regions,) = running.tried_regions()
        assert (int(regions.start[0]), int(regions.end[-1])) == (256 * MIB, 512 * MIB)
        running.stop()
        with pytest.raises(InvalidInput, match="was stopped"):
            running.statistics()
        assert running.statistics(renew=False)[0].nr_tried >= 0


def test_a_refused_commit_leaves_the_files_as_they_were(slots: KdamondSlots, child: Child) -> None:
    parameters = watching(child.pid, ANYTHING)
    with control.start(parameters, slots=slots) as running:
        gone = KernelFilter(kind=KernelFilterKind.MEMCG, memcg_path="/no/such/group", matching=True)
        with pytest.raises((InvalidInput, NotSupported)):
            running.commit(watching(child.pid, replace(ANYTHING, ops_filters=(gone,))))
        assert layout.read(slots.tree, "0/") == parameters
        assert running.is_running()
        assert running.tried_bytes()[0] > 0


def test_enomem_of_the_kernel_is_an_input_error(slots: KdamondSlots, child: Child) -> None:
    with slots.claim() as claim:
        tree, owner = slots.tree, claim.ownership
        kernel_features.unfold(tree, owner)
        tree.write(owner, "contexts/0/targets/0/pid_target", str(child.pid))
        groups = "core_filters" if tree.has("contexts/0/schemes/0/core_filters", owner=owner) else "filters"
        base = f"contexts/0/schemes/0/{groups}"
        tree.write(owner, f"{base}/nr_filters", "1")
        for name, text in (("type", "addr"), ("addr_start", "8192"), ("addr_end", "4096")):
            tree.write(owner, f"{base}/0/{name}", text)
        with pytest.raises(KernelRefused, match="cannot build a scheme"):
            tree.write(owner, "state", "on")
