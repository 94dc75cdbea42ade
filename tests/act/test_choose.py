"""Which actions this host offers: from a capable host one fact is taken away at a time."""

from dataclasses import replace

import pytest

from memtherm.act.choose import ActionWay, rank_actions
from memtherm.core.scheme import Action
from memtherm.linux.capabilities import effective
from memtherm.linux.facts import HostFacts, probe_host
from memtherm.linux.huge_pages import HugePageFacts
from memtherm.linux.nodes import NumaNode
from memtherm.linux.swap import SwapState

ADVISING = {Action.WILLNEED, Action.COLD, Action.PAGEOUT, Action.COLLAPSE}
TRACING = {Action.HUGEPAGE, Action.NOHUGEPAGE}
MOVING = {Action.MIGRATE_HOT, Action.MIGRATE_COLD}
ACTING = ADVISING | TRACING | MOVING
TWO_NODES = (NumaNode(0, 1 << 30, 1 << 29), NumaNode(2, 1 << 30, 1 << 29))


@pytest.fixture
def capable() -> HostFacts:
    return replace(
        probe_host(),
        machine="x86_64",
        has_process_madvise=True,
        capabilities=effective() | {"CAP_SYS_NICE", "CAP_SYS_PTRACE", "CAP_SYS_ADMIN"},
        ptrace_scope=1,
        swap=SwapState(total_bytes=1 << 30, free_bytes=1 << 30, devices=()),
        huge_pages=HugePageFacts(mode="madvise", shared_memory_mode="never", pmd_size_bytes=2 << 20),
    )


def usable(facts: HostFacts) -> set[Action]:
    return {way.action for way in rank_actions(facts, TWO_NODES) if way.usable}


def way(facts: HostFacts, action: Action) -> ActionWay:
    return next(way for way in rank_actions(facts, TWO_NODES) if way.action is action)


def test_a_capable_host(capable: HostFacts) -> None:
    ways = rank_actions(capable, TWO_NODES)
    assert [way.action for way in ways] == list(Action)
    assert usable(capable) == ACTING | {Action.STAT}
    assert all(way.reason for way in ways)
    assert all(way.remedy for way in ways if not way.usable)


def test_this_host_is_asked_for_its_nodes(capable: HostFacts) -> None:
    assert [way.action for way in rank_actions(capable)] == list(Action)


def test_without_process_madvise(capable: HostFacts) -> None:
    assert usable(capable) - usable(replace(capable, has_process_madvise=False)) == ADVISING


@pytest.mark.parametrize(
    ("capability", "lost"),
    [
        ("CAP_SYS_NICE", ADVISING),
        ("CAP_SYS_PTRACE", ACTING),
        ("CAP_SYS_ADMIN", {Action.COLD, Action.WILLNEED}),
    ],
)
def test_without_a_capability(capable: HostFacts, capability: str, lost: set[Action]) -> None:
    poorer = replace(capable, capabilities=capable.capabilities - {capability})
    assert usable(capable) - usable(poorer) == lost
    assert all(capability in way(poorer, action).reason for action in lost)


def test_without_the_right_to_move_shared_pages(capable: HostFacts) -> None:
    found = way(replace(capable, capabilities=frozenset({"CAP_SYS_PTRACE"})), Action.MIGRATE_COLD)
    assert found.usable
    assert "stay" in found.reason
    assert "CAP_SYS_NICE" in found.remedy


def test_huge_page_advice_is_opt_in(capable: HostFacts) -> None:
    assert all("opt-in: allow_ptrace" in way(capable, action).reason for action in TRACING)


@pytest.mark.parametrize("change", [{"machine": "aarch64"}, {"ptrace_scope": 3}])
def test_without_ptrace(capable: HostFacts, change: dict[str, object]) -> None:
    poorer = replace(capable, **change)  # type: ignore[arg-type]
    assert usable(capable) - usable(poorer) == TRACING
    assert all("collapse" in way(poorer, action).remedy for action in TRACING)


@pytest.mark.parametrize("nodes", [TWO_NODES[:1], (TWO_NODES[0], NumaNode(1, 0, 0))])
def test_with_one_memory_node(capable: HostFacts, nodes: tuple[NumaNode, ...]) -> None:
    ways = [way for way in rank_actions(capable, nodes) if way.action in MOVING]
    assert {(way.usable, way.reason) for way in ways} == {(False, "this host has one NUMA node")}


def test_without_swap_files_can_still_be_paged_out(capable: HostFacts) -> None:
    found = way(replace(capable, swap=SwapState(0, 0, ())), Action.PAGEOUT)
    assert found.usable
    assert "no swap" in found.reason
    assert "zram" in found.remedy


def test_without_huge_pages(capable: HostFacts) -> None:
    absent = HugePageFacts(mode="absent", shared_memory_mode="absent", pmd_size_bytes=0)
    assert usable(capable) - usable(replace(capable, huge_pages=absent)) == {Action.COLLAPSE, *TRACING}


def test_huge_page_advice_where_huge_pages_are_switched_off(capable: HostFacts) -> None:
    never = HugePageFacts(mode="never", shared_memory_mode="never", pmd_size_bytes=2 << 20)
    found = way(replace(capable, huge_pages=never), Action.HUGEPAGE)
    assert found.usable
    assert "without effect" in found.reason
    assert found.remedy
