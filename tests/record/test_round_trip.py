"""What is written comes back: all of it, in equal numbers."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memtherm.core.history import Event, History, SchemeTimes
from memtherm.core.report import Report
from memtherm.core.selection import Selection
from memtherm.core.snapshot import Conditions, Regions, TargetInfo
from memtherm.errors import InvalidInput
from memtherm.record.reader import open_record
from memtherm.record.scan import Found
from memtherm.record.side import same_mappings
from memtherm.record.writer import RecordWriter
from support.records import (
    BEGIN_S,
    HEADER,
    SAMPLING,
    assert_same,
    differences,
    full_reports,
    mapping_table,
    report_of,
    sampled_regions,
    sampled_reports,
    vitals_at,
    write_record,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.memtherm"


def test_reports_come_back_equal(path: Path) -> None:
    reports = full_reports(60)
    write_record(path, reports, is_full=True)
    with open_record(path) as record:
        history: History = record
        assert history.targets == record.targets
        assert record.header == HEADER
        assert record.problems == ()
        assert record.is_complete
        assert record.targets == reports[-1].snapshot.targets
        assert (record.nr_snapshots, record.nr_rows) == (60, 360)
        assert record.time_span_s == pytest.approx((BEGIN_S, BEGIN_S + 6.0))
        for mine, theirs in zip(record.reports(), reports, strict=True):
            assert_same(mine, theirs)
        for snapshot, report in zip(record, reports, strict=True):
            assert list(differences(snapshot.regions, report.snapshot.regions)) == []


def test_the_other_channels_come_back(path: Path) -> None:
    reports = full_reports(20)
    write_record(path, reports, is_full=True)
    with open_record(path) as record:
        times = [report.snapshot.time_s for report in reports]
        assert list(record.vitals()) == [vitals_at(time_s) for time_s in times]
        assert list(record.schemes()) == [
            SchemeTimes(report.snapshot.time_s, report.schemes) for report in reports if report.schemes
        ]
        expected = sorted(
            [(report.snapshot.time_s, text) for report in reports for text in report.events]
            + [(times[index], f"event {index}") for index in range(4, 20, 5)]
        )
        assert sorted((event.time_s, event.text) for event in record.events()) == expected
        tables = list(record.mappings())
        # They are given for each window, and change with each fourth.
        assert [table.time_s for table in tables] == times[::4]
        for index, table in enumerate(tables):
            wanted = mapping_table(times[4 * index], shift=index << 12)
            assert same_mappings(table, wanted)
            assert table.path == wanted.path


def test_rows_are_the_same_as_the_snapshots(path: Path) -> None:
    reports = sampled_reports(100, regions=50)
    write_record(path, reports)
    with open_record(path) as record:
        snapshots = 0
        for rows in record.rows():
            for index in range(len(rows)):
                wanted = reports[snapshots].snapshot
                part = rows.take_snapshots(index, index + 1)
                assert list(differences(part.regions, wanted.regions)) == []
                assert part.time_s.tolist() == [wanted.time_s]
                assert (part.samples.tolist(), part.window_s.tolist()) == ([20], [0.1])
                assert part.sampling_interval_s.tolist() == [0.005]
                snapshots += 1
        assert snapshots == 100


def test_a_selection_is_what_selecting_afterwards_gives(path: Path) -> None:
    reports = sampled_reports(100, regions=50)
    write_record(path, reports, frame_s=0.5)
    selection = Selection(since_s=BEGIN_S + 2.05, until_s=BEGIN_S + 4.05, start=0x7F00_1000_0000, end=0x7F02_0000_0000)
    with open_record(path) as record:
        (every,) = record.rows()
        wanted = selection.of(every)
        (found,) = record.rows(selection)
        assert list(differences(found.regions, wanted.regions)) == []
        assert found.time_s.tolist() == wanted.time_s.tolist()
        assert len(found) == 20
        assert [report.snapshot.time_s for report in record.reports(selection)] == wanted.time_s.tolist()


def test_only_selected_frames_are_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_record(path, sampled_reports(1000, regions=30), frame_s=0.5)
    read: list[int] = []
    with open_record(path) as record:
        real = record._chain.body_and_data

        def counted(found: Found) -> tuple[memoryview, memoryview]:
            read.append(found.offset)
            return real(found)

        monkeypatch.setattr(record._chain, "body_and_data", counted)
        (rows,) = record.rows(Selection(since_s=BEGIN_S + 50, until_s=BEGIN_S + 51))
        assert len(rows) == 11
        assert len(read) <= 3


def test_conditions_are_those_of_the_reports_and_need_no_regions(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reports = full_reports(40)
    write_record(path, reports)
    some = Selection(since_s=BEGIN_S + 1.25, until_s=BEGIN_S + 3.05, targets=frozenset({7}))
    with open_record(path) as record:
        monkeypatch.setattr(record._schema, "reader", None)
        assert list(record.conditions()) == [one.snapshot.conditions for one in reports]
        assert list(record.conditions(some)) == [one.snapshot.conditions for one in reports[12:30]]


def test_mappings_of_a_time_are_those_that_were_true_then(path: Path) -> None:
    with RecordWriter(path, HEADER) as writer:
        for second in range(0, 10, 2):
            writer.add_mappings(mapping_table(BEGIN_S + second, shift=second << 12))
            writer.add_mappings(mapping_table(BEGIN_S + second, target=1, shift=(second // 8) << 12))
            writer.add(report_of(sampled_regions(np.random.default_rng(1), 3), BEGIN_S + second + 1))
    with open_record(path) as record:
        found = record.mappings(Selection(since_s=BEGIN_S + 4.5, until_s=BEGIN_S + 6.5))
        assert [(table.time_s - BEGIN_S, table.target) for table in found] == [(0, 1), (4, 0), (6, 0)]
        found = record.mappings(Selection(since_s=BEGIN_S + 4.5, targets=frozenset({1})))
        assert [(table.time_s - BEGIN_S, table.target) for table in found] == [(0, 1), (8, 1)]


def test_a_name_that_changes_is_what_it_was_then(path: Path) -> None:
    """A target that calls exec keeps its place, and is called otherwise from then on."""
    regions = sampled_regions(np.random.default_rng(1), 3)
    names = ["sh", "sh", "server", "server"]
    with RecordWriter(path, HEADER, frame_s=0.1) as writer:
        for index, name in enumerate(names):
            writer.add(report_of(regions, BEGIN_S + index, targets=(TargetInfo(7, name, 1.0),)))
    with open_record(path) as record:
        assert [snapshot.targets[0].name for snapshot in record] == names
        assert record.targets == (TargetInfo(7, "server", 1.0),)


def test_targets_that_change_places_are_refused(path: Path) -> None:
    regions = sampled_regions(np.random.default_rng(1), 3)
    with RecordWriter(path, HEADER) as writer:
        writer.add(report_of(regions, BEGIN_S, targets=(TargetInfo(7, "a"), TargetInfo(8, "b"))))
        with pytest.raises(InvalidInput, match="changed places"):
            writer.add(report_of(regions, BEGIN_S + 1, targets=(TargetInfo(8, "b"), TargetInfo(7, "a"))))


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [("nr_accesses", -1, "nr_accesses"), ("nr_accesses", 2**32, "nr_accesses"), ("target", 1, "target")],
)
def test_impossible_numbers_are_refused(path: Path, column: str, value: int, message: str) -> None:
    regions = sampled_regions(np.random.default_rng(1), 3)
    wrong = replace(regions, **{column: np.full(3, value, getattr(regions, column).dtype)})
    with RecordWriter(path, HEADER) as writer:
        writer.add(report_of(regions, BEGIN_S))
        with pytest.raises(InvalidInput, match=message):
            writer.add(report_of(wrong, BEGIN_S + 1))
    with open_record(path) as record:
        assert record.nr_snapshots == 1


def test_times_go_on_where_the_clock_is_set_back(path: Path) -> None:
    regions = sampled_regions(np.random.default_rng(1), 3)
    with RecordWriter(path, HEADER) as writer:
        for time_s in (10.0, 11.0, 11.0, 5.0, 6.0):
            writer.add(report_of(regions, BEGIN_S + time_s))
    with open_record(path) as record:
        times = [snapshot.time_s - BEGIN_S for snapshot in record]
        assert times == pytest.approx([10, 11, 11, 11.1, 12.1], abs=1e-5)
        assert sorted(set(times)) == times
        assert [event.text for event in record.events()] == [
            "the clock was set back by about 6.0 s; times of this record go on without it"
        ]


def test_a_record_without_a_snapshot(path: Path) -> None:
    with RecordWriter(path, HEADER) as writer:
        writer.add_event(Event(BEGIN_S, "the program could not be started"))
    with open_record(path) as record:
        assert [*record.rows(), *record, *record.reports()] == []
        assert record.time_span_s == (0.0, 0.0)
        assert [event.text for event in record.events()] == ["the program could not be started"]


def test_snapshots_without_a_region(path: Path) -> None:
    empty = sampled_regions(np.random.default_rng(1), 0)
    write_record(path, [report_of(empty, BEGIN_S + index) for index in range(3)])
    with open_record(path) as record:
        (rows,) = record.rows()
        assert (len(rows), len(rows.regions)) == (3, 0)
        assert [len(snapshot.regions) for snapshot in record] == [0, 0, 0]


def floats(limit: float) -> st.SearchStrategy[float]:
    return st.floats(0, limit, allow_nan=False, width=64)


@st.composite
def any_regions(draw: st.DrawFn, targets: int) -> Regions:
    count = draw(st.integers(0, 12))
    borders = sorted(draw(st.lists(st.integers(0, 2**64 - 1), min_size=2 * count, max_size=2 * count, unique=True)))

    def column(values: st.SearchStrategy[Any]) -> list[Any]:
        return draw(st.lists(values, min_size=count, max_size=count))

    return Regions(
        np.array(sorted(column(st.integers(0, targets - 1))), np.int32),
        np.array(borders[::2], np.uint64),
        np.array(borders[1::2], np.uint64),
        np.array(column(st.integers(0, 2**32 - 1) | st.integers(0, 20)), np.int64),
        np.array(column(floats(1)), np.float64),
        np.array(column(floats(1e9)), np.float64),
        np.array(column(floats(1)), np.float64),
    )


@st.composite
def any_conditions(draw: st.DrawFn) -> Conditions:
    texts, times = st.text(max_size=8), floats(1e6)
    return Conditions(
        method=draw(texts),
        why=draw(texts),
        probe=draw(texts),
        clearing=draw(texts),
        grain=draw(texts),
        sampling_interval_s=draw(times),
        aggregation_interval_s=draw(times),
        window_s=draw(times),
        agent_cpu_s=draw(times),
        unclear_share=draw(floats(1)),
        uncovered_share=draw(floats(1)),
        samples=draw(st.integers(0, 2**32 - 1) | st.integers(0, 30)),
        late_samples=draw(st.integers(0, 2**32 - 1)),
        doubts=tuple(draw(st.lists(texts, max_size=3))),
    )


@st.composite
def any_reports(draw: st.DrawFn) -> list[Report]:
    targets = tuple(TargetInfo(pid, draw(st.text(max_size=5)), float(pid), ("x",) * pid) for pid in range(3))
    count = draw(st.integers(1, 8))
    times = sorted(draw(st.lists(floats(2e9), min_size=count, max_size=count, unique=True)))
    return [
        report_of(draw(any_regions(3)), time_s, conditions=draw(any_conditions()), targets=targets) for time_s in times
    ]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(any_reports(), st.sampled_from([0.01, 1.0, 1e12]))
def test_any_report_comes_back(path: Path, reports: list[Report], frame_s: float) -> None:
    """Addresses, counts, times and conditions exactly; rates, ages and errors to the nearest float32."""
    path.unlink(missing_ok=True)
    write_record(path, reports, frame_s=frame_s)
    with open_record(path) as record:
        for mine, theirs in zip(record.reports(), reports, strict=True):
            assert set(differences(mine.snapshot.regions, theirs.snapshot.regions)) <= {
                "access_rate",
                "age_s",
                "rate_error",
            }
            for name in ("access_rate", "age_s", "rate_error"):
                found, wanted = (getattr(one.snapshot.regions, name) for one in (mine, theirs))
                np.testing.assert_allclose(found, wanted, rtol=2**-23, atol=1e-45)
            assert mine.snapshot.conditions == theirs.snapshot.conditions
            assert mine.snapshot.time_s == theirs.snapshot.time_s
            assert mine.snapshot.targets == theirs.snapshot.targets


@pytest.mark.parametrize("samples", [1, 5, 20, 999, 5000])
@pytest.mark.parametrize("interval_s", [0.1, 0.03, 1.7])
def test_what_sampling_finds_comes_back_exactly(path: Path, samples: int, interval_s: float) -> None:
    """Rates that are shares of the samples, ages that are whole windows, errors that follow from both."""
    rng = np.random.default_rng(samples)
    regions = sampled_regions(rng, 200, samples=samples)
    regions = replace(regions, age_s=rng.integers(0, 1 << 22, 200).astype(np.float64) * interval_s)
    conditions = replace(SAMPLING, samples=samples, aggregation_interval_s=interval_s)
    write_record(path, [report_of(regions, BEGIN_S, conditions=conditions)])
    with open_record(path) as record:
        (snapshot,) = record
        assert list(differences(snapshot.regions, regions)) == []
