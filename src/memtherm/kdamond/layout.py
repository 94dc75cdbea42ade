"""Parameters ↔ files: which text goes where, in the kernel's order, and back (damon-spec §3.1, §3.6).

A list's `nr_*` is written ahead of what is in it, since that makes its directories anew, with defaults.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from memtherm.core.goals import Tuner
from memtherm.core.scheme import Action
from memtherm.errors import NotSupported
from memtherm.kdamond.features import Feature, KernelFeatures, feature_of, lacking
from memtherm.kdamond.parameters import (
    UINT_MAX,
    ULONG_MAX,
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
    microseconds,
    milliseconds,
)
from memtherm.kdamond.tree import DamonTree, KernelRefused, Ownership

CONTEXT = "contexts/0"
INTERVALS = f"{CONTEXT}/monitoring_attrs/intervals"
REFRESH = "refresh_ms"
_LISTS = ("contexts", "probes", "targets", "regions", "schemes", "goals", "filters", "dests")
_COUNTS = {f"nr_{what}" for what in _LISTS}


@dataclass(frozen=True)
class Entry:
    """One file and its text.

    Attributes:
        path: below the kdamond's directory.
        default: the text in a fresh directory.
        feature: what the kernel must have for any other text.
        name: what a person calls it.
    """

    path: str
    text: str
    default: str = "0"
    feature: Feature | None = None
    name: str = ""

    @property
    def makes_directories(self) -> bool:
        return self.path.rpartition("/")[2] in _COUNTS


def entries(kdamond: Kdamond, features: KernelFeatures) -> list[Entry]:
    """All files of a kdamond in the order in which they are written.

    Raises:
        NotSupported: a parameter that is not at its default and that this kernel is known to lack.
    """
    features.require_operations(kdamond.context.operations)
    found = list(_of_kdamond(kdamond, features))
    for entry in found:
        if entry.feature is not None and entry.text != entry.default:
            features.require(entry.feature, entry.name)
    return [entry for entry in found if entry.feature not in features.absent]


def write(tree: DamonTree, owner: Ownership, wanted: list[Entry], written: dict[str, str]) -> None:
    """Write what differs from what the files hold.

    Args:
        written: path → text that the files hold; what is not in it is at its default.  Changed as files are written.

    Raises:
        NotSupported: the kernel has no such file, or does not know a keyword.
        InvalidInput, TargetBusy, OwnershipLost: as DamonTree.write.
    """
    for entry in wanted:
        if written.get(entry.path, entry.default) == entry.text:
            continue
        # Nothing is no write at all; the kernel takes a line break for an empty path.
        try:
            tree.write(owner, entry.path, entry.text or "\n")
        except (NotSupported, KernelRefused) as error:
            if entry.feature is None:
                raise
            raise lacking(entry.feature, entry.name) from error
        if entry.makes_directories:
            below = entry.path.rpartition("/")[0] + "/"
            for path in [path for path in written if path.startswith(below)]:
                del written[path]
        written[entry.path] = entry.text


def read(tree: DamonTree, base: str = "", *, owner: Ownership | None = None) -> Kdamond:
    """What the files of a kdamond hold; a file that this kernel lacks counts as its default.

    Args:
        base: such as `0/` for a directory below `kdamonds`, or nothing with an owner.
    """
    files = _Files(tree, base, owner)
    context = _read_context(files.below(f"{CONTEXT}/")) if files.number("contexts/nr_contexts") else Context()
    return Kdamond(context=context, refresh_interval_s=files.number(REFRESH) / 1e3)


def _of_kdamond(kdamond: Kdamond, features: KernelFeatures) -> Iterator[Entry]:
    context = kdamond.context
    yield Entry("contexts/nr_contexts", "1")
    yield Entry(f"{CONTEXT}/operations", context.operations.value, "vaddr")
    yield Entry(f"{CONTEXT}/addr_unit", str(context.address_unit), "1", Feature.ADDRESS_UNIT)
    yield Entry(f"{CONTEXT}/pause", _flag(context.is_paused), "N", Feature.PAUSE)
    yield from interval_entries(context.intervals)
    yield Entry(f"{CONTEXT}/monitoring_attrs/nr_regions/min", str(context.min_nr_regions), "10")
    yield Entry(f"{CONTEXT}/monitoring_attrs/nr_regions/max", str(context.max_nr_regions), "1000")
    yield from _of_probes(context.probes)
    yield from _of_targets(context)
    yield Entry(f"{CONTEXT}/schemes/nr_schemes", str(len(context.schemes)))
    for index, scheme in enumerate(context.schemes):
        yield from _of_scheme(f"{CONTEXT}/schemes/{index}", scheme, context, features)
    yield Entry(REFRESH, str(milliseconds(kdamond.refresh_interval_s)), feature=Feature.REFRESH)


def interval_entries(intervals: Intervals) -> Iterator[Entry]:
    """The files of intervals; those of sampling and aggregation the kernel writes as well, where it tunes them."""
    yield Entry(f"{INTERVALS}/sample_us", _us(intervals.sampling_interval_s), "5000")
    yield Entry(f"{INTERVALS}/aggr_us", _us(intervals.aggregation_interval_s), "100000")
    yield Entry(f"{INTERVALS}/update_us", _us(intervals.regions_update_interval_s), "60000000")
    for name, text in (
        ("access_bp", str(intervals.goal.access_bp)),
        ("aggrs", str(intervals.goal.windows)),
        ("min_sample_us", _us(intervals.goal.min_sampling_interval_s)),
        ("max_sample_us", _us(intervals.goal.max_sampling_interval_s)),
    ):
        yield Entry(f"{INTERVALS}/intervals_goal/{name}", text, feature=Feature.INTERVALS_GOAL)


def _of_probes(probes: tuple[KernelProbe, ...]) -> Iterator[Entry]:
    base = f"{CONTEXT}/monitoring_attrs/probes"
    yield Entry(f"{base}/nr_probes", str(len(probes)), feature=Feature.PROBES)
    for index, probe in enumerate(probes):
        yield Entry(f"{base}/{index}/weight", str(probe.weight), feature=Feature.PROBE_WEIGHT)
        yield Entry(f"{base}/{index}/filters/nr_filters", str(len(probe.filters)))
        for number, one in enumerate(probe.filters):
            place = f"{base}/{index}/filters/{number}"
            yield Entry(f"{place}/type", one.kind.value, "anon")
            yield Entry(f"{place}/matching", _flag(one.matching), "N")
            yield Entry(f"{place}/allow", _flag(one.allow), "N")
            yield Entry(f"{place}/path", one.path, "")


def _of_targets(context: Context) -> Iterator[Entry]:
    base, unit = f"{CONTEXT}/targets", context.address_unit
    yield Entry(f"{base}/nr_targets", str(len(context.targets)))
    for index, target in enumerate(context.targets):
        yield Entry(f"{base}/{index}/pid_target", str(target.pid))
        yield Entry(f"{base}/{index}/obsolete_target", _flag(target.is_obsolete), "N", feature=Feature.OBSOLETE_TARGET)
        yield Entry(f"{base}/{index}/regions/nr_regions", str(len(target.regions)))
        for number, (start, end) in enumerate(target.regions):
            yield Entry(f"{base}/{index}/regions/{number}/start", str(start // unit))
            yield Entry(f"{base}/{index}/regions/{number}/end", str(end // unit))


def _of_scheme(base: str, scheme: KernelScheme, context: Context, features: KernelFeatures) -> Iterator[Entry]:
    is_physical = context.operations is Operations.PADDR
    moves = scheme.action in (Action.MIGRATE_HOT, Action.MIGRATE_COLD)
    # Processes' memory is migrated, and filtered by page, since there are destinations.
    action_needs = Feature.DESTINATIONS if moves and not is_physical else feature_of(scheme.action)
    pages_need = None if is_physical else Feature.DESTINATIONS
    yield Entry(f"{base}/action", scheme.action.value, "stat", action_needs, f"action {scheme.action}")
    yield Entry(f"{base}/target_nid", str(scheme.target_node), "-1", Feature.MIGRATE)
    yield Entry(f"{base}/apply_interval_us", _us(scheme.apply_interval_s), feature=Feature.APPLY_INTERVAL)
    yield from _of_bounds(f"{base}/access_pattern/sz", scheme.size_bytes, context.address_unit, ULONG_MAX)
    yield from _of_bounds(f"{base}/access_pattern/nr_accesses", scheme.nr_accesses, 1, UINT_MAX)
    yield from _of_bounds(f"{base}/access_pattern/age", scheme.age_windows, 1, UINT_MAX)
    yield from _of_quota(f"{base}/quotas", scheme.quota, context.address_unit)
    marks = scheme.watermarks
    yield Entry(f"{base}/watermarks/metric", marks.metric.value, "none")
    yield Entry(f"{base}/watermarks/interval_us", _us(marks.interval_s))
    yield Entry(f"{base}/watermarks/high", str(marks.high_permil))
    yield Entry(f"{base}/watermarks/mid", str(marks.mid_permil))
    yield Entry(f"{base}/watermarks/low", str(marks.low_permil))
    if features.has(Feature.FILTER_GROUPS) is False:
        both = scheme.core_filters + scheme.ops_filters
        needs = pages_need if scheme.ops_filters and pages_need else Feature.FILTERS
        yield from _of_filters(f"{base}/filters", both, context.address_unit, needs)
    else:
        yield from _of_filters(f"{base}/core_filters", scheme.core_filters, context.address_unit, Feature.FILTER_GROUPS)
        needs = pages_need or Feature.FILTER_GROUPS
        yield from _of_filters(f"{base}/ops_filters", scheme.ops_filters, context.address_unit, needs)
    yield Entry(f"{base}/dests/nr_dests", str(len(scheme.destinations)), feature=Feature.DESTINATIONS)
    for index, one in enumerate(scheme.destinations):
        yield Entry(f"{base}/dests/{index}/id", str(one.node))
        yield Entry(f"{base}/dests/{index}/weight", str(one.weight))
    yield Entry(f"{base}/stats/max_nr_snapshots", str(scheme.max_nr_snapshots), feature=Feature.MAX_NR_SNAPSHOTS)


def _of_bounds(
    base: str, bounds: KernelBounds, unit: int, largest: int, feature: Feature | None = None
) -> Iterator[Entry]:
    yield Entry(f"{base}/min", str(bounds.minimum // unit), feature=feature)
    yield Entry(f"{base}/max", str(largest if bounds.maximum is None else bounds.maximum // unit), feature=feature)


def _of_quota(base: str, quota: KernelQuota, unit: int) -> Iterator[Entry]:
    yield Entry(f"{base}/ms", str(milliseconds(quota.time_s)))
    yield Entry(f"{base}/bytes", str(quota.size_bytes // unit))
    yield Entry(f"{base}/reset_interval_ms", str(milliseconds(quota.reset_interval_s)))
    yield Entry(f"{base}/weights/sz_permil", str(quota.size_permil))
    yield Entry(f"{base}/weights/nr_accesses_permil", str(quota.nr_accesses_permil))
    yield Entry(f"{base}/weights/age_permil", str(quota.age_permil))
    yield Entry(f"{base}/goal_tuner", quota.tuner.value, "consist", Feature.GOAL_TUNER)
    yield Entry(f"{base}/fail_charge_num", str(quota.fail_charge_numerator), feature=Feature.FAIL_CHARGE)
    yield Entry(f"{base}/fail_charge_denom", str(quota.fail_charge_denominator), feature=Feature.FAIL_CHARGE)
    yield from goal_entries(base, quota.goals)


def goal_entries(base: str, goals: tuple[KernelGoal, ...]) -> Iterator[Entry]:
    """The files below a scheme's `quotas/goals`, the one part that commit_schemes_quota_goals reads."""
    yield Entry(f"{base}/goals/nr_goals", str(len(goals)), feature=Feature.GOALS)
    for index, goal in enumerate(goals):
        place = f"{base}/goals/{index}"
        # The first goals had one metric only, and no file for it.
        needs = max(feature_of(goal.metric) or Feature.GOALS, Feature.PRESSURE_GOAL, key=list(Feature).index)
        yield Entry(f"{place}/target_metric", goal.metric.value, "user_input", needs, f"metric {goal.metric}")
        yield Entry(f"{place}/nid", str(goal.node), feature=Feature.NODE_GOALS)
        yield Entry(f"{place}/path", goal.path, "", Feature.CGROUP_GOALS)
        yield Entry(f"{place}/target_value", str(goal.target_value))
        yield Entry(f"{place}/current_value", str(goal.current_value))


