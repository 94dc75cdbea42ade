"""What the tests of actions share: a plan carried out on a child, and witnesses that know nothing of memtherm."""

import ctypes
import mmap
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from memtherm.act.apply import TargetActor
from memtherm.core.census import clear_ranges
from memtherm.core.guard import GuardSettings
from memtherm.core.plan import Outcome, PlannedAction
from memtherm.core.protocols import Accessed, CensusProbe
from memtherm.core.scheme import Action, Scheme
from memtherm.linux.advise import Advice, advise
from memtherm.linux.process import Process
from support.children import MADV_HUGEPAGE, MADV_NOHUGEPAGE, Child

PAGE = 4096
MIB = 1 << 20
HUGE = 2 * MIB
ALL = (0, 1 << 47)

Range = tuple[int, int]


# What the machine does meanwhile is no part of most tests, nor how small a target is.
GUARD = GuardSettings(min_target_bytes=0, min_free_swap=0.0, max_refault_rate=0.0, max_memory_pressure=0.0)


def plan(action: Action, *ranges: Range, **of_scheme: Any) -> PlannedAction:
    """What a scheme asks for, with all its `ranges` filtered by pages."""
    starts, ends = (np.array([one[side] for one in ranges], np.uint64) for side in (0, 1))
    scheme = Scheme(name="test", action=action, **of_scheme)
    return PlannedAction(scheme, 0, np.arange(len(ranges)), starts, ends, np.zeros(len(ranges), np.bool_))


@contextmanager
def actor_on(process: Process, *, apply: bool = True, guard: GuardSettings | None = None) -> Iterator[TargetActor]:
    """An actor for a process of any size."""
    actor = TargetActor(process, guard=guard or GUARD, apply=apply)
    try:
        yield actor
    finally:
        actor.close()


def seen_by(census: CensusProbe) -> Accessed:
    """What was accessed by another look of the census."""
    return lambda: clear_ranges(census.look(), max_gap_pages=0)


def carry_out(actor: TargetActor, planned: PlannedAction, accessed: Accessed | None = None) -> Outcome:
    """Without a quota: all that is possible is allowed."""
    possible = actor.examine(planned, accessed)
    outcome = actor.carry_out(possible)
    assert outcome.tried_bytes >= outcome.applied_bytes + outcome.refused_bytes
    assert outcome.applied_bytes == outcome.applied_range_bytes.sum()
    assert (outcome.reached >= planned.start).all()
    assert (outcome.reached <= planned.end).all()
    return outcome


def act(
    process: Process, action: Action, *ranges: Range, apply: bool = True, guard: GuardSettings | None = None
) -> Outcome:
    """Carry out one action on `ranges` of (start, end)."""
    with actor_on(process, apply=apply, guard=guard) as actor:
        return carry_out(actor, plan(action, *ranges))


def map_small_pages(child: Child, size_bytes: int) -> int:
    """Memory that gets no huge pages, whatever the host's settings are."""
    address = child.map_aligned(size_bytes)
    child.madvise(address, size_bytes, MADV_NOHUGEPAGE)
    return address


def write_small_pages(child: Child, start: int, end: int) -> None:
    """Small pages that may become huge ones, also where the host makes huge pages at once."""
    child.madvise(start, end - start, MADV_NOHUGEPAGE)
    child.write(start, (end - start) // PAGE)
    child.madvise(start, end - start, MADV_HUGEPAGE)


def fill_huge_pages(process: Process, child: Child, start: int, end: int) -> None:
    """Random bytes in huge pages, whatever the host's settings are."""
    child.fill(start, end - start)
    advise(process.pidfd, [start], [end], Advice.COLLAPSE)
    assert smaps_bytes(child.pid, "AnonHugePages") >= end - start


def reasons(outcome: Outcome) -> dict[str, int]:
    return {refusal.reason: refusal.size_bytes for refusal in outcome.refused}


def smaps_bytes(pid: int, field: str, start: int = 0, end: int = 1 << 64) -> int:
    """Sum of `field` over the mappings that lie whole in [start, end)."""
    total, is_inside = 0, False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        words = line.split()
        if "-" in words[0]:
            first, last = (int(text, 16) for text in words[0].split("-"))
            is_inside = start <= first and last <= end
        elif is_inside and words[0] == f"{field}:":
            total += int(words[1]) * 1024
    return total


def status_bytes(pid: int, field: str) -> int:
    return _field(Path(f"/proc/{pid}/status"), field)


def meminfo_bytes(field: str) -> int:
    return _field(Path("/proc/meminfo"), field)


def _field(path: Path, field: str) -> int:
    lines = path.read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def present_bytes(pid: int, start: int, end: int) -> int:
    """Bit 63 of the pagemap, counted page by page."""
    with open(f"/proc/{pid}/pagemap", "rb") as file:
        file.seek(start // PAGE * 8)
        entries = np.frombuffer(file.read((end - start) // PAGE * 8), np.uint64)
    return int((entries >> np.uint64(63)).sum()) * PAGE


def bytes_with_page_flags(pid: int, start: int, end: int, *, any_of: int) -> int:
    """Resident bytes whose page has one of the flags `any_of` in /proc/kpageflags."""
    with open(f"/proc/{pid}/pagemap", "rb") as pagemap, open("/proc/kpageflags", "rb", buffering=0) as flags:
        pagemap.seek(start // PAGE * 8)
        entries = struct.unpack(f"{(end - start) // PAGE}Q", pagemap.read((end - start) // PAGE * 8))
        frames = [entry & ((1 << 55) - 1) for entry in entries if entry >> 63]
        found = [int.from_bytes(os.pread(flags.fileno(), 8, frame * 8), "little") for frame in frames]
    return sum(bool(one & any_of) for one in found) * PAGE


def bytes_in_page_cache(path: Path) -> int:
    """By mincore on a mapping of the whole file."""
    size = path.stat().st_size
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), size) as view:
        memory = (ctypes.c_ubyte * size).from_buffer(view)
        result = (ctypes.c_ubyte * ((size + PAGE - 1) // PAGE))()
        assert ctypes.CDLL(None).mincore(ctypes.c_void_p(ctypes.addressof(memory)), ctypes.c_size_t(size), result) == 0
        del memory
    return sum(byte & 1 for byte in result) * PAGE


def drop_from_page_cache(path: Path) -> None:
    with open(path, "r+b") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def about(value: int) -> "Near":
    """Equal to `value` within 1 %."""
    return Near(value)


class Near(int):
    """An int that is equal to its neighbours."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, int) and abs(int(other) - int(self)) <= abs(int(self)) * 0.01

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = int.__hash__
