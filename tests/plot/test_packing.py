"""Codes are as exact as they say; texts are harmless."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from memtherm.plot.packing import age_codes, halved, packed, printable, rate_codes, script_json, thinned
from plot.unpack import unpack

RATES = hnp.arrays(np.float64, st.integers(1, 50), elements=st.floats(0, 1) | st.just(float("nan")))
SIZES = hnp.arrays(np.float64, st.integers(1, 400), elements=st.floats(0, 1e12) | st.just(float("nan")))


@given(RATES)
def test_rates_survive(rate: np.ndarray) -> None:
    codes = rate_codes(rate)
    back = (codes / 250.0) ** 2
    known = np.isfinite(rate)
    assert ((codes == 255) == ~known).all()
    assert ((codes[known] == 0) == (rate[known] == 0)).all()
    error = np.abs(back[known] - rate[known])
    assert (error <= np.maximum(0.0041 * np.sqrt(rate[known]), 1.7e-5)).all()


@given(hnp.arrays(np.float64, st.integers(1, 50), elements=st.floats(0, 1e5) | st.just(float("nan"))))
def test_ages_survive(age_s: np.ndarray) -> None:
    top = float(np.nanmax(age_s, initial=1.0))
    codes = age_codes(age_s, least_age_s=0.05, top_age_s=top)
    back = 0.05 * np.expm1(codes * np.log1p(top / 0.05) / 250)
    known = np.isfinite(age_s)
    assert ((codes == 255) == ~known).all()
    assert (np.abs(back[known] - age_s[known]) <= 0.03 * (age_s[known] + 0.05)).all()


@pytest.mark.parametrize("kind", ["u8", "u32", "u64", "f64"])
def test_arrays_survive(kind: str) -> None:
    values = np.arange(200) if kind == "u8" else np.arange(2000) * 7
    assert unpack(packed(values, kind)).tolist() == values.tolist()
    top = np.array([2**64 - 1], np.uint64)
    assert unpack(packed(top, "u64")).tolist() == top.tolist()


def test_two_columns_become_one_by_their_weights() -> None:
    values = np.array([[1.0, 0.0, np.nan, 0.5, 0.25], [np.nan, np.nan, 0.2, 0.4, np.nan]])
    weights = np.array([[3.0, 1.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0, 0.0]])
    mean, weight = halved(values, weights)
    np.testing.assert_allclose(mean, [[0.75, 0.5, 0.25], [np.nan, 0.3, np.nan]])
    np.testing.assert_allclose(weight, [[2.0, 0.5, 0.5], [0.0, 1.0, 0.0]])


@given(SIZES, st.integers(2, 60))
def test_no_peak_is_lost(values: np.ndarray, points: int) -> None:
    time_s = np.arange(len(values), dtype=np.float64)
    times, chosen = thinned(time_s, values, points=points)
    assert len(chosen) <= max(points, 2)
    assert (np.diff(times) > 0).all()
    np.testing.assert_array_equal(values[times.astype(int)], chosen)
    if np.isfinite(values).any():
        assert np.nanmax(chosen) == np.nanmax(values)
        assert np.nanmin(chosen) == np.nanmin(values)


@given(
    st.text() | st.sampled_from(["</script><script>alert(1)</script>", "<!--", "]]>", "\u2028\u2029", "\udcff\ud800"])
)
def test_json_holds_no_markup(text: str) -> None:
    written = script_json({"text": text, text: [text]})
    assert written.isascii()
    assert not set("<>&") & set(written)
    assert json.loads(written) == {"text": text, text: [text]} or text == "text"


def test_texts_cannot_mislead() -> None:
    assert printable("libc.so.6 größe 日本") == "libc.so.6 größe 日本"
    assert printable("a\u202ebc\n\x1b[31m\u2028\udcff") == "a\\u202ebc\\n\\x1b[31m\\u2028\\udcff"
    assert len(printable("x" * 5000)) < 500
