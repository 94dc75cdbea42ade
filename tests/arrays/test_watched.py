"""A watched array on this machine: rates, ages, advice, schemes; and what must be told in one clear line."""

from __future__ import annotations

import asyncio
import ctypes
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import memtherm
from arrays.scene import MIB, accessing, mappings_in, table
from memtherm import AccessPattern, Action, Bounds, HostCannot, InvalidInput, NotSupported, Policy, Scheme, TargetGone
from memtherm.arrays import engine as engine_module
from memtherm.arrays.watched import WatchedArray, watch
from memtherm.core.attributes import MonitoringAttributes
from support.privileges import run_as_nobody
from support.requires import require
from support.swap import swap_on

PAGE, HUGE = 4096, 2 << 20
IDLE = AccessPattern(access_rate=Bounds(0, 0))


def after(watched: WatchedArray, windows: int) -> WatchedArray:
    """The same, some windows later."""
    for _ in watched.snapshots(windows):
        pass
    return watched


@pytest.fixture
def watched() -> Iterator[WatchedArray]:
    """16 MiB, of which 2 MiB are accessed all the time."""
    values = table()
    with accessing(values[1024:1536]), watch(values, name="table", interval_s=0.05) as found:
        yield after(found, 3)


def test_hot_rows_are_told_from_cold_ones(watched: WatchedArray) -> None:
    rates = watched.access_rate()
    assert rates.shape == (4096,)
    assert rates[1024:1536].min() > 0.7
    assert watched.rows_below(0.1).tolist() == [*range(1024), *range(1536, 4096)]
    pages = watched.access_rate(by="page")
    assert pages.shape == watched.pages.shape == (4096,)
    np.testing.assert_array_equal(pages, rates)


def test_ages_grow_where_nothing_happens(watched: WatchedArray) -> None:
    first = watched.age()
    after(watched, 2)
    assert watched.age().shape == (4096,)
    assert (watched.age()[2000:] > first[2000:]).all()
    np.testing.assert_array_equal(watched.age(by="page"), watched.age())


def test_what_it_says_about_itself(watched: WatchedArray) -> None:
    assert watched.name == "table"
    assert watched.way in ("userfaultfd", "bpf", "smaps")
    assert any(watched.way in reason for reason in watched.reasons)
    assert not watched.writes_only
    assert watched.own_bytes == 16 * MIB
    assert watched.shared_pages.tolist() == []
    assert 0 < watched.cost < 1


def test_advice_reaches_the_pages_of_the_rows_alone(watched: WatchedArray) -> None:
    outcome = watched.advise("cold", watched.rows_below(0.1))
    assert outcome.tried_bytes == 14 * MIB
    assert outcome.applied_bytes + outcome.refused_bytes == 14 * MIB
    assert outcome.applied_bytes > 0


def test_rows_that_share_pages_are_refused_with_the_reason() -> None:
    values = table(rows=8192, row_bytes=1000)
    with watch(values, interval_s=0.05) as found:
        outcome = found.advise("cold", [4])
        assert (outcome.tried_bytes, outcome.applied_bytes) == (2 * PAGE, 0)
        assert [refusal.reason for refusal in outcome.refused] == ["pages that these rows share with other memory"]


def test_cold_rows_leave_memory_and_come_back() -> None:
    require("swap")
    values = table()
    with swap_on(64 * MIB), accessing(values[:512]), watch(values, interval_s=0.05) as found:
        cold = after(found, 3).rows_below(0.1)
        outcome = found.advise("pageout", cold)
        assert outcome.applied_bytes > 0.9 * 14 * MIB
        after(found, 2)
        assert found.age()[1000:].max() < 60
        assert found.advise(Action.WILLNEED, cold).applied_bytes > 0.5 * outcome.applied_bytes
        assert (values[cold] == 1).all()


def test_ages_begin_again_where_something_was_done() -> None:
    values = table()
    with watch(values, interval_s=0.05) as found:
        after(found, 4)
        found.advise("cold", slice(0, 1024))
        after(found, 3)  # one that had ended may wait, and one be under way
        age = found.age()
        assert age[:512].max() < age[2048:].min()


