"""What is known of a run besides its regions, and the Protocol of everything that holds a run: records and fakes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from memtherm.core.ranges import Addresses
from memtherm.core.rows import SnapshotRows
from memtherm.core.selection import EVERYTHING, Selection
from memtherm.core.snapshot import Conditions, TargetInfo

if TYPE_CHECKING:  # most readers of a run need no schemes, and these take 20 ms to import
    from memtherm.core.report import Report, SchemeReport


@dataclass(frozen=True)
class MappingTable:
    """The mappings of one target, from `time_s` until the next table of it.

    Attributes:
        time_s: when they were read, seconds since the epoch.
        target: index as in `Regions.target`.
        start, end: addresses, ascending and disjoint (uint64).
        offset: bytes into the file (uint64).
        permissions: as in /proc/PID/maps: `rw-p`.
        path: of the file, or `[heap]`, `[stack]` and the like; empty for anonymous memory.
    """

    time_s: float
    target: int
    start: Addresses
    end: Addresses
    offset: Addresses
    permissions: tuple[str, ...]
    path: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.start)


@dataclass(frozen=True, kw_only=True)
class TargetVitals:
    """What a target uses.

    Attributes:
        resident_bytes, swap_bytes: VmRSS and VmSwap.
        proportional_bytes: Pss; None where it was not read: it costs a walk of all pages.
        cpu_s: CPU time since its start, user and system.
    """

    target: int
    resident_bytes: int
    swap_bytes: int
    proportional_bytes: int | None = None
    cpu_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Vitals:
    """How the host, the targets and we were at one moment.

    Attributes:
        time_s: seconds since the epoch.
        agent_cpu_s: CPU time of memtherm since its start.
        agent_resident_bytes: memory of memtherm.
        free_memory_bytes: MemAvailable.
        pressure_some_s, pressure_full_s: time that some, or all, tasks waited for memory since boot (PSI);
            None where that is not measured.
    """

    time_s: float
    targets: tuple[TargetVitals, ...]
    agent_cpu_s: float
    agent_resident_bytes: int
    free_memory_bytes: int
    pressure_some_s: float | None = None
    pressure_full_s: float | None = None


@dataclass(frozen=True)
class Event:
    """What happened, in a sentence: a target came or went, intervals changed, a guard stopped a scheme."""

    time_s: float
    text: str


@dataclass(frozen=True)
class SchemeTimes:
    """What each scheme did in the window that ended at `time_s`."""

    time_s: float
    schemes: tuple[SchemeReport, ...]


class History(Protocol):
    """A run that can be read: a record, or a fake in tests.

    Iterators read on, piece by piece; nothing holds the whole run in memory.
    """

    @property
    def targets(self) -> tuple[TargetInfo, ...]:
        """All targets of the run; `Regions.target` is an index into it."""

    @property
    def time_span_s(self) -> tuple[float, float]:
        """Begin of the first window and end of the last, seconds since the epoch; (0, 0) of an empty run."""

    def rows(self, selection: Selection = EVERYTHING) -> Iterator[SnapshotRows]:
        """The regions, some snapshots at a time, in the order of time."""

    def reports(self, selection: Selection = EVERYTHING) -> Iterator[Report]:
        """The same as whole snapshots with their conditions, schemes and events."""

    def conditions(self, selection: Selection = EVERYTHING) -> Iterator[Conditions]:
        """Of each window that ended within the selected time, whatever else is selected; regions are not read."""

    def mappings(self, selection: Selection = EVERYTHING) -> Iterator[MappingTable]:
        """Tables that were true within the selected time: the last before it, too."""

    def vitals(self, selection: Selection = EVERYTHING) -> Iterator[Vitals]: ...

    def schemes(self, selection: Selection = EVERYTHING) -> Iterator[SchemeTimes]:
        """Only of windows in which there were schemes; `SchemeReport.tried` is None."""

    def events(self, selection: Selection = EVERYTHING) -> Iterator[Event]: ...
