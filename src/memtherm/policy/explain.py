"""Schemes and policies in plain sentences."""

from memtherm.core.attributes import MonitoringAttributes
from memtherm.core.filters import Filter, FilterKind, default_rejects
from memtherm.core.goals import Goal, GoalMetric, Tuner
from memtherm.core.quota import Quota, Weights
from memtherm.core.scheme import Action, Destination, Scheme
from memtherm.core.watermarks import Watermarks
from memtherm.policy.values import PHYSICAL, Policy, TargetSelector
from memtherm.policy.words import each_words, list_words, pattern_words, range_words, size_words, time_words
from memtherm.units import exact_rate, exact_size

_METHODS = {
    "auto": "counts every page while that is cheap enough, else lets one page speak for its region",
    "census": "counts every page",
    "sampling": "lets one page speak for its region",
    "smaps": "lets the kernel's count of accessed pages of a mapping speak for all of it",
    "kdamond": "has the kernel's DAMON look, which lets one page speak for its region",
}
_VERBS = {
    Action.WILLNEED: "asks the kernel to bring in",
    Action.COLD: "marks as cold, so that the kernel reclaims it first,",
    Action.PAGEOUT: "pages out",
    Action.COLLAPSE: "collapses into huge pages",
    Action.HUGEPAGE: "allows huge pages for",
    Action.NOHUGEPAGE: "forbids huge pages for",
    Action.LRU_PRIO: "has the kernel keep for longer",
    Action.LRU_DEPRIO: "has the kernel reclaim sooner",
    Action.MIGRATE_HOT: "moves",
    Action.MIGRATE_COLD: "moves",
    Action.STAT: "counts",
}
_COLDEST_FIRST = (Action.PAGEOUT, Action.COLD, Action.NOHUGEPAGE, Action.LRU_DEPRIO, Action.MIGRATE_COLD)
# What a scheme does that is limited by guards beside its own limits.
_LIMITED = {
    "pages out": {Action.PAGEOUT},
    "brings back": {Action.WILLNEED},
    "moves": {Action.MIGRATE_HOT, Action.MIGRATE_COLD},
    "collapses": {Action.COLLAPSE},
}
_MEMORY_OF_FILTERS = {
    FilterKind.ANONYMOUS: "anonymous memory",
    FilterKind.FILE: "memory of files",
    FilterKind.YOUNG: "memory that was accessed since the last look",
    FilterKind.ACTIVE: "memory on an active list of reclaim",
    FilterKind.UNMAPPED: "memory of files that no page table of the target has",
}


def explain(scheme: Scheme) -> str:
    """What a scheme does, as one sentence without a full stop.

    Example:
        >>> explain(parse_scheme_line("4K max 0% 0% 2min max pageout"))
        'pages out memory in regions of 4 KiB or more that was not accessed for 2 minutes or longer'
    """
    parts = [f"{_VERBS[scheme.action]} memory {pattern_words(scheme.pattern)}"]
    if scheme.action in (Action.MIGRATE_HOT, Action.MIGRATE_COLD):
        parts.append(_destination_words(scheme.destinations))
    if scheme.targets:
        names = list_words(f'"{label}"' for label in scheme.targets)
        parts.append(f"for {names} only")
    if scheme.filters:
        parts.append(_filters_words(scheme.filters))
    parts += _quota_words(scheme.quota, scheme.action)
    if scheme.watermarks is not None:
        parts.append(_watermark_words(scheme.watermarks))
    if scheme.apply_interval_s is not None:
        each = each_words(scheme.apply_interval_s)
        parts.append(f"once {each}")
    if scheme.max_nr_snapshots:
        count = scheme.max_nr_snapshots
        parts.append(f"and ends after {count} {'apply' if count == 1 else 'applies'}")
    return ", ".join(parts)


def explain_policy(policy: Policy) -> list[str]:
    """What a policy does: its targets, how it watches, each scheme, what it leaves alone; a sentence each."""
    attributes = policy.attributes
    # Nothing else sees physical memory, or keeps to given addresses.
    by_kernel = attributes.method == "auto" and any(target.physical or target.ranges for target in policy.targets)
    method = "kdamond" if by_kernel else attributes.method
    targets = list_words(_target_words(target) for target in policy.targets) if policy.targets else ""
    return [
        f"watches {targets}" if targets else "names no target: the command line must",
        f"{_METHODS[method]}, {_interval_words(attributes, method)}, with {attributes.min_nr_regions} to "
        f"{attributes.max_nr_regions} regions",
        *(f'scheme "{scheme.name}": {explain(scheme)}' for scheme in policy.schemes),
        *_guard_sentences(policy),
        *_limit_sentences(policy),
    ]


