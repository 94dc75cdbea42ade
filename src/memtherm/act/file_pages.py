"""Which pages of the files behind pieces are in memory, or are not."""

import numpy as np

from memtherm.act.pieces import Pieces, runs_of_pages
from memtherm.core.ranges import Addresses, Flags
from memtherm.linux.maps import MappingKind, Mappings
from memtherm.linux.page_cache import cached_pages
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
        found = cached_pages(
            process,
            mapping=(int(mappings.starts[row]), int(mappings.ends[row])),
            file_offset=int(mappings.offsets[row]),
            start=start,
            end=end,
        )
        pages.append(np.uint64(start) + np.flatnonzero(found == cached).astype(np.uint64) * np.uint64(PAGE_SIZE))
    return runs_of_pages(np.concatenate(pages))
