"""What goals and watermarks measure, beside what the host says itself."""

from pathlib import Path

import pytest

from memtherm.core.goals import Goal, GoalMetric
from memtherm.core.watermarks import WatermarkMetric
from memtherm.errors import InvalidInput, NotSupported, TargetGone
from memtherm.linux.cgroups import read_hierarchies
from memtherm.linux.facts import probe_host
from memtherm.linux.nodes import read_nodes
from memtherm.linux.pressure import Pressure, PressureLine, PressureReading
from memtherm.linux.swap import read_meminfo
from memtherm.session import metrics as module
from memtherm.session.metrics import HostMetrics, rank_metrics
from support.cgroups import counts_memory, fresh_cgroup, join
from support.children import memory_child
from support.requires import require

MIB = 1 << 20
FREE, USED = GoalMetric.FREE_MEMORY, GoalMetric.USED_MEMORY
PRESSURE = GoalMetric.MEMORY_PRESSURE


def goal(metric: GoalMetric, *, target: float = 0.5, node: int | None = None, cgroup: str = "") -> Goal:
    return Goal(metric=metric, target=target, node=node, cgroup=cgroup)


def meminfo() -> dict[str, int]:
    """Second witness: the file, in KiB."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return {line.partition(":")[0]: int(line.split()[1]) for line in lines}


def test_the_systems_memory() -> None:
    metrics = HostMetrics()
    free, used = (metrics.goal_value(goal(metric)) for metric in (FREE, USED))
    assert free == pytest.approx(meminfo()["MemFree"] / meminfo()["MemTotal"], abs=0.02)
    assert used == pytest.approx(1 - free, abs=0.02)


def test_the_lists_of_reclaim() -> None:
    metrics = HostMetrics()
    active = metrics.goal_value(goal(GoalMetric.ACTIVE_MEMORY))
    inactive = metrics.goal_value(goal(GoalMetric.INACTIVE_MEMORY))
    told = meminfo()
    assert active == pytest.approx(told["Active"] / (told["Active"] + told["Inactive"]), abs=0.02)
    assert active + inactive == pytest.approx(1, abs=0.02)


def test_a_node() -> None:
    metrics = HostMetrics()
    node = next(one for one in read_nodes() if one.total_bytes)
    free = metrics.goal_value(goal(FREE, node=node.number))
    assert free == pytest.approx(node.free_bytes / node.total_bytes, abs=0.02)
    assert metrics.goal_value(goal(USED, node=node.number)) == pytest.approx(1 - free, abs=0.02)


def test_a_node_that_this_host_does_not_have() -> None:
    for cgroup in ("", "/"):
        with pytest.raises(NotSupported, match="no memory node 999") as caught:
            HostMetrics().goal_value(goal(FREE, node=999, cgroup=cgroup))
        assert "nodes with memory: 0" in caught.value.hint


def test_watermarks_are_in_thousandths(monkeypatch: pytest.MonkeyPatch) -> None:
    free = HostMetrics().watermark_value(WatermarkMetric.FREE_MEMORY)
    assert free == pytest.approx(meminfo()["MemFree"] / meminfo()["MemTotal"], abs=0.02)
    monkeypatch.setattr(module, "read_meminfo", lambda: {"MemTotal": 3000, "MemFree": 1999})
    assert HostMetrics().watermark_value(WatermarkMetric.FREE_MEMORY) == 0.666


def test_a_cgroup() -> None:
    require("root", "cgroup")
    metrics = HostMetrics()
    with fresh_cgroup() as cgroup, memory_child() as child:
        if not counts_memory(cgroup):
            pytest.skip("the first hierarchy has no memory controller")
        join(cgroup, child.pid)
        before = metrics.goal_value(goal(USED, cgroup=cgroup.path))
        child.write(child.map(64 * MIB), 64 * MIB // 4096)
        total = read_meminfo()["MemTotal"]
        used = metrics.goal_value(goal(USED, cgroup=cgroup.path))
        # Up to 31 pages a processor wait to be put on a list.
        assert (used - before) * total == pytest.approx(64 * MIB, abs=2 * MIB)
        assert metrics.goal_value(goal(FREE, cgroup=cgroup.path)) == pytest.approx(1 - used, abs=0.001)
        assert metrics.goal_value(goal(USED, cgroup=cgroup.path, node=0)) >= used * 0.9
        child.end()
    for metric in (FREE, PRESSURE):
        with pytest.raises(TargetGone, match="no cgroup"):
            metrics.goal_value(goal(metric, cgroup=cgroup.path))


def waited(*seconds: float) -> "list[PressureReading]":
    return [PressureReading(Pressure(PressureLine(0, 0, 0, total_s), None)) for total_s in seconds]


def test_pressure_is_what_was_added_since_the_goal_was_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter(waited(100.0, 100.5, 100.5, 103.0, 103.5))
    monkeypatch.setattr(module, "read_pressure", lambda _: next(readings))
    # Equal, but of two schemes.
    first, second = goal(PRESSURE, target=0.01), goal(PRESSURE, target=0.01)
    metrics = HostMetrics()
    assert [metrics.goal_value(one) for one in (first, first, second, second, first)] == [0, 0.5, 0, 2.5, 3.0]


def test_pressure_that_counts_from_nothing_again(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter(waited(100.0, 0.25))
    monkeypatch.setattr(module, "read_pressure", lambda _: next(readings))
    metrics, one = HostMetrics(), goal(PRESSURE)
    assert [metrics.goal_value(one) for _ in range(2)] == [0, 0.25]


def test_the_systems_pressure() -> None:
    require("psi")
    metrics, one = HostMetrics(), goal(PRESSURE)
    assert metrics.goal_value(one) == 0
    assert 0 <= metrics.goal_value(one) < 60


def test_pressure_of_a_cgroup() -> None:
    require("root", "psi")
    hierarchies = [one for one in read_hierarchies() if one.version == 2]
    if not hierarchies:
        pytest.skip("no cgroup file system of version 2")
    metrics = HostMetrics()
    with fresh_cgroup(hierarchies[0]) as cgroup:
        one = goal(PRESSURE, cgroup=cgroup.directory)
        assert (metrics.goal_value(one), metrics.goal_value(one)) == (0, 0)


def test_psi_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMTHERM_WITHOUT", "psi")
    with pytest.raises(NotSupported, match="memory pressure is not measured: hidden by") as caught:
        HostMetrics().goal_value(goal(PRESSURE))
    assert caught.value.hint
    way = rank_metrics(probe_host())[0]
    assert (way.name, way.usable) == ("memory_pressure", False)
    assert way.remedy


def test_a_users_number_is_not_measured() -> None:
    with pytest.raises(InvalidInput, match="user_input"):
        HostMetrics().goal_value(goal(GoalMetric.USER_INPUT))


def test_each_metric_says_whether_it_is_there() -> None:
    ways = rank_metrics(probe_host())
    for way in ways:
        assert way.reason
        assert way.usable or way.remedy
    assert len({way.name for way in ways}) == 5
