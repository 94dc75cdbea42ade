"""Huge page advice, which only a process itself can give (another one is made to, by ptrace), and how it is undone.

It is the one action that outlasts a run: VmFlags `hg` and `nh` stay on a mapping until it goes, or other advice comes.
"""

import errno
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memtherm.act.effect import Subject
from memtherm.act.pieces import Pieces, gaps_between
from memtherm.act.tally import STOPPED
from memtherm.core.plan import Refusal
from memtherm.core.ranges import Addresses, Counts, Flags, intersect, join_adjacent, overlap_bytes, sizes
from memtherm.core.scheme import Action
from memtherm.errors import HostCannot, TargetGone
from memtherm.linux.huge_pages import HugePageFacts, read_huge_pages
from memtherm.linux.map_count import read_max_map_count
from memtherm.linux.maps import DetailedMappings, MappingKind, Permission, read_smaps
from memtherm.linux.process import Process
from memtherm.linux.remote_call import PtraceAdvice, advise_by_ptrace, remote_call_refusal
from memtherm.units import format_size

_FLAG = {Action.HUGEPAGE: "hg", Action.NOHUGEPAGE: "nh"}
_ADVICE = {"hg": PtraceAdvice.HUGEPAGE, "nh": PtraceAdvice.NOHUGEPAGE}
# At the end there is no later try.
_LAST_PATIENCE_S = 2.0
# Between them we ask whether to go on: a quarter of a second of stops and the time between them.
_CALL_RANGES = 1024
# The target needs mappings itself, and mmap fails without.
_MAP_COUNT_SHARE = 0.5
# An advised range: the flag that it had, and ours; and what mapping it is a part of.
_ENTRY = np.dtype(
    [
        *((name, np.uint64) for name in ("start", "end", "device", "inode", "file_base")),
        ("before", "U2"),
        ("given", "U2"),
        ("is_shared_memory", np.bool_),
    ]
)
_Entries = NDArray[Any]

GiveHugeAdvice = Callable[[Addresses, Addresses, PtraceAdvice], NDArray[np.int64]]
"""Gives advice for ranges, and answers as advise_by_ptrace does; where there is none, by ptrace."""


class HugeAdviceEffect:
    """Memory whose mapping has the flag now (`hg` or `nh`), and had not before.

    Looked at is the advice, not the pages: after hugepage the kernel makes huge pages as the memory is touched or its
    khugepaged comes by; after nohugepage it makes no more, and those that are there stay as they are (to split them
    would cost their owner more than it saves, and is no part of this action).
    """

    def __init__(self, subject: Subject, *, action: Action) -> None:
        self._subject = subject
        self._flag = _FLAG[action]
        pieces, mappings = subject.pieces, subject.mappings
        self._is_possible: Flags = (~mappings.has_flag(self._flag) & _can_be_huge(mappings))[pieces.mapping]
        self.possible_bytes: Counts = np.where(self._is_possible, pieces.size_bytes, 0)

    def possible_runs(self) -> tuple[Addresses, Addresses, Counts]:
        pieces, which = self._subject.pieces, self._is_possible
        return pieces.start[which], pieces.end[which], np.flatnonzero(which)

    def applied_bytes(self) -> Counts:
        now, pieces = read_smaps(self._subject.process), self._subject.pieces
        has = now.has_flag(self._flag)
        flagged = overlap_bytes(pieces.start, pieces.end, now.mappings.starts[has], now.mappings.ends[has])
        return np.where(self._is_possible, flagged, 0)


def huge_advice_refusal(process: Process, *, apply: bool) -> str:
    """Why this process cannot be made to give advice, or an empty text; a dry run leaves its memory alone.

    Raises TargetGone.
    """
    try:
        return remote_call_refusal(process, searches_code=apply)
    except HostCannot as error:
        return str(error)


