"""Guards on what the kernel does for us: watched from outside, because the kernel has none of them (design §7)."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol

import numpy as np

from memtherm.act.brake import Brake, PressureGuard
from memtherm.act.guard import mapping_refusals, target_refusal
from memtherm.act.swap_room import is_swap_full
from memtherm.core.guard import GuardSettings
from memtherm.core.ranges import Addresses, join_adjacent
from memtherm.core.scheme import Action
from memtherm.errors import HostCannot, TargetGone
from memtherm.linux.maps import read_smaps
from memtherm.linux.pagemap import Pagemap
from memtherm.linux.pressure import read_pressure
from memtherm.linux.process import Process
from memtherm.linux.swap import read_swap

# Flags of mappings are read from smaps, which walks all pages, about 40 ms per GiB: they get this share of a CPU.
_SHARE = 0.005
_LOOK_EVERY_S = 5.0
# Reserved address space is in pieces of tens of MiB, such as the 64 MiB of each of malloc's arenas.
_LARGE_BYTES = 8 << 20
# What they do needs pages that are there; others may begin with a mapping that is empty.
_FOR_RESIDENT = (Action.PAGEOUT, Action.COLD, Action.COLLAPSE, Action.MIGRATE_HOT, Action.MIGRATE_COLD)


class GuardedTarget(Protocol):
    """What is known of a target here."""

    @property
    def process(self) -> Process | None:
        """None of physical memory."""


class KernelGuards:
    """All guards of a session whose schemes the kernel carries out.

    Attributes:
        working_set_bytes: memory that was accessed in the last window.
    """

    def __init__(self, settings: GuardSettings, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._targets: dict[Process, _TargetGuards] = {}
        self._pressure = PressureGuard(settings.max_memory_pressure)
        self.working_set_bytes = 0

    def close(self) -> None:
        for one in self._targets.values():
            one.close()
        self._targets.clear()

    def follow(self, targets: Sequence[GuardedTarget]) -> None:
        """Guard these from now on, and no others."""
        wanted = [one.process for one in targets if one.process is not None]
        for process in self._targets.keys() - set(wanted):
            self._targets.pop(process).close()
        for process in wanted:
            if process not in self._targets:
                with suppress(TargetGone):
                    self._targets[process] = _TargetGuards(process, self._settings, self._clock)

    def refusal(self, target: GuardedTarget) -> str:
        """Why a target may not be acted on at all, or an empty text."""
        if target.process is None:
            return ""
        with suppress(TargetGone):
            return target_refusal(target.process, self._settings)
        return ""

    def kept_from(self, action: Action) -> tuple[tuple[int, int], ...]:
        """Addresses of all targets that the action may not touch: what is locked, handled by others, or advised."""
        parts = [one.kept_from(action) for one in self._targets.values()]
        if not parts:
            return ()
        start, end = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        return tuple(zip(*(column.tolist() for column in join_adjacent(start, end)), strict=True))

    def empty(self, action: Action, *, most: int) -> tuple[tuple[int, int], ...]:
        """Large address ranges without anything for the action: the largest ones, `most` at most, by address.

        The kernel charges a quota with the length of a region, whether memory is behind it or not (damon-spec §2.5).
        """
        found = [one.empty(action) for one in self._targets.values()]
        ranges = sorted((pair for pairs in found for pair in pairs), key=lambda pair: (pair[0] - pair[1], pair[0]))
        return tuple(sorted(ranges[:most]))

    def why_stopped(self, action: Action) -> str:
        """Why the action has to rest now: refaults, pressure, or no swap left; or an empty text."""
        if action is Action.STAT:
            return ""
        if action is Action.PAGEOUT and is_swap_full(self._settings.min_free_swap):
            return "stopped: swap is full, but for what stays free"
        for one in self._targets.values():
            if reason := one.brake(action, self.working_set_bytes):
                return reason
        return "" if self._targets else self._system_pressure()

    def note_paged_out(self, target: GuardedTarget, start: Addresses, end: Addresses) -> None:
        """The kernel has just paged out these ranges, sorted and disjoint."""
        one = self._targets.get(target.process) if target.process is not None else None
        if one is not None:
            one.note_paged_out(start, end)

    def _system_pressure(self) -> str:
        value = read_pressure("memory").value
        pressures = [("the system", value.some.fraction_10s)] if value is not None and value.some is not None else []
        allowance = self._pressure.decide(pressures, self._clock())
        return allowance.reason if allowance.share == 0 else ""


def why_not_without_swap(action: Action) -> str:
    """Why the kernel may not page out processes where there is no swap: it would count what stays as paged out."""
    if action is Action.PAGEOUT and read_swap().total_bytes == 0:
        return "without swap the kernel counts anonymous memory as paged out that stays where it is"
    return ""


def watches_refaults(action: Action, settings: GuardSettings) -> bool:
    """Whether a guard wants to know what is paged out, so as to see how much of it comes back."""
    return action is Action.PAGEOUT and settings.max_refault_rate > 0


def _large_gaps(start: Addresses, end: Addresses) -> tuple[tuple[int, int], ...]:
    wide = np.flatnonzero(start[1:] - end[:-1] >= np.uint64(_LARGE_BYTES))
    return tuple(zip(end[wide].tolist(), start[wide + 1].tolist(), strict=True))


class _TargetGuards:
    """Those of one process."""

    def __init__(self, process: Process, settings: GuardSettings, clock: Callable[[], float]) -> None:
        self._process = process
        self._settings = settings
        self._clock = clock
        self._pagemap = Pagemap(process)
        self._brake = Brake(process, self._pagemap, settings, clock=clock)
        self._due_s = float("-inf")
        self._kept: dict[Action, tuple[Addresses, Addresses]] = {}
        self._gaps: tuple[tuple[int, int], ...] = ()
        self._empty: tuple[tuple[int, int], ...] = ()

    def close(self) -> None:
        self._pagemap.close()

    def kept_from(self, action: Action) -> tuple[Addresses, Addresses]:
        """Looked up anew now and then; of an action that was not asked for before, at once."""
        now_s = self._clock()
        if now_s >= self._due_s or action not in self._kept:
            with suppress(TargetGone, HostCannot):
                self._look(frozenset({*self._kept, action}))
            self._due_s = now_s + max(_LOOK_EVERY_S, (self._clock() - now_s) / _SHARE)
        return self._kept.get(action, (np.zeros(0, np.uint64), np.zeros(0, np.uint64)))

    def empty(self, action: Action) -> tuple[tuple[int, int], ...]:
        """As at the last look for `kept_from`."""
        return self._empty if action in _FOR_RESIDENT else self._gaps

    def _look(self, actions: frozenset[Action]) -> None:
        detailed = read_smaps(self._process)
        mappings = detailed.mappings
        self._gaps = _large_gaps(mappings.starts, mappings.ends)
        holds = (detailed.rss_bytes + detailed.swap_bytes) > 0
        self._empty = _large_gaps(mappings.starts[holds], mappings.ends[holds])
        for action in actions:
            refused = np.zeros(len(mappings), np.bool_)
            for one in mapping_refusals(detailed, action, self._settings):
                refused |= one.refused
            self._kept[action] = join_adjacent(mappings.starts[refused], mappings.ends[refused])

    def brake(self, action: Action, working_set_bytes: int) -> str:
        with suppress(TargetGone):
            allowance = self._brake.allowance(action, working_set_bytes)
            return allowance.reason if allowance.share == 0 else ""
        return ""

    def note_paged_out(self, start: Addresses, end: Addresses) -> None:
        with suppress(TargetGone):
            self._brake.note_paged_out(start, end)
