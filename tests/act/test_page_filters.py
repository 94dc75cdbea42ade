"""Each filter by pages on real memory, with a witness that looks for itself; their order, and what is left over."""

import mmap
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from act.scene import (
    HUGE,
    MIB,
    PAGE,
    about,
    actor_on,
    bytes_in_page_cache,
    bytes_with_page_flags,
    carry_out,
    drop_from_page_cache,
    fill_huge_pages,
    map_small_pages,
    plan,
    present_bytes,
    reasons,
    seen_by,
    smaps_bytes,
)
from memtherm.act.page_filters import name_matches
from memtherm.core.filters import Filter, FilterKind
from memtherm.core.pattern import Bounds
from memtherm.core.plan import Outcome
from memtherm.core.protocols import Accessed
from memtherm.core.regions import Range
from memtherm.core.scheme import Action
from memtherm.linux.process import Process, open_process
from memtherm.probe.bpf_census import BpfCensusProbe
from support.cgroups import fresh_cgroup, join
from support.children import MADV_NOHUGEPAGE, MAP_FIXED, Child
from support.requires import require
from support.swap import swap_on

ACTIVE, ANONYMOUS = 1 << 6, 1 << 12

pytestmark = pytest.mark.system


def scripted(*ranges: Range) -> Accessed:
    """These ranges, ascending and apart, were accessed."""
    return lambda: (np.array([one[0] for one in ranges], np.uint64), np.array([one[1] for one in ranges], np.uint64))


def one(kind: FilterKind, *, allow: bool, matching: bool = True, **of_filter: object) -> Filter:
    return Filter(kind=kind, allow=allow, matching=matching, **of_filter)  # type: ignore[arg-type]


def count(process: Process, span: Range, *filters: Filter, accessed: Accessed | None = None) -> Outcome:
    """What STAT counts of memory with these filters; nothing is lost."""
    with actor_on(process) as actor:
        outcome = carry_out(actor, plan(Action.STAT, span, filters=filters), accessed)
    assert outcome.tried_bytes + outcome.filtered_bytes == span[1] - span[0]
    return outcome


@pytest.mark.parametrize("hidden", ["", "pagemap_scan"])
def test_anonymous_and_file(child: Child, file: Path, hidden: str, monkeypatch: pytest.MonkeyPatch) -> None:
    require("swap")
    monkeypatch.setenv("MEMTHERM_WITHOUT", hidden)
    address = child.map(16 * MIB, flags=mmap.MAP_PRIVATE, path=str(file))
    span = (address, address + 16 * MIB)
    child.read(address, 4096)
    # Private copies, in a block and scattered.
    child.write(address + 4 * MIB, 256)
    child.write(address + 8 * MIB, 300, step=3)
    copies = bytes_with_page_flags(child.pid, *span, any_of=ANONYMOUS)
    assert copies == MIB + 100 * PAGE
    with open_process(child.pid) as process, swap_on(64 * MIB):
        for kind, matching in ((FilterKind.ANONYMOUS, True), (FilterKind.FILE, False)):
            assert count(process, span, one(kind, allow=True, matching=matching)).tried_bytes == copies
            assert count(process, span, one(kind, allow=False, matching=matching)).tried_bytes == 16 * MIB - copies
        # And it is no more than that on which an action acts.
        with actor_on(process) as actor:
            outcome = carry_out(actor, plan(Action.PAGEOUT, span, filters=(one(FilterKind.FILE, allow=False),)))
        assert outcome.applied_bytes == copies == smaps_bytes(child.pid, "Swap", *span)
        assert present_bytes(child.pid, *span) == 16 * MIB - copies
        # What is in swap now is anonymous still.
        assert count(process, span, one(FilterKind.ANONYMOUS, allow=True)).tried_bytes == copies
        child.end()


def test_memory_without_a_page_is_as_its_mapping(child: Child, process: Process, file: Path) -> None:
    empty = child.map_aligned(4 * MIB)
    mapped = child.map(16 * MIB, flags=mmap.MAP_SHARED, path=str(file))
    anonymous = one(FilterKind.ANONYMOUS, allow=True)
    assert count(process, (empty, empty + 4 * MIB), anonymous).tried_bytes == 4 * MIB
    assert count(process, (mapped, mapped + 16 * MIB), anonymous).tried_bytes == 0


