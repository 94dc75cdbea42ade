"""What a look at one plan has left to act on, and how limits make it less."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from memtherm.act.effect import Effect
from memtherm.act.pieces import Pieces
from memtherm.act.possible import Possible
from memtherm.act.tally import STOPPED, Tally
from memtherm.core.plan import PlannedAction
from memtherm.core.ranges import Addresses, Counts, Flags, overlap_bytes, sizes
from memtherm.linux.maps import DetailedMappings


@dataclass
class Examined:
    """One plan on the way from the look to the act.

    Attributes:
        is_memory_backed: for each mapping whether all its pages need swap to leave memory.
        pieces: what may be acted on.
        possible: where in them the action can have an effect.
        whole: takes parts of huge pages away from pieces.
        huge: runs of what is acted on in whole huge pages only.
        effect: how the pieces of the look, `looked_at`, were.
        limits: for each row of the plan the address at which a limit has ended it, or its end.
        untried: start and end of what a stop has left, sorted and disjoint.
    """

    planned: PlannedAction
    mappings: DetailedMappings
    is_memory_backed: Flags
    tally: Tally
    pieces: Pieces
    possible: Possible
    whole: Callable[[Pieces], Pieces]
    huge: tuple[Addresses, Addresses]
    limits: Addresses
    effect: Effect | None = None
    looked_at: Pieces | None = None
    untried: tuple[Addresses, Addresses] | None = None

    @classmethod
    def begin(
        cls, planned: PlannedAction, mappings: DetailedMappings, is_memory_backed: Flags, pieces: Pieces
    ) -> Examined:
        """Before filters and guards: everything that is mapped."""
        nothing = np.zeros(0, np.uint64)
        return cls(
            planned,
            mappings,
            is_memory_backed,
            Tally(planned, pieces),
            pieces,
            Possible.whole(pieces, count=len(planned)),
            lambda pieces: pieces,
            (nothing, nothing),
            planned.end.copy(),
        )

    def refuse_all(self, reason: str) -> None:
        self.tally.refuse(reason, self.pieces.total_bytes)
        self.pieces = self.pieces.take(np.zeros(len(self.pieces), np.bool_))

    def keep(self, pieces: Pieces, reason: str) -> None:
        """Only these of the pieces are left; the others are refused."""
        self.tally.refuse(reason, self.pieces.total_bytes - pieces.total_bytes)
        self.pieces = pieces

    def stop(self, start: Addresses, end: Addresses) -> None:
        """These ranges, sorted and disjoint, are left, as a run ends while it acts."""
        self.untried = start, end
        self.tally.refuse(STOPPED, int(sizes(start, end).sum()))

    def apply(self, pieces: Pieces, applied_bytes: Counts) -> None:
        """What was found changed of each piece; what was not tried has been so before, and is no work of ours."""
        if self.untried is not None:
            untried_bytes = overlap_bytes(pieces.start, pieces.end, *self.untried)
            applied_bytes = np.minimum(applied_bytes, pieces.size_bytes - untried_bytes)
        self.tally.apply(pieces, applied_bytes)

    def limit(self, allowed_bytes: int, reason: str) -> None:
        """Leave the first so many possible bytes of all; the others are refused."""
        before = self.possible.range_bytes
        self.pieces, self.possible = self.first_bytes(np.clip(allowed_bytes - (np.cumsum(before) - before), 0, before))
        left = self.possible.range_bytes
        self.tally.refuse(reason, int((before - left).sum()))
        self.limits = np.where(left < before, self.possible.ends(self.planned.start), self.limits)

    def first_bytes(self, allowed_bytes: Counts) -> tuple[Pieces, Possible]:
        """The pieces with the first so many possible bytes of each row, and what is possible in them; never more."""
        treated, stops = self.possible.first_bytes(allowed_bytes)
        if treated.total_bytes == self.possible.total_bytes:
            return self.pieces, treated
        pieces = self.pieces.below(stops)
        # Two regions may share a huge page of which only one has its turn.
        pieces = self.whole(pieces.take((treated.range_bytes > 0)[pieces.region]))
        return pieces, treated.within(pieces)

    def reached(self, allowed_bytes: Counts, treated: Possible) -> Addresses:
        """For each row the address up to which it was done."""
        planned, possible_bytes, treated_bytes = self.planned, self.possible.range_bytes, treated.range_bytes
        is_whole = (treated_bytes == possible_bytes) & (treated_bytes > 0)
        reached = np.where(is_whole, self.limits, treated.ends(planned.start))
        tried = np.flatnonzero((allowed_bytes > 0) & (possible_bytes > 0))
        if len(tried) and not treated.total_bytes:
            # Less is allowed than a huge page has.  Go on behind it, or nothing would ever be done.
            reached[tried[-1]] = self.possible.after_first_unit(int(tried[-1]))
        return reached
