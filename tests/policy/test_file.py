"""Policy files: what is read, and that every problem is told at once with its line."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memtherm.core.attributes import MonitoringAttributes
from memtherm.core.filters import Filter, FilterKind
from memtherm.core.goals import Goal, GoalMetric, Tuner
from memtherm.core.guard import GuardSettings
from memtherm.core.pattern import AccessPattern, Bounds
from memtherm.core.quota import Quota, Weights
from memtherm.core.scheme import Action, Destination, Scheme
from memtherm.core.watermarks import Watermarks
from memtherm.errors import InvalidPolicy
from memtherm.policy.explain import explain_policy
from memtherm.policy.fields import FIELDS
from memtherm.policy.file import load_policy, parse_policy
from memtherm.policy.values import Policy, TargetSelector
from memtherm.policy.warnings import warnings

GOOD = """# policy.toml
version = 1

[[target]]
name = "redis-server"

[[target]]
pid = 4242

[[scheme]]
name   = "page out what has been cold for two minutes"
size = ">= 4KiB"
access_rate = "0%"
age = ">= 2min"
action = "pageout"

[[scheme]]
access_rate = "5% .. 50%"
action = "stat"

[monitor]
sampling_interval = "10ms"
max_nr_regions = 500

[guard]
min_target_bytes = "1MiB"
"""
STAT = '[[scheme]]\naction = "stat"\n'


def problems(text: str) -> tuple[str, ...]:
    with pytest.raises(InvalidPolicy) as refusal:
        parse_policy(text, source="p.toml")
    assert refusal.value.problems
    return refusal.value.problems


def test_a_whole_policy() -> None:
    assert parse_policy(GOOD) == Policy(
        targets=(TargetSelector(name="redis-server"), TargetSelector(pid=4242)),
        schemes=(
            Scheme(
                name="page out what has been cold for two minutes",
                action=Action.PAGEOUT,
                pattern=AccessPattern(
                    size_bytes=Bounds(4096, None), access_rate=Bounds(0.0, 0.0), age_s=Bounds(120.0, None)
                ),
            ),
            Scheme(
                name="scheme 2 (stat)",
                action=Action.STAT,
                pattern=AccessPattern(access_rate=Bounds(0.05, 0.5)),
            ),
        ),
        attributes=MonitoringAttributes(sampling_interval_s=0.01, aggregation_interval_s=0.2, max_nr_regions=500),
        guard=GuardSettings(min_target_bytes=1 << 20),
    )


EVERYTHING = """version = 1
[[target]]
name = "redis-*"
children = true
label = "store"
[[target]]
user = 1000
[[target]]
cgroup = "/system.slice/db.service"

[[scheme]]
name = "all of it"
action = "migrate_cold"
access_rate = "0%"
apply_interval = "2s"
max_nr_snapshots = 10
targets = ["store", "1000"]
destinations = [{ node = 1, weight = 3 }, { node = 2 }]
goals = [
  { metric = "memory_pressure", target = "10ms", cgroup = "/a" },
  { metric = "free_memory", target = "20%", node = 0 },
  { metric = "user_input", target = 5 },
]
filters = [
  { reject = "address", range = "0x7f00 .. 64KiB" },
  { allow = "target", target = "/system.slice/db.service" },
  { allow = "mapping", pattern = "*/libc.so*", not = true },
  { reject = "huge_page", size = ">= 2MiB" },
  { reject = "cgroup", cgroup = "/a/b" },
  { reject = "young" },
]
[scheme.quota]
bytes = "128MiB"
time = "10ms"
every = "500ms"
tuner = "temporal"
fail_charge = "1/1024"
weights.access_rate = 1
weights.age = 2
[scheme.watermarks]
metric = "free_memory"
high = "50%"
mid = "40%"
low = "20%"
every = "1s"

