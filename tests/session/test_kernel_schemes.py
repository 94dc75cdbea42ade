"""What the kernel is handed of a policy, and what guards outside of it make of that; no DAMON is needed here."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import pytest

from memtherm.core.guard import GuardSettings
from memtherm.core.pattern import AccessPattern, Bounds
from memtherm.core.quota import Quota
from memtherm.core.scheme import Action, Scheme
from memtherm.core.snapshot import Regions
from memtherm.core.watermarks import Watermarks
from memtherm.errors import NotSupported
from memtherm.kdamond.features import Feature, KernelFeatures
from memtherm.kdamond.hand_down import Situation
from memtherm.kdamond.kernel_regions import KernelRegions
from memtherm.kdamond.parameters import KernelBounds, KernelFilterKind, KernelScheme, Operations
from memtherm.kdamond.tried_stream import TriedEvents
from memtherm.linux.process import Process, open_process
from memtherm.session import kernel_guards, kernel_schemes
from memtherm.session.kernel_schemes import KernelSchemes
from support.children import Child
from support.requires import require

MIB = 2**20
SITUATION = Situation(operations=Operations.VADDR, features=KernelFeatures(present=frozenset(Feature)))
NO_FLOOR = GuardSettings(min_target_bytes=0)
COLD = Scheme(name="cold", action=Action.COLD, pattern=AccessPattern(access_rate=Bounds(0, 0), age_s=Bounds(1, None)))
STAT = Scheme(name="stat", action=Action.STAT)
NOTHING = KernelBounds(0, 0)
NO_REGIONS = Regions(
    np.zeros(0, np.int32), np.zeros(0, np.uint64), np.zeros(0, np.uint64), np.zeros(0, np.int64),
    np.zeros(0), np.zeros(0), np.zeros(0),
)  # fmt: skip
NO_KERNEL_REGIONS = KernelRegions(
    np.zeros(0, np.int32), np.zeros(0, np.uint64), np.zeros(0, np.uint64), np.zeros(0, np.int64), np.zeros(0, np.int64)
)


@dataclass(frozen=True)
class Target:
    process: Process | None
    labels: tuple[str, ...] = ()


class Policy:
    """Schemes that a test exchanges."""

    def __init__(self, *schemes: Scheme) -> None:
        self.schemes = schemes

    def __call__(self) -> tuple[Scheme, ...]:
        return self.schemes


def schemes_of(policy: Policy, *, settings: GuardSettings = NO_FLOOR, apply: bool = True) -> KernelSchemes:
    return KernelSchemes(policy, user_input={}, settings=settings, apply=apply)


@contextmanager
def target_of(child: Child, *labels: str) -> Iterator[Target]:
    with open_process(child.pid) as process:
        yield Target(process, labels)


@pytest.fixture
def child() -> Iterator[Child]:
    with Child() as one:
        yield one


def acting(planned: tuple[KernelScheme, ...]) -> list[Action]:
    """The actions of those that fit any region."""
    return [one.action for one in planned if one.size_bytes != NOTHING]


def test_a_dry_run_hands_nothing_down_but_counts_of_physical_memory(child: Child) -> None:
    with target_of(child) as target:
        schemes = schemes_of(Policy(COLD), apply=False)
        assert schemes.plan(SITUATION, [target]) == ()
        assert schemes.handed_down == frozenset()
        assert schemes.take_events() == ['scheme "cold" runs in user space: a dry run is done in user space']
        schemes.close()
    physical = replace(SITUATION, operations=Operations.PADDR)
    schemes = schemes_of(Policy(replace(COLD, action=Action.LRU_DEPRIO)), apply=False)
    assert acting(schemes.plan(physical, [Target(None)])) == [Action.STAT]


def test_what_is_handed_down_keeps_away_from_what_guards_protect(child: Child) -> None:
    require("root")
    address = child.map(4 * MIB)
    child.mlock(address, MIB)
    with target_of(child) as target:
        schemes = schemes_of(Policy(COLD))
        (kernel,) = schemes.plan(SITUATION, [target])
        kept = [(one.start, one.end) for one in kernel.core_filters if one.kind is KernelFilterKind.ADDR]
        assert any(start <= address and address + MIB <= end for start, end in kept)
        assert not any(start < address + 2 * MIB and address + MIB < end for start, end in kept)
        assert all(one.matching and not one.allow for one in kernel.core_filters)
        assert schemes.take_events() == ['scheme "cold" runs in the kernel']
        schemes.close()


def test_a_quota_is_not_spent_on_addresses_without_memory(child: Child) -> None:
    used = child.map(64 * MIB)
    child.fill(used, 16 * MIB)
    reserved = used + 16 * MIB
    child.mprotect(reserved, 32 * MIB, 0)
    child.fill(reserved + 32 * MIB, 16 * MIB)
    quota = Quota(size_bytes=4 * MIB, reset_interval_s=1.0)
    with target_of(child) as target:
        for scheme, is_spared in ((replace(COLD, quota=quota), True), (COLD, False)):
            schemes = schemes_of(Policy(scheme))
            (kernel,) = schemes.plan(SITUATION, [target])
            kept = [(one.start, one.end) for one in kernel.core_filters if one.kind is KernelFilterKind.ADDR]
            assert ((reserved, reserved + 32 * MIB) in kept) == is_spared
            assert len(kept) <= 64
            schemes.close()


def test_a_target_below_the_floor_is_left_out_by_number(child: Child) -> None:
    with Child() as large, target_of(child) as small, target_of(large) as other:
        large.fill(large.map(96 * MIB), 96 * MIB)
        schemes = schemes_of(Policy(COLD), settings=GuardSettings(min_target_bytes=64 * MIB))
        (kernel,) = schemes.plan(SITUATION, [other, small])
        refused = [one.target for one in kernel.core_filters if one.kind is KernelFilterKind.TARGET]
        assert refused == [1]
        schemes.close()


def test_the_rate_limit_of_guards_is_a_quota_in_the_kernel(child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_schemes, "why_not_without_swap", lambda _action: "")
    limited = GuardSettings(min_target_bytes=0, max_bytes_per_s=10 * MIB, min_free_swap=0.0, max_refault_rate=0.0)
    pageout = replace(COLD, action=Action.PAGEOUT)
    with target_of(child) as target:
        for quota, expected in (
            (Quota(), 10 * MIB),
            (Quota(size_bytes=MIB), MIB),
            (Quota(size_bytes=100 * MIB, reset_interval_s=2.0), 20 * MIB),
        ):
            schemes = schemes_of(Policy(replace(pageout, quota=quota)), settings=limited)
            assert schemes.plan(SITUATION, [target])[0].quota.size_bytes == expected
            schemes.close()


def test_without_swap_the_kernel_may_not_page_out_processes(child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    pageout = replace(COLD, action=Action.PAGEOUT)
    reason = "without swap the kernel counts anonymous memory as paged out that stays where it is"
    monkeypatch.setattr(kernel_schemes, "why_not_without_swap", lambda action: reason * (action == "pageout"))
    with target_of(child) as target:
        schemes = schemes_of(Policy(pageout, STAT))
        assert acting(schemes.plan(SITUATION, [target])) == [Action.STAT]
        assert schemes.handed_down == {"stat"}
        assert f'scheme "cold" runs in user space: {reason}' in schemes.take_events()
        schemes.close()


def test_a_guard_that_stops_lets_the_scheme_rest_in_its_place(child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel knows schemes, and their statistics, by number."""
    stopped = ""
    monkeypatch.setattr(kernel_guards.KernelGuards, "why_stopped", lambda _self, action: stopped * (action != "stat"))
    with target_of(child) as target:
        schemes = schemes_of(Policy(COLD, STAT))
        before = schemes.plan(SITUATION, [target])
        assert acting(before) == [Action.COLD, Action.STAT]
        assert not schemes.is_changed(SITUATION)
        stopped = "stopped: 3 % came back"
        assert schemes.is_changed(SITUATION)
        resting = schemes.plan(SITUATION, [target])
        assert [one.action for one in resting] == [Action.COLD, Action.STAT]
        assert acting(resting) == [Action.STAT]
        report = schemes.reports(None, NO_REGIONS)[0]
        assert (report.is_active, report.state) == (False, "stopped: 3 % came back")
        stopped = ""
        assert schemes.plan(SITUATION, [target]) == before
        schemes.close()


