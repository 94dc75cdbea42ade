"""What in a policy is allowed and probably not meant, as it can be seen without a look at a host."""

from collections.abc import Iterator
from itertools import combinations

from memtherm.core.attributes import MonitoringAttributes
from memtherm.core.filters import FilterKind
from memtherm.core.goals import GoalMetric, Tuner
from memtherm.core.guard import GuardSettings
from memtherm.core.pattern import AccessPattern, Bounds
from memtherm.core.quota import Quota
from memtherm.core.scheme import Action, Scheme
from memtherm.core.watermarks import Watermarks
from memtherm.policy.values import Policy
from memtherm.policy.words import normal, pattern_words, time_words
from memtherm.units import PAGE_SIZE, exact_size

_FOR_COLD_MEMORY = (Action.PAGEOUT, Action.COLD, Action.NOHUGEPAGE, Action.LRU_DEPRIO, Action.MIGRATE_COLD)
_FOR_HOT_MEMORY = (Action.HUGEPAGE, Action.COLLAPSE, Action.LRU_PRIO, Action.MIGRATE_HOT)
_NOT_YET = (Action.LRU_PRIO, Action.LRU_DEPRIO)
_BY_PTRACE = (Action.HUGEPAGE, Action.NOHUGEPAGE)
_MIGRATIONS = (Action.MIGRATE_HOT, Action.MIGRATE_COLD)
_REFUSED_WITHOUT_BOUND = (Action.PAGEOUT, Action.COLD)
_REFUSED = "run --apply refuses it"
_OUT = frozenset((Action.PAGEOUT, Action.COLD, Action.LRU_DEPRIO))
# What one of these does, one of those undoes.  A collapse brings back what is in swap.
_OPPOSITES = (
    (frozenset((Action.WILLNEED, Action.LRU_PRIO)), _OUT),
    (frozenset((Action.COLLAPSE,)), frozenset((Action.PAGEOUT,))),
    (frozenset((Action.HUGEPAGE, Action.COLLAPSE)), frozenset((Action.NOHUGEPAGE,))),
)


def warnings(policy: Policy) -> list[str]:
    """What is allowed and probably not meant, or cannot work yet, in a whole policy; none is an empty list."""
    found = []
    for scheme in policy.schemes:
        of_scheme = [
            *scheme_warnings(scheme),
            *_guarded(scheme, policy.guard),
            *_interval_warnings(scheme, policy.attributes),
        ]
        found += [f'scheme "{scheme.name}": {warning}' for warning in of_scheme]
    found += _fights(policy.schemes)
    if not policy.guard.min_target_bytes:
        found.append("guard: no least size of a target: acting on small programs costs more than it gives")
    return found


def scheme_warnings(scheme: Scheme) -> list[str]:
    """What about one scheme is probably not meant, or cannot work yet."""
    found = [*_pattern_warnings(scheme.action, scheme.pattern), *_quota_warnings(scheme.quota, scheme.action)]
    if scheme.watermarks is not None:
        found += _watermark_warnings(scheme.watermarks)
    if scheme.action in _MIGRATIONS and not scheme.destinations:
        found.append(f"{scheme.action} has no destinations: {_REFUSED}; add destinations = [{{ node = 1 }}]")
    if scheme.action is Action.WILLNEED and any(
        one.kind is FilterKind.YOUNG and one.allow and one.matching for one in scheme.filters
    ):
        found.append("memory that was accessed since the last look is there already: willneed has nothing to do")
    if scheme.action in _NOT_YET:
        found.append(f"this version cannot do {scheme.action} on another process: {_REFUSED}")
    return found


def _pattern_warnings(action: Action, pattern: AccessPattern) -> Iterator[str]:
    if action in _FOR_COLD_MEMORY:
        if normal(pattern.access_rate, 1).maximum is None:
            is_refused = action in _REFUSED_WITHOUT_BOUND and pattern.access_rate.maximum is None
            yield (
                f"{action} without an upper bound of the access rate acts on hot memory, too; for memory "
                'that was not accessed write access_rate = "0%", or 0% 0% in a scheme line (a bare 0 is no bound)'
                + (f"; {_REFUSED} as it is" if is_refused else "")
            )
        if normal(pattern.age_s).minimum is None:
            yield f"{action} without a least age acts on memory that was cold for one window only"
    if action in _FOR_HOT_MEMORY and normal(pattern.access_rate, 1).minimum is None:
        yield f"{action} without a lower bound of the access rate acts on memory that nobody uses, too"
    for what, bounds in (("size", pattern.size_bytes), ("age", pattern.age_s)):
        if bounds.minimum and bounds.minimum == bounds.maximum:
            yield f'{what} is one exact value, which hardly any region has; write ">=" or "<=" before it'
    if pattern.size_bytes.maximum is not None and pattern.size_bytes.maximum < PAGE_SIZE:
        yield f"no region is smaller than a page of {exact_size(PAGE_SIZE)}: the scheme never matches"


