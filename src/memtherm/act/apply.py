"""The one path that acts on another process: guards, then the action, then what really happened."""

import os
from itertools import pairwise

import numpy as np

from memtherm.act.guard import action_refusal, mapping_refusals, target_refusal
from memtherm.act.pieces import Pieces, cut_at_mappings, cut_evenly, round_to_huge_pages
from memtherm.act.swap_room import within_swap
from memtherm.act.verify import EFFECTS, Subject
from memtherm.core.guard import GuardSettings
from memtherm.core.plan import Outcome, PlannedAction, Refusal
from memtherm.core.ranges import Counts, Flags, sizes
from memtherm.core.scheme import Action
from memtherm.linux.advise import Advice, advise
from memtherm.linux.maps import DetailedMappings, MappingKind, Mappings, find_shared_memory_devices, read_smaps
from memtherm.linux.pagemap import Pagemap
from memtherm.linux.process import Process
from memtherm.linux.swap import read_swap
from memtherm.units import HUGE_PAGE_SIZE

_ADVICE = {
    Action.WILLNEED: Advice.WILLNEED,
    Action.COLD: Advice.COLD,
    Action.PAGEOUT: Advice.PAGEOUT,
    Action.COLLAPSE: Advice.COLLAPSE,
}
# A call holds the target's memory map until it ends, and the target's own mmap waits for it: 16 MiB are
# paged out to zram in about 20 ms.
_CALL_BYTES = 8 * HUGE_PAGE_SIZE
# Of a longer range the kernel reads only as much of a file as the device takes at once (force_page_cache_ra;
# measured: 8 MiB of 16 MiB), and no common device takes less than this.
_READAHEAD_BYTES = 128 * 1024


class TargetActor:
    """An Actor for one process.

    Args:
        process: the target, held by a pidfd: a later process with its pid cannot be hit.
        guard: settings of the guards.
        apply: without it everything is looked at and nothing is done.
    """

    def __init__(self, process: Process, *, guard: GuardSettings, apply: bool) -> None:
        self._process = process
        self._guard = guard
        self._apply = apply
        self._pagemap = Pagemap(process)
        self._memory = _Memory(process)

    def carry_out(self, planned: PlannedAction) -> Outcome:
        """Act on what no guard refuses, and measure what came of it.

        Raises:
            TargetGone: the target has exited.
            NotPermitted: a capability for the action is missing.
        """
        self._process.check_alive()
        devices = find_shared_memory_devices(self._process)
        mappings = read_smaps(self._process, shared_memory_devices=devices)
        pieces = cut_at_mappings(planned, mappings.mappings)
        tally = _Tally(planned, pieces)
        if planned.action is Action.STAT:
            return tally.outcome()
        reason = action_refusal(planned.action) or target_refusal(self._process, self._guard)
        if not reason and self._memory.was_replaced():
            reason = "the target has called exec: what was planned was for its old memory"
        if reason:
            tally.refuse(reason, pieces.total_bytes)
            return tally.outcome()
        pieces = self._allowed(planned.action, pieces, mappings, tally)
        if planned.action is Action.PAGEOUT:
            pieces = self._within_swap(pieces, _are_memory_backed(mappings.mappings, devices), tally)
        if planned.action is not Action.WILLNEED:
            pieces = _whole_huge_pages(planned.action, pieces, mappings, tally)
        if len(pieces):
            effect = EFFECTS[planned.action](Subject(self._process, self._pagemap, pieces, mappings))
            if self._apply:
                self._advise(planned.action, pieces)
                tally.apply(pieces, effect.applied_bytes())
            else:
                tally.refuse("dry run", int(effect.possible_bytes.sum()))
        return tally.outcome()

    def close(self) -> None:
        self._pagemap.close()
        self._memory.close()

    def _allowed(self, action: Action, pieces: Pieces, mappings: DetailedMappings, tally: "_Tally") -> Pieces:
        for reason, refused in mapping_refusals(mappings, action, self._guard):
            mine = refused[pieces.mapping]
            tally.refuse(reason, pieces.take(mine).total_bytes)
            pieces = pieces.take(~mine)
        return pieces

    def _within_swap(self, pieces: Pieces, is_memory_backed: Flags, tally: "_Tally") -> Pieces:
        pieces, left_out_bytes, reason = within_swap(
            pieces, is_memory_backed=is_memory_backed, pagemap=self._pagemap, swap=read_swap()
        )
        tally.refuse(reason, left_out_bytes)
        return pieces

    def _advise(self, action: Action, pieces: Pieces) -> None:
        start, end, _ = pieces.runs()
        start, end = cut_evenly(start, end, _READAHEAD_BYTES if action is Action.WILLNEED else _CALL_BYTES)
        call = (np.cumsum(sizes(start, end)) - 1) // _CALL_BYTES
        borders = np.concatenate(([0], np.flatnonzero(np.diff(call)) + 1, [len(start)])).tolist()
        for first, last in pairwise(borders):
            if self._memory.is_gone():
                return
            # A range that fails, because its mapping has changed meanwhile, shows as not applied.
            advise(self._process.pidfd, start[first:last], end[first:last], _ADVICE[action])


