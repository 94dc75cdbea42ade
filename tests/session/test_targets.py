"""Which processes belong: by pid, name, user and cgroup, with their children, as they come and go."""

import os
import pwd
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from memtherm.errors import InvalidInput, TargetGone
from memtherm.policy.values import TargetSelector
from memtherm.session.targets import TargetFinder
from support.cgroups import fresh_cgroup, join
from support.children import Child, memory_child
from support.privileges import NOBODY
from support.requires import require

UNUSED_PID = 2**22 - 1
NOBODY_EXCLUDED = frozenset[int]()
THIS = frozenset((os.getpid(),))


@pytest.fixture
def child() -> Iterator[Child]:
    with memory_child() as fresh:
        fresh.rename(f"mt-{os.getpid()}-a")
        yield fresh


@pytest.fixture
def other() -> Iterator[Child]:
    with memory_child() as fresh:
        fresh.rename(f"mt-{os.getpid()}-b")
        yield fresh


def finder(*selectors: dict[str, Any], exclude: frozenset[int] = NOBODY_EXCLUDED) -> TargetFinder:
    return TargetFinder([TargetSelector(**one) for one in selectors], exclude=exclude)


def name(which: str) -> str:
    return f"mt-{os.getpid()}-{which}"


def test_those_by_pid_come_first_in_their_order(child: Child, other: Child) -> None:
    with memory_child() as third:
        third.rename(name("c"))
        pids = [third.pid, child.pid]
        found = finder({"pid": pids[0], "label": "x"}, {"pid": pids[1]}, {"name": name("*"), "label": "all"}).find()
        assert list(found) == [*pids, other.pid]
        assert found == {third.pid: ("x", "all"), child.pid: (str(child.pid), "all"), other.pid: ("all",)}


def test_a_process_that_comes_later(child: Child) -> None:
    search = finder({"name": name("?")})
    assert list(search.find()) == [child.pid]
    assert search.may_grow
    with memory_child() as late:
        late.rename(name("z"))
        assert list(search.find()) == sorted([child.pid, late.pid])
    assert list(search.find()) == [child.pid]
    child.end()
    assert search.find() == {}


def test_a_name_that_is_given_up(child: Child, other: Child) -> None:
    search = finder({"name": name("?")})
    search.find()
    other.rename("mt-another")
    found = [list(search.find()) for _ in range(17)]
    assert found[-1] == [child.pid]


def test_children_before_and_after(child: Child) -> None:
    first = child.fork()
    search = finder({"pid": child.pid, "children": True, "label": "family"})
    assert search.may_grow
    assert list(search.find()) == [child.pid, first]
    second = child.fork()
    assert search.find() == dict.fromkeys([child.pid, first, second], ("family",))
    child.reap(first)
    assert list(search.find()) == [child.pid, second]
    assert list(finder({"pid": child.pid}).find()) == [child.pid]
    assert not finder({"pid": child.pid}).may_grow