def test_another_policy_keeps_the_places_of_the_old_schemes(child: Child) -> None:
    policy = Policy(COLD, STAT)
    with target_of(child) as target:
        schemes = schemes_of(policy)
        schemes.plan(SITUATION, [target])
        policy.schemes = (replace(COLD, name="new"), STAT)
        assert schemes.is_changed(SITUATION)
        planned = schemes.plan(SITUATION, [target])
        assert [one.size_bytes == NOTHING for one in planned] == [True, False, False]
        assert schemes.handed_down == {"stat", "new"}
        schemes.close()


def test_where_schemes_may_rest_by_watermarks_another_keeps_the_kernel_watching(child: Child) -> None:
    with target_of(child) as target:
        schemes = schemes_of(Policy(replace(COLD, watermarks=Watermarks(high=0.5, mid=0.4, low=0.1))))
        planned = schemes.plan(SITUATION, [target])
        assert planned[-1] == KernelScheme()
        assert len(planned) == 2
        schemes.close()


class Tried:
    """What the trace event of tried regions would tell."""

    def __init__(self, *, regions: KernelRegions = NO_KERNEL_REGIONS, lost_events: int = 0) -> None:
        self.found = TriedEvents(np.zeros(len(regions), np.int64), regions, lost_events)

    def read(self) -> TriedEvents:
        return self.found

    def close(self) -> None:
        """Nothing is held."""


