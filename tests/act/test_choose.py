"""Which actions this host offers: from a capable host one fact is taken away at a time."""

from dataclasses import replace

import pytest

from memtherm.act.choose import ActionWay, rank_actions
from memtherm.core.scheme import Action
from memtherm.linux.capabilities import effective
from memtherm.linux.facts import HostFacts, probe_host
from memtherm.linux.huge_pages import HugePageFacts
from memtherm.linux.swap import SwapState

ACTING = {Action.WILLNEED, Action.COLD, Action.PAGEOUT, Action.COLLAPSE}


@pytest.fixture
def capable() -> HostFacts:
    return replace(
        probe_host(),
        has_process_madvise=True,
        capabilities=effective() | {"CAP_SYS_NICE", "CAP_SYS_PTRACE", "CAP_SYS_ADMIN"},
        swap=SwapState(total_bytes=1 << 30, free_bytes=1 << 30, devices=()),
        huge_pages=HugePageFacts(mode="madvise", shared_memory_mode="never", pmd_size_bytes=2 << 20),
    )


def usable(facts: HostFacts) -> set[Action]:
    return {way.action for way in rank_actions(facts) if way.usable}


def way(facts: HostFacts, action: Action) -> ActionWay:
    return next(way for way in rank_actions(facts) if way.action is action)


def test_a_capable_host(capable: HostFacts) -> None:
    assert [way.action for way in rank_actions(capable)] == list(Action)
    assert usable(capable) == ACTING | {Action.STAT}
    assert all(way.reason for way in rank_actions(capable))
    assert all(way.remedy for way in rank_actions(capable) if not way.usable)


def test_without_process_madvise(capable: HostFacts) -> None:
    assert usable(replace(capable, has_process_madvise=False)) == {Action.STAT}


@pytest.mark.parametrize(
    ("capability", "lost"),
    [
        ("CAP_SYS_NICE", ACTING),
        ("CAP_SYS_PTRACE", ACTING),
        ("CAP_SYS_ADMIN", {Action.COLD, Action.WILLNEED}),
    ],
)
def test_without_a_capability(capable: HostFacts, capability: str, lost: set[Action]) -> None:
    poorer = replace(capable, capabilities=capable.capabilities - {capability})
    assert usable(capable) - usable(poorer) == lost
    assert all(capability in way(poorer, action).reason for action in lost)


def test_without_swap_files_can_still_be_paged_out(capable: HostFacts) -> None:
    found = way(replace(capable, swap=SwapState(0, 0, ())), Action.PAGEOUT)
    assert found.usable
    assert "no swap" in found.reason
    assert "zram" in found.remedy


def test_without_huge_pages(capable: HostFacts) -> None:
    absent = HugePageFacts(mode="absent", shared_memory_mode="absent", pmd_size_bytes=0)
    assert usable(capable) - usable(replace(capable, huge_pages=absent)) == {Action.COLLAPSE}