[guard]
allow_ptrace = true
keep_huge_page_advice = true
max_refault_rate = "1%"
max_memory_pressure = "0%"
max_bytes_per_s = "64MiB"
min_free_swap = "10%"
"""


def test_every_key_comes_to_its_value() -> None:
    policy = parse_policy(EVERYTHING)
    assert policy.targets == (
        TargetSelector(name="redis-*", children=True, label="store"),
        TargetSelector(user=1000),
        TargetSelector(cgroup="/system.slice/db.service"),
    )
    assert [target.label for target in policy.targets] == ["store", "1000", "/system.slice/db.service"]
    assert policy.guard == GuardSettings(
        allow_ptrace=True,
        keep_huge_page_advice=True,
        max_refault_rate=0.01,
        max_memory_pressure=0.0,
        max_bytes_per_s=64 << 20,
        min_free_swap=0.1,
    )
    (scheme,) = policy.schemes
    assert scheme == Scheme(
        name="all of it",
        action=Action.MIGRATE_COLD,
        pattern=AccessPattern(access_rate=Bounds(0.0, 0.0)),
        apply_interval_s=2.0,
        max_nr_snapshots=10,
        targets=("store", "1000"),
        destinations=(Destination(1, 3), Destination(2)),
        quota=Quota(
            size_bytes=128 << 20,
            time_s=0.01,
            reset_interval_s=0.5,
            tuner=Tuner.TEMPORAL,
            fail_charge=(1, 1024),
            weights=Weights(access_rate=1, age=2),
            goals=(
                Goal(metric=GoalMetric.MEMORY_PRESSURE, target=0.01, cgroup="/a"),
                Goal(metric=GoalMetric.FREE_MEMORY, target=0.2, node=0),
                Goal(metric=GoalMetric.USER_INPUT, target=5.0),
            ),
        ),
        watermarks=Watermarks(high=0.5, mid=0.4, low=0.2, interval_s=1.0),
        filters=(
            Filter(kind=FilterKind.ADDRESS, allow=False, start=0x7F00, end=0x10000),
            Filter(kind=FilterKind.TARGET, allow=True, target="/system.slice/db.service"),
            Filter(kind=FilterKind.MAPPING, allow=True, matching=False, pattern="*/libc.so*"),
            Filter(kind=FilterKind.HUGE_PAGE, allow=False, size_bytes=Bounds(2 << 20, None)),
            Filter(kind=FilterKind.CGROUP, allow=False, cgroup="/a/b"),
            Filter(kind=FilterKind.YOUNG, allow=False),
        ),
    )


def test_tables_in_a_list_over_several_lines_have_lines_of_their_own() -> None:
    text = f"version = 1\n{STAT}filters = [\n  {{ reject = 'file' }},\n  # a comment\n  {{ reject = 'fil' }},\n]"
    (problem,) = problems(text)
    assert problem.startswith("p.toml:7: scheme 1: filters 2: reject: 'fil' is not a kind of filter")


def test_a_broken_target_is_told_once_and_not_by_the_schemes_that_mean_it() -> None:
    text = f"version = 1\n[[target]]\nname = ''\nlabel = 'a'\n{STAT}targets = ['a']"
    assert [problem.split(": ")[1:3] for problem in problems(text)] == [["target 1", "name"]]


def test_a_key_with_dots_is_no_table() -> None:
    (problem,) = problems(f'version = 1\n"scheme.goals" = 1\n{STAT}')
    assert problem.startswith("p.toml:2: scheme.goals: is an unknown key")


def test_what_a_partial_file_leaves_out_keeps_its_default() -> None:
    policy = parse_policy(f'version = 1\n{STAT}[monitor]\naggregation_interval = "200ms"\n[guard]\n')
    assert policy.targets == ()
    assert policy.attributes == MonitoringAttributes(aggregation_interval_s=0.2)
    assert policy.guard == GuardSettings()
    assert policy.schemes[0].pattern == AccessPattern()


EVERY_PROBLEM = [
    "p.toml:2: sheme: is an unknown key; did you mean scheme?",
    'p.toml:6: target 1 "redis-server": a target has both a name and a pid and a cgroup',
    'p.toml:10: scheme 1 "a": size: \'>\' is not a sign of a bound; bounds are inclusive: write ">= 4KiB"',
    "p.toml:11: scheme 1 \"a\": access_rate: '0' is not a percentage",
    "p.toml:12: scheme 1 \"a\": age: '2': a time needs a unit",
    "p.toml:13: scheme 1 \"a\": action: 'pagout' is not an action; use one of willneed, cold, pageout",
    "p.toml:14: scheme 1 \"a\": quota: bytes: '128MB/s': unknown size unit",
    'p.toml:14: scheme 1 "a": quota: weights: age: is out of range',
    'p.toml:14: scheme 1 "a": quota: evry: is an unknown key; did you mean every?',
    'p.toml:15: scheme 1 "a": tried_regions: is not supported by this version',
    'p.toml:16: scheme 1 "a": watermarks: low: is missing; write low = "5%"',
    "p.toml:17: scheme 1 \"a\": watermarks: metric: 'x' is not a metric; use one of free_memory",
    "p.toml:22: scheme 1 \"a\": goals 1: target: '5' has no unit; memory_pressure is written like",
    'p.toml:24: scheme 2 "b": action: is missing; write action = "pageout"',
    "p.toml:26: scheme 2 \"b\": size: '5M .. 4K': the minimum is above the maximum",
    'p.toml:27: scheme 2 "b": acess_rate: is an unknown key; did you mean access_rate?',
    'p.toml:29: scheme 3 "b": name: the name is taken by the scheme of line 25',
    'p.toml:30: scheme 3 "b": action: is a number, and must be an action',
    "p.toml:32: monitor: the sampling interval (5 ms) is longer than the aggregation interval (1 ms)",
    "p.toml:33: monitor: max_nr_regions: is out of range",
    "p.toml:35: guard: min_target_bytes: is a date or time, and must be a size",
    "p.toml:36: guard: override_application_hints: is text, and must be true or false",
]


def test_every_problem_of_a_file_is_told_at_once_in_the_order_of_lines() -> None:
    text = """version = 1
