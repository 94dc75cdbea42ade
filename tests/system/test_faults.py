"""What goes wrong on real hosts: a clear word, the right exit code, nothing done by mistake, nothing left behind."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import memtherm
from memtherm import (
    AccessPattern,
    Action,
    Bounds,
    GuardSettings,
    InvalidInput,
    MonitoringAttributes,
    NotPermitted,
    Policy,
    Report,
    Scheme,
    Session,
    TargetBusy,
    TargetGone,
)
from memtherm.linux.process import open_process
from memtherm.session.ways import canary_failure
from support.children import MADV_NOHUGEPAGE, PAGE_SIZE, Child
from support.command import PATIENCE_S, assert_refused, forked, running
from support.command import memtherm as run_memtherm
from support.privileges import NOBODY, run_as_nobody
from support.requires import require

MIB = 1 << 20
METHODS = ("sampling", "census")
COLD = Scheme(
    name="cold", action=Action.PAGEOUT, pattern=AccessPattern(access_rate=Bounds(0, 0), age_s=Bounds(0.3, None))
)

pytestmark = pytest.mark.system


@pytest.fixture
def child() -> Iterator[Child]:
    with Child() as one:
        yield one


def attributes(method: str) -> MonitoringAttributes:
    return MonitoringAttributes(
        method=method, sampling_interval_s=0.005, aggregation_interval_s=0.05, regions_update_interval_s=0.1
    )


@contextmanager
def watching(child: Child, method: str = "sampling") -> Iterator[Session]:
    require("root", "bpf")
    with memtherm.monitor(pid=child.pid, attributes=attributes(method), probe="bpf") as session:
        next(session.reports(limit=1))
        yield session


def rest_of(session: Session) -> list[Report]:
    """What comes until the session ends by itself; it must."""
    timer = threading.Timer(PATIENCE_S, session.close)
    timer.start()
    reports = list(session.reports())
    assert timer.is_alive(), "the session did not end"
    timer.cancel()
    return reports


def test_a_process_that_has_exited() -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    with pytest.raises(TargetGone, match=str(process.pid)) as caught:
        memtherm.monitor(pid=process.pid)
    assert caught.value.hint
    assert_refused(forked("monitor", "--pid", str(process.pid)), 4, f"process {process.pid} is gone")


def test_a_zombie(child: Child) -> None:
    child.kill()
    assert_refused(forked("monitor", "--pid", str(child.pid)), 4, "is gone")


def test_a_thread() -> None:
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    assert_refused(forked("monitor", "--pid", str(thread.native_id)), 2, "is a thread of a process")
    done.set()
    thread.join()


def test_a_kernel_thread() -> None:
    with pytest.raises(InvalidInput, match="kernel thread"):
        memtherm.monitor(pid=2)
    assert_refused(forked("monitor", "--pid", "2"), 2, "kernel thread")


def test_a_process_of_another_user(child: Child) -> None:
    require("root")
    result = forked("monitor", "--pid", str(child.pid), user_id=NOBODY)
    assert_refused(result, 3, f"process {child.pid}", "run as root or as its user")
    canary_failure("smaps")
    with pytest.raises(NotPermitted):
        run_as_nobody(lambda: memtherm.monitor(pid=child.pid))


def watch_own_sleeper() -> tuple[str, str, int]:
    with subprocess.Popen(["/bin/sleep", "60"]) as sleeper:
        try:
            one_look = MonitoringAttributes(sampling_interval_s=0.1, aggregation_interval_s=0.1)
            with memtherm.monitor(pid=sleeper.pid, attributes=one_look) as session:
                conditions = next(session.snapshots(limit=1)).conditions
                return conditions.probe, " ".join(session.reasons), os.getuid()
        finally:
            sleeper.kill()


def test_an_own_process_without_privilege() -> None:
    require("root")
    canary_failure("smaps")
    probe, reasons, user_id = run_as_nobody(watch_own_sleeper)
    assert (probe, user_id) == ("smaps", NOBODY)
    assert "not by bpf: missing CAP_BPF" in reasons


@pytest.mark.parametrize("method", METHODS)
def test_a_target_that_exits(child: Child, method: str) -> None:
    with watching(child, method) as session:
        child.end()
        rest_of(session)
        assert session.all_gone
        assert str(child.pid) in session.last_events[-1]


@pytest.mark.parametrize("method", METHODS)
def test_one_of_two_targets_exits_and_the_other_goes_on(child: Child, method: str) -> None:
    require("root", "bpf")
    with Child() as other:
        both = memtherm.monitor(pid=[other.pid, child.pid], attributes=attributes(method))
        with both as session:
            reports = session.reports()
            next(reports)
            other.end()
            deadline_s = time.monotonic() + PATIENCE_S
            while not any(str(other.pid) in event for event in next(reports).events):
                assert time.monotonic() < deadline_s
            assert set(next(reports).snapshot.regions.target.tolist()) == {1}
            assert not session.all_gone


@pytest.mark.parametrize("method", METHODS)
def test_a_target_killed_in_the_middle_of_a_pass(method: str) -> None:
    for delay_s in (0.0, 0.013, 0.031, 0.052, 0.077):
        with Child() as child:
            start = child.map(32 * MIB)
            child.write(start, 8192)
            with watching(child, method) as session:
                child.keep_touching([(start, 8192, 1)])
                time.sleep(delay_s)
                os.kill(child.pid, signal.SIGKILL)
                rest_of(session)
                assert session.all_gone


@pytest.mark.parametrize("method", METHODS)
def test_a_target_that_execs_is_watched_from_new(child: Child, method: str) -> None:
    big = child.map(64 * MIB)
    with watching(child, method) as session:
        child.exec("/bin/sleep", "60")
        deadline_s = time.monotonic() + PATIENCE_S
        for report in session.reports():
            assert time.monotonic() < deadline_s
            if any("called exec" in event for event in report.events):
                break
        regions = next(session.snapshots(limit=1)).regions
        assert len(regions) > 0
        assert not ((regions.start <= big) & (regions.end >= big + 64 * MIB)).any()


@pytest.mark.parametrize("method", METHODS)
def test_a_target_that_forks_is_still_seen_right(child: Child, method: str) -> None:
    start = child.map_aligned(32 * MIB)
    child.madvise(start, 32 * MIB, MADV_NOHUGEPAGE)
    child.write(start, 8192)
    with watching(child, method) as session:
        child.fork()
        child.keep_touching([(start, 2048, 1)], write=True, pause_s=0.001)
        deadline_s = time.monotonic() + PATIENCE_S
        for snapshot in session.snapshots():
            assert time.monotonic() < deadline_s
            regions = snapshot.regions
            seen = (regions.access_rate > 0.5) & (regions.start < start + 8 * MIB) & (regions.end > start)
            if seen.any():
                break
    child.stop_touching()


MAPPER = """
import mmap, sys
kept = mmap.mmap(-1, 1 << 20)
kept[:] = b"k" * len(kept)
print(flush=True)
while True:
    parts = [mmap.mmap(-1, 4 << 20) for _ in range(8)]
    for part in parts:
        part[:4096] = b"x" * 4096
    for part in parts:
        part.close()
    assert kept[4096] == ord("k")
