"""Records of real processes: what was there is in them, however the recording ended."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memtherm.record.reader import Record, open_record
from support.children import memory_child
from support.command import Result, assert_refused, forked
from support.requires import require
from support.workload import Workload, workload
from system.run_scene import COLD_TEXT, MIB, OPEN_TEXT, PATIENCE_S, Agent, agent

SIZE, HOT_AT, HOT = 64 * MIB, 24 * MIB, 8 * MIB
WINDOW_S = 0.1
SHORT = ("--sampling", "10ms", "--aggregation", "100ms", "--update", "100ms")

pytestmark = pytest.mark.system


@pytest.fixture(scope="module", autouse=True)
def _needs() -> None:
    require("root", "bpf", "cc")


@pytest.fixture(scope="module")
def child() -> Iterator[Workload]:
    with workload(size_bytes=SIZE, hot=[(HOT_AT, HOT)], period_s=0.004) as one:
        yield one


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.memtherm"


def recorded(path: Path, *words: str) -> Result:
    result = forked("record", "-o", str(path), *words)
    assert result.exit_code == 0, result.stderr
    return result


def report(kind: str, path: Path, *words: str) -> dict[str, Any]:
    result = forked("report", kind, str(path), "--json", *words)
    assert result.exit_code == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def grown(recorder: Agent, path: Path, holds: Callable[[Record], bool]) -> None:
    """Wait until the record of a running recorder is as it should be."""
    deadline_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline_s:
        assert recorder.process.poll() is None, recorder.stderr
        if path.exists() and path.stat().st_size:
            with open_record(path, follow=True) as record:
                if holds(record):
                    return
        time.sleep(0.05)
    raise AssertionError(f"the record did not come so far: {recorder.stderr}")


def has_snapshots(count: int) -> Callable[[Record], bool]:
    return lambda record: record.nr_snapshots >= count


def hot_share(path: Path, child: Workload) -> tuple[float, float]:
    """Mean heat of the second half of the record within the hot range, and in the rest of the workload's memory."""
    found = report("heatmap", path, "--address", f"{child.start:#x}..{child.end:#x}", "--rows", "64")
    heat = np.array(found["heat"], np.float64)
    late = heat[:, heat.shape[1] // 2 :].mean(axis=1)
    start, end = np.array(found["row_start"]), np.array(found["row_end"])
    ((hot_start, hot_end),) = child.hot_ranges
    inside, outside = (start >= hot_start) & (end <= hot_end), (end <= hot_start) | (start >= hot_end)
    return float(late[inside].mean()), float(late[outside].mean())


@pytest.mark.parametrize("method", ["census", "sampling"])
def test_what_is_hot_is_found_in_the_record(method: str, child: Workload, path: Path) -> None:
    recorded(path, "--pid", str(child.pid), "--method", method, *SHORT, "--duration", "4s")
    hot, cold = hot_share(path, child)
    # On a busy machine the workload itself does not come to each of its turns.
    assert hot > 0.6
    assert cold < 0.1
    used = report("wss", path, "--time", "-1s..", "--min-rate", "50%")
    assert 0.9 * HOT <= used["percentiles"][0]["size_bytes"][2] < HOT + 6 * MIB
    (mapping,) = (one for one in report("mappings", path)["mappings"] if one["name"] == "anonymous")
    assert HOT / 2 < mapping["hot_bytes"] < 1.5 * HOT
    with open_record(path) as record:
        assert record.is_complete
        assert {one.method for one in record.conditions()} == {method}


def test_whole_mappings_by_smaps(child: Workload, path: Path) -> None:
    recorded(
        path, "--pid", str(child.pid), "--method", "smaps", "-n", "2", "--aggregation", "1s", "--sampling", "500ms"
    )
    with open_record(path) as record:
        snapshots = list(record)
        assert len(snapshots) == 2
        assert {one.conditions.grain for one in snapshots} == {"mapping"}
    found = report("mappings", path)
    (mapping,) = (one for one in found["mappings"] if one["name"] == "anonymous")
    assert mapping["access_rate"] > 0.4


def test_what_stands_beside_the_regions(child: Workload, path: Path) -> None:
    recorded(path, "--pid", str(child.pid), *SHORT, "--duration", "3s")
    with open_record(path) as record:
        header, (target,) = record.header, record.targets
        assert header.command[:2] == ("memtherm", "record")
        assert (header.sampling_interval_s, header.aggregation_interval_s) == (0.01, WINDOW_S)
        assert header.host["kernel"]
        assert (target.pid, target.start_time_s > 0) == (child.pid, True)
        vitals = list(record.vitals())
        (table,) = record.mappings()
    assert len(vitals) >= 2
    own = [one.targets[0] for one in vitals]
    assert abs(own[0].resident_bytes - child.rss_bytes()) < 4 * MIB
    assert own[0].proportional_bytes is not None
    assert SIZE < own[0].proportional_bytes <= own[0].resident_bytes
    assert own[-1].cpu_s > own[0].cpu_s
    assert vitals[-1].agent_cpu_s > vitals[0].agent_cpu_s > 0
    assert vitals[0].agent_resident_bytes > MIB
    assert vitals[0].free_memory_bytes > 0
    assert Path("/proc/pressure/memory").exists() == (vitals[0].pressure_some_s is not None)
    with open(f"/proc/{child.pid}/maps") as file:
        # The one of the kernel is not the program's own.
        lines = [line.split(maxsplit=5) for line in file if "[vsyscall]" not in line]
    assert [f"{start:x}-{end:x}" for start, end in zip(table.start.tolist(), table.end.tolist(), strict=True)] == [
        line[0].lstrip("0") for line in lines
    ]
    assert list(table.permissions) == [line[1] for line in lines]
    assert table.offset.tolist() == [int(line[2], 16) for line in lines]
    assert list(table.path) == [line[5].rstrip("\n") if len(line) > 5 else "" for line in lines]


def test_mappings_that_change_and_targets_that_end_are_told(path: Path) -> None:
    with memory_child() as child, agent("record", "-o", str(path), "--pid", str(child.pid), *SHORT) as recorder:
        child.fill(child.map(4 * MIB), 4 * MIB)
        grown(recorder, path, has_snapshots(10))
        new = child.map(16 * MIB)
        child.fill(new, 16 * MIB)
        grown(recorder, path, lambda record: any(new in table.start for table in list(record.mappings())[1:]))
        child.kill()
        assert recorder.process.wait(PATIENCE_S) == 0
    with open_record(path) as record:
        first, *_, last = record.mappings()
        assert new not in first.start.tolist()
        assert new in last.start.tolist()
        *_, event = record.events()
        assert str(record.targets[0].pid) in event.text
        assert record.is_complete


def test_several_targets_are_told_apart(child: Workload, path: Path) -> None:
    with memory_child() as other:
        other.fill(other.map(8 * MIB), 8 * MIB)
        recorded(path, "--pid", str(child.pid), "--pid", str(other.pid), *SHORT, "--duration", "3s")
        pids = [child.pid, other.pid]
    found = report("wss", path)
    assert [one["pid"] for one in found["record"]["targets"]] == pids
    watched = {one["target"]: one["watched_bytes"][-1] for one in found["series"]}
    assert watched[0] >= SIZE
    assert watched[1] >= 8 * MIB
    resident = np.array(found["vitals"]["resident_bytes"])
    assert resident.shape[0] == 2
    assert (resident[0] > SIZE).all()
    mine = report("heatmap", path, "--target", str(pids[1]))
    assert {one["target"] for one in mine["ranges"]} == {1}


def test_ctrl_c_closes_the_record(child: Workload, path: Path) -> None:
    with agent("record", "-o", str(path), "--pid", str(child.pid), *SHORT) as recorder:
        grown(recorder, path, has_snapshots(15))
        another = forked("record", "-o", str(path), "--pid", str(child.pid))
        assert_refused(another, 2, "is being written by another memtherm", "-o")
        assert recorder.end(signal.SIGINT) == 130
    assert f"{path}: " in recorder.stdout
    with open_record(path) as record:
        assert (record.is_complete, record.problems) == (True, ())
        assert record.nr_snapshots >= 15


def test_kill_9_leaves_a_record_that_reports_read(child: Workload, path: Path) -> None:
    with agent("record", "-o", str(path), "--pid", str(child.pid), *SHORT) as recorder:
        grown(recorder, path, has_snapshots(20))
        recorder.process.kill()
        recorder.process.wait()
    result = forked("report", "heatmap", str(path))
    assert result.exit_code == 0
    assert "the record was not closed" in result.stderr
    hot, cold = hot_share(path, child)
    assert hot > 0.3
    assert cold < 0.1 * hot


def test_one_snapshot_in_a_while_and_so_many_of_them(child: Workload, path: Path) -> None:
    words = ("--pid", str(child.pid), *SHORT, "--every", "700ms", "-n", "4", "--json")
    result = recorded(path, *words)
    (plain,) = result.json_lines()
    assert (plain["path"], plain["earlier"], plain["snapshots"]) == (str(path), [], 4)
    assert plain["size_bytes"] == path.stat().st_size
    with open_record(path) as record:
        times_s = [one.time_s for one in record]
    assert len(times_s) == 4
    # One that comes late does not shift those after it.
    assert times_s[-1] - times_s[0] >= 3 * 0.7 - 5 * WINDOW_S


def test_a_rotated_record_is_whole_in_each_of_its_files(child: Workload, path: Path) -> None:
    words = ("--pid", str(child.pid), *SHORT, "--duration", "5s", "--rotate-every", "1s", "--keep", "2", "--json")
    (plain,) = recorded(path, *words).json_lines()
    files = sorted(path.parent.glob("run-*.memtherm"))
    assert len(files) == 2
    assert plain["earlier"] == [str(one) for one in files]
    ends_s: list[float] = []
    for one in (*files, path):
        with open_record(one) as record:
            assert record.problems == ()
            assert [target.pid for target in record.targets] == [child.pid]
            assert list(record.mappings())
            begin_s, end_s = record.time_span_s
            assert end_s - begin_s < 1 + 5 * WINDOW_S
            assert not ends_s or begin_s == pytest.approx(ends_s[-1], abs=0.5 * WINDOW_S)
            ends_s.append(end_s)


def test_a_record_in_the_way_is_kept_and_a_wrong_pid_costs_none(child: Workload, path: Path) -> None:
    short = ("--pid", str(child.pid), *SHORT, "-n", "3")
    recorded(path, *short)
    first = path.read_bytes()
    for _ in range(2):
        assert_refused(forked("record", "-o", str(path), "--pid", "4000000"), 4, "4000000")
    old = path.with_name(path.name + ".old")
    assert old.read_bytes() == first
    assert "is now" not in recorded(path, *short).stderr
    assert old.read_bytes() == first
    assert "is now" in recorded(path, *short).stderr
    assert old.read_bytes() != first
    path.write_text("no record at all")
    assert_refused(forked("record", "-o", str(path), *short), 2, "is in the way")
    assert path.read_text() == "no record at all"


def test_a_program_is_started_watched_and_its_exit_status_is_ours(path: Path) -> None:
    text = "import time; b = bytearray(8 << 20); time.sleep(1.5); raise SystemExit(7)"
    result = forked("record", "-o", str(path), *SHORT, "--", sys.executable, "-c", text)
    assert result.exit_code == 7, result.stderr
    with open_record(path) as record:
        assert record.nr_snapshots > 3
        assert record.header.command[-1] == text
        assert any(str(record.targets[0].pid) in one.text for one in record.events()), list(record.events())


def test_a_run_leaves_what_its_schemes_did(child: Workload, tmp_path: Path, path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text(OPEN_TEXT + COLD_TEXT)
    words = ("run", str(policy), "--pid", str(child.pid), "-n", "8", "--json", "--record", str(path))
    with ExitStack() as stack:
        result = stack.enter_context(agent(*words))
        assert result.process.wait(PATIENCE_S) == 0
        told = result.reports()
    with open_record(path) as record:
        kept = list(record.schemes())
        assert record.header.policy == policy.read_text()
    assert [one.schemes[0].tried_bytes for one in kept] == [one["schemes"][0]["tried_bytes"] for one in told]
    (scheme,) = report("schemes", path)["schemes"]
    assert scheme["name"] == "cold"
    assert sum(scheme["tried_bytes"]) > 0
    assert any("dry run" in one["reason"] for one in scheme["refused"])


def test_what_is_no_plain_file_keeps_its_name(tmp_path: Path) -> None:
    """A record in place of /dev/null would take the device away from the whole machine."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    result = forked("record", "--pid", "1", "-n", "1", "-o", str(pipe))
    assert_refused(result, 2, "is no plain file")
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]
