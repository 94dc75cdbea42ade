"""Cut mappings of this process into parts, so that smaps tells a number for each; and put them together again.

By an attribute that changes nothing else, the first of these that the kernel and the mapping allow: a name; a memory
policy that means what the default means; staying out of core dumps.  What the application has set itself stays, and
memory that it has registered with a userfaultfd is left as it is: a page that we had made would be told to it.

Facts (Linux 6.18), and what they mean here:
1. Parts that get their first page while they are cut never become one mapping again.  So each mapping has one page
   before it is cut.
2. Parts of 2 MiB that begin at multiples of it leave huge pages whole; only one across the end of an array loses its
   one entry in the page table.
3. mremap refuses memory of several mappings; glibc's realloc then copies.
"""

import itertools
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from memtherm.core.ranges import Addresses, intersect
from memtherm.core.regions import Range
from memtherm.linux import mapping_cuts
from memtherm.linux.maps import DetailedMappings, MappingKind, Permission, parse_maps
from memtherm.linux.process import Process
from memtherm.units import HUGE_PAGE_SIZE

_NAMES = ("memtherm part 0", "memtherm part 1")
_USERFAULTFD = {"um", "uw", "ui", "ur"}
_NAME_BEGIN, _NAME_END = "[anon:", "]"


class CutKind(StrEnum):
    """By what parts differ from their neighbours."""

    NAME = "a name"
    POLICY = "a memory policy equal to the default"
    NO_DUMP = "staying out of core dumps, every second part"


@dataclass(frozen=True)
class Part:
    """A piece of one mapping that is, or is to become, a mapping of its own.

    Attributes:
        number: 0 or 1, in turn.
        name: what the application has named it; empty for none.
        is_last: of its mapping.
    """

    start: int
    end: int
    number: int
    name: str
    is_last: bool


@dataclass(frozen=True)
class CutMapping:
    """What was done to one mapping; `kind` None where it stayed one."""

    parts: tuple[Part, ...]
    kind: CutKind | None


def cut(
    mappings: DetailedMappings, ranges: Sequence[Range], *, most_parts: int, kinds: Sequence[CutKind] = tuple(CutKind)
) -> tuple[CutMapping, ...]:
    """Cut what of these mappings lies in ranges (ascending, disjoint) at multiples of 2 MiB, or of more.

    Args:
        most_parts: beyond so many the parts become larger.
    """
    start, end, row, _ = intersect(mappings.mappings.starts, mappings.mappings.ends, *_columns(ranges))
    unit = HUGE_PAGE_SIZE
    while ((end - start) // np.uint64(unit) + np.uint64(2)).sum() > most_parts and unit < 1 << 46:
        unit *= 2
    done = []
    for low, high, index in zip(start.tolist(), end.tolist(), row.tolist(), strict=True):
        parts = _planned(low, high, unit, _application_name(mappings.mappings.names[index]))
        if _USERFAULTFD & mappings.flags[index]:
            done.append(CutMapping(parts, None))
            continue
        if mappings.anonymous_bytes[index] + mappings.swap_bytes[index] == 0:
            _give_a_page(mappings, index, low)
        kind = next((one for one in kinds if _allows(mappings, index, one) and _marked(parts, one)), None)
        done.append(CutMapping(parts, kind))
    return tuple(done)


def undo(process: Process, cuts: Sequence[CutMapping]) -> None:
    """Take the attributes away again where they still are ours: memory may have been unmapped, or mapped anew."""
    named: set[int] = set()
    if any(one.kind is CutKind.NAME for one in cuts):
        mappings = parse_maps(process.read_file("maps"))
        named = {
            start
            for start, name in zip(mappings.starts.tolist(), mappings.names, strict=True)
            if _application_name(name) in _NAMES
        }
    for one in cuts:
        for part in one.parts:
            if one.kind is CutKind.NAME and part.start not in named:
                continue
            if one.kind is not None:
                _unmark(part, one.kind)


def _planned(start: int, end: int, unit: int, name: str) -> tuple[Part, ...]:
    borders = [start, *range(start // unit * unit + unit, end, unit), end]
    parts = [
        Part(low, high, index % 2, name, is_last=high == end)
        for index, (low, high) in enumerate(itertools.pairwise(borders))
    ]
    return tuple(parts)


def _allows(mappings: DetailedMappings, index: int, kind: CutKind) -> bool:
    """Whether this attribute of the mapping is free, and means nothing else there."""
    is_private = not int(mappings.mappings.permissions[index]) & Permission.SHARED
    is_anonymous = mappings.mappings.kinds[index] == MappingKind.PRIVATE_ANONYMOUS
    if kind is CutKind.NAME:
        return bool(is_anonymous)
    if kind is CutKind.POLICY:
        try:
            is_default = mapping_cuts.has_default_policy(int(mappings.mappings.starts[index]))
        except OSError:  # no NUMA in this kernel, or kept from us by a container
            return False
        # The policy of shared memory stays with the memory, whoever maps it.
        return is_private and is_default
    return "dd" not in mappings.flags[index]


def _marked(parts: Sequence[Part], kind: CutKind) -> bool:
    """Set the attribute.  Where that fails, nothing is left of it."""
    for position, part in enumerate(parts):
        try:
            _mark(part, kind)
        except OSError:
            for earlier in parts[:position]:
                _unmark(earlier, kind)
            return False
    return True


def _mark(part: Part, kind: CutKind) -> None:
    if kind is CutKind.NAME:
        mapping_cuts.set_name(part.start, part.end, _NAMES[part.number])
    elif kind is CutKind.POLICY:
        # What follows the last part has the default; before it every second one may keep that.
        if part.number == 0 or part.is_last:
            mapping_cuts.set_policy(part.start, part.end, part.number)
    elif part.number == 0:
        mapping_cuts.set_dumped(part.start, part.end, dumped=False)


def _unmark(part: Part, kind: CutKind) -> None:
    with suppress(OSError):  # unmapped since
        if kind is CutKind.NAME:
            mapping_cuts.set_name(part.start, part.end, part.name)
        elif kind is CutKind.POLICY:
            if mapping_cuts.has_own_policy(part.start):
                mapping_cuts.reset_policy(part.start, part.end)
        elif part.number == 0:
            mapping_cuts.set_dumped(part.start, part.end, dumped=True)


def _give_a_page(mappings: DetailedMappings, index: int, address: int) -> None:
    if mappings.mappings.kinds[index] == MappingKind.PRIVATE_ANONYMOUS:
        with suppress(OSError):  # read-only, or Linux before 5.14: then it may stay cut afterwards
            mapping_cuts.populate(address)


def _application_name(name: str) -> str:
    is_given = name.startswith(_NAME_BEGIN) and name.endswith(_NAME_END)
    return name[len(_NAME_BEGIN) : -len(_NAME_END)] if is_given else ""


def _columns(ranges: Sequence[Range]) -> tuple[Addresses, Addresses]:
    columns = np.array(ranges, np.uint64).reshape(-1, 2)
    return columns[:, 0], columns[:, 1]
