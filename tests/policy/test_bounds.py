"""Bounds as text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memtherm.core.pattern import ANY, Bounds
from memtherm.errors import InvalidInput
from memtherm.policy.bounds import parse_bounds, parse_percentage
from memtherm.units import parse_size, parse_time


@pytest.mark.parametrize(
    ("text", "bounds"),
    [
        (">= 4KiB", Bounds(4096, None)),
        (">=4K", Bounds(4096, None)),
        ("<= 1M", Bounds(None, 1 << 20)),
        ("== 2MiB", Bounds(2 << 20, 2 << 20)),
        ("4K .. 2M", Bounds(4096, 2 << 20)),
        ("4K..4K", Bounds(4096, 4096)),
        ("8K", Bounds(8192, 8192)),
        ("any", ANY),
    ],
)
def test_forms(text: str, bounds: Bounds) -> None:
    assert parse_bounds(text, parse_size) == bounds


def test_zero_percent_is_exactly_zero() -> None:
    assert parse_bounds("0%", parse_percentage) == Bounds(0, 0)


@pytest.mark.parametrize(
    ("text", "part", "hint"),
    [
        ("> 2min", "not a sign", 'bounds are inclusive: write ">= 2min"'),
        ("< 2min", "not a sign", 'write "<= 2min"'),
        ("=> 2min", "not a sign", 'write ">= 2min"'),
        ("= 2min", "not a sign", 'write "== 2min"'),
        ("!= 2min", "not a sign", 'use ">="'),
        ("2min ..", "lacks an end", 'write ">= 2min"'),
        (".. 2min", "lacks an end", 'write "<= 2min"'),
        ("3min .. 2min", "minimum is above the maximum", "swap"),
        (">= 2", "needs a unit", "use us"),
        (">= -2min", "not a time", "write it like"),
        ("2min .. 3min .. 4min", "not a time", "write it like"),
        ("", "not a time", "write it like"),
    ],
)
def test_what_is_not_a_closed_interval_is_refused_with_the_right_form(text: str, part: str, hint: str) -> None:
    with pytest.raises(InvalidInput, match=part) as refusal:
        parse_bounds(text, parse_time)
    assert hint in refusal.value.hint


@pytest.mark.parametrize("text", ["0", "1", "5", "0.05"])
def test_a_rate_needs_its_sign_in_a_policy(text: str) -> None:
    with pytest.raises(InvalidInput, match="not a percentage"):
        parse_percentage(text)


@given(st.text(alphabet="<>=.%0159KMimns anyé\n", max_size=20))
def test_any_text_is_read_or_refused(text: str) -> None:
    for parse in (parse_size, parse_percentage, parse_time):
        try:
            bounds = parse_bounds(text, parse)
        except InvalidInput:
            continue
        if bounds.minimum is not None and bounds.maximum is not None:
            assert bounds.minimum <= bounds.maximum