def test_mapping_by_path_and_name(child: Child, process: Process, file: Path) -> None:
    address = child.map(16 * MIB, flags=mmap.MAP_SHARED, path=str(file))
    child.read(address, 4096)
    span = (address, address + 16 * MIB)
    by_path = one(FilterKind.MAPPING, allow=True, pattern="*/memtherm-act-*")
    assert count(process, span, by_path).tried_bytes == 16 * MIB
    assert count(process, span, one(FilterKind.MAPPING, allow=True, pattern="*.so*")).tried_bytes == 0
    # Of everything else that the process has, nothing.
    with actor_on(process) as actor:
        outcome = carry_out(actor, plan(Action.PAGEOUT, (0, 1 << 47), filters=(by_path,)))
    assert outcome.tried_bytes == 16 * MIB
    assert outcome.applied_bytes == 16 * MIB - present_bytes(child.pid, *span) == about(16 * MIB)
    heap = one(FilterKind.MAPPING, allow=True, pattern="[heap]")
    with actor_on(process) as actor:
        outcome = carry_out(actor, plan(Action.STAT, (0, 1 << 47), filters=(heap,)))
    lines = Path(f"/proc/{child.pid}/maps").read_text().splitlines()
    ends = [line.split()[0].split("-") for line in lines if line.endswith("[heap]")]
    assert outcome.tried_bytes == sum(int(end, 16) - int(start, 16) for start, end in ends) > 0


def test_a_deleted_file_has_its_name_still(child: Child, process: Process) -> None:
    path = Path("/var/tmp") / f"memtherm-filter-{os.getpid()}.data"
    path.write_bytes(b"\1" * MIB)
    try:
        address = child.map(MIB, flags=mmap.MAP_SHARED, path=str(path))
    finally:
        path.unlink()
    assert count(process, (address, address + MIB), one(FilterKind.MAPPING, allow=True, pattern="*.data")).tried_bytes


def test_patterns_of_names() -> None:
    names = ["", "[heap]", "h", "/usr/lib/libc.so.6", "/srv/a (deleted)", "[anon:pool]", "/srv/[heap]"]
    matched = {
        "[heap]": ["[heap]"],
        "*/libc.so*": ["/usr/lib/libc.so.6"],
        "/srv/a": ["/srv/a (deleted)"],
        "[anon:*": ["[anon:pool]"],
        "*": names,
        "": [""],
    }
    for pattern, expected in matched.items():
        found = name_matches(names, pattern)
        assert [name for name, fits in zip(names, found, strict=True) if fits] == expected


def test_young(child: Child, process: Process) -> None:
    require("bpf")
    address = map_small_pages(child, 16 * MIB)
    span = (address, address + 16 * MIB)
    child.write(address, 4096)
    census = BpfCensusProbe(process)
    try:
        census.clear(census.look())
        child.read(address + 3 * MIB, 512, step=2)
        young = smaps_bytes(child.pid, "Referenced", *span)
        assert young == MIB
        with actor_on(process) as actor:
            for allow, expected in ((True, young), (False, 16 * MIB - young)):
                planned = plan(Action.STAT, span, filters=(one(FilterKind.YOUNG, allow=allow),))
                outcome = carry_out(actor, planned, seen_by(census))
                assert (outcome.tried_bytes, outcome.filtered_bytes) == (expected, 16 * MIB - expected)
    finally:
        census.close()


def test_young_without_a_probe_that_sees_pages_is_refused(child: Child, process: Process) -> None:
    address = child.map_aligned(4 * MIB)
    child.write(address, 1024)
    for action in (Action.STAT, Action.COLD):
        with actor_on(process) as actor:
            planned = plan(action, (address, address + 4 * MIB), filters=(one(FilterKind.YOUNG, allow=False),))
            outcome = carry_out(actor, planned)
        assert reasons(outcome) == {"filter young: the probe does not see pages": 4 * MIB}
    assert smaps_bytes(child.pid, "Referenced", address, address + 4 * MIB) == 4 * MIB


@pytest.mark.parametrize("hidden", ["", "pagemap_scan"])
def test_size_of_the_page(child: Child, process: Process, hidden: str, monkeypatch: pytest.MonkeyPatch) -> None:
    require("thp")
    monkeypatch.setenv("MEMTHERM_WITHOUT", hidden)
    address = child.map_aligned(16 * MIB)
    child.madvise(address + 8 * MIB, 8 * MIB, MADV_NOHUGEPAGE)
    fill_huge_pages(process, child, address, address + 6 * MIB)
    child.write(address + 8 * MIB, 1024)
    span = (address + MIB, address + 16 * MIB)
    huge = smaps_bytes(child.pid, "AnonHugePages", address, address + 16 * MIB) - MIB
    small = present_bytes(child.pid, *span) - huge
    assert (huge, small) == (5 * MIB, 4 * MIB)
    for bounds, expected in (
        (Bounds(HUGE, None), huge),
        (Bounds(HUGE, HUGE), huge),
        (Bounds(None, HUGE - 1), small),
        (Bounds(PAGE, PAGE), small),
        (Bounds(PAGE, HUGE), huge + small),
        (Bounds(HUGE + 1, None), 0),
    ):
        # What has no page has no size.
        assert count(process, span, one(FilterKind.HUGE_PAGE, allow=True, size_bytes=bounds)).tried_bytes == expected


