"""The address axis of a picture: watched ranges one above the other, the gaps between them folded away."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from memtherm.core.ranges import Addresses, Flags
from memtherm.core.rows import SnapshotRows
from memtherm.units import PAGE_SIZE
from memtherm.views.batches import Runs
from memtherm.views.footprint import Stretches, bytes_outside
from memtherm.views.names import NamedRanges, mapping_name, names_within, short_name

_ABOUT_AS_HOT = 0.9
# Where all is to be shown so many ranges are, though each needs a row of its own.
_WHOLE_RANGES = 256


@dataclass(frozen=True)
class NamedPart:
    """Neighbouring mappings of one name within a range."""

    start: int
    end: int
    name: str


@dataclass(frozen=True)
class AxisRange:
    """Addresses that are shown without a gap.

    Attributes:
        target: index into `History.targets`.
        start, end: addresses, half-open.
        name: of the mapping with most bytes in it, such as `heap` or `libc.so.6`, and how many more there are;
            empty where the run knows no mappings.
        first_row, end_row: its rows of the picture, half-open.
        parts: all mappings in it, by address.
    """

    target: int
    start: int
    end: int
    name: str
    first_row: int
    end_row: int
    parts: tuple[NamedPart, ...] = ()

    @property
    def size_bytes(self) -> int:
        return self.end - self.start


@dataclass(frozen=True)
class Axis:
    """Ranges and how they lie in rows; all rows of a range have as many bytes.

    Attributes:
        shown: the ranges, by target and address.
        first_row: where each range begins, and the number of rows at the end (int64).
        nr_ranges: ranges that there were, those left out included.
        left_out_bytes: in ranges that are not shown.
    """

    shown: Stretches
    first_row: NDArray[np.int64]
    nr_ranges: int
    left_out_bytes: int

    @property
    def nr_rows(self) -> int:
        return int(self.first_row[-1])

    def row_borders(self) -> tuple[Addresses, Addresses, NDArray[np.int64]]:
        """First address, end and target of each row; whole pages where the range begins with one."""
        edges = self._edges()
        return (
            np.concatenate([edge[:-1] for edge in edges]),
            np.concatenate([edge[1:] for edge in edges]),
            np.repeat(self.shown.target, np.diff(self.first_row)),
        )

    def _edges(self) -> list[Addresses]:
        """Of each range the addresses where its rows begin, and its end."""
        edges = []
        for start, end, rows in zip(
            self.shown.start.tolist(), self.shown.end.tolist(), np.diff(self.first_row).tolist(), strict=True
        ):
            inner = [max(start, (start + (end - start) * row // rows) // PAGE_SIZE * PAGE_SIZE) for row in range(rows)]
            edges.append(np.array([*inner, end], np.uint64))
        return edges

    def place(self, rows: SnapshotRows, runs: Runs) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Where each region begins and ends, in rows; both are equal where it is not shown at all."""
        regions = rows.regions
        nr_regions = len(regions)
        begin, end = np.zeros(nr_regions), np.zeros(nr_regions)
        for target, address, row in self._scales:
            mine = np.flatnonzero(regions.target == target)
            of_target: NDArray[np.generic] | slice = slice(None) if len(mine) == nr_regions else mine
            begin[of_target] = np.interp(regions.start[of_target].astype(np.float64), address, row)
            closing = runs.last_row[regions.target[runs.last_row] == target]
            end[closing] = np.interp(regions.end[closing].astype(np.float64), address, row)
        # A region that touches the next one ends where that begins.
        inner = np.flatnonzero(~runs.opens)
        end[inner - 1] = begin[inner]
        return begin, end

    @cached_property
    def _scales(self) -> list[tuple[int, NDArray[np.float64], NDArray[np.float64]]]:
        """For each target addresses, and in which row each is; between two of them it is proportional."""
        edges, scales = self._edges(), []
        for target in np.unique(self.shown.target).tolist():
            mine = np.flatnonzero(self.shown.target == target).tolist()
            address = np.concatenate([edges[index] for index in mine]).astype(np.float64)
            row = np.concatenate(
                [np.arange(self.first_row[index], self.first_row[index + 1] + 1) for index in mine]
            ).astype(np.float64)
            scales.append((target, address, row))
        return scales


