"""The kernel's own selftests of DAMON's files, done again through ours (damon-spec §6.4).

Of sysfs.sh, sysfs.py, memcg_path_leak and update_removed_scheme_dir.  The names, modes and defaults of all files, every
keyword, no_op_commit and obsolete targets are in test_real_tree.py; reclaim.sh and lru_sort.sh in test_modules.py.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from kdamond.guest.areas import MIB, Areas
from memtherm.errors import MemthermError, NotSupported
from memtherm.kdamond import control
from memtherm.kdamond import features as kernel_features
from memtherm.kdamond.features import Feature
from memtherm.kdamond.ownership import Claim, Holder, KdamondSlots
from memtherm.kdamond.parameters import (
    ANY_BOUNDS,
    Context,
    Intervals,
    Kdamond,
    KernelFilter,
    KernelFilterKind,
    KernelQuota,
    KernelScheme,
    KernelTarget,
)
from memtherm.kdamond.registry import Registry
from memtherm.kdamond.tree import DamonTree, KernelRefused, Ownership

CONTEXT = "contexts/0"
SCHEME = f"{CONTEXT}/schemes/0"
ATTRIBUTES = f"{CONTEXT}/monitoring_attrs"
ANYTHING = KernelScheme(size_bytes=ANY_BOUNDS, nr_accesses=ANY_BOUNDS, age_windows=ANY_BOUNDS)
LISTS = (
    f"{CONTEXT}/targets/nr_targets",
    f"{CONTEXT}/targets/0/regions/nr_regions",
    f"{CONTEXT}/schemes/nr_schemes",
    f"{SCHEME}/quotas/goals/nr_goals",
    f"{SCHEME}/filters/nr_filters",
    f"{SCHEME}/core_filters/nr_filters",
    f"{SCHEME}/ops_filters/nr_filters",
    f"{SCHEME}/dests/nr_dests",
    f"{ATTRIBUTES}/probes/nr_probes",
    f"{ATTRIBUTES}/probes/0/filters/nr_filters",
)
# Below a kdamond whose lists hold one each; where a kernel has no such file, there is nothing to refuse.
REFUSED = (
    ("state", "foo"),
    ("contexts/nr_contexts", "2"),
    ("contexts/nr_contexts", "-1"),
    (f"{CONTEXT}/operations", "foo"),
    (f"{CONTEXT}/pause", "maybe"),
    (f"{ATTRIBUTES}/intervals/sample_us", "-1"),
    (f"{ATTRIBUTES}/intervals/aggr_us", "foo"),
    (f"{ATTRIBUTES}/probes/nr_probes", "5"),
    (f"{CONTEXT}/targets/nr_targets", "-1"),
    (f"{CONTEXT}/targets/0/pid_target", "foo"),
    (f"{SCHEME}/action", "foo"),
    (f"{SCHEME}/access_pattern/age/min", "foo"),
    (f"{SCHEME}/quotas/goal_tuner", "foo"),
    (f"{SCHEME}/quotas/goals/0/target_metric", "foo"),
    (f"{SCHEME}/quotas/weights/age_permil", "4294967296"),
    (f"{SCHEME}/watermarks/metric", "foo"),
    (f"{SCHEME}/filters/0/type", "foo"),
    (f"{SCHEME}/filters/0/matching", "maybe"),
    *((f"{SCHEME}/core_filters/0/type", word) for word in ("foo", "anon", "memcg", "young")),
    *((f"{SCHEME}/ops_filters/0/type", word) for word in ("foo", "addr", "target")),
)


@pytest.fixture(autouse=True)
def _kernel_warns_of_nothing() -> Iterator[None]:
    """A warning or worse of the kernel leaves a mark."""
    mark = Path("/proc/sys/kernel/tainted")
    before = mark.read_text()
    yield
    assert mark.read_text() == before, "see dmesg"


@pytest.fixture
def claim(slots: KdamondSlots) -> Iterator[Claim]:
    """A kdamond in which each list holds one."""
    with slots.claim() as claim:
        unfold(claim.tree, claim.ownership)
        yield claim


def unfold(tree: DamonTree, owner: Ownership) -> None:
    kernel_features.unfold(tree, owner)
    for group in ("filters", "core_filters", "ops_filters"):
        if tree.has(f"{SCHEME}/{group}", owner=owner):
            tree.write(owner, f"{SCHEME}/{group}/nr_filters", "1")


@pytest.mark.parametrize("count", [1, 2])
def test_as_many_kdamonds_as_asked_for(slots: KdamondSlots, tmp_path: Path, count: int) -> None:
    some = KdamondSlots(registry=Registry(tmp_path / "some"), nr_slots=count)
    with some.claim():
        assert some.tree.numbered("") == list(range(count))
    assert slots.look().holder is Holder.FREE


def test_lists_make_and_remove_directories(claim: Claim) -> None:
    tree, owner = claim.tree, claim.ownership
    there = [path for path in LISTS if tree.has(path, owner=owner)]
    assert len(there) >= 5
    for path in there:
        for count in (1, 2, 0):
            tree.write(owner, path, str(count))
            assert tree.read_number(path, owner=owner) == count
            assert tree.numbered(path.rpartition("/")[0], owner=owner) == list(range(count)), path
        tree.write(owner, path, "1")


def test_what_the_kernel_does_not_know_is_refused_in_words(claim: Claim) -> None:
    tree, owner = claim.tree, claim.ownership
    refused = [(path, word) for path, word in REFUSED if tree.has(path, owner=owner)]
    assert len(refused) >= 14
    for path, word in refused:
        before = tree.read(path, owner=owner)
        said = answer(tree, owner, path, word)
        assert word in said, (path, word, said)
        assert path in said or "command" in said, (path, word, said)
        assert tree.read(path, owner=owner) == before


def answer(tree: DamonTree, owner: Ownership, path: str, word: str) -> str:
    """Of the kernel in our words; empty where it takes the word."""
    try:
        tree.write(owner, path, word)
    except KernelRefused as error:
        return error.message
    return ""


def test_paths_of_cgroups_are_read_back_and_leak_nothing(claim: Claim) -> None:
    """Each path of 3000 characters needs an object of 4 KiB, which the kernel counts."""
    tree, owner = claim.tree, claim.ownership
    group = "ops_filters" if tree.has(f"{SCHEME}/ops_filters", owner=owner) else "filters"
    paths = [f"{SCHEME}/{group}/0/memcg_path", f"{SCHEME}/quotas/goals/0/path"]
    for path in paths:
        if not tree.has(path, owner=owner):
            continue
        before = objects("kmalloc-4k")
        for number in range(512):
            text = f"/{number % 10}" + "x" * 3000
            tree.write(owner, path, text)
        assert tree.read(path, owner=owner) == text
        assert objects("kmalloc-4k") - before < 256, path


def objects(cache: str) -> int:
    """How many objects of a cache are in use, give or take what each processor keeps."""
    lines = Path("/proc/slabinfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{cache} "))


def test_commands_after_the_schemes_directories_were_removed(slots: KdamondSlots) -> None:
    with Areas(1, size_bytes=MIB, hot=[0]) as areas:
        parameters = Kdamond(context=Context(targets=(KernelTarget(pid=areas.pid),), schemes=(ANYTHING,)))
        with control.start(parameters, slots=slots) as running:
            assert running.tried_bytes()[0] > 0
            slots.tree.write(running._claim.ownership, f"{CONTEXT}/schemes/nr_schemes", "0")
            # The kernel's thread still has the scheme.
            for word in ("stats", "tried_bytes", "tried_regions", "effective_quotas"):
                slots.tree.write(running._claim.ownership, "state", f"update_schemes_{word}")
            slots.tree.write(running._claim.ownership, "state", "clear_schemes_tried_regions")
            with pytest.raises(NotSupported):
                running.statistics()
            assert running.is_running()
    assert slots.look().holder is Holder.FREE


def test_what_is_committed_reaches_the_kernels_thread_and_can_be_taken_back(slots: KdamondSlots) -> None:
    with Areas(4, size_bytes=2 * MIB, hot=[0]) as areas:
        start, end = areas.starts[1], areas.starts[2]
        target = KernelTarget(pid=areas.pid)
        small = Kdamond(context=Context(targets=(target,), schemes=(ANYTHING,)))
        one_area = KernelFilter(kind=KernelFilterKind.ADDR, start=start, end=end, matching=False)
        limited = KernelScheme(
            size_bytes=ANY_BOUNDS,
            nr_accesses=ANY_BOUNDS,
            age_windows=ANY_BOUNDS,
            apply_interval_s=0.2,
            quota=KernelQuota(size_bytes=MIB // 2, reset_interval_s=0.1),
            core_filters=(one_area,),
        )
        intervals = Intervals(sampling_interval_s=0.01, aggregation_interval_s=0.1, regions_update_interval_s=2.0)
        large = Kdamond(
            context=Context(
                targets=(target,), schemes=(limited,), intervals=intervals, min_nr_regions=20, max_nr_regions=500
            ),
        )
        with control.start(small, slots=slots) as running:
            assert running.tried_bytes()[0] >= 8 * MIB
            running.commit(large)
            tuned = committed_intervals(running)
            assert tuned in (None, intervals)
            for _ in range(10):  # the first charge window may have no limit
                (regions,) = running.tried_regions()
                if len(regions) and regions.total_bytes <= MIB // 2:
                    break
            assert running.effective_quotas() == (MIB // 2,)
            assert 0 < regions.total_bytes <= MIB // 2
            assert start <= int(regions.start[0])
            assert int(regions.end[-1]) <= end
            running.commit(small)
            assert committed_intervals(running) in (None, Intervals())
            # The first apply goes on from where the quota had ended.
            sizes = [running.tried_bytes()[0] for _ in range(5)]
            assert max(sizes) >= 8 * MIB, sizes


def committed_intervals(running: control.RunningKdamond) -> Intervals | None:
    """As the kernel's thread has them; None where a kernel does not tell."""
    if not running.features.has(Feature.INTERVALS_GOAL):
        with pytest.raises(MemthermError):
            running.tuned_intervals()
        return None
    return running.tuned_intervals()
