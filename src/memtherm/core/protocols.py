"""What the engine needs from outside: to see accesses, to act, and the time."""

from collections.abc import Callable
from typing import Protocol

from memtherm.core.census import PageBits
from memtherm.core.goals import Goal
from memtherm.core.plan import Outcome, PlannedAction
from memtherm.core.ranges import Addresses, Counts, Flags
from memtherm.core.regions import Range
from memtherm.core.watermarks import WatermarkMetric


class Probe(Protocol):
    """Sees accesses in one address space.

    All methods raise TargetGone once the target has exited.
    """

    @property
    def name(self) -> str:
        """Short name for conditions and lists: `bpf`, `smaps`, `simulated`."""

    @property
    def grain(self) -> str:
        """`page`, or `mapping` where one answer covers a whole mapping."""

    @property
    def clearing(self) -> str:
        """How bits are cleared at present: `cold`, `clear_refs` or `none`."""

    @property
    def unclear_share(self) -> float:
        """Share of the pages looked at lately whose accessed bit could not be cleared, 0..1."""

    @property
    def min_sampling_interval_s(self) -> float:
        """The shortest sampling interval at which clearing does not burden the target."""

    @property
    def generation(self) -> int:
        """How often the target has replaced its memory by exec."""

    def ranges(self) -> list[Range]:
        """The ranges to watch, ascending and disjoint; looked up anew at each call."""

    def clear(self, addresses: Addresses) -> None:
        """Forget past accesses of these pages."""

    def read(self, addresses: Addresses) -> Flags:
        """Which of these pages were accessed since they were cleared."""

    def close(self) -> None:
        """Give up what the probe holds on the target."""


class CensusProbe(Protocol):
    """Sees every page of one address space at each look.

    All methods raise TargetGone once the target has exited.
    """

    @property
    def name(self) -> str: ...

    @property
    def clearing(self) -> str:
        """How bits are cleared at present: `cold` or `clear_refs`."""

    @property
    def generation(self) -> int:
        """How often the target has replaced its memory by exec."""

    @property
    def min_sampling_interval_s(self) -> float:
        """The shortest interval between looks at which clearing does not burden the target."""

    def ranges(self) -> list[Range]:
        """The mappings, ascending and disjoint; looked up anew at each call."""

    def look(self) -> PageBits:
        """The accessed bits of every present page."""

    def swapped(self) -> Addresses:
        """The units of 2 MiB in which some memory is in swap: ascending, multiples of 2 MiB."""

    def clear(self, bits: PageBits) -> PageBits:
        """Clear these accessed bits.  Returns those that could not be cleared."""

    def clear_everything(self, *, longest_stall_s: float) -> bool:
        """From now on clear the whole address space at once, if that holds up the target for less than this.

        Else page by page, as at first.  Returns whether it is all at once.
        """

    def close(self) -> None: ...


Accessed = Callable[[], tuple[Addresses, Addresses]]
"""Start and end of the memory that was accessed lately: in the last look, or since; page by page, ascending."""


class Actor(Protocol):
    """Carries out planned actions on one target: guards, acts, verifies.

    Both steps raise TargetGone when the target has exited.
    """

    def examine(self, planned: PlannedAction, accessed: Accessed | None = None) -> Counts:
        """For each planned range the bytes on which the action can have an effect.

        Those that filters and guards leave, and that are not as the action would make them already (int64).

        Args:
            accessed: asked by what spares memory in use; None where nobody looks at all pages.
        """

    def carry_out(self, allowed_bytes: Counts) -> Outcome:
        """Act on so many bytes of each range that was examined last, from its lowest address on."""

    def end(self) -> tuple[str, ...]:
        """Undo what would outlast the run; what came of it, in sentences."""

    def close(self) -> None:
        """Give up what the actor holds on the target."""


class Metrics(Protocol):
    """Measures what goals and watermarks of schemes ask for."""

    def goal_value(self, goal: Goal) -> float:
        """In the unit of `Goal.target`; of a pressure the time since the goal was asked for last, at first 0.

        Raises HostCannot or TargetGone where it cannot be measured now.
        """

    def watermark_value(self, metric: WatermarkMetric) -> float:
        """A share, 0..1."""


class Clock(Protocol):
    """Time for a session; virtual in tests."""

    def monotonic_s(self) -> float: ...

    def epoch_s(self) -> float: ...

    def cpu_s(self) -> float:
        """CPU time of the calling thread, user and system."""

    def sleep(self, duration_s: float) -> None: ...
