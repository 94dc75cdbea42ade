"""The watched memory as one line of characters, from cold to hot."""

import numpy as np
from numpy.typing import NDArray

from memtherm.core.ranges import overlap_bytes
from memtherm.core.snapshot import Regions

LEVELS = " ·░▒▓█"


def heat_cells(regions: Regions, *, width: int) -> NDArray[np.float64]:
    """Mean access rate (0..1) of each of `width` cells.

    The regions stand one after another, without the gaps between them, so that a cell is always the
    same number of bytes.
    """
    size = regions.size_bytes
    total = int(size.sum())
    if total == 0:
        return np.zeros(width)
    start = np.concatenate(([0], np.cumsum(size)[:-1])).astype(np.uint64)
    end = start + size.astype(np.uint64)
    border = np.linspace(0, total, width + 1).astype(np.uint64)
    cells = np.zeros(width)
    for rate in np.unique(regions.access_rate[regions.access_rate > 0]).tolist():
        rows = regions.access_rate == rate
        cells += rate * overlap_bytes(border[:-1], border[1:], start[rows], end[rows])
    cells /= np.maximum(1, (border[1:] - border[:-1]).astype(np.int64))
    return cells


def heat_strip(regions: Regions, *, width: int) -> str:
    """The cells as characters; a cell with any access never looks like one without."""
    cells = heat_cells(regions, width=width)
    level = np.ceil(cells * (len(LEVELS) - 1) - 1e-9).astype(int)
    return "".join(LEVELS[min(index, len(LEVELS) - 1)] for index in level.tolist())