def deaf(**_: int) -> Tried:
    raise NotSupported("tracefs is not mounted", hint="mount it")


PAGEOUT = replace(COLD, action=Action.PAGEOUT)


def test_where_page_outs_are_not_heard_the_refault_guard_keeps_them_in_user_space(
    child: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel_schemes, "why_not_without_swap", lambda _action: "")
    monkeypatch.setattr(kernel_schemes, "TriedStream", deaf)
    with target_of(child) as target:
        schemes = schemes_of(Policy(PAGEOUT, STAT))
        schemes.follow(900_000)
        assert acting(schemes.plan(SITUATION, [target])) == [Action.STAT]
        assert schemes.handed_down == {"stat"}
        reason = "the refault guard could not see what the kernel pages out: tracefs is not mounted"
        assert f'scheme "cold" runs in user space: {reason}' in schemes.take_events()
        schemes.close()


def test_without_a_refault_guard_nobody_needs_to_hear_page_outs(child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_schemes, "why_not_without_swap", lambda _action: "")
    monkeypatch.setattr(kernel_guards, "is_swap_full", lambda _least: False)
    monkeypatch.setattr(kernel_schemes, "TriedStream", deaf)
    with target_of(child) as target:
        schemes = schemes_of(Policy(PAGEOUT), settings=replace(NO_FLOOR, max_refault_rate=0.0))
        schemes.follow(900_000)
        assert acting(schemes.plan(SITUATION, [target])) == [Action.PAGEOUT]
        schemes.close()


def test_where_page_outs_are_heard_the_refault_guard_is_told(child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the policy has got its first scheme after the kdamond had begun."""
    monkeypatch.setattr(kernel_schemes, "why_not_without_swap", lambda _action: "")
    monkeypatch.setattr(kernel_guards, "is_swap_full", lambda _least: False)
    region = KernelRegions(
        np.zeros(1, np.int32), np.array([4096], np.uint64), np.array([8192], np.uint64),
        np.zeros(1, np.int64), np.ones(1, np.int64),
    )  # fmt: skip
    monkeypatch.setattr(kernel_schemes, "TriedStream", lambda **_: Tried(regions=region))
    told: list[tuple[list[int], list[int]]] = []
    monkeypatch.setattr(
        kernel_guards.KernelGuards,
        "note_paged_out",
        lambda _self, _target, start, end: told.append((start.tolist(), end.tolist())),
    )
    policy = Policy()
    with target_of(child) as target:
        schemes = schemes_of(policy)
        schemes.follow(900_000)
        assert schemes.plan(SITUATION, [target]) == ()
        policy.schemes = (PAGEOUT,)
        assert acting(schemes.plan(SITUATION, [target])) == [Action.PAGEOUT]
        schemes.look(NO_REGIONS, SITUATION, [0])
        assert told == [([4096], [8192])]
        schemes.close()


def test_lost_events_of_what_was_tried_are_told(child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_schemes, "TriedStream", lambda **_: Tried(lost_events=7))
    with target_of(child) as target:
        schemes = schemes_of(Policy(COLD))
        schemes.follow(900_000)
        schemes.plan(SITUATION, [target])
        schemes.take_events()
        schemes.look(NO_REGIONS, SITUATION, [0])
        (event,) = schemes.take_events()
        assert event.startswith("7 of the kernel's events on what schemes were tried on were lost")
        schemes.close()


def test_what_the_kernel_cannot_do_to_physical_memory_runs_nowhere() -> None:
    physical = replace(SITUATION, operations=Operations.PADDR)
    schemes = schemes_of(Policy(replace(COLD, action=Action.HUGEPAGE)))
    assert acting(schemes.plan(physical, [Target(None)])) == []
    reason = "the kernel's DAMON has no hugepage for physical memory"
    assert schemes.take_events() == [f'scheme "cold" runs nowhere: {reason}']
    schemes.close()
