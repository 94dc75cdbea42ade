"""What goes wrong in the middle of a run: it is told, nothing is done by mistake, and the target runs on unharmed."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from memtherm.act.apply import TargetActor
from memtherm.core.plan import Outcome
from memtherm.core.ranges import Counts
from memtherm.linux.cgroups import read_hierarchies
from memtherm.linux.nodes import read_nodes
from support.cgroups import fresh_cgroup, join
from support.children import Child, memory_child
from support.command import memtherm
from support.requires import require
from support.swap import swap_on
from support.workload import workload
from system.run_scene import (
    COLD_TEXT,
    GUARD_TEXT,
    MIB,
    MONITOR_TEXT,
    OPEN_TEXT,
    PAGE,
    PATIENCE_S,
    Agent,
    acting,
    agent,
    applied_bytes,
    cold_scheme,
    is_traced_or_stopped,
    present_bytes,
    small_memory,
    status_bytes,
    swapped_bytes,
    until,
)

SIZE = 96 * MIB
BY_PTRACE = MONITOR_TEXT + GUARD_TEXT + "allow_ptrace = true\n"
# Of hot and of cold memory: as many calls in the target as there can be.
ADVISED = '[[scheme]]\nname = "all"\nsize = ">= 2MiB"\naction = "{}"\n'

pytestmark = pytest.mark.system


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.toml"
    path.write_text(OPEN_TEXT + COLD_TEXT)
    return path


@dataclass
class Busy:
    """A child at work on some of its memory, whose content is known."""

    child: Child
    start: int
    digest: int

    def assert_unharmed(self) -> None:
        """It is at work, and each byte is what it was."""
        assert not is_traced_or_stopped(self.child.pid)
        assert self.child.stop_touching() > 0
        assert self.child.digest(self.start, SIZE) == self.digest
        self.keep_busy()

    def keep_busy(self) -> None:
        self.child.keep_touching([(self.start + 40 * MIB, 8 * MIB // PAGE, 1)], pause_s=0.001)


@contextmanager
def busy_child() -> Iterator[Busy]:
    with memory_child() as child:
        start = child.map_aligned(SIZE)
        child.fill(start, SIZE)
        busy = Busy(child, start, child.digest(start, SIZE))
        busy.keep_busy()
        yield busy


def wait_tightly(holds: Callable[[], bool], running: Agent) -> None:
    """Without a pause, to be there in the middle of something short."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not holds():
        assert running.process.poll() is None, running.stderr
        assert time.monotonic() < deadline_s, running.stderr


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGKILL])
def test_ended_in_the_middle_of_pageout(policy: Path, signal_number: signal.Signals) -> None:
    require("root", "bpf", "swap")
    with swap_on(2 * SIZE), busy_child() as busy:
        with agent("run", str(policy), "--pid", str(busy.child.pid), "--apply", "--json") as running:
            wait_tightly(lambda: status_bytes(busy.child.pid, "VmSwap") > 2 * MIB, running)
            status = running.end(signal_number)
        assert status == (143 if signal_number == signal.SIGTERM else -signal.SIGKILL)
        assert "Traceback" not in running.stderr
        busy.assert_unharmed()


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGKILL])
def test_ended_in_the_middle_of_ptrace(policy: Path, signal_number: signal.Signals) -> None:
    """At the moment when the target is being traced, and a little later."""
    require("root", "bpf", "ptrace", "thp")
    for action, delay_s in (("hugepage", 0.0), ("nohugepage", 0.0003)):
        policy.write_text(BY_PTRACE + "override_application_hints = true\n" + ADVISED.format(action))
        with busy_child() as busy:
            with agent("run", str(policy), "--pid", str(busy.child.pid), "--apply", "--json") as running:
                wait_tightly(lambda: status_number(busy.child.pid, "TracerPid") > 0, running)
                wait_s(delay_s)
                status = running.end(signal_number)
            assert status == (143 if signal_number == signal.SIGTERM else -signal.SIGKILL)
            assert "Traceback" not in running.stderr
            busy.assert_unharmed()


def wait_s(duration_s: float) -> None:
    """Short times are missed by sleeping."""
    end_s = time.perf_counter() + duration_s
    while time.perf_counter() < end_s:
        pass


