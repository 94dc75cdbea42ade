"""See accesses without privilege: clear_refs, then `Referenced` of smaps.  One answer a mapping.

Each look walks all of the target's memory (40 ms per GiB of small pages), so looks are far apart.
Neither flushes the TLB: a set so small that it stays there may be missed for a moment.
"""

import time

import numpy as np

from memtherm.core.ranges import Addresses, Flags
from memtherm.core.regions import Range
from memtherm.errors import TargetGone
from memtherm.linux.clear_refs import ClearKind, clear
from memtherm.linux.maps import read_maps, read_smaps
from memtherm.linux.process import Process

# Clearing and reading may take a twentieth of the time at most; at 100 ms a set that lives in the TLB
# was seen again whole (damon-spec §5.3).
_SHARE = 20
_MIN_INTERVAL_S = 0.1
# The cost is a mean over about this many of the latest looks.
_MEMORY = 4


class SmapsProbe:
    """A Probe for a process of the same user."""

    name = "smaps"
    grain = "mapping"
    clearing = "clear_refs"
    unclear_share = 0.0
    generation = 0

    def __init__(self, process: Process) -> None:
        """Raises NotPermitted for another user's process, TargetGone where the process is not."""
        self._process = process
        self.min_sampling_interval_s = _MIN_INTERVAL_S
        self._clearing_s = 0.0
        self._cost_s = 0.0
        self.clear(np.zeros(0, np.uint64))
        self.read(np.zeros(0, np.uint64))

    def ranges(self) -> list[Range]:
        """Every mapping."""
        mappings = read_maps(self._process)
        return list(zip(mappings.starts.tolist(), mappings.ends.tolist(), strict=True))

    def clear(self, addresses: Addresses) -> None:
        """Clear the whole address space, whatever the addresses."""
        del addresses
        began_s = time.monotonic()
        clear(self._process, ClearKind.ALL)
        self._clearing_s = time.monotonic() - began_s

    def read(self, addresses: Addresses) -> Flags:
        """Whether anything in the mapping of each address was accessed."""
        began_s = time.monotonic()
        detailed = read_smaps(self._process)
        mappings = detailed.mappings
        cost_s = self._clearing_s + time.monotonic() - began_s
        self._cost_s += (cost_s - self._cost_s) / _MEMORY
        self.min_sampling_interval_s = max(_MIN_INTERVAL_S, _SHARE * self._cost_s)
        if len(mappings) == 0:
            raise TargetGone(f"pid {self._process.pid} has exited")
        index = np.searchsorted(mappings.starts, addresses, side="right") - 1
        inside = (index >= 0) & (addresses < mappings.ends[index])
        return inside & (detailed.referenced_bytes[index] > 0)

    def close(self) -> None:
        """Nothing is held."""
