"""The one path that acts on a target: filters and guards, then the action, then what really happened."""

import os
import time
from collections.abc import Callable
from itertools import pairwise

import numpy as np

from memtherm.act.advice import AdviceWay, RemoteAdvice
from memtherm.act.brake import Brake
from memtherm.act.effect import Effect, Subject
from memtherm.act.examined import Examined
from memtherm.act.guard import scheme_refusal
from memtherm.act.huge_advice import advise_huge_pages, within_map_count
from memtherm.act.migrate import migrate
from memtherm.act.page_filters import PageFilters, huge_page_runs
from memtherm.act.pieces import (
    Pieces,
    cut_at_mappings,
    cut_evenly,
    gaps_between,
    round_to_huge_pages,
    spare_parts_of_huge_pages,
)
from memtherm.act.possible import Possible
from memtherm.act.rate_limit import RateLimit
from memtherm.act.swap_room import is_swap_full, needing_swap, within_swap
from memtherm.act.tally import STOPPED
from memtherm.core.guard import GuardSettings
from memtherm.core.plan import Outcome, PlannedAction
from memtherm.core.protocols import Accessed
from memtherm.core.ranges import Addresses, Counts, Flags, intersect, join_adjacent, sizes
from memtherm.core.scheme import Action, Scheme
from memtherm.errors import HostCannot, InvalidInput, NotPermitted
from memtherm.linux.maps import MappingKind, Mappings, find_shared_memory_devices, read_smaps
from memtherm.linux.pagemap import Pagemap
from memtherm.linux.process import Process
from memtherm.linux.swap import read_swap
from memtherm.units import HUGE_PAGE_SIZE, format_size