def test_a_scheme_acts_on_the_idle_part_when_it_is_let() -> None:
    values = table()
    scheme = Scheme(name="rest", action=Action.COLD, pattern=IDLE, targets=("mine",))
    other = Scheme(name="not meant", action=Action.STAT, targets=("other",))
    for apply in (False, True):
        with (
            accessing(values[:1024]),
            watch(values, name="mine", interval_s=0.05, schemes=[scheme, other], apply=apply) as found,
        ):
            reports = list(found.reports(5))
            mine, theirs = reports[-1].schemes
            assert theirs.matched_bytes == 0
            assert mine.total.tried_bytes > 0
            assert (mine.total.applied_bytes > 0) == apply
            found.replace_schemes([Scheme(name="rest", action=Action.STAT)])
            after(found, 1)


def test_a_policy_gives_schemes_and_intervals() -> None:
    attributes = MonitoringAttributes(sampling_interval_s=0.02, aggregation_interval_s=0.08)
    policy = Policy(schemes=(Scheme(name="count", action=Action.STAT),), attributes=attributes)
    values = table()
    with watch(values, policy=policy) as found:
        report = next(found.reports())
        assert report.snapshot.conditions.samples == 4
        assert report.schemes[0].matched_bytes == 16 * MIB
        assert report.snapshot.targets[0].name == found.name == "uint8[4096, 4096]"


def test_what_watching_changed_is_undone() -> None:
    values = table()
    before = mappings_in(values.ctypes.data, values.ctypes.data + values.nbytes)
    with watch(values, way="smaps", interval_s=0.05) as found:
        start, end = found.range
        assert found.changes
        assert len(mappings_in(start, end)) > len(before)
    assert mappings_in(start, end) == before


def test_views_are_watched_by_their_own_rows() -> None:
    values = table()
    view = values[1000:3000:2, ::-1]
    with accessing(values[2000:2400]), watch(view, interval_s=0.05) as found:
        rates = after(found, 3).access_rate()
        assert rates.shape == (1000,)
        assert rates[500:700].min() > 0.7
        assert rates[:499].max() < 0.1
        assert found.advise("cold", slice(0, 100)).tried_bytes > 0
        assert found.own_bytes == 1000 * PAGE


def test_two_watches_on_one_memory() -> None:
    values = table()
    with watch(values[:2048], name="first", interval_s=0.05) as first:
        with pytest.raises(InvalidInput, match='"second" lies on memory that "first" watches already'):
            watch(values[1000:], name="second").start()
        with watch(values[2048:], name="third", interval_s=0.05) as third:
            after(first, 1)
            after(third, 1)
    with watch(values, name="second", interval_s=0.05) as second:
        after(second, 1)


def test_a_watch_begins_once_and_keeps_its_results() -> None:
    values = table()
    found = watch(values, name="table", interval_s=0.05)
    for ask in (found.access_rate, found.snapshots().__next__, lambda: found.advise("cold")):
        with pytest.raises(InvalidInput, match='"table" is not watched yet'):
            ask()
    assert np.isnan(found.cost)
    with found:
        after(found, 1)
        assert found.start() is found
    found.close()
    assert len(found.access_rate()) == 4096
    with pytest.raises(TargetGone, match="not watched any more"):
        found.advise("cold")
    with pytest.raises(InvalidInput, match="not watched any more"):
        found.start()


def test_a_watch_that_ends_before_its_first_window() -> None:
    values = table()
    with watch(values, interval_s=60) as found:
        threading.Timer(0.1, found.close).start()
        with pytest.raises(TargetGone, match="no window had ended"):
            found.access_rate()


