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


@dataclass(frozen=True, kw_only=True)
class TargetWords:
    """What the options of `cli.options.target_options` were given, and the program after `--`."""

    pids: Sequence[int] = ()
    names: Sequence[str] = ()
    users: Sequence[str] = ()
    cgroups: Sequence[str] = ()
    children: bool = False
    program: Sequence[str] = ()

    @classmethod
    def take(cls, options: dict[str, Any]) -> "TargetWords":
        """Out of all options of a command; those that are left are for others."""
        return cls(**{name: options.pop(name) for name in ("pids", "names", "users", "cgroups", "children", "program")})


def selectors_from(words: TargetWords) -> tuple[TargetSelector, ...]:
    """The targets that were named; of a program that is not started yet, none: see `selector_of_program`.

    Raises:
        InvalidInput: processes and a program to start, children of nothing, or an impossible target.
    """
    children = words.children
    selectors = (
        *(TargetSelector(pid=pid, children=children) for pid in words.pids),
        *(TargetSelector(name=name, children=children) for name in words.names),
        *(TargetSelector(user=user, children=children) for user in words.users),
        *(TargetSelector(cgroup=cgroup, children=children) for cgroup in words.cgroups),
    )
    if words.program and selectors:
        raise InvalidInput("both a program to start and processes were given", hint="give one of the two")
    if children and not words.program and not selectors:
        raise InvalidInput(
            "--children without processes or a program",
            hint="name them by --pid, --name, --user or --cgroup; in a policy write children = true",
        )
    return selectors


def selector_of_program(pid: int, words: TargetWords) -> TargetSelector:
    """The program that was started for `words`."""
    return TargetSelector(pid=pid, children=words.children, label=words.program[0])
