"""Warnings of what is allowed and probably not meant."""

import pytest

from memtherm.core.filters import Filter, FilterKind
from memtherm.core.goals import Goal, GoalMetric, Tuner
from memtherm.core.guard import GuardSettings
from memtherm.core.pattern import AccessPattern, Bounds
from memtherm.core.quota import Quota, Weights
from memtherm.core.scheme import Action, Destination, Scheme
from memtherm.core.watermarks import Watermarks
from memtherm.policy.file import parse_policy
from memtherm.policy.values import Policy
from memtherm.policy.warnings import scheme_warnings, warnings


def _scheme(action: Action, **bounds: Bounds) -> Scheme:
    return Scheme(action=action, pattern=AccessPattern(**bounds), name="it")


COLD = {"access_rate": Bounds(0, 0), "age_s": Bounds(120, None)}


@pytest.mark.parametrize(
    ("scheme", "parts"),
    [
        (_scheme(Action.PAGEOUT, **COLD), []),
        (_scheme(Action.COLD, age_s=Bounds(120, None)), ["run --apply refuses it as it is"]),
        (_scheme(Action.PAGEOUT, access_rate=Bounds(0, 1), age_s=Bounds(1, None)), ["acts on hot memory"]),
        (_scheme(Action.PAGEOUT, access_rate=Bounds(0, 0)), ["without a least age"]),
        (_scheme(Action.PAGEOUT), ["acts on hot memory", "without a least age"]),
        (_scheme(Action.COLLAPSE), ["nobody uses"]),
        (_scheme(Action.HUGEPAGE, access_rate=Bounds(0.5, None)), []),
        (_scheme(Action.MIGRATE_COLD, **COLD), ["has no destinations: run --apply refuses it; add"]),
        (_scheme(Action.LRU_DEPRIO, **COLD), ["cannot do lru_deprio on another process: run --apply refuses it"]),
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


PSI = Goal(metric=GoalMetric.MEMORY_PRESSURE, target=0.01)
BY_AGE = Weights(age=1)


@pytest.mark.parametrize(
    ("limits", "parts"),
    [
        ({"quota": Quota(size_bytes=4096, weights=BY_AGE)}, []),
        ({"quota": Quota(size_bytes=4096)}, ["has no order"]),
        ({"quota": Quota(size_bytes=4096, weights=Weights(size=5))}, ["has no order"]),
        ({"quota": Quota(weights=BY_AGE)}, ["limits nothing"]),
        ({"quota": Quota(goals=(PSI,), weights=BY_AGE)}, []),
        ({"quota": Quota(goals=(PSI,), tuner=Tuner.TEMPORAL, weights=BY_AGE)}, ["acts on all at once"]),
        ({"quota": Quota(size_bytes=4096, tuner=Tuner.TEMPORAL, weights=BY_AGE)}, ["nothing to follow"]),
        (
            {"quota": Quota(goals=(Goal(metric=GoalMetric.USER_INPUT, target=1),), weights=BY_AGE)},
            ["set by a program"],
        ),
        ({"watermarks": Watermarks(high=0.5, mid=0.4, low=0.2)}, []),
        ({"watermarks": Watermarks(high=0.5, mid=0.2, low=0.2)}, ["never starts again"]),
        ({"watermarks": Watermarks(high=0.5, mid=0.5, low=0.2)}, ["by turns"]),
        ({"watermarks": Watermarks(high=1, mid=1, low=0.2)}, []),
    ],
)
def test_warnings_of_limits(limits: dict[str, object], parts: list[str]) -> None:
    scheme = Scheme(action=Action.PAGEOUT, pattern=AccessPattern(**COLD), **limits)  # type: ignore[arg-type]
    found = scheme_warnings(scheme)
    assert len(found) == len(parts)
    for part, warning in zip(parts, found, strict=True):
        assert part in warning


def test_a_bound_that_takes_in_hot_memory_is_meant_and_not_refused() -> None:
    (warning,) = scheme_warnings(_scheme(Action.PAGEOUT, access_rate=Bounds(0, 1), age_s=Bounds(1, None)))
    assert "acts on hot memory" in warning
    assert "refuses" not in warning


def test_a_policy_without_faults_has_no_warnings() -> None:
    assert warnings(Policy(schemes=(_scheme(Action.PAGEOUT, **COLD),))) == []


def test_willneed_for_what_is_there_is_warned_of() -> None:
    scheme = Scheme(action=Action.WILLNEED, filters=(Filter(kind=FilterKind.YOUNG, allow=True),))
    assert "is there already" in scheme_warnings(scheme)[0]


def test_warnings_of_a_policy_name_the_scheme_and_the_guard() -> None:
    policy = Policy(schemes=(_scheme(Action.PAGEOUT),), guard=GuardSettings(min_target_bytes=0))
    assert [warning.split(":")[0] for warning in warnings(policy)] == ['scheme "it"', 'scheme "it"', "guard"]


def test_huge_page_advice_needs_the_guard_to_allow_ptrace() -> None:
    schemes = (_scheme(Action.HUGEPAGE, access_rate=Bounds(0.5, None)),)
    (warning,) = warnings(Policy(schemes=schemes))
    assert "allow_ptrace = true in [guard]: without it run --apply refuses it" in warning
    assert "collapse needs no ptrace" in warning
    assert warnings(Policy(schemes=schemes, guard=GuardSettings(allow_ptrace=True))) == []


def test_an_apply_interval_between_two_looks_is_warned_of() -> None:
    text = 'version = 1\n[[scheme]]\naction = "stat"\napply_interval = "1s"\n[monitor]\naggregation_interval = "4s"\n'
    assert warnings(parse_policy(text + 'sampling_interval = "1s"')) == []
    (warning,) = warnings(parse_policy(text + 'sampling_interval = "2s"'))
    assert "below the time between two looks, 2 seconds, is that time" in warning


@pytest.mark.parametrize("action", list(Action))
def test_only_for_collapse_an_override_of_what_the_application_asked_for_is_warned_of(action: Action) -> None:
    def told(*, override: bool) -> list[str]:
        guard = GuardSettings(allow_ptrace=True, override_application_hints=override)
        scheme = _scheme(action, access_rate=Bounds(0.5, None))
        return [one for one in warnings(Policy(schemes=(scheme,), guard=guard)) if "override" in one]

    assert told(override=False) == []
    found = told(override=True)
    assert len(found) == (action is Action.COLLAPSE)
    assert all("the kernel itself refuses to collapse" in one for one in found)


HOT = {"access_rate": Bounds(0.05, None)}
GUARD = GuardSettings(allow_ptrace=True)


def _named(name: str, action: Action, bounds: dict[str, Bounds], *nodes: int, targets: tuple[str, ...] = ()) -> Scheme:
    places = tuple(Destination(node) for node in nodes)
    return Scheme(name=name, action=action, pattern=AccessPattern(**bounds), targets=targets, destinations=places)


@pytest.mark.parametrize(
    ("one", "other", "on"),
    [
        (
            _named("a", Action.PAGEOUT, COLD),
            _named("b", Action.WILLNEED, {"size_bytes": Bounds(2 << 20, None)}),
            "in regions of 2 MiB or more that was not accessed for 2 minutes or longer",
        ),
        (_named("a", Action.PAGEOUT, COLD), _named("b", Action.WILLNEED, HOT), ""),
        (_named("a", Action.PAGEOUT, COLD), _named("b", Action.COLD, COLD), ""),
        (
            _named("a", Action.COLD, {"access_rate": Bounds(None, 0.1), "age_s": Bounds(5, None)}),
            _named("b", Action.LRU_PRIO, HOT),
            "in regions of any size with an access rate of 5 % to 10 % for 5 seconds or longer",
        ),
        (_named("a", Action.HUGEPAGE, HOT), _named("b", Action.NOHUGEPAGE, COLD), ""),
        # They share no more than the border of 5 %.
        (
            _named("a", Action.HUGEPAGE, HOT),
            _named("b", Action.NOHUGEPAGE, {"access_rate": Bounds(0, 0.05), "age_s": Bounds(7, None)}),
            "",
        ),
        (
            _named("a", Action.COLLAPSE, HOT),
            _named("b", Action.NOHUGEPAGE, {"access_rate": Bounds(0, 0.06), "age_s": Bounds(7, None)}),
            "in regions of any size with an access rate of 5 % to 6 % for 7 seconds or longer",
        ),
        (
            _named("a", Action.PAGEOUT, COLD, targets=("x",)),
            _named("b", Action.WILLNEED, {}, targets=("y",)),
            "",
        ),
        (
            _named("a", Action.PAGEOUT, COLD, targets=("x", "y")),
            _named("b", Action.WILLNEED, {}, targets=("y",)),
            "in regions of any size that was not accessed for 2 minutes or longer",
        ),
        (_named("a", Action.MIGRATE_HOT, HOT, 0), _named("b", Action.MIGRATE_COLD, COLD, 1), ""),
        (
            _named("a", Action.MIGRATE_HOT, HOT, 1),
            _named("b", Action.MIGRATE_COLD, {"access_rate": Bounds(None, 0.5), "age_s": Bounds(9, None)}, 1),
            "in regions of any size with an access rate of 5 % to 50 % for 9 seconds or longer",
        ),
    ],
)
def test_schemes_that_fight_are_told_with_what_they_fight_about(one: Scheme, other: Scheme, on: str) -> None:
    found = [warning for warning in warnings(Policy(schemes=(one, other), guard=GUARD)) if "each other" in warning]
    assert found == ([f'schemes "a" and "b" act against each other on memory {on}'] if on else [])