def test_an_error_of_the_watching_thread_is_raised_in_the_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> Any:
        raise RuntimeError("the probe broke")

    values = table()
    found = watch(values, interval_s=0.05)
    monkeypatch.setattr("memtherm.arrays.held.ArrayCensus.look", fail)
    with found, pytest.raises(RuntimeError, match="the probe broke"):
        found.access_rate()
    assert found.events[-1].endswith("is not watched any more")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"way": "telepathy"}, "'telepathy' is no way to watch an array"),
        ({"interval_s": 0}, "an interval of 0"),
        ({"interval_s": float("nan")}, "an interval of nan"),
        ({"interval_s": "1s"}, "an interval of '1s'"),
        ({"interval_s": 1e-6}, "leaves the watch no rest"),
        ({"policy": "policy.toml"}, "is not a policy"),
        ({"schemes": "abc"}, "'abc' is no list of schemes"),
        ({"schemes": None}, "None is no list of schemes"),
        ({"policy": Policy(attributes=MonitoringAttributes(method="sampling"))}, "method sampling for an array"),
        ({"schemes": [Scheme(action=Action.PAGEOUT)], "apply": True}, "acts on hot memory"),
        (
            {"schemes": [Scheme(action=Action.PAGEOUT, pattern=IDLE)], "way": "userfaultfd-writes"},
            "sees writes only",
        ),
    ],
)
def test_bad_input_is_told_before_anything_begins(arguments: dict[str, Any], words: str) -> None:
    values = np.zeros(1 << 20)
    with pytest.raises(InvalidInput, match=words) as found:
        watch(values, **arguments)
    assert found.value.hint
    assert "\n" not in str(found.value)


def test_bad_questions(watched: WatchedArray) -> None:
    for ask, words in (
        (lambda: watched.access_rate(by="column"), "by 'column'"),
        (lambda: watched.rows_below(1.5), "an access rate of 1.5"),
        (lambda: watched.rows_below("a"), "an access rate of 'a'"),  # type: ignore[arg-type]
        (lambda: watched.advise("forget"), "'forget' is no action"),
        (lambda: watched.advise("cold", [4096]), "an array that has 4096"),
        (lambda: watched.advise("migrate_hot"), "migrate_hot without a node"),
        (lambda: watched.advise("cold", node=0), "cold with a node"),
    ):
        with pytest.raises(InvalidInput, match=words):
            ask()
    with pytest.raises(NotSupported):
        watched.advise("lru_prio")
    with pytest.raises(NotSupported, match="stat only counts"):
        watched.advise("stat")


def test_where_no_way_works_that_is_one_clear_error_and_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object, **__: object) -> Any:
        raise NotSupported("no way to see accesses works here: this and that", hint="another kernel")

    values = table()
    found = watch(values, name="table")
    with monkeypatch.context() as patch:
        patch.setattr(engine_module, "open_own_probe", none)
        with pytest.raises(NotSupported, match="this and that"):
            found.start()
    with watch(values, name="again", interval_s=0.05) as again:
        after(again, 1)


class At:
    """Memory that is nobody's object."""

    def __init__(self, address: int, pages: int) -> None:
        self.__array_interface__ = {"version": 3, "shape": (pages, 4096), "typestr": "|u1", "data": (address, False)}


def test_memory_that_is_not_mapped_is_told() -> None:
    nowhere = At(1 << 30, 64)
    found = watch(nowhere, name="nowhere")
    with pytest.raises(InvalidInput, match='nothing is mapped at 256 KiB of "nowhere"'):
        found.start()


def test_memory_that_is_unmapped_while_it_is_watched_ends_the_watch() -> None:
    library = ctypes.CDLL(None)
    library.mmap.restype = ctypes.c_void_p
    size = ctypes.c_size_t(64 * 4096)
    address = library.mmap(None, size, 3, 0x22, -1, ctypes.c_long(0))
    ctypes.memset(address, 1, size.value)
    nobodys = At(address, 64)
    with watch(nobodys, name="nobody's", interval_s=0.05) as found:
        after(found, 1)
        library.munmap(ctypes.c_void_p(address), size)
        list(found.snapshots())
    assert "nothing is left of its memory" in found.events[-1]


def test_a_task_that_is_cancelled_while_its_watch_begins_leaves_none() -> None:
    values = table()

    async def use() -> None:
        async with watch(values, name="cancelled", interval_s=0.05):
            raise AssertionError

    async def cancel() -> None:
        task = asyncio.create_task(use())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        # Ends with the thread that begins the watch.
        await asyncio.get_running_loop().shutdown_default_executor()
        await asyncio.sleep(0)

    asyncio.run(cancel())
    with watch(values, name="again", interval_s=0.05) as again:
        after(again, 1)


