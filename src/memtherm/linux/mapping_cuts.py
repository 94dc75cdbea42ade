"""Attributes of own mappings that change nothing but where one mapping ends and the next begins.

The kernel keeps one mapping for neighbouring memory only where all attributes are equal.  So what tells one number
a mapping, such as smaps, tells many where every second part of it has an attribute of its own.
"""

import ctypes
import errno
import mmap

from memtherm.linux import libc
from memtherm.linux.nodes import read_nodes
from memtherm.units import PAGE_SIZE

_PR_SET_VMA = 0x53564D41
_PR_SET_VMA_ANON_NAME = 0
_MPOL_DEFAULT, _MPOL_LOCAL, _MPOL_PREFERRED_MANY = 0, 4, 5
_MPOL_F_ADDR = 2
_MADV_COLD = 20
_MADV_POPULATE_WRITE = 23
_MADV_DONTDUMP, _MADV_DODUMP = 16, 17
# More pages than any kernel flushes one by one: x86 33 at most, arm64 512.
_FLUSH_PAGES = 1024


def set_name(start: int, end: int, name: str) -> None:
    """Name own anonymous memory (PR_SET_VMA_ANON_NAME, Linux 5.17); an empty name takes it away.

    Raises OSError: EINVAL without CONFIG_ANON_VMA_NAME, EBADF for a mapping of a file, ENOMEM for a hole.
    """
    text = ctypes.create_string_buffer(name.encode())
    libc.prctl(_PR_SET_VMA, _PR_SET_VMA_ANON_NAME, start, end - start, ctypes.addressof(text) if name else 0)


def has_default_policy(address: int) -> bool:
    """Whether neither this mapping nor this thread has a memory policy.  Raises OSError."""
    return _policy(address) == _MPOL_DEFAULT


def has_own_policy(address: int) -> bool:
    """Whether the memory there has one of the two policies that set_policy gives.  Raises OSError."""
    return _policy(address) in (_MPOL_LOCAL, _MPOL_PREFERRED_MANY)


def set_policy(start: int, end: int, number: int) -> None:
    """Give memory one of two policies that both mean what the default means: the node of the processor first.

    Private memory only: that of shared memory would stay with it.  Where the kernel moves pages between nodes by
    itself (numa_balancing) it passes over such memory.  Raises OSError; EPERM where a container forbids it.
    """
    if number == 0:
        libc.mbind(start, end - start, _MPOL_LOCAL, 0, 0)
        return
    nodes = [node.number for node in read_nodes() if node.total_bytes]
    mask = (ctypes.c_ulong * (max(nodes) // 64 + 1))()
    for node in nodes:
        mask[node // 64] |= 1 << node % 64
    libc.mbind(start, end - start, _MPOL_PREFERRED_MANY, ctypes.addressof(mask), 64 * len(mask) + 1)


def reset_policy(start: int, end: int) -> None:
    """The default again.  Raises OSError."""
    libc.mbind(start, end - start, _MPOL_DEFAULT, 0, 0)


def set_dumped(start: int, end: int, *, dumped: bool) -> None:
    """Whether a core dump holds this memory (VmFlags `dd` where not).  Raises OSError."""
    libc.madvise(start, end - start, _MADV_DODUMP if dumped else _MADV_DONTDUMP)


def populate(address: int) -> None:
    """Have the page there made, writable, with its content as it is.  Raises OSError."""
    libc.madvise(address, PAGE_SIZE, _MADV_POPULATE_WRITE)


def advise_cold(start: int, end: int) -> int:
    """Clear the accessed bits of own memory (MADV_COLD), and of the TLB; 0, or the errno where it failed."""
    try:
        libc.madvise(start, end - start, _MADV_COLD)
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def _policy(address: int) -> int:
    mode = ctypes.c_int(-1)
    libc.get_mempolicy(ctypes.addressof(mode), address, _MPOL_F_ADDR)
    return mode.value


class Scratch:
    """A little memory of our own, by which to have the kernel forget what it remembers beside the page table."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _FLUSH_PAGES * PAGE_SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._memory.madvise(mmap.MADV_NOHUGEPAGE)
        self._start = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))

    def flush_tlb(self) -> None:
        """Empty the TLB of this process on all processors, which needs no privilege: about 8 µs.

        An accessed bit that was cleared is set again only by a processor that looks it up in the page table.  As long
        as it has the page in its TLB it does not: after clear_refs, which does not flush, 11 of 200 accesses of the
        same thread and now and then all of a small set of another were missed, with this none (6.18).  Taking pages
        away by mprotect must flush them, and a range this long is flushed by flushing everything.
        """
        # The kernel flushes from the first to the last page that is there.
        self._memory[0] = self._memory[-1] = 1
        libc.mprotect(self._start, len(self._memory), 0)
        libc.mprotect(self._start, len(self._memory), mmap.PROT_READ | mmap.PROT_WRITE)

    def empty_lists(self) -> None:
        """Empty the list of pages that this processor keeps for itself, and that MADV_COLD passes over."""
        advise_cold(self._start, self._start + PAGE_SIZE)
