import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from kdamond.neighbour import Neighbour
from memtherm.errors import MemthermError, NotPermitted, NotSupported, TargetBusy
from memtherm.kdamond.ownership import Holder, KdamondSlots, running_modules
from memtherm.kdamond.registry import Owner, Registry, this_process
from memtherm.kdamond.tree import DamonTree, OwnershipLost
from support.children import Child
from support.fake_damon import THREAD, FakeDamonTree
from support.privileges import run_as_nobody
from support.requires import require


@pytest.fixture
def neighbour(tree: FakeDamonTree, registry: Registry) -> Iterator[Neighbour]:
    with Neighbour(str(tree.root), registry.folder) as one:
        yield one


def enable(modules: Path, name: str, *, thread: int | None) -> None:
    folder = modules / name / "parameters"
    folder.mkdir(parents=True)
    (folder / "enabled").write_text("Y\n")
    if thread is not None:
        (folder / "kdamond_pid").write_text(f"{thread}\n")


def test_a_free_tree_is_claimed_and_left_empty(tree: FakeDamonTree, slots: KdamondSlots, registry: Registry) -> None:
    assert slots.look().holder is Holder.FREE
    assert slots.look().is_usable
    with slots.claim() as claim:
        assert claim.index == 0
        assert tree.read("nr_kdamonds") == "3"
        assert f"in use by pid {os.getpid()}" in slots.look().sentence
    assert tree.read("nr_kdamonds") == "0"
    assert slots.look().holder is Holder.FREE
    assert claim.release() == ()
    assert not (registry.folder / "registry.json").exists()


def test_looking_leaves_no_trace(tree: FakeDamonTree, slots: KdamondSlots, registry: Registry) -> None:
    slots.look()
    slots.abandoned()
    assert not registry.folder.exists()
    assert tree.writes == []


def test_processes_share_and_the_last_one_leaves_it_empty(
    tree: FakeDamonTree, slots: KdamondSlots, neighbour: Neighbour
) -> None:
    assert neighbour.ask("claim") == [0, []]
    mine = slots.claim()
    assert mine.index == 1
    assert neighbour.ask("release") == []
    assert tree.read("nr_kdamonds") == "3", "I am still here"
    tree.write(mine.ownership, "contexts/nr_contexts", "1")
    assert mine.release() == ()
    assert tree.read("nr_kdamonds") == "0"


def test_all_slots_in_use_is_said_with_who_has_them(slots: KdamondSlots, neighbour: Neighbour) -> None:
    assert neighbour.ask("claim")[0] == 0
    claims = [slots.claim(), slots.claim()]
    with pytest.raises(TargetBusy, match=rf"0 free, in use by pid .*{neighbour.pid}") as problem:
        slots.claim()
    assert "census" in problem.value.hint
    for claim in claims:
        claim.release()


def test_a_foreign_kdamond_is_never_written(tree: FakeDamonTree, slots: KdamondSlots) -> None:
    tree.rewrite(1)
    state = slots.look()
    assert (state.holder, state.is_usable) == (Holder.OTHER, False)
    assert "occupied by another owner (1 kdamond; none runs)" in state.sentence
    with pytest.raises(TargetBusy, match="another owner"):
        slots.claim()
    assert slots.abandoned() == ()
    assert slots.stop_abandoned() == ()
    assert tree.writes == []


def test_a_foreign_kdamond_that_runs_is_named_with_its_thread(
    tree: FakeDamonTree, slots: KdamondSlots, tmp_path: Path, child: Child
) -> None:
    foreign = KdamondSlots(tree, registry=Registry(tmp_path / "foreign"), modules=tmp_path, nr_slots=1)
    with foreign.claim() as claim:
        for path, text in (
            ("contexts/nr_contexts", "1"),
            ("contexts/0/targets/nr_targets", "1"),
            ("contexts/0/targets/0/pid_target", str(child.pid)),
            ("state", "on"),
        ):
            tree.write(claim.ownership, path, text)
        assert f"kdamond 0 runs as thread {THREAD}" in slots.look().sentence
        with tree.locked():
            assert "kdamond 0 is busy" in slots.look().sentence
    assert slots.look().holder is Holder.FREE


