"""What finds room in swap, against a page by page model."""

from types import SimpleNamespace
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from act.scene import PAGE
from memtherm.act.pieces import Pieces
from memtherm.act.swap_room import within_swap
from memtherm.linux.pagemap import PageCategory
from memtherm.linux.swap import SwapState

ABSENT, ANONYMOUS, FILE, ZERO = range(4)
CATEGORIES = {ANONYMOUS: 0, FILE: PageCategory.FILE, ZERO: PageCategory.ZERO}


def scan(pages: list[int], pieces: Pieces) -> SimpleNamespace:
    """What Pagemap.scan tells of these pages: a run goes on from one piece into an adjoining one."""
    runs: list[list[int]] = []
    for start, end in zip(pieces.start.tolist(), pieces.end.tolist(), strict=True):
        for page in range(start // PAGE, end // PAGE):
            if pages[page] != ABSENT and runs and runs[-1][1:] == [page, CATEGORIES[pages[page]]]:
                runs[-1][1] = page + 1
            elif pages[page] != ABSENT:
                runs.append([page, page + 1, CATEGORIES[pages[page]]])
    columns = np.array(runs, np.uint64).reshape(-1, 3)
    return SimpleNamespace(starts=columns[:, 0] * PAGE, ends=columns[:, 1] * PAGE, categories=columns[:, 2])


@st.composite
def memory(draw: st.DrawFn) -> tuple[Pieces, list[int], list[bool]]:
    """Pieces of one to six pages with gaps between them; each in a mapping of its own."""
    sizes = draw(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 6)), min_size=1, max_size=8))
    starts, ends, place = [], [], 1
    for gap, size in sizes:
        starts.append(place + gap)
        place += gap + size
        ends.append(place)
    rows = np.arange(len(sizes))
    pieces = Pieces(np.array(starts, np.uint64) * PAGE, np.array(ends, np.uint64) * PAGE, rows, rows)
    pages = draw(st.lists(st.sampled_from(range(4)), min_size=place, max_size=place))
    backed = draw(st.lists(st.booleans(), min_size=len(sizes), max_size=len(sizes)))
    return pieces, pages, backed


@settings(deadline=None)
@given(memory(), st.integers(0, 30))
def test_what_needs_swap_goes_as_far_as_there_is_room(
    drawn: tuple[Pieces, list[int], list[bool]], free_pages: int
) -> None:
    pieces, pages, backed = drawn
    pagemap: Any = SimpleNamespace(scan=lambda *_, **__: scan(pages, pieces))
    swap = SwapState(total_bytes=30 * PAGE, free_bytes=free_pages * PAGE, devices=())
    left, left_out_bytes, reason = within_swap(
        pieces, is_memory_backed=np.array(backed, np.bool_), pagemap=pagemap, swap=swap
    )
    room, stay = free_pages, set[int]()
    for start, end, memory_backed in zip(pieces.start.tolist(), pieces.end.tolist(), backed, strict=True):
        for page in range(start // PAGE, end // PAGE):
            if pages[page] == ANONYMOUS or (pages[page] == FILE and memory_backed):
                room -= 1
                if room < 0:
                    stay.add(page)
    advised = {
        page
        for start, end in zip(left.start.tolist(), left.end.tolist(), strict=True)
        for page in range(start // PAGE, end // PAGE)
    }
    assert left_out_bytes == len(stay) * PAGE
    assert bool(reason) == bool(stay)
    assert not advised & stay
    for start, end, memory_backed in zip(pieces.start.tolist(), pieces.end.tolist(), backed, strict=True):
        everything = set(range(start // PAGE, end // PAGE))
        # Nothing else is left out but what holds no memory, behind the border.
        assert not any(pages[page] in (ANONYMOUS, FILE) for page in everything - advised - stay)
        if not memory_backed:
            assert everything - advised == everything & stay


@settings(deadline=None)
@given(memory(), st.integers(0, 30), st.integers(0, 8))
def test_what_is_to_stay_free_is_no_room(
    drawn: tuple[Pieces, list[int], list[bool]], free_pages: int, eighths: int
) -> None:
    pieces, pages, backed = drawn
    pagemap: Any = SimpleNamespace(scan=lambda *_, **__: scan(pages, pieces))

    def left_out(free: int, min_free_swap: float) -> int:
        swap = SwapState(total_bytes=32 * PAGE, free_bytes=free * PAGE, devices=())
        return within_swap(
            pieces,
            is_memory_backed=np.array(backed, np.bool_),
            pagemap=pagemap,
            swap=swap,
            min_free_swap=min_free_swap,
        )[1]

    assert left_out(free_pages, eighths / 8) == left_out(max(0, free_pages - 4 * eighths), 0.0)


@settings(deadline=None)
@given(memory())
def test_without_swap_the_reason_says_so(drawn: tuple[Pieces, list[int], list[bool]]) -> None:
    pieces, pages, backed = drawn
    pagemap: Any = SimpleNamespace(scan=lambda *_, **__: scan(pages, pieces))
    _, left_out_bytes, reason = within_swap(
        pieces, is_memory_backed=np.array(backed, np.bool_), pagemap=pagemap, swap=SwapState(0, 0, ())
    )
    assert reason == ("anonymous memory, and no swap" if left_out_bytes else "")
