"""A policy written as TOML and read again is the same policy."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memtherm.core.attributes import TUNED, IntervalGoal, MonitoringAttributes
from memtherm.core.filters import Filter, FilterKind
from memtherm.core.goals import Goal, GoalMetric, Tuner
from memtherm.core.guard import GuardSettings
from memtherm.core.pattern import AccessPattern, Bounds
from memtherm.core.quota import Quota, Weights
from memtherm.core.scheme import Action, Destination, Scheme
from memtherm.core.watermarks import Watermarks
from memtherm.errors import InvalidInput
from memtherm.policy.fields import FIELDS
from memtherm.policy.file import load_policy, parse_policy
from memtherm.policy.to_toml import policy_toml
from memtherm.policy.values import Policy, TargetSelector, named

POLICIES = sorted((Path(__file__).parents[2] / "policies").iterdir())

# Times in µs and rates in 1/10000, as people write them; texts that could break out of quotes.
_TIMES = st.integers(0, 10**10).map(lambda count: count / 1e6)
_SHARES = st.integers(0, 10**4).map(lambda count: count / 1e4)
_SIZES = st.integers(0, 2**50)
_NAMES = st.text(st.characters(categories=("L", "N", "P", "S")), min_size=1, max_size=12)
_ONE = (Scheme(action=Action.STAT),)
_KNOWN = (TargetSelector(pid=1, label="a"), TargetSelector(pid=2, label="b"))
_LABELS = st.sampled_from([target.label for target in _KNOWN])
_ADDRESSES = st.tuples(st.integers(0, 2**40), st.integers(2**40 + 1, 2**48))


def _bounds(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Bounds]:
    ordered = st.tuples(values, values).map(sorted)
    return ordered.flatmap(
        lambda pair: st.sampled_from([Bounds(*pair), Bounds(pair[0], None), Bounds(None, pair[1]), Bounds()])
    )


def _some(build: Any, **values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Values of which each may be left as it is by default."""
    return st.fixed_dictionaries({}, optional=values).map(lambda given: build(**given))


_TARGETS = st.one_of(
    st.builds(TargetSelector, name=_NAMES, children=st.booleans(), label=st.just("") | _NAMES),
    st.builds(TargetSelector, pid=st.integers(1, 2**22), label=st.just("") | _NAMES),
    st.builds(TargetSelector, pid=st.integers(1, 2**22), ranges=_ADDRESSES.map(lambda one: (one,))),
    st.builds(TargetSelector, user=_NAMES | st.integers(0, 2**32 - 2)),
    st.builds(TargetSelector, cgroup=_NAMES),
    st.builds(TargetSelector, physical=st.just(True), label=st.just("") | _NAMES),
)  # fmt: skip
_FILTERS = st.one_of(
    st.builds(
        Filter,
        kind=st.sampled_from([FilterKind.ANONYMOUS, FilterKind.FILE, FilterKind.YOUNG, FilterKind.ACTIVE]),
        allow=st.booleans(),
        matching=st.booleans(),
    ),
    st.builds(
        lambda allow, pair: Filter(kind=FilterKind.ADDRESS, allow=allow, start=pair[0], end=pair[1]),
        st.booleans(), _ADDRESSES,
    ),
    st.builds(Filter, kind=st.just(FilterKind.TARGET), allow=st.booleans(), target=_LABELS),
    st.builds(Filter, kind=st.just(FilterKind.MAPPING), allow=st.booleans(), pattern=_NAMES),
    st.builds(Filter, kind=st.just(FilterKind.CGROUP), allow=st.booleans(), cgroup=_NAMES),
    st.builds(
        Filter, kind=st.just(FilterKind.HUGE_PAGE), allow=st.booleans(), size_bytes=_bounds(_SIZES).filter(
            lambda bounds: bounds != Bounds()
        )
    ),
)  # fmt: skip
_GOALS = st.one_of(
    st.builds(
        Goal, metric=st.just(GoalMetric.MEMORY_PRESSURE), target=_TIMES.filter(bool), cgroup=st.just("") | _NAMES
    ),
    st.builds(
        Goal, metric=st.just(GoalMetric.USED_MEMORY), target=_SHARES.filter(bool), node=st.none() | st.integers(0, 9)
    ),
    st.builds(Goal, metric=st.just(GoalMetric.USER_INPUT), target=st.integers(1, 10**9) | st.floats(0.001, 1e6)),
)
_QUOTAS = _some(
    Quota,
    size_bytes=st.integers(4096, 2**40),
    time_s=_TIMES,
    reset_interval_s=_TIMES,
    weights=_some(Weights, size=st.integers(0, 1000), access_rate=st.integers(0, 1000), age=st.integers(0, 1000)),
    goals=st.lists(_GOALS, max_size=2).map(tuple),
    tuner=st.sampled_from(Tuner),
    fail_charge=st.tuples(st.integers(0, 9), st.integers(1, 9)),
)
_SCHEMES = _some(
    lambda action=Action.STAT, **values: Scheme(action=action, **values),
    action=st.sampled_from([action for action in Action if "migrate" not in action]),
    name=_NAMES,
    pattern=_some(
        AccessPattern, size_bytes=_bounds(_SIZES), access_rate=_bounds(_SHARES), age_s=_bounds(_TIMES)
    ),
    quota=_QUOTAS,
    filters=st.lists(_FILTERS, max_size=3).map(tuple),
    apply_interval_s=_TIMES,
    max_nr_snapshots=st.integers(0, 2**32 - 1),
    targets=st.lists(_LABELS, min_size=1, max_size=2).map(tuple),
    watermarks=st.tuples(_SHARES, _SHARES, _SHARES).map(sorted).flatmap(
        lambda marks: _some(
            lambda **more: Watermarks(low=marks[0], mid=marks[1], high=marks[2], **more), interval_s=_TIMES
        )
    ),
)  # fmt: skip
_POLICIES = _some(
    lambda schemes=_ONE, targets=_KNOWN, **values: Policy(
        schemes=named(schemes), targets=targets, **values
    ),
    targets=st.lists(_TARGETS, max_size=2).map(lambda some: (*_KNOWN, *some)),
    schemes=st.lists(_SCHEMES, min_size=1, max_size=3, unique_by=lambda scheme: scheme.name or id(scheme)),
    attributes=st.just(TUNED) | _some(
        MonitoringAttributes, method=st.sampled_from(["census", "sampling"]), max_nr_regions=st.integers(10, 10**6)
    ),
    guard=_some(
        GuardSettings, min_target_bytes=_SIZES, allow_ptrace=st.booleans(), max_refault_rate=_SHARES,
        max_bytes_per_s=_SIZES, min_free_swap=_SHARES,
    ),
)  # fmt: skip


