"""What mappings are called: `heap`, `libc.so.6`, `anonymous`; and which mapping is where, and when."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from memtherm.core.history import MappingTable
from memtherm.core.ranges import Addresses, overlap_bytes, sizes

_DELETED = " (deleted)"


def mapping_name(path: str) -> str:
    """Of a path as in /proc/PID/maps.

    Example:
        >>> [mapping_name(path) for path in ("[heap]", "/usr/lib/libc.so.6", "", "[anon:jit]")]
        ['heap', 'libc.so.6', 'anonymous', 'anon:jit']
    """
    path = path.removesuffix(_DELETED)
    if path.startswith("[") and path.endswith("]"):
        return path[1:-1]
    return path.rpartition("/")[2] or "anonymous"


@dataclass(frozen=True)
class NamedRanges:
    """Mappings by address, ascending and disjoint."""

    start: Addresses
    end: Addresses
    paths: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.start)


_NONE = NamedRanges(np.zeros(0, np.uint64), np.zeros(0, np.uint64), ())


def mappings_ever(tables: Iterable[MappingTable]) -> dict[int, NamedRanges]:
    """For each target all mappings that it ever had; where two were at one address, the later."""
    by_target: dict[int, list[MappingTable]] = {}
    for table in tables:
        by_target.setdefault(table.target, []).append(table)
    return {target: _union(reversed(of_target)) for target, of_target in by_target.items()}


def _union(tables: Iterable[MappingTable]) -> NamedRanges:
    known = _NONE
    for table in tables:
        new = np.flatnonzero(overlap_bytes(table.start, table.end, known.start, known.end) == 0)
        new = new[table.end[new] > table.start[new]]
        if len(new) == 0:
            continue
        start = np.concatenate((known.start, table.start[new]))
        end = np.concatenate((known.end, table.end[new]))
        paths = (*known.paths, *(table.path[index] for index in new.tolist()))
        order = np.argsort(start, kind="stable")
        known = NamedRanges(start[order], end[order], tuple(paths[index] for index in order.tolist()))
    return known


def names_within(mappings: NamedRanges | None, start: int, end: int) -> dict[str, int]:
    """The names of the mappings in a range with their bytes there, most bytes first."""
    found: dict[str, int] = {}
    if mappings is None or len(mappings) == 0:
        return found
    first = int(np.searchsorted(mappings.end, np.uint64(start), side="right"))
    last = int(np.searchsorted(mappings.start, np.uint64(end), side="left"))
    inside = slice(first, last)
    size = sizes(np.maximum(mappings.start[inside], np.uint64(start)), np.minimum(mappings.end[inside], np.uint64(end)))
    for path, bytes_inside in zip(mappings.paths[inside], size.tolist(), strict=True):
        name = mapping_name(path)
        found[name] = found.get(name, 0) + bytes_inside
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def short_name(names: dict[str, int]) -> str:
    """The name with most bytes, and how many others there are: `heap`, `libc.so.6 and 3 more`."""
    if not names:
        return ""
    first = next(iter(names))
    return first if len(names) == 1 else f"{first} and {len(names) - 1} more"