def test_a_child_is_followed_when_its_parent_has_ended() -> None:
    line = "sleep 60 > /dev/null & echo $!; read line; exit 0"
    with subprocess.Popen(["sh", "-c", line], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as shell:
        assert shell.stdout is not None
        orphan = int(shell.stdout.readline())
        search = finder({"pid": shell.pid, "children": True})
        assert list(search.find()) == [shell.pid, orphan]
        shell.communicate("\n")
        assert list(search.find()) == [orphan]
        os.kill(orphan, 9)


def test_the_process_itself_and_its_children_are_none_unless_named(child: Child) -> None:
    mine = child.fork()
    excluded = frozenset((child.pid,))
    search = finder({"name": "*python*"}, {"user": os.geteuid()}, {"pid": os.getpid(), "children": True})
    assert {child.pid, mine} <= search.find().keys()
    search = finder(
        {"name": "*python*"}, {"user": os.geteuid()}, {"pid": os.getpid(), "children": True}, exclude=excluded
    )
    found = search.find()
    assert os.getpid() in found
    assert not {child.pid, mine} & found.keys()
    # By pid, what it started and itself.
    assert list(finder({"pid": mine}, {"pid": child.pid}, exclude=excluded).find()) == [mine, child.pid]


def test_what_this_process_started_is_found_by_its_exact_name_only(child: Child) -> None:
    assert list(finder({"name": name("a")}, exclude=THIS).find()) == [child.pid]
    with pytest.raises(TargetGone, match="no process is called like"):
        finder({"name": name("*")}, exclude=THIS).find()
    assert list(finder({"pid": child.pid, "children": True}, exclude=THIS).find()) == [child.pid]


def test_init_is_never_one_by_a_pattern() -> None:
    found = finder({"name": "*"}, {"user": 0}).find() if os.geteuid() == 0 else finder({"name": "*"}).find()
    assert os.getpid() in found
    assert 1 not in found
    assert 2 not in found  # kthreadd
    assert list(finder({"pid": 1}).find()) == [1]


def test_another_user() -> None:
    require("root")
    with subprocess.Popen(["sleep", "60"], user=NOBODY) as theirs:
        try:
            for user in (NOBODY, str(NOBODY), pwd.getpwuid(NOBODY).pw_name):
                found = finder({"user": user}).find()
                assert os.getpid() not in found
                assert found[theirs.pid] == (str(user),)
        finally:
            theirs.kill()


def test_a_cgroup_and_those_below_it(child: Child, other: Child) -> None:
    require("root", "cgroup")
    with fresh_cgroup() as cgroup:
        with pytest.raises(TargetGone, match="no process is in the cgroup"):
            finder({"cgroup": cgroup.path}).find()
        join(cgroup, child.pid)
        search = finder({"cgroup": cgroup.path, "label": "db"})
        assert search.find() == {child.pid: ("db",)}
        join(cgroup, other.pid, below="part")
        assert list(search.find()) == sorted([child.pid, other.pid])
        child.end()
        other.end()
        assert search.find() == {}
    assert search.find() == {}


def test_a_cgroup_that_goes_and_comes_again(child: Child) -> None:
    require("root", "cgroup")
    with fresh_cgroup() as parent:
        join(parent, child.pid, below="service")
        search = finder({"cgroup": f"{parent.path}/service"})
        assert list(search.find()) == [child.pid]
        join(parent, child.pid, below="another")
        Path(parent.directory, "service").rmdir()
        assert search.find() == {}
        join(parent, child.pid, below="service")
        assert list(search.find()) == [child.pid]
        child.end()


@pytest.mark.parametrize(
    ("selector", "kind", "text"),
    [
        ({"pid": UNUSED_PID}, TargetGone, "is gone"),
        ({"pid": 2}, InvalidInput, "kernel thread"),
        ({"name": "mt-no-such-name"}, TargetGone, "no process has the name"),
        ({"name": "mt-no-such-name*"}, TargetGone, "no process is called like"),
        ({"user": "mt-no-such-user"}, InvalidInput, "no user"),
        ({"user": 4_000_000_000}, TargetGone, "no process of the user"),
        ({"cgroup": "/mt/no/such/group"}, InvalidInput, "no cgroup"),
    ],
)
def test_what_is_not_there(selector: dict[str, Any], kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text) as caught:
        finder(selector).find()
    assert getattr(caught.value, "hint", "")


def test_no_selector() -> None:
    with pytest.raises(InvalidInput, match="no target was named"):
        finder()


def test_one_selector_without_a_process_among_others(child: Child) -> None:
    with pytest.raises(TargetGone, match="mt-no-such-name"):
        finder({"pid": child.pid}, {"name": "mt-no-such-name"}).find()


def test_a_zombie_is_gone(child: Child) -> None:
    search = finder({"pid": child.pid}, {"name": name("a")})
    assert list(search.find()) == [child.pid]
    child.kill()
    assert search.find() == {}
    with pytest.raises(TargetGone):
        finder({"pid": child.pid}).find()


def test_a_pid_means_the_process_that_had_it_first(child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    search = finder({"pid": child.pid})
    search.find()
    monkeypatch.setattr(search._selections[0], "_start_time_ticks", 1)
    assert search.find() == {}
