"""The heat colours go evenly from dark to light."""

import numpy as np
import pytest
from numpy.typing import NDArray

from memtherm.plot.colours import LEAST_ACCESS_LEVEL, age_colours, heat_colours, heat_level, top_rate

MAPS = pytest.mark.parametrize("colours", [heat_colours(), age_colours()], ids=["rate", "age"])


def lab(colours: NDArray[np.uint8]) -> NDArray[np.float64]:
    """CIE L*a*b* under D65: another space than the one that the map was made in."""
    share = colours / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = linear @ to_xyz.T / np.array([0.9505, 1.0, 1.089])
    root = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.column_stack([116 * root[:, 1] - 16, 500 * (root[:, 0] - root[:, 1]), 200 * (root[:, 1] - root[:, 2])])


@MAPS
def test_lightness_only_grows(colours: NDArray[np.uint8]) -> None:
    lightness = lab(colours)[:, 0]
    assert (np.diff(lightness[::4]) > 0).all()
    assert lightness[0] < 6
    assert lightness[-1] > 92


@MAPS
def test_equal_steps_look_equal(colours: NDArray[np.uint8]) -> None:
    space = lab(colours)
    # From the first tenth on: in the very dark L*a*b* itself is uneven.
    steps = np.linalg.norm(space[42::16] - space[26:-16:16], axis=1)
    assert steps.max() < 2.5 * steps.min()


def test_no_access_is_apart_from_the_least() -> None:
    level = heat_level(np.array([0.0, 1e-9, 0.25, 1.0]), top=1.0)
    assert level.tolist() == [0, LEAST_ACCESS_LEVEL, round(LEAST_ACCESS_LEVEL + (255 - LEAST_ACCESS_LEVEL) / 2), 255]
    assert np.linalg.norm(np.diff(lab(heat_colours()[[0, LEAST_ACCESS_LEVEL]]), axis=0)) > 8


@pytest.mark.parametrize(
    ("rates", "top"), [([0.0], 0.01), ([0.03, np.nan], 0.05), ([0.5], 0.5), ([1.0], 1.0), ([], 0.01)]
)
def test_top_is_a_round_rate(rates: list[float], top: float) -> None:
    assert top_rate(np.array(rates)) == top
