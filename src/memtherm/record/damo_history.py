"""What was read from a file of damo, as a History: its regions as columns, about 50 bytes for each, and while
it is read three times that."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields

import numpy as np
from numpy.typing import NDArray

from memtherm.core.history import Event, MappingTable, SchemeTimes, Vitals
from memtherm.core.ranges import Counts
from memtherm.core.report import Report
from memtherm.core.rows import SnapshotRows
from memtherm.core.selection import EVERYTHING, Selection
from memtherm.core.snapshot import Conditions, Regions, Snapshot, TargetInfo, rate_error
from memtherm.errors import InvalidInput

# DAMON's own ratio (damon-spec §1.2), kept by its tuning of intervals.
USUAL_LOOKS = 20
_ROWS_AT_ONCE = 65536
_FIRST_EPOCH_S = 1e9  # 2001; no machine is up for that long


@dataclass(frozen=True)
class DamoTarget:
    """Whose snapshots belong together: what tells the elements of a file apart, or the targets of a trace.

    Attributes:
        target_id: an index, or an address of the kernel in records of old ones; None of snapshots of all targets.
    """

    kdamond: int = 0
    context: int = 0
    scheme: int | None = None
    target_id: int | None = None


@dataclass
class Pieces:
    """The snapshots of one target, one after the other, as they stand in the file.

    Attributes:
        start_ns, end_ns: of each snapshot.
        aggregation_s: its aggregation interval where the file says one, else 0.
        looks: samples in its window where the file says so, else 0.
        first_row: where its regions begin.
        start, end: of each region.
        nr_accesses: -1 where only a percentage is given.
        percent: -1 where none is given.
        age: in seconds, or with `has_age_in_windows` in aggregation intervals; -1 where none is given.
    """

    start_ns: array[int] = field(default_factory=lambda: array("q"))
    end_ns: array[int] = field(default_factory=lambda: array("q"))
    aggregation_s: array[float] = field(default_factory=lambda: array("d"))
    looks: array[float] = field(default_factory=lambda: array("d"))
    has_age_in_windows: array[int] = field(default_factory=lambda: array("b"))
    first_row: array[int] = field(default_factory=lambda: array("q"))
    start: array[int] = field(default_factory=lambda: array("Q"))
    end: array[int] = field(default_factory=lambda: array("Q"))
    nr_accesses: array[int] = field(default_factory=lambda: array("i"))
    percent: array[float] = field(default_factory=lambda: array("d"))
    age: array[float] = field(default_factory=lambda: array("d"))

    def __len__(self) -> int:
        return len(self.end_ns)


@dataclass(frozen=True)
class _Windows:
    """Pieces of one target, or of all, with what the file does not say filled in."""

    target: Counts
    start_ns: Counts
    end_ns: Counts
    aggregation_s: NDArray[np.float64]
    looks: Counts
    first_row: Counts
    regions: Regions


class DamoHistory:
    """A History of damo's; besides regions it holds nothing.

    Attributes:
        doubts: in sentences why its numbers may not be true: what the file does not say, and had to be guessed.
        notes: these, and what else whoever reads it should know, such as what was left out.
    """

    def __init__(
        self, pieces: dict[DamoTarget, Pieces], *, notes: Sequence[str] = (), pids: Sequence[int] = ()
    ) -> None:
        keys = [key for key, one in pieces.items() if len(one)]
        self.targets = tuple(_target_info(key, keys, pids) for key in keys)
        found: list[str] = []
        windows = [_filled(target, pieces.pop(key), found) for target, key in enumerate(keys)]
        self._rows = _in_time(_together(windows)) if windows else None
        self.time_span_s = _span_s(windows)
        self.doubts = tuple(dict.fromkeys(found))
        since_boot = windows and self.time_span_s[1] < _FIRST_EPOCH_S
        clock = ["its times count from the start of the machine, not from 1970"] if since_boot else []
        self.notes = (*notes, *self.doubts, *clock)

    def rows(self, selection: Selection = EVERYTHING) -> Iterator[SnapshotRows]:
        """Some snapshots at a time, in the order of time."""
        if self._rows is None:
            return
        first = 0
        while first < len(self._rows):
            wanted = self._rows.first_row[first] + _ROWS_AT_ONCE
            end = max(first + 1, int(np.searchsorted(self._rows.first_row, wanted, side="right")) - 1)
            rows = selection.of(self._rows.take_snapshots(first, min(end, len(self._rows))))
            if len(rows):
                yield rows
            first = end

    def reports(self, selection: Selection = EVERYTHING) -> Iterator[Report]:
        for rows in self.rows(selection):
            for index in range(len(rows)):
                one = rows.take_snapshots(index, index + 1)
                yield Report(Snapshot(float(one.time_s[0]), self.targets, one.regions, self._conditions(one)), ())

    def conditions(self, selection: Selection = EVERYTHING) -> Iterator[Conditions]:
        for rows in self.rows(Selection(since_s=selection.since_s, until_s=selection.until_s)):
            yield from (self._conditions(rows.take_snapshots(index, index + 1)) for index in range(len(rows)))

    def mappings(self, selection: Selection = EVERYTHING) -> Iterator[MappingTable]:  # noqa: ARG002  # there are none
        return iter(())

    def vitals(self, selection: Selection = EVERYTHING) -> Iterator[Vitals]:  # noqa: ARG002  # there are none
        return iter(())

    def schemes(self, selection: Selection = EVERYTHING) -> Iterator[SchemeTimes]:  # noqa: ARG002  # there are none
        return iter(())

    def events(self, selection: Selection = EVERYTHING) -> Iterator[Event]:  # noqa: ARG002  # there are none
        return iter(())

    def _conditions(self, one: SnapshotRows) -> Conditions:
        samples, sampling_s = int(one.samples[0]), float(one.sampling_interval_s[0])
        return Conditions(
            method="sampling",
            why="read from a record of damo",
            probe="kdamond",
            clearing="cold",
            grain="page",
            sampling_interval_s=sampling_s,
            aggregation_interval_s=samples * sampling_s,
            samples=samples,
            window_s=float(one.window_s[0]),
            doubts=self.doubts,
        )


def _target_info(key: DamoTarget, keys: list[DamoTarget], pids: Sequence[int]) -> TargetInfo:
    words = []
    if len({one.kdamond for one in keys}) > 1:
        words.append(f"kdamond {key.kdamond}")
    if len({one.context for one in keys}) > 1:
        words.append(f"context {key.context}")
    if len({one.scheme for one in keys}) > 1 and key.scheme is not None:
        words.append(f"scheme {key.scheme}")
    words.append("all targets" if key.target_id is None else f"target {key.target_id}")
    known = key.target_id is not None and key.target_id < len(pids) and (key.kdamond, key.context) == (0, 0)
    return TargetInfo(pid=pids[key.target_id] if known and key.target_id is not None else 0, name=" ".join(words))


def _span_s(windows: list[_Windows]) -> tuple[float, float]:
    if not windows:
        return 0.0, 0.0
    return min(int(one.start_ns.min()) for one in windows) / 1e9, max(int(one.end_ns.max()) for one in windows) / 1e9


def _filled(target: int, pieces: Pieces, notes: list[str]) -> _Windows:
    """The columns of one target as our regions."""
    start_ns, end_ns = np.array(pieces.start_ns), np.array(pieces.end_ns)
    if (end_ns < start_ns).any():
        raise InvalidInput(f"snapshot {int(np.argmax(end_ns < start_ns)) + 1} ends before it begins")
    first_row = np.append(np.array(pieces.first_row), len(pieces.start)).astype(np.int64)
    piece_of_row = np.repeat(np.arange(len(pieces)), np.diff(first_row))
    aggregation_s = np.array(pieces.aggregation_s)
    # Of the window itself where the file does not say; such a file has windows of one length.
    usual_s = float(np.median(end_ns - start_ns)) / 1e9
    aggregation_s = np.where(aggregation_s > 0, aggregation_s, usual_s)
    looks, nr_accesses, rate = _rates(pieces, piece_of_row, notes)
    age = np.array(pieces.age)
    if (age < 0).any():
        notes.append("some or all of its regions have no age: they count as new")
    in_windows = np.array(pieces.has_age_in_windows, np.bool_)[piece_of_row]
    age_s = np.maximum(np.where(in_windows, age * aggregation_s[piece_of_row], age), 0.0)
    regions = Regions(
        np.full(len(rate), target, np.int32),
        np.array(pieces.start),
        np.array(pieces.end),
        nr_accesses,
        rate,
        age_s,
        rate_error(rate, looks[piece_of_row].astype(np.float64)),
    )
    if (regions.start >= regions.end).any():
        wrong = int(np.argmax(regions.start >= regions.end))
        raise InvalidInput(
            f"snapshot {int(piece_of_row[wrong]) + 1}: the region {regions.start[wrong]}-{regions.end[wrong]} "
            "ends before it begins"
        )
    targets = np.full(len(pieces), target)
    ordered = _sorted(regions, piece_of_row, notes)
    return _Windows(targets, start_ns, end_ns, aggregation_s, looks, first_row, ordered)


def _rates(pieces: Pieces, piece_of_row: Counts, notes: list[str]) -> tuple[Counts, Counts, NDArray[np.float64]]:
    """The looks of each snapshot; of each region its accesses and its access rate."""
    nr_accesses, percent = np.array(pieces.nr_accesses, np.int64), np.array(pieces.percent, np.float64)
    ratio = _ratio(pieces, nr_accesses, notes)
    ratio_of_row = ratio[piece_of_row]
    nr_accesses = np.where(nr_accesses >= 0, nr_accesses, np.rint(percent * ratio_of_row / 100)).astype(np.int64)
    # damo cuts percentages to whole ones, and they say less than the accesses.  Any other one says more: it is
    # of a window that had another number of looks than the file says of all.
    says_more = (percent >= 0) & (percent != np.floor(nr_accesses * 100 / ratio_of_row))
    rate = np.minimum(np.where(says_more, percent / 100, nr_accesses / np.rint(ratio_of_row)), 1.0)
    own = np.rint(nr_accesses / np.maximum(rate, 1e-12))
    known = says_more & (nr_accesses > 0) & (np.abs(nr_accesses / np.maximum(own, 1) - rate) < 1e-7)
    looks = np.rint(ratio).astype(np.int64)
    looks[piece_of_row[known]] = own[known].astype(np.int64)
    return looks, nr_accesses, rate


def _ratio(pieces: Pieces, nr_accesses: Counts, notes: list[str]) -> NDArray[np.float64]:
    """Looks of each snapshot as the file says, or as can be guessed; as damo, not rounded."""
    ratio = np.array(pieces.looks)
    if (ratio > 0).all():
        return ratio
    most = int(nr_accesses.max(initial=0))
    guess = max(USUAL_LOOKS, most)
    why = "DAMON's usual number" if guess > most else "the most accesses in it"
    notes.append(f"it does not say how many looks a window has: access rates are of {guess}, {why}")
    return np.where(ratio > 0, ratio, float(guess))


def _sorted(regions: Regions, piece_of_row: Counts, notes: list[str]) -> Regions:
    """By address within each snapshot, as DAMON writes them."""
    same = piece_of_row[1:] == piece_of_row[:-1]
    if (same & (regions.start[1:] < regions.start[:-1])).any():
        order = np.lexsort((regions.start, piece_of_row))
        regions = regions.take(order)
    if (same & (regions.start[1:] < regions.end[:-1])).any():
        notes.append("some of its regions overlap: the same memory counts more than once")
    return regions


def _together(windows: list[_Windows]) -> _Windows:
    """The pieces of all targets, one target after the other."""
    if len(windows) == 1:
        return windows[0]
    rows = np.cumsum([0] + [len(one.regions) for one in windows])
    firsts = [one.first_row[:-1] + before for one, before in zip(windows, rows, strict=False)]
    names = [name.name for name in fields(Regions)]
    return _Windows(
        target=np.concatenate([one.target for one in windows]),
        start_ns=np.concatenate([one.start_ns for one in windows]),
        end_ns=np.concatenate([one.end_ns for one in windows]),
        aggregation_s=np.concatenate([one.aggregation_s for one in windows]),
        looks=np.concatenate([one.looks for one in windows]),
        first_row=np.append(np.concatenate(firsts), rows[-1]),
        regions=Regions(*(np.concatenate([getattr(one.regions, name) for one in windows]) for name in names)),
    )


def _in_time(pieces: _Windows) -> SnapshotRows:
    """Snapshots in the order of time, each of the pieces that are of one window."""
    order, first_piece = _groups(pieces)
    first_row, counts = pieces.first_row[:-1][order], np.diff(pieces.first_row)[order]
    row_border = np.concatenate(([0], np.cumsum(counts)))
    regions = pieces.regions
    if (order[1:] < order[:-1]).any():
        regions = regions.take(np.repeat(first_row - row_border[:-1], counts) + np.arange(row_border[-1]))
    leading = order[first_piece]
    end_ns = np.maximum.reduceat(pieces.end_ns[order], first_piece)
    return SnapshotRows(
        end_ns / 1e9,
        np.maximum.reduceat((pieces.end_ns - pieces.start_ns)[order], first_piece) / 1e9,
        pieces.looks[leading],
        pieces.aggregation_s[leading] / pieces.looks[leading],
        row_border[np.append(first_piece, len(order))],
        regions,
    )


def _groups(pieces: _Windows) -> tuple[Counts, Counts]:
    """An order of the pieces, by time and within a window by target; and where in it each window begins.

    The kernel gives the targets of a window one after the other, some microseconds apart.
    """
    by_time = np.lexsort((pieces.target, pieces.end_ns))
    columns = (by_time, pieces.target[by_time], pieces.end_ns[by_time], pieces.looks[by_time])
    half_ns = (pieces.aggregation_s[by_time] * 0.5e9).tolist()
    group = np.empty(len(by_time), np.int64)
    number, latest_ns, looks = -1, -math.inf, 0
    here: set[int] = set()
    for index, (_, target, end_ns, own_looks) in enumerate(zip(*(one.tolist() for one in columns), strict=True)):
        if end_ns > latest_ns or target in here or own_looks != looks:
            number, latest_ns, looks = number + 1, end_ns + half_ns[index], own_looks
            here.clear()
        here.add(target)
        group[index] = number
    within = np.lexsort((pieces.target[by_time], group))
    return by_time[within], np.flatnonzero(np.diff(group, prepend=-1))
