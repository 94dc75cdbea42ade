"""What every way to act shares with its proof: the subject of an action, and the effect that is looked for."""

from dataclasses import dataclass
from typing import Protocol

from memtherm.act.pieces import Pieces
from memtherm.core.ranges import Addresses, Counts
from memtherm.core.scheme import Destination
from memtherm.linux.maps import DetailedMappings
from memtherm.linux.pagemap import Pagemap
from memtherm.linux.process import Process


@dataclass(frozen=True)
class Subject:
    """What is acted on.

    Attributes:
        mappings: those that `pieces` refers to, as they were before.
        destinations: of migrate_hot and migrate_cold; empty for other actions.
    """

    process: Process
    pagemap: Pagemap
    pieces: Pieces
    mappings: DetailedMappings
    destinations: tuple[Destination, ...] = ()


class Effect(Protocol):
    """The effect of one action: made, and so looked at, before it."""

    @property
    def possible_bytes(self) -> Counts:
        """For each piece the bytes that the action can change."""

    def possible_runs(self) -> tuple[Addresses, Addresses, Counts]:
        """Where those bytes were: start, end and piece of runs, ascending and disjoint, without another look.

        Runs are longer than what is possible in them only for collapse before Linux 6.7, where nothing tells which
        pages are huge.
        """

    def applied_bytes(self) -> Counts:
        """For each piece the bytes that it has changed, asked after it."""