def test_cgroup_of_the_page(child: Child, process: Process) -> None:
    require("cgroup")
    address = map_small_pages(child, 16 * MIB)
    span = (address, address + 16 * MIB)
    child.write(address, 1000)
    with fresh_cgroup() as cgroup:
        try:
            join(cgroup, child.pid)
            # Every other page is charged to its new cgroup.
            child.write(address + 8 * MIB, 1024, step=2)
            charged = count_of_cgroup(child.pid, *span, inode=cgroup.inode)
            if not charged:
                pytest.skip("this cgroup does not count memory")
            assert charged == 512 * PAGE
            own = one(FilterKind.CGROUP, allow=True, cgroup=cgroup.path)
            assert count(process, span, own).tried_bytes == charged
            # Not those below it.
            parent = one(FilterKind.CGROUP, allow=True, cgroup=str(Path(cgroup.path).parent))
            assert count(process, span, parent).tried_bytes in (0, 1000 * PAGE)
        finally:
            child.end()


def count_of_cgroup(pid: int, start: int, end: int, *, inode: int) -> int:
    """Resident bytes that /proc/kpagecgroup shows for that cgroup."""
    with open(f"/proc/{pid}/pagemap", "rb") as pagemap, open("/proc/kpagecgroup", "rb", buffering=0) as cgroups:
        pagemap.seek(start // PAGE * 8)
        entries = np.frombuffer(pagemap.read((end - start) // PAGE * 8), np.uint64)
        frames = (entries[entries >> np.uint64(63) == 1] & np.uint64((1 << 55) - 1)).tolist()
        found = [int.from_bytes(os.pread(cgroups.fileno(), 8, frame * 8), "little") for frame in frames]
    return found.count(inode) * PAGE


def test_a_cgroup_that_is_not_there_stops_the_scheme(child: Child, process: Process) -> None:
    address = child.map_aligned(4 * MIB)
    child.write(address, 1024)
    gone = one(FilterKind.CGROUP, allow=False, cgroup="/memtherm-no-such-cgroup")
    with actor_on(process) as actor:
        outcome = carry_out(actor, plan(Action.COLD, (address, address + 4 * MIB), filters=(gone,)))
    (refusal,) = outcome.refused
    assert "no cgroup '/memtherm-no-such-cgroup'" in refusal.reason
    assert refusal.size_bytes == outcome.tried_bytes == 4 * MIB
    assert smaps_bytes(child.pid, "Referenced", address, address + 4 * MIB) == 4 * MIB


def test_active(child: Child, process: Process, file: Path) -> None:
    address = child.map(16 * MIB, flags=mmap.MAP_SHARED, path=str(file))
    span = (address, address + 16 * MIB)
    child.read(address, 4096)
    with actor_on(process) as actor:
        carry_out(actor, plan(Action.COLD, span))
    with open(file, "rb", buffering=0) as opened:
        assert [len(os.pread(opened.fileno(), 4 * MIB, 6 * MIB)) for _ in range(3)] == [4 * MIB] * 3
    active = bytes_with_page_flags(child.pid, *span, any_of=ACTIVE)
    assert active == about(4 * MIB)
    assert count(process, span, one(FilterKind.ACTIVE, allow=True)).tried_bytes == active
    assert count(process, span, one(FilterKind.ACTIVE, allow=False)).tried_bytes == 16 * MIB - active


def test_unmapped(child: Child, process: Process, file: Path) -> None:
    address = child.map(16 * MIB, flags=mmap.MAP_SHARED, path=str(file))
    span = (address, address + 16 * MIB)
    child.read(address, 512)
    drop_from_page_cache(file)
    with open(file, "rb") as opened:
        opened.seek(9 * MIB)
        opened.read(MIB)
    unmapped = bytes_in_page_cache(file) - present_bytes(child.pid, *span)
    assert MIB <= unmapped < 14 * MIB
    assert count(process, span, one(FilterKind.UNMAPPED, allow=True)).tried_bytes == unmapped
    assert count(process, span, one(FilterKind.UNMAPPED, allow=False)).tried_bytes == 16 * MIB - unmapped


@pytest.mark.parametrize(
    ("filters", "kept"),
    [
        # [0, 4) MiB young anonymous, [4, 8) old anonymous; [8, 12) young file, [12, 16) old file.
        ((), "aAfF"),
        (((FilterKind.YOUNG, False),), "af"),
        (((FilterKind.YOUNG, True),), "AF"),
        # The first that matches decides; what none matches is rejected where the last allows.
        (((FilterKind.YOUNG, False), (FilterKind.ANONYMOUS, True)), "a"),
        (((FilterKind.ANONYMOUS, True), (FilterKind.YOUNG, False)), "aAf"),
        (((FilterKind.ANONYMOUS, False), (FilterKind.YOUNG, True)), "F"),
        (((FilterKind.YOUNG, True), (FilterKind.ANONYMOUS, False)), "AFf"),
        (((FilterKind.FILE, False), (FilterKind.YOUNG, False)), "a"),
    ],
)
def test_order_and_default(
    child: Child, process: Process, file: Path, filters: tuple[tuple[FilterKind, bool], ...], kept: str
) -> None:
    room = child.map(24 * MIB)
    address = (room + HUGE - 1) // HUGE * HUGE
    child.unmap(address + 8 * MIB, 8 * MIB)
    child.map(8 * MIB, flags=mmap.MAP_SHARED | MAP_FIXED, path=str(file), at=address + 8 * MIB)
    young = [(address + at * MIB, address + (at + 4) * MIB) for at in (0, 8)]
    span = (address, address + 16 * MIB)
    accessed = scripted(*young)
    chosen = [one(kind, allow=allow) for kind, allow in filters]
    assert count(process, span, *chosen, accessed=accessed).tried_bytes == len(kept) * 4 * MIB
    parts = dict(zip("AaFf", range(0, 16, 4), strict=True))
    for letter, at in parts.items():
        part = (address + at * MIB, address + (at + 4) * MIB)
        assert bool(count(process, part, *chosen, accessed=accessed).tried_bytes) == (letter in kept)


def test_what_a_core_filter_allows_outright_faces_no_other(child: Child, process: Process) -> None:
    address = child.map_aligned(8 * MIB)
    middle = address + 4 * MIB
    planned = plan(
        Action.STAT, (address, middle), (middle, address + 8 * MIB), filters=(one(FilterKind.FILE, allow=True),)
    )
    planned.is_unfiltered[1] = True
    with actor_on(process) as actor:
        assert actor.examine(planned).tolist() == [0, 4 * MIB]
        outcome = actor.carry_out(np.array([0, 4 * MIB]))
    assert (outcome.tried_bytes, outcome.filtered_bytes, outcome.nr_tried) == (4 * MIB, 4 * MIB, 1)


@pytest.mark.parametrize("action", [Action.COLD, Action.PAGEOUT])
def test_a_border_of_a_filter_splits_no_huge_page(child: Child, process: Process, action: Action) -> None:
    require("swap", "thp")
    address = child.map_aligned(8 * MIB)
    fill_huge_pages(process, child, address, address + 8 * MIB)
    span = (address, address + 8 * MIB)
    accessed = scripted((address + 3 * MIB, address + 3 * MIB + PAGE))
    with swap_on(64 * MIB), actor_on(process) as actor:
        outcome = carry_out(actor, plan(action, span, filters=(one(FilterKind.YOUNG, allow=False),)), accessed)
        assert outcome.applied_bytes == 6 * MIB
        assert outcome.filtered_bytes == PAGE
        assert reasons(outcome) == {"less than a whole huge page": HUGE - PAGE}
        gone = 6 * MIB if action is Action.PAGEOUT else 0
        assert smaps_bytes(child.pid, "AnonHugePages", *span) == 8 * MIB - gone
        child.end()


def test_many_borders_are_no_many_looks(child: Child, process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    address = map_small_pages(child, 64 * MIB)
    child.write(address, 16384, step=2)
    calls = [0]
    actor_pagemap: Callable[..., object]
    with actor_on(process) as actor:
        actor_pagemap = actor._pagemap.read

        def counted(start: int, end: int) -> object:
            calls[0] += 1
            return actor_pagemap(start, end)

        monkeypatch.setattr(actor._pagemap, "read", counted)
        filters = (
            one(FilterKind.ACTIVE, allow=False),
            one(FilterKind.HUGE_PAGE, allow=True, size_bytes=Bounds(PAGE, PAGE)),
        )
        carry_out(actor, plan(Action.STAT, (address, address + 64 * MIB), filters=filters))
    assert calls == [1]
