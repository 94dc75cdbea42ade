"""A real event of this kernel, in an instance of our own; the second witness is the kernel's text of the same."""

import fcntl
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from memtherm.errors import InvalidInput, NotPermitted, NotSupported
from memtherm.linux.tracefs import EventStream, TraceEvents, find_tracefs, remove_leftovers
from support.privileges import run_as_nobody
from support.requires import require
from support.tracefs import tracefs_root

EXEC = "sched:sched_process_exec"
SYSCALL = "raw_syscalls:sys_enter"
GETPPID = {"x86_64": 110, "aarch64": 173}.get(os.uname().machine, -1)
OWN_CALLS = f"id == {GETPPID} && common_pid == {os.getpid()}"
LEAVES_AN_INSTANCE = """
import sys, time
from pathlib import Path
from memtherm.linux.tracefs import EventStream
stream = EventStream("sched:sched_process_exec", root=Path(sys.argv[1]))
print(stream.instance.name, flush=True)
time.sleep(600)
"""


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    require("root", "tracefs")
    folder = tmp_path / "tracing"
    folder.mkdir()
    with tracefs_root(folder) as place:
        yield place


def instances(root: Path) -> set[str]:
    return {entry.name for entry in (root / "instances").iterdir()}


def read_all(stream: EventStream) -> TraceEvents:
    """What has happened until now; the last two milliseconds are held back by `read`, so it is asked twice."""
    parts = [stream.read()]
    until_ns = time.monotonic_ns()
    while parts[-1].until_ns < until_ns:
        time.sleep(0.001)
        parts.append(stream.read())
    return TraceEvents(
        np.concatenate([part.time_ns for part in parts]),
        np.concatenate([part.cpu for part in parts]),
        np.concatenate([part.records for part in parts]),
        tuple(loss for part in parts for loss in part.losses),
        parts[-1].until_ns,
    )


def call_getppid(count: int) -> None:
    for _ in range(count):
        os.getppid()


def test_programs_that_start_are_seen_as_in_the_kernels_text(root: Path, tmp_path: Path) -> None:
    # More than 112 bytes of record have a length of their own.
    long_name = tmp_path / ("x" * 200)
    long_name.symlink_to("/bin/true")
    with EventStream(EXEC, root=root) as stream:
        assert stream.instance.name.startswith(f"memtherm-{os.getpid()}-")
        pids = []
        for program in ("/bin/true", str(long_name)) * 4:
            with subprocess.Popen([program]) as process:
                pids.append(process.pid)
        text = (stream.instance / "trace").read_text()
        found = read_all(stream)
    started = found.records["pid"].tolist()
    assert [pid for pid in started if pid in pids] == pids
    told = re.findall(r"\[(\d+)\].*?(\d+)\.(\d{6}): sched_process_exec: .* pid=(\d+) old_pid=", text)
    assert len(told) >= len(pids)
    for (cpu, seconds, micros, pid), *ours in zip(
        told, found.cpu.tolist(), found.time_ns.tolist(), started, strict=False
    ):
        assert [int(cpu), int(pid)] == [ours[0], ours[2]]
        assert abs(int(seconds) * 10**9 + int(micros) * 1000 - ours[1]) <= 1000
    now_ns = time.monotonic_ns()
    assert all(now_ns - 60e9 < time_ns <= now_ns for time_ns in found.time_ns.tolist())


def test_every_event_that_passes_the_filter_comes_once_and_in_order(root: Path) -> None:
    cpus = sorted(os.sched_getaffinity(0))
    with EventStream(SYSCALL, filter_text=OWN_CALLS, root=root) as stream:
        try:
            for number in range(6):
                os.sched_setaffinity(0, {cpus[number % len(cpus)]})
                call_getppid(500)
        finally:
            os.sched_setaffinity(0, cpus)
        found = read_all(stream)
        assert stream.lost_events() == 0
    assert found.losses == ()
    assert len(found) == 3000
    assert set(found.records["common_pid"].tolist()) == {os.getpid()}
    assert set(found.records["id"].tolist()) == {GETPPID}
    assert (np.diff(found.time_ns) > 0).all()
    # Where each ran is known, so that a wrong merge of the processors' buffers would show.
    assert found.cpu.tolist() == [cpus[number % len(cpus)] for number in range(6) for _ in range(500)]


