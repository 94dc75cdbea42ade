"""maps and smaps: text as the kernel writes it, and real processes with a second witness."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memtherm.errors import TargetGone
from memtherm.linux.advise import Advice, advise
from memtherm.linux.clear_refs import ClearKind, clear
from memtherm.linux.maps import (
    MappingKind,
    Permission,
    find_shared_memory_devices,
    parse_maps,
    parse_smaps,
    read_maps,
    read_smaps,
)
from memtherm.linux.process import open_process
from support.children import ANONYMOUS, MADV_HUGEPAGE, MADV_NOHUGEPAGE, SHARED, Child, memory_child, on_one_processor
from support.requires import require
from support.swap import swap_on

MIB = 1 << 20
MAPS = b"""\
00400000-00452000 r-xp 00001000 fe:00 173521                             /usr/bin/a program
00e03000-00e24000 rw-p 00000000 00:00 0                                  [heap]
7f0000000000-7f0000021000 rw-p 00000000 00:00 0 
7f1000000000-7f1000001000 ---p 00000000 00:00 0 
7f2000000000-7f2000100000 rw-s 00000000 00:01 9                          /dev/zero (deleted)
7f3000000000-7f3000100000 rw-s ffff0000 00:1a 18446744073709551615       /run/shared file
7f4000000000-7f4000100000 r--s 00000000 08:02 77                         /srv/a\\012b (deleted)
7fff0000d000-7fff0000f000 r-xp 00000000 00:00 0                          [vdso]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
"""  # noqa: W291


@pytest.fixture
def child() -> Iterator[Child]:
    with on_one_processor(), memory_child() as fresh:
        yield fresh


def test_columns_of_maps() -> None:
    mappings = parse_maps(MAPS, shared_memory_devices=frozenset({0x1A}))
    assert len(mappings) == 8
    assert mappings.starts.tolist()[:3] == [0x400000, 0xE03000, 0x7F0000000000]
    assert mappings.ends.tolist()[-1] == 0x7FFF0000F000
    assert mappings.permissions.tolist() == [5, 3, 3, 0, 11, 11, 9, 5]
    assert mappings.offsets.tolist() == [0x1000, 0, 0, 0, 0, 0xFFFF0000, 0, 0]
    assert mappings.inodes.tolist() == [173521, 0, 0, 0, 9, 2**64 - 1, 77, 0]
    assert mappings.devices.tolist() == [0xFE << 32, 0, 0, 0, 1, 0x1A, 8 << 32 | 2, 0]
    assert mappings.names[:4] == ["/usr/bin/a program", "[heap]", "", ""]
    assert mappings.names[4:7] == ["/dev/zero (deleted)", "/run/shared file", "/srv/a\\012b (deleted)"]
    kind = MappingKind
    assert mappings.kinds.tolist() == [
        *(kind.PRIVATE_FILE, *[kind.PRIVATE_ANONYMOUS] * 3),
        *(kind.SHARED_MEMORY, kind.SHARED_MEMORY, kind.SHARED_FILE, kind.SPECIAL),
    ]
    assert mappings.has_permission(Permission.SHARED).tolist() == [False] * 4 + [True] * 3 + [False]


def test_the_device_tells_shared_memory_where_the_name_does_not() -> None:
    kinds = parse_maps(MAPS).kinds
    assert kinds[4] == MappingKind.SHARED_MEMORY  # by its name
    assert kinds[5] == MappingKind.SHARED_FILE


def test_texts_without_mappings() -> None:
    for text in (b"", b"\n"[:0], b"00400000-0045"):
        mappings = parse_maps(text)
        assert len(mappings) == 0
        assert mappings.starts.dtype == mappings.inodes.dtype == np.uint64
        assert len(parse_smaps(text)) == 0


def test_only_vsyscall() -> None:
    assert len(parse_maps(MAPS.splitlines(keepends=True)[-1])) == 0


def test_a_cut_last_line_is_left_out() -> None:
    assert len(parse_maps(MAPS[: MAPS.index(b"[vdso]") - 3])) == 7


def test_a_mapping_that_grew_while_it_was_read_comes_once() -> None:
    text = b"1000-3000 rw-p 0 00:00 0 \n1000-5000 rw-p 0 00:00 0 \n5000-6000 rw-p 0 00:00 0\n"
    mappings = parse_maps(text)
    assert mappings.starts.tolist() == [0x1000, 0x5000]
    assert mappings.ends.tolist() == [0x3000, 0x6000]


_NAMES = st.text(st.characters(blacklist_categories=["Cs", "Cc", "Z"]), min_size=1, max_size=20)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 2**20), st.integers(1, 2**24), st.booleans(), _NAMES), max_size=30))
def test_any_list_of_mappings_comes_back(rows: list[tuple[int, int, bool, str]]) -> None:
    position, lines, expected = 0, [], []
    for gap, size, is_named, name in rows:
        start = position + gap * 4096
        position = start + size * 4096
        inode, path = (size, f"/{name}") if is_named else (0, "")
        head = f"{start:08x}-{position:08x} rw-p {gap:08x} fe:{gap % 256:02x} {inode} "
        lines.append(f"{head:<73}{path}\n" if path else f"{head}\n")
        expected.append((start, position, gap, inode, path))
    mappings = parse_maps("".join(lines).encode())
    columns = (mappings.starts, mappings.ends, mappings.offsets, mappings.inodes)
    assert [*zip(*(column.tolist() for column in columns), mappings.names, strict=True)] == expected


def test_select_keeps_rows_together() -> None:
    mappings = parse_maps(MAPS)
    chosen = mappings.select(mappings.has_permission(Permission.SHARED))
    assert chosen.names == mappings.names[4:7]
    assert chosen.inodes.tolist() == mappings.inodes.tolist()[4:7]


SMAPS = b"""\
00400000-00452000 r-xp 00000000 fe:00 173521                             /usr/bin/x
Size:                328 kB
Rss:                 100 kB
Pss:                  50 kB
Pss_Dirty:             1 kB
Shared_Clean:         60 kB
Shared_Dirty:          4 kB
Private_Clean:        30 kB
Private_Dirty:         6 kB
Referenced:           99 kB
Anonymous:             6 kB
FilePmdMapped:      2048 kB
ShmemPmdMapped:     4096 kB
NewInSomeKernel:      12 kB
Swap:                  8 kB
SwapPss:               7 kB
Locked:               16 kB
THPeligible:           0
VmFlags: rd ex mr mw me lo q9 ??
00e03000-00e24000 rw-p 00000000 00:00 0 
Rss:          1234567890 kB
AnonHugePages:      2048 kB
VmFlags: rd wr
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
Rss:                   4 kB
VmFlags: ex
"""  # noqa: W291


def test_columns_of_smaps() -> None:
    details = parse_smaps(SMAPS)
    kib = 1024
    assert details.mappings.names == ["/usr/bin/x", ""]
    assert details.rss_bytes.tolist() == [100 * kib, 1234567890 * kib]
    assert details.pss_bytes.tolist() == [50 * kib, 0]
    assert details.shared_bytes.tolist() == [64 * kib, 0]
    assert details.private_bytes.tolist() == [36 * kib, 0]
    assert details.referenced_bytes.tolist() == [99 * kib, 0]
    assert details.anonymous_bytes.tolist() == [6 * kib, 0]
    assert details.anonymous_huge_bytes.tolist() == [0, 2 * MIB]
    assert details.file_huge_bytes.tolist() == [6 * MIB, 0]
    assert details.swap_bytes.tolist() == [8 * kib, 0]
    assert details.locked_bytes.tolist() == [16 * kib, 0]


def test_flags_of_smaps() -> None:
    details = parse_smaps(SMAPS)
    assert details.flags[0] == {"rd", "ex", "mr", "mw", "me", "lo", "q9", "??"}
    assert details.has_flag("lo").tolist() == [True, False]
    assert details.has_flag("rd").tolist() == [True, True]
    assert details.has_any_flag(("q9", "wr")).tolist() == [True, True]
    assert details.has_any_flag(()).tolist() == [False, False]


def test_maps_of_a_real_process_agree_with_a_plain_reading(child: Child) -> None:
    with open_process(child.pid) as process:
        mappings = read_maps(process)
        text = Path(f"/proc/{child.pid}/maps").read_text()
    expected = [line.split(maxsplit=5) for line in text.splitlines() if "[vsyscall]" not in line]
    assert [f"{start:x}-{end:x}" for start, end in zip(mappings.starts, mappings.ends, strict=True)] == [
        "-".join(f"{int(part, 16):x}" for part in fields[0].split("-")) for fields in expected
    ]
    assert mappings.names == [fields[5] if len(fields) > 5 else "" for fields in expected]
    assert mappings.inodes.tolist() == [int(fields[4]) for fields in expected]


def test_kinds_of_a_real_process(child: Child) -> None:
    on_disk = Path("/var/tmp") / f"memtherm-test-{os.getpid()}"
    in_memory = Path("/dev/shm") / on_disk.name
    flags = {"private": ANONYMOUS & ~0x20, "shared": SHARED & ~0x20}  # without MAP_ANONYMOUS
    wanted = {child.map(MIB): MappingKind.PRIVATE_ANONYMOUS, child.map(MIB, flags=SHARED): MappingKind.SHARED_MEMORY}
    try:
        for path in (on_disk, in_memory):
            path.write_bytes(bytes(MIB))
        wanted[child.map(MIB, flags=flags["private"], path=str(on_disk))] = MappingKind.PRIVATE_FILE
        wanted[child.map(MIB, flags=flags["shared"], path=str(on_disk))] = MappingKind.SHARED_FILE
        wanted[child.map(MIB, flags=flags["shared"], path=str(in_memory))] = MappingKind.SHARED_MEMORY
    finally:
        on_disk.unlink()
        in_memory.unlink()
    with open_process(child.pid) as process:
        assert len(find_shared_memory_devices(process)) >= 2
        mappings = read_maps(process)
    for address, kind in wanted.items():
        index = int(np.searchsorted(mappings.ends, np.uint64(address), side="right"))
        assert mappings.kinds[index] == kind, mappings.names[index]
    special = [name for name, kind in zip(mappings.names, mappings.kinds, strict=True) if kind == MappingKind.SPECIAL]
    assert "[vdso]" in special


def test_sums_of_smaps_agree_with_the_rollup(child: Child) -> None:
    child.write(child.map_aligned(32 * MIB), 8192, step=3)
    child.write(child.map(MIB, flags=SHARED), 100)
    with open_process(child.pid) as process:
        details = read_smaps(process)
        rollup = {
            key: int(rest.split()[0]) * 1024
            for key, _, rest in (
                line.partition(":") for line in process.read_file("smaps_rollup").decode().splitlines()
            )
            if rest.endswith("kB")
        }
    assert details.rss_bytes.sum() == rollup["Rss"] > 8192 // 3 * 4096
    assert details.shared_bytes.sum() == rollup["Shared_Clean"] + rollup["Shared_Dirty"]
    assert details.private_bytes.sum() == rollup["Private_Clean"] + rollup["Private_Dirty"]
    assert details.referenced_bytes.sum() == rollup["Referenced"]
    assert details.anonymous_bytes.sum() == rollup["Anonymous"]
    # The rollup rounds once, the sum rounds at each mapping.
    assert details.pss_bytes.sum() == pytest.approx(rollup["Pss"], abs=1024 * len(details))
    np.testing.assert_array_equal(details.rss_bytes, details.shared_bytes + details.private_bytes)


def test_referenced_and_locked_of_a_real_mapping(child: Child) -> None:
    address = child.map_aligned(MIB)
    child.write(address, 256)
    child.mlock(address, 64 * 4096)  # splits the mapping
    with open_process(child.pid) as process:
        clear(process, ClearKind.ALL)
        # clear_refs leaves the processor's own copies of the bits; a change of protection flushes them.
        child.mprotect(address, MIB, 1)
        child.read(address + 64 * 4096, 192, step=2)
        details = read_smaps(process)
    first = int(np.searchsorted(details.mappings.starts, np.uint64(address)))
    assert details.mappings.starts[first] == address
    assert details.has_flag("lo")[first : first + 2].tolist() == [True, False]
    assert details.locked_bytes[first : first + 2].tolist() == [64 * 4096, 0]
    assert details.rss_bytes[first : first + 2].tolist() == [64 * 4096, 192 * 4096]
    assert details.referenced_bytes[first : first + 2].tolist() == [0, 96 * 4096]


def test_huge_pages_and_their_advice(child: Child) -> None:
    require("thp")
    address = child.map_aligned(8 * MIB)
    child.madvise(address, 4 * MIB, MADV_HUGEPAGE)
    child.madvise(address + 4 * MIB, 4 * MIB, MADV_NOHUGEPAGE)
    child.write(address, 2048)
    with open_process(child.pid) as process:
        details = read_smaps(process)
    first = int(np.searchsorted(details.mappings.starts, np.uint64(address)))
    assert details.has_flag("hg")[first : first + 2].tolist() == [True, False]
    assert details.has_flag("nh")[first : first + 2].tolist() == [False, True]
    assert details.anonymous_huge_bytes[first : first + 2].tolist() == [4 * MIB, 0]


def test_swapped_pages(child: Child) -> None:
    require("swap", "process_madvise")
    with swap_on(64 * MIB):
        address = child.map_aligned(8 * MIB)
        child.fill(address, 8 * MIB)
        with open_process(child.pid) as process:
            advise(process.pidfd, [address], [address + 8 * MIB], Advice.PAGEOUT)
            details = read_smaps(process)
            index = int(np.searchsorted(details.mappings.starts, np.uint64(address)))
            assert details.swap_bytes[index] == 8 * MIB == process.swap_bytes()
            assert details.rss_bytes[index] == 0
        child.end()


def test_no_mappings_of_an_ended_process(child: Child) -> None:
    with open_process(child.pid) as process:
        child.kill()  # its files in /proc still open, and read as empty
        for read in (read_maps, read_smaps):
            with pytest.raises(TargetGone):
                read(process)


def test_twenty_thousand_mappings_are_read_quickly(child: Child) -> None:
    pages = 20_000
    address = child.map(pages * 4096)
    child.write(address, pages)
    child.stripe(address, pages)
    with open_process(child.pid) as process:
        text, details_text = process.read_file("maps"), process.read_file("smaps")
    timings_s = []
    for _ in range(5):
        start_s = time.process_time()
        mappings = parse_maps(text)
        middle_s = time.process_time()
        details = parse_smaps(details_text)
        timings_s.append((middle_s - start_s, time.process_time() - middle_s))
    assert len(mappings) == len(details) > pages
    assert details.rss_bytes.sum() >= pages * 4096
    # Measured 10 and 90 ms on the slower of two machines; generous, since the machine may be busy.
    assert min(timing[0] for timing in timings_s) < 0.1
    assert min(timing[1] for timing in timings_s) < 0.5
