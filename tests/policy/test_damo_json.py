"""damo's JSON of schemes: what its settings come to here, and that nothing is dropped in silence."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memtherm.core.attributes import TUNED, IntervalGoal, MonitoringAttributes
from memtherm.core.filters import Filter, FilterKind
from memtherm.core.goals import Goal, GoalMetric, Tuner
from memtherm.core.pattern import AccessPattern, Bounds
from memtherm.core.quota import Quota, Weights
from memtherm.core.scheme import Action, Destination, Scheme
from memtherm.core.watermarks import Watermarks
from memtherm.errors import InvalidInput, InvalidPolicy
from memtherm.policy.damo_json import looks_like_damo, parse_damo, read_damo
from memtherm.policy.damo_text import read_count, read_share, read_size, read_time, read_truth
from memtherm.policy.explain import explain_policy
from memtherm.policy.file import load_policy
from memtherm.policy.values import TargetSelector
from memtherm.policy.warnings import warnings

MIB = 1 << 20


def scheme(**settings: Any) -> dict[str, Any]:
    """A scheme as damo writes one whole, with other settings in place of the usual."""
    return {
        "action": "pageout",
        "dests": [],
        "access_pattern": {
            "sz_bytes": {"min": "4.000 KiB", "max": "max"},
            "nr_accesses": {"min": "0 %", "max": "0 %"},
            "age": {"min": "2 m 5 s", "max": "max"},
        },
        "apply_interval_us": "0 ns",
        "quotas": {
            "time_ms": "0 ns",
            "sz_bytes": "0 B",
            "reset_interval_ms": "max",
            "fail_charge_num": "0",
            "fail_charge_denom": "0",
            "goals": [],
            "goal_tuner": "consist",
            "effective_sz_bytes": "0 B",
            "weights": {"sz_permil": "0 %", "nr_accesses_permil": "0 %", "age_permil": "0 %"},
        },
        "watermarks": {
            "metric": "none", "interval_us": "0 ns", "high_permil": "0 %", "mid_permil": "0 %", "low_permil": "0 %",
        },
        "filters": [],
        "stats": {"nr_tried": "0", "sz_tried": "0 B", "nr_snapshots": "17", "max_nr_snapshots": "0"},
    } | settings  # fmt: skip


def context(*schemes: dict[str, Any], **settings: Any) -> dict[str, Any]:
    """A whole file with one kdamond."""
    inner = {
        "ops": "vaddr",
        "addr_unit": "1 B",
        "targets": [{"pid": 4242, "obsolete": False, "regions": []}],
        "intervals": {"sample_us": "5 ms", "aggr_us": "200 ms", "ops_update_us": "1 m"},
        "nr_regions": {"min": "10", "max": "1,000"},
        "probes": [],
        "sample_control": {"primitives_enabled": {"page_table": True, "page_fault": False}, "sample_filters": []},
        "pause": False,
        "schemes": list(schemes or [scheme()]),
    } | settings
    return {"kdamonds": [{"state": "off", "pid": None, "refresh_ms": 0, "contexts": [inner]}]}


def read(data: object) -> Scheme:
    (one,) = parse_damo(json.dumps(data)).schemes
    return one


def problems(data: object) -> tuple[str, ...]:
    with pytest.raises(InvalidPolicy) as refusal:
        parse_damo(json.dumps(data), source="d.json")
    return refusal.value.problems


def test_a_scheme_as_damo_writes_it() -> None:
    policy = parse_damo(json.dumps([scheme()]))
    assert policy.attributes == TUNED
    assert policy.targets == ()
    assert policy.schemes == (
        Scheme(
            name="scheme 1 (pageout)",
            action=Action.PAGEOUT,
            pattern=AccessPattern(
                size_bytes=Bounds(4096, None), access_rate=Bounds(0.0, 0.0), age_s=Bounds(125.0, None)
            ),
        ),
    )


def test_physical_memory_and_fixed_ranges_are_targets() -> None:
    regions = [{"start": "4,096", "end": "8,192"}, {"start": 16384, "end": "20 K"}]
    ranges = ((4096, 8192), (16384, 20480))
    of_host = context(ops="paddr", targets=[{"pid": None, "regions": regions}])
    assert parse_damo(json.dumps(of_host)).targets == (TargetSelector(physical=True, ranges=ranges),)
    of_process = context(ops="fvaddr", targets=[{"pid": 7, "regions": regions}])
    assert parse_damo(json.dumps(of_process)).targets == (TargetSelector(pid=7, ranges=ranges),)


def test_a_context_gives_targets_intervals_and_numbers_of_regions() -> None:
    policy = parse_damo(json.dumps(context(nr_regions={"min": 20, "max": 500})))
    assert policy.targets == (TargetSelector(pid=4242),)
    assert policy.attributes == MonitoringAttributes(
        sampling_interval_s=0.005,
        aggregation_interval_s=0.2,
        regions_update_interval_s=60.0,
        min_nr_regions=20,
        max_nr_regions=500,
    )
    whole = json.loads(json.dumps(context()))
    del whole["kdamonds"][0]["contexts"][0]["intervals"]
    # damo leaves out what is as it is by default.
    assert parse_damo(json.dumps(whole["kdamonds"])).attributes == MonitoringAttributes()


def test_intervals_that_fit_themselves() -> None:
    goal = {"access_bp": "4 %", "aggrs": "3", "min_sample_us": "5 ms", "max_sample_us": "10 s"}
    intervals = {"sample_us": 5000, "aggr_us": 100000, "ops_update_us": 1000000, "intervals_goal": goal}
    attributes = parse_damo(json.dumps(context(intervals=intervals))).attributes
    assert attributes == MonitoringAttributes(
        interval_goal=IntervalGoal(access_rate=0.04, windows=3, max_sampling_interval_s=10)
    )
    off = {"access_bp": "0 %", "aggrs": "0", "min_sample_us": "0 ns", "max_sample_us": "0 ns"}
    attributes = parse_damo(json.dumps(context(intervals=intervals | {"intervals_goal": off}))).attributes
    assert attributes == MonitoringAttributes()


def _pattern(**bounds: tuple[object, object]) -> dict[str, Any]:
    return scheme(access_pattern={key: {"min": low, "max": high} for key, (low, high) in bounds.items()})


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ({}, AccessPattern()),
        (
            {"sz_bytes": ("min", "max"), "nr_accesses": ("min", "max"), "age": ("min", "max")},
            AccessPattern(),
        ),
        # A highest value of 0 is 0, and no missing bound.
        (
            {"sz_bytes": (4096, 2**64 - 1), "nr_accesses": (0, 0), "age": ("0 ns", "0 ns")},
            AccessPattern(size_bytes=Bounds(4096, None), access_rate=Bounds(0, 0), age_s=Bounds(0, 0)),
        ),
        (
            {"sz_bytes": ("2.000 MiB", "1.500 GiB"), "nr_accesses": ("5 %", "100 %"), "age": ("1 s 500 ms", "1,000 s")},
            AccessPattern(
                size_bytes=Bounds(2 * MIB, 1536 * MIB), access_rate=Bounds(0.05, None), age_s=Bounds(1.5, 1000)
            ),
        ),
        # Plain numbers are percent and microseconds; the context has 40 samples in a window of 200 ms.
        (
            {"nr_accesses": (5, "50"), "age": (2000000, 3e6)},
            AccessPattern(access_rate=Bounds(0.05, 0.5), age_s=Bounds(2, 3)),
        ),
        (
            {"nr_accesses": ("2 samples", "20 samples"), "age": ("10 aggr_intervals", "4,294,967,295 aggr_intervals")},
            AccessPattern(access_rate=Bounds(0.05, 0.5), age_s=Bounds(2.0, None)),
        ),
        (
            {"nr_accesses": ("0 samples", "0 samples"), "age": ("0 aggr_intervals", "max aggr_intervals")},
            AccessPattern(access_rate=Bounds(0, 0)),
        ),
    ],
)
def test_access_patterns(bounds: dict[str, tuple[object, object]], expected: AccessPattern) -> None:
    assert read(context(_pattern(**bounds))).pattern == expected


def test_quotas_with_all_their_settings() -> None:
    goals = [
        {"metric": "some_mem_psi_us", "target_value": "10,000", "current_value": "55"},
        {"metric": "node_mem_used_bp", "target_value": "97 %", "current_value": 0, "nid": "0"},
        {"metric": "node_mem_free_bp", "target_value": 50, "current_value": 0, "nid": 0, "memcg_path": None},
        {"metric": "node_memcg_used_bp", "target_value": "2,000", "current_value": 0, "nid": 1, "memcg_path": "/a/b"},
        {"metric": "inactive_mem_bp", "complement": False, "nid": None, "target_value": "50 %", "current_value": "0"},
        {"metric": "user_input", "target_value": "1,000", "current_value": "0"},
    ]
    quotas = {
        "time_ms": "10 ms", "sz_bytes": "128.000 MiB", "reset_interval_ms": 500, "goals": goals,
        "goal_tuner": "temporal", "fail_charge_num": 1, "fail_charge_denom": "1,024", "effective_sz_bytes": "7 B",
        "weights": {"sz_permil": "0 %", "nr_accesses_permil": "10 %", "age_permil": 200},
    }  # fmt: skip
    assert read([scheme(quotas=quotas)]).quota == Quota(
        time_s=0.01,
        size_bytes=128 * MIB,
        reset_interval_s=0.5,
        tuner=Tuner.TEMPORAL,
        fail_charge=(1, 1024),
        weights=Weights(access_rate=100, age=200),
        goals=(
            Goal(metric=GoalMetric.MEMORY_PRESSURE, target=0.01),
            Goal(metric=GoalMetric.USED_MEMORY, target=0.97, node=0),
            Goal(metric=GoalMetric.FREE_MEMORY, target=0.005, node=0),
            Goal(metric=GoalMetric.USED_MEMORY, target=0.2, node=1, cgroup="/a/b"),
            Goal(metric=GoalMetric.INACTIVE_MEMORY, target=0.5),
            Goal(metric=GoalMetric.USER_INPUT, target=1000),
        ),
    )


def test_watermarks_interval_and_limit_of_applies() -> None:
    marks = {
        "metric": "free_mem_rate",
        "interval_us": "5 s",
        "high_permil": "50 %",
        "mid_permil": 400,
        "low_permil": "20 %",
    }
    one = read([scheme(watermarks=marks, apply_interval_us="1 s", max_nr_snapshots=5)])
    assert one.watermarks == Watermarks(high=0.5, mid=0.4, low=0.2, interval_s=5.0)
    assert one.apply_interval_s == 1.0
    assert one.max_nr_snapshots == 5
    assert read([scheme(stats={"nr_snapshots": "3", "max_nr_snapshots": "9"})]).max_nr_snapshots == 9


def test_filters_of_all_types() -> None:
    rest = {"memcg_path": None, "address_range": None, "damon_target_idx": None, "hugepage_size": None}
    filters = [
        {"filter_type": "anon", "matching": True, "allow": False} | rest,
        {"filter_type": "memcg", "matching": False, "allow": True} | rest | {"memcg_path": "/x"},
        {"filter_type": "addr", "matching": True, "allow": "yes"}
        | rest
        | {"address_range": {"start": "4,096", "end": 65536}},
        {"filter_type": "target", "matching": True, "filter_pass": False} | {"damon_target_idx": "0"},
        {"filter_type": "hugepage_size", "matching": True, "allow": False} | {"hugepage_size": ["2.000 MiB", "max"]},
        {"filter_type": "young", "matching": True, "allow": True, "probe_hits_wsum_range": None},
        {"filter_type": "unmapped", "matching": True},
        {"filter_type": "active", "matching": False},
    ]
    assert read(context(scheme(filters=filters))).filters == (
        Filter(kind=FilterKind.ANONYMOUS, allow=False),
        Filter(kind=FilterKind.CGROUP, allow=True, matching=False, cgroup="/x"),
        Filter(kind=FilterKind.ADDRESS, allow=True, start=4096, end=65536),
        Filter(kind=FilterKind.TARGET, allow=False, target="4242"),
        Filter(kind=FilterKind.HUGE_PAGE, allow=False, size_bytes=Bounds(2 * MIB, None)),
        Filter(kind=FilterKind.YOUNG, allow=True),
        Filter(kind=FilterKind.UNMAPPED, allow=False),
        Filter(kind=FilterKind.ACTIVE, allow=False, matching=False),
    )


def test_destinations() -> None:
    dests = [{"id": 1, "weight": "3"}, {"id": "2", "weight": 1}]
    assert read([scheme(action="migrate_hot", dests=dests)]).destinations == (Destination(1, 3), Destination(2, 1))
    assert read([scheme(action="migrate_cold", target_nid=1)]).destinations == (Destination(1),)
    assert read([scheme(target_nid=None)]).destinations == ()
    assert read([scheme(target_nid=-1)]).destinations == ()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ([], "d.json: no scheme in it"),
        ({"kdamonds": []}, "d.json: no scheme in it"),
        ({"schems": []}, "d.json: schems: is an unknown key, or one that memtherm cannot do"),
        ([5], "d.json: schemes 1: is no object"),
        ([scheme(action="fly")], "d.json: schemes 1: action: 'fly' is not an action; use one of willneed"),
        ([scheme(new_thing=1)], "d.json: schemes 1: new_thing: is an unknown key, or one that memtherm cannot do"),
        (
            context(ops="disk"),
            "d.json: kdamonds 1: contexts 1: ops: 'disk' is not supported; one of vaddr, fvaddr, paddr",
        ),
        (context(ops="fvaddr"), "d.json: kdamonds 1: contexts 1: targets 1: regions: are missing: with fvaddr nothing"),
        (context(addr_unit="4.000 KiB"), "d.json: kdamonds 1: contexts 1: addr_unit: is not 1 byte"),
        (context(pause=True), "d.json: kdamonds 1: contexts 1: pause: is not supported"),
        (
            context(probes=[{"filters": []}]),
            "d.json: kdamonds 1: contexts 1: probes: probes of DAMON are not supported",
        ),
        (
            context(sample_control={"primitives_enabled": {"page_table": True, "page_fault": True}}),
            "d.json: kdamonds 1: contexts 1: sample_control: primitives_enabled: is not supported",
        ),
        (
            context(targets=[{"pid": 5, "regions": [{"start": 0, "end": 5}]}]),
            "d.json: kdamonds 1: contexts 1: targets 1: regions: have no lasting meaning with vaddr: all mappings are",
        ),
        (context(targets=[{"pid": None}]), "d.json: kdamonds 1: contexts 1: targets 1: pid: pid 0 cannot exist"),
        (
            context(intervals={"sample_us": "1 us", "aggr_us": "1 s"}),
            "d.json: kdamonds 1: contexts 1: intervals: sample_us: leaves the monitor no rest",
        ),
        (context(intervals={"sample_us": "2 s"}), "d.json: kdamonds 1: contexts 1: intervals: the sampling interval"),
        ({"kdamonds": context()["kdamonds"] * 2}, "d.json: 2 contexts, and a policy is one"),
        (
            [_pattern(nr_accesses=("5 samples", "max"))],
            "d.json: schemes 1: access_pattern: nr_accesses: min: '5 samples' hangs on intervals",
        ),
        ([_pattern(nr_accesses=("50 %", "5 %"))], "d.json: schemes 1: access_pattern: access_rate: the minimum"),
        ([_pattern(sz_bytes=("5 Q", "max"))], "d.json: schemes 1: access_pattern: sz_bytes: min: '5 Q': unknown size"),
        ([_pattern(age=(-5, "max"))], "d.json: schemes 1: access_pattern: age: min: '-5' is negative"),
        (
            [scheme(quotas={"sz_bytes": "1.000 MiB", "reset_interval_ms": "max"})],
            "d.json: schemes 1: quotas: reset_interval_ms: never ends",
        ),
        ([scheme(quotas={"sz_bytes": "1 B"})], "d.json: schemes 1: quotas: a quota of 1 bytes is less than a page"),
        ([scheme(quotas={"goal_tuner": "x"})], "d.json: schemes 1: quotas: goal_tuner: 'x' is not a tuner"),
        (
            [scheme(quotas={"goals": [{"metric": "node_eligible_mem_bp", "target_value": 5, "current_value": 0}]})],
            "d.json: schemes 1: quotas: goals 1: metric: 'node_eligible_mem_bp' is not supported",
        ),
        (
            [scheme(quotas={"goals": [{"metric": "node_mem_free_bp", "target_value": 5, "nid": None}]})],
            "d.json: schemes 1: quotas: goals 1: nid: is missing",
        ),
        (
            [scheme(quotas={"goals": [{"metric": "active_mem_bp", "target_value": 5, "complement": True}]})],
            "d.json: schemes 1: quotas: goals 1: complement: is not supported",
        ),
        (
            [scheme(quotas={"goals": [{"metric": "user_input", "target_value": 5, "current_value": 3}]})],
            "d.json: schemes 1: quotas: goals 1: current_value: is given by a program while it runs",
        ),
        (
            [scheme(quotas={"goals": [{"metric": "user_input", "target_value": 0}]})],
            "d.json: schemes 1: quotas: goals 1: target_value: the target of a goal is 0",
        ),
        ([scheme(watermarks={"metric": "x"})], "d.json: schemes 1: watermarks: metric: 'x' is not supported"),
        (
            [scheme(watermarks={"metric": "free_mem_rate", "high_permil": 5, "mid_permil": 9})],
            "d.json: schemes 1: watermarks: watermarks of 0.5% (high), 0.9% (mid)",
        ),
        (
            [scheme(filters=[{"filter_type": "probe_hits_wsum", "matching": True}])],
            "d.json: schemes 1: filters 1: filter_type: 'probe_hits_wsum' is not supported",
        ),
        (
            [scheme(filters=[{"filter_type": "target", "matching": True, "damon_target_idx": "0"}])],
            "d.json: schemes 1: filters 1: damon_target_idx: there is no such target in the file",
        ),
        ([scheme(filters=[{"filter_type": "memcg"}])], "d.json: schemes 1: filters 1: a filter by cgroup does not say"),
        ([scheme(filters={"a": 1})], "d.json: schemes 1: filters: is no list"),
        ([scheme(dests=[{"id": 1, "weight": 1}])], "d.json: schemes 1: pageout has destinations, and moves nothing"),
        ([scheme(apply_interval_us="max")], "d.json: schemes 1: apply_interval_us: the scheme would never be applied"),
    ],
)
def test_what_cannot_be_had_here_is_named(data: object, expected: str) -> None:
    found = problems(data)
    assert len(found) == 1
    assert found[0].startswith(expected)


def test_all_problems_are_told_at_once() -> None:
    assert len(problems([scheme(action="fly", new_thing=1), scheme(apply_interval_us="x")])) == 3


@pytest.mark.parametrize(
    ("text", "is_damo"),
    [
        ('[{"action": "stat"}]', True),
        (' {"kdamonds": []}', True),
        ("[[scheme]]\n", False),
        ("[guard]\n", False),
        ("", False),
    ],
)
def test_json_is_told_from_toml(text: str, is_damo: bool) -> None:
    assert looks_like_damo(text) is is_damo


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"schemes": [' + "9" * 5000 + "]}", "5", "null", '"x"'])
def test_what_is_no_json_of_damo_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "schemes.json"
    path.write_text(text)
    with pytest.raises(InvalidPolicy):
        load_policy(path)


def test_values_as_damo_prints_them() -> None:
    assert read_size("117.738 MiB") == int(117.738 * MIB)
    assert read_size("18,446,744,073,709,551,615") == math.inf
    assert read_time("1 s 234 ms 567 us", unit_s=1.0) == 1.234567
    assert read_time("1 d 2 h 3 m", unit_s=1.0) == 93780.0
    assert read_time("3", unit_s=1e-6) == 3e-6
    assert read_share("0.25 %", whole=1000) == 0.0025
    assert read_share(25, whole=1000) == 0.025
    assert read_count("66,481") == 66481
    assert read_truth("No") is False
    none: list[object] = [None, [], {}, True, "x", float("nan"), -1, "5 x"]
    for wrong in none:
        for reader in (read_count, read_size):
            with pytest.raises(InvalidInput):
                reader(wrong)


_VALUES: st.SearchStrategy[object] = st.sampled_from(
    [None, True, 0, 1, -1, 2**70, 1e300, "max", "min", "5 %", "5 s", "4 KiB", "x", "", [], {}, [{}], ["a"]]
)


def _damaged(pieces: list[tuple[int, Any]]) -> Any:
    """A whole file of which some settings are something else."""
    data = context(scheme(filters=[{"filter_type": "addr", "address_range": {"start": 0, "end": 4096}}]))
    places: list[tuple[Any, Any]] = []

    def walk(value: Any) -> None:
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            places.append((value, key))
            if isinstance(inner, (dict, list)):
                walk(inner)

    walk(data)
    for index, value in pieces:
        holder, key = places[index % len(places)]
        holder[key] = value
    return data


@given(st.lists(st.tuples(st.integers(0, 200), _VALUES), max_size=4))
def test_any_damaged_file_is_read_or_refused(pieces: list[tuple[int, Any]]) -> None:
    found: tuple[str, ...] = ()
    try:
        policy = parse_damo(json.dumps(_damaged(pieces)))
    except InvalidPolicy as refusal:
        found = refusal.problems
    if found:
        assert all("\n" not in problem for problem in found)
        return
    assert explain_policy(policy)
    assert isinstance(warnings(policy), list)


def told(data: object) -> tuple[str, ...]:
    return read_damo(json.dumps(data)).told


def test_results_of_damo_are_left_out_by_name() -> None:
    assert told([scheme()]) == ("results are left out: stats, effective_sz_bytes",)
    assert told([{"action": "stat"}]) == ()
    (results,) = told(context(scheme(tried_bytes="4 KiB", tried_regions=[])))
    assert results == "results are left out: state, stats, effective_sz_bytes, tried_bytes"


def test_settings_without_a_place_in_a_policy_are_left_out_by_name() -> None:
    file = context({"action": "stat"})
    file["kdamonds"][0] |= {"refresh_ms": 100, "state": None}
    assert told(file) == ("left out: kdamonds 1: refresh_ms ('100'): memtherm asks for results when it needs them",)
    file["kdamonds"][0]["refresh_ms"] = "0 ns"
    assert told(file) == ()


def left_out(**settings: Any) -> tuple[str, ...]:
    return told([{"action": "stat"} | settings])


def test_settings_that_do_nothing_beside_the_others_are_left_out_by_name() -> None:
    intervals = {"sample_us": "5 ms", "aggr_us": "100 ms", "intervals_goal": {"aggrs": "0", "access_bp": "4 %"}}
    physical = context({"action": "stat"}, ops="paddr", targets=[{"pid": 7}], intervals=intervals)
    physical["kdamonds"][0]["state"] = None
    assert told(physical) == (
        "left out: kdamonds 1: contexts 1: targets 1: pid ('7'): physical memory has none",
        "left out: kdamonds 1: contexts 1: intervals: intervals_goal: access_bp ('4 %'): "
        "without aggrs the intervals do not fit themselves",
    )
    assert left_out(target_nid=1) == ("left out: schemes 1: target_nid ('1'): stat moves nothing",)
    dests = [{"id": 0, "weight": 1}]
    (both,) = left_out(action="migrate_hot", target_nid=1, dests=dests)
    assert both.endswith("dests say where to")
    (marks,) = left_out(watermarks={"metric": "none", "high_permil": "50 %"})
    assert marks == ("left out: schemes 1: watermarks: high_permil ('50 %'): the metric none never lets a scheme rest")
    (interval,) = left_out(quotas={"reset_interval_ms": "2 s"})
    assert interval == "left out: schemes 1: quotas: reset_interval_ms ('2 s'): there is no quota"
    goal = {"metric": "some_mem_psi_us", "target_value": "10 ms", "current_value": 3000, "nid": 0}
    assert left_out(quotas={"reset_interval_ms": "1 s", "goals": [goal]}) == (
        "left out: schemes 1: quotas: goals 1: nid ('0'): some_mem_psi_us is of the whole host",
        "results are left out: current_value",
    )
    (other,) = left_out(filters=[{"filter_type": "anon", "matching": True, "memcg_path": "/a"}])
    assert other == "left out: schemes 1: filters 1: memcg_path ('/a'): a filter by anon does not look at it"


def test_schemes_beside_kdamonds_are_not_dropped() -> None:
    assert problems(context() | {"schemes": [scheme()]}) == (
        "d.json: schemes: both kdamonds and schemes beside them; put them into a context",
    )
