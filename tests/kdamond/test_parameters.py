from collections.abc import Callable
from typing import Any

import pytest

from memtherm.core.scheme import Action
from memtherm.errors import InvalidInput, TargetGone
from memtherm.kdamond.parameters import (
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
    KernelProbe,
    KernelQuota,
    KernelScheme,
    KernelTarget,
    KernelWatermarks,
    Operations,
    ProbeFilter,
    ProbeFilterKind,
)
from memtherm.kdamond.startable import check_startable
from support.children import Child

WIDE = IntervalsGoal(windows=3, min_sampling_interval_s=0.01, max_sampling_interval_s=1)
PADDR = Operations.PADDR

# What the kernel answers with EINVAL (damon-spec §1.3), or with ENOMEM for schemes.
REFUSED: list[tuple[str, Callable[[], Any]]] = [
    ("above the longest", lambda: IntervalsGoal(windows=1, min_sampling_interval_s=2, max_sampling_interval_s=1)),
    ("outside of its goal's limits", lambda: Intervals(goal=WIDE)),
    ("longer than", lambda: Intervals(sampling_interval_s=0.2)),
    ("take for 0", lambda: Intervals(sampling_interval_s=4e-7)),
    ("sampling_interval_s is nan", lambda: Intervals(sampling_interval_s=float("nan"))),
    ("min_nr_regions is 2", lambda: Context(min_nr_regions=2)),
    ("is more than max_nr_regions", lambda: Context(min_nr_regions=11, max_nr_regions=10)),
    ("2 targets of physical memory", lambda: Context(operations=PADDR, targets=(KernelTarget(),) * 2)),
    ("address unit of 3 bytes", lambda: Context(operations=PADDR, address_unit=3)),
    ("address unit of 0 bytes", lambda: Context(operations=PADDR, address_unit=0)),
    ("address unit of 8 bytes for vaddr", lambda: Context(address_unit=8)),
    ("attribute probes of vaddr", lambda: Context(probes=(KernelProbe(),))),
    ("5 attribute probes", lambda: Context(operations=PADDR, probes=(KernelProbe(),) * 5)),
    (
        "count up to 255",
        lambda: Context(
            operations=PADDR,
            intervals=Intervals(sampling_interval_s=0.001, aggregation_interval_s=1),
            probes=(KernelProbe(weight=1),),
        ),
    ),
    ("weights of the probes", lambda: Context(operations=PADDR, probes=(KernelProbe(weight=2**31),) * 2)),
    ("goal of node_eligible", lambda: Context(schemes=(with_goal(KernelMetric.NODE_ELIGIBLE_MEM_BP),))),
    ("is empty", lambda: with_regions((4096, 4096))),
    ("before the one ahead", lambda: with_regions((8192, 12288), (0, 4096))),
    ("before the one ahead", lambda: with_regions((0, 4097), (8000, 12288))),
    ("no multiple of the address unit", lambda: with_regions((0, 4097), unit=4096)),
    ("ends before it starts", lambda: KernelFilter(kind=KernelFilterKind.ADDR, start=2, end=1)),
    (
        "is above the maximum",
        lambda: KernelFilter(kind=KernelFilterKind.HUGEPAGE_SIZE, size_bytes=KernelBounds(2, 1)),
    ),
    ("memcg of the cgroup", lambda: KernelFilter(kind=KernelFilterKind.MEMCG)),
    ("line break", lambda: KernelFilter(kind=KernelFilterKind.MEMCG, memcg_path="/a\nb")),
    ("memcg of the cgroup 'a'", lambda: ProbeFilter(kind=ProbeFilterKind.MEMCG, path="a")),
    ("node_memcg_used_bp of the cgroup", lambda: KernelGoal(metric=KernelMetric.NODE_MEMCG_USED_BP)),
    ("no filter by region", lambda: KernelScheme(core_filters=(KernelFilter(),))),
    ("no filter by page", lambda: KernelScheme(ops_filters=(KernelFilter(kind=KernelFilterKind.TARGET),))),
    ("the target node", lambda: KernelScheme(target_node=-2)),
    ("minimum of age_windows", lambda: KernelScheme(age_windows=KernelBounds(2**32, None))),
    ("maximum of size_bytes", lambda: KernelScheme(size_bytes=KernelBounds(0, -1))),
    ("time_s of a quota", lambda: KernelQuota(time_s=0.0004)),
    ("age_permil", lambda: KernelQuota(age_permil=2**32)),
    ("high_permil", lambda: KernelWatermarks(high_permil=-1)),
    ("weight of a destination", lambda: KernelDestination(weight=-1)),
    ("is not a process id", lambda: KernelTarget(pid=-1)),
    ("refresh_interval_s", lambda: Kdamond(refresh_interval_s=-1)),
    ("refresh_interval_s", lambda: Kdamond(refresh_interval_s=5e6)),
    ("max_nr_snapshots is 2.5", lambda: KernelScheme(max_nr_snapshots=2.5)),  # type: ignore[arg-type]
]


