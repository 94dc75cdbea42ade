import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings

from kdamond.strategies import kdamonds
from memtherm.core.scheme import Action
from memtherm.errors import NotSupported
from memtherm.kdamond import features as kernel_features
from memtherm.kdamond import layout
from memtherm.kdamond.features import Feature, KernelFeatures
from memtherm.kdamond.parameters import (
    ANY_BOUNDS,
    Context,
    Intervals,
    IntervalsGoal,
    Kdamond,
    KernelDestination,
    KernelFilter,
    KernelFilterKind,
    KernelGoal,
    KernelMetric,
    KernelProbe,
    KernelQuota,
    KernelScheme,
    KernelTarget,
    Operations,
)
from memtherm.kdamond.tree import Ownership
from support.fake_damon import FakeDamonTree


@contextmanager
def fresh_kdamond(release: str = "7.3") -> Iterator[tuple[FakeDamonTree, Ownership, KernelFeatures]]:
    """One kdamond directory that is ours, and what the kernel shows that it can do."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        tree = FakeDamonTree(Path(folder), release=release)
        tree.rewrite(1)
        owner = Ownership(tree, "0")
        yield tree, owner, features_of(release)
        owner.close()


@cache
def features_of(release: str) -> KernelFeatures:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        tree = FakeDamonTree(Path(folder), release=release)
        tree.rewrite(1)
        owner = Ownership(tree, "0")
        kernel_features.unfold(tree, owner)
        features = kernel_features.look(tree, owner=owner)
        owner.close()
        return features


def with_scheme(scheme: KernelScheme, operations: Operations = Operations.VADDR) -> Kdamond:
    return Kdamond(context=Context(operations=operations, targets=(KernelTarget(pid=1),), schemes=(scheme,)))


@given(first=kdamonds(), second=kdamonds())
@settings(max_examples=12, deadline=None)
def test_what_is_written_is_read_back(first: Kdamond, second: Kdamond) -> None:
    with fresh_kdamond() as (tree, owner, features):
        written: dict[str, str] = {}
        layout.write(tree, owner, layout.entries(first, features), written)
        assert layout.read(tree, owner=owner) == first
        layout.write(tree, owner, layout.entries(second, features), written)
        assert layout.read(tree, owner=owner) == second


@given(parameters=kdamonds())
@settings(max_examples=8, deadline=None)
def test_the_same_again_writes_nothing(parameters: Kdamond) -> None:
    with fresh_kdamond() as (tree, owner, features):
        written: dict[str, str] = {}
        layout.write(tree, owner, layout.entries(parameters, features), written)
        tree.writes.clear()
        layout.write(tree, owner, layout.entries(layout.read(tree, owner=owner), features), written)
        assert tree.writes == []


def test_defaults_are_those_of_a_fresh_directory() -> None:
    full = KernelScheme(quota=KernelQuota(goals=(KernelGoal(),)), ops_filters=(KernelFilter(),))
    context = Context(targets=(KernelTarget(),), schemes=(full,))
    with fresh_kdamond() as (tree, owner, features):
        layout.write(tree, owner, layout.entries(Kdamond(context=context), features), {})
        # Only numbers of directories had to be written.
        later = tree.writes
        assert all(Path(path).name.startswith("nr_") for path, _ in later)
        assert layout.read(tree, owner=owner) == Kdamond(context=context)


def test_lists_are_made_before_what_is_in_them() -> None:
    two = KernelFilter(kind=KernelFilterKind.MEMCG, memcg_path="/a", matching=True)
    scheme = KernelScheme(ops_filters=(two, two), quota=KernelQuota(goals=(KernelGoal(target_value=3),)))
    with fresh_kdamond() as (tree, owner, features):
        tree.writes.clear()
        layout.write(tree, owner, layout.entries(with_scheme(scheme), features), {})
        paths = [path for path, _ in tree.writes]
        for place, path in enumerate(paths):
            folder = Path(path).parent
            for count in (f"{folder.parent}/nr_{folder.parent.name}", f"{folder.parent}/nr_filters"):
                assert count not in paths[place:], f"{count} after {path}"


def test_an_empty_path_replaces_a_path() -> None:
    one = KernelFilter(kind=KernelFilterKind.MEMCG, memcg_path="/a")
    with fresh_kdamond() as (tree, owner, features):
        written: dict[str, str] = {}
        for filters in ((one,), (KernelFilter(),)):
            parameters = with_scheme(KernelScheme(ops_filters=filters))
            layout.write(tree, owner, layout.entries(parameters, features), written)
            assert layout.read(tree, owner=owner) == parameters


def test_no_bound_is_the_largest_number() -> None:
    scheme = KernelScheme(size_bytes=ANY_BOUNDS, nr_accesses=ANY_BOUNDS, age_windows=ANY_BOUNDS)
    with fresh_kdamond() as (tree, owner, features):
        layout.write(tree, owner, layout.entries(with_scheme(scheme), features), {})
        pattern = "contexts/0/schemes/0/access_pattern"
        assert tree.read(f"{pattern}/sz/max", owner=owner) == str(2**64 - 1)
        assert tree.read(f"{pattern}/age/max", owner=owner) == str(2**32 - 1)


def test_sizes_are_counted_in_address_units() -> None:
    scheme = KernelScheme(
        size_bytes=ANY_BOUNDS,
        quota=KernelQuota(size_bytes=8 << 20),
        core_filters=(KernelFilter(kind=KernelFilterKind.ADDR, start=1 << 20, end=2 << 20),),
    )
    target = KernelTarget(regions=((1 << 33, 1 << 34),))
    context = Context(operations=Operations.PADDR, address_unit=4096, targets=(target,), schemes=(scheme,))
    with fresh_kdamond() as (tree, owner, features):
        layout.write(tree, owner, layout.entries(Kdamond(context=context), features), {})
        assert tree.read("contexts/0/targets/0/regions/0/end", owner=owner) == str((1 << 34) // 4096)
        assert tree.read("contexts/0/schemes/0/quotas/bytes", owner=owner) == "2048"
        assert tree.read("contexts/0/schemes/0/core_filters/0/addr_start", owner=owner) == "256"


OLD = [
    (KernelScheme(action=Action.COLLAPSE), Operations.VADDR, "action collapse", "7.2"),
    (KernelScheme(action=Action.MIGRATE_COLD, target_node=1), Operations.VADDR, "action migrate_cold", "6.17"),
    (KernelScheme(destinations=(KernelDestination(node=1, weight=1),)), Operations.VADDR, "destinations", "6.17"),
    (KernelScheme(max_nr_snapshots=3), Operations.VADDR, "max_nr_snapshots", "7.0"),
    (KernelScheme(ops_filters=(KernelFilter(allow=True),)), Operations.PADDR, "filters that allow", "6.14"),
    (KernelScheme(ops_filters=(KernelFilter(),)), Operations.VADDR, "filters by page for processes", "6.17"),
    (
        KernelScheme(ops_filters=(KernelFilter(kind=KernelFilterKind.UNMAPPED),)),
        Operations.PADDR,
        "filter unmapped",
        "6.15",
    ),
    (
        KernelScheme(quota=KernelQuota(goals=(KernelGoal(metric=KernelMetric.ACTIVE_MEM_BP, target_value=1),))),
        Operations.VADDR,
        "metric active_mem_bp",
        "7.0",
    ),
    (KernelScheme(quota=KernelQuota(fail_charge_denominator=3)), Operations.VADDR, "fail_charge", "7.2"),
]


@pytest.mark.parametrize(("scheme", "operations", "name", "since"), OLD)
def test_what_an_older_kernel_lacks_is_named_before_anything_is_written(
    scheme: KernelScheme, operations: Operations, name: str, since: str
) -> None:
    with fresh_kdamond("6.12") as (tree, _, features):
        tree.writes.clear()
        with pytest.raises(NotSupported, match=name) as problem:
            layout.entries(with_scheme(scheme, operations), features)
        assert problem.value.hint == f"it came with Linux {since}"
        assert tree.writes == []


def test_attributes_that_an_older_kernel_lacks_are_named() -> None:
    goal = IntervalsGoal(access_bp=400, windows=3, min_sampling_interval_s=0.005, max_sampling_interval_s=10)
    lacked = [
        (Kdamond(refresh_interval_s=1), "refresh_ms"),
        (Kdamond(context=Context(is_paused=True)), "pause"),
        (Kdamond(context=Context(operations=Operations.PADDR, address_unit=4096)), "addr_unit"),
        (Kdamond(context=Context(operations=Operations.PADDR, probes=(KernelProbe(),))), "attribute probes"),
        (Kdamond(context=Context(intervals=Intervals(goal=goal))), "intervals that tune themselves"),
        (Kdamond(context=Context(targets=(KernelTarget(is_obsolete=True),))), "obsolete_target"),
    ]
    with fresh_kdamond("6.12") as (_, _, features):
        for parameters, name in lacked:
            with pytest.raises(NotSupported, match=name):
                layout.entries(parameters, features)


def test_an_unknown_keyword_is_not_supported_even_if_nothing_told_before() -> None:
    parameters = with_scheme(KernelScheme(action=Action.COLLAPSE))
    with fresh_kdamond("6.18") as (tree, owner, _), pytest.raises(NotSupported, match="action collapse"):
        layout.write(tree, owner, layout.entries(parameters, KernelFeatures()), {})


@pytest.mark.parametrize("release", ["6.6", "6.8", "6.12", "6.14"])
def test_old_kernels_have_one_list_of_filters(release: str) -> None:
    filters = (KernelFilter(kind=KernelFilterKind.ADDR, start=4096, end=8192),), (KernelFilter(matching=True),)
    scheme = KernelScheme(core_filters=filters[0], ops_filters=filters[1])
    parameters = with_scheme(scheme, Operations.PADDR)
    with fresh_kdamond(release) as (tree, owner, features):
        layout.write(tree, owner, layout.entries(parameters, features), {})
        assert tree.read("contexts/0/schemes/0/filters/nr_filters", owner=owner) == "2"
        assert layout.read(tree, owner=owner) == parameters


@pytest.mark.parametrize("release", ["6.8", "6.9", "6.12", "6.16"])
def test_goals_of_old_kernels(release: str) -> None:
    goal = KernelGoal(target_value=10_000, current_value=5_000)
    parameters = with_scheme(KernelScheme(quota=KernelQuota(goals=(goal,), reset_interval_s=1)))
    with fresh_kdamond(release) as (tree, owner, features):
        layout.write(tree, owner, layout.entries(parameters, features), {})
        assert layout.read(tree, owner=owner) == parameters


def test_operations_that_are_not_built_in_are_refused() -> None:
    features = KernelFeatures(operations=frozenset({Operations.PADDR}))
    with pytest.raises(NotSupported, match="built without vaddr"):
        layout.entries(Kdamond(), features)
    assert layout.entries(Kdamond(context=Context(operations=Operations.PADDR)), features)


def test_a_part_that_was_rewritten_is_written_whole() -> None:
    """nr_schemes makes fresh directories: what was equal before must be written again."""
    scheme = KernelScheme(action=Action.COLD, age_windows=ANY_BOUNDS)
    one = with_scheme(scheme)
    two = replace(one, context=replace(one.context, schemes=(scheme, scheme)))
    with fresh_kdamond() as (tree, owner, features):
        written: dict[str, str] = {}
        for parameters in (one, two, one):
            layout.write(tree, owner, layout.entries(parameters, features), written)
            assert layout.read(tree, owner=owner) == parameters


def test_features_of_each_keyword_are_known() -> None:
    for value in (*Action, *KernelFilterKind, *KernelMetric):
        feature = kernel_features.feature_of(value)
        assert feature is None or feature in Feature