def _target_words(target: TargetSelector) -> str:
    if target.physical:
        what = PHYSICAL
    elif target.name is not None:
        what = f'processes named "{target.name}"'
    elif target.user is not None:
        what = f"processes of user {target.user}"
    elif target.cgroup is not None:
        what = f"processes in the cgroup {target.cgroup} and below it"
    else:
        what = f"process {target.pid}"
    what += " with all that they start" if target.children else ""
    if target.ranges:
        what += " at " + list_words(f"{start:#x}-{end:#x}" for start, end in target.ranges)
    own = (target.name, target.user, target.cgroup, target.pid, PHYSICAL if target.physical else None)
    return what if target.label in map(str, own) else f'{what} (called "{target.label}")'


def _interval_words(attributes: MonitoringAttributes, method: str) -> str:
    if attributes.interval_goal is not None and method == "kdamond":
        return "at intervals that fit themselves to the target"
    if attributes.interval_goal is not None:
        share = exact_rate(attributes.interval_goal.cpu_share)
        return f"at intervals that fit themselves to the target and to {share} of one CPU"
    looks, decides = time_words(attributes.sampling_interval_s), time_words(attributes.aggregation_interval_s)
    return f"looks every {looks}, decides every {decides}"


def _destination_words(destinations: tuple[Destination, ...]) -> str:
    if len(destinations) <= 1:
        return f"to node {destinations[0].node}" if destinations else "to no other NUMA node"
    total = sum(one.weight for one in destinations)
    return "to " + list_words(f"node {one.node} ({one.weight} of {total})" for one in destinations)


def _quota_words(quota: Quota, action: Action) -> list[str]:
    """How much, in which order, and what that follows."""
    if not quota.is_set:
        return []
    limits = [size_words(quota.size_bytes)] if quota.size_bytes else []
    limits += [f"{time_words(quota.time_s)} of its time"] if quota.time_s else []
    each = each_words(quota.reset_interval_s) if quota.reset_interval_s else "an apply"
    words = [f"at most {list_words(limits)} {each}"] if limits else []
    if any(_counting(quota.weights)):
        words.append(f"{'coldest' if action in _COLDEST_FIRST else 'hottest'} first {_weight_words(quota.weights)}")
    if quota.goals:
        goals = list_words(_goal_words(goal, each) for goal in quota.goals)
        how = "as much as it takes" if quota.tuner is Tuner.CONSIST else "without a brake"
        words.append(f"{how} until {goals}")
    if quota.fail_charge[1]:
        numerator, denominator = quota.fail_charge
        words.append(f"a byte tried in vain counts as {numerator}/{denominator}")
    return words


def _counting(weights: Weights) -> tuple[int, int]:
    """The weights that count; that of the size does not."""
    return weights.access_rate, weights.age


def _weight_words(weights: Weights) -> str:
    if not weights.age:
        return "by access rate"
    if not weights.access_rate:
        return "by age"
    return f"by access rate and age ({weights.access_rate} to {weights.age})"


def _goal_words(goal: Goal, each: str) -> str:
    where = f" of node {goal.node}" if goal.node is not None else ""
    metric = goal.metric
    if metric is GoalMetric.MEMORY_PRESSURE:
        group = f" in the cgroup {goal.cgroup}" if goal.cgroup else ""
        return f"some task{group} waits for memory for {time_words(goal.target)} {each}"
    if metric is GoalMetric.USER_INPUT:
        return f"the number that a program gives is {goal.target:g}"
    share = exact_rate(goal.target)
    if metric in (GoalMetric.ACTIVE_MEMORY, GoalMetric.INACTIVE_MEMORY):
        kind = "active" if metric is GoalMetric.ACTIVE_MEMORY else "inactive"
        return f"{share} of the memory that can be reclaimed is {kind}"
    if goal.cgroup:
        verb = "uses" if metric is GoalMetric.USED_MEMORY else "leaves"
        return f"the cgroup {goal.cgroup} {verb} {share} of memory{where}"
    return f"{share} of memory{where} is {'used' if metric is GoalMetric.USED_MEMORY else 'free'}"


