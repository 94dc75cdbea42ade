"""Who is a target of a run: those that were named in one way or another, and nobody else."""

import ctypes
import mmap
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from support.cgroups import fresh_cgroup, join
from support.children import memory_child
from support.command import assert_refused, memtherm
from support.privileges import become
from support.requires import require
from support.swap import swap_on
from system.run_scene import (
    COLD_TEXT,
    MIB,
    OPEN_TEXT,
    PATIENCE_S,
    agent,
    present_bytes,
    small_memory,
    status_bytes,
    swapped_bytes,
)

SIZE = 24 * MIB
LEAST = 22 * MIB
# A user that no other test and no program of the host is.
USER = 54321

pytestmark = pytest.mark.system


@pytest.fixture(scope="module", autouse=True)
def _swap() -> Iterator[None]:
    require("root", "bpf", "swap")
    with swap_on(512 * MIB):
        yield


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.toml"
    path.write_text(OPEN_TEXT + COLD_TEXT)
    return path


class Holder:
    """A process with memory that it never touches."""

    def __init__(self, pid: int, start: int) -> None:
        self.pid = pid
        self.start = start

    @property
    def swapped_bytes(self) -> int:
        return swapped_bytes(self.pid, self.start, self.start + SIZE)


@contextmanager
def holders(*names: str) -> Iterator[list[Holder]]:
    """One of each name."""
    with ExitStack() as stack:
        children = [stack.enter_context(memory_child()) for _ in names]
        for child, name in zip(children, names, strict=True):
            child.rename(name)
        yield [Holder(child.pid, small_memory(child, SIZE)) for child in children]


@contextmanager
def holder_of(user_id: int) -> Iterator[Holder]:
    """One of another user: a fork, for that user need not be able to run this Python."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        # Python 3.12 warns of forks in a process with threads (numpy's pool); the fork here takes no lock of theirs.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        _hold_memory(user_id, writer)
    os.close(writer)
    try:
        with os.fdopen(reader) as pipe:
            yield Holder(pid, int(pipe.readline()))
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _hold_memory(user_id: int, writer: int) -> None:
    """Never returns: the fork must not go on as a second test run."""
    try:
        memory = mmap.mmap(-1, SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        memory[:] = b"m" * SIZE
        become(user_id)
        os.write(writer, f"{ctypes.addressof(ctypes.c_char.from_buffer(memory))}\n".encode())
        while True:
            signal.pause()
    finally:
        os._exit(1)


def assert_untouched(neighbour: Holder) -> None:
    assert status_bytes(neighbour.pid, "VmSwap") == 0
    assert present_bytes(neighbour.pid, neighbour.start, neighbour.start + SIZE) == SIZE


def run_until_cold_is_gone(*words: str, targets: list[Holder], neighbours: list[Holder]) -> str:
    """Returns what was said on standard error."""
    with agent("run", *words, "--apply", "--json") as running:
        running.until(lambda _: all(one.swapped_bytes >= LEAST for one in targets))
        pids = {target["pid"] for target in running.reports()[-1]["targets"]}
    assert pids == {one.pid for one in targets}
    for neighbour in neighbours:
        assert_untouched(neighbour)
    return running.stderr


def test_several_pids(policy: Path) -> None:
    with holders("one", "other", "neighbour") as (one, other, neighbour):
        words = (str(policy), "--pid", str(one.pid), "--pid", str(other.pid))
        run_until_cold_is_gone(*words, targets=[one, other], neighbours=[neighbour])


def test_a_pattern_of_names(policy: Path) -> None:
    with holders("mtq-worker-1", "mtq-worker-2", "mtq-worker") as (one, other, neighbour):
        run_until_cold_is_gone(str(policy), "--name", "mtq-worker-*", targets=[one, other], neighbours=[neighbour])


def test_an_exact_name(policy: Path) -> None:
    with holders("mtq-worker", "mtq-worker-2") as (one, neighbour):
        run_until_cold_is_gone(str(policy), "--name", "mtq-worker", targets=[one], neighbours=[neighbour])


def test_a_user(policy: Path) -> None:
    with holder_of(USER) as one, holders("neighbour") as (neighbour,):
        run_until_cold_is_gone(str(policy), "--user", str(USER), targets=[one], neighbours=[neighbour])


def test_a_cgroup_and_what_is_below_it(policy: Path) -> None:
    require("cgroup")
    with fresh_cgroup() as cgroup, holders("one", "below", "neighbour") as (one, below, neighbour):
        join(cgroup, one.pid)
        join(cgroup, below.pid, below="inner")
        run_until_cold_is_gone(str(policy), "--cgroup", cgroup.path, targets=[one, below], neighbours=[neighbour])


def test_nobody_in_a_cgroup(policy: Path) -> None:
    require("cgroup")
    with fresh_cgroup() as cgroup:
        assert_refused(memtherm("run", str(policy), "--cgroup", cgroup.path), 4, "no process is in the cgroup")
    assert_refused(memtherm("run", str(policy), "--cgroup", cgroup.path), 2, "no cgroup")


@contextmanager
def parent() -> Iterator["subprocess.Popen[str]"]:
    """A program that starts a child at each line; it and they are gone when the block ends."""
    program = [sys.executable, "-S", str(Path(__file__).with_name("late_child.py"))]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process
        finally:
            process.kill()


def child_of(process: "subprocess.Popen[str]") -> int:
    """Have it start one.  Returns its pid, when its memory is there."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return int(process.stdout.readline())


