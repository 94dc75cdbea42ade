"""What the methods have in common: targets that may go, deadlines, and a result at the end of a window."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Generic, Protocol, TypeVar

import numpy as np

from memtherm.core.protocols import Accessed, Clock
from memtherm.core.ranges import Addresses
from memtherm.core.report import SchemeReport
from memtherm.core.snapshot import Conditions, Regions
from memtherm.errors import TargetGone
from memtherm.units import format_time

# How long a reader who stops may have to wait.
_LONGEST_SLEEP_S = 0.2

Stopped = Callable[[], bool]
Between = Callable[[], None]
"""Called now and then within a window: a scheme may be due."""


class _Closeable(Protocol):
    @property
    def generation(self) -> int: ...

    def close(self) -> None: ...


_Probe = TypeVar("_Probe", bound=_Closeable)
_Answer = TypeVar("_Answer")


class Windows(ABC, Generic[_Probe]):
    """Takes one window after the other, of all targets at once.

    Attributes:
        gone: targets that turned out to be gone, with the reason; the loop takes them out.
        events: what a reader has to know, in sentences; the loop takes them out.
        needed_interval_s: the shortest interval between looks that the CPU share bears; 0 while unknown.
        ended_s: when the last window ended, seconds since the epoch; None: now.
        handed_down: names of the schemes that whoever measures carries out as well.
    """

    method: str
    ended_s: float | None = None
    handed_down: frozenset[str] = frozenset()

    def __init__(self, probes: Mapping[int, _Probe], *, names: Mapping[int, str], clock: Clock) -> None:
        self._probes = dict(probes)
        self._names = dict(names)
        self._clock = clock
        self._generations = {target: probe.generation for target, probe in probes.items()}
        self._late_looks = 0
        self._acting_cpu_s = 0.0
        self.gone: dict[int, str] = {}
        self.events: list[str] = []
        self.needed_interval_s = 0.0

    @abstractmethod
    def take(self, stopped: Stopped, between: Between) -> bool:
        """Take one window; False where it ended before its time."""

    @abstractmethod
    def regions(self) -> Regions:
        """The result of the window, in absolute units; in the middle of one a moving result (damon-spec §1.9)."""

    @abstractmethod
    def reset_age(self, target: int, start: Addresses, end: Addresses) -> None:
        """Start the age of some memory again: an action was applied to it.  Ranges are sorted and disjoint."""

    def accessed(self, target: int) -> Accessed | None:  # noqa: ARG002 - methods that see all pages override it
        """How to ask which memory of a target was accessed lately; None where only some pages are looked at."""
        return None

    @abstractmethod
    def conditions(self) -> Conditions:
        """How the window was measured; time and cost are the loop's to fill in."""

    def handed_down_reports(self) -> tuple[SchemeReport, ...]:
        """What each scheme of `handed_down` did since this was asked last."""
        return ()

    def close(self) -> None:
        """Give up what is held for measuring; the probes stay open."""

    def add(self, target: int, probe: _Probe, *, name: str) -> None:
        """Watch one more, from the next window on."""
        self._probes[target] = probe
        self._names[target] = name
        self._generations[target] = probe.generation

    def remove(self, target: int) -> None:
        """Forget a target that has gone."""
        self._probes.pop(target, None)

    def _each(self, call: Callable[[int, _Probe], _Answer]) -> dict[int, _Answer]:
        """Call for each target; those that are gone are noted, and give no answer."""
        answers = {}
        for target, probe in list(self._probes.items()):
            try:
                answers[target] = call(target, probe)
            except TargetGone as problem:
                self.gone[target] = str(problem)
                self._probes.pop(target)
        return answers

    def is_outdated(self, target: int) -> bool:
        """Whether the target has called exec in the window: what was found is of memory that is gone."""
        return target not in self._probes or self._generations[target] != self._probes[target].generation

    def _pause(self, between: Between) -> None:
        """Let schemes act within a window; their time is no cost of looking."""
        began_cpu_s = self._clock.cpu_s()
        between()
        self._acting_cpu_s += self._clock.cpu_s() - began_cpu_s

    def _has_new_memory(self, target: int, probe: _Probe) -> bool:
        """Whether the target has called exec since this was asked last: nothing learned holds then."""
        old, self._generations[target] = self._generations[target], probe.generation
        if old != probe.generation:
            self.events.append(f"{self._names[target]} has called exec: it is watched from new")
        return old != probe.generation

    def _wait(self, deadline_s: float, interval_s: float, stopped: Stopped, between: Between = lambda: None) -> float:
        """Sleep until the deadline of a look, and let schemes act meanwhile; the next deadline.

        Deadlines are counted on from the first, so that lateness does not add up unseen.  Sleeps in
        parts, so that a monitor with a long interval ends when it is told to.
        """
        now_s = self._clock.monotonic_s()
        if now_s > deadline_s + interval_s:
            self._late_looks += 1
            deadline_s = now_s + interval_s
        while not stopped() and (left_s := deadline_s - self._clock.monotonic_s()) > 0:
            self._clock.sleep(min(left_s, _LONGEST_SLEEP_S))
            self._pause(between)
        return deadline_s + interval_s


def stretched(interval_s: float) -> str:
    """What is told where a wanted interval cannot be kept."""
    return f"sampling interval is now {format_time(interval_s)}: clearing costs too much for the wanted one"


def joined_names(values: Mapping[int, str]) -> str:
    """Each different value once: `bpf`, or `bpf, smaps`."""
    return ", ".join(sorted(set(values.values())))


def concatenated(parts: list[Regions]) -> Regions:
    """Regions of several targets as one table."""
    return Regions(*(np.concatenate([getattr(part, name) for part in parts]) for name in Regions.__dataclass_fields__))
