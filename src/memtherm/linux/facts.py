"""What this host offers.  Only looks: nothing is changed, no target touched, nothing written anywhere (design §4)."""

import ctypes
import errno
import mmap
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from memtherm.linux import libc, pagemap
from memtherm.linux.capabilities import effective, in_initial_user_namespace
from memtherm.linux.hidden import hidden_features
from memtherm.linux.huge_pages import HugePageFacts, read_huge_pages
from memtherm.linux.pressure import PressureReading, read_pressure
from memtherm.linux.swap import SwapState, read_meminfo, read_swap
from memtherm.units import PAGE_SIZE

_DAMON = Path("/sys/kernel/mm/damon/admin/kdamonds")
_IDLE_BITMAP = Path("/sys/kernel/mm/page_idle/bitmap")
_BTF = Path("/sys/kernel/btf/vmlinux")
# There exactly where the kernel has the bpf() system call.
_BPF_SETTING = Path("/proc/sys/kernel/unprivileged_bpf_disabled")
_LOCKDOWN = Path("/sys/kernel/security/lockdown")
_PTRACE_SCOPE = Path("/proc/sys/kernel/yama/ptrace_scope")


@dataclass(frozen=True)
class DamonFacts:
    """The kernel's own DAMON, by its sysfs tree, which is only ever read here.

    Attributes:
        is_present: the tree is there.
        kdamonds: how many it has; more than 0 means that someone uses it.  None if it may not be read.
    """

    is_present: bool
    kdamonds: int | None

    @property
    def is_occupied(self) -> bool:
        return bool(self.kdamonds)


@dataclass(frozen=True)
class HostFacts:
    """All that decides which ways of seeing and acting this host has.

    Attributes:
        kernel_release, machine: as uname tells them, for people; no decision hangs on them.
        effective_user_id: 0 is root.
        capabilities: effective ones, such as `CAP_SYS_NICE`.
        is_initial_user_namespace: the capabilities count for the whole host.
        ptrace_scope: Yama's 0..3; 0 without Yama.
        lockdown: `none`, `integrity` or `confidentiality`; the last forbids BPF to read kernel memory.
        memory_bytes: all of the host.
        cpu_count: processors that we may run on.
        has_bpf, has_btf, has_libbpf: system call, type information, libbpf.so.1.
        has_process_madvise: Linux 5.10.
        has_pagemap_scan: Linux 6.7; without it pagemap is read page by page.
        has_soft_dirty: writes can be tracked by clear_refs 4.
        has_idle_bitmap: idle page tracking.
        swap, huge_pages, memory_pressure, damon: see there.
        hidden: what MEMTHERM_WITHOUT names; shown as absent above.
        page_size_bytes: of the kernel; everything but /proc's texts is made for 4 KiB.
    """

    kernel_release: str
    machine: str
    effective_user_id: int
    capabilities: frozenset[str]
    is_initial_user_namespace: bool
    ptrace_scope: int
    lockdown: str
    memory_bytes: int
    cpu_count: int
    has_bpf: bool
    has_btf: bool
    has_libbpf: bool
    has_process_madvise: bool
    has_pagemap_scan: bool
    has_soft_dirty: bool
    has_idle_bitmap: bool
    swap: SwapState
    huge_pages: HugePageFacts
    memory_pressure: PressureReading
    damon: DamonFacts
    hidden: frozenset[str] = frozenset()
    page_size_bytes: int = PAGE_SIZE

    @property
    def has_zram(self) -> bool:
        return self.swap.has_zram and "zram" not in self.hidden


def probe_host() -> HostFacts:
    """Look at this host.  A few milliseconds.

    MEMTHERM_WITHOUT hides features; InvalidInput if it names unknown ones.
    """
    hidden = hidden_features()
    system = os.uname()
    has_scan, finds_soft_dirty = _look_at_own_pagemap()
    return HostFacts(
        kernel_release=system.release,
        machine=system.machine,
        effective_user_id=os.geteuid(),
        capabilities=effective(),
        is_initial_user_namespace=in_initial_user_namespace(),
        ptrace_scope=int(_text_of(_PTRACE_SCOPE) or 0),
        lockdown=_lockdown(),
        memory_bytes=read_meminfo()["MemTotal"],
        cpu_count=len(os.sched_getaffinity(0)),
        has_bpf="bpf" not in hidden and _BPF_SETTING.exists(),
        has_btf="btf" not in hidden and _BTF.exists(),
        has_libbpf="libbpf" not in hidden and _has_library("libbpf.so.1"),
        has_process_madvise="process_madvise" not in hidden and _has_process_madvise(),
        has_pagemap_scan="pagemap_scan" not in hidden and has_scan,
        has_soft_dirty="soft_dirty" not in hidden and finds_soft_dirty,
        has_idle_bitmap="idle" not in hidden and _IDLE_BITMAP.exists(),
        swap=read_swap(),
        huge_pages=read_huge_pages(),
        memory_pressure=read_pressure("memory"),
        damon=DamonFacts(is_present=False, kdamonds=None) if "damon" in hidden else _look_at_damon(),
        hidden=hidden,
        page_size_bytes=os.sysconf("SC_PAGE_SIZE"),
    )


def has_soft_dirty() -> bool:
    """Whether writes can be tracked here by clear_refs 4; found on a page of our own."""
    return "soft_dirty" not in hidden_features() and _look_at_own_pagemap()[1]


def _look_at_own_pagemap() -> tuple[bool, bool]:
    """Whether PAGEMAP_SCAN is there, and soft-dirty tracking: with it, a page of ours that is new is dirty."""
    with mmap.mmap(-1, PAGE_SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as page:
        page[0] = 1
        address = np.frombuffer(page, np.uint8).ctypes.data
        file = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
        try:
            has_scan = pagemap.supports_scan(file)
            entries = np.frombuffer(os.pread(file, 8, address // PAGE_SIZE * 8), np.uint64)
        finally:
            os.close(file)
    return has_scan, bool(pagemap.is_soft_dirty(entries).any())


def _has_process_madvise() -> bool:
    """An impossible pidfd: a kernel that has the call says EBADF, and nothing is done."""
    try:
        libc.process_madvise(-1, 0, 0, 0)
    except OSError as error:
        return error.errno != errno.ENOSYS
    return True


def _has_library(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def _lockdown() -> str:
    text = _text_of(_LOCKDOWN)
    return text.partition("[")[2].partition("]")[0] or "none"


def _look_at_damon() -> DamonFacts:
    if not _DAMON.exists():
        return DamonFacts(is_present=False, kdamonds=None)
    text = _text_of(_DAMON / "nr_kdamonds")
    return DamonFacts(is_present=True, kdamonds=int(text) if text else None)


def _text_of(path: Path) -> str:
    """The text of a small file, or nothing where it is absent or closed to us."""
    try:
        return path.read_text(encoding="ascii").strip()
    except (FileNotFoundError, PermissionError):
        return ""