_HUGE_ADVICE = (Action.HUGEPAGE, Action.NOHUGEPAGE)
_MIGRATE = (Action.MIGRATE_HOT, Action.MIGRATE_COLD)
# A part of a huge page would be split off by these, or takes the rest of it along.
_SPLITTING = (Action.PAGEOUT, Action.COLD, *_MIGRATE)
_WHOLE_BLOCKS = (Action.COLLAPSE, *_HUGE_ADVICE)
# The dear ones, which the rate limit and the brake are for.
_LIMITED = (Action.PAGEOUT, Action.WILLNEED, Action.COLLAPSE, *_MIGRATE)
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
        way: by what the target is advised; None: from outside, by process_madvise.

    Attributes:
        stopped: asked between the calls of an action, whether to leave the rest of it.
    """

    def __init__(self, process: Process, *, guard: GuardSettings, apply: bool, way: AdviceWay | None = None) -> None:
        self._process = process
        self._way: AdviceWay = way or RemoteAdvice(process, guard)
        self._guard = guard
        self._apply = apply
        self._pagemap = Pagemap(process)
        self._memory = _Memory(process)
        self._brake = Brake(process, self._pagemap, guard)
        self._rate_limit = RateLimit(guard.max_bytes_per_s, now_s=time.monotonic())
        self._advice_log = self._way.new_log()
        self.stopped: Callable[[], bool] = lambda: False
        self._examined: Examined | None = None
        self._accessed: Accessed | None = None

    def examine(self, planned: PlannedAction, accessed: Accessed | None = None) -> Counts:
        """For each planned range the bytes that filters and guards leave, and that the action would change.

        Raises:
            TargetGone: the target has exited.
            NotPermitted: a capability is missing that looking or verifying needs.
        """
        self._examined, self._accessed = None, accessed
        with self._way.held():
            self._examined = self._look(planned)
        return self._examined.possible.range_bytes

    def _look(self, planned: PlannedAction) -> Examined:
        devices = find_shared_memory_devices(self._process)
        mappings = read_smaps(self._process, shared_memory_devices=devices)
        pieces = cut_at_mappings(planned, mappings.mappings)
        examined = Examined.begin(planned, mappings, _are_memory_backed(mappings.mappings, devices), pieces)
        try:
            if reason := self._refusal(planned.scheme) or self._filter(examined):
                examined.refuse_all(reason)
            elif planned.action is not Action.STAT:
                self._guard_pieces(examined)
            examined.possible = self._possible(examined)
        except HostCannot as problem:
            examined.refuse_all(self._way.excuse(problem))
            examined.possible = self._possible(examined)
        if planned.action in _LIMITED:
            self._slow_down(examined)
        return examined

    def carry_out(self, allowed_bytes: Counts) -> Outcome:
        """Act on so many bytes of each range that was examined last, and measure what came of it.

        Raises:
            TargetGone: the target has exited.
            NotPermitted: a capability for the action is missing.
            InvalidInput: nothing was examined since the last time.
        """
        if self._examined is None:
            raise InvalidInput("nothing was examined", hint="call examine before each carry_out")
        examined, self._examined = self._examined, None
        with self._way.held():
            return self._do(examined, allowed_bytes)

    def _do(self, examined: Examined, allowed_bytes: Counts) -> Outcome:
        pieces, treated = examined.first_bytes(allowed_bytes)
        tally, action_s = examined.tally, 0.0
        tally.leave(examined.possible.range_bytes - treated.range_bytes)
        if examined.planned.action in _LIMITED:
            self._rate_limit.take(treated.total_bytes)
        if examined.planned.action is not Action.STAT and len(treated.start):
            if self._apply:
                effect = self._effect(examined, pieces)
                action_s = self._act(examined, pieces, effect)
                examined.apply(pieces, effect.applied_bytes())
                self._tell_brake(examined.planned.action, treated)
            else:
                tally.refuse("dry run", treated.total_bytes)
        return tally.outcome(examined.reached(allowed_bytes, treated), action_s)

    def end(self) -> tuple[str, ...]:
        """Undo what would outlast the run: huge page advice; what came of it, in sentences."""
        if self._guard.keep_huge_page_advice or self._memory.is_gone():
            return ()
        return self._way.undo(self._advice_log)

    def close(self) -> None:
        self._pagemap.close()
        self._memory.close()
        self._way.close()

    def _refusal(self, scheme: Scheme) -> str:
        """Why nothing of this scheme may be done now, or an empty text."""
        sees_pages, needs_ptrace = self._accessed is not None, self._way.needs_ptrace
        reason = scheme_refusal(scheme, self._process, self._guard, sees_pages=sees_pages, needs_ptrace=needs_ptrace)
        if reason or scheme.action is Action.STAT:
            return reason
        if reason := self._way.refusal(scheme.action):
            return reason
        if self._memory.was_replaced():
            self._advice_log.clear()
            return "the target has called exec: what was planned was for its old memory"
        return self._way.huge_advice_refusal(apply=self._apply) if scheme.action in _HUGE_ADVICE else ""

    def _filter(self, examined: Examined) -> str:
        """Leave what the filters let through; why none of them can be asked, or an empty text."""
        filters = PageFilters(self._process, self._pagemap, examined.mappings, self._accessed)
        try:
            examined.pieces = filters.passing(examined.planned, examined.pieces)
        except InvalidInput as problem:
            return f"filter cgroup: {problem}"
        examined.tally.filter(examined.pieces)
        return ""

    def _guard_pieces(self, examined: Examined) -> None:
        action = examined.planned.action
        examined.keep(*self._way.confined(examined.pieces))
        self._spare_refused_mappings(examined)
        if action in (Action.PAGEOUT, Action.COLD):
            self._spare_young(examined)
        if action is Action.PAGEOUT:
            examined.pieces, left_out_bytes, reason = within_swap(
                examined.pieces,
                is_memory_backed=examined.is_memory_backed,
                pagemap=self._pagemap,
                swap=read_swap(),
                min_free_swap=self._guard.min_free_swap,
            )
            examined.tally.refuse(reason, left_out_bytes)
        self._keep_huge_pages_whole(examined)
        examined.keep(examined.whole(examined.pieces), "less than a whole huge page")
        if action in _HUGE_ADVICE:
            examined.keep(*within_map_count(examined.pieces, examined.mappings, action))

    def _spare_refused_mappings(self, examined: Examined) -> None:
        for refusal in self._way.mapping_refusals(examined.mappings, examined.planned.action):
            mine = refusal.refused[examined.pieces.mapping]
            refused = examined.pieces.take(mine)
            if refusal.hint:
                # What we advised ourselves is no wish of the application.
                refused = refused.without(*self._advice_log.ours(refusal.hint, examined.mappings))
            examined.keep(examined.pieces.without(refused.start, refused.end), refusal.reason)

    def _spare_young(self, examined: Examined) -> None:
        """Of memory that is planned because nobody accesses it, leave out what was accessed since.

        As the kernel does for its own pageout of physical memory (damon-spec §2.4).
        """
        is_for_idle = examined.planned.scheme.pattern.access_rate.maximum == 0
        if self._accessed is None or not is_for_idle or not len(examined.pieces):
            return
        old = examined.pieces.without(*self._accessed())
        examined.keep(old, "accessed since the last look")

    def _keep_huge_pages_whole(self, examined: Examined) -> None:
        """Find what takes parts of huge pages away, as the action needs it."""
        action, mappings, pieces = examined.planned.action, examined.mappings, examined.pieces
        if action in _WHOLE_BLOCKS:
            examined.whole = lambda pieces: round_to_huge_pages(pieces, np.ones(len(mappings), np.bool_))
            examined.huge = np.zeros(1, np.uint64), np.full(1, 2**63, np.uint64)
            return
        has_huge_pages = (mappings.anonymous_huge_bytes + mappings.file_huge_bytes) > 0
        candidates = pieces.take(has_huge_pages[pieces.mapping])
        if action not in _SPLITTING or not len(candidates):
            return
        try:
            huge = examined.huge = huge_page_runs(self._pagemap, candidates)
            examined.whole = lambda pieces: spare_parts_of_huge_pages(pieces, *huge)
        except NotPermitted:
            # Linux before 6.7 tells only root which pages are huge: then each block of the mapping counts as one.
            examined.huge = candidates.runs()[:2]
            examined.whole = lambda pieces: round_to_huge_pages(pieces, has_huge_pages)

    def _possible(self, examined: Examined) -> Possible:
        """Where the action can have an effect, in the pieces that are left."""
        action, pieces, count = examined.planned.action, examined.pieces, len(examined.planned)
        if action is Action.STAT or not len(pieces):
            return Possible.whole(pieces, count=count)
        examined.looked_at = pieces
        effect = examined.effect = self._way.effects[action](self._subject(examined, pieces))
        start, end, piece = effect.possible_runs()
        if action is Action.COLLAPSE and not self._pagemap.uses_scan:
            start, end, piece = self._without_huge_pages(pieces, start, end, piece)
        return Possible.of(start, end, pieces.region[piece], count=count, huge=examined.huge)

    def _without_huge_pages(
        self, pieces: Pieces, start: Addresses, end: Addresses, piece: Counts
    ) -> tuple[Addresses, Addresses, Counts]:
        """Before Linux 6.7 the effect of collapse does not know where huge pages are already; page frames tell root."""
        try:
            start, end, row, _ = intersect(start, end, *gaps_between(*huge_page_runs(self._pagemap, pieces)))
        except NotPermitted:
            return start, end, piece
        return start, end, piece[row]

    def _slow_down(self, examined: Examined) -> None:
        """Leave as much as the brake and the rate limit allow, from the lowest addresses on."""
        allowance = self._brake.allowance(examined.planned.action, examined.planned.working_set_bytes)
        if allowance.share < 1:
            examined.limit(int(examined.possible.total_bytes * allowance.share), allowance.reason)
        available_bytes = self._rate_limit.available_bytes(time.monotonic())
        if available_bytes is not None:
            rate = format_size(self._guard.max_bytes_per_s)
            examined.limit(available_bytes, f"rate limit of the target: {rate} a second")

    def _subject(self, examined: Examined, pieces: Pieces) -> Subject:
        destinations = examined.planned.scheme.destinations
        return Subject(self._process, self._pagemap, pieces, examined.mappings, destinations)

    def _effect(self, examined: Examined, pieces: Pieces) -> Effect:
        """How the pieces are before the action: looked at again where they have become fewer."""
        looked_at = examined.looked_at
        if examined.effect and looked_at and looked_at.total_bytes == pieces.total_bytes:
            return examined.effect
        return self._way.effects[examined.planned.action](self._subject(examined, pieces))

    def _act(self, examined: Examined, pieces: Pieces, effect: Effect) -> float:
        """Returns the time that the acting calls took."""
        action = examined.planned.action
        if action not in (*_MIGRATE, *_HUGE_ADVICE):
            return self._advise(examined, pieces)
        began_s = time.monotonic()
        if action in _MIGRATE:
            destinations = examined.planned.scheme.destinations
            left_bytes = migrate(self._process, pieces, destinations, examined.mappings, stopped=self.stopped)
            examined.tally.refuse(STOPPED, left_bytes)
        elif not self._memory.is_gone():
            start, end, _ = effect.possible_runs()
            can_be_huge, mappings = pieces.within(start, end), examined.mappings
            for refusal in advise_huge_pages(
                self._process,
                can_be_huge,
                action,
                self._advice_log,
                mappings=mappings,
                stopped=self.stopped,
                give=self._way.give_huge_advice,
            ):
                examined.tally.refuse(refusal.reason, refusal.size_bytes)
        return time.monotonic() - began_s

    def _advise(self, examined: Examined, pieces: Pieces, *, watches_swap: bool = True) -> float:
        """Give the advice in calls that are short.  Returns the time that they took."""
        action, action_s = examined.planned.action, 0.0
        start, end, _ = pieces.runs()
        start, end = cut_evenly(start, end, _READAHEAD_BYTES if action is Action.WILLNEED else HUGE_PAGE_SIZE)
        call = (np.cumsum(sizes(start, end)) - 1) // _CALL_BYTES
        borders = np.concatenate(([0], np.flatnonzero(np.diff(call)) + 1, [len(start)])).tolist()
        for first, last in pairwise(borders):
            if self._memory.is_gone():
                break
            if self.stopped():
                examined.stop(start[first:], end[first:])
                break
            if watches_swap and action is Action.PAGEOUT and is_swap_full(self._guard.min_free_swap):
                left = self._without_swap(examined, pieces.within(start[first:], end[first:]))
                return action_s + self._advise(examined, left, watches_swap=False)
            began_s = time.monotonic()
            # A range that fails, because its mapping has changed meanwhile, shows as not applied.
            self._way.give(start[first:last], end[first:last], action)
            action_s += time.monotonic() - began_s
        return action_s

    def _without_swap(self, examined: Examined, pieces: Pieces) -> Pieces:
        """What can leave memory with no more swap."""
        start, end, _ = needing_swap(pieces, examined.is_memory_backed, self._pagemap)
        examined.tally.refuse("swap filled up while acting", int(sizes(start, end).sum()))
        return pieces.without(start, end)

    def _tell_brake(self, action: Action, treated: Possible) -> None:
        if action is Action.PAGEOUT:
            self._brake.note_paged_out(*join_adjacent(treated.start, treated.end))
        elif action is Action.WILLNEED:
            self._brake.note_brought_back(*join_adjacent(treated.start, treated.end))


def _are_memory_backed(mappings: Mappings, shared_memory_devices: frozenset[int]) -> Flags:
    """Which mappings have no file on a disk; a private mapping of a file on a tmpfs looks like any other file."""
    anonymous = np.isin(mappings.kinds, (MappingKind.PRIVATE_ANONYMOUS, MappingKind.SHARED_MEMORY))
    return anonymous | np.isin(mappings.devices, np.array(sorted(shared_memory_devices), np.uint64))


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
