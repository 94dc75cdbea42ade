"""A probe that answers what a test tells it."""

from collections.abc import Callable, Sequence

import numpy as np

from memtherm.core.ranges import Addresses, Flags
from memtherm.core.regions import Range
from memtherm.errors import TargetGone


class ScriptedProbe:
    """A Probe whose accesses are a function of the address, or all False.

    Attributes:
        cleared: the addresses of each call of `clear`, in order.
        alive: set it to False and every call raises TargetGone.
    """

    name = "scripted"
    grain = "page"
    clearing = "none"

    def __init__(self, ranges: Sequence[Range], *, accessed: Callable[[Addresses], Flags] | None = None) -> None:
        self.mapped = list(ranges)
        self.accessed = accessed
        self.cleared: list[Addresses] = []
        self.alive = True
        self.generation = 0
        self.unclear_share = 0.0
        self.min_sampling_interval_s = 0.0

    def ranges(self) -> list[Range]:
        self._check()
        return list(self.mapped)

    def clear(self, addresses: Addresses) -> None:
        self._check()
        self.cleared.append(addresses.copy())

    def read(self, addresses: Addresses) -> Flags:
        self._check()
        if self.accessed is None:
            return np.zeros(len(addresses), np.bool_)
        return self.accessed(addresses)

    def close(self) -> None:
        """Nothing is held."""

    def _check(self) -> None:
        if not self.alive:
            raise TargetGone("the scripted target has exited")