def test_a_program_on_asyncio_goes_on_meanwhile() -> None:
    async def use() -> tuple[int, int]:
        values, ticks, seen = table(), 0, 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0.01)

        ticking = asyncio.create_task(tick())
        async with watch(values, interval_s=0.05) as found:
            async for snapshot in found.async_snapshots(limit=3):
                seen += snapshot.conditions.samples > 0
        ticking.cancel()
        return ticks, seen

    ticks, seen = asyncio.run(use())
    assert seen == 3
    assert ticks > 20


def test_a_task_that_reads_can_be_cancelled_and_ends_with_the_watch() -> None:
    async def use() -> tuple[float, int]:
        values = table()
        found = watch(values, interval_s=30).start()
        began_s = time.monotonic()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(found.async_snapshots()), 0.1)
        reader = asyncio.create_task(anext(found.async_snapshots(), None))
        await asyncio.sleep(0)
        await asyncio.to_thread(found.close)
        assert await reader is None
        return time.monotonic() - began_s, len(found._begun().session._listeners)

    took_s, listeners = asyncio.run(use())
    assert took_s < 10
    assert listeners == 1  # the watch itself


def test_a_reader_whose_event_loop_is_closed_disturbs_nobody() -> None:
    values = table()
    with watch(values, interval_s=0.05) as found:

        async def begin() -> object:
            snapshots = found.async_snapshots()
            await anext(snapshots)
            return snapshots

        loop = asyncio.new_event_loop()
        kept = loop.run_until_complete(begin())
        loop.close()
        after(found, 2)
        assert kept is not None


def test_an_ordinary_user_watches_and_advises() -> None:
    require("root")

    def use() -> tuple[str, bool, bool, int]:
        values = table()
        with watch(values, interval_s=0.1) as found:
            for _ in found.snapshots(3):
                values[:512] += 1
            rates = found.access_rate()
            outcome = found.advise("nohugepage", slice(1024, 4096))
            return found.way, bool(rates[:512].min() > 0), bool(rates[512:].max() > 0), outcome.applied_bytes

    way, is_hot, is_cold_hot, _ = run_as_nobody(use)
    assert way in ("userfaultfd", "smaps")
    assert (is_hot, is_cold_hot) == (True, False)


def test_the_public_names_are_there() -> None:
    assert memtherm.watch is watch
    assert memtherm.WatchedArray is WatchedArray
    assert memtherm.allocate((3, PAGE), "u1").shape == (3, PAGE)


@pytest.mark.parametrize("action", ["hugepage", "collapse"])
def test_what_one_watch_left_is_no_wish_of_the_program_for_the_next(action: str) -> None:
    """No advice can be taken away: after `hugepage` the memory keeps one that comes nearest to none."""
    require("thp")
    array = memtherm.allocate((4 * 2**20,), "uint8")
    array[:] = 1
    for _ in range(2):
        with watch(array, interval_s=0.5) as watched:
            assert watched.advise("hugepage").applied_bytes == array.nbytes
    with watch(array, interval_s=0.5) as watched:
        outcome = watched.advise(action)
        assert not any("asked for" in one.reason for one in outcome.refused)
    asked = memtherm.allocate((4 * 2**20,), "uint8", huge_pages=False)
    asked[:] = 1
    with watch(asked, interval_s=0.5) as watched:
        (refused,) = watched.advise(action).refused
        assert "asked for no huge pages" in refused.reason


def test_a_kernel_without_any_way_is_told_once_with_each_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMTHERM_WITHOUT", "bpf,userfaultfd,page_monitor,soft_dirty")
    array = memtherm.allocate((2**20,), "uint8")
    with pytest.raises(HostCannot, match="no way to see accesses to own memory works here") as raised:
        watch(array).start()
    assert all(name in str(raised.value) for name in ("userfaultfd", "bpf", "smaps"))
    assert "\n" not in str(raised.value)