def _quota_warnings(quota: Quota, action: Action) -> Iterator[str]:
    if not quota.is_set:
        if quota != Quota():
            yield "the quota limits nothing: it has neither bytes nor time, and no goals"
        return
    if action is not Action.STAT and not (quota.weights.age or quota.weights.access_rate):
        yield "a quota without weights has no order: the lowest addresses come first; add weights = { age = 1 } or so"
    if quota.tuner is Tuner.TEMPORAL and not quota.goals:
        yield "a tuner without goals has nothing to follow"
    if quota.tuner is Tuner.TEMPORAL and quota.goals and not (quota.size_bytes or quota.time_s):
        yield "tuner temporal without bytes and time acts on all at once until its goals are reached"
    if any(goal.metric is GoalMetric.USER_INPUT for goal in quota.goals):
        yield "user_input is set by a program that uses memtherm: on the command line this goal is never reached"


def _watermark_warnings(marks: Watermarks) -> Iterator[str]:
    if marks.mid == marks.low:
        yield "the watermarks mid and low are the same: once the scheme rests, it never starts again"
    elif marks.high == marks.mid < 1:
        yield "the watermarks high and mid are the same: the scheme starts and rests by turns around them"


def _guarded(scheme: Scheme, guard: GuardSettings) -> Iterator[str]:
    if scheme.action in _BY_PTRACE and not guard.allow_ptrace:
        yield (
            f"{scheme.action} on another process needs allow_ptrace = true in [guard]: without it {_REFUSED}"
            + ("; collapse needs no ptrace" if scheme.action is Action.HUGEPAGE else "")
        )
    if scheme.action is Action.COLLAPSE and guard.override_application_hints:
        # Seen on 6.18 (damon-spec §5.2).  The advice of hugepage takes the flag away, and is not refused.
        yield (
            "override_application_hints changes nothing for collapse: the kernel itself refuses to collapse memory "
            "for which the application asked for no huge pages (VmFlags nh)"
        )


def _interval_warnings(scheme: Scheme, attributes: MonitoringAttributes) -> Iterator[str]:
    interval_s = scheme.apply_interval_s
    if interval_s is not None and attributes.interval_goal is None and interval_s < attributes.sampling_interval_s:
        look = time_words(attributes.sampling_interval_s)
        yield f"an apply interval below the time between two looks, {look}, is that time"


def _fights(schemes: tuple[Scheme, ...]) -> Iterator[str]:
    """Two schemes of which each undoes what the other did."""
    for one, other in combinations(schemes, 2):
        if not _are_opposite(one, other) or (one.targets and other.targets and not {*one.targets} & {*other.targets}):
            continue
        common = _common(one.pattern, other.pattern)
        if common is not None:
            filters = ", as far as their filters let both" if one.filters or other.filters else ""
            yield (
                f'schemes "{one.name}" and "{other.name}" act against each other on memory '
                f"{pattern_words(common)}{filters}"
            )


def _are_opposite(one: Scheme, other: Scheme) -> bool:
    if one.action in _MIGRATIONS and other.action in _MIGRATIONS:
        nodes, other_nodes = ({place.node for place in scheme.destinations} for scheme in (one, other))
        return bool(nodes and other_nodes) and (one.action is not other.action or nodes != other_nodes)
    return any(
        (one.action in these and other.action in those) or (one.action in those and other.action in these)
        for these, those in _OPPOSITES
    )


def _common(one: AccessPattern, other: AccessPattern) -> AccessPattern | None:
    """Memory that fits both; None where there is none, or a border only."""
    size = _overlap(one.size_bytes, other.size_bytes)
    rate = _overlap(one.access_rate, other.access_rate)
    age = _overlap(one.age_s, other.age_s)
    if size is None or rate is None or age is None:
        return None
    return AccessPattern(size_bytes=size, access_rate=rate, age_s=age)


def _overlap(one: Bounds, other: Bounds) -> Bounds | None:
    low = max(one.minimum or 0.0, other.minimum or 0.0)
    high = min((bound for bound in (one.maximum, other.maximum) if bound is not None), default=None)
    if high is None or low < high:
        return Bounds(low or None, high)
    # "<= 5%" and ">= 5%" share a border, and are not meant to overlap; "0%" lies within "<= 5%".
    is_point = any((bounds.minimum or 0.0) == bounds.maximum for bounds in (one, other))
    return Bounds(low, high) if low == high and is_point else None
