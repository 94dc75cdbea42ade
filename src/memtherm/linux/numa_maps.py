"""/proc/PID/numa_maps: of each mapping how much is on the list of active pages; readable as smaps is."""

import numpy as np
from numpy.typing import NDArray

from memtherm.errors import NotSupported
from memtherm.linux.process import Process


def has_numa_maps(process: Process) -> bool:
    """Whether the kernel has the file (CONFIG_NUMA)."""
    try:
        process.read_file("numa_maps")
    except NotSupported:
        return False
    return True


def read_active(process: Process) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Start of each mapping, ascending, and the bytes of its pages that reclaim holds for active, or cannot reclaim.

    Raises TargetGone, NotPermitted (needs ptrace read access), NotSupported.
    """
    return parse_active(process.read_file("numa_maps").decode(errors="surrogateescape"))


def parse_active(text: str) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The text of numa_maps.

    `active=` is left out where all pages are active; N0=, N1= … are the pages on each node, and none stands for
    a mapping without pages.
    """
    starts, active_bytes = [], []
    for line in text.splitlines():
        start, _policy, *words = line.split(" ")
        fields = dict(word.split("=", 1) for word in words if "=" in word)
        pages = sum(int(value) for name, value in fields.items() if name[0] == "N" and name[1:].isdigit())
        starts.append(int(start, 16))
        active_bytes.append(int(fields.get("active", pages)) * int(fields.get("kernelpagesize_kB", "4")) * 1024)
    return np.array(starts, np.uint64), np.array(active_bytes, np.int64)