def _watermark_words(marks: Watermarks) -> str:
    high, mid, low = exact_rate(marks.high), exact_rate(marks.mid), exact_rate(marks.low)
    if marks.high == marks.mid == 1:
        return f"only while {low} or more of memory is free"
    rest = f", and rests below {low}" if marks.low else ""
    return f"only while less than {high} of memory is free (it starts below {mid}{rest})"


def _filters_words(filters: tuple[Filter, ...]) -> str:
    if len(filters) == 1:
        # To reject all but something is to allow it only.
        only = filters[0].allow is filters[0].matching
        return f"{'only' if only else 'but not'} {_memory_words(filters[0])}"
    steps = [f"{'takes' if one.allow else 'leaves out'} {_filter_words(one)}" for one in filters]
    rest = "leaves out" if any(default_rejects(filters)) else "takes"
    return f"and of it in this order {', '.join(steps)}, {rest} the rest"


def _filter_words(one: Filter) -> str:
    return _memory_words(one) if one.matching else f"all but {_memory_words(one)}"


def _memory_words(one: Filter) -> str:
    words = _MEMORY_OF_FILTERS.get(one.kind, "")
    if one.kind is FilterKind.ADDRESS:
        words = f"memory from {one.start:#x} to {one.end:#x}"
    elif one.kind is FilterKind.TARGET:
        words = f'memory of "{one.target}"'
    elif one.kind is FilterKind.MAPPING:
        words = f"memory of mappings named {one.pattern}"
    elif one.kind is FilterKind.HUGE_PAGE:
        words = f"memory in pages of {range_words(one.size_bytes, size_words) or 'any size'}"
    elif one.kind is FilterKind.CGROUP:
        words = f"memory that is charged to the cgroup {one.cgroup}"
    return words


def _is_physical(policy: Policy) -> bool:
    """Whether nobody's memory in particular is meant: whose it is, and who wants it back, is not seen then."""
    return any(target.physical for target in policy.targets)


def _guard_sentences(policy: Policy) -> list[str]:
    """Which targets are too small, and what is allowed that is not by default."""
    found, guard = [], policy.guard
    if guard.min_target_bytes and not _is_physical(policy):
        floor = exact_size(guard.min_target_bytes)
        found.append(f"leaves targets alone that have less than {floor} in memory and swap together")
    if guard.override_application_hints:
        found.append("acts even against huge page advice that the application gave itself")
    if guard.allow_ptrace:
        found.append("stops a target for a moment to have it give huge page advice itself (ptrace)")
    if guard.keep_huge_page_advice:
        found.append("leaves the huge page advice that it gave in place at the end")
    return found


def _limit_sentences(policy: Policy) -> list[str]:
    """The guards that limit, slow down and stop, as far as they concern one of the schemes; then those switched off."""
    actions = {scheme.action for scheme in policy.schemes}
    verbs = [verb for verb, limited in _LIMITED.items() if actions & limited]
    if not verbs:
        return []
    guard, does = policy.guard, list_words(verbs)
    refaults, pressure = exact_rate(guard.max_refault_rate), exact_rate(guard.max_memory_pressure)
    # Each with what is said where it is on, and where it is off.
    guards: list[tuple[float, str, str]] = [
        (
            guard.max_bytes_per_s,
            f"{does} at most {exact_size(guard.max_bytes_per_s)} of a target a second on average",
            f"{does} as much of a target at once as the schemes say",
        )
    ]
    brakes: list[tuple[float, str, str]] = [
        (
            guard.max_memory_pressure,
            f"stops where some task waits for memory more than {pressure} of the time",
            "does not mind memory pressure",
        )
    ]
    if Action.PAGEOUT in actions:
        guards.append(
            (guard.min_free_swap, f"leaves {exact_rate(guard.min_free_swap)} of all swap free", "may fill swap")
        )
    if Action.PAGEOUT in actions and not _is_physical(policy):
        found = f"stops paging out where more than {refaults} of the working set comes back within a minute"
        brakes.insert(0, (guard.max_refault_rate, found, "does not mind how much of what it paged out comes back"))
    nr_brakes = sum(value > 0 for value, _, _ in brakes)
    on = [words for value, words, _ in (*guards, *brakes) if value]
    on += [f"slows down from half of {'that' if nr_brakes == 1 else 'both'} on"] if nr_brakes else []
    off = [words for value, _, words in (*guards, *brakes) if not value]
    return [list_words(on), *off] if on else off
