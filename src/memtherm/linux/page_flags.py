"""What the kernel knows of physical pages: /proc/kpageflags and /proc/kpagecgroup (8 bytes a page frame)."""

import os
from enum import IntFlag

import numpy as np
from numpy.typing import NDArray

from memtherm.errors import NotPermitted, NotSupported

_BLOCK_FRAMES = np.uint64(512)


class PageFlag(IntFlag):
    """Bits of /proc/kpageflags (Documentation/admin-guide/mm/pagemap.rst)."""

    REFERENCED = 1 << 2
    DIRTY = 1 << 4
    LRU = 1 << 5
    ACTIVE = 1 << 6
    WRITEBACK = 1 << 8
    MMAP = 1 << 11  # mapped by a process
    ANON = 1 << 12  # mapped, and of no file
    SWAPCACHE = 1 << 13
    SWAPBACKED = 1 << 14  # anonymous, or of shared memory
    COMPOUND_HEAD = 1 << 15  # of a huge page, or a large folio
    COMPOUND_TAIL = 1 << 16
    HUGE = 1 << 17  # of hugetlbfs
    UNEVICTABLE = 1 << 18
    KSM = 1 << 21
    THP = 1 << 22
    ZERO_PAGE = 1 << 24


def read_page_flags(frames: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The flags of each page frame; about 1 µs for each run of frames that follow one another.

    Frames that the host does not have are 0.

    Raises:
        NotPermitted: only root may read them.
        NotSupported: the kernel was built without.
    """
    return _read_frames("/proc/kpageflags", "CONFIG_PROC_PAGE_MONITOR", frames)


def read_page_cgroups(frames: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The inode of the control group (the memory controller's) that each page frame is charged to; 0 for none.

    Where that group is gone, its nearest parent that is not.  Raises as read_page_flags does.
    """
    inodes = _read_frames("/proc/kpagecgroup", "CONFIG_MEMCG", frames)
    # Linux 6.1 knows it for the first frame of a huge page only; newer kernels for all.
    unknown = np.flatnonzero(inodes == 0)
    if len(unknown):
        inodes[unknown] = _read_frames("/proc/kpagecgroup", "CONFIG_MEMCG", head_frames(frames[unknown]))
    return inodes


def head_frames(frames: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The first frame of the huge page or large folio that each frame is in; a frame that is in none, itself.

    Raises as read_page_flags does.
    """
    blocks, owner = np.unique(frames // _BLOCK_FRAMES, return_inverse=True)
    # No folio is larger than a block, and each begins at a multiple of its size.
    all_frames = blocks[:, None] * _BLOCK_FRAMES + np.arange(_BLOCK_FRAMES, dtype=np.uint64)
    flags = read_page_flags(all_frames.ravel()).reshape(all_frames.shape)
    is_first = flags & np.uint64(PageFlag.COMPOUND_TAIL) == 0
    # Of a larger hugetlb page the block may hold tails only: then the first frame of the block stands for it.
    first = np.maximum.accumulate(np.where(is_first, all_frames, all_frames[:, :1]), axis=1)
    return first[owner, (frames % _BLOCK_FRAMES).astype(np.intp)]


def _read_frames(path: str, option: str, frames: NDArray[np.uint64]) -> NDArray[np.uint64]:
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError as problem:
        raise NotPermitted(f"cannot read {path}", hint="run as root, or with CAP_SYS_ADMIN") from problem
    except FileNotFoundError as problem:
        raise NotSupported(f"this kernel has no {path}", hint=f"it is built with {option}") from problem
    # A huge page has 512 frames in a row: one read.
    border = np.flatnonzero(np.diff(frames) != 1) + 1
    first = np.concatenate(([0], border))[: len(frames)]
    lengths = np.diff(np.append(first, len(frames))) * 8
    try:
        parts = [
            # Frames beyond the last one are not answered.
            os.pread(file, length, frame * 8).ljust(length, b"\0")
            for frame, length in zip(frames[first].tolist(), lengths.tolist(), strict=True)
        ]
    finally:
        os.close(file)
    return np.frombuffer(bytearray().join(parts), np.uint64)
