"""What the kernel's text of `damon:damon_aggregated` says: the second witness of windows from binary pages."""

import re
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from memtherm.kdamond.aggregated import EVENT, AggregatedStream, KernelWindow
from memtherm.linux.tracefs import EventStream

_LINE = re.compile(r"damon_aggregated: target_id=(\d+) nr_regions=\d+ (\d+)-(\d+): (\d+) (\d+)")

Row = tuple[int, int, int, int, int]  # target, start, end, nr_accesses, age


@dataclass(frozen=True)
class Heard:
    """The same time, heard twice."""

    windows: list[KernelWindow]
    text_rows: list[Row]
    dropped_windows: int
    lost_events: int


def rows_of(window: KernelWindow) -> list[Row]:
    regions = window.regions
    columns = (regions.target, regions.start, regions.end, regions.nr_accesses, regions.age_windows)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def listen(
    root: Path,
    kdamond_pid: int,
    *,
    nr_windows: int,
    limit_s: float,
    nr_targets: int = 1,
    meanwhile: Callable[[], object] = lambda: None,
) -> Heard:
    """Hear some windows in binary, and all of their time in text, from an instance of its own that begins before."""
    with ExitStack() as stack:
        text = stack.enter_context(
            EventStream(EVENT, filter_text=f"common_pid == {kdamond_pid}", buffer_bytes=4 << 20, root=root)
        )
        stream = stack.enter_context(
            AggregatedStream(kdamond_pid=kdamond_pid, nr_targets=nr_targets, max_nr_regions=5000, root=root)
        )
        windows: list[KernelWindow] = []
        ends_s = time.monotonic() + limit_s
        while len(windows) < nr_windows and time.monotonic() < ends_s:
            meanwhile()
            time.sleep(0.05)
            windows += stream.read()
        lines = (text.instance / "trace").read_text()
        found = [tuple(int(number) for number in match) for match in _LINE.findall(lines)]
        rows: list[Row] = [(target, start, end, hits, age) for target, start, end, hits, age in found]
        return Heard(windows, rows, stream.windows.dropped_windows, stream.lost_events)


def assert_windows_are_as_told(heard: Heard) -> None:
    """Every window, one behind the other, is what the text says, row by row."""
    mine = [row for window in heard.windows for row in rows_of(window)]
    first = next(place for place in range(len(heard.text_rows)) if heard.text_rows[place : place + 3] == mine[:3])
    assert heard.text_rows[first : first + len(mine)] == mine
    # What the text told before is the rest of a window that was already being told.
    assert first == 0 or heard.dropped_windows <= 1
    assert heard.lost_events == 0