def test_what_is_lost_is_counted_and_its_place_told(root: Path) -> None:
    cpu = min(os.sched_getaffinity(0))
    everywhere = os.sched_getaffinity(0)
    with EventStream(SYSCALL, filter_text=OWN_CALLS, buffer_bytes=4096, root=root) as stream:
        try:
            os.sched_setaffinity(0, {cpu})
            call_getppid(10)
            first = read_all(stream)
            call_getppid(5000)
            second = read_all(stream)
        finally:
            os.sched_setaffinity(0, everywhere)
        lost = stream.lost_events()
    assert (len(first), first.losses) == (10, ())
    assert 0 < len(second) < 1000
    assert len(first) + len(second) + lost == 5010
    (loss,) = second.losses
    assert loss.cpu == cpu
    # The rest of the page that was being read survives; the gap is between it and the newest.
    times = [int(first.time_ns[-1]), *second.time_ns.tolist()]
    assert (loss.after_ns, loss.before_ns) in list(pairwise(times))
    assert loss.count in (lost, -1)


def test_nothing_is_left_behind(root: Path) -> None:
    before = instances(root)
    with EventStream(EXEC, root=root) as one, EventStream(EXEC, root=root) as two:
        assert instances(root) - before == {one.instance.name, two.instance.name}
        one.close()
        one.close()
        assert instances(root) - before == {two.instance.name}
    with pytest.raises(InvalidInput, match="refuses the event filter"):
        EventStream(EXEC, filter_text="no_such_field == 1", root=root)
    with pytest.raises(NotSupported, match="no trace event damon:no_such_event"):
        EventStream("damon:no_such_event", root=root)
    assert instances(root) == before


def test_one_who_looks_keeps_the_instance_but_not_its_event(root: Path) -> None:
    stream = EventStream(EXEC, root=root)
    with open(stream.instance / "trace"):
        stream.close()
        assert (stream.instance / "events/sched/sched_process_exec/enable").read_text().strip() == "0"
    stream.instance.rmdir()


def test_a_killed_process_leaves_nothing_for_long(root: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", LEAVES_AN_INSTANCE, str(root)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        name = process.stdout.readline().strip()
        # It lives, so that its instance is not touched.
        assert name not in remove_leftovers(root)
        process.send_signal(signal.SIGKILL)
    assert name in instances(root)
    with EventStream(EXEC, root=root):
        assert name not in instances(root)


def test_only_what_is_ours_and_dead_is_removed(root: Path) -> None:
    with subprocess.Popen(["/bin/true"]) as process:
        pass
    dead, locked, foreign = (root / "instances" / f"{name}-{process.pid}-0" for name in ("memtherm", "memtherm", "x"))
    locked = locked.with_name(f"memtherm-{process.pid}-1")
    made = (dead, locked, foreign)
    try:
        for instance in made:
            instance.mkdir()
        holder = os.open(locked, os.O_RDONLY)
        try:
            # As a memtherm in another pid namespace does.
            fcntl.flock(holder, fcntl.LOCK_EX)
            assert dead.name in remove_leftovers(root)
        finally:
            os.close(holder)
        assert {locked.name, foreign.name} <= instances(root)
        assert dead.name not in instances(root)
    finally:
        for instance in made:
            if instance.exists():
                instance.rmdir()


def test_who_may_not(root: Path) -> None:
    with pytest.raises(NotPermitted, match="may not use tracefs") as refused:
        run_as_nobody(lambda: EventStream(EXEC, root=root).close())
    assert "root" in refused.value.hint


def test_where_it_is_mounted(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text("none /media/a\\040b tracefs rw 0 0\nproc /proc proc rw 0 0\n")
    assert find_tracefs(mounts) == Path("/media/a b")
    mounts.write_text("none /media/a tracefs rw 0 0\nnone /sys/kernel/tracing tracefs rw 0 0\n")
    assert find_tracefs(mounts) == Path("/sys/kernel/tracing")
    mounts.write_text("proc /proc proc rw 0 0\n")
    with pytest.raises(NotSupported, match="tracefs"):
        find_tracefs(mounts)
