"""A run that is a list: what reports are tested on without a file."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from memtherm.core.history import Event, MappingTable, SchemeTimes, Vitals
from memtherm.core.report import Report
from memtherm.core.rows import SnapshotRows, rows_of
from memtherm.core.selection import EVERYTHING, Selection
from memtherm.core.snapshot import Conditions, TargetInfo


@dataclass(frozen=True, kw_only=True)
class ListHistory:
    """`core.history.History` over lists.

    Attributes:
        snapshots_at_once: how many snapshots `rows` gives in one piece.
        of_targets: all targets; empty: those of the last report.
    """

    all_reports: Sequence[Report]
    all_mappings: Sequence[MappingTable] = ()
    all_vitals: Sequence[Vitals] = ()
    snapshots_at_once: int = 3
    of_targets: tuple[TargetInfo, ...] = ()

    @property
    def targets(self) -> tuple[TargetInfo, ...]:
        return self.of_targets or (self.all_reports[-1].snapshot.targets if self.all_reports else ())

    @property
    def time_span_s(self) -> tuple[float, float]:
        if not self.all_reports:
            return 0.0, 0.0
        first, last = self.all_reports[0].snapshot, self.all_reports[-1].snapshot
        return first.time_s - first.conditions.window_s, last.time_s

    def rows(self, selection: Selection = EVERYTHING) -> Iterator[SnapshotRows]:
        for first in range(0, len(self.all_reports), self.snapshots_at_once):
            piece = [one.snapshot for one in self.all_reports[first : first + self.snapshots_at_once]]
            if len(selected := selection.of(rows_of(piece))):
                yield selected

    def reports(self, selection: Selection = EVERYTHING) -> Iterator[Report]:
        for report in self.all_reports:
            selected = selection.of(rows_of([report.snapshot]))
            if len(selected):
                yield replace(report, snapshot=replace(report.snapshot, regions=selected.regions))

    def conditions(self, selection: Selection = EVERYTHING) -> Iterator[Conditions]:
        for report in self.all_reports:
            if selection.has_time(report.snapshot.time_s, report.snapshot.time_s):
                yield report.snapshot.conditions

    def mappings(self, selection: Selection = EVERYTHING) -> Iterator[MappingTable]:
        for table in self.all_mappings:
            if selection.targets is not None and table.target not in selection.targets:
                continue
            later = [
                other.time_s
                for other in self.all_mappings
                if other.target == table.target and other.time_s > table.time_s
            ]
            if selection.has_time(table.time_s, min(later, default=float("inf"))):
                yield table

    def vitals(self, selection: Selection = EVERYTHING) -> Iterator[Vitals]:
        return (one for one in self.all_vitals if selection.has_time(one.time_s, one.time_s))

    def schemes(self, selection: Selection = EVERYTHING) -> Iterator[SchemeTimes]:
        for report in self.all_reports:
            time_s = report.snapshot.time_s
            if report.schemes and selection.has_time(time_s, time_s):
                yield SchemeTimes(time_s, tuple(replace(scheme, tried=None) for scheme in report.schemes))

    def events(self, selection: Selection = EVERYTHING) -> Iterator[Event]:
        for report in self.all_reports:
            time_s = report.snapshot.time_s
            if selection.has_time(time_s, time_s):
                yield from (Event(time_s, text) for text in report.events)