sheme = 3
[[target]]
name = "redis-server"
pid = 3
cgroup = "/x"

[[scheme]]
name = "a"
size = "> 4KiB"
access_rate = "0"
age = ">= 2"
action = "pagout"
quota = { bytes = "128MB/s", evry = "1s", weights = { age = -1 } }
tried_regions = true
[scheme.watermarks]
metric = "x"
high = "20%"
mid = "40%"
[[scheme.goals]]
metric = "memory_pressure"
target = 5

[[scheme]]
name = "b"
size = "5M .. 4K"
acess_rate = "3%"
[[scheme]]
name = "b"
action = 5
[monitor]
aggregation_interval = "1ms"
max_nr_regions = 2
[guard]
min_target_bytes = 1979-05-27
override_application_hints = "yes"
"""
    found = problems(text)
    assert len(found) == len(EVERY_PROBLEM)
    for problem, beginning in zip(found, EVERY_PROBLEM, strict=True):
        assert problem.startswith(beginning)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "p.toml:1: the policy is empty"),
        ("# only a comment\n", "p.toml:1: the policy is empty"),
        ("version = 1\n", "p.toml:1: no scheme"),
        ("version = 1\nscheme = []\n", "p.toml:1: no scheme"),
        (STAT, "p.toml:1: version: is missing; write version = 1"),
        (f"version = 2\nunknown = 3\n{STAT}", "p.toml:1: version: this memtherm reads version 1 of the format, not 2"),
        (f'version = "1"\n{STAT}', "p.toml:1: version: is '1'; this memtherm reads version = 1"),
        (f"version = true\n{STAT}", "p.toml:1: version: is 'True'"),
        (f"version = 1.0\n{STAT}", "p.toml:1: version: is '1.0'"),
        ("version = 1\n[scheme]\naction = 'stat'", "p.toml:2: scheme: is a single table, and there may be several"),
        ("version = 1\nscheme = 'stat'", "p.toml:2: scheme: is text, and must be a table; write [[scheme]]"),
        ("version = 1\nscheme = ['stat']", "p.toml:2: scheme 1: is text, and must be a table"),
        (f"version = 1\n{STAT}[[monitor]]", "p.toml:4: monitor: is a list, and there may be one only"),
        (f"version = 1\nage = '5s'\n{STAT}", "p.toml:2: age: is an unknown key here; it belongs in [[scheme]]"),
        (f"version = 1\n[[target]]\n{STAT}", "p.toml:2: target 1: a target has no name and no pid"),
        (f"version = 1\n[[target]]\npid = 0\n{STAT}", "p.toml:3: target 1: pid: is out of range"),
        (
            f"version = 1\n[[target]]\npid = true\n{STAT}",
            "p.toml:3: target 1: pid: is true or false, and must be a pid",
        ),
        (f"version = 1\n[[target]]\nname = ''\n{STAT}", "p.toml:3: target 1: name: is empty"),
        (f"version = 1\n[[target]]\nname = 'a\u202e'\n{STAT}", "p.toml:3: target 1: name: 'a\\u202e' is not a name"),
        (f'version = 1\n{STAT}name = "a\\u001b"', "p.toml:4: scheme 1: name: 'a\\x1b' is not a name"),
        (f"version = 1\n{STAT}name = 'scheme 2 (stat)'\n{STAT}", "p.toml:5: scheme 2: name: the name is taken"),
        (
            f"version = 1\n{STAT}access_rate = 0",
            "p.toml:4: scheme 1: access_rate: is a number, and must be bounds of an",
        ),
        (f"version = 1\n{STAT}access_rate = '>= 120%'", "p.toml:4: scheme 1: access_rate: '120%' is more than 100 %"),
        (f"version = 1\n{STAT}'' = 1", "p.toml:4: scheme 1: '': is an unknown key"),
        (f"version = 1\n{STAT}[monitor]\nmin_nr_regions = 2000", "p.toml:5: monitor: min_nr_regions (2000) is more"),
        (f"version = 1\n{STAT}[monitor]\nsampling_interval = 5", "p.toml:5: monitor: sampling_interval: is a number"),
        (f"version = 1\nbytes = '5K'\n{STAT}", "p.toml:2: bytes: is an unknown key here; it belongs in [scheme.quota]"),
        (f"version = 1\n{STAT}quota = {{ bytes = '5B' }}", "p.toml:4: scheme 1: quota: bytes: a quota of 5 bytes"),
        (
            f"version = 1\n{STAT}quota = {{ fail_charge = '1:2' }}",
            "p.toml:4: scheme 1: quota: fail_charge: '1:2' is not",
        ),
        (
            f"version = 1\n{STAT}quota = {{ fail_charge = '1/0' }}",
            "p.toml:4: scheme 1: quota: fail_charge: a fail charge",
        ),
        (
            f"version = 1\n{STAT}watermarks = {{ high = '20%', mid = '40%', low = '50%' }}",
            "p.toml:4: scheme 1: watermarks: watermarks of 20.0% (high), 40.0% (mid) and 50.0% (low) are out of order",
        ),
        (
            f"version = 1\n{STAT}goals = [{{ metric = 'active_memory', target = '5%', node = 1 }}]",
            "p.toml:4: scheme 1: goals 1: active_memory of node 1; nodes have free_memory and used_memory",
        ),
        (
            f"version = 1\n{STAT}goals = [{{ metric = 'user_input', target = nan }}]",
            "p.toml:4: scheme 1: goals 1: target: 'nan' is out of range",
        ),
        (
            f"version = 1\n{STAT}filters = [{{ allow = 'file', reject = 'file' }}]",
            "p.toml:4: scheme 1: filters 1: a filter has both allow and reject",
        ),
        (f"version = 1\n{STAT}filters = [{{ not = true }}]", "p.toml:4: scheme 1: filters 1: a filter has neither"),
        (
            f"version = 1\n{STAT}filters = [{{ reject = 'mapping' }}]",
            "p.toml:4: scheme 1: filters 1: a filter by mapping does not say which; give a pattern of its path",
        ),
        (
            f"version = 1\n{STAT}filters = [{{ reject = 'file', pattern = '*' }}]",
            "p.toml:4: scheme 1: filters 1: a filter by file has a value for mapping",
        ),
        (
            f"version = 1\n{STAT}[[scheme.filters]]\nreject = 'file'\n[[scheme.filters]]\nreject = 'fil'",
            "p.toml:7: scheme 1: filters 2: reject: 'fil' is not a kind of filter; use one of address",
        ),
        (f"version = 1\n{STAT}destinations = [{{ node = 1 }}]", "p.toml:4: scheme 1: stat has destinations, and moves"),
        (
            "version = 1\n[[scheme]]\naction = 'migrate_hot'\ndestinations = [{ node = 1, weight = 0 }]",
            "p.toml:4: scheme 1: the weights of all destinations are 0",
        ),
        (f"version = 1\n{STAT}targets = ['x']", "p.toml:4: scheme 1: targets: no target of this file is 'x'; add a"),
        (
            f"version = 1\n[[target]]\npid = 5\n[[target]]\nname = 'b*'\n{STAT}targets = ['5', 'c']",
            "p.toml:8: scheme 1: targets: no target of this file is 'c'; its targets are 5, b*",
        ),
        (
            f"version = 1\n{STAT}filters = [{{ allow = 'target', target = 'x' }}]",
            "p.toml:4: scheme 1: filters 1: target: no target of this file is 'x'",
        ),
        (f"version = 1\n{STAT}[guard]\nmin_free_swap = '101%'", "p.toml:5: guard: min_free_swap: '101%' is more than"),
        ("version = 1\n[[scheme]\n", "p.toml:2: not TOML: "),
        ("version = 1\nversion = 1\n", "p.toml:2: not TOML: "),
        ('version = 1\n[[scheme]]\nname = "abc', "p.toml:3: not TOML: "),
        ("version = " + "9" * 5000, "p.toml: not TOML: "),
        ("a = " + "[" * 5000, "p.toml: nested too deeply"),
    ],
)
def test_one_problem_is_told_with_its_line(text: str, expected: str) -> None:
    found = problems(text)
    assert len(found) == 1
    assert found[0].startswith(expected)


def test_a_lone_problem_is_the_message_and_many_are_counted() -> None:
    with pytest.raises(InvalidPolicy, match=r"^p\.toml:1: version: is missing"):
        parse_policy(STAT, source="p.toml")
    with pytest.raises(InvalidPolicy, match=r"^p\.toml: 2 problems\n  p\.toml:1: a: .*\n  p\.toml:2: b: "):
        parse_policy("a = 1\nb = 2\nversion = 1\n" + STAT, source="p.toml")


class TestLoadPolicy:
    """The file itself."""

    def test_toml_by_its_name(self, tmp_path: Path) -> None:
        path = tmp_path / "policy.toml"
        path.write_text(GOOD)
        assert load_policy(path) == load_policy(str(path)) == parse_policy(GOOD)

    def test_toml_with_a_byte_order_mark_and_windows_line_ends(self, tmp_path: Path) -> None:
        path = tmp_path / "policy.toml"
        path.write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
        assert load_policy(path) == parse_policy(GOOD)

    def test_toml_by_its_content(self, tmp_path: Path) -> None:
        path = tmp_path / "policy"
        path.write_text(GOOD)
        assert load_policy(path) == parse_policy(GOOD)

    def test_json_of_damo_by_its_name_and_by_its_content(self, tmp_path: Path) -> None:
        for name in ("schemes.json", "schemes"):
            path = tmp_path / name
            path.write_text('[{ "action": "stat" }]')
            assert load_policy(path).schemes == (Scheme(name="scheme 1 (stat)", action=Action.STAT),)
        (tmp_path / "broken.json").write_text('[{ "action":\n stat }]')
        with pytest.raises(InvalidPolicy, match=r"broken\.json:2: not JSON: "):
            load_policy(tmp_path / "broken.json")

    def test_scheme_lines_by_their_content(self, tmp_path: Path) -> None:
        path = tmp_path / "schemes.txt"
        path.write_text("# prcl = proactive reclaim\n4K max 0% 0% 5s max pageout # [x]\n")
        (scheme,) = load_policy(path).schemes
        assert scheme.action is Action.PAGEOUT
        assert scheme.pattern.age_s == Bounds(5.0, None)

    @pytest.mark.parametrize("content", [b"", b"\n", b"hello world", b"# x"])
    def test_a_file_of_neither_kind_is_refused(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "schemes"
        path.write_bytes(content)
        with pytest.raises(InvalidPolicy):
            load_policy(path)

    def test_a_file_that_cannot_be_read(self, tmp_path: Path) -> None:
        (tmp_path / "latin.toml").write_bytes(b"version = 1\n# \xe9\n")
        (tmp_path / "big.toml").write_bytes(b"#" * (1024 * 1024 + 1))
        for path, part in (
            (tmp_path / "absent.toml", "absent.toml: cannot read it: No such file"),
            (tmp_path, "cannot read it: Is a directory"),
            (tmp_path / "latin.toml", "latin.toml:2: not UTF-8 text"),
            (tmp_path / "big.toml", "larger than 1 MiB"),
            ("a\0b", "is not a path"),
        ):
            with pytest.raises(InvalidPolicy, match=part) as refusal:
                load_policy(path)
            assert refusal.value.problems == (refusal.value.message,)


def _damage(pieces: tuple[int, int, str]) -> str:
    start, length, inserted = pieces
    return EVERYTHING[:start] + inserted + EVERYTHING[start + length :]


_PIECES = st.sampled_from(
    ["", "[", "]]", '"', "=", "\n", "'''", ".", "9" * 30, "{", "x", "é", "\x00", "# ", '"""', "-1"]
)


