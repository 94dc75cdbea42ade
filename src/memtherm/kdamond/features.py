"""What the DAMON of this kernel can do, told by the files that it shows; nothing is written to find out.

Files of later releases tell of earlier features, and missing ones of later features that are missing too.  So keywords
without a file of their own, such as the action `collapse`, follow from files (damon-spec §3.9).
"""

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from memtherm.core.goals import Tuner
from memtherm.core.scheme import Action
from memtherm.errors import NotSupported
from memtherm.kdamond.parameters import KernelFilterKind, KernelMetric, Operations
from memtherm.kdamond.tree import DamonTree, Ownership


class Feature(StrEnum):
    """What DAMON has learned since its sysfs tree came (5.18), in the order of releases."""

    COMMIT = "parameters changed while running"
    AVAIL_OPERATIONS = "list of operations"
    LRU_ACTIONS = "actions lru_prio and lru_deprio"
    TRIED_REGIONS = "tried regions"
    FILTERS = "filters anon and memcg"
    TRIED_BYTES = "tried bytes"
    CORE_FILTERS = "filters addr and target"
    APPLY_INTERVAL = "apply interval"
    GOALS = "quota goals"
    EFFECTIVE_BYTES = "effective quota"
    PRESSURE_GOAL = "metric some_mem_psi_us"
    YOUNG_FILTER = "filter young"
    MIGRATE = "actions migrate_hot and migrate_cold"
    ALLOW_FILTERS = "filters that allow"
    FILTER_PASSED = "bytes that pass the filters"
    FILTER_GROUPS = "filters by region and by page apart"
    PAGE_STATE_FILTERS = "filters hugepage_size, unmapped and active"
    INTERVALS_GOAL = "intervals that tune themselves"
    NODE_GOALS = "metrics of a node's memory"
    DESTINATIONS = "weighted destinations, and migration of processes"
    REFRESH = "refresh_ms"
    ADDRESS_UNIT = "addr_unit"
    OBSOLETE_TARGET = "obsolete_target"
    CGROUP_GOALS = "metrics of a cgroup's memory on a node"
    MAX_NR_SNAPSHOTS = "max_nr_snapshots"
    ACTIVE_GOALS = "metrics active_mem_bp and inactive_mem_bp"
    GOAL_TUNER = "goal_tuner"
    COLLAPSE = "action collapse"
    ELIGIBLE_GOAL = "metric node_eligible_mem_bp"
    PAUSE = "pause"
    FAIL_CHARGE = "fail_charge"
    PROBES = "attribute probes"
    PROBE_WEIGHT = "weights of attribute probes"


_CONTEXT = "contexts/0"
_SCHEME = f"{_CONTEXT}/schemes/*"
_GOAL = f"{_SCHEME}/quotas/goals/*"

# Feature -> the release that brought it, for people, and the file below a kdamond that shows it; "" where none does.
# A `*` stands for any directory with a number.  The releases ascend.
_ROWS: dict[Feature, tuple[str, str]] = {
    Feature.COMMIT: ("5.19", f"{_CONTEXT}/avail_operations"),
    Feature.AVAIL_OPERATIONS: ("5.19", f"{_CONTEXT}/avail_operations"),
    Feature.LRU_ACTIONS: ("6.0", ""),
    Feature.TRIED_REGIONS: ("6.2", f"{_SCHEME}/tried_regions"),
    Feature.FILTERS: ("6.3", f"{_SCHEME}/filters"),
    Feature.TRIED_BYTES: ("6.6", f"{_SCHEME}/tried_regions/total_bytes"),
    Feature.CORE_FILTERS: ("6.6", f"{_SCHEME}/tried_regions/total_bytes"),
    Feature.APPLY_INTERVAL: ("6.7", f"{_SCHEME}/apply_interval_us"),
    Feature.GOALS: ("6.8", f"{_SCHEME}/quotas/goals"),
    Feature.EFFECTIVE_BYTES: ("6.9", f"{_SCHEME}/quotas/effective_bytes"),
    Feature.PRESSURE_GOAL: ("6.9", f"{_SCHEME}/quotas/effective_bytes"),
    Feature.YOUNG_FILTER: ("6.10", ""),
    Feature.MIGRATE: ("6.11", f"{_SCHEME}/target_nid"),
    Feature.ALLOW_FILTERS: ("6.14", f"{_SCHEME}/stats/sz_ops_filter_passed"),
    Feature.FILTER_PASSED: ("6.14", f"{_SCHEME}/stats/sz_ops_filter_passed"),
    Feature.FILTER_GROUPS: ("6.15", f"{_SCHEME}/core_filters"),
    Feature.PAGE_STATE_FILTERS: ("6.15", f"{_SCHEME}/core_filters"),
    Feature.INTERVALS_GOAL: ("6.15", f"{_CONTEXT}/monitoring_attrs/intervals/intervals_goal"),
    Feature.NODE_GOALS: ("6.16", f"{_GOAL}/nid"),
    Feature.DESTINATIONS: ("6.17", f"{_SCHEME}/dests"),
    Feature.REFRESH: ("6.17", "refresh_ms"),
    Feature.ADDRESS_UNIT: ("6.18", f"{_CONTEXT}/addr_unit"),
    Feature.OBSOLETE_TARGET: ("6.19", f"{_CONTEXT}/targets/*/obsolete_target"),
    Feature.CGROUP_GOALS: ("6.19", f"{_GOAL}/path"),
    Feature.MAX_NR_SNAPSHOTS: ("7.0", f"{_SCHEME}/stats/max_nr_snapshots"),
    Feature.ACTIVE_GOALS: ("7.0", f"{_SCHEME}/stats/max_nr_snapshots"),
    Feature.GOAL_TUNER: ("7.1", f"{_SCHEME}/quotas/goal_tuner"),
    Feature.COLLAPSE: ("7.2", f"{_CONTEXT}/pause"),
    Feature.ELIGIBLE_GOAL: ("7.2", f"{_CONTEXT}/pause"),
    Feature.PAUSE: ("7.2", f"{_CONTEXT}/pause"),
    Feature.FAIL_CHARGE: ("7.2", f"{_SCHEME}/quotas/fail_charge_denom"),
    Feature.PROBES: ("7.2", f"{_CONTEXT}/monitoring_attrs/probes"),
    Feature.PROBE_WEIGHT: ("7.3", f"{_CONTEXT}/monitoring_attrs/probes/*/weight"),
}
_RELEASES = tuple(dict.fromkeys(release for release, _ in _ROWS.values()))
_RANK = {feature: _RELEASES.index(release) for feature, (release, _) in _ROWS.items()}

