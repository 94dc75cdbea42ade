"""What a policy cannot have on this host, told before it runs."""

from dataclasses import replace

import pytest

from memtherm.core.filters import Filter, FilterKind
from memtherm.core.goals import Goal, GoalMetric
from memtherm.core.pattern import AccessPattern, Bounds
from memtherm.core.quota import Quota
from memtherm.core.scheme import Action, Destination, Scheme
from memtherm.linux.facts import probe_host
from memtherm.linux.nodes import read_nodes
from memtherm.linux.swap import SwapState
from memtherm.policy.values import Policy, TargetSelector
from memtherm.session import host_check
from memtherm.session.host_check import host_warnings
from support.privileges import run_as_nobody
from support.requires import require

ABSENT_NODE = 1000
COLD = AccessPattern(access_rate=Bounds(0, 0), age_s=Bounds(120, None))


def _stat(**limits: object) -> Policy:
    return Policy(schemes=(Scheme(name="it", action=Action.STAT, **limits),))  # type: ignore[arg-type]


def _hide(monkeypatch: pytest.MonkeyPatch, *features: str) -> None:
    monkeypatch.setenv("MEMTHERM_WITHOUT", ",".join(features))


def test_a_policy_that_needs_nothing_has_no_warnings() -> None:
    targets = (TargetSelector(user="root"), TargetSelector(user=12345), TargetSelector(cgroup="/"))
    goal = Goal(metric=GoalMetric.FREE_MEMORY, target=0.2, node=read_nodes()[0].number)
    policy = Policy(targets=targets, schemes=_stat(quota=Quota(goals=(goal,))).schemes)
    assert host_warnings(policy) == []


@pytest.mark.parametrize(
    ("target", "part"),
    [
        (
            TargetSelector(user="nobody-here"),
            "target: no user 'nobody-here' on this host (`getent passwd` lists users)",
        ),
        (TargetSelector(cgroup="/not/there"), "target: no cgroup '/not/there' (the nearest that exists is /"),
    ],
)
def test_users_and_cgroups_that_do_not_exist(target: TargetSelector, part: str) -> None:
    (warning,) = host_warnings(Policy(targets=(target,)))
    assert warning.startswith(f"on this host: {part}")


@pytest.mark.parametrize(
    ("goal", "part"),
    [
        (
            Goal(metric=GoalMetric.USED_MEMORY, target=0.5, node=ABSENT_NODE),
            "has no memory node 1000 (nodes with memory",
        ),
        (Goal(metric=GoalMetric.USED_MEMORY, target=0.5, cgroup="/not/there"), "no cgroup '/not/there'"),
        (Goal(metric=GoalMetric.USER_INPUT, target=5), ""),
    ],
)
def test_goals_that_cannot_be_measured(goal: Goal, part: str) -> None:
    found = host_warnings(_stat(quota=Quota(goals=(goal,))))
    assert len(found) == bool(part)
    assert all(part in warning and f'on this host: scheme "it": goal {goal.metric}: ' in warning for warning in found)


def test_a_goal_of_memory_pressure_where_psi_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    _hide(monkeypatch, "psi")
    goal = Goal(metric=GoalMetric.MEMORY_PRESSURE, target=0.01)
    (warning,) = host_warnings(_stat(quota=Quota(goals=(goal,))))
    assert "memory pressure is not measured: hidden by MEMTHERM_WITHOUT=psi" in warning


def test_pageout_without_swap(monkeypatch: pytest.MonkeyPatch) -> None:
    without = replace(probe_host(), swap=SwapState(total_bytes=0, free_bytes=0, devices=()))
    monkeypatch.setattr(host_check, "probe_host", lambda: without)
    (warning,) = host_warnings(Policy(schemes=(Scheme(name="it", action=Action.PAGEOUT, pattern=COLD),)))
    assert "pageout: file-mapped memory only: this host has no swap" in warning


def test_actions_that_cannot_be_done_are_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    _hide(monkeypatch, "process_madvise")
    schemes = tuple(Scheme(name=name, action=Action.COLD, pattern=COLD) for name in ("a", "b"))
    assert host_warnings(Policy(schemes=schemes)) == [
        "on this host: cold: this kernel has no process_madvise (boot Linux 6.1 or newer)"
    ]


def test_destinations_that_do_not_exist() -> None:
    scheme = Scheme(name="it", action=Action.MIGRATE_COLD, pattern=COLD, destinations=(Destination(ABSENT_NODE),))
    assert any(
        warning.startswith('on this host: scheme "it": destination: there is no memory node 1000')
        for warning in host_warnings(Policy(schemes=(scheme,)))
    )


def test_huge_page_advice_without_huge_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    _hide(monkeypatch, "thp")
    (warning,) = host_warnings(Policy(schemes=(Scheme(name="it", action=Action.HUGEPAGE),)))
    assert "hugepage: this kernel has no transparent huge pages" in warning


def test_filters_that_cannot_be_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    _hide(monkeypatch, "bpf")
    young, cgroup = host_warnings(
        _stat(
            filters=(
                Filter(kind=FilterKind.YOUNG, allow=False),
                Filter(kind=FilterKind.CGROUP, allow=False, cgroup="/not/there"),
            )
        )
    )
    assert "filter by young: no probe sees single pages: not by bpf: this kernel has no BPF" in young
    assert "filter by cgroup: no cgroup '/not/there'" in cgroup


def test_what_only_root_may_do() -> None:
    require("root")
    schemes = (
        Scheme(
            name="it", action=Action.NOHUGEPAGE, pattern=COLD, filters=(Filter(kind=FilterKind.ACTIVE, allow=False),)
        ),
    )
    found = run_as_nobody(lambda: host_warnings(Policy(schemes=schemes)))
    assert [warning.split("missing ")[1].split(" ")[0] for warning in found] == ["CAP_SYS_PTRACE", "CAP_SYS_ADMIN"]
