"""A policy as damo's JSON: read again it is the same, damo itself takes it, and what it cannot say is refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from memtherm.core.attributes import IntervalGoal, MonitoringAttributes
from memtherm.core.filters import Filter, FilterKind
from memtherm.core.goals import Goal, GoalMetric, Tuner
from memtherm.core.guard import GuardSettings
from memtherm.core.pattern import AccessPattern, Bounds
from memtherm.core.quota import Quota, Weights
from memtherm.core.scheme import Action, Destination, Scheme
from memtherm.core.watermarks import Watermarks
from memtherm.errors import InvalidPolicy
from memtherm.policy.damo_json import parse_damo
from memtherm.policy.file import load_policy
from memtherm.policy.to_damo import policy_damo
from memtherm.policy.values import Policy, TargetSelector, named
from support.damo import damo_output
from support.requires import require

FOLDER = Path(__file__).parents[2] / "policies"
FULL = Scheme(
    action=Action.MIGRATE_COLD,
    pattern=AccessPattern(
        size_bytes=Bounds(4096, 2**30 + 1), access_rate=Bounds(None, 0.0525), age_s=Bounds(90.5, 3600)
    ),
    apply_interval_s=1.25,
    quota=Quota(
        size_bytes=(128 << 20) + 1,
        time_s=0.0105,
        reset_interval_s=2.5,
        weights=Weights(access_rate=3, age=997),
        goals=(
            Goal(metric=GoalMetric.MEMORY_PRESSURE, target=0.01),
            Goal(metric=GoalMetric.USED_MEMORY, target=0.955, node=1),
            Goal(metric=GoalMetric.FREE_MEMORY, target=0.5, node=0, cgroup="/a/b"),
            Goal(metric=GoalMetric.INACTIVE_MEMORY, target=0.25),
            Goal(metric=GoalMetric.USER_INPUT, target=5),
        ),
        tuner=Tuner.TEMPORAL,
        fail_charge=(1, 4096),
    ),
    watermarks=Watermarks(high=0.5, mid=0.405, low=0.2, interval_s=5),
    filters=(
        Filter(kind=FilterKind.ADDRESS, allow=True, start=2**40, end=2**41),
        Filter(kind=FilterKind.TARGET, allow=False, matching=False, target="42"),
        Filter(kind=FilterKind.ANONYMOUS, allow=False),
        Filter(kind=FilterKind.CGROUP, allow=True, matching=False, cgroup="/a"),
        Filter(kind=FilterKind.HUGE_PAGE, allow=False, size_bytes=Bounds(2 << 20, None)),
        Filter(kind=FilterKind.HUGE_PAGE, allow=False, size_bytes=Bounds(0, 4096)),
        Filter(kind=FilterKind.UNMAPPED, allow=False),
    ),
    destinations=(Destination(1, 3), Destination(2, 5)),
)
ATTRIBUTES = MonitoringAttributes(
    sampling_interval_s=0.0105, aggregation_interval_s=0.5, regions_update_interval_s=61, max_nr_regions=1500
)


def policy(*schemes: Scheme, **values: Any) -> Policy:
    return Policy(schemes=named(schemes or (Scheme(action=Action.STAT),)), **values)


FULL_POLICY = policy(
    FULL,
    replace(FULL, destinations=(Destination(1),), quota=Quota(weights=Weights(age=1))),
    targets=(TargetSelector(pid=42), TargetSelector(pid=43)),
    attributes=ATTRIBUTES,
)
PHYSICAL = policy(
    Scheme(action=Action.PAGEOUT, filters=(Filter(kind=FilterKind.ANONYMOUS, allow=True),)),
    targets=(TargetSelector(physical=True, ranges=((2**32, 2**33), (2**34, 2**35))),),
)
RANGES = policy(targets=(TargetSelector(pid=42, ranges=((2**32, 2**33),)),))
POLICIES = {"full": FULL_POLICY, "physical": PHYSICAL, "ranges": RANGES} | {
    path.stem: load_policy(path) for path in sorted(FOLDER.iterdir()) if path.stem != "access-aware-thp-collapse"
}


def nameless(one: Policy) -> list[Scheme]:
    return [replace(scheme, name="") for scheme in one.schemes]


def refusal(one: Policy) -> str:
    with pytest.raises(InvalidPolicy) as caught:
        policy_damo(one, source="p.toml")
    return str(caught.value)


@pytest.mark.parametrize("name", POLICIES)
def test_what_is_written_is_read_again(name: str) -> None:
    found = parse_damo(policy_damo(POLICIES[name]).text)
    assert nameless(found) == nameless(POLICIES[name])
    assert found.targets == POLICIES[name].targets
    assert found.attributes == POLICIES[name].attributes


@pytest.mark.parametrize("name", POLICIES)
def test_damo_takes_it_and_means_the_same(tmp_path: Path, name: str) -> None:
    """damo reads it into its classes, and prints those."""
    require("damo", "root")  # it asks for root, and has nothing to do with it here
    path = tmp_path / "kdamonds.json"
    path.write_text(policy_damo(POLICIES[name]).text)
    text = damo_output("args", "damon", "--kdamonds", path, "--format", "json")
    found = parse_damo(text)
    # Of percentages of an access pattern damo prints no more than whole ones, of sizes three digits.
    assert found.targets == POLICIES[name].targets
    assert found.attributes == POLICIES[name].attributes
    rounded = [_rounded(scheme) for scheme in nameless(found)]
    assert rounded == [_rounded(scheme) for scheme in nameless(POLICIES[name])]


def _rounded(scheme: Scheme) -> Scheme:
    """What is left of a scheme in damo's print."""

    def whole(bounds: Bounds, step: float) -> Bounds:
        return Bounds(*(None if end is None else int(end / step) * step for end in (bounds.minimum, bounds.maximum)))

    rate, size = whole(scheme.pattern.access_rate, 0.01), whole(scheme.pattern.size_bytes, 1 << 20)
    pattern = replace(scheme.pattern, access_rate=rate, size_bytes=size)
    quota = scheme.quota
    if not quota.is_set:
        quota = replace(quota, reset_interval_s=1.0)
    quota = replace(quota, size_bytes=quota.size_bytes >> 20 << 20)
    return replace(scheme, pattern=pattern, quota=quota)


