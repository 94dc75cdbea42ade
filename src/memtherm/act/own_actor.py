"""An Actor for memory of this process: by madvise, as any user, and never beyond the memory that it is given."""

import os
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager

import numpy as np
from numpy.typing import NDArray

from memtherm.act.apply import TargetActor
from memtherm.act.effect import Effect, Subject
from memtherm.act.guard import MappingRefusal, mapping_refusals
from memtherm.act.huge_advice import AdviceLog, joined_left
from memtherm.act.own_effects import OwnColdEffect, OwnWillneedEffect, hidden_files
from memtherm.act.pieces import Pieces
from memtherm.act.verify import EFFECTS
from memtherm.core.guard import GuardSettings
from memtherm.core.ranges import Addresses, join_adjacent
from memtherm.core.regions import Range
from memtherm.core.scheme import Action
from memtherm.errors import HostCannot, InvalidInput, TargetGone
from memtherm.linux.capabilities import missing
from memtherm.linux.maps import DetailedMappings
from memtherm.linux.numa_maps import has_numa_maps
from memtherm.linux.own_advise import OwnAdvice, advise_own
from memtherm.linux.process import Process, open_process
from memtherm.linux.remote_call import PtraceAdvice
from memtherm.units import PAGE_SIZE

_ADVICE = {
    Action.WILLNEED: OwnAdvice.WILLNEED,
    Action.COLD: OwnAdvice.COLD,
    Action.PAGEOUT: OwnAdvice.PAGEOUT,
    Action.COLLAPSE: OwnAdvice.COLLAPSE,
}
# Huge page advice that no advice could take away (AdviceLog.left), by the id of the array that it is on.
_left: dict[int, NDArray[np.void]] = {}
_OUTSIDE = "not the array's own memory, or a page that it shares with other memory"


def own_actor(
    within: Sequence[Range],
    *,
    guard: GuardSettings,
    apply: bool,
    ours: Callable[[], Collection[str]] = tuple,
    owner: Callable[[], object | None] | None = None,
) -> TargetActor:
    """An Actor for some memory of this process.  Close it, also in the child of a fork.

    All actions on processes, with the guards of design §7, but for those that are of whole targets
    (`min_target_bytes`, `allow_ptrace`, and that memtherm leaves itself alone).  Needs no privilege: what cannot be
    done or verified without one is refused with its reason, and ends no session.  One thread at a time may use it.

    Args:
        within: (start, end) of the pages that may be acted on, ascending and disjoint, whole pages; whatever else is
            planned is refused.
        guard: settings of the guards.
        apply: without it everything is looked at and nothing is done.
        ours: asked for the VmFlags that watching has put on the memory, such as `uw`: these are no refusal.
        owner: such as a weakref to the array: what it answers is kept alive while a step lasts, and where it answers
            None the memory has gone (TargetGone).

    Raises:
        InvalidInput: ranges that are not as said.
        NotPermitted: this process may not read its own /proc files, as its user has changed since it began.
    """
    start, end = _checked(within)
    process = open_process(os.getpid())
    try:
        return TargetActor(
            process,
            guard=guard,
            apply=apply,
            way=OwnMemory(process, (start, end), guard=guard, ours=ours, owner=owner),
        )
    except BaseException:
        process.close()
        raise