@settings(deadline=None)
@given(policy=_POLICIES)
def test_any_policy_is_read_again_as_it_was(policy: Policy) -> None:
    assert parse_policy(policy_toml(policy)) == policy


@pytest.mark.parametrize("path", POLICIES, ids=lambda path: path.stem)
def test_ready_policies_are_read_again_as_they_were(path: Path) -> None:
    policy = load_policy(path)
    assert parse_policy(policy_toml(policy)) == policy


def test_what_is_as_usual_is_not_written() -> None:
    text = policy_toml(Policy(schemes=named([Scheme(action=Action.COLD)])))
    assert text == 'version = 1\n\n[[scheme]]\nname = "scheme 1 (cold)"\naction = "cold"\n'


def test_the_text_is_as_people_write_it() -> None:
    scheme = Scheme(
        name='cold "pages"',
        action=Action.MIGRATE_COLD,
        pattern=AccessPattern(access_rate=Bounds(0, 0), age_s=Bounds(120, None), size_bytes=Bounds(4096, 2**30)),
        quota=Quota(
            size_bytes=128 << 20, weights=Weights(age=1), goals=(Goal(metric=GoalMetric.USER_INPUT, target=5),)
        ),
        destinations=(Destination(1), Destination(2, weight=3)),
    )
    policy = Policy(targets=(TargetSelector(name="redis*", children=True),), schemes=(scheme,))
    assert parse_policy(policy_toml(policy)) == policy
    assert (
        policy_toml(policy)
        == """\
version = 1

[[target]]
name = "redis*"
children = true

[[scheme]]
name = "cold \\"pages\\""
size = "4 KiB .. 1 GiB"
access_rate = "== 0 %"
age = ">= 2 min"
action = "migrate_cold"
quota = { bytes = "128 MiB", weights = { age = 1 } }
goals = [
    { metric = "user_input", target = 5 },
]
destinations = [
    { node = 1, weight = 1 },
    { node = 2, weight = 3 },
]
"""
    )


def test_every_kind_of_value_can_be_written() -> None:
    from memtherm.policy.to_toml import _WRITERS

    assert {field.kind.noun for field in FIELDS if field.kind not in _WRITERS} == {"the version of the format"}


def test_an_interval_goal_of_ones_own_has_no_key() -> None:
    attributes = MonitoringAttributes(interval_goal=IntervalGoal(windows=5))
    with pytest.raises(InvalidInput, match="no key for an interval goal"):
        policy_toml(Policy(attributes=attributes))