def test_children_that_are_started_later(policy: Path) -> None:
    words = ("run", str(policy), "--children", "--apply", "--json", "--pid")
    with parent() as process, holders("neighbour") as (neighbour,):
        early = child_of(process)
        with agent(*words, str(process.pid)) as running:
            running.until(lambda _: status_bytes(early, "VmSwap") > 70 * MIB)
            late = child_of(process)
            last = running.until(lambda _: status_bytes(late, "VmSwap") > 70 * MIB)
        assert {target["pid"] for target in last["targets"]} == {process.pid, early, late}
        assert f"pid {late} " in running.stderr
        assert "is watched, too" in running.stderr
        assert_untouched(neighbour)


def test_without_children_they_are_left_alone(policy: Path) -> None:
    with parent() as process, holders("one") as (one,):
        early = child_of(process)
        words = ("run", str(policy), "--apply", "--json", "--pid", str(process.pid), "--pid", str(one.pid))
        with agent(*words) as running:
            running.until(lambda _: one.swapped_bytes >= LEAST)
            assert {target["pid"] for target in running.reports()[-1]["targets"]} == {process.pid, one.pid}
        assert status_bytes(early, "VmSwap") == 0


def test_a_target_that_leaves_its_cgroup_is_let_go(policy: Path) -> None:
    require("cgroup")
    with fresh_cgroup() as cgroup, holders("one", "leaving") as (one, leaving):
        for holder in (one, leaving):
            join(cgroup, holder.pid)
        slow = policy.with_name("slow.toml")
        slow.write_text(OPEN_TEXT + COLD_TEXT.replace("500ms", "1h"))
        with agent("run", str(slow), "--cgroup", cgroup.path, "--apply", "--json") as running:
            running.started()
            (Path(cgroup.directory).parent / "cgroup.procs").write_text(str(leaving.pid))
            told = running.until(lambda report: any("no longer belongs" in event for event in report["events"]))
            # At the next look for targets it is free for another watcher.
            running.until(lambda report: report["time_s"] > told["time_s"] + 2)
            run_until_cold_is_gone(str(policy), "--pid", str(leaving.pid), targets=[leaving], neighbours=[one])


NAMED = """\
[[target]]
pid = {one}
label = "one"
[[target]]
pid = {other}
label = "other"
[[scheme]]
name = "for one"
access_rate = "0%"
age = ">= 500ms"
action = "pageout"
targets = ["one"]
[[scheme]]
name = "not one"
action = "stat"
filters = [{{ reject = "target", target = "one" }}]
"""


def test_a_scheme_for_one_of_two_targets(policy: Path) -> None:
    with holders("one", "other") as (one, other):
        policy.write_text(OPEN_TEXT + NAMED.format(one=one.pid, other=other.pid))
        with agent("run", str(policy), "--apply", "--json", "--tried-regions") as running:
            running.until(lambda _: one.swapped_bytes >= LEAST)
            last = running.until(lambda report: bool(report["schemes"][1]["tried_regions"]))
        assert_untouched(other)
        labels = {number: target["labels"] for number, target in enumerate(last["targets"])}
        assert sorted(labels.values()) == [["one"], ["other"]]
        tried = {number: {region["target"] for region in last["schemes"][number]["tried_regions"]} for number in (0, 1)}
        assert all(labels[target] == ["one"] for target in tried[0])
        assert {labels[target][0] for target in tried[1]} == {"other"}
        assert last["schemes"][1]["total"]["tried_bytes"] > SIZE


def test_a_program_that_ends_by_itself_ends_the_run(policy: Path) -> None:
    program = [sys.executable, "-S", str(Path(__file__).with_name("late_child.py"))]
    with agent("run", str(policy), "--json", "--", *program) as running:
        # Its standard input is empty: it ends at once, by itself, and so do we.
        assert running.process.wait(PATIENCE_S) == 0
