"""Scheme lines of seven values, the way of 2020."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memtherm.core.pattern import AccessPattern, Bounds
from memtherm.core.scheme import Action
from memtherm.errors import InvalidInput, InvalidPolicy
from memtherm.policy.explain import explain
from memtherm.policy.scheme_line import parse_scheme_line, parse_scheme_lines
from memtherm.policy.warnings import scheme_warnings

MIB = 1 << 20


def test_page_out_a_region_over_100_mib_with_low_access_for_more_than_10_minutes() -> None:
    scheme = parse_scheme_line("100M 0 0 5 10min 0 pageout")
    assert scheme.action is Action.PAGEOUT
    assert scheme.pattern == AccessPattern(
        size_bytes=Bounds(100 * MIB, None), access_rate=Bounds(None, 0.05), age_s=Bounds(600.0, None)
    )
    assert scheme_warnings(scheme) == []


def test_huge_pages_for_a_region_over_2_mib_with_high_access_for_more_than_2_seconds() -> None:
    scheme = parse_scheme_line("2M max 80 max 2s max hugepage")
    assert scheme.action is Action.HUGEPAGE
    assert scheme.pattern == AccessPattern(
        size_bytes=Bounds(2 * MIB, None), access_rate=Bounds(0.8, None), age_s=Bounds(2.0, None)
    )


def test_ethp_huge_pages_for_what_is_accessed_and_none_for_what_was_not_for_7_seconds() -> None:
    grow, shrink = parse_scheme_lines("min max 5 max min max hugepage\n2M max min min 7s max nohugepage\n")
    assert grow.pattern == AccessPattern(access_rate=Bounds(0.05, None))
    assert shrink.pattern == AccessPattern(size_bytes=Bounds(2 * MIB, None), age_s=Bounds(7.0, None))
    # `min` as the highest rate is no bound: that this line takes hot memory, too, is said.
    assert any("0% 0%" in warning for warning in scheme_warnings(shrink))
    meant = parse_scheme_line("2M max 0% 0% 7s max nohugepage")
    assert meant.pattern.access_rate == Bounds(0, 0)
    assert not any("0% 0%" in warning for warning in scheme_warnings(meant))


def test_prcl_with_bare_zeros_has_no_bound_and_is_warned_of() -> None:
    scheme = parse_scheme_line("4K max 0 0 5s max pageout")
    assert scheme.pattern == AccessPattern(size_bytes=Bounds(4096, None), age_s=Bounds(5.0, None))
    assert any("hot memory" in warning and "0% 0%" in warning for warning in scheme_warnings(scheme))


def test_prcl_as_it_is_meant_pages_out_what_was_never_accessed() -> None:
    scheme = parse_scheme_line("4K max 0% 0% 5s max pageout")
    assert scheme.pattern.access_rate == Bounds(0, 0)
    assert (
        explain(scheme) == "pages out memory in regions of 4 KiB or more that was not accessed for 5 seconds or longer"
    )
    assert scheme_warnings(scheme) == []


@pytest.mark.parametrize("word", ["0", "min", "max", "MAX", "00", "0.0"])
def test_zero_min_and_max_are_no_bound_in_each_place(word: str) -> None:
    assert parse_scheme_line(" ".join([word] * 6) + " stat").pattern == AccessPattern()


def test_percent_signs_comments_and_case() -> None:
    scheme = parse_scheme_line("  4k  2MiB 5% 50 100ms 1h  WILLNEED  # bring it back", number=3)
    assert scheme.name == "scheme 3 (willneed)"
    assert scheme.pattern == AccessPattern(
        size_bytes=Bounds(4096, 2 * MIB), access_rate=Bounds(0.05, 0.5), age_s=Bounds(0.1, 3600.0)
    )


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("", ["0 values where a scheme has seven"]),
        ("4K max 0 0 5s pageout", ["6 values"]),
        ("4K max 0 0 5s max pageout now", ["8 values"]),
        ("4K max 0 0 5s max pagout", ["'pagout' is not an action", "pageout"]),
        ("4K max 0 101 5s max pageout", ["max-rate: '101' is not a percentage"]),
        ("4K max 0 0 5 max pageout", ["min-age: '5': a time needs a unit"]),
        ("4Q 3x 0 0 -1s max pageout", ["min-size", "max-size", "min-age"]),
        ("9M 1M 50 5 9s 1s stat", ["min-size 9M is above max-size 1M", "min-rate", "min-age"]),
    ],
)
def test_a_wrong_line_is_refused_with_all_that_is_wrong(line: str, parts: list[str]) -> None:
    with pytest.raises(InvalidInput) as refusal:
        parse_scheme_line(line)
    for part in parts:
        assert part in str(refusal.value)
    assert "min-size max-size min-rate max-rate min-age max-age action" in refusal.value.hint


def test_a_text_of_lines_skips_comments_and_numbers_the_schemes() -> None:
    schemes = parse_scheme_lines("# two schemes\n\n4K max 0% 0% 5s max pageout\n  # more\n0 0 0 0 0 0 stat # count\n")
    assert [scheme.name for scheme in schemes] == ["scheme 1 (pageout)", "scheme 2 (stat)"]


def test_all_wrong_lines_of_a_text_are_told_with_their_numbers() -> None:
    with pytest.raises(InvalidPolicy) as refusal:
        parse_scheme_lines("nonsense\n0 0 0 0 0 0 stat\n\n0 0 0 0 0 0 fly\n", source="old.txt")
    assert [problem.split(": ")[0] for problem in refusal.value.problems] == ["old.txt:1", "old.txt:4"]


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing\n"])
def test_a_text_without_a_scheme_is_refused(text: str) -> None:
    with pytest.raises(InvalidPolicy, match="no scheme"):
        parse_scheme_lines(text)


_SIZES_AND_AGES = ["0", "min", "max", "4K", "2M", "0B", "5s", "10min", "-1", "1e3"]
_WORDS = st.sampled_from([*_SIZES_AND_AGES, "5", "5%", "0%", "100", "101", "pageout", "stat", "#", "é", "x"])


@given(st.lists(_WORDS, min_size=6, max_size=8).map(" ".join) | st.text(max_size=60))
def test_any_line_is_read_or_refused(line: str) -> None:
    try:
        scheme = parse_scheme_line(line)
    except InvalidInput:
        return
    assert explain(scheme)
    assert isinstance(scheme_warnings(scheme), list)


def test_a_scheme_line_does_not_cost_the_import_of_pydantic() -> None:
    code = "import sys, memtherm.policy.scheme_line, memtherm.policy.explain; sys.exit('pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
