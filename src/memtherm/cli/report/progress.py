"""How far a long pass over a record has come, on a terminal."""

import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from memtherm.core.history import Event, History, MappingTable, SchemeTimes, Vitals
from memtherm.core.rows import SnapshotRows
from memtherm.core.selection import EVERYTHING, Selection
from memtherm.core.snapshot import Conditions, TargetInfo

if TYPE_CHECKING:
    from memtherm.core.report import Report

# Nobody waits for less.
_PATIENCE_S = 1.0
_EVERY_S = 0.1
_WIDTH = 30


class Progress:
    """A bar on standard error; nothing where that is no terminal, and nothing before a second has passed."""

    def __init__(self) -> None:
        self._is_shown = sys.stderr is not None and sys.stderr.isatty()
        self._next_s = time.monotonic() + _PATIENCE_S
        self._has_drawn = False

    def update(self, share: float) -> None:
        """So much is read, 0..1."""
        if not self._is_shown or (now_s := time.monotonic()) < self._next_s:
            return
        self._next_s, self._has_drawn = now_s + _EVERY_S, True
        share = min(1.0, max(0.0, share))
        done = round(share * _WIDTH)
        print(f"\rreading [{'#' * done}{' ' * (_WIDTH - done)}] {share:4.0%}", end="", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leave an empty line."""
        if self._has_drawn:
            self._has_drawn = False
            print(f"\r{' ' * (_WIDTH + 16)}\r", end="", file=sys.stderr, flush=True)


class Watched:
    """A History that tells a bar how far its readers are."""

    def __init__(self, history: History, progress: Progress) -> None:
        self._history, self._progress = history, progress

    @property
    def targets(self) -> tuple[TargetInfo, ...]:
        return self._history.targets

    @property
    def time_span_s(self) -> tuple[float, float]:
        return self._history.time_span_s

    def rows(self, selection: Selection = EVERYTHING) -> Iterator[SnapshotRows]:
        for rows in self._history.rows(selection):
            if len(rows):
                self._tell(float(rows.time_s[-1]), selection)
            yield rows

    def reports(self, selection: Selection = EVERYTHING) -> "Iterator[Report]":
        for report in self._history.reports(selection):
            self._tell(report.snapshot.time_s, selection)
            yield report

    def conditions(self, selection: Selection = EVERYTHING) -> Iterator[Conditions]:
        return self._history.conditions(selection)

    def mappings(self, selection: Selection = EVERYTHING) -> Iterator[MappingTable]:
        return self._history.mappings(selection)

    def vitals(self, selection: Selection = EVERYTHING) -> Iterator[Vitals]:
        return self._history.vitals(selection)

    def schemes(self, selection: Selection = EVERYTHING) -> Iterator[SchemeTimes]:
        return self._history.schemes(selection)

    def events(self, selection: Selection = EVERYTHING) -> Iterator[Event]:
        return self._history.events(selection)

    def _tell(self, time_s: float, selection: Selection) -> None:
        begin_s, end_s = self._history.time_span_s
        begin_s = begin_s if selection.since_s is None else max(begin_s, selection.since_s)
        end_s = end_s if selection.until_s is None else min(end_s, selection.until_s)
        self._progress.update((time_s - begin_s) / (end_s - begin_s) if end_s > begin_s else 1.0)
