"""What a watch holds on the memory of an array, and the one way to it: step by step, while the memory is there."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from memtherm.act.apply import TargetActor
from memtherm.arrays.memory import Owner
from memtherm.core.census import PageBits
from memtherm.core.plan import Outcome, PlannedAction
from memtherm.core.protocols import Accessed, CensusProbe
from memtherm.core.ranges import Addresses, Counts
from memtherm.core.regions import Range
from memtherm.core.scheme import Action
from memtherm.errors import HostCannot, TargetGone

# Whoever holds the turn for longer than this, while the array dies, is ending the watch already.
_LONGEST_TURN_S = 1.0
CLOSED = "is not watched any more"


class Held:
    """Probe and actors of one watch.  Each use of them is a step; no step is begun once the memory has gone.

    A step holds the array, so that it cannot be freed meanwhile; between steps nothing does.  When it is freed, what
    was changed on its mappings is undone before its addresses can belong to somebody else.

    Args:
        on_end: called once with why the watch has ended, by the thread that found it out: it must be quick.

    Attributes:
        owner: who keeps the array alive.
        why_ended: empty while it is watched.
        events: what a reader has to know, in sentences.
        turn: one step at a time, of whatever thread; a fork waits for it.
    """

    def __init__(self, name: str, owner: Owner, *, on_end: Callable[[str], None]) -> None:
        self._name = name
        self.owner = owner
        self._on_end = on_end
        self._to_undo = ExitStack()
        self.turn = threading.RLock()
        self.why_ended = ""
        self.events: list[str] = []
        owner.on_freed = lambda: self.end("was freed")

    @contextmanager
    def step(self) -> Iterator[None]:
        """Raises TargetGone where the memory is no longer what is watched."""
        owner = self.owner.get()
        try:
            with self.turn:
                why = self.why_ended or self.owner.why_gone(owner)
                if why:
                    self.end(why)
                    hint = "call memtherm.watch again" if why == CLOSED else "keep a reference to what is watched"
                    raise TargetGone(f'the array "{self._name}" {why}', hint=hint)
                yield
        finally:
            # The last reference may be this one: then the array dies here, beyond the step.
            del owner

    def add(self, probe: CensusProbe) -> ArrayCensus:
        self._to_undo.callback(self._tell_problem, probe.close)
        return ArrayCensus(self, probe)

    def add_actor(self, actor: TargetActor, *, release: Callable[[int, int], None] | None) -> ArrayActor:
        """Actors that come later are undone first, and all of them before the probe."""
        self._to_undo.callback(self._tell_problem, actor.close)
        self._to_undo.callback(self._tell_problem, lambda: self.events.extend(actor.end()))
        return ArrayActor(self, actor, release)

    def end(self, why: str) -> None:
        """Undo what was changed, and let go of the memory.  May be called again, and from any thread."""
        mine = self.turn.acquire(timeout=_LONGEST_TURN_S)
        try:
            if self.why_ended:
                return
            self.why_ended = why
            self._to_undo.close()
            self.owner.let_go()
        finally:
            if mine:
                self.turn.release()
        self._on_end(why)

    def end_in_child(self, why: str, *, is_whole: bool) -> None:
        """In the child of a fork: its copies of the mappings are put back, too, where that can be done.

        Args:
            is_whole: no step was being done in the parent, so that what it had changed is known.
        """
        # The lock is of a thread of the parent.
        self.turn = threading.RLock()
        if not is_whole:
            self._to_undo.pop_all()
        self.end(why)

    def _tell_problem(self, undo: Callable[[], None]) -> None:
        try:
            undo()
        except (HostCannot, TargetGone, OSError) as problem:
            self.events.append(f"{self._name}: what was changed could not be undone: {problem}")


class ArrayCensus:
    """A CensusProbe that looks while the array is there."""

    def __init__(self, held: Held, probe: CensusProbe) -> None:
        self._held = held
        self._probe = probe

    @property
    def name(self) -> str:
        return self._probe.name

    @property
    def grain(self) -> str:
        return str(getattr(self._probe, "grain", "page"))

    @property
    def clearing(self) -> str:
        return self._probe.clearing

    @property
    def generation(self) -> int:
        return self._probe.generation

    @property
    def min_sampling_interval_s(self) -> float:
        return self._probe.min_sampling_interval_s

    @property
    def target_s_per_page(self) -> float:
        return float(getattr(self._probe, "target_s_per_page", 0.0))

    def ranges(self) -> list[Range]:
        with self._held.step():
            found = self._probe.ranges()
        if not found:
            self._held.end("was unmapped: nothing is left of its memory")
        return found

    def look(self) -> PageBits:
        with self._held.step():
            return self._probe.look()

    def swapped(self) -> Addresses:
        with self._held.step():
            return self._probe.swapped()

    def clear(self, bits: PageBits) -> PageBits:
        with self._held.step():
            return self._probe.clear(bits)

    def clear_everything(self, *, longest_stall_s: float) -> bool:
        with self._held.step():
            return self._probe.clear_everything(longest_stall_s=longest_stall_s)

    def close(self) -> None:
        self._held.end(CLOSED)


class ArrayActor:
    """An Actor that acts while the array is there.

    Args:
        release: takes off what the probe has put on some memory, where an action needs that.
    """

    def __init__(self, held: Held, actor: TargetActor, release: Callable[[int, int], None] | None) -> None:
        self._held = held
        self._actor = actor
        self._release = release
        self._planned: PlannedAction | None = None

    def examine(self, planned: PlannedAction, accessed: Accessed | None = None) -> Counts:
        with self._held.step():
            self._planned = planned
            return self._actor.examine(planned, accessed)

    def carry_out(self, allowed_bytes: Counts) -> Outcome:
        with self._held.step():
            planned = self._planned
            if self._release is not None and planned is not None and planned.action is Action.COLLAPSE:
                for start, end in zip(planned.start.tolist(), planned.end.tolist(), strict=True):
                    self._release(start, end)
            return self._actor.carry_out(allowed_bytes)

    def end(self) -> tuple[str, ...]:
        """What is undone is told by `Held.events`."""
        return ()

    def close(self) -> None:
        self._held.end(CLOSED)
