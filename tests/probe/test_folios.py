"""Widening to whole folios: blocks of the file, inside of its mapping, and only of files that have large ones."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from memtherm.linux.maps import parse_maps
from memtherm.linux.pagemap import Pagemap
from memtherm.probe import folios
from memtherm.probe.folios import LargeFolios
from memtherm.units import HUGE_PAGE_SIZE, PAGE_SIZE

HUGE = HUGE_PAGE_SIZE
# A file from its page 3 on, mapped at an odd place; memory of no file; a second file.
FILE = (0x7000_0000_0000 + 7 * PAGE_SIZE, 3 * PAGE_SIZE, 4 * HUGE)
ANONYMOUS = (0x7100_0000_0000, 0, 4 * HUGE)
OTHER = (0x7200_0000_0000, 0, 4 * HUGE)


def line(mapping: tuple[int, int, int], inode: int) -> str:
    start, offset, length = mapping
    name = f"fe:00 {inode} /data/{inode}" if inode else "00:00 0"
    return f"{start:x}-{start + length:x} r--p {offset:08x} {name}\n"


MAPPINGS = parse_maps((line(FILE, 11) + line(ANONYMOUS, 0) + line(OTHER, 12)).encode())


class Frames:
    """A page map in which the frame number is the page number of the address, and /proc/kpageflags to it."""

    def read(self, start: int, end: int) -> NDArray[np.uint64]:
        return np.arange(start // PAGE_SIZE, end // PAGE_SIZE, dtype=np.uint64)

    def flags(self, frames: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """The first file has large folios."""
        of_file = (frames * np.uint64(PAGE_SIZE)) < np.uint64(ANONYMOUS[0])
        return np.where(of_file, np.uint64(1 << 16), np.uint64(1 << 5))


@pytest.fixture(scope="module")
def large() -> LargeFolios:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folios, "read_page_flags", Frames().flags)
        one = LargeFolios(as_pagemap(Frames()))
        one.update(MAPPINGS)
        one.widen(*pages([FILE[0]]))
        one.update(MAPPINGS)
        return one


def as_pagemap(frames: Frames) -> Pagemap:
    return frames  # type: ignore[return-value]


def pages(addresses: list[int]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    start = np.array(addresses, np.uint64)
    return start, start + np.uint64(PAGE_SIZE)


def test_blocks_are_those_of_the_file_inside_of_its_mapping(large: LargeFolios) -> None:
    first, offset, length = FILE
    start, end = large.widen(*pages([first, first + HUGE, first + length - PAGE_SIZE]))
    assert (start.tolist(), end.tolist()) == (
        [first, first + HUGE - offset, first + length - offset],
        [first + HUGE - offset, first + 2 * HUGE - offset, first + length],
    )


def test_pages_of_one_block_are_cleared_once(large: LargeFolios) -> None:
    inside = [FILE[0] + HUGE + number * PAGE_SIZE for number in range(20)]
    start, _ = large.widen(*pages(inside))
    assert len(start) == 1


def test_other_memory_stays_as_it_is(large: LargeFolios) -> None:
    asked = pages([PAGE_SIZE, ANONYMOUS[0] + HUGE, OTHER[0] + 5 * PAGE_SIZE])
    for before, after in zip(asked, large.widen(*asked), strict=True):
        np.testing.assert_array_equal(before, after)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2047), st.integers(1, 600)), min_size=1, max_size=8))
def test_nothing_that_was_asked_for_is_lost(large: LargeFolios, parts: list[tuple[int, int]]) -> None:
    first, offset, length = FILE
    lows = [first + at * PAGE_SIZE for at, _ in parts]
    highs = [min(first + (at + count) * PAGE_SIZE, first + length) for at, count in parts]
    start, end = large.widen(np.array(lows, np.uint64), np.array(highs, np.uint64))
    assert len(np.unique(start)) == len(start)
    for low, high in zip(lows, highs, strict=True):
        assert ((start <= low) & (end >= high)).any()
    shift = offset - first
    for low, high in zip(start.tolist(), end.tolist(), strict=True):
        assert first <= low < high <= first + length
        assert (low + shift) % HUGE == 0 or low == first
        assert (high + shift) % HUGE == 0 or high == first + length


def test_a_file_that_is_mapped_anew_is_known_still(large: LargeFolios) -> None:
    moved = (FILE[0] - (1 << 40), 0, HUGE)
    one = large
    one.update(parse_maps(line(moved, 11).encode()))
    start, end = one.widen(*pages([moved[0] + PAGE_SIZE]))
    assert (start.tolist(), end.tolist()) == ([moved[0]], [moved[0] + HUGE])
    one.update(MAPPINGS)
