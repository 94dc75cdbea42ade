"""What in a policy cannot work on this host, or only in part: for `check`, and before a run."""

from collections.abc import Iterator

from memtherm.act.choose import rank_actions
from memtherm.core.filters import FilterKind
from memtherm.core.goals import GoalMetric
from memtherm.core.scheme import Action, Scheme
from memtherm.errors import MemthermError
from memtherm.linux.cgroups import find_cgroup
from memtherm.linux.facts import HostFacts, probe_host
from memtherm.linux.nodes import NumaNode, read_nodes
from memtherm.linux.process_table import user_id_of
from memtherm.policy.values import Policy, TargetSelector
from memtherm.probe.choose import rank_probes
from memtherm.session.metrics import HostMetrics

# Probes that see single pages, and filters that need what only CAP_SYS_ADMIN shows: frame numbers, mapped files.
_PAGE_PROBES = ("bpf",)
_OF_FRAMES = (FilterKind.CGROUP, FilterKind.ACTIVE, FilterKind.UNMAPPED)


def host_warnings(policy: Policy) -> list[str]:
    """What this host lacks for a policy, a sentence each; none is an empty list.  A few milliseconds.

    Actions that cannot be done, goals that cannot be measured, NUMA nodes, cgroups and users that do not exist,
    filters that cannot be decided.  What is missing now may come later, such as the cgroup of a service.

    Raises:
        InvalidInput: MEMTHERM_WITHOUT hides what is no feature.
    """
    facts, nodes = probe_host(), read_nodes()
    found: list[str] = []
    for target in policy.targets:
        found += _of_target(target)
    ways = {way.action: way for way in rank_actions(facts, nodes)}
    for action in dict.fromkeys(scheme.action for scheme in policy.schemes):
        way = ways[action]
        if not way.usable or way.remedy:
            found.append(f"{action}: {way.reason}" + (f" ({way.remedy})" if way.remedy else ""))
    acts = any(scheme.action is not Action.STAT for scheme in policy.schemes)
    if acts and policy.guard.max_memory_pressure and facts.memory_pressure.value is None:
        found.append(f"guard: memory pressure is not watched: {facts.memory_pressure.reason}")
    for scheme in policy.schemes:
        several = [*_of_destinations(scheme, nodes), *_of_goals(scheme), *_of_filters(scheme, facts)]
        found += [f'scheme "{scheme.name}": {one}' for one in several]
    return [f"on this host: {one}" for one in dict.fromkeys(found)]


def _of_target(target: TargetSelector) -> Iterator[str]:
    try:
        if target.user is not None:
            user_id_of(target.user)
        if target.cgroup is not None:
            find_cgroup(target.cgroup)
    except MemthermError as problem:
        yield f"target: {_told(problem)}"


def _of_destinations(scheme: Scheme, nodes: tuple[NumaNode, ...]) -> Iterator[str]:
    known = [node.number for node in nodes if node.total_bytes]
    for destination in scheme.destinations:
        if destination.node not in known:
            numbers = ", ".join(map(str, known))
            yield f"destination: there is no memory node {destination.node} (nodes with memory: {numbers})"


def _of_goals(scheme: Scheme) -> Iterator[str]:
    """What cannot be measured tells so when it is measured."""
    metrics = HostMetrics()
    for goal in scheme.quota.goals:
        if goal.metric is GoalMetric.USER_INPUT:
            continue
        try:
            metrics.goal_value(goal)
        except MemthermError as problem:
            yield f"goal {goal.metric}: {_told(problem)}"


def _of_filters(scheme: Scheme, facts: HostFacts) -> Iterator[str]:
    for one in scheme.filters:
        if one.kind is FilterKind.CGROUP:
            try:
                find_cgroup(one.cgroup)
            except MemthermError as problem:
                yield f"filter by cgroup: {_told(problem)}"
        if one.kind is FilterKind.YOUNG:
            seeing = [way for way in rank_probes(facts) if way.name in _PAGE_PROBES]
            if not any(way.usable for way in seeing):
                why = "; ".join(f"not by {way.name}: {way.reason} ({way.remedy})" for way in seeing)
                yield f"filter by young: no probe sees single pages: {why}"
        needs_frames = one.kind in _OF_FRAMES or (one.kind is FilterKind.HUGE_PAGE and not facts.has_pagemap_scan)
        if needs_frames and "CAP_SYS_ADMIN" not in facts.capabilities:
            yield f"filter by {one.kind}: missing CAP_SYS_ADMIN (run as root)"


def _told(problem: MemthermError) -> str:
    return f"{problem.message} ({problem.hint})" if problem.hint else problem.message