def choose_axis(
    stretches: Stretches, *, rows: int, whole: bool, is_chosen: bool = False, before: Axis | None = None
) -> Axis:
    """Fold away what was not watched.

    A gap that is larger than a row is folded.  Unless `whole`, only the hottest cluster is shown: clusters are
    what lies further apart than all that was watched of the target is large, such as heap, mappings and stack.
    Of more ranges than half the rows the hottest are shown.

    Args:
        whole: all clusters, and up to 256 ranges.
        is_chosen: all clusters, since the addresses were chosen already.
        before: what was chosen when less was known: its cluster stays where it is about as hot as the hottest.
    """
    clusters = _clusters(stretches)
    chosen = stretches
    most = max(1, rows // 2)
    if whole:
        most = max(most, _WHOLE_RANGES)
    elif not is_chosen:
        hottest = int(np.lexsort((clusters.size_bytes, clusters.heat))[-1])
        if before is not None:
            known = np.flatnonzero(bytes_outside(clusters, before.shown) < clusters.size_bytes)
            warm = known[clusters.heat[known] >= _ABOUT_AS_HOT * clusters.heat[hottest]]
            hottest = int(warm[0]) if len(warm) else hottest
        inside = (stretches.target == clusters.target[hottest]) & (stretches.start >= clusters.start[hottest])
        chosen = stretches.take(inside & (stretches.end <= clusters.end[hottest]))
    shown = chosen.joined(float(chosen.size_bytes.sum()) / rows)
    if len(shown) > most:
        shown = shown.take(np.sort(np.lexsort((shown.size_bytes, shown.heat))[-most:]))
    share = rows * shown.size_bytes / max(1, shown.size_bytes.sum())
    of_range = np.clip(np.rint(share), 1, np.maximum(1, shown.size_bytes // PAGE_SIZE)).astype(np.int64)
    first_row = np.concatenate(([0], np.cumsum(of_range)))
    left_out = stretches.size_bytes.sum() - sum(
        int(stretches.size_bytes[_inside(stretches, shown, index)].sum()) for index in range(len(shown))
    )
    return Axis(shown, first_row, len(clusters), int(left_out))


def _inside(stretches: Stretches, shown: Stretches, index: int) -> Flags:
    inside: Flags = (stretches.start >= shown.start[index]) & (stretches.end <= shown.end[index])
    inside &= stretches.target == shown.target[index]
    return inside


def _clusters(stretches: Stretches) -> Stretches:
    of_targets = []
    for target in np.unique(stretches.target).tolist():
        mine = stretches.take(stretches.target == target)
        of_targets.append(mine.joined(float(mine.size_bytes.sum())))
    return Stretches(
        *(np.concatenate([getattr(one, name) for one in of_targets]) for name in Stretches.__annotations__)
    )


def named_ranges(axis: Axis, mappings: Mapping[int, NamedRanges]) -> tuple[AxisRange, ...]:
    """The ranges with the names of what is in them."""
    ranges = []
    for index, (target, start, end) in enumerate(
        zip(axis.shown.target.tolist(), axis.shown.start.tolist(), axis.shown.end.tolist(), strict=True)
    ):
        known = mappings.get(target)
        rows = axis.first_row[index : index + 2].tolist()
        name = short_name(names_within(known, start, end))
        ranges.append(AxisRange(target, start, end, name, rows[0], rows[1], _parts(known, start, end)))
    return tuple(ranges)


def _parts(mappings: NamedRanges | None, start: int, end: int) -> tuple[NamedPart, ...]:
    parts: list[NamedPart] = []
    if mappings is None:
        return ()
    first = int(np.searchsorted(mappings.end, np.uint64(start), side="right"))
    last = int(np.searchsorted(mappings.start, np.uint64(end), side="left"))
    bounds = zip(mappings.start[first:last].tolist(), mappings.end[first:last].tolist(), strict=True)
    for (low, high), path in zip(bounds, mappings.paths[first:last], strict=True):
        part = NamedPart(max(low, start), min(high, end), mapping_name(path))
        if parts and parts[-1].name == part.name:
            parts[-1] = NamedPart(parts[-1].start, part.end, part.name)
        else:
            parts.append(part)
    return tuple(parts)