def test_a_registry_of_another_boot_or_damaged_accounts_for_nothing(slots: KdamondSlots, registry: Registry) -> None:
    slots.claim()
    file = registry.folder / "registry.json"
    values = json.loads(file.read_text())
    assert slots.look().holder is Holder.OURS
    for text in (json.dumps(values | {"boot_id": "another"}), json.dumps(values | {"version": 2}), "{", "[]", ""):
        file.write_text(text)
        assert slots.look().holder is Holder.OTHER, text
    file.write_text(json.dumps(values))
    assert slots.look().holder is Holder.OURS


def test_a_tree_that_another_has_rewritten_is_no_longer_ours(tree: FakeDamonTree, slots: KdamondSlots) -> None:
    """The same number of directories, with the same names, made by somebody else."""
    claim = slots.claim()
    tree.rewrite(3)
    assert slots.look().holder is Holder.OTHER
    with pytest.raises(OwnershipLost):
        tree.write(claim.ownership, "contexts/nr_contexts", "1")
    before = list(tree.writes)
    assert "has been removed" in claim.release()[0]
    assert tree.writes == before
    with pytest.raises(TargetBusy):
        slots.claim()
    tree.rewrite(0)
    with slots.claim():
        assert slots.look().holder is Holder.OURS


def test_a_killed_owner_is_found_and_its_kdamond_stopped_by_the_next(
    tree: FakeDamonTree, slots: KdamondSlots, neighbour: Neighbour, child: Child
) -> None:
    assert neighbour.ask(f"start {child.pid}") == [0, []]
    assert slots.abandoned() == ()
    neighbour.kill()
    (left,) = slots.abandoned()
    assert (left.index, left.is_running) == (0, True)
    assert left.owner is not None
    assert left.owner.pid == neighbour.pid
    assert "1 left by a memtherm that has died" in slots.look().sentence
    with slots.claim() as claim:
        assert claim.index == 0
        assert claim.events == (
            f"kdamond 0 was left by memtherm (pid {neighbour.pid}), which has ended: it still ran, and was stopped",
        )
        assert tree.read("0/state") == "off"
        assert tree.read("0/contexts/nr_contexts") == "0"
    assert tree.read("nr_kdamonds") == "0"


def test_what_a_killed_owner_left_can_be_stopped_alone(slots: KdamondSlots, neighbour: Neighbour, child: Child) -> None:
    neighbour.ask(f"start {child.pid}")
    neighbour.kill()
    (said,) = slots.stop_abandoned()
    assert "was stopped" in said
    assert slots.look().holder is Holder.FREE
    assert slots.stop_abandoned() == ()


def test_stopping_what_was_left_spares_those_who_live(
    tree: FakeDamonTree, slots: KdamondSlots, registry: Registry, neighbour: Neighbour, child: Child
) -> None:
    neighbour.ask(f"start {child.pid}")
    with Neighbour(str(tree.root), registry.folder) as other:
        assert other.ask(f"start {child.pid}")[0] == 1
        neighbour.kill()
        assert len(slots.stop_abandoned()) == 1
        assert tree.read("1/state") == "on"
        assert other.ask("tried") == 0
        assert other.ask("release") == []
    assert slots.look().holder is Holder.FREE


def test_the_last_one_tells_of_what_still_runs(
    tree: FakeDamonTree, slots: KdamondSlots, neighbour: Neighbour, child: Child
) -> None:
    claim = slots.claim()
    neighbour.ask(f"start {child.pid}")
    neighbour.kill()
    (said,) = claim.release()
    assert "kdamond 1 of a memtherm that has ended still runs" in said
    assert tree.read("1/state") == "on"
    assert slots.look().holder is Holder.OURS


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_claim_that_dies_halfway_leaves_nobodys_tree(
    tree: FakeDamonTree, slots: KdamondSlots, neighbour: Neighbour, when: str
) -> None:
    assert neighbour.ask(f"die_claiming {when}") == "ended"
    assert tree.read("nr_kdamonds") == ("3" if when == "after" else "0")
    assert slots.look().is_usable
    with slots.claim() as claim:
        assert claim.index == 0
    assert slots.look().holder is Holder.FREE


