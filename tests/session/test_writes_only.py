"""A probe that sees writes only: what it must not decide, and that each snapshot says so."""

from dataclasses import replace

import pytest

from memtherm.core.attributes import MonitoringAttributes
from memtherm.core.pattern import ANY, AccessPattern, Bounds
from memtherm.core.scheme import Action, Destination, Scheme
from memtherm.core.snapshot import Conditions
from memtherm.errors import InvalidInput, NotSupported
from memtherm.policy.values import Policy
from memtherm.session.belief import doubts
from memtherm.session.metrics import HostMetrics
from memtherm.session.scheme_check import GuardedSchemes, refuse_unseen
from memtherm.session.schemes import SchemeRunner
from memtherm.session.ways import choose_way
from memtherm.testing import VirtualClock

WRITTEN = Bounds(0.2, None)


def scheme(action: Action, rate: Bounds) -> Scheme:
    destinations = (Destination(1),) if action in (Action.MIGRATE_HOT, Action.MIGRATE_COLD) else ()
    pattern = AccessPattern(access_rate=rate)
    return Scheme(name="one", action=action, pattern=pattern, destinations=destinations)


@pytest.mark.parametrize(
    ("action", "rate"),
    [
        (Action.PAGEOUT, Bounds(0, 0)),
        (Action.PAGEOUT, Bounds(None, 1)),
        (Action.PAGEOUT, WRITTEN),
        (Action.COLD, Bounds(0, 0.1)),
        (Action.MIGRATE_COLD, WRITTEN),
        (Action.LRU_DEPRIO, WRITTEN),
        (Action.NOHUGEPAGE, Bounds(0, 0.05)),
        (Action.MIGRATE_HOT, Bounds(0.1, 0.9)),
        (Action.COLLAPSE, ANY),
        (Action.WILLNEED, Bounds(0, None)),
        (Action.STAT, Bounds(0, 0)),
    ],
)
def test_what_means_reads_is_refused(action: Action, rate: Bounds) -> None:
    with pytest.raises(InvalidInput, match='scheme "one": the softdirty probe sees writes only') as caught:
        refuse_unseen([scheme(action, rate)], probe="softdirty")
    assert "another probe" in caught.value.hint
    for probe in ("auto", "bpf", "smaps"):
        refuse_unseen([scheme(action, rate)], probe=probe)


@pytest.mark.parametrize(
    ("action", "rate"),
    [
        (Action.COLLAPSE, WRITTEN),
        (Action.MIGRATE_HOT, Bounds(0.2, 1)),
        (Action.HUGEPAGE, WRITTEN),
        (Action.STAT, WRITTEN),
        (Action.STAT, ANY),
    ],
)
def test_what_means_written_memory_is_taken(action: Action, rate: Bounds) -> None:
    refuse_unseen([scheme(action, rate)], probe="softdirty")


@pytest.mark.parametrize("apply", [False, True])
def test_a_session_refuses_before_it_looks_at_the_host(apply: bool) -> None:
    policy = Policy(schemes=(scheme(Action.PAGEOUT, Bounds(0, 0)),))
    with pytest.raises(InvalidInput, match="sees writes only"):
        choose_way("softdirty", attributes=MonitoringAttributes(), policy=policy, apply=apply)


def test_without_the_bits_it_is_said_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMTHERM_WITHOUT", "soft_dirty")
    with pytest.raises(NotSupported, match="not by softdirty: this kernel has no soft-dirty bits"):
        choose_way("softdirty", attributes=MonitoringAttributes(), policy=Policy())


def test_nor_may_a_running_session_be_given_such_schemes() -> None:
    first, second = scheme(Action.COLLAPSE, WRITTEN), scheme(Action.PAGEOUT, Bounds(0, 0))
    runner = SchemeRunner([first], metrics=HostMetrics(), clock=VirtualClock())
    schemes = GuardedSchemes(runner, policy=Policy(schemes=(first,)), apply=False, probe="softdirty")
    with pytest.raises(InvalidInput, match="sees writes only"):
        schemes.replace([second])
    assert runner.schemes == (first,)


def test_each_snapshot_says_so() -> None:
    conditions = Conditions(
        method="sampling",
        probe="softdirty",
        clearing="clear_refs",
        grain="page",
        sampling_interval_s=0.1,
        aggregation_interval_s=2.0,
        samples=20,
    )
    (told,) = doubts(conditions, canary_failure="")
    assert told == "this probe sees writes only: memory that is only read looks idle"
    assert doubts(replace(conditions, probe="bpf"), canary_failure="") == ()