def within_map_count(pieces: Pieces, mappings: DetailedMappings, action: Action) -> tuple[Pieces, str]:
    """Pieces without those for whose advice the target would get too many mappings.

    Each range that gets advice can split a mapping twice, and a process may have vm.max_map_count of them: beyond, its
    own mmap fails.  So half of that is left to the target.

    Returns the pieces, and why others were left out.
    """
    most = read_max_map_count()
    limit = int(most * _MAP_COUNT_SHARE)
    wanted = (~mappings.has_flag(_FLAG[action]) & _can_be_huge(mappings))[pieces.mapping]
    start, end, _ = pieces.take(wanted).runs()
    room = max(0, limit - len(mappings)) // 2
    reason = (
        f"the target has {len(mappings)} mappings, and to split off {len(start)} ranges may add two for each: "
        f"more than half of vm.max_map_count ({most}) is left to the target itself"
    )
    return pieces.without(start[room:], end[room:]), reason


def advise_huge_pages(
    process: Process,
    pieces: Pieces,
    action: Action,
    log: "AdviceLog",
    *,
    mappings: DetailedMappings | None = None,
    stopped: Callable[[], bool] = lambda: False,
    give: GiveHugeAdvice | None = None,
) -> tuple[Refusal, ...]:
    """Have the target give the advice `hugepage` or `nohugepage` for the pieces, and note in `log` what it had.

    Where that is by ptrace, the caller has the user's leave (guard.allow_ptrace).  What had the flag already is not
    advised again.  Ranges that fail, because their mapping has changed meanwhile, show as not applied.

    Args:
        mappings: as they are now; read where None.
        stopped: whether to leave the rest.
        give: by what; None: by ptrace.

    Returns what was not tried, as the host or the target's state forbids it, or nobody wants it any more.

    Raises TargetGone.
    """
    mappings = mappings or read_smaps(process)
    start, end, _ = pieces.runs()
    start, end, _, row = intersect(start, end, mappings.mappings.starts, mappings.mappings.ends)
    wanted = (~mappings.has_flag(_FLAG[action]))[row]
    entries = _describe(start[wanted], end[wanted], mappings, row[wanted])
    entries["given"] = _FLAG[action]
    answers = np.full(len(entries), -errno.EINTR, np.int64)
    reason = "no thread of the target could be used in time"
    try:
        for first in range(0, len(entries), _CALL_RANGES):
            if stopped():
                reason = STOPPED
                break
            part = slice(first, first + _CALL_RANGES)
            ranges = entries["start"][part], entries["end"][part], _ADVICE[_FLAG[action]]
            answers[part] = give(*ranges) if give else advise_by_ptrace(process, *ranges)
            if (answers[part] == -errno.EINTR).any():
                break
    except HostCannot as error:
        # An earlier stop of the same call may have done a part of it: what has the flag now tells.
        reason = str(error)
    finally:
        # If we end in the middle of it, undo must know of it all the same.
        now = read_smaps(process)
        log.note(entries, now, is_going_on=answers == -errno.EINPROGRESS)
    unknown = entries[answers == -errno.EINTR]
    untried_bytes = int((sizes(unknown["start"], unknown["end"]) - _has_flag_now(unknown, unknown["given"], now)).sum())
    return (Refusal(reason, untried_bytes),) if untried_bytes else ()


