"""What `check` says about where schemes run; trees that only behave like the kernel's."""

from pathlib import Path

import pytest

from memtherm.core.attributes import MonitoringAttributes
from memtherm.core.guard import GuardSettings
from memtherm.core.scheme import Action, Destination, Scheme
from memtherm.errors import InvalidInput
from memtherm.kdamond.ownership import KdamondSlots
from memtherm.kdamond.registry import Registry
from memtherm.policy.values import Policy, TargetSelector
from memtherm.session import placement
from memtherm.session.placement import placements
from memtherm.session.ways import choose_way
from support.fake_damon import FakeDamonTree

PHYSICAL = TargetSelector(physical=True)
STAT = Scheme(name="count", action=Action.STAT)
PAGEOUT = Scheme(name="page out", action=Action.PAGEOUT)
MIGRATE = Scheme(name="move", action=Action.MIGRATE_COLD, destinations=(Destination(0),))


@pytest.fixture
def tree(tmp_path: Path) -> FakeDamonTree:
    return FakeDamonTree(tmp_path / "damon")


@pytest.fixture
def slots(tree: FakeDamonTree, tmp_path: Path) -> KdamondSlots:
    return KdamondSlots(tree, registry=Registry(tmp_path / "registry"), modules=tmp_path / "modules", nr_slots=3)


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "why_not_heard", lambda: "")
    monkeypatch.setattr(placement, "why_not_without_swap", lambda _action: "")


def test_what_only_the_kernel_sees_is_refused_on_an_occupied_host(tree: FakeDamonTree, slots: KdamondSlots) -> None:
    tree.rewrite(1)
    for target, why in (
        (PHYSICAL, "only the kernel's DAMON sees physical memory"),
        (TargetSelector(pid=1, ranges=((4096, 8192),)), "only the kernel's DAMON keeps to given addresses"),
    ):
        (said,) = placements(Policy(targets=(target,), schemes=(STAT,)), slots=slots)
        assert said.startswith(f"where it runs: nowhere: {why}, and `memtherm run` refuses it here: ")
        assert "occupied by another owner" in said
        assert "nothing is written to it" in said
    asked_for = Policy(attributes=MonitoringAttributes(method="kdamond"), schemes=(STAT,))
    (said,) = placements(asked_for, slots=slots)
    assert said.startswith("where it runs: nowhere: the kernel's DAMON is asked for, and `memtherm run` refuses it")
    (said,) = placements(Policy(targets=(TargetSelector(pid=1),), schemes=(STAT,)), slots=slots)
    assert said.startswith("where it runs: all in user space: the DAMON tree is occupied by another owner")


def test_targets_that_do_not_go_together_are_refused(slots: KdamondSlots) -> None:
    mixed = Policy(targets=(PHYSICAL, TargetSelector(pid=1)), schemes=(STAT,))
    (said,) = placements(mixed, slots=slots)
    assert said.startswith("where it runs: nowhere: `memtherm run` refuses it: both physical memory and processes")


@pytest.mark.usefixtures("heard")
def test_what_hangs_on_features_is_said_as_far_as_known(slots: KdamondSlots) -> None:
    policy = Policy(targets=(TargetSelector(pid=1),), schemes=(STAT, PAGEOUT, MIGRATE))
    count, page_out, move = placements(policy, slots=slots)
    assert count == 'where it runs: "count" in the kernel, where method = "kdamond" watches'
    assert page_out.endswith("watches; guards watch it from outside")
    assert "(as far as known: which features this kernel has shows only once" in move
    (physical,) = placements(Policy(targets=(PHYSICAL,), schemes=(STAT,)), slots=slots)
    assert physical.startswith('where it runs: "count" in the kernel (as far as known')


def test_page_outs_that_nobody_hears_stay_in_user_space(slots: KdamondSlots, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "why_not_heard", lambda: "tracefs is not mounted")
    monkeypatch.setattr(placement, "why_not_without_swap", lambda _action: "")
    reason = "the refault guard could not see what the kernel pages out: tracefs is not mounted"
    targets = (TargetSelector(pid=1),)
    assert placements(Policy(targets=targets, schemes=(PAGEOUT,)), slots=slots) == [
        f'where it runs: "page out" in user space: {reason}'
    ]
    unguarded = Policy(targets=targets, schemes=(PAGEOUT,), guard=GuardSettings(max_refault_rate=0))
    assert '"page out" in the kernel' in placements(unguarded, slots=slots)[0]


def test_a_method_that_cannot_see_a_target_is_refused_with_the_one_that_can() -> None:
    with pytest.raises(InvalidInput) as refusal:
        choose_way("auto", attributes=MonitoringAttributes(method="census"), policy=Policy(), selectors=(PHYSICAL,))
    assert refusal.value.message == ("method census for such a target: only the kernel's DAMON sees physical memory")
