"""What the kernel would take, and then do nothing or the wrong thing with: said before a kdamond starts."""

from pathlib import Path

from memtherm.errors import InvalidInput
from memtherm.kdamond.parameters import (
    DONE_BY,
    FILTERED_BY_PAGE,
    MIGRATIONS,
    Context,
    KernelFilterKind,
    KernelMetric,
    KernelScheme,
    Operations,
)
from memtherm.linux.cgroups import read_hierarchies
from memtherm.linux.process import open_process


def check_startable(context: Context, *, was_started: bool = False) -> None:
    """Whether the kernel would do what `context` says.

    Args:
        was_started: it is for a kdamond that runs, whose targets may be obsolete.

    Raises:
        InvalidInput: it would refuse it, or take it and silently do something else.
        TargetGone: a target has exited.
    """
    _check_targets(context, was_started=was_started)
    for scheme in context.schemes:
        _check_scheme(scheme, context)
    for path in _cgroup_paths(context):
        _check_cgroup(path)


def _check_targets(context: Context, *, was_started: bool) -> None:
    is_physical = context.operations is Operations.PADDR
    if not any(not target.is_obsolete for target in context.targets):
        raise InvalidInput("a kdamond without a target ends at once", hint="give it a target")
    for target in context.targets:
        if target.is_obsolete:
            if not was_started:
                raise InvalidInput("an obsolete target at the start", hint="leave it out")
            continue
        if not target.regions and context.operations is not Operations.VADDR:
            raise InvalidInput(f"a target of {context.operations} without regions", hint="only vaddr finds its own")
        if not is_physical:
            open_process(target.pid).close()


def _check_scheme(scheme: KernelScheme, context: Context) -> None:
    operations = context.operations
    if scheme.action not in DONE_BY[operations]:
        raise InvalidInput(
            f"the kernel does not do {scheme.action} for {operations}",
            hint=f"{operations} has {', '.join(sorted(DONE_BY[operations]))}",
        )
    if scheme.action in MIGRATIONS:
        _check_destinations(scheme, operations)
    if scheme.ops_filters and operations is not Operations.PADDR and scheme.action not in FILTERED_BY_PAGE:
        raise InvalidInput(
            f"the kernel does not look at filters by page for {scheme.action} of processes",
            hint="it would act on what they leave out: leave such filters to user space, or take paddr",
        )
    for one in scheme.core_filters:
        if one.kind is KernelFilterKind.TARGET and one.target >= len(context.targets):
            raise InvalidInput(
                f"a filter by target {one.target}, and there are {len(context.targets)}", hint="targets count from 0"
            )
    for goal in scheme.quota.goals:
        if not goal.target_value:
            raise InvalidInput(f"the target of {goal.metric} is 0", hint="the kernel ignores such a goal")


def _check_destinations(scheme: KernelScheme, operations: Operations) -> None:
    if operations is Operations.PADDR:
        if scheme.destinations:
            raise InvalidInput("weighted destinations for paddr", hint="it moves to one node: give target_node")
        is_given = scheme.target_node >= 0
    else:
        is_given = scheme.target_node >= 0 or bool(scheme.destinations)
        if scheme.destinations and not any(one.weight for one in scheme.destinations):
            raise InvalidInput("the weights of all destinations are 0", hint="nothing would move: give one a weight")
    if not is_given:
        raise InvalidInput(f"{scheme.action} does not say where to", hint="give a node")


def _cgroup_paths(context: Context) -> set[str]:
    paths = {one.memcg_path for scheme in context.schemes for one in scheme.ops_filters}
    paths |= {one.path for probe in context.probes for one in probe.filters}
    of_cgroups = (KernelMetric.NODE_MEMCG_USED_BP, KernelMetric.NODE_MEMCG_FREE_BP)
    paths |= {goal.path for scheme in context.schemes for goal in scheme.quota.goals if goal.metric in of_cgroups}
    return paths - {""}


def _check_cgroup(path: str) -> None:
    """The kernel answers ENOMEM for a cgroup that it does not find."""
    hierarchies = read_hierarchies()
    if not hierarchies:
        raise InvalidInput(f"the cgroup {path}: no cgroup file system is mounted here", hint="mount one")
    # The first is the one that counts memory.
    directory = hierarchies[0].directory(path)
    if not directory or not Path(directory).is_dir():
        raise InvalidInput(f"there is no cgroup {path}", hint=f"ls {hierarchies[0].mount_point} shows those at the top")
