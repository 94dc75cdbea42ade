"""By what a target is acted on, and what of the guards depends on that: here from outside, with privileges."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from memtherm.act.effect import Effect, Subject
from memtherm.act.guard import MappingRefusal, mapping_refusals, target_refusal
from memtherm.act.huge_advice import AdviceLog, GiveHugeAdvice, huge_advice_refusal
from memtherm.act.pieces import Pieces
from memtherm.act.verify import EFFECTS
from memtherm.core.guard import GuardSettings
from memtherm.core.ranges import Addresses
from memtherm.core.scheme import Action
from memtherm.errors import HostCannot
from memtherm.linux.advise import Advice, advise
from memtherm.linux.maps import DetailedMappings
from memtherm.linux.process import Process

_ADVICE = {
    Action.WILLNEED: Advice.WILLNEED,
    Action.COLD: Advice.COLD,
    Action.PAGEOUT: Advice.PAGEOUT,
    Action.COLLAPSE: Advice.COLLAPSE,
}


class AdviceWay(Protocol):
    """How one target is advised."""

    @property
    def needs_ptrace(self) -> bool:
        """Whether huge page advice means to stop the target, and so needs the user's leave."""

    @property
    def effects(self) -> Mapping[Action, Callable[[Subject], Effect]]:
        """How each action is looked at, before and after."""

    @property
    def give_huge_advice(self) -> GiveHugeAdvice | None:
        """What gives `hugepage` and `nohugepage`; None: ptrace."""

    def held(self) -> AbstractContextManager[None]:
        """Around each step: the memory does not go meanwhile.  Raises TargetGone where it has gone."""

    def refusal(self, action: Action) -> str:
        """Why the target may not be acted on so, or an empty text.  Raises TargetGone."""

    def huge_advice_refusal(self, *, apply: bool) -> str:
        """Why the target cannot give huge page advice, or an empty text.  Raises TargetGone."""

    def confined(self, pieces: Pieces) -> tuple[Pieces, str]:
        """What of the pieces may be acted on at all, and why the rest may not."""

    def mapping_refusals(self, mappings: DetailedMappings, action: Action) -> list[MappingRefusal]:
        """The mappings that are kept from the action."""

    def excuse(self, problem: HostCannot) -> str:
        """Why nothing is done, where that is no reason to end the run; else raises the problem."""

    def give(self, start: Addresses, end: Addresses, action: Action) -> None:
        """Advise ranges: willneed, cold, pageout or collapse.  A range that fails shows as not applied."""

    def new_log(self) -> AdviceLog:
        """For the huge page advice that is given."""

    def undo(self, log: AdviceLog) -> tuple[str, ...]:
        """Put back what huge page advice was there before; what came of it, in sentences."""

    def close(self) -> None:
        """Give up what is held."""


class RemoteAdvice:
    """An AdviceWay for another process: process_madvise, and ptrace for huge page advice."""

    needs_ptrace = True
    effects = EFFECTS
    give_huge_advice: GiveHugeAdvice | None = None

    def __init__(self, process: Process, guard: GuardSettings) -> None:
        self._process = process
        self._guard = guard

    def held(self) -> AbstractContextManager[None]:
        self._process.check_alive()
        return nullcontext()

    def refusal(self, action: Action) -> str:  # noqa: ARG002 - whom it is, is the same for every action
        return target_refusal(self._process, self._guard)

    def huge_advice_refusal(self, *, apply: bool) -> str:
        return huge_advice_refusal(self._process, apply=apply)

    def confined(self, pieces: Pieces) -> tuple[Pieces, str]:
        return pieces, ""

    def mapping_refusals(self, mappings: DetailedMappings, action: Action) -> list[MappingRefusal]:
        return mapping_refusals(mappings, action, self._guard)

    def excuse(self, problem: HostCannot) -> str:
        raise problem

    def give(self, start: Addresses, end: Addresses, action: Action) -> None:
        advise(self._process.pidfd, start, end, _ADVICE[action])

    def new_log(self) -> AdviceLog:
        return AdviceLog()

    def undo(self, log: AdviceLog) -> tuple[str, ...]:
        return log.undo(self._process)

    def close(self) -> None:
        """Nothing: the process belongs to the caller."""
