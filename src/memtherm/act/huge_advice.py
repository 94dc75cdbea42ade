"""Huge page advice on another process, which is made to give it itself (ptrace), and how it is taken back at the end.

It is the one action that outlasts a run: VmFlags `hg` and `nh` stay on a mapping until it goes, or other advice comes.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from memtherm.act.effect import Subject
from memtherm.act.pieces import Pieces, gaps_between
from memtherm.core.ranges import Addresses, Counts, Flags, intersect, join_adjacent, overlap_bytes, sizes
from memtherm.core.scheme import Action
from memtherm.errors import HostCannot, TargetGone
from memtherm.linux.huge_pages import HugePageFacts, read_huge_pages
from memtherm.linux.maps import DetailedMappings, MappingKind, Permission, read_smaps
from memtherm.linux.process import Process
from memtherm.linux.remote_call import PtraceAdvice, advise_by_ptrace
from memtherm.units import format_size

_FLAG = {Action.HUGEPAGE: "hg", Action.NOHUGEPAGE: "nh"}
_ADVICE = {"hg": PtraceAdvice.HUGEPAGE, "nh": PtraceAdvice.NOHUGEPAGE}
# At the end there is no later try.
_LAST_PATIENCE_S = 2.0
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


def advise_huge_pages(
    process: Process, pieces: Pieces, action: Action, log: "AdviceLog", *, mappings: DetailedMappings | None = None
) -> None:
    """Have the target give the advice `hugepage` or `nohugepage` for the pieces, and note in `log` what it had.

    The caller has the user's leave (guard.allow_ptrace).  What had the flag already is not advised again.  Ranges
    that fail, because their mapping has changed meanwhile or no thread could be used, show as not applied.

    Args:
        mappings: as they are now; read where None.

    Raises what advise_by_ptrace raises: TargetGone, NotPermitted, NotSupported.
    """
    mappings = mappings or read_smaps(process)
    start, end, _ = pieces.runs()
    start, end, _, row = intersect(start, end, mappings.mappings.starts, mappings.mappings.ends)
    wanted = (~mappings.has_flag(_FLAG[action]))[row]
    start, end, row = start[wanted], end[wanted], row[wanted]
    # Before it is done: if we end in the middle of it, undo must know of it.
    log.note(start, end, mappings=mappings, row=row, action=action)
    advise_by_ptrace(process, start, end, _ADVICE[_FLAG[action]])


class AdviceLog:
    """Remembers what huge page advice ranges had before ours, and puts it back at the end."""

    def __init__(self) -> None:
        self._entries = np.zeros(0, _ENTRY)

    def __len__(self) -> int:
        return len(self._entries)

    def note(
        self, start: Addresses, end: Addresses, *, mappings: DetailedMappings, row: Counts, action: Action
    ) -> None:
        """Remember ranges that are about to get our advice, each a part of row `row` of `mappings`.

        A range that carries advice of ours already keeps what it had before the first.
        """
        new = _describe(start, end, mappings, row)
        new["given"] = _FLAG[action]
        old = self._entries
        part_start, part_end, of_old, of_new = intersect(old["start"], old["end"], start, end)
        again = _cut(new, part_start, part_end, of_new)
        carries = _is_same_mapping(old[of_old], again) & (again["before"] == old["given"][of_old])
        again["before"] = np.where(carries, old["before"][of_old], again["before"])
        entries = np.concatenate((_outside(old, start, end), again, _outside(new, old["start"], old["end"])))
        self._entries = entries[np.argsort(entries["start"])]

    def undo(self, process: Process) -> tuple[str, ...]:
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
            reason = _give_back(process, entries, wanted)
            return _sentences(entries, wanted, _has_flag_now(entries, wanted, read_smaps(process)), reason)
        except TargetGone:
            return ()


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


def _give_back(process: Process, entries: _Entries, wanted: NDArray[np.str_]) -> str:
    """Have the target give the wanted advice where it is another than ours; why it could not, or an empty text."""
    try:
        for flag, advice in _ADVICE.items():
            differs = entries[(wanted == flag) & (entries["given"] != flag)]
            start, end = join_adjacent(differs["start"], differs["end"])
            if len(start):
                advise_by_ptrace(process, start, end, advice, patience_s=_LAST_PATIENCE_S)
    except HostCannot as error:
        return str(error)
    return "no thread of the target could be used"


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
