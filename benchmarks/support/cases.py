"""The cases of benchmarks/accuracy.py: what a workload does, so that its truth can be told."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from support.workload import PAGE_SIZE, Workload, workload

MIB = 1 << 20
GIB = 1 << 30


@dataclass(frozen=True, kw_only=True)
class Case:
    """One workload.

    Attributes:
        hot: (offset, length) of the stripes in bytes.
        period_s: between two passes.
        move_bytes, move_every_s: how far all stripes move on, and how often; around the end to the start.
        zipf_pages: page i of a stripe is touched once in (1 + i / zipf_pages) periods.
        scatter: page i of a stripe lies at i * scatter modulo its pages.
        processes: that share the memory.
        run_s: time for one method.
        is_alone: watched by one method after the other, not by all at once with a workload each.
        is_quick: part of `--quick`.
    """

    name: str
    size_bytes: int = 256 * MIB
    hot: tuple[tuple[int, int], ...] = ((64 * MIB, 16 * MIB),)
    memory: Literal["anonymous", "shared", "file", "private-file"] = "anonymous"
    pages: Literal["small", "huge"] = "small"
    access: Literal["read", "write"] = "read"
    period_s: float = 0.002
    move_bytes: int = 0
    move_every_s: float = 0.0
    zipf_pages: int = 0
    scatter: int = 0
    processes: int = 1
    run_s: float = 10.0
    is_alone: bool = False
    is_quick: bool = False

    @contextmanager
    def running(self) -> Iterator[Workload]:
        """The workload, in its passes."""
        options = {
            "--move": f"{self.move_bytes}:{self.move_every_s}" if self.move_bytes else "",
            "--zipf": str(self.zipf_pages or ""),
            "--scatter": str(self.scatter or ""),
            "--processes": str(self.processes),
        }
        with workload(
            size_bytes=self.size_bytes,
            hot=self.hot,
            memory=self.memory,
            pages=self.pages,
            access=self.access,
            period_s=self.period_s,
            extra=[part for pair in options.items() if pair[1] for part in pair],
        ) as child:
            yield child


_APART = tuple((3 * MIB * index + 5 * PAGE_SIZE * (index % 7), PAGE_SIZE) for index in range(1, 65))
_STRIPES = tuple((MIB * at, MIB * length) for at, length in ((10, 1), (40, 8), (77, 3), (130, 16), (200, 5)))

CASES = (
    Case(name="1 hot page", hot=((77 * MIB + PAGE_SIZE, PAGE_SIZE),), is_quick=True),
    Case(name="16 hot pages in a row", hot=((77 * MIB + PAGE_SIZE, 16 * PAGE_SIZE),)),
    Case(name="64 hot pages, each alone", hot=_APART, is_quick=True),
    Case(name="16 MiB hot, 4 KiB pages"),
    Case(name="16 MiB hot, THP", pages="huge", is_quick=True),
    Case(name="16 MiB hot, written only", access="write"),
    Case(name="five hot stripes", hot=_STRIPES),
    Case(name="file, shared mapping", memory="file"),
    Case(name="file, private mapping", memory="private-file"),
    Case(name="file, private, written", memory="private-file", access="write"),
    Case(name="memory of four processes", memory="shared", processes=4, period_s=0.005, is_quick=True),
    Case(name="memory of four processes, 1 GiB", memory="shared", processes=4, period_s=0.005, size_bytes=GIB),
    Case(name="forked, read", processes=2, period_s=0.005),
    Case(name="forked, written", processes=2, period_s=0.005, access="write"),
    Case(name="Zipf, in a row", hot=((0, 256 * MIB),), zipf_pages=64, period_s=0.005),
    Case(name="Zipf, scattered", hot=((0, 256 * MIB),), zipf_pages=64, period_s=0.005, scatter=40503, run_s=24),
    Case(name="drifting 1 MiB a second", move_bytes=256 << 10, move_every_s=0.25, run_s=16),
    Case(name="jumping each 8 s", move_bytes=96 * MIB, move_every_s=8.0, run_s=36),
    Case(name="ages from 1 s on", hot=((0, MIB),), move_bytes=MIB, move_every_s=1.0, run_s=20, is_quick=True),
    Case(name="160 MiB hot", size_bytes=512 * MIB, hot=((64 * MIB, 160 * MIB),), period_s=0.02, is_alone=True),
    Case(name="512 MiB hot", size_bytes=GIB, hot=((64 * MIB, 512 * MIB),), period_s=0.05, run_s=30, is_alone=True),
    Case(name="target of 1 GiB", size_bytes=GIB, is_quick=True),
    Case(name="target of 4 GiB", size_bytes=4 * GIB, run_s=14, is_alone=True),
    Case(name="target of 4 GiB, THP", size_bytes=4 * GIB, pages="huge", is_alone=True),
    Case(name="target of 16 GiB", size_bytes=16 * GIB, run_s=50, is_alone=True),
)

LONG_AGES = Case(name="ages to 10 min", size_bytes=GIB, hot=((0, MIB),), move_bytes=MIB, move_every_s=1.0, run_s=610)
"""Runs beside all other cases."""
