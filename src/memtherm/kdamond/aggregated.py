"""Whole aggregation windows of one kdamond, from the trace event `damon:damon_aggregated`.

At the end of a window the kernel emits one record for each region, target after target, before it resets and splits
them (damon-spec §1.12, §3.7).  A window of which a record was lost is dropped and counted, never given in part.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from memtherm.errors import NotSupported
from memtherm.kdamond.kernel_regions import KernelRegions
from memtherm.linux.tracefs import EventStream, Loss, TraceEvents

EVENT = "damon:damon_aggregated"
# The records of a window follow each other within microseconds; windows are at least a sampling interval apart.
_QUIET_NS = 20_000_000
# 5.15 names a target by the address of a structure, all others by its index.
_FIRST_POINTER = 1 << 32
_ENTRY_BYTES = 52
_MIN_BUFFER_BYTES = 1 << 16


@dataclass(frozen=True)
class KernelWindow:
    """All regions at the end of one aggregation window.

    Attributes:
        time_ns: of the last record, CLOCK_MONOTONIC.
    """

    time_ns: int
    regions: KernelRegions


class _Run(NamedTuple):
    """Records that may belong together: one target, one count, ascending addresses, no loss between them.

    Attributes:
        is_lost: within the time of a loss, so that nobody knows to what they belong.
        is_after_loss, is_before_loss: events were lost just before, just behind.
    """

    first: int
    end: int
    is_lost: bool
    is_after_loss: bool
    is_before_loss: bool


@dataclass
class _OpenWindow:
    """The targets of one window so far.

    Attributes:
        is_sure: none can have been lost before the first.
        is_broken: something of it was lost.
    """

    records: list[NDArray[np.void]] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)
    time_ns: int = 0
    is_sure: bool = True
    is_broken: bool = False


class WindowAssembler:
    """Turns trace records into windows; pure.

    Attributes:
        nr_targets: targets of the context; a window that has them all is given at once.  One that has fewer, since
            a target without regions is silent, is given when it is clear that no more will come.
        dropped_windows: windows of which we saw a part only.
    """

    def __init__(self, *, kdamond_pid: int, nr_targets: int = 1, address_unit: int = 1) -> None:
        """Begin with nothing.

        Args:
            kdamond_pid: whose records count; several kdamonds may run in one kernel.
            address_unit: bytes for each unit of the records' addresses (damon-spec §3.8).
        """
        self.nr_targets = nr_targets
        self.dropped_windows = 0
        self._kdamond_pid = kdamond_pid
        self._address_unit = address_unit
        self._records: NDArray[np.void] | None = None
        self._time_ns = np.empty(0, np.int64)
        self._losses: list[Loss] = []
        # Whether the next record is known to be the first of its target.
        self._is_at_border = False
        # Whether something was lost, or not heard yet, since the last record.
        self._has_lost = True
        self._open = _OpenWindow()
        self._last_given = -1
        self._last_dropped_ns = -_QUIET_NS

    def feed(self, events: TraceEvents) -> list[KernelWindow]:
        """The windows that these events complete, in order."""
        is_ours = events.records["common_pid"] == self._kdamond_pid
        records, time_ns = events.records[is_ours], events.time_ns[is_ours]
        if self._records is not None:
            records = np.concatenate([self._records, records])
            time_ns = np.concatenate([self._time_ns, time_ns])
        self._losses += events.losses
        windows: list[KernelWindow] = []
        kept = self._take_runs(records, time_ns, events.until_ns, windows)
        self._records, self._time_ns = records[kept:].copy(), time_ns[kept:].copy()
        if kept:  # a loss before a record that is done with has had its effect
            self._losses = [loss for loss in self._losses if loss.before_ns > time_ns[kept - 1]]
        if kept == len(records) and events.until_ns - self._open.time_ns >= _QUIET_NS:
            if self._losses:
                self._meet_loss()
            self._close(windows)
        return windows

    def _take_runs(
        self, records: NDArray[np.void], time_ns: NDArray[np.int64], until_ns: int, windows: list[KernelWindow]
    ) -> int:
        """Go through the runs; returns how many records are done with."""
        for run in _runs(records, time_ns, self._losses):
            if run.is_after_loss:
                self._meet_loss()
            if run.is_lost:
                continue
            begin, is_last = run.first, run.end == len(records)
            is_quiet = until_ns - int(time_ns[run.end - 1]) >= _QUIET_NS
            while begin < run.end:
                length, expected = run.end - begin, max(int(records["nr_regions"][begin]), 1)
                if self._is_at_border:
                    is_whole, may_grow = length >= expected, is_last
                else:
                    # It may be the end of one window and the beginning of another, unless what follows says no.
                    is_ended = is_quiet if is_last else not run.is_before_loss
                    is_whole, may_grow = length == expected and is_ended, is_last and length <= expected
                if not is_whole and may_grow:
                    return begin
                taken = expected if is_whole else length
                self._add(records[begin : begin + taken], int(time_ns[begin + taken - 1]), windows, is_whole=is_whole)
                begin += taken
                self._is_at_border = True  # the next run says so if it begins behind a loss
        return len(records)

    def _add(self, records: NDArray[np.void], time_ns: int, windows: list[KernelWindow], *, is_whole: bool) -> None:
        """One target's records, all or a part of them."""
        target = self._index_of(int(records["target_id"][0]))
        if self._open.targets and target <= self._open.targets[-1]:
            self._close(windows)
        window = self._open
        if self._has_lost:
            if window.targets:
                window.is_broken = True
            else:
                window.is_sure = False
            self._has_lost = False
        if not window.targets and target > self._last_given >= 0:
            window.is_broken = True  # it belongs to the window that was given without it
        self._last_given = -1
        window.targets.append(target)
        window.time_ns = time_ns
        if not is_whole:
            window.is_broken = True
        window.records.append(records)
        if len(window.targets) == self.nr_targets and not window.is_broken:
            self._give(windows)

    def _index_of(self, target_id: int) -> int:
        """Raises NotSupported for several targets on a kernel that names them by address, whose order is unknown."""
        if target_id < _FIRST_POINTER:
            return target_id
        if self.nr_targets > 1:
            raise NotSupported(
                "trace events of this kernel do not number the targets", hint="watch one target with each kdamond"
            )
        return 0

    def _meet_loss(self) -> None:
        """Something was lost between the last record and the next."""
        self._is_at_border = False
        self._last_given = -1
        self._has_lost = True

    def _close(self, windows: list[KernelWindow]) -> None:
        """No more will come of the open window."""
        if not self._open.targets:
            return
        if self._has_lost or self._open.is_broken or not self._open.is_sure:
            # A loss cuts a window into parts, which are so near to each other that they count as one.
            self.dropped_windows += self._open.time_ns - self._last_dropped_ns >= _QUIET_NS
            self._last_dropped_ns = self._open.time_ns
            self._open = _OpenWindow()
        else:
            self._give(windows)

    def _give(self, windows: list[KernelWindow]) -> None:
        window, self._open = self._open, _OpenWindow()
        self._last_given = window.targets[-1]
        records = np.concatenate(window.records)
        unit = np.uint64(self._address_unit)
        names = records.dtype.names or ()
        age = records["age"] if "age" in names else np.zeros(len(records))  # kernels before 5.16 have none
        regions = KernelRegions(
            target=np.repeat(np.array(window.targets, np.int32), [len(part) for part in window.records]),
            start=records["start"].astype(np.uint64) * unit,
            end=records["end"].astype(np.uint64) * unit,
            nr_accesses=records["nr_accesses"].astype(np.int64),
            age_windows=age.astype(np.int64),
        )
        windows.append(KernelWindow(window.time_ns, regions))


