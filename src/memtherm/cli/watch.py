"""From command-line words to what `monitor` takes."""

import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from memtherm.core.attributes import MonitoringAttributes, with_given
from memtherm.errors import InvalidInput


def attributes_from(options: Mapping[str, Any], base: MonitoringAttributes) -> MonitoringAttributes:
    """The attributes of `base` with the options that were given in their place."""
    return with_given(base, {name: value for name, value in options.items() if value is not None})


def check_targets(pids: Sequence[int], names: Sequence[str], program: Sequence[str]) -> None:
    """Raises InvalidInput where processes were named and a program to start was given, too."""
    if program and (pids or names):
        raise InvalidInput("both a program to start and processes were given", hint="give one of the two")


def chosen_pids(pids: Sequence[int], child: subprocess.Popen[bytes] | None) -> tuple[int, ...]:
    """The processes that were named by pid, or the program that was started."""
    return tuple(pids) if child is None else (child.pid,)
