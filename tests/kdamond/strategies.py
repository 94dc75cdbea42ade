"""Hypothesis strategies for all parameters of a kdamond."""

from hypothesis import strategies as st

from memtherm.core.goals import Tuner
from memtherm.core.scheme import Action
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
    KernelWatermarkMetric,
    KernelWatermarks,
    Operations,
    ProbeFilter,
    ProbeFilterKind,
)

U32 = 2**32 - 1
U64 = 2**64 - 1
CGROUPS = st.sampled_from(("/", "/a", "/a/b c", "/system.slice/db.service"))


def times(unit_s: float, *, most: int = 10**15) -> st.SearchStrategy[float]:
    return st.integers(0, most).map(lambda count: count / round(1 / unit_s))


def bounds(most: int, unit: int = 1) -> st.SearchStrategy[KernelBounds]:
    """The largest number is read back as no bound, and so left out."""
    low = st.integers(0, most).map(lambda count: count * unit)
    high = st.none() | st.integers(0, most - 1).map(lambda count: count * unit)
    return st.builds(KernelBounds, low, high)


def intervals() -> st.SearchStrategy[Intervals]:
    def build(numbers: list[int], update: int, access_bp: int, windows: int, aggregation: int) -> Intervals:
        low, sampling, high = sorted(numbers)
        return Intervals(
            sampling_interval_s=sampling / 1e6,
            aggregation_interval_s=(sampling + aggregation) / 1e6,
            regions_update_interval_s=update / 1e6,
            goal=IntervalsGoal(
                access_bp=access_bp,
                windows=windows,
                min_sampling_interval_s=low / 1e6,
                max_sampling_interval_s=high / 1e6,
            ),
        )

    sampling = st.lists(st.integers(0, 10**9), min_size=3, max_size=3)
    return st.builds(
        build, sampling, st.integers(0, 10**15), st.integers(0, 10**4), st.integers(0, 9), st.integers(0, 10**9)
    )


def filters(kinds: list[KernelFilterKind], unit: int) -> st.SearchStrategy[KernelFilter]:
    def build(kind: KernelFilterKind, path: str, ends: list[int], sizes: list[int], **values: object) -> KernelFilter:
        start, end = sorted(ends)
        low, high = sorted(sizes)
        return KernelFilter(
            kind=kind,
            memcg_path=path,
            start=start * unit,
            end=end * unit,
            size_bytes=KernelBounds(low, high),
            **values,  # type: ignore[arg-type]
        )

    numbers = st.lists(st.integers(0, U64 - 1), min_size=2, max_size=2)
    return st.builds(
        build,
        st.sampled_from(kinds),
        CGROUPS,
        numbers,
        numbers,
        matching=st.booleans(),
        allow=st.booleans(),
        target=st.integers(0, 2**31 - 1),
    )


def goals(metrics: list[KernelMetric]) -> st.SearchStrategy[KernelGoal]:
    return st.builds(
        KernelGoal,
        metric=st.sampled_from(metrics),
        target_value=st.integers(0, U64),
        current_value=st.integers(0, U64),
        node=st.integers(0, 2**31 - 1),
        path=CGROUPS,
    )


def quotas(metrics: list[KernelMetric], unit: int) -> st.SearchStrategy[KernelQuota]:
    u32 = st.integers(0, U32)
    return st.builds(
        KernelQuota,
        time_s=times(1e-3, most=10**12),
        size_bytes=st.integers(0, U64).map(lambda count: count * unit),
        reset_interval_s=times(1e-3, most=10**12),
        size_permil=u32,
        nr_accesses_permil=u32,
        age_permil=u32,
        goals=st.lists(goals(metrics), max_size=2).map(tuple),
        tuner=st.sampled_from(Tuner),
        fail_charge_numerator=u32,
        fail_charge_denominator=u32,
    )


def schemes(operations: Operations, unit: int) -> st.SearchStrategy[KernelScheme]:
    metrics = [
        one for one in KernelMetric if operations is Operations.PADDR or one is not KernelMetric.NODE_ELIGIBLE_MEM_BP
    ]
    core = [kind for kind in KernelFilterKind if kind.is_core]
    pages = [kind for kind in KernelFilterKind if not kind.is_core]
    marks = st.integers(0, U64)
    return st.builds(
        KernelScheme,
        action=st.sampled_from(Action),
        size_bytes=bounds(U64, unit),
        nr_accesses=bounds(U32),
        age_windows=bounds(U32),
        apply_interval_s=times(1e-6),
        target_node=st.integers(-1, 2**31 - 1),
        quota=quotas(metrics, unit),
        watermarks=st.builds(
            KernelWatermarks,
            metric=st.sampled_from(KernelWatermarkMetric),
            interval_s=times(1e-6),
            high_permil=marks,
            mid_permil=marks,
            low_permil=marks,
        ),
        core_filters=st.lists(filters(core, unit), max_size=2).map(tuple),
        ops_filters=st.lists(filters(pages, 1), max_size=2).map(tuple) if unit == 1 else st.just(()),
        destinations=st.lists(
            st.builds(KernelDestination, node=st.integers(0, U32), weight=st.integers(0, U32)), max_size=2
        ).map(tuple),
        max_nr_snapshots=st.integers(0, U64),
    )


def targets(unit: int) -> st.SearchStrategy[KernelTarget]:
    block = max(4096, unit)

    def build(pid: int, borders: list[int], is_obsolete: bool) -> KernelTarget:
        ends = sorted(borders)
        pairs = zip(ends[::2], ends[1::2], strict=False)
        return KernelTarget(
            pid=pid, regions=tuple((low * block, high * block) for low, high in pairs), is_obsolete=is_obsolete
        )

    borders = st.lists(st.integers(0, 2**50), max_size=6, unique=True)
    return st.builds(build, st.integers(0, 2**31 - 1), borders, st.booleans())


def probes() -> st.SearchStrategy[KernelProbe]:
    one = st.builds(
        ProbeFilter, kind=st.sampled_from(ProbeFilterKind), matching=st.booleans(), allow=st.booleans(), path=CGROUPS
    )
    return st.builds(KernelProbe, filters=st.lists(one, max_size=2).map(tuple))


@st.composite
def kdamonds(draw: st.DrawFn) -> Kdamond:
    operations = draw(st.sampled_from(Operations))
    is_physical = operations is Operations.PADDR
    unit = draw(st.sampled_from((1, 2, 4096, 12288))) if is_physical else 1
    least = draw(st.integers(3, 1000))
    context = Context(
        operations=operations,
        address_unit=unit,
        is_paused=draw(st.booleans()),
        intervals=draw(intervals()),
        min_nr_regions=least,
        max_nr_regions=draw(st.integers(least, U64)),
        probes=tuple(draw(st.lists(probes(), max_size=2))) if is_physical else (),
        targets=tuple(draw(st.lists(targets(unit), max_size=1 if is_physical else 2))),
        schemes=tuple(draw(st.lists(schemes(operations, unit), max_size=2))),
    )
    return Kdamond(context=context, refresh_interval_s=draw(times(1e-3, most=U32)))
