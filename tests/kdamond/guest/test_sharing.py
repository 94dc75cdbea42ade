"""Several processes share the kernel's own tree, and die with a kdamond running; modules and strangers hold it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from kdamond.neighbour import Neighbour
from memtherm.errors import TargetBusy
from memtherm.kdamond import control
from memtherm.kdamond.ownership import DEFAULT_MODULES, Holder, KdamondSlots
from memtherm.kdamond.parameters import ANY_BOUNDS, Context, Kdamond, KernelScheme, KernelTarget
from memtherm.kdamond.registry import Registry
from memtherm.kdamond.tree import OwnershipLost
from support.children import Child

ANYTHING = KernelScheme(size_bytes=ANY_BOUNDS, nr_accesses=ANY_BOUNDS, age_windows=ANY_BOUNDS)


@pytest.fixture
def neighbour(slots: KdamondSlots, tmp_path: Path) -> Iterator[Neighbour]:
    assert slots.look().is_usable
    with Neighbour("real", tmp_path / "registry") as one:
        yield one


@pytest.fixture
def child() -> Iterator[Child]:
    with Child() as one:
        one.write(one.map(16 << 20), 4096)
        yield one


def watching(child: Child) -> Kdamond:
    return Kdamond(context=Context(targets=(KernelTarget(pid=child.pid),), schemes=(ANYTHING,)))


def test_two_processes_share_the_tree_and_each_sees_its_own(
    slots: KdamondSlots, neighbour: Neighbour, child: Child
) -> None:
    assert neighbour.ask(f"start {child.pid}") == [0, []]
    with control.start(watching(child), slots=slots) as running:
        assert running.index == 1
        assert sum(one.is_running for one in slots.look().kdamonds) == 2
        # Each command holds the kernel's one lock for a window: the other one tries again.
        for _ in range(3):
            neighbour.send("tried")
            assert running.tried_bytes()[0] > 0
            assert neighbour.answer() > 0
        assert neighbour.ask("release") == []
        assert running.is_running()
    assert slots.tree.read("nr_kdamonds") == "0"


def test_a_killed_process_leaves_a_kdamond_that_is_found_and_stopped(
    slots: KdamondSlots, neighbour: Neighbour, child: Child
) -> None:
    assert neighbour.ask(f"start {child.pid}")[0] == 0
    neighbour.kill()
    (left,) = slots.abandoned()
    assert left.is_running
    with control.start(watching(child), slots=slots) as running:
        assert "it still ran, and was stopped" in running.events[0]
        assert running.tried_bytes()[0] > 0
    assert slots.tree.read("nr_kdamonds") == "0"


def test_what_was_left_can_be_stopped_alone(slots: KdamondSlots, neighbour: Neighbour, child: Child) -> None:
    neighbour.ask(f"start {child.pid}")
    neighbour.kill()
    assert len(slots.stop_abandoned()) == 1
    assert slots.look().holder is Holder.FREE


def test_a_strangers_kdamonds_are_not_touched(slots: KdamondSlots, tmp_path: Path, child: Child) -> None:
    stranger = KdamondSlots(registry=Registry(tmp_path / "stranger"), nr_slots=1)
    with control.start(watching(child), slots=stranger) as running:
        state = slots.look()
        assert state.holder is Holder.OTHER
        assert f"thread {running.thread()}" in state.sentence
        with pytest.raises(TargetBusy, match="another owner"):
            slots.claim()
        assert slots.stop_abandoned() == ()
        assert running.tried_bytes()[0] > 0


def test_a_tree_rewritten_by_a_stranger_is_lost_and_left_alone(slots: KdamondSlots) -> None:
    claim = slots.claim()
    nr_kdamonds = slots.tree.kdamonds / "nr_kdamonds"
    nr_kdamonds.write_text("3")  # as another program would, in a guest of our own
    try:
        assert slots.look().holder is Holder.OTHER
        with pytest.raises(OwnershipLost):
            slots.tree.write(claim.ownership, "contexts/nr_contexts", "1")
        assert "has been removed" in claim.release()[0]
        assert slots.tree.read("nr_kdamonds") == "3"
    finally:
        nr_kdamonds.write_text("0")


@pytest.mark.parametrize("module", ["damon_stat", "damon_reclaim", "damon_lru_sort"])
def test_a_module_holds_the_tree_until_it_is_disabled(slots: KdamondSlots, module: str) -> None:
    enabled = DEFAULT_MODULES / module / "parameters" / "enabled"
    if not enabled.exists():
        pytest.skip(f"no {module}")
    enabled.write_text("Y")
    try:
        state = slots.look()
        assert state.holder is Holder.MODULE
        assert f"echo N > {enabled}" in state.hint
        with pytest.raises(TargetBusy, match=module.upper()):
            slots.claim()
        assert slots.tree.read("nr_kdamonds") == "0"
    finally:
        enabled.write_text("N")
    assert slots.look().holder is Holder.FREE
