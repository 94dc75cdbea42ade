"""What a monitor sees is what the workload does: the bars of accuracy, alone and beside other monitors."""

import json
import threading
import time
from contextlib import ExitStack

import pytest

import memtherm
from memtherm import MonitoringAttributes, Snapshot
from memtherm.views.accuracy import Accuracy, accuracy
from support.command import running
from support.requires import require
from support.workload import Workload, workload

MIB = 1 << 20
GIB = 1 << 30
SAMPLING = MonitoringAttributes(method="sampling", sampling_interval_s=0.005, aggregation_interval_s=0.1)

pytestmark = pytest.mark.system


def seen(snapshot: Snapshot, child: Workload) -> Accuracy:
    return accuracy(snapshot, hot=child.hot_ranges, within=[(child.start, child.end)], min_access_rate=0.5)


def best_within(child: Workload, attributes: MonitoringAttributes, *, seconds: float, bar: float) -> Accuracy:
    """Of the first snapshot that reaches the bar, or of the last one in time."""
    end_s = time.monotonic() + seconds
    with memtherm.monitor(pid=child.pid, attributes=attributes) as session:
        for snapshot in session.snapshots():
            found = seen(snapshot, child)
            if min(found.precision, found.recall) >= bar or time.monotonic() > end_s:
                return found
    raise AssertionError("the session ended by itself")


def test_two_stripes_of_a_gibibyte_by_sampling() -> None:
    require("root", "bpf", "cc")
    hot = [(200 * MIB, 64 * MIB), (700 * MIB, 32 * MIB)]
    with workload(size_bytes=GIB, hot=hot, period_s=0.004) as child:
        found = best_within(child, SAMPLING, seconds=10, bar=0.95)
    assert found.precision >= 0.95
    assert found.recall >= 0.95


def test_two_stripes_of_a_gibibyte_by_census() -> None:
    require("root", "bpf", "cc")
    hot = [(200 * MIB, 64 * MIB), (700 * MIB, 32 * MIB)]
    with workload(size_bytes=GIB, hot=hot, period_s=0.004) as child:
        found = best_within(child, MonitoringAttributes(method="census"), seconds=10, bar=0.99)
    assert found.precision >= 0.99
    assert found.recall >= 0.99


def stripes(number: int) -> list[tuple[int, int]]:
    """Each workload has its own hot place, so that one seen for another would be seen wrong."""
    return [((16 + 24 * number) * MIB, 16 * MIB)]


def test_monitors_of_one_process_do_not_disturb_each_other() -> None:
    require("root", "bpf", "cc")
    found: dict[int, Accuracy] = {}
    with ExitStack() as stack:
        children = [
            stack.enter_context(workload(size_bytes=128 * MIB, hot=stripes(number), period_s=0.004))
            for number in range(3)
        ]

        def watch(number: int, child: Workload) -> None:
            method = "census" if number == 2 else "sampling"
            attributes = MonitoringAttributes(method=method, sampling_interval_s=0.01, aggregation_interval_s=0.2)
            found[number] = best_within(child, attributes, seconds=10, bar=0.9)

        threads = [threading.Thread(target=watch, args=pair) for pair in enumerate(children)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(found) == 3
    for one in found.values():
        assert min(one.precision, one.recall) >= 0.9, found


def test_one_monitor_of_several_targets_sees_each_right() -> None:
    require("root", "bpf", "cc")
    with ExitStack() as stack:
        children = [
            stack.enter_context(workload(size_bytes=128 * MIB, hot=stripes(number), period_s=0.004))
            for number in range(2)
        ]
        end_s = time.monotonic() + 10
        with memtherm.monitor(pid=[child.pid for child in children], attributes=SAMPLING) as session:
            for snapshot in session.snapshots():
                found = [seen(of_target(snapshot, index), child) for index, child in enumerate(children)]
                if min(min(one.precision, one.recall) for one in found) >= 0.9:
                    return
                assert time.monotonic() < end_s, found


def of_target(snapshot: Snapshot, index: int) -> Snapshot:
    """The snapshot as if there were this target only."""
    regions = snapshot.regions.take(snapshot.regions.target == index)
    regions.target[:] = 0
    return Snapshot(snapshot.time_s, (snapshot.targets[index],), regions, snapshot.conditions)


def test_monitors_of_several_processes_do_not_disturb_each_other() -> None:
    require("root", "bpf", "cc")
    with ExitStack() as stack:
        children = [
            stack.enter_context(workload(size_bytes=128 * MIB, hot=stripes(number), period_s=0.004))
            for number in range(2)
        ]
        options = ("--json", "--method", "sampling", "--sampling", "10ms", "--aggregation", "200ms")
        commands = [stack.enter_context(running("monitor", *options, "--pid", str(child.pid))) for child in children]
        end_s = time.monotonic() + 20
        missing = dict(enumerate(children))
        while missing:
            assert time.monotonic() < end_s, missing.keys()
            for number, child in list(missing.items()):
                output = commands[number].stdout
                assert output is not None
                share = hot_share(json.loads(output.readline())["regions"], child)
                if share >= 0.9:
                    del missing[number]


def hot_share(regions: list[dict[str, float]], child: Workload) -> float:
    """The lesser of precision and recall, computed from the printed regions alone."""
    ((hot_start, hot_end),) = child.hot_ranges
    seen_bytes = both_bytes = 0.0
    for region in regions:
        start, end = max(region["start"], child.start), min(region["end"], child.end)
        if region["access_rate"] >= 0.5 and start < end:
            seen_bytes += end - start
            both_bytes += max(0, min(end, hot_end) - max(start, hot_start))
    return min(both_bytes / max(1, seen_bytes), both_bytes / child.hot_bytes)
