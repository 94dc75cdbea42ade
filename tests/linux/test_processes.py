"""Which processes there are: names and patterns, users, descent."""

import os
import pwd
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from memtherm.errors import InvalidInput
from memtherm.linux import processes
from memtherm.linux.processes import children_of, find_by_name, find_by_user, list_pids, programs_among
from support.children import Child, memory_child
from support.privileges import NOBODY
from support.requires import require

UNUSED_PID = 2**22  # the highest that pid_max allows is one less


@pytest.fixture
def child() -> Iterator[Child]:
    with memory_child() as fresh:
        yield fresh


def test_all_processes(child: Child) -> None:
    before = set(list_pids())
    assert {os.getpid(), child.pid} <= before
    assert list_pids() == sorted(list_pids())
    # Second witness: ps lists processes, not threads; it also lists zombies (Z) and kernel threads (children of 2).
    text = subprocess.run(["ps", "-eo", "pid=,ppid=,stat="], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in text.splitlines()]
    seen = {int(pid) for pid, parent, state in rows if state[0] != "Z" and pid != "2" and parent != "2"}
    assert before & set(list_pids()) <= seen


def test_threads_zombies_and_kernel_threads_are_no_processes(child: Child) -> None:
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        assert thread.native_id not in list_pids()
    finally:
        done.set()
        thread.join()
    child.kill()
    assert Path(f"/proc/{child.pid}").exists()
    assert child.pid not in list_pids()
    assert 2 not in list_pids()  # kthreadd
    assert programs_among([UNUSED_PID, os.getpid(), child.pid, 1]) == [os.getpid(), 1]
    assert child.pid not in find_by_user(os.geteuid())
    assert child.pid not in children_of([os.getpid()])


def test_a_process_that_vanishes_while_we_look(child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_all_pids", lambda: [child.pid, UNUSED_PID])
    assert list_pids() == [child.pid]
    assert find_by_user(os.geteuid()) == [child.pid]
    assert find_by_name("*python*") == [child.pid]
    assert children_of([os.getpid()]) == [child.pid]


def test_find_by_name_of_comm_executable_and_first_argument(child: Child, tmp_path: Path) -> None:
    child.rename("memtherm a(b) c")
    assert find_by_name("memtherm a(b) c") == [child.pid]
    program = tmp_path / "memtherm-test-a-long-name"  # longer than comm
    shutil.copy("/bin/sleep", program)
    with (
        subprocess.Popen([program, "60"]) as by_executable,
        subprocess.Popen(["/some/where/memtherm-argument", "60"], executable="/bin/sleep") as by_argument,
    ):
        try:
            assert find_by_name("memtherm-test-a-long-name") == [by_executable.pid]
            assert find_by_name("memtherm-argument") == [by_argument.pid]
            assert find_by_name("memtherm-argumen") == []
            assert find_by_name("memtherm-test-a-long-*") == [by_executable.pid]
            assert find_by_name("memtherm-*") == sorted([by_executable.pid, by_argument.pid])
        finally:
            by_argument.kill()
            by_executable.kill()


@pytest.mark.parametrize("pattern", ["memtherm[1]*", "memtherm?1]xyz", "mem*xyz", "memtherm[[]1]xyz", "memtherm[1]xyz"])
def test_a_pattern_is_the_shells(child: Child, pattern: str) -> None:
    child.rename("memtherm[1]xyz")
    # Only a name that is given whole may hold a bracket as it stands.
    assert find_by_name(pattern) == ([] if pattern == "memtherm[1]*" else [child.pid])
    assert find_by_name(pattern.upper()) == []


def test_find_by_name_skips_zombies_and_kernel_threads(child: Child) -> None:
    child.rename("memtherm-zombie")
    assert find_by_name("memtherm-zombie") == [child.pid]
    child.kill()
    assert find_by_name("memtherm-zombie") == []
    assert find_by_name("kthreadd") == []


def test_the_users_own_processes(child: Child) -> None:
    name = pwd.getpwuid(os.geteuid()).pw_name
    for user in (os.geteuid(), str(os.geteuid()), name):
        found = find_by_user(user)
        assert {os.getpid(), child.pid} <= set(found)
        assert found == sorted(found)
    assert 2 not in find_by_user(0)


def test_another_user() -> None:
    require("root")
    with subprocess.Popen(["sleep", "60"], user=NOBODY) as theirs:
        try:
            assert theirs.pid in find_by_user(NOBODY)
            assert theirs.pid not in find_by_user("root")
            assert os.getpid() not in find_by_user(NOBODY)
        finally:
            theirs.kill()


@pytest.mark.parametrize("user", ["memtherm-nobody-is-called-so", "", "-1", "a\0b"])
def test_an_unknown_user(user: str) -> None:
    with pytest.raises(InvalidInput, match="no user") as caught:
        find_by_user(user)
    assert "getent" in caught.value.hint


def test_descendants(child: Child) -> None:
    first, second = child.fork(), child.fork()
    try:
        assert children_of([child.pid]) == sorted([first, second])
        assert {child.pid, first, second} <= set(children_of([os.getpid()]))
        assert os.getpid() not in children_of([os.getpid()])
        # One of the given is below another: still only others are told.
        assert children_of([child.pid, first]) == [second]
        assert children_of([first]) == children_of([UNUSED_PID]) == children_of([]) == []
    finally:
        child.reap(first)
        child.reap(second)
    assert children_of([child.pid]) == []
