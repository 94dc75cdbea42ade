"""The colours of heat: one dark-to-light map for pictures and page, even to the eye."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

_Numbers = NDArray[np.float64]

LEVELS = 256
# The first colour is for "not accessed" alone; the least access stands clearly apart from it.
LEAST_ACCESS_LEVEL = 26

# Chroma and hue (degrees; blue, violet, red, orange, yellow) along the map.  Lightness grows evenly beside them:
# that is what makes equal steps look equal, and keeps the map readable without colour.
_STOPS = np.array([0.0, 0.3, 0.55, 0.8, 1.0])
_CHROMA = np.array([0.035, 0.15, 0.185, 0.155, 0.07])
_HUE = np.array([268.0, 302.0, 375.0, 420.0, 462.0])
# Another family for ages (blue, green), so that nobody takes old for hot.
_AGE_CHROMA = np.array([0.03, 0.085, 0.1, 0.1, 0.05])
_AGE_HUE = np.array([265.0, 240.0, 205.0, 165.0, 130.0])
_LIGHTNESS = (0.15, 0.97)


def heat_colours() -> NDArray[np.uint8]:
    """The map for access rates as sRGB, from cold to hot (LEVELS × 3).

    Its path is a curve in OKLab (B. Ottosson, 2020), where distances are differences that people see.
    """
    return _colours(_CHROMA, _HUE)


def age_colours() -> NDArray[np.uint8]:
    """The map for ages as sRGB, from young to old (LEVELS × 3)."""
    return _colours(_AGE_CHROMA, _AGE_HUE)


def _colours(chroma_stops: _Numbers, hue_stops: _Numbers) -> NDArray[np.uint8]:
    along = np.linspace(0, 1, LEVELS)
    lightness = _LIGHTNESS[0] + (_LIGHTNESS[1] - _LIGHTNESS[0]) * along
    hue = np.radians(_smooth(along, hue_stops))
    chroma = _smooth(along, chroma_stops)
    linear = _linear_rgb(np.column_stack([lightness, chroma * np.cos(hue), chroma * np.sin(hue)]))
    return np.rint(255 * _gamma(np.clip(linear, 0, 1))).astype(np.uint8)


def heat_level(rate: _Numbers, *, top: float) -> NDArray[np.intp]:
    """The colour of each access rate: 0 for none, else by its square root, so that rare accesses can be told apart.

    Args:
        rate: 0..1.
        top: the rate that is drawn brightest.
    """
    share = np.sqrt(np.clip(rate / top, 0, 1))
    level = np.rint(LEAST_ACCESS_LEVEL + (LEVELS - 1 - LEAST_ACCESS_LEVEL) * share).astype(np.intp)
    return np.where(rate > 0, level, 0)


def top_rate(rate: _Numbers) -> float:
    """The round rate (1, 2, 5 % and so on) at or above the largest of these; those that are NaN do not count."""
    known = rate[np.isfinite(rate)]
    largest = float(known.max()) if known.size else 0.0
    return next(step for step in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, math.inf) if largest <= step * 1.001)


def _smooth(along: _Numbers, values: _Numbers) -> _Numbers:
    """Through the stops without corners: a moving mean of straight lines, which are drawn on past both ends."""
    reach = np.linspace(-0.08, 0.08, 33)
    points = along[:, None] + reach[None, :]
    stops = np.concatenate(([-1.0], _STOPS, [2.0]))
    first = values[0] + (values[1] - values[0]) / (_STOPS[1] - _STOPS[0]) * -1
    last = values[-1] + (values[-1] - values[-2]) / (_STOPS[-1] - _STOPS[-2])
    smoothed: _Numbers = np.interp(points, stops, np.concatenate(([first], values, [last]))).mean(axis=1)
    return smoothed


def _linear_rgb(lab: _Numbers) -> _Numbers:
    cones = lab @ np.array(
        [[1, 1, 1], [0.3963377774, -0.1055613458, -0.0894841775], [0.2158037573, -0.0638541728, -1.2914855480]]
    )
    to_rgb = np.array(
        [
            [4.0767416621, -1.2684380046, -0.0041960863],
            [-3.3077115913, 2.6097574011, -0.7034186147],
            [0.2309699292, -0.3413193965, 1.7076147010],
        ]
    )
    linear: _Numbers = cones**3 @ to_rgb
    return linear


def _gamma(linear: _Numbers) -> _Numbers:
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