class AdviceLog:
    """What carries advice of ours, and what huge page advice it had before, which is put back at the end.

    Args:
        left: of an earlier log of the same memory.

    Attributes:
        left: what had no advice, and after `undo` carries what comes nearest to none: no wish of the application.
    """

    def __init__(self, left: NDArray[np.void] | None = None) -> None:
        self._entries = np.zeros(0, _ENTRY)
        self.left: _Entries = np.zeros(0, _ENTRY) if left is None else left

    def __len__(self) -> int:
        return len(self._entries)

    def ours(self, flag: str, mappings: DetailedMappings) -> tuple[Addresses, Addresses]:
        """Ranges with the flag `hg` or `nh` that have it from us and not from the application: sorted, disjoint.

        What is another mapping now, or has other advice, is forgotten.
        """
        self._entries = _still_ours(self._entries, mappings)
        ours = np.concatenate((self._entries, _still_ours(self.left, mappings)))
        given = ours[ours["given"] == flag]
        return join_adjacent(given["start"], given["end"])

    def clear(self) -> None:
        """Forget all: the target's memory is another one."""
        self._entries = np.zeros(0, _ENTRY)

    def note(self, entries: _Entries, mappings: DetailedMappings, *, is_going_on: Flags) -> None:
        """Remember those of the entries, which are sorted and disjoint, that have our advice by these mappings.

        A range that carries advice of ours already keeps what it had before the first.

        Args:
            is_going_on: whose call had begun when it was left alone: they will have it.
        """
        new = _still_ours(entries, mappings)
        late = _outside(entries[is_going_on], new["start"], new["end"])
        new = self._without_left(np.concatenate((new, late)))
        new = new[np.argsort(new["start"])]
        start, end = new["start"], new["end"]
        old = self._entries
        part_start, part_end, of_old, of_new = intersect(old["start"], old["end"], start, end)
        again = _cut(new, part_start, part_end, of_new)
        carries = _is_same_mapping(old[of_old], again) & (again["before"] == old["given"][of_old])
        again["before"] = np.where(carries, old["before"][of_old], again["before"])
        entries = np.concatenate((_outside(old, start, end), again, _outside(new, old["start"], old["end"])))
        self._entries = entries[np.argsort(entries["start"])]

    def _without_left(self, entries: _Entries) -> _Entries:
        """What carried only what we had left there had no advice before."""
        left = self.left
        start, end, of_left, row = intersect(left["start"], left["end"], entries["start"], entries["end"])
        parts = _cut(entries, start, end, row)
        parts["before"] = np.where(parts["before"] == left["given"][of_left], "", parts["before"])
        return np.concatenate((_outside(entries, *join_adjacent(left["start"], left["end"])), parts))

    def undo(self, process: Process, give: GiveHugeAdvice | None = None) -> tuple[str, ...]:
        """Put back what the ranges had, where they still are the same mapping and carry our advice.

        Where they had a flag, they get it back.  Where they had none, no advice can take a flag away: they get, or
        keep, the one that comes nearest to none under the host's mode of huge pages: nohugepage, or in the mode
        `always` hugepage.

        Returns what came of it, in sentences; nothing where nothing was left to undo.
        """
        entries, self._entries = self._entries, np.zeros(0, _ENTRY)
        if not len(entries):
            return ()
        try:
            entries = _still_ours(entries, read_smaps(process))
            wanted = np.where(entries["before"] != "", entries["before"], _nearest_to_none(entries, read_huge_pages()))
            reason = _give_back(process, entries, wanted, give)
            nearest = entries[entries["before"] == ""]
            nearest["given"] = wanted[entries["before"] == ""]
            self.left = joined_left(self.left, nearest)
            return _sentences(entries, wanted, _has_flag_now(entries, wanted, read_smaps(process)), reason)
        except TargetGone:
            return ()


def joined_left(old: NDArray[np.void], new: NDArray[np.void]) -> NDArray[np.void]:
    """What two logs have left of the same memory (`AdviceLog.left`): the newer one holds."""
    both = np.concatenate((_outside(old, *join_adjacent(new["start"], new["end"])), new))
    return both[np.argsort(both["start"])]


def _describe(start: Addresses, end: Addresses, mappings: DetailedMappings, row: Counts) -> _Entries:
    entries = np.zeros(len(start), _ENTRY)
    of = mappings.mappings
    entries["start"], entries["end"] = start, end
    entries["before"] = _flags_of(mappings)[row]
    entries["is_shared_memory"] = (of.kinds == MappingKind.SHARED_MEMORY)[row]
    entries["device"], entries["inode"] = of.devices[row], of.inodes[row]
    # Where the start of the file would lie; it stays when the mapping grows or is split.
    entries["file_base"] = np.where(of.inodes != 0, of.starts - of.offsets, 0)[row]
    return entries


def _flags_of(mappings: DetailedMappings) -> NDArray[np.str_]:
    """For each mapping `hg`, `nh` or nothing."""
    return np.where(mappings.has_flag("hg"), "hg", np.where(mappings.has_flag("nh"), "nh", ""))


def _cut(entries: _Entries, start: Addresses, end: Addresses, row: Counts) -> _Entries:
    """Parts [start, end) of the entries `row`."""
    parts: _Entries = entries[row]
    parts["start"], parts["end"] = start, end
    return parts


