"""Schemes and policies in plain sentences, and what about them is probably not meant."""

import math
from collections.abc import Callable

from memtherm.core.attributes import MonitoringAttributes
from memtherm.core.scheme import Action, Bounds, Scheme
from memtherm.policy.values import Policy
from memtherm.units import PAGE_SIZE, exact_rate, exact_size, exact_time

_METHODS = {
    "auto": "counts every page while that is cheap enough, else lets one page speak for its region",
    "census": "counts every page",
    "sampling": "lets one page speak for its region",
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
    Action.MIGRATE_HOT: "moves to other NUMA nodes, hottest first,",
    Action.MIGRATE_COLD: "moves to other NUMA nodes, coldest first,",
    Action.STAT: "counts",
}
_FOR_COLD_MEMORY = (Action.PAGEOUT, Action.COLD, Action.NOHUGEPAGE, Action.LRU_DEPRIO, Action.MIGRATE_COLD)
_FOR_HOT_MEMORY = (Action.HUGEPAGE, Action.COLLAPSE, Action.LRU_PRIO, Action.MIGRATE_HOT)
_NOT_YET = (
    Action.HUGEPAGE, Action.NOHUGEPAGE, Action.LRU_PRIO, Action.LRU_DEPRIO, Action.MIGRATE_HOT, Action.MIGRATE_COLD,
)  # fmt: skip
_UNIT_WORDS = {"d": "day", "h": "hour", "min": "minute", "s": "second"}


def explain(scheme: Scheme) -> str:
    """What a scheme does, as one sentence without a full stop.

    Example:
        >>> explain(parse_scheme_line("4K max 0% 0% 2min max pageout"))
        'pages out memory in regions of 4 KiB or more that was not accessed for 2 minutes or longer'
    """
    pattern = scheme.pattern
    size = _range_words(pattern.size_bytes, lambda value: exact_size(int(value)))
    place = f"in regions of {size}" if size else "in regions of any size"
    return f"{_VERBS[scheme.action]} memory {place} {_access_words(pattern.access_rate, pattern.age_s)}"


def explain_policy(policy: Policy) -> list[str]:
    """What a policy does: its targets, how it watches, each scheme, what it leaves alone; a sentence each."""
    names = [
        f'processes named "{target.name}"' if target.name else f"process {target.pid}" for target in policy.targets
    ]
    attributes = policy.attributes
    sentences = [
        f"watches {' and '.join(names)}" if names else "names no target: the command line must",
        f"{_METHODS[attributes.method]}, {_interval_words(attributes)}, with {attributes.min_nr_regions} to "
        f"{attributes.max_nr_regions} regions",
    ]
    sentences += [f'scheme "{scheme.name}": {explain(scheme)}' for scheme in policy.schemes]
    if policy.guard.min_target_bytes:
        sentences.append(f"leaves targets with less than {exact_size(policy.guard.min_target_bytes)} in memory alone")
    if policy.guard.override_application_hints:
        sentences.append("acts even against huge page advice that the application gave itself")
    return sentences


def _interval_words(attributes: MonitoringAttributes) -> str:
    if attributes.interval_goal is not None:
        share = exact_rate(attributes.interval_goal.cpu_share)
        return f"at intervals that fit themselves to the target and to {share} of one CPU"
    looks, decides = time_words(attributes.sampling_interval_s), time_words(attributes.aggregation_interval_s)
    return f"looks every {looks}, decides every {decides}"


def warnings(policy: Policy) -> list[str]:
    """What is allowed and probably not meant, or cannot work yet, in a whole policy; none is an empty list."""
    found = [f'scheme "{scheme.name}": {warning}' for scheme in policy.schemes for warning in scheme_warnings(scheme)]
    if not policy.guard.min_target_bytes:
        found.append("guard: no least size of a target: acting on small programs costs more than it gives")
    return found


def scheme_warnings(scheme: Scheme) -> list[str]:
    """What about one scheme is probably not meant, or cannot work yet."""
    pattern, found = scheme.pattern, []
    if scheme.action in _FOR_COLD_MEMORY:
        if _normal(pattern.access_rate, 1).maximum is None:
            found.append(
                f"{scheme.action} without an upper bound of the access rate acts on hot memory, too; for memory "
                'that was not accessed write access_rate = "0%", or 0% 0% in a scheme line (a bare 0 is no bound)'
            )
        if _normal(pattern.age_s).minimum is None:
            found.append(f"{scheme.action} without a least age acts on memory that was cold for one window only")
    if scheme.action in _FOR_HOT_MEMORY and _normal(pattern.access_rate, 1).minimum is None:
        found.append(f"{scheme.action} without a lower bound of the access rate acts on memory that nobody uses, too")
    for what, bounds in (("size", pattern.size_bytes), ("age", pattern.age_s)):
        if bounds.minimum and bounds.minimum == bounds.maximum:
            found.append(f'{what} is one exact value, which hardly any region has; write ">=" or "<=" before it')
    if pattern.size_bytes.maximum is not None and pattern.size_bytes.maximum < PAGE_SIZE:
        found.append(f"no region is smaller than a page of {exact_size(PAGE_SIZE)}: the scheme never matches")
    if scheme.action in _NOT_YET:
        found.append(f"this version cannot do {scheme.action} on another process: the scheme is matched, not applied")
    return found


def time_words(time_s: float) -> str:
    """A time in full: `2 minutes`, `1 second`, `100 ms`."""
    number, unit = exact_time(time_s).split(" ")
    word = _UNIT_WORDS.get(unit)
    if word is None:
        return f"{number} {unit}"
    return f"{number} {word}" if number == "1" else f"{number} {word}s"


def _normal(bounds: Bounds, top: float | None = None) -> Bounds:
    """Without bounds that exclude nothing: a minimum of 0, and a maximum at the top of the scale."""
    at_top = bounds.maximum is not None and bounds.maximum >= (math.inf if top is None else top)
    return Bounds(bounds.minimum or None, None if at_top else bounds.maximum)


def _range_words(bounds: Bounds, words: Callable[[float], str], top: float | None = None) -> str:
    if bounds.minimum and bounds.minimum == bounds.maximum:
        return f"exactly {words(bounds.minimum)}"
    bounds = _normal(bounds, top)
    low, high = bounds.minimum, bounds.maximum
    if high is None:
        return f"{words(low)} or more" if low is not None else ""
    if low is None:
        return f"at most {words(high)}" if high else f"exactly {words(high)}"
    return f"{words(low)} to {words(high)}"


def _access_words(rate: Bounds, age: Bounds) -> str:
    duration = _range_words(age, time_words).replace(" or more", " or longer")
    if rate.maximum == 0:
        return f"that was not accessed for {duration}" if duration else "that was not accessed in the last window"
    rate_words = _range_words(rate, exact_rate, 1)
    if rate_words:
        return f"with an access rate of {rate_words}" + (f" for {duration}" if duration else "")
    if duration:
        return f"at any access rate that has stayed about the same for {duration}"
    return "at any access rate"