_OF_ACTION = {
    Action.LRU_PRIO: Feature.LRU_ACTIONS,
    Action.LRU_DEPRIO: Feature.LRU_ACTIONS,
    Action.MIGRATE_HOT: Feature.MIGRATE,
    Action.MIGRATE_COLD: Feature.MIGRATE,
    Action.COLLAPSE: Feature.COLLAPSE,
}
_OF_FILTER = {
    KernelFilterKind.ADDR: Feature.CORE_FILTERS,
    KernelFilterKind.TARGET: Feature.CORE_FILTERS,
    KernelFilterKind.ANON: Feature.FILTERS,
    KernelFilterKind.MEMCG: Feature.FILTERS,
    KernelFilterKind.YOUNG: Feature.YOUNG_FILTER,
    KernelFilterKind.ACTIVE: Feature.PAGE_STATE_FILTERS,
    KernelFilterKind.HUGEPAGE_SIZE: Feature.PAGE_STATE_FILTERS,
    KernelFilterKind.UNMAPPED: Feature.PAGE_STATE_FILTERS,
}
_OF_METRIC = {
    KernelMetric.USER_INPUT: Feature.GOALS,
    KernelMetric.SOME_MEM_PSI_US: Feature.PRESSURE_GOAL,
    KernelMetric.NODE_MEM_USED_BP: Feature.NODE_GOALS,
    KernelMetric.NODE_MEM_FREE_BP: Feature.NODE_GOALS,
    KernelMetric.NODE_MEMCG_USED_BP: Feature.CGROUP_GOALS,
    KernelMetric.NODE_MEMCG_FREE_BP: Feature.CGROUP_GOALS,
    KernelMetric.ACTIVE_MEM_BP: Feature.ACTIVE_GOALS,
    KernelMetric.INACTIVE_MEM_BP: Feature.ACTIVE_GOALS,
    KernelMetric.NODE_ELIGIBLE_MEM_BP: Feature.ELIGIBLE_GOAL,
}


def feature_of(value: Action | KernelFilterKind | KernelMetric | Tuner) -> Feature | None:
    """What a keyword needs; None where the tree has had it from the beginning."""
    if isinstance(value, Action):
        return _OF_ACTION.get(value)
    if isinstance(value, KernelFilterKind):
        return _OF_FILTER[value]
    if isinstance(value, KernelMetric):
        return _OF_METRIC[value]
    return Feature.GOAL_TUNER if value is Tuner.TEMPORAL else None


def since(feature: Feature) -> str:
    """The release that brought it, for people."""
    return _ROWS[feature][0]


