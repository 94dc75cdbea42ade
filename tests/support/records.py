"""Reports for tests of records: small made-up ones, random ones, and those that the golden files hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np

from memtherm.core.history import Event, MappingTable, TargetVitals, Vitals
from memtherm.core.plan import Refusal
from memtherm.core.report import QuotaReport, Report, SchemeReport
from memtherm.core.scheme import Action, SchemeStatistics
from memtherm.core.snapshot import Conditions, Regions, Snapshot, TargetInfo, rate_error
from memtherm.record.header import RecordHeader
from memtherm.record.writer import RecordWriter

BEGIN_S = 1_700_000_000.0
HEADER = RecordHeader(
    memtherm_version="0.1.0",
    created_s=BEGIN_S,
    command=("memtherm", "record", "--", "./server", "höß"),
    host={"kernel": "Linux 6.12.0 x86_64", "memory": "16 GiB"},
    policy='[[scheme]]\nname = "café"\n',
    sampling_interval_s=0.005,
    aggregation_interval_s=0.1,
)
SAMPLING = Conditions(
    method="sampling",
    why="the census would cost more than 1 % of a CPU",
    probe="bpf",
    clearing="cold",
    grain="page",
    sampling_interval_s=0.005,
    aggregation_interval_s=0.1,
    samples=20,
    window_s=0.1,
    agent_cpu_s=0.000731,
)
TARGETS = (TargetInfo(1234, "server", 17.25, ("main", "all")), TargetInfo(1300, "wörker", 99.5))


def sampled_regions(rng: np.random.Generator, count: int, *, targets: int = 1, samples: int = 20) -> Regions:
    """Regions as sampling finds them: their borders, counts and ages are drawn anew."""
    target = np.sort(rng.integers(0, targets, count)).astype(np.int32)
    pages = np.sort(rng.choice(1 << 22, 2 * count, replace=False)).reshape(-1, 2).astype(np.uint64)
    nr_accesses = rng.integers(0, samples + 1, count)
    rate = nr_accesses / samples
    base = np.uint64(0x7F00_0000_0000)
    return Regions(
        target=target,
        start=base + pages[:, 0] * np.uint64(4096),
        end=base + pages[:, 1] * np.uint64(4096),
        nr_accesses=nr_accesses,
        access_rate=rate,
        age_s=rng.integers(0, 5000, count).astype(np.float64) * 0.1,
        rate_error=rate_error(rate, samples),
    )


def report_of(
    regions: Regions,
    time_s: float,
    *,
    conditions: Conditions = SAMPLING,
    targets: tuple[TargetInfo, ...] = TARGETS[:1],
    schemes: tuple[SchemeReport, ...] = (),
    events: tuple[str, ...] = (),
) -> Report:
    return Report(Snapshot(time_s, targets, regions, conditions), schemes, events)


def sampled_reports(count: int, *, regions: int = 20, seed: int = 1, begin_s: float = BEGIN_S) -> list[Report]:
    """Windows of 0.1 s, one after the other."""
    rng = np.random.default_rng(seed)
    return [report_of(sampled_regions(rng, regions), begin_s + 0.1 * (index + 1)) for index in range(count)]


def scheme_report(window: int, *, action: Action = Action.PAGEOUT) -> SchemeReport:
    """What a scheme may have done in a window."""
    return SchemeReport(
        name="cold ✓",
        action=action,
        matched_bytes=window << 20,
        tried_bytes=window << 19,
        applied_bytes=window << 18,
        refused=(Refusal("shared with others", window << 12), Refusal("a dry run", 4096)) if window % 2 else (),
        total=SchemeStatistics(nr_tried=window, tried_bytes=window << 20, nr_snapshots=window),
        filtered_bytes=8192,
        is_active=window % 3 != 0,
        state="" if window % 2 else "the quota is used up",
        quota=QuotaReport(2**64 - 1, window << 19, 0.75 if window % 2 else None),
        free_memory=0.42 if window % 2 else None,
    )


def mapping_table(time_s: float, *, target: int = 0, count: int = 5, shift: int = 0) -> MappingTable:
    """Mappings of a file, with a name that is no UTF-8 among them."""
    start = np.arange(count, dtype=np.uint64) * np.uint64(1 << 21) + np.uint64(0x5500_0000_0000 + shift)
    names = ("/usr/bin/server", "", "[heap]", "/data/b\udcffuffer.dat", "[stack]")
    return MappingTable(
        time_s,
        target,
        start,
        start + np.uint64(1 << 20),
        np.arange(count, dtype=np.uint64) * np.uint64(4096),
        tuple(("r-xp", "rw-p")[index % 2] for index in range(count)),
        tuple(names[index % len(names)] for index in range(count)),
    )


def vitals_at(time_s: float) -> Vitals:
    return Vitals(
        time_s=time_s,
        targets=(TargetVitals(target=0, resident_bytes=5 << 20, swap_bytes=4096, proportional_bytes=None, cpu_s=1.25),),
        agent_cpu_s=0.5,
        agent_resident_bytes=40 << 20,
        free_memory_bytes=8 << 30,
        pressure_some_s=0.125,
        pressure_full_s=None,
    )


def write_record(path: Path, reports: Sequence[Report], *, frame_s: float = 0.25, is_full: bool = False) -> None:
    """A closed record; with something in each kind of frame where `is_full`."""
    with RecordWriter(path, HEADER, frame_s=frame_s) as writer:
        for index, report in enumerate(reports):
            if is_full:
                time_s = report.snapshot.time_s
                writer.add_mappings(mapping_table(time_s, shift=index // 4 << 12))
                writer.add_vitals(vitals_at(time_s))
                if index % 5 == 4:
                    writer.add_event(Event(time_s, f"event {index}"))
            writer.add(report)


def full_reports(count: int = 12, *, regions: int = 6) -> list[Report]:
    """With schemes, events, a second target that comes later, and texts that change."""
    rng = np.random.default_rng(7)
    reports = []
    for index in range(count):
        targets = TARGETS[: 1 + (index >= count // 2)]
        doubts = ("3 looks came late",) if index % 4 == 3 else ()
        conditions = Conditions(**{**vars(SAMPLING), "doubts": doubts, "late_samples": index})
        reports.append(
            report_of(
                sampled_regions(rng, regions, targets=len(targets)),
                BEGIN_S + 0.1 * (index + 1),
                conditions=conditions,
                targets=targets,
                schemes=(scheme_report(index), scheme_report(index, action=Action.STAT)) if index % 3 else (),
                events=("wörker was started", "it is watched") if index == count // 2 else (),
            )
        )
    return reports


def differences(one: Regions, other: Regions) -> Iterator[str]:
    """The columns of two tables of regions that differ in a value or in type."""
    for field in fields(Regions):
        mine, theirs = getattr(one, field.name), getattr(other, field.name)
        if mine.dtype != theirs.dtype or not np.array_equal(mine, theirs):
            yield field.name


def assert_same(one: Report, other: Report) -> None:
    """Two reports are equal in all that a record holds."""
    assert list(differences(one.snapshot.regions, other.snapshot.regions)) == []
    assert one.snapshot.conditions == other.snapshot.conditions
    assert (one.snapshot.time_s, one.snapshot.targets) == (other.snapshot.time_s, other.snapshot.targets)
    assert (one.schemes, one.events) == (other.schemes, other.events)