def status_number(pid: int, field: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def test_a_target_that_exits_between_plan_and_act(monkeypatch: pytest.MonkeyPatch) -> None:
    require("root", "bpf", "swap")
    plain = TargetActor.carry_out
    with swap_on(2 * SIZE), memory_child() as leaving, memory_child() as staying:
        small_memory(leaving, 24 * MIB)
        start = small_memory(staying, 24 * MIB)

        def carry_out(actor: TargetActor, allowed_bytes: Counts) -> Outcome:
            if actor._process.pid == leaving.pid and allowed_bytes.sum() > 0:
                os.kill(leaving.pid, signal.SIGKILL)
                os.waitid(os.P_PID, leaving.pid, os.WEXITED | os.WNOWAIT)
            return plain(actor, allowed_bytes)

        monkeypatch.setattr(TargetActor, "carry_out", carry_out)
        with acting(cold_scheme(), pid=[leaving.pid, staying.pid]) as session:
            events: list[str] = []

            def is_done_and_told(report: object) -> bool:
                events.extend(getattr(report, "events", ()))
                return swapped_bytes(staying.pid, start, start + 24 * MIB) >= 23 * MIB and bool(events)

            until(session, is_done_and_told)
            assert not session.all_gone
        assert any(str(leaving.pid) in event and "gone" in event for event in events)


def test_a_cgroup_that_disappears_ends_the_run_with_its_last_process(policy: Path) -> None:
    require("root", "bpf", "cgroup")
    with fresh_cgroup() as cgroup, memory_child() as child:
        join(cgroup, child.pid)
        with agent("run", str(policy), "--cgroup", cgroup.path, "--json") as running:
            running.started()
            child.end()
            remove(cgroup.directory)
            assert running.process.wait(PATIENCE_S) == 0
        Path(cgroup.directory).mkdir()
    # How far its end was when it was noticed makes the words: it was ending, it is gone, it does not exist.
    assert any(str(child.pid) in line for line in running.stderr.splitlines())
    assert "Traceback" not in running.stderr


def remove(directory: str) -> None:
    """A cgroup is busy until its last process has given up its memory."""
    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            return Path(directory).rmdir()
        except OSError:
            assert time.monotonic() < deadline_s


def test_a_cgroup_of_a_goal_that_disappears_stops_its_scheme_until_it_is_back(policy: Path) -> None:
    require("root", "bpf", "cgroup", "cc")
    with fresh_cgroup() as cgroup, workload(size_bytes=SIZE, hot=[(0, 16 * MIB)]) as child:
        quota = 'quota = { bytes = "4MiB", every = "200ms" }\n'
        goal = f'goals = [{{ metric = "used_memory", target = "100%", cgroup = "{cgroup.path}" }}]\n'
        policy.write_text(OPEN_TEXT + COLD_TEXT + quota + goal)
        with agent("run", str(policy), "--pid", str(child.pid), "--json") as running:
            running.until(lambda report: report["schemes"][0]["total"]["tried_bytes"] > 0)
            remove(cgroup.directory)
            stopped = running.until(lambda report: report["schemes"][0]["state"].startswith("stopped: "))
            running.until(lambda _: True)
            last = running.reports()[-1]
            Path(cgroup.directory).mkdir()
            running.until(lambda report: report["schemes"][0]["total"]["tried_bytes"] > total_tried(last))
    assert cgroup.path in stopped["schemes"][0]["state"]
    assert total_tried(last) == total_tried(stopped)
    assert "Traceback" not in running.stderr


def total_tried(report: dict[str, object]) -> int:
    schemes = report["schemes"]
    assert isinstance(schemes, list)
    return int(schemes[0]["total"]["tried_bytes"])


def test_a_missing_capability(policy: Path) -> None:
    require("root", "bpf", "swap", "cc")
    prefix = ["setpriv", "--bounding-set", "-sys_nice", "--inh-caps", "-sys_nice"]
    policy.write_text(OPEN_TEXT.replace("census", "auto") + COLD_TEXT)
    with swap_on(2 * SIZE), workload(size_bytes=SIZE, hot=[(0, 16 * MIB)]) as child:
        result = memtherm("run", str(policy), "--pid", str(child.pid), "--apply", "--json", prefix=prefix)
        assert child.swap_bytes() == 0
        assert present_bytes(child.pid, child.start, child.end) == SIZE
    assert result.exit_code == 3
    assert "missing CAP_SYS_NICE" in result.stderr
    assert "hint: " in result.stderr
    assert "Traceback" not in result.stderr


def test_bounds_that_contradict_each_other(policy: Path) -> None:
    policy.write_text(OPEN_TEXT + COLD_TEXT.replace('">= 500ms"', '"2min..1min"').replace('"0%"', '"50%..10%"'))
    for words in (("check", str(policy)), ("run", str(policy), "--pid", str(os.getpid()))):
        result = memtherm(*words)
        assert (result.exit_code, result.stdout) == (2, "")
        assert f"{policy}: 2 problems" in result.stderr
        for key in ("age", "access_rate"):
            (line,) = [line for line in result.stderr.splitlines() if f' scheme 1 "cold": {key}: ' in line]
            assert "the minimum is above the maximum" in line


def test_a_goal_that_this_host_does_not_measure(policy: Path) -> None:
    """The pressure of a cgroup of version 1."""
    require("root", "bpf", "cgroup", "cc")
    old = next((one for one in read_hierarchies() if one.version == 1 and "memory" in one.controllers), None)
    if old is None:
        pytest.skip("no cgroups of version 1 here")
    with fresh_cgroup(old) as cgroup, workload(size_bytes=SIZE, hot=[(0, 16 * MIB)]) as child:
        quota = 'quota = { bytes = "4MiB", every = "200ms" }\n'
        goal = f'goals = [{{ metric = "memory_pressure", target = "1ms", cgroup = "{cgroup.directory}" }}]\n'
        policy.write_text(OPEN_TEXT + COLD_TEXT + quota + goal)
        checked = memtherm("check", str(policy))
        with agent("run", str(policy), "--pid", str(child.pid), "--json", "--apply") as running:
            report = running.until(lambda report: report["schemes"][0]["state"].startswith("stopped: "))
            assert running.process.poll() is None
    assert checked.exit_code == 0
    assert 'warning: on this host: scheme "cold": goal memory_pressure: ' in checked.stdout
    assert applied_bytes(report) == 0


MOVED = """\
[[scheme]]
name = "moved"
access_rate = "0%"
age = ">= 500ms"
action = "migrate_cold"
destinations = [{ node = 77 }]
[[scheme]]
name = "by a goal"
action = "stat"
quota = { bytes = "1MiB" }
goals = [{ metric = "free_memory", target = "20%", node = 77 }]
"""


def test_a_node_that_does_not_exist(policy: Path) -> None:
    require("root", "bpf", "cc")
    policy.write_text(OPEN_TEXT + MOVED)
    checked = memtherm("check", str(policy))
    assert checked.exit_code == 0
    assert 'scheme "moved": destination: there is no memory node 77' in checked.stdout
    assert 'scheme "by a goal": goal free_memory: this host has no memory node 77' in checked.stdout
    with workload(size_bytes=SIZE, hot=[(0, 16 * MIB)]) as child:
        with agent("run", str(policy), "--pid", str(child.pid), "--json", "--apply") as running:
            report = running.until(lambda report: bool(report["schemes"][0]["refused"]))
            goal = running.until(lambda report: report["schemes"][1]["state"] != "")
        assert present_bytes(child.pid, child.start, child.end) == SIZE
    assert applied_bytes(report) == 0
    (reason,) = {refusal["reason"] for refusal in report["schemes"][0]["refused"]}
    assert "node" in reason
    assert "there is no memory node 77" in running.stderr
    assert goal["schemes"][1]["state"].startswith("stopped: this host has no memory node 77")
    assert len(read_nodes()) < 77


FIGHTING = """\
[[scheme]]
name = "out"
access_rate = "<= 10%"
age = ">= 1min"
action = "pageout"
[[scheme]]
name = "in"
access_rate = "5%..20%"
age = ">= 2min"
action = "willneed"
"""


def test_schemes_that_fight_are_warned_of(policy: Path) -> None:
    policy.write_text(OPEN_TEXT + FIGHTING)
    result = memtherm("check", str(policy))
    assert result.exit_code == 0
    (line,) = [line for line in result.stdout.splitlines() if "against each other" in line]
    assert line.startswith('warning: schemes "out" and "in" act against each other on memory ')
    policy.write_text(OPEN_TEXT + FIGHTING.replace("5%..20%", "11%..20%"))
    assert "against each other" not in memtherm("check", str(policy)).stdout
