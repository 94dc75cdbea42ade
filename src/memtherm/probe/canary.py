"""A probe must see known accesses right on this host before it is believed (design: trust no probe).

A neighbour's tool read zeros on a kernel that lacked what it read, called everything idle, and
paged out a gigabyte of hot memory.
"""

from collections.abc import Callable

import numpy as np

from memtherm.core.census import PAGES, unpacked
from memtherm.core.protocols import CensusProbe, Probe
from memtherm.core.ranges import Addresses, Flags
from memtherm.core.regions import Range
from memtherm.errors import NotSupported, ProbeNotTrusted
from memtherm.linux.known_child import KnownChild
from memtherm.units import PAGE_SIZE

_PAGES = 211
# Prime numbers of pages at prime distances: a wrong shift or stride cannot hit them by accident.
_READ = range(2, _PAGES, 17)
_WRITTEN = range(5, _PAGES, 29)


def check_probe(make_probe: Callable[[int], Probe], *, writes_only: bool = False) -> None:
    """Watch a child whose pages are read, written and left alone in turn.

    Args:
        make_probe: the probe for a pid.
        writes_only: it must not see what is only read.

    Raises:
        ProbeNotTrusted: the probe saw an access that was not, or missed one.
        HostCannot: the probe cannot be made on this host.
    """
    with _known_child() as child:
        probe = make_probe(child.pid)
        try:
            addresses = child.start + np.arange(_PAGES, dtype=np.uint64) * np.uint64(PAGE_SIZE)
            for step, pages, write in (
                ("after pages were left alone", range(0), False),
                ("after pages were read", _READ, False),
                ("after pages were left alone again", range(0), False),
                ("after pages were written", _WRITTEN, True),
            ):
                probe.clear(addresses)
                if len(pages):
                    child.touch(pages, write=write)
                _compare(probe, addresses, range(0) if writes_only and not write else pages, step)
        finally:
            probe.close()


def _known_child() -> KnownChild:
    try:
        return KnownChild(pages=_PAGES)
    except OSError as problem:
        raise NotSupported(
            f"a child process to try it on could not be started: {problem.strerror}: {problem.filename}",
            hint="this user must be able to run Python",
        ) from problem


class CensusAsProbe:
    """A census probe in the clothes of a Probe, so that both stand the same test."""

    grain = "page"
    unclear_share = 0.0
    min_sampling_interval_s = 0.0

    def __init__(self, census: CensusProbe) -> None:
        self._census = census
        self.name = f"{census.name} census"

    @property
    def clearing(self) -> str:
        return self._census.clearing

    @property
    def generation(self) -> int:
        return self._census.generation

    def ranges(self) -> list[Range]:
        return self._census.ranges()

    def clear(self, addresses: Addresses) -> None:
        """Clear all that is set, whatever the addresses."""
        del addresses
        self._census.clear(self._census.look())

    def read(self, addresses: Addresses) -> Flags:
        bits = self._census.look()
        row = np.searchsorted(bits.address, addresses, side="right") - 1
        page = ((addresses - bits.address[row]) // np.uint64(PAGE_SIZE)).astype(np.int64)
        accessed: Flags = (page < PAGES) & (unpacked(bits.accessed)[row, np.minimum(page, PAGES - 1)] != 0)
        return accessed

    def close(self) -> None:
        self._census.close()


def _compare(probe: Probe, addresses: Addresses, touched: range, step: str) -> None:
    seen = probe.read(addresses)
    expected = np.zeros(len(addresses), np.bool_)
    expected[list(touched)] = True
    if probe.grain == "mapping":
        expected[:] = expected.any()
    wrong, missed = int((seen & ~expected).sum()), int((expected & ~seen).sum())
    if wrong or missed:
        raise ProbeNotTrusted(
            f"the {probe.name} probe failed its canary {step}: of {len(addresses)} pages of a child "
            f"{missed} accesses were missed and {wrong} seen that were not",
            hint="its numbers would be wrong on this host; `memtherm doctor` shows the other ways",
        )
