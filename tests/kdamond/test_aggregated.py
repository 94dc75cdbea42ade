"""Trace records → windows: whole ones only, whatever was lost, mixed or cut."""

from dataclasses import dataclass
from itertools import chain, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from memtherm.errors import NotSupported
from memtherm.kdamond import aggregated
from memtherm.kdamond.aggregated import AggregatedStream, KernelWindow, WindowAssembler
from memtherm.linux.tracefs import Loss, TraceEvents

NAMES = {"common_pid": "i4", "target_id": "u8", "nr_regions": "u4", "start": "u8", "end": "u8", "nr_accesses": "u4"}
WITHOUT_AGE = np.dtype(list(NAMES.items()))
RECORD = np.dtype([*NAMES.items(), ("age", "u4")])
OURS, FOREIGN = 77, 99
MS = 1_000_000
WINDOW_NS = 100 * MS
POINTERS = (0xFFFF888000010000, 0, 0)

Row = tuple[int, int, int, int, int]  # target, start, end, nr_accesses, age


@dataclass(frozen=True)
class Emitted:
    """One record as the kernel wrote it."""

    time_ns: int
    cpu: int
    pid: int
    target_id: int
    nr_regions: int
    row: Row


def emitted_window(
    rows: list[Row], *, time_ns: int, pid: int = OURS, cpus: tuple[int, ...] = (0,), ids: tuple[int, ...] = (0, 1, 2)
) -> list[Emitted]:
    """The records of one window; the kdamond moves from one of `cpus` to the next on its way."""
    count = {target: sum(row[0] == target for row in rows) for target in {row[0] for row in rows}}
    return [
        Emitted(
            time_ns + index * 300,
            cpus[index * len(cpus) // len(rows)],
            pid,
            ids[row[0]],
            count[row[0]],
            row,
        )
        for index, row in enumerate(rows)
    ]


def records_of(emitted: list[Emitted], dtype: np.dtype[np.void] = RECORD) -> NDArray[np.void]:
    records = np.zeros(len(emitted), dtype)
    for name, column in {
        "common_pid": [item.pid for item in emitted],
        "target_id": [item.target_id for item in emitted],
        "nr_regions": [item.nr_regions for item in emitted],
        "start": [item.row[1] for item in emitted],
        "end": [item.row[2] for item in emitted],
        "nr_accesses": [item.row[3] for item in emitted],
        "age": [item.row[4] for item in emitted],
    }.items():
        if name in (dtype.names or ()):
            records[name] = column
    return records


def batch(
    emitted: list[Emitted], *, until_ns: int, losses: tuple[Loss, ...] = (), dtype: np.dtype[np.void] = RECORD
) -> TraceEvents:
    return TraceEvents(
        np.array([item.time_ns for item in emitted], np.int64),
        np.array([item.cpu for item in emitted], np.int32),
        records_of(emitted, dtype),
        losses,
        until_ns,
    )


def rows_of(window: KernelWindow) -> list[Row]:
    regions = window.regions
    columns = (regions.target, regions.start, regions.end, regions.nr_accesses, regions.age_windows)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def simple_rows(*, targets: int = 1, regions: int = 3, seed: int = 0) -> list[Row]:
    return [
        (target, 4096 * (region * 10 + target), 4096 * (region * 10 + 9), seed + region, region)
        for target in range(targets)
        for region in range(regions)
    ]


def test_a_window_is_given_when_its_last_record_has_come() -> None:
    rows = [simple_rows(seed=seed) for seed in range(3)]
    emitted = [emitted_window(rows[index], time_ns=(index + 1) * WINDOW_NS) for index in range(3)]
    assembler = WindowAssembler(kdamond_pid=OURS)
    first = assembler.feed(batch(emitted[0] + emitted[1][:1], until_ns=2 * WINDOW_NS + 1))
    assert [rows_of(window) for window in first] == [rows[0]]
    assert first[0].time_ns == emitted[0][-1].time_ns
    assert assembler.feed(batch(emitted[1][1:2], until_ns=2 * WINDOW_NS + 400)) == []
    # No quiet time is needed once a beginning has been seen.
    second = assembler.feed(batch(emitted[1][2:], until_ns=emitted[1][2].time_ns + 1))
    assert [rows_of(window) for window in second] == [rows[1]]
    assert assembler.dropped_windows == 0


def test_the_first_window_waits_until_it_is_clear_that_it_is_one() -> None:
    emitted = emitted_window(simple_rows(), time_ns=WINDOW_NS)
    assembler = WindowAssembler(kdamond_pid=OURS)
    assert assembler.feed(batch(emitted, until_ns=emitted[-1].time_ns + 1)) == []
    assert len(assembler.feed(batch([], until_ns=emitted[-1].time_ns + 30 * MS))) == 1


def test_listening_begins_in_the_middle_of_a_window() -> None:
    rows = [simple_rows(seed=seed) for seed in range(3)]
    emitted = [emitted_window(rows[index], time_ns=(index + 1) * WINDOW_NS) for index in range(3)]
    assembler = WindowAssembler(kdamond_pid=OURS)
    found = assembler.feed(batch(emitted[0][1:] + emitted[1] + emitted[2], until_ns=4 * WINDOW_NS))
    assert [rows_of(window) for window in found] == rows[1:]
    assert assembler.dropped_windows == 1


def test_the_end_of_one_and_the_beginning_of_another_are_no_window() -> None:
    """Even where the addresses have moved up in between, so that they look like one."""
    low = [(0, 0x1000, 0x2000, 1, 0), (0, 0x2000, 0x3000, 2, 0), (0, 0x3000, 0x4000, 3, 0)]
    high = [(0, 0x11000, 0x12000, 4, 0), (0, 0x12000, 0x13000, 5, 0), (0, 0x13000, 0x14000, 6, 0)]
    emitted = emitted_window(low, time_ns=WINDOW_NS)[2:] + emitted_window(high, time_ns=2 * WINDOW_NS)
    assembler = WindowAssembler(kdamond_pid=OURS)
    last = emitted_window(low, time_ns=3 * WINDOW_NS)
    found = assembler.feed(batch(emitted + last, until_ns=4 * WINDOW_NS))
    assert [rows_of(window) for window in found] == [low]
    assert assembler.dropped_windows >= 1


def test_several_targets_are_one_window() -> None:
    rows = [simple_rows(targets=3, seed=seed) for seed in range(2)]
    emitted = [emitted_window(rows[index], time_ns=(index + 1) * WINDOW_NS) for index in range(2)]
    assembler = WindowAssembler(kdamond_pid=OURS, nr_targets=3)
    found = assembler.feed(batch(emitted[0] + emitted[1][:5], until_ns=2 * WINDOW_NS + 1500))
    assert [rows_of(window) for window in found] == rows[:1]
    found = assembler.feed(batch(emitted[1][5:], until_ns=2 * WINDOW_NS + 2701))
    assert [rows_of(window) for window in found] == rows[1:]


def test_a_target_without_regions_is_silent() -> None:
    rows = [row for row in simple_rows(targets=3) if row[0] != 1]
    emitted = emitted_window(rows, time_ns=WINDOW_NS) + emitted_window(rows, time_ns=2 * WINDOW_NS)
    assembler = WindowAssembler(kdamond_pid=OURS, nr_targets=3)
    # The first might lack what came before we listened.
    found = assembler.feed(batch(emitted, until_ns=3 * WINDOW_NS))
    assert [rows_of(window) for window in found] == [rows]
    assert assembler.dropped_windows == 1


def test_more_targets_than_told_are_dropped_not_given_in_parts() -> None:
    emitted = [
        item for index in range(3) for item in emitted_window(simple_rows(targets=2), time_ns=(index + 1) * WINDOW_NS)
    ]
    assembler = WindowAssembler(kdamond_pid=OURS, nr_targets=1)
    found = assembler.feed(batch(emitted, until_ns=4 * WINDOW_NS))
    assert all({row[0] for row in rows_of(window)} == {0} for window in found)
    assert assembler.dropped_windows == 3


def test_kernels_without_age_and_with_pointers() -> None:
    rows = simple_rows()
    emitted = emitted_window(rows, time_ns=WINDOW_NS, ids=POINTERS)
    assembler = WindowAssembler(kdamond_pid=OURS, address_unit=4)
    (window,) = assembler.feed(batch(emitted, until_ns=2 * WINDOW_NS, dtype=WITHOUT_AGE))
    assert rows_of(window) == [(target, 4 * start, 4 * end, hits, 0) for target, start, end, hits, _ in rows]
    with pytest.raises(NotSupported, match="number the targets"):
        WindowAssembler(kdamond_pid=OURS, nr_targets=2).feed(batch(emitted, until_ns=2 * WINDOW_NS))


def test_only_one_kdamond_counts() -> None:
    ours, theirs = simple_rows(seed=1), simple_rows(seed=50, regions=5)
    mixed = sorted(
        emitted_window(ours, time_ns=WINDOW_NS)
        + emitted_window(theirs, time_ns=WINDOW_NS + 100, pid=FOREIGN, cpus=(1,)),
        key=lambda item: item.time_ns,
    )
    for pid, rows in ((OURS, ours), (FOREIGN, theirs)):
        (window,) = WindowAssembler(kdamond_pid=pid).feed(batch(mixed, until_ns=2 * WINDOW_NS))
        assert rows_of(window) == rows


def test_absolute_units() -> None:
    emitted = emitted_window([(0, 0, 4096, 5, 7), (0, 4096, 8192, 30, 1)], time_ns=WINDOW_NS)
    (window,) = WindowAssembler(kdamond_pid=OURS).feed(batch(emitted, until_ns=2 * WINDOW_NS))
    regions = window.regions.in_absolute_units(samples=20, aggregation_interval_s=0.1)
    # More hits than samples, as after a change of intervals, are no rate above 1.
    assert regions.access_rate.tolist() == [0.25, 1.0]
    assert regions.age_s.tolist() == pytest.approx([0.7, 0.1])
    assert (regions.rate_error > 0).all()


@dataclass(frozen=True)
class Scene:
    """What the kernel emitted, and when it was read.

    Attributes:
        may_move: a target may lie above where it was a window before, so that the two look like one.
    """

    windows: list[list[Row]]
    emitted: list[Emitted]
    polls_ns: list[int]
    may_move: bool


@st.composite
def scenes(draw: st.DrawFn) -> Scene:
    nr_targets, may_move = draw(st.integers(1, 3)), draw(st.booleans())
    windows, emitted = [], []
    for index in range(draw(st.integers(1, 5))):
        rows = []
        for target in range(nr_targets):
            edges = sorted(draw(st.sets(st.integers(0, 40), min_size=2, max_size=5)) | (set() if may_move else {0}))
            rows += [
                (target, 4096 * start, 4096 * end, draw(st.integers(0, 20)), draw(st.integers(0, 9)))
                for start, end in pairwise(edges)
            ]
        cpus = tuple(draw(st.lists(st.integers(0, 2), min_size=1, max_size=3)))
        windows.append(rows)
        emitted += emitted_window(rows, time_ns=(index + 1) * WINDOW_NS, cpus=cpus)
        if draw(st.booleans()):
            time_ns = (index + 1) * WINDOW_NS + draw(st.integers(1, 299))
            emitted += emitted_window(rows, time_ns=time_ns, pid=FOREIGN, cpus=(draw(st.integers(0, 2)),))
    emitted.sort(key=lambda item: item.time_ns)
    marks = [item.time_ns + 1 for item in emitted]
    polls = draw(st.lists(st.sampled_from(marks), max_size=8))
    return Scene(windows, emitted, [*sorted(polls), marks[-1] + WINDOW_NS], may_move)


def lose(data: st.DataObject, scene: Scene) -> tuple[set[int], list[tuple[int, Loss]]]:
    """Between two polls, each processor may lose some records in a row, never the newest.

    Returns the places of lost records, and each Loss with the number of the poll that tells it.
    """
    lost: set[int] = set()
    losses = []
    begin_ns = 0
    for number, end_ns in enumerate(scene.polls_ns):
        for cpu in range(3):
            before = [item for place, item in enumerate(scene.emitted) if item.cpu == cpu and item.time_ns < begin_ns]
            unread = [
                place
                for place, item in enumerate(scene.emitted)
                if item.cpu == cpu and begin_ns <= item.time_ns < end_ns
            ]
            count = data.draw(st.integers(0, max(len(unread) - 1, 0)))
            if count:
                # The page that was being read last time survives.
                first = data.draw(st.integers(0, len(unread) - 1 - count))
                lost |= set(unread[first : first + count])
                earlier = [
                    *(item.time_ns for item in before[-1:]),
                    *(scene.emitted[place].time_ns for place in unread[:first]),
                ]
                losses.append(
                    (
                        number,
                        Loss(cpu, earlier[-1] if earlier else 0, scene.emitted[unread[first + count]].time_ns, count),
                    )
                )
        begin_ns = end_ns
    return lost, losses


@settings(max_examples=60, deadline=None)
@given(st.data(), scenes(), st.booleans())
def test_no_mixture_and_no_loss_ever_gives_a_wrong_window(data: st.DataObject, scene: Scene, is_lossy: bool) -> None:
    lost, losses = lose(data, scene) if is_lossy else (set[int](), [])
    # Listening may also begin in the middle.
    unseen = data.draw(st.integers(0, 4))
    nr_targets = len({row[0] for row in scene.windows[0]})
    assembler = WindowAssembler(kdamond_pid=OURS, nr_targets=nr_targets)
    found: list[KernelWindow] = []
    begin_ns = 0
    for number, end_ns in enumerate(scene.polls_ns):
        seen = [
            item
            for place, item in enumerate(scene.emitted)
            if place not in lost and place >= unseen and begin_ns <= item.time_ns < end_ns
        ]
        told = tuple(loss for poll, loss in losses if poll == number)
        found += assembler.feed(batch(seen, until_ns=end_ns, losses=told))
        begin_ns = end_ns
    given = {window.time_ns // WINDOW_NS: rows_of(window) for window in found}
    assert len(given) == len(found)
    assert list(given) == sorted(given)
    for number, rows in given.items():
        assert rows == scene.windows[number - 1]
    if not is_lossy and not scene.may_move:
        cut = {item.time_ns // WINDOW_NS for item in scene.emitted[:unseen] if item.pid == OURS}
        assert list(given) == [number for number in range(1, len(scene.windows) + 1) if number not in cut]
    assert len(found) + assembler.dropped_windows <= len(scene.windows)


class OverwrittenStream:
    """Instead of an EventStream: gives batches, and knows how many events were lost when each is read."""

    def __init__(self, batches: list[tuple[TraceEvents, int]]) -> None:
        self._batches = batches
        self._lost = 0

    def read(self) -> TraceEvents:
        events, self._lost = self._batches.pop(0)
        return events

    def lost_events(self) -> int:
        return self._lost

    def close(self) -> None:
        pass


def test_windows_of_which_nothing_is_left_are_counted_too(monkeypatch: pytest.MonkeyPatch) -> None:
    windows = [emitted_window(simple_rows(seed=seed), time_ns=(seed + 1) * WINDOW_NS) for seed in range(40)]
    before, after = windows[:5], windows[35:]
    loss = Loss(0, before[-1][-1].time_ns, after[0][0].time_ns, 90)
    batches = [
        (batch(list(chain(*before)), until_ns=5 * WINDOW_NS + 50 * MS), 0),
        (batch(list(chain(*after)), until_ns=41 * WINDOW_NS, losses=(loss,)), 90),
    ]
    monkeypatch.setattr(aggregated, "EventStream", lambda *_, **__: OverwrittenStream(batches))
    with AggregatedStream(kdamond_pid=OURS) as stream:
        assert len(stream.read()) == 5
        assert stream.windows.dropped_windows == 0
        assert len(stream.read()) == 5
        assert (stream.lost_events, stream.windows.dropped_windows) == (90, 30)