def _outside(entries: _Entries, start: Addresses, end: Addresses) -> _Entries:
    """What of the entries lies outside of ranges, which are sorted and disjoint."""
    return _cut(entries, *intersect(entries["start"], entries["end"], *gaps_between(start, end))[:3])


def _is_same_mapping(one: _Entries, other: _Entries) -> Flags:
    same = np.ones(len(one), np.bool_)
    for column in ("is_shared_memory", "device", "inode", "file_base"):
        same &= one[column] == other[column]
    return same


def _still_ours(entries: _Entries, mappings: DetailedMappings) -> _Entries:
    """What is mapped as it was and has the flag that we gave: new mappings begin without any."""
    of = mappings.mappings
    start, end, entry, row = intersect(entries["start"], entries["end"], of.starts, of.ends)
    parts, now = _cut(entries, start, end, entry), _describe(start, end, mappings, row)
    still: _Entries = parts[_is_same_mapping(parts, now) & (now["before"] == parts["given"])]
    return still


def _nearest_to_none(entries: _Entries, huge_pages: HugePageFacts) -> NDArray[np.str_]:
    anonymous = "hg" if huge_pages.mode == "always" else "nh"
    shared = "hg" if huge_pages.shared_memory_mode in ("always", "within_size", "force") else "nh"
    return np.where(entries["is_shared_memory"], shared, anonymous)


def _give_back(process: Process, entries: _Entries, wanted: NDArray[np.str_], give: GiveHugeAdvice | None) -> str:
    """Have the target give the wanted advice where it is another than ours; why it could not, or an empty text."""
    try:
        for flag, advice in _ADVICE.items():
            differs = entries[(wanted == flag) & (entries["given"] != flag)]
            start, end = join_adjacent(differs["start"], differs["end"])
            if len(start) and give:
                give(start, end, advice)
            elif len(start):
                advise_by_ptrace(process, start, end, advice, patience_s=_LAST_PATIENCE_S)
    except HostCannot as error:
        return str(error)
    return "the kernel refused" if give else "no thread of the target could be used"


def _has_flag_now(entries: _Entries, wanted: NDArray[np.str_], mappings: DetailedMappings) -> Counts:
    """For each entry the bytes that have the wanted flag."""
    found = np.zeros(len(entries), np.int64)
    for flag in _ADVICE:
        has = mappings.has_flag(flag)
        flagged = overlap_bytes(
            entries["start"], entries["end"], mappings.mappings.starts[has], mappings.mappings.ends[has]
        )
        found = np.where(wanted == flag, flagged, found)
    return found


def _sentences(entries: _Entries, wanted: NDArray[np.str_], done_bytes: Counts, reason: str) -> tuple[str, ...]:
    had_none, kept = entries["before"] == "", wanted == entries["given"]
    sentences = []
    if back := int(done_bytes[~had_none].sum()):
        sentences.append(f"{format_size(back)} have the huge page advice again that the application gave")
    for flag, advice in _ADVICE.items():
        for which, verb in ((~kept, "have"), (kept, "keep")):
            if size := int(done_bytes[had_none & which & (wanted == flag)].sum()):
                sentences.append(
                    f"{format_size(size)} that had no huge page advice {verb} {advice.name.lower()} now: no advice "
                    "can be taken away, and with this host's settings this comes nearest to none"
                )
    if left := int((sizes(entries["start"], entries["end"]) - done_bytes).sum()):
        sentences.append(f"{format_size(left)} keep the huge page advice that was given: {reason}")
    return tuple(sentences)


def _can_be_huge(mappings: DetailedMappings) -> Flags:
    """Mappings that can get huge pages by advice: anonymous and shared memory, and programs' code.

    Of files khugepaged takes those that are mapped executable (CONFIG_READ_ONLY_THP_FOR_FS); others get large folios
    by their file system's own choice.
    """
    kinds = mappings.mappings.kinds
    in_memory = np.isin(kinds, (MappingKind.PRIVATE_ANONYMOUS, MappingKind.SHARED_MEMORY))
    is_file = np.isin(kinds, (MappingKind.PRIVATE_FILE, MappingKind.SHARED_FILE))
    possible: Flags = in_memory | (is_file & mappings.mappings.has_permission(Permission.EXECUTE))
    return possible