_PLAIN = [
    "1",
    "-1",
    "0.5",
    "nan",
    "true",
    "'any'",
    "'0%'",
    "'>= 5s'",
    "'5ms'",
    "'4K'",
    "'stat'",
    "''",
    "[]",
    "[{}]",
    "{}",
]
_ODD = ["1979-05-27", "{ name = 1 }", "[[1]]", '"a\\nb"', "9999999999999999999999", "'<= 18446744073709551615'"]
_LITERALS = st.sampled_from(_PLAIN + _ODD)
_HEADERS = st.sampled_from(
    [
        "[[scheme]]",
        "[[target]]",
        "[monitor]",
        "[guard]",
        "[scheme]",
        "[[guard]]",
        "[x.y]",
        "[scheme.quota]",
        "[[scheme.goals]]",
        "[[scheme.filters]]",
        "[scheme.watermarks]",
    ]
)
_ENTRIES = st.dictionaries(st.sampled_from([*(field.key for field in FIELDS), "scheme", "quota", "'é'"]), _LITERALS)


@settings(deadline=None)
@given(_ENTRIES, st.lists(st.tuples(_HEADERS, _ENTRIES), max_size=4))
def test_any_values_under_any_keys_are_read_or_refused(
    top: dict[str, str], tables: list[tuple[str, dict[str, str]]]
) -> None:
    parts = [("", top | {"version": "1"}), *tables]
    text = "".join(f"{header}\n" + "".join(f"{k} = {v}\n" for k, v in entries.items()) for header, entries in parts)
    try:
        policy = parse_policy(text, source="p")
    except InvalidPolicy:
        return
    assert all(isinstance(sentence, str) for sentence in explain_policy(policy) + warnings(policy))


@settings(deadline=None)
@given(
    st.tuples(st.integers(0, len(EVERYTHING)), st.integers(0, 12), _PIECES | st.text(max_size=4)).map(_damage)
    | st.text(max_size=80)
)
def test_a_damaged_file_is_read_or_refused_with_lines_that_exist(text: str) -> None:
    try:
        policy = parse_policy(text, source="p")
    except InvalidPolicy as refusal:
        for problem in refusal.problems:
            assert "\n" not in problem
            place = problem.split(":")[1]
            assert not place.strip().isdigit() or 1 <= int(place) <= text.count("\n") + 1
        return
    assert policy.schemes
