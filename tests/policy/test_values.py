"""Targets and policies as values: what cannot be meant is refused."""

from collections.abc import Callable
from typing import cast

import pytest

from memtherm.core.guard import GuardSettings
from memtherm.core.scheme import Action, Scheme
from memtherm.errors import InvalidInput
from memtherm.policy.values import Policy, TargetSelector


@pytest.mark.parametrize(
    "wrong",
    [
        TargetSelector,
        lambda: TargetSelector(name="a", pid=1),
        lambda: TargetSelector(user="a", cgroup="/b"),
        lambda: TargetSelector(name=" "),
        lambda: TargetSelector(cgroup=""),
        lambda: TargetSelector(user=""),
        lambda: TargetSelector(user=-1),
        lambda: TargetSelector(user=2**32 - 1),
        lambda: TargetSelector(pid=0),
        lambda: TargetSelector(pid=1, children=cast("bool", "yes")),
        lambda: GuardSettings(min_target_bytes=-1),
        lambda: GuardSettings(min_target_bytes=cast("int", 1.5)),
        lambda: GuardSettings(override_application_hints=cast("bool", 1)),
        lambda: Policy(schemes=(Scheme(action=Action.STAT, name="a"), Scheme(action=Action.COLD, name="a"))),
    ],
)
def test_values_that_cannot_be_meant_are_refused_with_a_hint(wrong: Callable[[], object]) -> None:
    with pytest.raises(InvalidInput) as refusal:
        wrong()
    assert refusal.value.hint


@pytest.mark.parametrize(
    ("selector", "label"),
    [
        (TargetSelector(name="worker-*"), "worker-*"),
        (TargetSelector(pid=42), "42"),
        (TargetSelector(user=0), "0"),
        (TargetSelector(user="postgres"), "postgres"),
        (TargetSelector(cgroup="/a/b"), "/a/b"),
        (TargetSelector(cgroup="/a/b", label="batch"), "batch"),
    ],
)
def test_a_target_without_a_label_is_called_as_what_selects_it(selector: TargetSelector, label: str) -> None:
    assert selector.label == label
