"""The table of processes: what it reads, when it reads again, what it costs."""

import os
import subprocess
import time
from collections.abc import Iterator

import pytest

from memtherm.errors import InvalidInput
from memtherm.linux.process_table import ProcessFacts, ProcessTable, user_id_of
from memtherm.linux.processes import children_of, find_by_name, list_pids
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


def test_every_process_and_nothing_else(child: Child) -> None:
    before = set(list_pids())
    table = ProcessTable(asks_names=False, asks_users=False)
    table.refresh()
    assert before & set(list_pids()) <= table.facts.keys() <= before | set(list_pids())
    assert {os.getpid(), child.pid} <= table.facts.keys()
    assert 2 not in table.facts  # kthreadd
    mine = table.facts[child.pid]
    assert (mine.pid, mine.parent_pid, mine.user_id, mine.names) == (child.pid, os.getpid(), -1, ())


def test_names_are_those_of_find_by_name(child: Child) -> None:
    child.rename("memtherm a(b) c")
    with subprocess.Popen(["/some/where/memtherm-argument", "60"], executable="/bin/sleep") as by_argument:
        try:
            table = ProcessTable(asks_names=True, asks_users=False)
            table.refresh()
            for pattern in ("memtherm a(b) c", "memtherm-argumen?", "memtherm-*", "sleep", "*python*"):
                expected = find_by_name(pattern)
                found = [pid for pid, one in table.facts.items() if one.is_called(pattern)]
                assert {child.pid, by_argument.pid} & set(found) == {child.pid, by_argument.pid} & set(expected)
        finally:
            by_argument.kill()


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
    assert table.descendants([child.pid]) == {first, second} == set(children_of([child.pid]))
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
