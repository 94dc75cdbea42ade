"""Lines of keys, beside tomllib as the judge of what the keys are."""

import tomllib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from memtherm.policy.locate import Path, key_lines, line_of

TEXT = '''# a comment with [brackets] = and "quotes"
version = 1

[[scheme]]          # [[not]] = "a header"
name = """
two lines, [[scheme]]
age = 5
"""
size = ">= 4K"   # trailing

  [scheme.quota]
  bytes = 'C:\\path'
  limits.time.slow = "1s"

[["scheme"]]
"na=me" = 'x'
list = [
  "a", # ]
  "]",
  { deep = 1 },
]
inline = { age = "5s", x = { y = [1] } }
[scheme . quota]
bytes = \'\'\'it's
[no]\'\'\'
quote = "\\"]"
[monitor]
"a.b".c = 1979-05-27T07:32:00Z
e = """x""""
last = 1'''


def test_each_key_is_found_at_its_line() -> None:
    lines = key_lines(TEXT)
    at = TEXT.split("\n")
    expected: dict[Path, str] = {
        ("version",): "version",
        ("scheme", 0): "[[scheme]]",
        ("scheme", 0, "name"): "name =",
        ("scheme", 0, "size"): "size =",
        ("scheme", 0, "quota"): "  [scheme.quota]",
        ("scheme", 0, "quota", "bytes"): "  bytes =",
        ("scheme", 0, "quota", "limits"): "  limits.",
        ("scheme", 0, "quota", "limits", "time", "slow"): "  limits.",
        ("scheme", 1): '[["scheme"]]',
        ("scheme", 1, "na=me"): '"na=me"',
        ("scheme", 1, "list"): "list",
        ("scheme", 1, "list", 2): "  { deep",
        ("scheme", 1, "list", 2, "deep"): "  { deep",
        ("scheme", 1, "inline", "x", "y"): "inline",
        ("scheme", 1, "inline"): "inline",
        ("scheme", 1, "quota", "quote"): "quote",
        ("monitor",): "[monitor]",
        ("monitor", "a.b", "c"): '"a.b".c',
        ("monitor", "last"): "last",
    }
    for path, beginning in expected.items():
        assert at[lines[path] - 1].startswith(beginning), path


def test_what_has_no_line_of_its_own_is_at_the_line_around_it() -> None:
    lines = key_lines(TEXT)
    assert line_of(lines, ("scheme", 1, "inline", "x", "y", 0)) == lines["scheme", 1, "inline"]
    assert line_of(lines, ("scheme", 0, "missing")) == lines["scheme", 0]
    assert line_of(lines, ("nowhere",)) == 1


def test_windows_line_ends_count_once() -> None:
    assert key_lines("a = 1\r\nb = 2\r\n") == {(): 1, ("a",): 1, ("b",): 2}


def _paths(value: Any, path: Path = ()) -> list[Path]:
    """All keys that tomllib sees, save those inside of values."""
    if isinstance(value, dict):
        return [found for key, inner in value.items() for found in [(*path, key), *_paths(inner, (*path, key))]]
    if isinstance(value, list) and value and all(isinstance(inner, dict) for inner in value):
        return [found for i, inner in enumerate(value) for found in [(*path, i), *_paths(inner, (*path, i))]]
    return []


_VALUES = st.sampled_from(['"a # ["', "'''\n[x]\n'''", '"""\ny = 1\\"\n"""', "[\n 1, # ]\n 2 ]", "-1", "true", "0x1F"])
_KEYS = st.sampled_from(["a", "b-c", '"d e"', "'f.g'", "h"])


@given(st.lists(st.tuples(st.sampled_from(["[[x]]", "[[y]]", "# ="]), st.dictionaries(_KEYS, _VALUES)), max_size=6))
def test_every_key_that_tomllib_sees_has_the_line_that_holds_it(tables: list[tuple[str, dict[str, str]]]) -> None:
    text, line, expected = "", 1, []
    in_table = False
    for header, values in tables:
        in_table = in_table or header != "# ="
        text, line = text + header + "\n", line + 1
        for key, value in values.items() if header != "# =" or not in_table else ():
            if not in_table:
                continue
            expected.append(line)
            text += f"{key} = {value}\n"
            line += 1 + value.count("\n")
    data = tomllib.loads(text)
    lines = key_lines(text)
    keys = [path for path in _paths(data) if isinstance(path[-1], str) and len(path) == 3]
    assert sorted(lines[path] for path in keys) == expected
