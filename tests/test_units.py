"""Text ↔ numbers at the doors."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memtherm.errors import InvalidInput
from memtherm.units import (
    exact_rate,
    exact_size,
    exact_time,
    format_rate,
    format_size,
    format_time,
    parse_rate,
    parse_size,
    parse_time,
    shown,
)


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("0", 0),
        ("4096", 4096),
        ("4K", 4096),
        ("4k", 4096),
        ("4KB", 4096),
        ("4KiB", 4096),
        (" 2 MiB ", 2 << 20),
        ("1.5GiB", 3 << 29),
        (".5K", 512),
        ("1T", 1 << 40),
        ("10B", 10),
        ("18446744073709551615", 2**64 - 1),
    ],
)
def test_sizes_are_binary_and_exact(text: str, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize(
    ("text", "time_s"),
    [
        ("0", 0.0),
        ("7us", 7e-6),
        ("7µs", 7e-6),
        ("5ms", 0.005),
        ("10 s", 10.0),
        ("10min", 600.0),
        ("10m", 600.0),
        ("1.5h", 5400.0),
        ("2d", 172800.0),
    ],
)
def test_times(text: str, time_s: float) -> None:
    assert parse_time(text) == time_s


@pytest.mark.parametrize(("text", "rate"), [("0%", 0), ("5%", 0.05), ("0.1 %", 0.001), ("0.05", 0.05), ("100%", 1)])
def test_rates(text: str, rate: float) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize(
    ("parse", "text", "part"),
    [
        (parse_size, "", "not a size"),
        (parse_size, "-4K", "not a size"),
        (parse_size, "4Q", "unknown size unit 'Q'"),
        (parse_size, "1e9", "not a size"),
        (parse_size, "18446744073709551616", "more than any memory"),
        (parse_size, "9" * 400, "not a size"),
        (parse_time, "10", "needs a unit"),
        (parse_time, "10 parsecs", "unknown time unit"),
        (parse_time, "99999d", "more than 31 years"),
        (parse_time, "nan", "not a time"),
        (parse_rate, "101%", "more than 100 %"),
        (parse_rate, "1.01", "more than 100 %"),
        (parse_rate, "5‰", "unknown rate unit"),
    ],
)
def test_wrong_text_is_refused_with_a_hint(parse: Callable[[str], float], text: str, part: str) -> None:
    with pytest.raises(InvalidInput, match=part) as refusal:
        parse(text)
    assert refusal.value.hint
    assert len(str(refusal.value)) < 200


@given(st.text(max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    for parse in (parse_size, parse_time, parse_rate):
        try:
            value = parse(text)
        except InvalidInput:
            continue
        assert 0 <= value < 2**64


@given(st.integers(0, 2**64 - 1) | st.integers(0, 2**14).map(lambda blocks: blocks << 20))
def test_an_exact_size_reads_back(size_bytes: int) -> None:
    assert parse_size(exact_size(size_bytes)) == size_bytes


@given(st.floats(1e-30, 1e9) | st.just(0.0) | st.integers(0, 10**9).map(float))
def test_an_exact_time_reads_back(time_s: float) -> None:
    assert parse_time(exact_time(time_s)) == time_s


@given(st.floats(1e-30, 1) | st.just(0.0) | st.integers(0, 1000).map(lambda permille: permille / 1000))
def test_an_exact_rate_reads_back(rate: float) -> None:
    assert parse_rate(exact_rate(rate)) == rate


@pytest.mark.parametrize(
    ("time_s", "text"),
    [(120, "2 min"), (90, "90 s"), (0.1, "100 ms"), (7e-6, "7 us"), (0, "0 s"), (7200, "2 h"), (86400, "1 d")],
)
def test_an_exact_time_takes_the_largest_whole_unit(time_s: float, text: str) -> None:
    assert exact_time(time_s) == text


@given(st.integers(0, 2**50))
def test_a_size_for_people_is_right_to_three_digits(size_bytes: int) -> None:
    text = format_size(size_bytes)
    assert parse_size(text) == pytest.approx(size_bytes, rel=0.006, abs=1)
    assert len(text) <= 8


@given(st.floats(0, 1))
def test_a_rate_for_people_never_shows_an_access_as_none(rate: float) -> None:
    assert (format_rate(rate) in ("0 %", "0.0 %")) == (rate == 0)


@pytest.mark.parametrize(
    ("time_s", "text"),
    [
        (0.00099999, "1 ms"),
        (0.005, "5 ms"),
        (0.9999, "1.0 s"),
        (2, "2.0 s"),
        (59.97, "1 min"),
        (125, "2 min 5 s"),
        (3599.7, "1 h"),
        (7325, "2 h 2 min"),
    ],
)
def test_a_time_for_people_at_the_borders_of_units(time_s: float, text: str) -> None:
    assert format_time(time_s) == text


def test_a_quoted_text_is_escaped_and_cut() -> None:
    assert shown("a\x1b[2J") == r"'a\x1b[2J'"
    assert len(shown("x" * 10_000)) < 80
