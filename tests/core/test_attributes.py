"""Monitoring attributes: what DAMON refuses (damon-spec §1.3), and how many samples an interval has."""

import pytest

from memtherm.core.attributes import MonitoringAttributes, samples_in
from memtherm.errors import InvalidInput


def test_set_attrs() -> None:
    """The kernel's vector; S 5000 µs and A 100000 µs are the defaults."""
    MonitoringAttributes(min_nr_regions=10, max_nr_regions=1000, sampling_interval_s=0.005, aggregation_interval_s=0.1)
    with pytest.raises(InvalidInput, match="min_nr_regions is 1"):
        MonitoringAttributes(min_nr_regions=1)
    with pytest.raises(InvalidInput, match="more than max_nr_regions"):
        MonitoringAttributes(max_nr_regions=9)
    with pytest.raises(InvalidInput, match="longer than"):
        MonitoringAttributes(aggregation_interval_s=0.004999)


def test_defaults() -> None:
    """DAMON's (damon-spec §1.2) but for the update of the mappings, whose reason the class gives."""
    attributes = MonitoringAttributes()
    assert (attributes.sampling_interval_s, attributes.aggregation_interval_s) == (0.005, 0.1)
    assert (attributes.min_nr_regions, attributes.max_nr_regions) == (10, 1000)
    assert (attributes.samples_per_window, attributes.samples_per_update) == (20, 200)


def test_limits_are_inclusive() -> None:
    attributes = MonitoringAttributes(
        min_nr_regions=3, max_nr_regions=3, sampling_interval_s=0.1, aggregation_interval_s=0.1
    )
    assert attributes.samples_per_window == 1
    with pytest.raises(InvalidInput):
        MonitoringAttributes(min_nr_regions=2, max_nr_regions=3)


@pytest.mark.parametrize("name", ["sampling_interval_s", "aggregation_interval_s", "regions_update_interval_s"])
@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf"), 1e9])
def test_impossible_intervals(name: str, value: float) -> None:
    with pytest.raises(InvalidInput, match=name) as problem:
        MonitoringAttributes(**{name: value})  # type: ignore[arg-type]
    assert problem.value.hint


@pytest.mark.parametrize(
    ("interval_s", "sampling_s", "samples"),
    [
        (0.1, 0.005, 20),  # 19 in floating point
        (0.3, 0.1, 3),  # 2 in floating point
        (0.1, 0.03, 3),
        (0.1, 0.0, 100_000),  # an interval of 0 counts as 1 µs in divisions (damon-spec §0)
        (0.0, 0.005, 0),
        (60.0, 0.005, 12_000),
    ],
)
def test_samples_in(interval_s: float, sampling_s: float, samples: int) -> None:
    assert samples_in(interval_s, sampling_s) == samples


def test_intervals_of_zero() -> None:
    attributes = MonitoringAttributes(sampling_interval_s=0, aggregation_interval_s=0, regions_update_interval_s=0)
    assert attributes.samples_per_window == 1
    assert attributes.samples_per_update == 0