"""


@pytest.mark.parametrize("method", METHODS)
def test_a_target_that_maps_and_unmaps_without_pause(method: str) -> None:
    require("root", "bpf")
    mapper = [sys.executable, "-S", "-c", MAPPER]
    with subprocess.Popen(mapper, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            policy = Policy(schemes=(COLD,), guard=GuardSettings(min_target_bytes=0), attributes=attributes(method))
            with memtherm.monitor(pid=process.pid, policy=policy, apply=True) as session:
                end_s = time.monotonic() + 1
                for number, _ in enumerate(session.reports()):
                    if number > 0 and time.monotonic() > end_s:
                        break
            assert process.poll() is None, "the target is unharmed"
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("feature", "reason"),
    [
        ("btf", "no type information"),
        ("libbpf", "apt-get install libbpf1"),
        ("bpf", "no BPF"),
        ("process_madvise", "no process_madvise"),
    ],
)
def test_without_a_feature_the_next_way_is_taken_and_told(
    child: Child, monkeypatch: pytest.MonkeyPatch, feature: str, reason: str
) -> None:
    require("root", "bpf")
    monkeypatch.setenv("MEMTHERM_WITHOUT", feature)
    one_look = ("--json", "-n", "1", "--sampling", "100ms", "--aggregation", "100ms")
    result = forked("monitor", *one_look, "--pid", str(child.pid))
    assert result.exit_code == 0
    assert result.json_lines()[0]["conditions"]["probe"] == "smaps"
    assert reason in result.stderr
    assert_refused(forked("monitor", "--probe", "bpf", "--pid", str(child.pid)), 3, reason, "memtherm doctor")


@pytest.mark.parametrize("name", ["bpf", "perfmon", "sys_ptrace", "sys_nice", "sys_admin"])
def test_a_missing_capability_is_named(child: Child, name: str) -> None:
    require("root", "bpf")
    prefix = ["setpriv", "--bounding-set", f"-{name}", "--inh-caps", f"-{name}"]
    words = ("monitor", "--probe", "bpf", "--pid", str(child.pid))
    assert_refused(run_memtherm(*words, prefix=prefix), 3, f"missing CAP_{name.upper()}")


def test_an_action_without_its_capability(child: Child) -> None:
    require("root")
    start = child.map(80 * MIB)
    child.write(start, 80 * MIB // PAGE_SIZE)
    prefix = ["setpriv", "--bounding-set", "-sys_nice", "--inh-caps", "-sys_nice"]
    words = ("run", "--scheme", "4K max 0% 0% 100ms max cold", "--apply", "--json", "--pid", str(child.pid))
    result = run_memtherm(*words, prefix=prefix)
    assert result.exit_code == 3
    assert "CAP_SYS_NICE" in result.stderr
    assert "hint: " in result.stderr
    assert "Traceback" not in result.stderr


def test_a_second_watcher_is_told_of_the_first(child: Child) -> None:
    with running("monitor", "--json", "--pid", str(child.pid)) as first:
        assert first.stdout is not None
        first.stdout.readline()
        second = forked("monitor", "--json", "-n", "1", "--pid", str(child.pid))
        assert_refused(second, 3, f"pid {child.pid} is already watched by memtherm, pid {first.pid}")
        with pytest.raises(TargetBusy):
            memtherm.monitor(pid=child.pid)
        first.kill()  # without a chance to clean up
        first.communicate()
    assert forked("monitor", "--json", "-n", "1", "--pid", str(child.pid)).exit_code == 0


def test_a_target_cannot_be_watched_twice_by_one_program(child: Child) -> None:
    require("root", "bpf")
    with memtherm.monitor(pid=child.pid) as session:
        with pytest.raises(TargetBusy, match=f"pid {os.getpid()}"):
            memtherm.monitor(pid=child.pid)
        next(session.reports(limit=1))
    with memtherm.monitor(pid=child.pid) as session:
        next(session.reports(limit=1))


def open_descriptors() -> set[str]:
    return {f"{path.name} {path.readlink()}" for path in Path("/proc/self/fd").iterdir() if path.is_symlink()}


def test_a_monitor_that_cannot_begin_holds_nothing(child: Child) -> None:
    require("root", "bpf")
    with Child() as other:
        with memtherm.monitor(pid=[child.pid, other.pid]):
            pass
        before = len(open_descriptors())
        with memtherm.monitor(pid=other.pid), pytest.raises(TargetBusy):
            memtherm.monitor(pid=[child.pid, other.pid])
        with memtherm.monitor(pid=[child.pid, other.pid]):
            pass
        assert len(open_descriptors()) == before


@pytest.mark.parametrize("pid", [0, -1, 2**31, 2**70])
def test_a_number_that_is_no_pid(pid: int) -> None:
    with pytest.raises(InvalidInput, match="cannot exist"):
        memtherm.monitor(pid=pid)


def test_calls_that_cannot_be_meant(child: Child) -> None:
    unbounded = Scheme(name="all", action=Action.PAGEOUT, pattern=AccessPattern(age_s=Bounds(2, None)))
    with pytest.raises(InvalidInput, match="no target was named"):
        memtherm.monitor()
    with pytest.raises(InvalidInput, match="is not a probe"):
        memtherm.monitor(pid=child.pid, probe="magic")
    with pytest.raises(InvalidInput, match="leaves the monitor no rest"):
        memtherm.monitor(pid=child.pid, attributes=MonitoringAttributes(sampling_interval_s=0))
    with pytest.raises(InvalidInput, match="upper bound of the access rate") as caught:
        memtherm.monitor(pid=child.pid, schemes=[unbounded], apply=True)
    assert "100%" in caught.value.hint
    with memtherm.monitor(pid=child.pid, schemes=[unbounded]) as session:
        assert next(session.reports(limit=1)).schemes[0].applied_bytes == 0


def test_a_zombie_has_no_mounts_and_is_gone_all_the_same(child: Child) -> None:
    with open_process(child.pid) as process:
        child.kill()
        with pytest.raises(TargetGone):
            process.read_file("mountinfo")