def test_a_scheme_for_one_target_rejects_all_others() -> None:
    targets = tuple(TargetSelector(pid=pid, label=label) for pid, label in ((1, "a"), (2, "b"), (3, "c")))
    one = policy(Scheme(action=Action.STAT, targets=("b",)), targets=targets)
    (scheme,) = json.loads(policy_damo(one).text)["kdamonds"][0]["contexts"][0]["schemes"]
    (only,) = scheme["filters"]
    assert (only["filter_type"], only["matching"], only["allow"], only["damon_target_idx"]) == (
        *("target", False, False),
        "1",
    )
    two = policy(Scheme(action=Action.STAT, targets=("b", "c")), targets=targets)
    (scheme,) = json.loads(policy_damo(two).text)["kdamonds"][0]["contexts"][0]["schemes"]
    assert [(one["allow"], one["damon_target_idx"]) for one in scheme["filters"]] == [(True, "1"), (True, "2")]
    every = policy(Scheme(action=Action.STAT, targets=("a", "b", "c")), targets=targets)
    assert "filters" not in json.loads(policy_damo(every).text)["kdamonds"][0]["contexts"][0]["schemes"][0]


STAT = Scheme(action=Action.STAT)


@pytest.mark.parametrize(
    ("one", "what"),
    [
        (policy(targets=(TargetSelector(name="redis"),)), 'target 1 "redis": DAMON knows processes by their pid only'),
        (policy(targets=(TargetSelector(pid=4, children=True),)), "does not follow what a process starts"),
        (policy(targets=(TargetSelector(pid=4), TargetSelector(physical=True))), "DAMON looks at all of them by one"),
        (policy(replace(STAT, max_nr_snapshots=5)), "max_nr_snapshots: damo 3.4 reads no such limit"),
        (policy(guard=GuardSettings(max_bytes_per_s=1)), "guard: max_bytes_per_s: DAMON has no guards"),
        (policy(guard=GuardSettings(min_free_swap=0.5)), "guard: min_free_swap: DAMON has no guards"),
        (
            policy(replace(STAT, filters=(Filter(kind=FilterKind.MAPPING, allow=True, pattern="[heap]"),))),
            "filter by mapping: DAMON has none",
        ),
        (
            policy(Scheme(action=Action.PAGEOUT, filters=(Filter(kind=FilterKind.FILE, allow=False),))),
            "filter by file: of a process DAMON does not filter pages of pageout",
        ),
        (
            policy(replace(STAT, filters=(Filter(kind=FilterKind.TARGET, allow=False, target="x"),))),
            'filter by target: "x" is not one target of the policy',
        ),
        (
            policy(replace(STAT, targets=("x",)), targets=(TargetSelector(pid=4),)),
            "no target of the policy is called x",
        ),
        (
            policy(replace(STAT, quota=Quota(goals=(Goal(metric=GoalMetric.FREE_MEMORY, target=0.1),)))),
            "goal free_memory: DAMON does not measure it of the system",
        ),
        (
            policy(replace(STAT, quota=Quota(goals=(Goal(metric=GoalMetric.MEMORY_PRESSURE, target=1, cgroup="/a"),)))),
            "goal memory_pressure: DAMON does not measure it of a cgroup",
        ),
        (
            policy(replace(STAT, quota=Quota(goals=(Goal(metric=GoalMetric.USER_INPUT, target=0.5),)))),
            "goal user_input: 0.5 is not a whole number",
        ),
    ],
)
def test_what_would_mean_something_else_is_refused(one: Policy, what: str) -> None:
    assert what in refusal(one)
    assert refusal(one).startswith("p.toml: ")


def test_all_problems_are_told_at_once() -> None:
    problems = refusal(policy(replace(STAT, max_nr_snapshots=5), targets=(TargetSelector(user="root"),)))
    assert problems.splitlines()[0] == "p.toml: 2 problems"


def test_what_does_not_change_the_meaning_is_told() -> None:
    attributes = MonitoringAttributes(method="census", interval_goal=IntervalGoal())
    one = policy(replace(STAT, name="count"), attributes=attributes, guard=GuardSettings(allow_ptrace=True))
    assert policy_damo(one).told == (
        "schemes have no names in damo's format",
        "it names no target: give damo one, such as --target_pid",
        "DAMON samples: it has no method census",
        "DAMON has no guards: it acts on memory that memtherm would leave alone",
    )
