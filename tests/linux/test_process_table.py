"""The table of processes: what it reads, when it reads again, what it costs."""

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from memtherm.errors import InvalidInput
from memtherm.linux.process_table import ProcessFacts, ProcessTable, programs_among, user_id_of
from support.children import Child, memory_child
from support.privileges import NOBODY
from support.requires import require

UNUSED_PID = 2**22  # the highest that pid_max allows is one less


@pytest.fixture
def child() -> Iterator[Child]:
    with memory_child() as fresh:
        yield fresh


@pytest.fixture
def table() -> ProcessTable:
    fresh = ProcessTable(asks_names=True, asks_users=True)
    fresh.refresh()
    return fresh


def _witnessed() -> set[int]:
    """What ps lists: processes, not threads; it also lists zombies (Z) and kernel threads (children of 2)."""
    text = subprocess.run(["ps", "-eo", "pid=,ppid=,stat="], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in text.splitlines()]
    return {int(pid) for pid, parent, state in rows if state[0] != "Z" and pid != "2" and parent != "2"}


def test_every_process_and_nothing_else(child: Child) -> None:
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        before = _witnessed()
        table = ProcessTable(asks_names=False, asks_users=False)
        table.refresh()
        after = _witnessed()
    finally:
        done.set()
        thread.join()
    # What ends or begins meanwhile may be on either side.
    assert before & after <= table.facts.keys()
    assert thread.native_id not in table.facts
    assert {os.getpid(), child.pid} <= table.facts.keys()
    assert 2 not in table.facts  # kthreadd
    mine = table.facts[child.pid]
    assert (mine.pid, mine.parent_pid, mine.user_id, mine.names) == (child.pid, os.getpid(), -1, ())


def test_programs_among_pids(child: Child) -> None:
    assert programs_among([UNUSED_PID, os.getpid(), child.pid, 2, 1]) == [os.getpid(), child.pid, 1]
    child.kill()
    assert Path(f"/proc/{child.pid}").exists()  # a zombie
    assert programs_among([UNUSED_PID, os.getpid(), child.pid, 1]) == [os.getpid(), 1]


def test_names_are_those_of_comm_executable_and_first_argument(child: Child, tmp_path: Path) -> None:
    child.rename("memtherm a(b) c")
    program = tmp_path / "memtherm-test-a-long-name"  # longer than comm
    shutil.copy("/bin/sleep", program)
    with (
        subprocess.Popen([program, "60"]) as by_executable,
        subprocess.Popen(["/some/where/memtherm-argument", "60"], executable="/bin/sleep") as by_argument,
    ):
        try:
            table = ProcessTable(asks_names=True, asks_users=False)
            table.refresh()
            ours = [table.facts[pid] for pid in (child.pid, by_executable.pid, by_argument.pid)]
            for pattern, is_called in (
                ("memtherm a(b) c", [True, False, False]),
                ("memtherm-test-a-long-name", [False, True, False]),
                ("memtherm-test-a-long-*", [False, True, False]),
                ("memtherm-argument", [False, False, True]),
                ("memtherm-argumen", [False, False, False]),
                ("memtherm-*", [False, True, True]),
                ("MEMTHERM-*", [False, False, False]),
                ("sleep", [False, False, True]),
                ("*python*", [True, False, False]),
            ):
                assert [one.is_called(pattern) for one in ours] == is_called, pattern
        finally:
            by_argument.kill()
            by_executable.kill()


def test_a_name_with_a_bracket_is_meant_as_it_stands() -> None:
    one = ProcessFacts(pid=7, parent_pid=1, start_time_ticks=1, user_id=0, names=("web[1]",))
    assert one.is_called("web[1]")
    assert one.is_called("web[[]?]")
    assert not one.is_called("web[2]")


def test_users(child: Child, table: ProcessTable) -> None:
    assert table.facts[child.pid].user_id == os.geteuid()
    require("root")
    with subprocess.Popen(["sleep", "60"], user=NOBODY) as theirs:
        try:
            table.refresh()
            assert table.facts[theirs.pid].user_id == NOBODY
        finally:
            theirs.kill()


def test_what_is_young_is_read_again_at_once(child: Child) -> None:
    table = ProcessTable(asks_names=True, asks_users=False)
    table.refresh()
    with memory_child() as young:
        table.refresh()
        young.rename("memtherm-young")
        child.rename("memtherm-old")
        table.refresh()
        assert table.facts[young.pid].is_called("memtherm-young")
        for _ in range(16):
            table.refresh()
        assert table.facts[child.pid].is_called("memtherm-old")
    table.refresh()
    assert young.pid not in table.facts


def test_zombies_leave_the_table(child: Child, table: ProcessTable) -> None:
    child.kill()
    # It is listed still, and is not read at each refresh: who uses it must confirm it.
    assert not table.confirm([child.pid])
    assert child.pid not in table.facts
    assert table.confirm([os.getpid(), UNUSED_PID])


def test_a_pid_that_was_given_away_is_noticed(child: Child, table: ProcessTable) -> None:
    from dataclasses import replace

    other = replace(table.facts[child.pid], start_time_ticks=1, names=("someone else",))
    table._facts[child.pid] = other
    assert not table.confirm([child.pid])
    assert table.facts[child.pid].start_time_ticks != 1
    assert table.confirm([child.pid])


def test_descendants(child: Child) -> None:
    first, second = child.fork(), child.fork()
    table = ProcessTable(asks_names=False, asks_users=False)
    table.refresh()
    assert table.descendants([child.pid]) == {first, second}
    assert {child.pid, first, second} <= table.descendants([os.getpid()])
    assert table.descendants([child.pid], without=[first]) == {second}
    assert not {child.pid, first} & table.descendants([os.getpid()], without=[child.pid])
    assert table.descendants([child.pid, first]) == {second}
    assert table.descendants([UNUSED_PID]) == table.descendants([]) == set()


@pytest.mark.parametrize("user", ["memtherm-nobody-is-called-so", "", "-1", "a\0b"])
def test_an_unknown_user(user: str) -> None:
    with pytest.raises(InvalidInput, match="no user") as caught:
        user_id_of(user)
    assert "getent" in caught.value.hint


def test_users_by_name_and_number() -> None:
    assert user_id_of("root") == user_id_of(0) == user_id_of("0") == 0
    assert user_id_of("4242") == 4242


def test_a_later_look_costs_a_fraction_of_the_first() -> None:
    sleepers = [subprocess.Popen(["sleep", "60"]) for _ in range(100)]
    try:
        table = ProcessTable(asks_names=True, asks_users=True)
        began_s = time.process_time()
        table.refresh()
        first_s = time.process_time() - began_s
        began_s = time.process_time()
        for _ in range(16):
            table.refresh()
        assert (time.process_time() - began_s) / 16 < first_s / 2
    finally:
        for sleeper in sleepers:
            sleeper.kill()
            sleeper.wait()
