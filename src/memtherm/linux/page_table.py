"""Reads other processes' page tables through the BPF program of bpf/: present and accessed bits, nothing written.

On x86-64, and on arm64 with pages of 4 KiB.  Needs CAP_BPF and CAP_PERFMON for the walk, and CAP_SYS_ADMIN once,
to calibrate it.
"""

import contextlib
import dataclasses
import importlib.resources
import mmap
import os
import re
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from memtherm.errors import InvalidInput, NotPermitted, NotSupported, TargetGone
from memtherm.linux.entry_format import X86_64, EntryFormat, arm64_format_by
from memtherm.linux.libbpf import BpfLink, BpfObject
from memtherm.linux.libc import give_back_memory, mprotect
from memtherm.linux.page_entries import (
    ADDRESS_CAPACITY,
    RANGE,
    RANGE_CAPACITY,
    SHARED,
    UNIT,
    Entries,
    Units,
    WalkStatus,
)
from memtherm.linux.walk_machine import this_machine
from memtherm.units import HUGE_PAGE_SIZE, PAGE_SIZE

_GIB = 1 << 30
_WITNESS_PAGES = 16
# Of the witness pages: the kernel may move one between the walk and the look at pagemap.
_WITNESSES_NEEDED = 12
# Exit and exec of a thread void the walk of its memory; another thread, or the new program, is tried.
_ATTEMPTS = 5
_PFN_BITS = (1 << 55) - 1
_PROT_NONE, _READ_WRITE = 0, mmap.PROT_READ | mmap.PROT_WRITE


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Where this kernel keeps physical memory, and how its page tables are read.

    Attributes:
        page_offset: kernel address of physical address 0 (randomised at boot).
        physical_mask: the bits of an entry that are a physical address.
        physical_limit: end of RAM; nothing at or above it is read.
        levels: of tables, 3 to 5.
        format: what the bits of an entry mean.
    """

    page_offset: int
    physical_mask: int
    physical_limit: int
    levels: int
    format: EntryFormat = X86_64


def parse_ram(iomem: str) -> list[tuple[int, int]]:
    """(start, end) of each System RAM of /proc/iomem, ends exclusive; none if the addresses are hidden."""
    found = re.findall(r"^\s*([0-9a-f]+)-([0-9a-f]+) : System RAM", iomem, re.MULTILINE)
    return [(int(start, 16), int(end, 16) + 1) for start, end in found if int(end, 16)]


def read_ram() -> list[tuple[int, int]]:
    """parse_ram of this host.  Raises NotPermitted: without CAP_SYS_ADMIN all addresses read 0."""
    with open("/proc/iomem", encoding="utf-8", errors="replace") as file:
        ram = parse_ram(file.read())
    if not ram:
        raise NotPermitted(
            "/proc/iomem hides where RAM is",
            hint="run as root, or with CAP_SYS_ADMIN",
        )
    return ram


def _end_of(ram: list[tuple[int, int]]) -> int:
    return max(end for _, end in ram)


def _own_memory(length: int) -> tuple[NDArray[np.uint8], int]:
    """Fresh small pages of our own, untouched, and their address.  They live as long as the array."""
    memory = mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # a kernel without huge pages does not know the advice
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    view = np.frombuffer(memory, dtype=np.uint8)
    return view, int(view.__array_interface__["data"][0])


class _WitnessPages:
    """Pages of our own, each under another page table, whose physical addresses the kernel tells us."""

    def __init__(self) -> None:
        self._memory, base = _own_memory(_WITNESS_PAGES * HUGE_PAGE_SIZE)
        self._memory[::HUGE_PAGE_SIZE] = 1
        self.addresses = base + np.arange(_WITNESS_PAGES, dtype=np.uint64) * np.uint64(HUGE_PAGE_SIZE)

    def physical_addresses(self) -> NDArray[np.uint64]:
        """From /proc/self/pagemap (bits 0–54; Documentation/admin-guide/mm/pagemap.rst)."""
        fd = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
        try:
            words = [os.pread(fd, 8, int(address) // PAGE_SIZE * 8) for address in self.addresses]
        finally:
            os.close(fd)
        frames = np.frombuffer(b"".join(words), dtype=np.uint64) & np.uint64(_PFN_BITS)
        if not frames.any():
            raise NotPermitted(
                "/proc/self/pagemap hides physical addresses",
                hint="run as root, or with CAP_SYS_ADMIN",
            )
        return frames * np.uint64(PAGE_SIZE)


class PageTableWalker:
    """The loaded BPF object and the memory that it shares with us; one for the process, for all targets and threads.

    >>> walker = PageTableWalker.open()
    >>> with walker.target(4242) as target:
    ...     target.read_ranges([0x7F0000000000], [0x7F0040000000]).accessed_bytes
    """

    _open_lock: ClassVar[threading.Lock] = threading.Lock()
    _opened: ClassVar["PageTableWalker | None"] = None

    def __init__(self) -> None:
        """Loads the object (about 0.1 s).  Use `open()`, which does so once.

        Raises:
            NotSupported: another architecture or page size, no libbpf, no kernel BTF, or a kernel before 6.1.
            NotPermitted: CAP_BPF or CAP_PERFMON is missing.
        """
        self._machine = this_machine()
        elf = importlib.resources.files("memtherm.linux").joinpath(self._machine.object_name).read_bytes()
        self._object = BpfObject(elf)
        # libbpf has read all of the kernel's type information for it: 14 MiB that nobody needs now.
        give_back_memory()
        shared = np.frombuffer(self._object.map_memory(".bss"), dtype=SHARED, count=1)
        self._request = shared["request"]
        self._response = shared["response"]
        self._response_bytes = self._response.view(np.uint8)
        self._addresses = shared["addresses"][0]
        self._entries = shared["entries"][0]
        self._entry_levels = shared["entry_levels"][0]
        self._ranges = shared["ranges"][0]
        self._units = shared["units"][0]
        self._lock = threading.Lock()
        self._calibration: Calibration | None = None
        self._zero_page: int | None = None
        self._owner_pid = os.getpid()

    @classmethod
    def open(cls) -> "PageTableWalker":
        """The walker of this process; loaded by the first call, and again in a forked child."""
        with cls._open_lock:
            if cls._opened is None or cls._opened._owner_pid != os.getpid():
                cls._opened = cls()
            return cls._opened

    def close(self) -> None:
        """Unloads the object; targets that are still open keep their programs in the kernel until they are closed."""
        with PageTableWalker._open_lock:
            if PageTableWalker._opened is self:
                PageTableWalker._opened = None
        self._object.close()

    def calibrate(self) -> Calibration:
        """Finds, once, where the kernel maps physical memory, by walking pages whose physical address we know.

        The top table's kernel address is page_offset + its physical address, and page_offset is a multiple of
        1 GiB (arch/x86/mm/kaslr.c, arch/arm64/mm/init.c; without KASLR, too).  So page_offset is that address
        rounded down, less some GiB.  Tried downwards: a guess too high then reads at most into what the kernel
        leaves unmapped behind physical memory, and bpf_probe_read_kernel() survives a fault.

        Raises:
            NotPermitted: physical addresses are hidden from us (CAP_SYS_ADMIN).
            NotSupported: no guess gives the right answers.
        """
        with self._lock:
            if self._calibration is None:
                self._calibration = self._find_calibration()
            return self._calibration

    def _find_calibration(self) -> Calibration:
        ram = read_ram()
        link = self._object.attach_task_iterator("walk_addresses", pid=os.getpid())
        try:
            found = self._find_page_offset(link, ram)
            if self._machine.name != "x86_64":
                found = dataclasses.replace(found, format=self._find_format(link))
                self._set_calibration(found)
            return found
        finally:
            link.close()

    def _find_page_offset(self, link: BpfLink, ram: list[tuple[int, int]]) -> Calibration:
        mask, limit = self._machine.physical_mask(), _end_of(ram)
        if limit > mask + PAGE_SIZE:
            raise NotSupported(
                f"RAM reaches up to {limit:#x}: such addresses are not known to the page-table walk",
                hint="use another probe",
            )
        witnesses = _WitnessPages()
        truth = witnesses.physical_addresses()
        top_table = int(self._run(link, count=0)["pgd"])
        highest = self._machine.highest_page_offset(top_table, limit)
        for levels in self._machine.levels(top_table):
            for page_offset in _page_offset_candidates(top_table, ram, highest):
                guess = Calibration(page_offset=page_offset, physical_mask=mask, physical_limit=limit, levels=levels)
                self._set_calibration(guess)
                self._addresses[:_WITNESS_PAGES] = witnesses.addresses
                self._run(link, count=_WITNESS_PAGES)
                seen = self._entries[:_WITNESS_PAGES] & np.uint64(mask)
                at_page = self._entry_levels[:_WITNESS_PAGES] == 1
                if np.count_nonzero((seen == truth) & at_page) >= _WITNESSES_NEEDED:
                    return guess
        raise NotSupported(
            "cannot find where the kernel maps physical memory: no guess reads our own page table right",
            hint="kernel lockdown (confidentiality) forbids BPF to read memory: see /sys/kernel/security/lockdown",
        )

    def _find_format(self, link: BpfLink) -> EntryFormat:
        """arm64 kernels differ in how they write the entry of a PROT_NONE page: look at one of our own."""
        memory, address = _own_memory(PAGE_SIZE)
        memory[0] = 1
        mprotect(address, PAGE_SIZE, _PROT_NONE)
        try:
            self._addresses[0] = address
            self._run(link, count=1)
        finally:
            mprotect(address, PAGE_SIZE, _READ_WRITE)
        entry = int(self._entries[0])
        found = arm64_format_by(entry)
        if found is None:
            raise NotSupported(
                f"this kernel's entry of a PROT_NONE page is not known to the page-table walk: {entry:#x}",
                hint="use another probe",
            )
        return found

    def _set_calibration(self, calibration: Calibration) -> None:
        self._request["page_offset"] = calibration.page_offset
        self._request["physical_mask"] = calibration.physical_mask
        self._request["physical_limit"] = calibration.physical_limit
        self._request["levels"] = calibration.levels
        self._request["prot_none_shift"] = calibration.format.prot_none_shift

    def zero_page(self) -> int:
        """What tells an entry of the kernel's zero page: all these bits are set in it, and in no entry of real memory.

        The page stands wherever anonymous memory was read before it was ever written.  The bits are its physical
        address and the special bit.

        Raises:
            NotPermitted, NotSupported: as `calibrate()`.
        """
        if self._zero_page is None:
            calibration = self.calibrate()
            mask = calibration.physical_mask | calibration.format.special
            memory, address = _own_memory(PAGE_SIZE)
            memory.max()  # reads it
            with self.target(os.getpid()) as own:
                self._zero_page = int(own.read_addresses([address]).entry[0]) & mask
        return self._zero_page

    def target(self, pid: int) -> "TargetWalk":
        """Opens the page table of process `pid` (its thread-group id); calibrates first if need be.

        Raises:
            TargetGone: there is no such process, or it has exited.
            InvalidInput: a kernel thread.
            NotPermitted, NotSupported: as `calibrate()`.
        """
        return TargetWalk(self, pid)

    def _run(
        self, link: BpfLink, *, count: int, start_ns: int = 0, cursor_range: int = 0, cursor_address: int = 0
    ) -> np.void:
        """One walk with the inputs as they stand.  The caller holds the lock.  Returns a copy of the response."""
        if os.getpid() != self._owner_pid:
            raise InvalidInput(
                "a page-table walker cannot be used after fork: parent and child would share its memory",
                hint="call PageTableWalker.open() in the child",
            )
        request = self._request
        request["count"] = count
        request["expected_start_ns"] = start_ns
        request["cursor_range"] = cursor_range
        request["cursor_address"] = cursor_address
        self._response_bytes[:] = 0
        link.run()
        response: np.void = self._response[0].copy()
        return response

    def _grow_physical_limit(self) -> None:
        """Memory may have been plugged in since; an address beyond it is then no sign of damage."""
        assert self._calibration is not None
        known = self._calibration
        limit = _end_of(read_ram())
        if limit > known.physical_limit:
            self._calibration = dataclasses.replace(known, physical_limit=limit)
            self._set_calibration(self._calibration)


def _page_offset_candidates(top_table: int, ram: list[tuple[int, int]], highest: int) -> list[int]:
    """Downwards, those that have the top table in RAM."""
    found: set[int] = set()
    for start, end in ram:
        found.update(range(min(top_table - start, highest) // _GIB * _GIB, top_table - end, -_GIB))
    return sorted(found, reverse=True)


class _AddressSpaceChanged(Exception):
    """Between two chunks of one read the target has called exec: begin again."""


class TargetWalk:
    """The page table of one process.  A context manager: it holds two BPF links (file descriptors).

    A thread at a time; several targets may be read from several threads at once.

    Attributes:
        pid: thread-group id of the process.
        start_boottime_ns: when it started, nanoseconds since boot; a later process with its pid raises TargetGone.
        mm_identity: a number that is equal as long as the address space is the same one (0 never occurs).
        generation: 0 at first; one more each time a read finds that the process has called exec.  Every result
            carries the generation of the address space that it tells about: compare before you trust addresses
            that were looked up earlier.
    """

    def __init__(self, walker: PageTableWalker, pid: int) -> None:
        if pid <= 0:
            raise InvalidInput(f"{pid} is no process id", hint="give the pid of a running process")
        self.pid = pid
        self.start_boottime_ns = 0
        self.mm_identity = 0
        self.generation = 0
        self._exec_id = 0
        self._walker = walker
        self._format = walker.calibrate().format
        self._addresses_link = walker._object.attach_task_iterator("walk_addresses", pid=pid)
        try:
            self._ranges_link = walker._object.attach_task_iterator("walk_ranges", pid=pid)
        except BaseException:
            self._addresses_link.close()
            raise
        try:
            with walker._lock:
                self._walk(self._addresses_link, count=0)
        except BaseException:
            self.close()
            raise

    def read_addresses(self, addresses: ArrayLike) -> Entries:
        """Reads the entry of each address.

        Args:
            addresses: uint64[n], in any order; kernel addresses come back empty.

        Raises:
            TargetGone: the process has exited.
        """
        wanted = np.ascontiguousarray(addresses, dtype=np.uint64)
        entry = np.empty(len(wanted), dtype=np.uint64)
        level = np.empty(len(wanted), dtype=np.uint8)
        for _ in range(_ATTEMPTS):
            try:
                self._read_addresses_once(wanted, entry, level)
            except _AddressSpaceChanged:
                continue
            return Entries(entry=entry, level=level, generation=self.generation, format=self._format)
        raise self._restless()

    def _read_addresses_once(
        self, wanted: NDArray[np.uint64], entry: NDArray[np.uint64], level: NDArray[np.uint8]
    ) -> None:
        walker = self._walker
        for first in range(0, len(wanted), ADDRESS_CAPACITY):
            last = min(first + ADDRESS_CAPACITY, len(wanted))
            count = last - first
            before = self.generation
            with walker._lock:
                walker._addresses[:count] = wanted[first:last]
                self._walk(self._addresses_link, count=count)
                entry[first:last] = walker._entries[:count]
                level[first:last] = walker._entry_levels[:count]
            if first and self.generation != before:
                raise _AddressSpaceChanged

    def read_ranges(self, starts: ArrayLike, ends: ArrayLike) -> Units:
        """Reads the present and accessed bits of ranges; holes cost next to nothing.

        Args:
            starts, ends: uint64[n], page aligned, sorted and disjoint; `ends` are exclusive.

        Raises:
            InvalidInput: ranges that are not so.
            TargetGone: the process has exited.
        """
        ranges = _checked_ranges(starts, ends)
        for _ in range(_ATTEMPTS):
            try:
                return self._read_ranges_once(ranges)
            except _AddressSpaceChanged:
                continue
        raise self._restless()

    def _read_ranges_once(self, ranges: NDArray[np.void]) -> Units:
        parts: list[NDArray[np.void]] = []
        failed_reads = table_reads = 0
        first_call = True
        for first in range(0, len(ranges), RANGE_CAPACITY):
            chunk = ranges[first : first + RANGE_CAPACITY]
            cursor_range = cursor_address = 0
            while cursor_range < len(chunk):
                before = self.generation
                with self._walker._lock:
                    self._walker._ranges[: len(chunk)] = chunk
                    response = self._walk(
                        self._ranges_link, count=len(chunk), cursor_range=cursor_range, cursor_address=cursor_address
                    )
                    parts.append(self._walker._units[: int(response["unit_count"])].copy())
                if self.generation != before and not first_call:
                    raise _AddressSpaceChanged
                first_call = False
                cursor_range, cursor_address = int(response["cursor_range"]), int(response["cursor_address"])
                failed_reads += int(response["failed_reads"]) + int(response["refused_reads"])
                table_reads += int(response["table_reads"])
        rows = parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, dtype=UNIT), *parts])
        return Units(rows=rows, generation=self.generation, failed_reads=failed_reads, table_reads=table_reads)

    def _walk(self, link: BpfLink, *, count: int, cursor_range: int = 0, cursor_address: int = 0) -> np.void:
        """One walk that holds: void ones are repeated.  The caller holds the walker's lock."""
        for attempt in range(_ATTEMPTS):
            response = self._walker._run(
                link,
                count=count,
                start_ns=self.start_boottime_ns,
                cursor_range=cursor_range,
                cursor_address=cursor_address,
            )
            status = int(response["status"])
            if status == WalkStatus.CHANGED:
                continue
            if status != WalkStatus.DONE:
                raise self._refusal(status)
            if response["refused_reads"] and not attempt:
                self._walker._grow_physical_limit()
                continue
            self._note_identity(response)
            return response
        raise self._restless()

    def _note_identity(self, response: np.void) -> None:
        # An exec makes a new mm while the old one lives, and counts up a little later: a step of one with the mm
        # that we know is the end of an exec already seen.  A step of two with it: the second exec got the mm back.
        mm, exec_id = int(response["mm"]), int(response["exec_id"])
        if self.mm_identity and (mm != self.mm_identity or exec_id - self._exec_id >= 2):
            self.generation += 1
        self.mm_identity, self._exec_id = mm, exec_id
        self.start_boottime_ns = int(response["start_ns"])

    def _refusal(self, status: int) -> Exception:
        if status == WalkStatus.KERNEL_THREAD:
            return InvalidInput(
                f"process {self.pid} is a kernel thread: it has no memory of its own", hint="choose a user process"
            )
        if status == WalkStatus.OTHER_PROCESS:
            return TargetGone(
                f"process {self.pid} has exited; its pid belongs to another process by now",
                hint="look the process up again",
            )
        return TargetGone(f"process {self.pid} does not exist or has exited", hint="look the process up again")

    def _restless(self) -> TargetGone:
        return TargetGone(
            f"process {self.pid} exits or calls exec faster than its page table can be read",
            hint="watch the program that it becomes",
        )

    def close(self) -> None:
        self._addresses_link.close()
        self._ranges_link.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _checked_ranges(starts: ArrayLike, ends: ArrayLike) -> NDArray[np.void]:
    first = np.asarray(starts, dtype=np.uint64)
    last = np.asarray(ends, dtype=np.uint64)
    if first.shape != last.shape or first.ndim != 1:
        raise InvalidInput(f"{first.shape} starts and {last.shape} ends: each range needs one of both")
    if ((first | last) & np.uint64(PAGE_SIZE - 1)).any():
        raise InvalidInput("a range does not begin and end at a page border", hint=f"multiples of {PAGE_SIZE}")
    if (first > last).any() or (last[:-1] > first[1:]).any():
        raise InvalidInput("ranges must be sorted and must not overlap", hint="sort and merge them first")
    ranges = np.empty(len(first), dtype=RANGE)
    ranges["start"], ranges["end"] = first, last
    return ranges
