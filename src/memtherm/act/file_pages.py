"""Which pages of mapped files are in memory, whoever brought them there: mincore(2) on a mapping of our own."""

import mmap
import os
import stat

import numpy as np

from memtherm.act.pieces import Pieces, runs_of_pages
from memtherm.core.ranges import Addresses, Flags
from memtherm.errors import NotSupported
from memtherm.linux import libc
from memtherm.linux.maps import MappingKind, Mappings
from memtherm.linux.process import Process
from memtherm.units import PAGE_SIZE

_FILE_KINDS = (MappingKind.PRIVATE_FILE, MappingKind.SHARED_FILE, MappingKind.SHARED_MEMORY)


def are_of_files(mappings: Mappings) -> Flags:
    """Which mappings have pages in the page cache; shared memory has."""
    return np.isin(mappings.kinds, _FILE_KINDS)


def find_file_pages(
    process: Process, pieces: Pieces, mappings: Mappings, *, cached: bool
) -> tuple[Addresses, Addresses]:
    """Runs of the pages of files that the page cache holds, or of those that it does not hold.

    What lies beyond the end of its file is in neither, nor is what has gone meanwhile, or is of no regular file.

    Raises:
        NotPermitted: CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE is missing (/proc/PID/map_files).
        TargetGone: the process has gone.
    """
    pages = [np.zeros(0, np.uint64)]
    of_files = pieces.take(are_of_files(mappings)[pieces.mapping])
    for start, end, row in zip(*(column.tolist() for column in of_files.runs()), strict=True):
        found = _are_cached(
            process,
            mapping=(int(mappings.starts[row]), int(mappings.ends[row])),
            offset=int(mappings.offsets[row]) + start - int(mappings.starts[row]),
            length=end - start,
        )
        pages.append(np.uint64(start) + np.flatnonzero(found == cached).astype(np.uint64) * np.uint64(PAGE_SIZE))
    return runs_of_pages(np.concatenate(pages))


def _are_cached(process: Process, *, mapping: tuple[int, int], offset: int, length: int) -> Flags:
    """For each page of a part of the file, up to its end, whether the page cache holds it."""
    try:
        # O_PATH opens nothing: to open a device can have effects of its own.
        found = process.open_file(f"map_files/{mapping[0]:x}-{mapping[1]:x}", os.O_PATH)
    except NotSupported:
        return np.zeros(0, np.bool_)
    try:
        status = os.fstat(found)
        length = min(length, status.st_size - offset)
        if not stat.S_ISREG(status.st_mode) or length <= 0:
            return np.zeros(0, np.bool_)
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