def _runs(records: NDArray[np.void], time_ns: NDArray[np.int64], losses: list[Loss]) -> Iterator[_Run]:
    if not len(records):
        return
    begins = np.ones(len(records), np.bool_)
    begins[1:] = (
        (records["target_id"][1:] != records["target_id"][:-1])
        | (records["nr_regions"][1:] != records["nr_regions"][:-1])
        | (records["start"][1:] < records["end"][:-1])
    )
    is_lost = np.zeros(len(records), np.bool_)
    is_after_loss = np.zeros(len(records) + 1, np.bool_)
    for loss in losses:
        low = int(np.searchsorted(time_ns, loss.after_ns, side="right"))
        high = max(low, int(np.searchsorted(time_ns, loss.before_ns)))
        is_lost[low:high] = True
        is_after_loss[[low, high]] = True
    begins |= is_after_loss[:-1]
    firsts = np.flatnonzero(begins)
    for first, end in zip(firsts.tolist(), [*firsts[1:].tolist(), len(records)], strict=True):
        yield _Run(first, end, bool(is_lost[first]), bool(is_after_loss[first]), bool(is_after_loss[end]))


class AggregatedStream:
    """Windows of a running kdamond from now on, without asking it.  A context manager."""

    def __init__(
        self,
        *,
        kdamond_pid: int,
        nr_targets: int = 1,
        address_unit: int = 1,
        max_nr_regions: int = 1000,
        root: Path | None = None,
    ) -> None:
        """Begin to listen.

        Args:
            kdamond_pid, nr_targets, address_unit: see `WindowAssembler`.
            max_nr_regions: of the context; the buffer holds some windows of so many.
            root: where tracefs is; found if not given.

        Raises NotSupported (no tracefs, no such event), NotPermitted.
        """
        self.windows = WindowAssembler(kdamond_pid=kdamond_pid, nr_targets=nr_targets, address_unit=address_unit)
        self.lost_events = 0
        self._events_per_window = max_nr_regions
        self._events = EventStream(
            EVENT,
            filter_text=f"common_pid == {kdamond_pid}",
            buffer_bytes=max(4 * _ENTRY_BYTES * max_nr_regions, _MIN_BUFFER_BYTES),
            root=root,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove the instance.  May be called again."""
        self._events.close()

    def read(self) -> list[KernelWindow]:
        """The windows that have ended since the last time.  Does not wait.

        To be called at least every three windows; `lost_events` counts what came too late, and
        `windows.dropped_windows` also those windows of which nothing is left.
        """
        events, dropped = self._events.read(), self.windows.dropped_windows
        windows = self.windows.feed(events)
        if windows:
            self._events_per_window = len(windows[-1].regions.start)
        if events.losses:
            lost = self._events.lost_events()
            # Nobody but our kdamond writes into this buffer.  Regions come and go: so many windows, about.
            whole = (lost - self.lost_events) // max(self._events_per_window, 1)
            self.windows.dropped_windows = max(self.windows.dropped_windows, dropped + whole)
            self.lost_events = lost
        return windows