@dataclass(frozen=True, kw_only=True)
class KernelFeatures:
    """What is known about this kernel's DAMON.  A feature in neither set could not be told.

    Attributes:
        reasons: for each known feature the file that tells.
        operations: what can be watched; None where no context shows it.
    """

    present: frozenset[Feature] = frozenset()
    absent: frozenset[Feature] = frozenset()
    reasons: Mapping[Feature, str] = field(default_factory=dict)
    operations: frozenset[Operations] | None = None

    def has(self, feature: Feature) -> bool | None:
        """None where it could not be told."""
        return True if feature in self.present else False if feature in self.absent else None

    def require(self, feature: Feature, what: str = "") -> None:
        """Raises NotSupported where the kernel is known to lack it."""
        if feature in self.absent:
            raise lacking(feature, what, reason=self.reasons.get(feature, ""))

    def require_operations(self, operations: Operations) -> None:
        """Raises NotSupported where the kernel is known to be built without them."""
        if self.operations is not None and operations not in self.operations:
            raise NotSupported(
                f"the DAMON of this kernel is built without {operations}",
                hint=f"it has {', '.join(sorted(self.operations)) or 'none'}; see CONFIG_DAMON_{operations.upper()}",
            )


def lacking(feature: Feature, what: str = "", *, reason: str = "") -> NotSupported:
    """What to raise where `what`, or else the feature itself, cannot be had."""
    text = f"the DAMON of this kernel has no {what or feature}"
    return NotSupported(f"{text} ({reason})" if reason else text, hint=f"it came with Linux {since(feature)}")


def look(tree: DamonTree, kdamonds: tuple[int, ...] | None = None, *, owner: Ownership | None = None) -> KernelFeatures:
    """What the directories tell that are there, whoever made them; only looks up names, and reads avail_operations.

    An empty tree tells nothing: claim a kdamond, and `look` at what `unfold` makes in it.

    Args:
        kdamonds: those to look at; None: all.
        owner: look at this directory of ours instead.
    """
    if owner is not None:
        bases = [""]
    else:
        numbers = tree.numbered("") if kdamonds is None else kdamonds
        bases = [f"{number}/" for number in numbers]
    seen, missing = _look_at_files(tree, bases, owner)
    latest = max(seen, key=_RANK.__getitem__, default=None)
    # A file that went away again tells nothing about what came after it.
    later = [feature for feature in missing if latest is None or _RANK[feature] > _RANK[latest]]
    earliest = min(later, key=_RANK.__getitem__, default=None)
    present = {feature: f"{path} is there" for feature, path in seen.items()}
    absent = {feature: f"{path} is not there" for feature, path in missing.items()}
    for feature, rank in _RANK.items():
        if feature in seen or feature in missing:
            continue
        if latest is not None and rank <= _RANK[latest]:
            present[feature] = present[latest]
        elif earliest is not None and rank >= _RANK[earliest]:
            absent[feature] = absent[earliest]
    return KernelFeatures(
        present=frozenset(present),
        absent=frozenset(absent),
        reasons=present | absent,
        operations=_read_operations(tree, bases, owner),
    )


def unfold(tree: DamonTree, owner: Ownership) -> None:
    """Make one of each kind of directory in a fresh kdamond of ours, so that every file that the kernel has shows.

    Writing nr_contexts anew takes all of it away again.
    """
    tree.write(owner, "contexts/nr_contexts", "1")
    tree.write(owner, f"{_CONTEXT}/targets/nr_targets", "1")
    tree.write(owner, f"{_CONTEXT}/schemes/nr_schemes", "1")
    for count in (f"{_CONTEXT}/schemes/0/quotas/goals/nr_goals", f"{_CONTEXT}/monitoring_attrs/probes/nr_probes"):
        if tree.has(count, owner=owner):
            tree.write(owner, count, "1")


def _look_at_files(
    tree: DamonTree, bases: list[str], owner: Ownership | None
) -> tuple[dict[Feature, str], dict[Feature, str]]:
    """Features whose file is there, and those whose file is not though its directory is; each with the file's path."""
    seen: dict[Feature, str] = {}
    missing: dict[Feature, str] = {}
    for feature, (_, pattern) in _ROWS.items():
        if not pattern:
            continue
        folder, _, name = pattern.rpartition("/")
        folders = [one for base in bases for one in _expand(tree, f"{base}{folder}", owner)]
        found = [one for one in folders if tree.has(posixpath.join(one, name), owner=owner)]
        if found:
            seen[feature] = posixpath.join(found[0], name)
        elif folders:
            missing[feature] = posixpath.join(folders[0], name)
    return seen, missing


def _expand(tree: DamonTree, pattern: str, owner: Ownership | None) -> list[str]:
    """The directories that are there, with each `*` as one that has a number."""
    head, star, tail = pattern.partition("/*")
    if not star:
        return [pattern] if tree.has(pattern or ".", owner=owner) else []
    return [
        one for number in tree.numbered(head, owner=owner) for one in _expand(tree, f"{head}/{number}{tail}", owner)
    ]


def _read_operations(tree: DamonTree, bases: list[str], owner: Ownership | None) -> frozenset[Operations] | None:
    for base in bases:
        path = f"{base}{_CONTEXT}/avail_operations"
        if tree.has(path, owner=owner):
            words = tree.read(path, owner=owner).split()
            return frozenset(one for one in Operations if one.value in words)
    return None
