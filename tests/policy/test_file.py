"""Policy files: what is read, and that every problem is told at once with its line."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memtherm.core.attributes import MonitoringAttributes
from memtherm.core.guard import GuardSettings
from memtherm.core.scheme import AccessPattern, Action, Bounds, Scheme
from memtherm.errors import InvalidPolicy
from memtherm.policy.explain import explain_policy, warnings
from memtherm.policy.fields import FIELDS
from memtherm.policy.file import load_policy, parse_policy
from memtherm.policy.values import Policy, TargetSelector

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


def test_what_a_partial_file_leaves_out_keeps_its_default() -> None:
    policy = parse_policy(f'version = 1\n{STAT}[monitor]\naggregation_interval = "200ms"\n[guard]\n')
    assert policy.targets == ()
    assert policy.attributes == MonitoringAttributes(aggregation_interval_s=0.2)
    assert policy.guard == GuardSettings()
    assert policy.schemes[0].pattern == AccessPattern()


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
quota = { bytes = "128MiB" }
[scheme.watermarks]
metric = "x"

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
    expected = [
        "p.toml:2: sheme: is an unknown key; did you mean scheme?",
        'p.toml:5: target 1 "redis-server": a target has both a name and a pid',
        'p.toml:6: target 1 "redis-server": cgroup: is not supported by this version',
        'p.toml:10: scheme 1 "a": size: \'>\' is not a sign of a bound; bounds are inclusive: write ">= 4KiB"',
        "p.toml:11: scheme 1 \"a\": access_rate: '0' is not a percentage",
        "p.toml:12: scheme 1 \"a\": age: '2': a time needs a unit",
        "p.toml:13: scheme 1 \"a\": action: 'pagout' is not an action; use one of willneed, cold, pageout",
        'p.toml:14: scheme 1 "a": quota: is not supported by this version',
        'p.toml:15: scheme 1 "a": watermarks: is not supported by this version',
        'p.toml:18: scheme 2 "b": action: is missing; write action = "pageout"',
        "p.toml:20: scheme 2 \"b\": size: '5M .. 4K': the minimum is above the maximum",
        'p.toml:21: scheme 2 "b": acess_rate: is an unknown key; did you mean access_rate?',
        'p.toml:23: scheme 3 "b": name: the name is taken by the scheme of line 19',
        'p.toml:24: scheme 3 "b": action: is a number, and must be an action',
        "p.toml:26: monitor: the sampling interval (5 ms) is longer than the aggregation interval (1 ms)",
        "p.toml:27: monitor: max_nr_regions: is out of range",
        "p.toml:29: guard: min_target_bytes: is a date or time, and must be a size",
        "p.toml:30: guard: override_application_hints: is text, and must be true or false",
    ]
    found = problems(text)
    assert len(found) == len(expected)
    for problem, beginning in zip(found, expected, strict=True):
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
    return GOOD[:start] + inserted + GOOD[start + length :]


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
_HEADERS = st.sampled_from(["[[scheme]]", "[[target]]", "[monitor]", "[guard]", "[scheme]", "[[guard]]", "[x.y]"])
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
    st.tuples(st.integers(0, len(GOOD)), st.integers(0, 12), _PIECES | st.text(max_size=4)).map(_damage)
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
