"""Which pages of a mapped file are in memory, whoever brought them there: mincore(2) on a mapping of our own."""

import mmap
import os
import stat

import numpy as np
from numpy.typing import NDArray

from memtherm.errors import NotSupported
from memtherm.linux import libc
from memtherm.linux.process import Process
from memtherm.units import PAGE_SIZE


def cached_pages(
    process: Process, *, mapping: tuple[int, int], file_offset: int, start: int, end: int
) -> NDArray[np.bool_]:
    """For each page of [start, end) of a file mapping, up to the end of the file, whether the page cache holds it.

    Of shared memory the swap cache counts too.  Empty where the mapping has gone meanwhile, or is none of a
    regular file.

    Args:
        mapping: start and end of the whole mapping, as in /proc/PID/maps.
        file_offset: of the mapping's start.

    Raises:
        NotPermitted: CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE is missing (/proc/PID/map_files).
        TargetGone: the process has gone.
    """
    nothing = np.zeros(0, np.bool_)
    offset = file_offset + start - mapping[0]
    try:
        # O_PATH opens nothing: to open a device can have effects of its own.
        found = process.open_file(f"map_files/{mapping[0]:x}-{mapping[1]:x}", os.O_PATH)
    except NotSupported:
        return nothing
    try:
        status = os.fstat(found)
        # A mapping can reach beyond the end of its file.
        length = min(end - start, status.st_size - offset)
        if not stat.S_ISREG(status.st_mode) or length <= 0:
            return nothing
        file = os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(found)
    try:
        with mmap.mmap(file, length, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ, offset=offset) as view:
            memory = np.frombuffer(view, np.uint8)
            resident = np.zeros((length + PAGE_SIZE - 1) // PAGE_SIZE, np.uint8)
            libc.mincore(memory.ctypes.data, length, resident.ctypes.data)
            # numpy keeps the mapping alive; it can be unmapped only after this.
            del memory
    finally:
        os.close(file)
    return (resident & 1).astype(np.bool_)