@pytest.mark.parametrize("count", [1, 3])
def test_a_half_finished_claim_never_takes_what_another_has_made_and_used(
    tree: FakeDamonTree, slots: KdamondSlots, neighbour: Neighbour, count: int
) -> None:
    """The claim died before it wrote, and then another program used the free tree."""
    neighbour.ask("die_claiming before")
    tree.rewrite(count)
    (tree.kdamonds / "0" / "contexts" / "nr_contexts").write_text("1")
    assert slots.look().holder is Holder.OTHER
    with pytest.raises(TargetBusy):
        slots.claim()
    assert tree.writes == []


def test_a_reused_pid_and_a_zombie_are_not_the_owner() -> None:
    me = this_process()
    assert me.is_alive
    assert not Owner(me.pid, me.start_time_ticks + 1, me.pid_namespace, "reused").is_alive
    assert Owner(2**22 + 1, 1, me.pid_namespace + 1, "elsewhere").is_alive, "nothing is known of it"
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    start = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    assert not Owner(pid, start, me.pid_namespace, "zombie").is_alive
    os.waitpid(pid, 0)


@pytest.mark.parametrize("thread", [77, None])
def test_a_module_that_runs_is_named_with_the_command_that_frees_it(
    tree: FakeDamonTree, slots: KdamondSlots, tmp_path: Path, thread: int | None
) -> None:
    enable(tmp_path / "modules", "damon_stat", thread=thread)
    state = slots.look()
    assert state.holder is Holder.MODULE
    assert "DAMON_STAT" in state.sentence
    assert "echo N > /sys/module/damon_stat/parameters/enabled" in state.hint
    assert "census" in state.hint, "the other engine is offered"
    with pytest.raises(TargetBusy, match="DAMON_STAT"):
        slots.claim()
    assert tree.writes == []


def test_a_module_that_is_switched_on_and_does_not_run_holds_nothing(tmp_path: Path) -> None:
    enable(tmp_path, "damon_reclaim", thread=-1)
    assert running_modules(tmp_path) == ()


def test_a_kernel_without_damon(tmp_path: Path, registry: Registry) -> None:
    slots = KdamondSlots(DamonTree(tmp_path / "nothing"), registry=registry)
    assert slots.look().holder is Holder.NOT_THERE
    with pytest.raises(NotSupported, match="no DAMON"):
        slots.claim()


def test_where_nothing_is_ours_there_is_nothing_to_stop_and_nothing_is_made(
    tree: FakeDamonTree, slots: KdamondSlots, registry: Registry
) -> None:
    tree.rewrite(1)
    assert slots.stop_abandoned() == ()
    assert not registry.folder.exists()


def test_the_real_tree_is_not_for_others_than_root() -> None:
    require("root", "damon")

    def look() -> tuple[str, str, str]:
        state = KdamondSlots().look()
        return state.holder.value, state.sentence, state.hint

    holder, sentence, hint = run_as_nobody(look)
    assert holder == Holder.NOT_PERMITTED.value
    assert "may not read nr_kdamonds" in sentence
    assert "run as root" in hint


def test_damon_can_be_hidden(slots: KdamondSlots, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMTHERM_WITHOUT", "damon")
    assert slots.look().holder is Holder.NOT_THERE


def test_a_registry_that_others_may_write_is_not_trusted(slots: KdamondSlots, registry: Registry) -> None:
    registry.folder.mkdir()
    registry.folder.chmod(0o777)
    with pytest.raises(NotPermitted, match="may be written by others"):
        slots.claim()
    assert slots.look().holder is Holder.FREE


def test_a_write_that_fails_leaves_no_claim(tree: FakeDamonTree, slots: KdamondSlots, registry: Registry) -> None:
    tree.patience = slots.tree.patience.__class__(limit_s=0)
    with tree.locked(), pytest.raises(MemthermError):
        slots.claim()
    assert not (registry.folder / "registry.json").exists()
    assert slots.look().holder is Holder.FREE