def _of_filters(base: str, filters: tuple[KernelFilter, ...], unit: int, needs: Feature) -> Iterator[Entry]:
    name = "filters by page for processes" if needs is Feature.DESTINATIONS else ""
    yield Entry(f"{base}/nr_filters", str(len(filters)), "0", needs, name)
    for index, one in enumerate(filters):
        place = f"{base}/{index}"
        yield Entry(f"{place}/type", one.kind.value, "anon", feature_of(one.kind), f"filter {one.kind}")
        yield Entry(f"{place}/matching", _flag(one.matching), "N")
        yield Entry(f"{place}/allow", _flag(one.allow), "N", Feature.ALLOW_FILTERS)
        yield Entry(f"{place}/memcg_path", one.memcg_path, "")
        yield Entry(f"{place}/addr_start", str(one.start // unit), feature=Feature.CORE_FILTERS)
        yield Entry(f"{place}/addr_end", str(one.end // unit), feature=Feature.CORE_FILTERS)
        yield from _of_bounds(place, one.size_bytes, 1, ULONG_MAX, Feature.PAGE_STATE_FILTERS)
        yield Entry(f"{place}/damon_target_idx", str(one.target), feature=Feature.CORE_FILTERS)


class _Files:
    """The files below one directory of the tree, as values."""

    def __init__(self, tree: DamonTree, base: str, owner: Ownership | None) -> None:
        self._tree = tree
        self._base = base
        self._owner = owner

    def below(self, path: str) -> "_Files":
        return _Files(self._tree, f"{self._base}{path}", self._owner)

    def text(self, path: str, default: str = "") -> str:
        try:
            return self._tree.read(f"{self._base}{path}", owner=self._owner).removesuffix("\n")
        except NotSupported:
            return default

    def number(self, path: str, default: int = 0) -> int:
        return int(self.text(path, str(default)))

    def flag(self, path: str) -> bool:
        return self.text(path) == "Y"

    def seconds(self, path: str) -> float:
        return self.number(path) / 1e6

    def bounds(self, path: str, *, unit: int = 1, largest: int = ULONG_MAX) -> KernelBounds:
        top = self.number(f"{path}max")
        return KernelBounds(self.number(f"{path}min") * unit, None if top >= largest else top * unit)

    def each(self, folder: str, count: str) -> "list[_Files]":
        return [self.below(f"{folder}/{index}/") for index in range(self.number(f"{folder}/{count}"))]


def read_intervals(tree: DamonTree, owner: Ownership) -> Intervals:
    """The intervals that the files hold; see update_tuned_intervals."""
    return _read_intervals(_Files(tree, f"{INTERVALS}/", owner))


def _read_context(files: _Files) -> Context:
    unit = files.number("addr_unit", 1)
    return Context(
        operations=Operations(files.text("operations")),
        address_unit=unit,
        is_paused=files.flag("pause"),
        intervals=_read_intervals(files.below("monitoring_attrs/intervals/")),
        min_nr_regions=files.number("monitoring_attrs/nr_regions/min"),
        max_nr_regions=files.number("monitoring_attrs/nr_regions/max"),
        probes=tuple(_read_probe(one) for one in files.each("monitoring_attrs/probes", "nr_probes")),
        targets=tuple(_read_target(one, unit) for one in files.each("targets", "nr_targets")),
        schemes=tuple(_read_scheme(one, unit) for one in files.each("schemes", "nr_schemes")),
    )


def _read_intervals(files: _Files) -> Intervals:
    return Intervals(
        sampling_interval_s=files.seconds("sample_us"),
        aggregation_interval_s=files.seconds("aggr_us"),
        regions_update_interval_s=files.seconds("update_us"),
        goal=IntervalsGoal(
            access_bp=files.number("intervals_goal/access_bp"),
            windows=files.number("intervals_goal/aggrs"),
            min_sampling_interval_s=files.seconds("intervals_goal/min_sample_us"),
            max_sampling_interval_s=files.seconds("intervals_goal/max_sample_us"),
        ),
    )


def _read_probe(files: _Files) -> KernelProbe:
    filters = tuple(
        ProbeFilter(
            kind=ProbeFilterKind(one.text("type")),
            matching=one.flag("matching"),
            allow=one.flag("allow"),
            path=one.text("path"),
        )
        for one in files.each("filters", "nr_filters")
    )
    return KernelProbe(filters=filters, weight=files.number("weight"))


def _read_target(files: _Files, unit: int) -> KernelTarget:
    regions = files.each("regions", "nr_regions")
    return KernelTarget(
        pid=files.number("pid_target"),
        regions=tuple((one.number("start") * unit, one.number("end") * unit) for one in regions),
        is_obsolete=files.flag("obsolete_target"),
    )


def _read_scheme(files: _Files, unit: int) -> KernelScheme:
    marks = files.below("watermarks/")
    either = [_read_filter(one, unit) for one in files.each("filters", "nr_filters")]
    core = [one for one in either if one.kind.is_core]
    pages = [one for one in either if not one.kind.is_core]
    return KernelScheme(
        action=Action(files.text("action")),
        size_bytes=files.bounds("access_pattern/sz/", unit=unit),
        nr_accesses=files.bounds("access_pattern/nr_accesses/", largest=UINT_MAX),
        age_windows=files.bounds("access_pattern/age/", largest=UINT_MAX),
        apply_interval_s=files.seconds("apply_interval_us"),
        target_node=files.number("target_nid", -1),
        quota=_read_quota(files.below("quotas/"), unit),
        watermarks=KernelWatermarks(
            metric=KernelWatermarkMetric(marks.text("metric")),
            interval_s=marks.seconds("interval_us"),
            high_permil=marks.number("high"),
            mid_permil=marks.number("mid"),
            low_permil=marks.number("low"),
        ),
        core_filters=(*core, *(_read_filter(one, unit) for one in files.each("core_filters", "nr_filters"))),
        ops_filters=(*pages, *(_read_filter(one, unit) for one in files.each("ops_filters", "nr_filters"))),
        destinations=tuple(
            KernelDestination(node=one.number("id"), weight=one.number("weight"))
            for one in files.each("dests", "nr_dests")
        ),
        max_nr_snapshots=files.number("stats/max_nr_snapshots"),
    )


def _read_quota(files: _Files, unit: int) -> KernelQuota:
    return KernelQuota(
        time_s=files.number("ms") / 1e3,
        size_bytes=files.number("bytes") * unit,
        reset_interval_s=files.number("reset_interval_ms") / 1e3,
        size_permil=files.number("weights/sz_permil"),
        nr_accesses_permil=files.number("weights/nr_accesses_permil"),
        age_permil=files.number("weights/age_permil"),
        goals=tuple(
            KernelGoal(
                metric=KernelMetric(one.text("target_metric", KernelMetric.USER_INPUT.value)),
                target_value=one.number("target_value"),
                current_value=one.number("current_value"),
                node=one.number("nid"),
                path=one.text("path"),
            )
            for one in files.each("goals", "nr_goals")
        ),
        tuner=Tuner(files.text("goal_tuner", Tuner.CONSIST.value)),
        fail_charge_numerator=files.number("fail_charge_num"),
        fail_charge_denominator=files.number("fail_charge_denom"),
    )


def _read_filter(files: _Files, unit: int) -> KernelFilter:
    return KernelFilter(
        kind=KernelFilterKind(files.text("type")),
        matching=files.flag("matching"),
        allow=files.flag("allow"),
        memcg_path=files.text("memcg_path"),
        start=files.number("addr_start") * unit,
        end=files.number("addr_end") * unit,
        size_bytes=files.bounds(""),
        target=files.number("damon_target_idx"),
    )


def _flag(is_set: bool) -> str:
    return "Y" if is_set else "N"


def _us(time_s: float) -> str:
    return str(microseconds(time_s))
