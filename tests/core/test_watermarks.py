"""Watermarks with hysteresis (damon-spec §2.8)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memtherm.core.watermarks import Watermarks, WatermarkState
from memtherm.errors import InvalidInput

MARKS = Watermarks(high=0.5, mid=0.4, low=0.2, interval_s=5.0)


class NaiveWatermarks:
    """The kernel's rules, in thousandths."""

    def __init__(self, high: int, mid: int, low: int) -> None:
        self.high, self.mid, self.low = high, mid, low
        self.is_active = True

    def update(self, permil: int) -> None:
        if permil > self.high or permil < self.low:
            self.is_active = False
        elif self.mid <= permil <= self.high and not self.is_active:
            pass
        else:
            self.is_active = True


marks = st.lists(st.integers(0, 1000), min_size=3, max_size=3).map(lambda three: sorted(three, reverse=True))


@given(marks=marks, data=st.data())
def test_the_same_as_the_naive_rules(marks: list[int], data: st.DataObject) -> None:
    high, mid, low = marks
    naive = NaiveWatermarks(high, mid, low)
    state = WatermarkState(Watermarks(high=high / 1000, mid=mid / 1000, low=low / 1000))
    near = [value + step for value in marks for step in (-1, 0, 1) if 0 <= value + step <= 1000]
    for permil in data.draw(st.lists(st.sampled_from(near) | st.integers(0, 1000), max_size=20)):
        naive.update(permil)
        state.update(permil / 1000, 0.0)
        assert state.is_active == naive.is_active
        assert bool(state.why_inactive) != state.is_active


def test_hysteresis() -> None:
    """Starts below mid only; once it works it goes on up to high."""
    state = WatermarkState(MARKS)
    found = []
    for free in (0.45, 0.51, 0.45, 0.4, 0.399, 0.45, 0.5, 0.501, 0.3, 0.199, 0.2, 0.1):
        state.update(free, 0.0)
        found.append(state.is_active)
    assert found == [True, False, False, False, True, True, True, False, True, False, True, False]


def test_why() -> None:
    state = WatermarkState(MARKS)
    assert state.why_inactive == ""
    state.update(0.1, 0.0)
    assert "below the low watermark of 20.0%" in state.why_inactive
    state.update(0.6, 0.0)
    assert "starts below 40.0%" in state.why_inactive


def test_when_to_look() -> None:
    state = WatermarkState(MARKS)
    assert state.is_due(0.0)
    state.update(0.3, 100.0)
    assert state.is_active
    assert state.is_due(100.0), "while it is active, each time"
    state.update(0.9, 100.0)
    assert (state.is_due(104.9), state.is_due(105.0)) == (False, True)


@pytest.mark.parametrize(
    "values",
    [(0.4, 0.5, 0.2, 5.0), (0.5, 0.1, 0.2, 5.0), (1.5, 0.4, 0.2, 5.0), (0.5, 0.4, -0.1, 5.0), (0.5, 0.4, 0.2, -1.0)],
)
def test_marks_out_of_order(values: tuple[float, float, float, float]) -> None:
    high, mid, low, interval_s = values
    with pytest.raises(InvalidInput) as problem:
        Watermarks(high=high, mid=mid, low=low, interval_s=interval_s)
    assert problem.value.hint