def with_goal(metric: KernelMetric) -> KernelScheme:
    return KernelScheme(quota=KernelQuota(goals=(KernelGoal(metric=metric, target_value=1),)))


def with_regions(*regions: tuple[int, int], unit: int = 1) -> Context:
    return Context(operations=PADDR, address_unit=unit, targets=(KernelTarget(regions=regions),))


@pytest.mark.parametrize(("words", "make"), REFUSED)
def test_what_the_kernel_refuses_is_said_here(words: str, make: Callable[[], Any]) -> None:
    with pytest.raises(InvalidInput, match=words) as problem:
        make()
    assert problem.value.hint


def test_what_the_kernel_takes_is_taken() -> None:
    Intervals(sampling_interval_s=0, regions_update_interval_s=0)
    Context(min_nr_regions=3, max_nr_regions=3)
    Intervals(sampling_interval_s=0.01, goal=WIDE)
    Context(operations=PADDR, address_unit=12288)
    Context(operations=PADDR, probes=(KernelProbe(weight=2**31 // 20),))
    KernelScheme(size_bytes=KernelBounds(4096, 1024))
    with_regions((0, 4096), (4096, 8192))


def one_scheme(operations: Operations = Operations.VADDR, **values: Any) -> Context:
    pid = 0 if operations is PADDR else 1
    target = KernelTarget(pid=pid, regions=((0, 4096),))
    return Context(operations=operations, targets=(target,), schemes=(KernelScheme(**values),))


# What the kernel takes, and then does nothing, or something else.
SILENT: list[tuple[str, Context]] = [
    ("without a target ends at once", Context()),
    ("obsolete target at the start", Context(targets=(KernelTarget(pid=1), KernelTarget(pid=1, is_obsolete=True)))),
    ("without regions", Context(operations=PADDR, targets=(KernelTarget(),))),
    ("without regions", Context(operations=Operations.FVADDR, targets=(KernelTarget(pid=1),))),
    ("does not do hugepage for paddr", one_scheme(PADDR, action=Action.HUGEPAGE)),
    ("does not do lru_prio for vaddr", one_scheme(action=Action.LRU_PRIO)),
    ("does not say where to", one_scheme(action=Action.MIGRATE_COLD)),
    (
        "weighted destinations for paddr",
        one_scheme(PADDR, action=Action.MIGRATE_HOT, destinations=(KernelDestination(),)),
    ),
    ("weights of all destinations", one_scheme(action=Action.MIGRATE_HOT, destinations=(KernelDestination(node=1),))),
    ("filters by page for pageout", one_scheme(action=Action.PAGEOUT, ops_filters=(KernelFilter(),))),
    ("and there are 1", one_scheme(core_filters=(KernelFilter(kind=KernelFilterKind.TARGET, target=1),))),
    ("ignores such a goal", one_scheme(quota=KernelQuota(goals=(KernelGoal(),)))),
    (
        "no cgroup",
        one_scheme(ops_filters=(KernelFilter(kind=KernelFilterKind.MEMCG, memcg_path="/no/such/cgroup"),)),
    ),
]


@pytest.mark.parametrize(("words", "context"), SILENT)
def test_what_the_kernel_would_silently_not_do_is_refused(words: str, context: Context) -> None:
    with pytest.raises(InvalidInput) as problem:
        check_startable(context)
    assert words in f"{problem.value.message} {problem.value.hint}"


def test_a_target_that_has_exited_is_gone() -> None:
    with Child() as child:
        check_startable(Context(targets=(KernelTarget(pid=child.pid),)))
    with pytest.raises(TargetGone):
        check_startable(Context(targets=(KernelTarget(pid=child.pid),)))


def test_an_obsolete_target_need_not_live() -> None:
    with Child() as child:
        targets = (KernelTarget(pid=child.pid), KernelTarget(pid=2**30, is_obsolete=True))
        check_startable(Context(targets=targets), was_started=True)
