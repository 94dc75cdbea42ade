"""From command-line words to what `monitor` takes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from memtherm.core.attributes import MonitoringAttributes, with_given
from memtherm.errors import InvalidInput
from memtherm.policy.values import TargetSelector


def attributes_from(options: Mapping[str, Any], base: MonitoringAttributes) -> MonitoringAttributes:
    """The attributes of `base` with the options that were given in their place."""
    return with_given(base, {name: value for name, value in options.items() if value is not None})


_WORDS = ("pids", "names", "users", "cgroups", "children", "physical", "ranges", "program")


@dataclass(frozen=True, kw_only=True)
class TargetWords:
    """What the options of `cli.options.target_options` were given, and the program after `--`."""

    pids: Sequence[int] = ()
    names: Sequence[str] = ()
    users: Sequence[str] = ()
    cgroups: Sequence[str] = ()
    children: bool = False
    physical: bool = False
    ranges: Sequence[tuple[int, int]] = ()
    program: Sequence[str] = ()

    @classmethod
    def take(cls, options: dict[str, Any]) -> "TargetWords":
        """Out of all options of a command; those that are left are for others."""
        return cls(**{name: options.pop(name) for name in _WORDS})


def selectors_from(words: TargetWords) -> tuple[TargetSelector, ...]:
    """The targets that were named; of a program that is not started yet, none: see `selector_of_program`.

    Raises:
        InvalidInput: processes and a program to start, children of nothing, or an impossible target.
    """
    children, ranges = words.children, tuple(sorted(words.ranges))
    selectors = (
        *(TargetSelector(pid=pid, children=children, ranges=ranges) for pid in words.pids),
        *(TargetSelector(name=name, children=children, ranges=ranges) for name in words.names),
        *(TargetSelector(user=user, children=children, ranges=ranges) for user in words.users),
        *(TargetSelector(cgroup=cgroup, children=children, ranges=ranges) for cgroup in words.cgroups),
        *([TargetSelector(physical=True, ranges=ranges)] if words.physical else []),
    )
    if words.program and selectors:
        raise InvalidInput("both a program to start and processes were given", hint="give one of the two")
    if children and not words.program and not selectors:
        raise InvalidInput(
            "--children without processes or a program",
            hint="name them by --pid, --name, --user or --cgroup; in a policy write children = true",
        )
    return selectors


def planned_selectors(words: TargetWords) -> tuple[TargetSelector, ...]:
    """What will be watched, also of a program that is not started yet."""
    if not words.program:
        return selectors_from(words)
    return (TargetSelector(name=words.program[0], children=words.children, ranges=tuple(sorted(words.ranges))),)


def selector_of_program(pid: int, words: TargetWords) -> TargetSelector:
    """The program that was started for `words`."""
    return TargetSelector(pid=pid, children=words.children, ranges=tuple(sorted(words.ranges)), label=words.program[0])