def _are_memory_backed(mappings: Mappings, shared_memory_devices: frozenset[int]) -> Flags:
    """Which mappings have no file on a disk; a private mapping of a file on a tmpfs looks like any other file."""
    anonymous = np.isin(mappings.kinds, (MappingKind.PRIVATE_ANONYMOUS, MappingKind.SHARED_MEMORY))
    return anonymous | np.isin(mappings.devices, np.array(sorted(shared_memory_devices), np.uint64))


def _whole_huge_pages(action: Action, pieces: Pieces, mappings: DetailedMappings, tally: "_Tally") -> Pieces:
    has_huge_pages = (mappings.anonymous_huge_bytes + mappings.file_huge_bytes) > 0
    if action is Action.COLLAPSE:
        has_huge_pages[:] = True
    rounded = round_to_huge_pages(pieces, has_huge_pages)
    tally.refuse("less than a whole huge page", pieces.total_bytes - rounded.total_bytes)
    return rounded


class _Memory:
    """Tells the target's memory from the one that exec gives it: same process, same pidfd, other content."""

    def __init__(self, process: Process) -> None:
        self._process = process
        # This descriptor stands for one address space; once that is gone it reads as empty.
        self._file = process.open_file("pagemap")

    def is_gone(self) -> bool:
        return not os.pread(self._file, 8, 0)

    def was_replaced(self) -> bool:
        """Whether the memory is another one than at the last call."""
        if not self.is_gone():
            return False
        self.close()
        self._file = self._process.open_file("pagemap")
        return True

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


class _Tally:
    """Counts what becomes of a plan."""

    def __init__(self, planned: PlannedAction, pieces: Pieces) -> None:
        self._planned = planned
        self._tried_bytes = pieces.total_bytes
        self._nr_tried = len(np.unique(pieces.region))
        self._refused: list[Refusal] = []
        self._applied: Counts = np.zeros(len(planned.rows), np.int64)

    def refuse(self, reason: str, size_bytes: int) -> None:
        if size_bytes > 0:
            self._refused.append(Refusal(reason, size_bytes))

    def apply(self, pieces: Pieces, applied_bytes: Counts) -> None:
        np.add.at(self._applied, pieces.region, applied_bytes)

    def outcome(self) -> Outcome:
        return Outcome(
            name=self._planned.scheme,
            action=self._planned.action,
            target=self._planned.target,
            nr_tried=self._nr_tried,
            tried_bytes=self._tried_bytes,
            applied_bytes=int(self._applied.sum()),
            refused=tuple(self._refused),
            applied_region_bytes=self._applied,
        )
