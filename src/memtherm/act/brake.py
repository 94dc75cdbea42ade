"""The guards that watch what acting does to a target: pages that come back, and waiting for memory (design §7).

Slower from half of a limit on, stopped above it, free again below half.  How it is decided is apart from how it is
read: RefaultWatch, Governor and PressureWatch are told everything, and the time too.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memtherm.act.pieces import gaps_between
from memtherm.core.guard import GuardSettings
from memtherm.core.ranges import Addresses, intersect, join_adjacent, sizes
from memtherm.core.scheme import Action
from memtherm.errors import TargetGone
from memtherm.linux.cgroups import Cgroup, read_hierarchies
from memtherm.linux.maps import Mappings, read_maps
from memtherm.linux.pagemap import IN_MEMORY_OR_SWAP, PageCategory, Pagemap
from memtherm.linux.pressure import PressureReading, read_pressure
from memtherm.linux.process import Process
from memtherm.units import PAGE_SIZE, exact_rate, format_rate, format_size

_MINUTE_S = 60.0
_LOOK_INTERVAL_S = 1.0
# A look costs about 35 ns for each page that is watched (6.18): with gigabytes of them looks become rarer.
_LONGEST_LOOK_INTERVAL_S = 15.0
_LOOK_COST = 0.01
# Fewer pages back are never a reason: of a small working set the limit is a handful of pages.
_MIN_BACK_BYTES = 64 * PAGE_SIZE
# Ranges that are watched at most; with more, every second one stands for two.  About 3 MB.
_MAX_RANGES = 65536
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 60.0, 1800.0
_MIN_CALM_S = 300.0

_BY_REFAULTS = (Action.PAGEOUT,)
# Also what is read back in needs memory that then others have to give up.
_BY_PRESSURE = (Action.PAGEOUT, Action.WILLNEED, Action.MIGRATE_HOT, Action.MIGRATE_COLD, Action.COLLAPSE)


@dataclass(frozen=True)
class Allowance:
    """How much of what is possible may be done now.

    Attributes:
        share: 1.0 all, 0.5 half, 0.0 nothing.
        reason: a sentence with figures; empty where the share is 1.0.
    """

    share: float
    reason: str = ""


# A range that left: the file it is a part of (0: anonymous), when, and for how many such ranges it stands.
_LEFT = np.dtype(
    [("start", np.uint64), ("end", np.uint64), ("inode", np.uint64), ("left_s", np.float64), ("weight", np.float64)]
)
_Left = NDArray[Any]

_FREE_SHARE, _SLOW_SHARE, _STOP_SHARE = 1.0, 0.5, 0.0
_FREE = Allowance(_FREE_SHARE)


class Governor:
    """Turns a measured share and its limit into an allowance, with hysteresis.  Limit 0: always free.

    A stop lasts a minute at least, and until the value has fallen below half of the limit.  Each further stop lasts
    twice as long at least as the one before, up to half an hour.  After a time without a stop, as long as the last
    one and five minutes at least, it begins with a minute again.
    """

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._state = _FREE
        self._pause_s = 0.0
        self._until_s = 0.0

    def decide(self, value: float, what: str, now_s: float) -> Allowance:
        """`what` says in words what was measured; a reason keeps the words with which its state began."""
        if not self._limit:
            return _FREE
        if self._state.share == _STOP_SHARE:
            if now_s < self._until_s or value >= self._limit / 2:
                return self._state
        elif self._pause_s and now_s >= self._until_s + max(self._pause_s, _MIN_CALM_S):
            self._pause_s = 0.0
        if value > self._limit:
            self._pause_s = min(self._pause_s * 2, _LONGEST_PAUSE_S) if self._pause_s else _FIRST_PAUSE_S
            self._until_s = now_s + self._pause_s
            self._state = Allowance(_STOP_SHARE, f"stopped: {what}; the limit is {exact_rate(self._limit)}")
        elif value < self._limit / 2:
            self._state = _FREE
        elif self._state.share == _FREE_SHARE:
            self._state = Allowance(_SLOW_SHARE, f"slowed down: {what}; the limit is {exact_rate(self._limit)}")
        return self._state


class RefaultWatch:
    """Which memory left when, and how much of it was back within a minute, in the last minute.

    The size of what it remembers is bounded: with too many ranges every second one is forgotten, and the others
    count for two.
    """

    def __init__(self, *, max_ranges: int = _MAX_RANGES) -> None:
        self._max_ranges = max_ranges
        self._left = np.zeros(0, _LEFT)
        self._looked_s = -np.inf
        self._back: list[tuple[float, float]] = []

    @property
    def ranges(self) -> tuple[Addresses, Addresses]:
        """What is watched: ascending, disjoint."""
        return self._left["start"], self._left["end"]

    @property
    def inodes(self) -> Addresses:
        """For each range the file that it is a part of; 0 for anonymous memory."""
        inodes: Addresses = self._left["inode"]
        return inodes

    def note(self, start: Addresses, end: Addresses, inode: Addresses, now_s: float) -> None:
        """Ranges, ascending and disjoint, that have just left; what is watched already has been back meanwhile."""
        self._count_back(_inside(self._left, start, end), now_s)
        self._left = _outside(self._left, start, end)
        left = np.zeros(len(start), _LEFT)
        left["start"], left["end"], left["inode"], left["left_s"], left["weight"] = start, end, inode, now_s, 1
        both = np.concatenate((self._left, left))
        self._left = _joined(both[np.argsort(both["start"])])
        while len(self._left) > self._max_ranges:
            self._left = self._left[::2].copy()
            self._left["weight"] *= 2

    def keep(self, start: Addresses, end: Addresses) -> None:
        """Forget, without counting it, what lies outside of these ranges, which are ascending and disjoint."""
        self._left = _inside(self._left, start, end)

    def forget(self, start: Addresses, end: Addresses) -> None:
        """Forget, without counting it, what lies in these ranges, which are ascending and disjoint."""
        self._left = _outside(self._left, start, end)

    def saw(self, start: Addresses, end: Addresses, now_s: float) -> None:
        """A look at all that is watched has found these ranges, ascending and disjoint, in memory again."""
        self._count_back(_inside(self._left, start, end), now_s)
        left = _outside(self._left, start, end)
        self._left = left[left["left_s"] > now_s - _MINUTE_S]
        self._looked_s = now_s

    def _count_back(self, back: _Left, now_s: float) -> None:
        since_s = np.maximum(back["left_s"], self._looked_s)
        # When it came back since the last look is not known.  With looks far apart, a part of it came too late to
        # count.
        share = np.clip((back["left_s"] + _MINUTE_S - since_s) / np.maximum(now_s - since_s, 1e-9), 0, 1)
        back_bytes = float((sizes(back["start"], back["end"]) * back["weight"] * share).sum())
        self._back = [one for one in self._back if one[0] > now_s - _MINUTE_S] + [(now_s, back_bytes)]

    def back_bytes(self, now_s: float) -> int:
        """What was found back in the last minute, within a minute of its leaving."""
        return int(sum(size for seen_s, size in self._back if seen_s > now_s - _MINUTE_S))


def _inside(left: _Left, start: Addresses, end: Addresses) -> _Left:
    part_start, part_end, row, _ = intersect(left["start"], left["end"], start, end)
    parts: _Left = left[row]
    parts["start"], parts["end"] = part_start, part_end
    return parts


def _outside(left: _Left, start: Addresses, end: Addresses) -> _Left:
    return _inside(left, *gaps_between(start, end))


def _joined(left: _Left) -> _Left:
    """Neighbours of one file that left together made one."""
    opens = np.ones(len(left), np.bool_)
    opens[1:] = left["start"][1:] != left["end"][:-1]
    for column in ("inode", "left_s", "weight"):
        opens[1:] |= left[column][1:] != left[column][:-1]
    joined: _Left = left[opens]
    joined["end"] = left["end"][np.append(opens[1:], True)[: len(left)]]
    return joined


class RefaultGuard:
    """Decides by a RefaultWatch: what came back, against the largest working set of the last minute."""

    def __init__(self, limit: float) -> None:
        self.watch = RefaultWatch()
        self._governor = Governor(limit)
        self._working_sets: list[tuple[float, int]] = []

    def decide(self, working_set_bytes: int, now_s: float) -> Allowance:
        """`working_set_bytes` is what the target used in its last window."""
        recent = [one for one in self._working_sets if one[0] > now_s - _MINUTE_S]
        self._working_sets = [*recent, (now_s, working_set_bytes)]
        working_set_bytes = max(size for _, size in self._working_sets)
        back_bytes = self.watch.back_bytes(now_s)
        rate = back_bytes / max(working_set_bytes, PAGE_SIZE) if back_bytes >= _MIN_BACK_BYTES else 0.0
        what = (
            f"{format_size(back_bytes)} that were paged out came back within a minute, "
            f"{format_rate(rate)} of a working set of {format_size(working_set_bytes)}"
        )
        return self._governor.decide(rate, what, now_s)


class PressureGuard:
    """Decides by the worst of some shares of time in which a task waited for memory."""

    def __init__(self, limit: float) -> None:
        self._governor = Governor(limit)

    def decide(self, pressures: Sequence[tuple[str, float]], now_s: float) -> Allowance:
        """`pressures` are of whom, and the share of the last ten seconds; none where PSI is off."""
        whose, share = max(pressures, key=lambda one: one[1], default=("nobody", 0.0))
        what = f"tasks of {whose} waited for memory for {format_rate(share)} of the last 10 s"
        return self._governor.decide(share, what, now_s)


class Brake:
    """Both guards on one process.

    Args:
        guard: its limits; 0 switches a guard off.
        clock: monotonic seconds.
    """

    def __init__(
        self, process: Process, pagemap: Pagemap, guard: GuardSettings, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._process, self._pagemap, self._clock = process, pagemap, clock
        self._watches_refaults = guard.max_refault_rate > 0
        self._watches_pressure = guard.max_memory_pressure > 0
        self._refaults = RefaultGuard(guard.max_refault_rate)
        self._pressure = PressureGuard(guard.max_memory_pressure)
        self._memory_tag = b""
        self._refaults_due_s = self._pressure_due_s = -np.inf
        self._pressures: list[tuple[str, float]] = []

    def allowance(self, action: Action, working_set_bytes: int) -> Allowance:
        """How much of the action may be done now; looks at the target at most once a second.

        Raises TargetGone.
        """
        now_s = self._clock()
        answers = [_FREE]
        if action in _BY_REFAULTS and self._watches_refaults:
            self.look()
            answers.append(self._refaults.decide(working_set_bytes, now_s))
        if action in _BY_PRESSURE and self._watches_pressure:
            answers.append(self._pressure.decide(self._read_pressures(now_s), now_s))
        return min(answers, key=lambda answer: answer.share)

    def note_paged_out(self, start: Addresses, end: Addresses) -> None:
        """Ranges whose pages were in memory and have just been paged out; what is in memory still is left out.

        Raises TargetGone.
        """
        if not self._watches_refaults or not len(start):
            return
        self._follow_exec()
        start, end = join_adjacent(start, end)
        runs = self._pagemap.scan(start, end, any_of=IN_MEMORY_OR_SWAP, report=PageCategory.SWAPPED)
        swapped = runs.categories != 0
        watch, now_s = self._refaults.watch, self._clock()
        watch.note(runs.starts[swapped], runs.ends[swapped], np.zeros(int(swapped.sum()), np.uint64), now_s)
        # What is neither in memory nor in swap has gone to its file, or is shared memory; else it was freed.
        start, end, _, _ = intersect(start, end, *gaps_between(*join_adjacent(runs.starts, runs.ends)))
        start, end, inode = _file_parts(start, end, read_maps(self._process))
        watch.note(start, end, inode, now_s)

    def note_brought_back(self, start: Addresses, end: Addresses) -> None:
        """Ranges that our own willneed reads back: their return is no refault."""
        self._refaults.watch.forget(*join_adjacent(start, end))

    def look(self) -> None:
        """Look for pages that are back, at most once a second.  Raises TargetGone."""
        now_s = self._clock()
        if now_s >= self._refaults_due_s:
            self._look(now_s)
            interval_s = (self._clock() - now_s) / _LOOK_COST
            self._refaults_due_s = now_s + min(max(interval_s, _LOOK_INTERVAL_S), _LONGEST_LOOK_INTERVAL_S)

    def _look(self, now_s: float) -> None:
        watch = self._refaults.watch
        self._follow_exec()
        if watch.inodes.any():
            self._forget_unmapped()
        start, end = watch.ranges
        runs = self._pagemap.scan(start, end, any_of=IN_MEMORY_OR_SWAP, report=PageCategory.PRESENT)
        present = runs.categories != 0
        watch.saw(runs.starts[present], runs.ends[present], now_s)
        # Anonymous memory that is no longer in swap either was freed: what is mapped there later is new.
        is_file = watch.inodes != 0
        start, end = watch.ranges
        watch.keep(
            *join_adjacent(
                np.concatenate((runs.starts[~present], start[is_file])),
                np.concatenate((runs.ends[~present], end[is_file])),
            )
        )

    def _forget_unmapped(self) -> None:
        """Forget ranges of files that are not mapped there any more."""
        watch = self._refaults.watch
        (start, end), inode = watch.ranges, watch.inodes
        maps = read_maps(self._process)
        part_start, part_end, row, mapping = intersect(start, end, maps.starts, maps.ends)
        same = maps.inodes[mapping] == inode[row]
        anonymous = inode == 0
        watch.keep(
            *join_adjacent(
                np.concatenate((part_start[same], start[anonymous])), np.concatenate((part_end[same], end[anonymous]))
            )
        )

    def _follow_exec(self) -> None:
        # It holds the address of random bytes that the kernel puts on each new stack.
        tag = self._process.read_file("auxv")
        if tag != self._memory_tag:
            self._memory_tag = tag
            none = np.zeros(0, np.uint64)
            self._refaults.watch.keep(none, none)

    def _read_pressures(self, now_s: float) -> list[tuple[str, float]]:
        if now_s >= self._pressure_due_s:
            self._pressure_due_s = now_s + _LOOK_INTERVAL_S
            readings = [("the system", read_pressure("memory"))]
            if readings[0][1].value is not None:
                readings += _cgroup_pressure(self._process)
            self._pressures = [
                (whose, reading.value.some.fraction_10s)
                for whose, reading in readings
                if reading.value is not None and reading.value.some is not None
            ]
        return self._pressures


def _file_parts(start: Addresses, end: Addresses, mappings: Mappings) -> tuple[Addresses, Addresses, Addresses]:
    """What of the ranges belongs to files and shared memory, with their inodes."""
    start, end, _, mapping = intersect(start, end, mappings.starts, mappings.ends)
    inode = mappings.inodes[mapping]
    is_file = inode != 0
    return start[is_file], end[is_file], inode[is_file]


def _cgroup_pressure(process: Process) -> list[tuple[str, PressureReading]]:
    """Of the target's control group, if it is one of version 2 below the root, whose pressure is the system's."""
    lines = process.read_file("cgroup").decode(errors="surrogateescape").splitlines()
    for hierarchy in read_hierarchies():
        paths = [line.split(":", 2)[2] for line in lines if hierarchy.version == 2 and hierarchy.is_in_line(line)]
        for path in paths:
            if path == "/" or not hierarchy.directory(path):
                continue
            try:
                return [(f"its cgroup {path}", Cgroup(hierarchy, path).pressure())]
            except TargetGone:  # moved to another meanwhile, and this one removed
                continue
    return []
