"""A way to watch own memory must see known accesses right before it is believed (as probe/canary.py does)."""

import mmap
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from memtherm.core.census import PAGES, PageBits, unpacked
from memtherm.core.protocols import CensusProbe
from memtherm.core.regions import Range
from memtherm.errors import HostCannot
from memtherm.units import HUGE_PAGE_SIZE, PAGE_SIZE

_UNITS = 4
_READ = (*range(2, PAGES, 17), *range(2 * PAGES + 3, 3 * PAGES, 31))
_WRITTEN = tuple(range(PAGES + 5, 2 * PAGES, 29))
_STEPS = (
    ("after pages were left alone", (), False),
    ("after pages were read", _READ, False),
    ("after pages were left alone again", (), False),
    ("after pages were written", _WRITTEN, True),
)


def canary_problem(make: Callable[[Sequence[Range]], CensusProbe], *, writes_only: bool = False) -> str:
    """Why a way fails on a mapping of ours whose pages are read, written and left alone in turn; or an empty text.

    A few milliseconds.  A failure counts when it comes twice in a row: somebody else may clear a bit meanwhile.
    """
    return _problem(make, writes_only=writes_only) and _problem(make, writes_only=writes_only)


def _problem(make: Callable[[Sequence[Range]], CensusProbe], *, writes_only: bool) -> str:
    memory = mmap.mmap(-1, (_UNITS + 1) * HUGE_PAGE_SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    pages = np.frombuffer(memory, np.uint8)
    offset = -pages.ctypes.data % HUGE_PAGE_SIZE
    pages = pages[offset : offset + _UNITS * HUGE_PAGE_SIZE : PAGE_SIZE]
    pages[:] = 1
    start = pages.ctypes.data
    try:
        probe = make([(start, start + _UNITS * HUGE_PAGE_SIZE)])
    except HostCannot as refusal:
        return refusal.message.splitlines()[0]  # libbpf's log may follow
    try:
        return next(filter(None, (_step(probe, pages, *step, writes_only=writes_only) for step in _STEPS)), "")
    finally:
        probe.close()


def _step(
    probe: CensusProbe,
    pages: NDArray[np.uint8],
    when: str,
    touched: Iterable[int],
    write: bool,
    *,
    writes_only: bool,
) -> str:
    probe.clear(probe.look())
    for page in touched:
        if write:
            pages[page] = 2
        else:
            int(pages[page])
    bits = probe.look()
    expected = np.zeros(_UNITS * PAGES, np.bool_)
    expected[list(touched) if write or not writes_only else []] = True
    seen = _seen(bits, pages.ctypes.data)
    expected = _as_coarse(expected, getattr(probe, "grain", "page"))
    wrong, missed = int((seen & ~expected).sum()), int((expected & ~seen).sum())
    if not wrong and not missed:
        return ""
    return (
        f"it failed its canary {when}: of {len(expected)} pages of our own {missed} accesses were missed "
        f"and {wrong} seen that were not"
    )


def _seen(bits: PageBits, start: int) -> NDArray[np.bool_]:
    units = np.uint64(start) + np.arange(_UNITS, dtype=np.uint64) * np.uint64(HUGE_PAGE_SIZE)
    seen = np.zeros((_UNITS, PAGES), np.bool_)
    _, row, place = np.intersect1d(bits.address, units, assume_unique=True, return_indices=True)
    seen[place] = unpacked(bits.accessed[row]) != 0
    return seen.reshape(-1)


def _as_coarse(accessed: NDArray[np.bool_], grain: str) -> NDArray[np.bool_]:
    """What a probe of this grain must see of these pages."""
    if grain == "page":
        return accessed
    count = _UNITS if grain == "part" else 1
    return np.repeat(accessed.reshape(count, -1).any(axis=1), len(accessed) // count)