class OwnMemory:
    """The AdviceWay of own_actor, whose arguments it takes; `process` is this one, and is closed with it."""

    needs_ptrace = False

    def __init__(
        self,
        process: Process,
        within: tuple[Addresses, Addresses],
        *,
        guard: GuardSettings,
        ours: Callable[[], Collection[str]],
        owner: Callable[[], object | None] | None,
    ) -> None:
        self._process = process
        self._within = within
        self._guard = guard
        self._ours = ours
        self._owner = owner
        self._cold_refusal = ""
        self.effects: Mapping[Action, Callable[[Subject], Effect]] = EFFECTS | {Action.WILLNEED: OwnWillneedEffect}
        if has_numa_maps(process):
            self.effects = {**self.effects, Action.COLD: OwnColdEffect}
        elif lacking := missing(("CAP_SYS_ADMIN",)):
            self._cold_refusal = (
                f"cold cannot be verified: this kernel has no /proc/PID/numa_maps (CONFIG_NUMA), and without "
                f"{lacking[0]} page frames are hidden"
            )

    def held(self) -> AbstractContextManager[None]:
        return self._held()

    @contextmanager
    def _held(self) -> Iterator[None]:
        if os.getpid() != self._process.pid:
            raise TargetGone("this is a fork of the process whose memory it was", hint="watch the array anew in it")
        kept = self._owner() if self._owner else self
        if kept is None:
            raise TargetGone("the array was freed", hint="keep a reference to it while it is acted on")
        yield
        del kept

    def refusal(self, action: Action) -> str:
        return self._cold_refusal if action is Action.COLD else ""

    def huge_advice_refusal(self, *, apply: bool) -> str:  # noqa: ARG002 - madvise takes it from everybody
        return ""

    def confined(self, pieces: Pieces) -> tuple[Pieces, str]:
        return pieces.within(*self._within), _OUTSIDE

    def mapping_refusals(self, mappings: DetailedMappings, action: Action) -> list[MappingRefusal]:
        refusals = mapping_refusals(mappings, action, self._guard, ours=self._ours())
        if action is Action.WILLNEED:
            hidden = hidden_files(mappings.mappings)
            for one in refusals:
                hidden &= ~one.refused
            reason = "of a file that this user may not write, nobody tells what is in memory (mincore)"
            refusals += [MappingRefusal(reason, hidden)] if hidden.any() else []
        return refusals

    def excuse(self, problem: HostCannot) -> str:
        return f"{problem.message} ({problem.hint})" if problem.hint else problem.message

    def give(self, start: Addresses, end: Addresses, action: Action) -> None:
        advise_own(start, end, _ADVICE[action])

    def give_huge_advice(self, start: Addresses, end: Addresses, advice: PtraceAdvice) -> NDArray[np.int64]:
        return advise_own(start, end, OwnAdvice(advice))

    def new_log(self) -> AdviceLog:
        owner = self._owner() if self._owner else None
        return AdviceLog(None if owner is None else _left.get(id(owner)))

    def undo(self, log: AdviceLog) -> tuple[str, ...]:
        if os.getpid() == self._process.pid:
            told = log.undo(self._process, self.give_huge_advice)
            self._remember(log)
            return told
        # A fork has the mappings with our advice, too.
        with open_process(os.getpid()) as fork:
            return log.undo(fork, self.give_huge_advice)

    def close(self) -> None:
        self._process.close()

    def _remember(self, log: AdviceLog) -> None:
        """What is left of our advice, for who acts on the same array later; as long as that lives."""
        owner = self._owner() if self._owner else None
        if owner is None or not len(log.left):
            return
        key = id(owner)
        if key not in _left:
            try:
                weakref.finalize(owner, _left.pop, key, None).atexit = False
            except TypeError:  # nobody would tell when it is gone
                return
        _left[key] = joined_left(_left[key], log.left) if key in _left else log.left


def _checked(within: Sequence[Range]) -> tuple[Addresses, Addresses]:
    start, end = (np.array([one[side] for one in within], np.uint64) for side in (0, 1))
    if np.bitwise_or.reduce(start | end, initial=np.uint64(0)) & np.uint64(PAGE_SIZE - 1):
        raise InvalidInput("a range does not begin and end on a page border", hint="round inward to 4096 bytes")
    if (end < start).any() or (start[1:] < end[:-1]).any():
        raise InvalidInput("ranges must be ascending and disjoint", hint="sort and merge them first")
    return join_adjacent(start[end > start], end[end > start])
