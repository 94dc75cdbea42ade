"""The walk's C source as a library of this machine, on page tables made by a test (native/native_walk.c)."""

import ctypes
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memtherm.linux.entry_format import EntryFormat
from memtherm.linux.page_entries import RANGE, SHARED, Entries, Units, WalkStatus

REPOSITORY = Path(__file__).parents[2]
NATIVE = Path(__file__).with_name("native")
PHYSICAL_MASK = (1 << 46) - 4096
_TABLE_ENTRIES = 512
_TABLES = 512


def build(folder: Path, *options: str) -> Path:
    """Compile the library for one architecture."""
    library = folder / "walk.so"
    folders = [f"-I{NATIVE}", f"-I{REPOSITORY / 'bpf'}"]
    source = NATIVE / "native_walk.c"
    subprocess.run(["cc", "-O1", "-w", "-shared", "-fPIC", *folders, *options, source, "-o", library], check=True)
    return library


class Tables:
    """Page tables in a made-up RAM, whose first table is the top one.  Levels count from 1, the lowest."""

    def __init__(self, *, levels: int, table_bits: int) -> None:
        """`table_bits`: what an entry that leads to a table has besides the address."""
        self.levels = levels
        room = np.zeros((_TABLES + 1, _TABLE_ENTRIES), np.uint64).reshape(-1)
        # A table begins at a page border.
        first = -room.ctypes.data % 4096 // 8
        self.memory = room[first : first + _TABLES * _TABLE_ENTRIES].reshape(_TABLES, _TABLE_ENTRIES)
        self._table_bits = table_bits
        self._used = 2  # at physical 0 there is nothing
        self.top = 1

    def set(self, address: int, entry: int, *, level: int = 1) -> None:
        """Write the entry of this address at this level, with tables down to it."""
        table = self.top
        for above in range(self.levels, level, -1):
            index = address >> (12 + 9 * (above - 1)) & 511
            if not self.memory[table, index]:
                self.memory[table, index] = self._used << 12 | self._table_bits
                self._used += 1
            table = int(self.memory[table, index]) >> 12 & 0xFFFF
        self.memory[table, address >> (12 + 9 * (level - 1)) & 511] = entry


class NativeWalk:
    """What PageTableWalker and TargetWalk do together, on these tables."""

    def __init__(self, library: Path, format_: EntryFormat) -> None:
        self._library = ctypes.CDLL(str(library))
        self._library.run_walk.argtypes = (ctypes.c_bool, ctypes.c_void_p)
        self._format = format_
        raw = (ctypes.c_ubyte * SHARED.itemsize).in_dll(self._library, "shared")
        self._shared: Any = np.ctypeslib.as_array(raw).view(SHARED)[0]

    def _run(self, tables: Tables, *, of_ranges: bool, count: int) -> Any:
        base = tables.memory.ctypes.data
        ctypes.c_void_p.in_dll(self._library, "memory").value = base
        ctypes.c_uint64.in_dll(self._library, "memory_bytes").value = tables.memory.nbytes
        request = self._shared["request"]
        request["page_offset"], request["physical_mask"], request["physical_limit"] = base, PHYSICAL_MASK, 1 << 40
        request["levels"], request["count"] = tables.levels, count
        request["prot_none_shift"] = self._format.prot_none_shift
        self._library.run_walk(of_ranges, base + tables.top * 4096)
        assert self._shared["response"]["status"] == WalkStatus.DONE
        return self._shared["response"]

    def read_addresses(self, tables: Tables, addresses: NDArray[np.uint64]) -> Entries:
        count = len(addresses)
        self._shared["addresses"][:count] = addresses
        self._run(tables, of_ranges=False, count=count)
        return Entries(
            entry=self._shared["entries"][:count].copy(),
            level=self._shared["entry_levels"][:count].copy(),
            generation=0,
            format=self._format,
        )

    def read_ranges(self, tables: Tables, *ranges: tuple[int, int]) -> Units:
        self._shared["ranges"][: len(ranges)] = np.array(list(ranges), RANGE)
        self._shared["request"]["cursor_range"] = self._shared["request"]["cursor_address"] = 0
        response = self._run(tables, of_ranges=True, count=len(ranges))
        assert response["cursor_range"] == len(ranges)
        return Units(
            rows=self._shared["units"][: response["unit_count"]].copy(),
            generation=0,
            failed_reads=int(response["failed_reads"]) + int(response["refused_reads"]),
            table_reads=int(response["table_reads"]),
        )
