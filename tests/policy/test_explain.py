"""Sentences about schemes, and warnings."""

from collections.abc import Callable
from typing import cast

import pytest

from memtherm.core.guard import GuardSettings
from memtherm.core.scheme import AccessPattern, Action, Bounds, Scheme
from memtherm.errors import InvalidInput
from memtherm.policy.explain import explain, explain_policy, scheme_warnings, warnings
from memtherm.policy.file import parse_policy
from memtherm.policy.scheme_line import parse_scheme_line
from memtherm.policy.values import Policy, TargetSelector, named


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (
            "4K max 0% 0% 2min max pageout",
            "pages out memory in regions of 4 KiB or more that was not accessed for 2 minutes or longer",
        ),
        (
            "100M max 0 5 10min max pageout",
            "pages out memory in regions of 100 MiB or more "
            "with an access rate of at most 5 % for 10 minutes or longer",
        ),
        ("0 0 0 0 0 0 stat", "counts memory in regions of any size at any access rate"),
        ("0 0 0% 0% 0 0 stat", "counts memory in regions of any size that was not accessed in the last window"),
        (
            "4K 2M 5 50 0 1s stat",
            "counts memory in regions of 4 KiB to 2 MiB with an access rate of 5 % to 50 % for at most 1 second",
        ),
        ("0 0 100 100 0 0 stat", "counts memory in regions of any size with an access rate of exactly 100 %"),
        (
            "0 0 0 100 5s 5s stat",
            "counts memory in regions of any size "
            "at any access rate that has stayed about the same for exactly 5 seconds",
        ),
    ],
)
def test_a_scheme_is_one_sentence(line: str, sentence: str) -> None:
    assert explain(parse_scheme_line(line)) == sentence


@pytest.mark.parametrize("action", list(Action))
def test_every_action_has_a_sentence(action: Action) -> None:
    assert " memory in regions of any size" in explain(Scheme(action=action))


def _scheme(action: Action, **bounds: Bounds) -> Scheme:
    return Scheme(action=action, pattern=AccessPattern(**bounds), name="it")


COLD = {"access_rate": Bounds(0, 0), "age_s": Bounds(120, None)}


@pytest.mark.parametrize(
    ("scheme", "parts"),
    [
        (_scheme(Action.PAGEOUT, **COLD), []),
        (_scheme(Action.COLD, age_s=Bounds(120, None)), ["acts on hot memory"]),
        (_scheme(Action.PAGEOUT, access_rate=Bounds(0, 1), age_s=Bounds(1, None)), ["acts on hot memory"]),
        (_scheme(Action.PAGEOUT, access_rate=Bounds(0, 0)), ["without a least age"]),
        (_scheme(Action.PAGEOUT), ["acts on hot memory", "without a least age"]),
        (_scheme(Action.COLLAPSE), ["nobody uses"]),
        (_scheme(Action.HUGEPAGE, access_rate=Bounds(0.5, None)), ["cannot do hugepage on another process"]),
        (_scheme(Action.MIGRATE_COLD, **COLD), ["cannot do migrate_cold"]),
        (_scheme(Action.STAT, age_s=Bounds(5, 5)), ["age is one exact value"]),
        (_scheme(Action.STAT, size_bytes=Bounds(None, 100)), ["never matches"]),
        (_scheme(Action.WILLNEED), []),
        (_scheme(Action.STAT), []),
    ],
)
def test_warnings_of_a_scheme(scheme: Scheme, parts: list[str]) -> None:
    found = scheme_warnings(scheme)
    assert len(found) == len(parts)
    for part, warning in zip(parts, found, strict=True):
        assert part in warning


def test_a_policy_is_explained_from_target_to_guard() -> None:
    policy = Policy(
        targets=(TargetSelector(name="redis-server"), TargetSelector(pid=42)),
        schemes=named([_scheme(Action.PAGEOUT, **COLD), Scheme(action=Action.STAT)]),
    )
    assert explain_policy(policy) == [
        'watches processes named "redis-server" and process 42',
        "counts every page while that is cheap enough, else lets one page speak for its region, "
        "at intervals that fit themselves to the target and to 1 % of one CPU, with 10 to 1000 regions",
        'scheme "it": pages out memory in regions of any size that was not accessed for 2 minutes or longer',
        'scheme "scheme 2 (stat)": counts memory in regions of any size at any access rate',
        "leaves targets with less than 64 MiB in memory alone",
    ]
    assert warnings(policy) == []


def test_warnings_of_a_policy_name_the_scheme_and_the_guard() -> None:
    policy = Policy(
        schemes=(_scheme(Action.PAGEOUT),), guard=GuardSettings(min_target_bytes=0, override_application_hints=True)
    )
    assert [warning.split(":")[0] for warning in warnings(policy)] == ['scheme "it"', 'scheme "it"', "guard"]
    assert explain_policy(policy)[-1] == "acts even against huge page advice that the application gave itself"


@pytest.mark.parametrize(
    "wrong",
    [
        TargetSelector,
        lambda: TargetSelector(name="a", pid=1),
        lambda: TargetSelector(name=" "),
        lambda: TargetSelector(pid=0),
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


def test_fixed_intervals_are_told() -> None:
    monitor = '[monitor]\nmethod = "census"\nsampling_interval = "1s"'
    policy = parse_policy(f'version = 1\n[[scheme]]\naction = "stat"\n{monitor}')
    sentence = "counts every page, looks every 1 second, decides every 20 seconds, with 10 to 1000 regions"
    assert explain_policy(policy)[1] == sentence
