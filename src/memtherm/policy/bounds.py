"""Bounds of an access pattern as text: `>= 4KiB`, `<= 5%`, `5% .. 50%`, `== 0%` or just `0%`, `any`."""

import re
from collections.abc import Callable

from memtherm.core.pattern import ANY, Bounds
from memtherm.errors import InvalidInput
from memtherm.units import parse_rate, shown

_OPERATOR = re.compile(r"[<>=!~]+")
_OTHER_SIGNS = {">": ">=", "=>": ">=", "<": "<=", "=<": "<=", "=": "=="}


def parse_bounds(text: str, parse: Callable[[str], float]) -> Bounds:
    """The closed interval that a text means, its values read by `parse`.

    Raises:
        InvalidInput: anything else, bounds that exclude (`<`, `>`) and empty intervals included.
    """
    text = text.strip()
    if text == "any":
        return ANY
    sign = _OPERATOR.match(text)
    if sign is not None:
        return _one_sided(sign[0], text[sign.end() :].strip(), parse)
    if ".." not in text:
        value = parse(text)
        return Bounds(value, value)
    low, high = (part.strip() for part in text.split("..", 1))
    if not low or not high:
        raise InvalidInput(
            f"{shown(text)} lacks an end", hint=f'for one bound write "{">=" if low else "<="} {low or high}"'
        )
    bounds = Bounds(parse(low), parse(high))
    if parse(low) > parse(high):
        raise InvalidInput(
            f"{shown(text)}: the minimum is above the maximum", hint="no region can match; swap the bounds"
        )
    return bounds


def _one_sided(sign: str, rest: str, parse: Callable[[str], float]) -> Bounds:
    if sign not in (">=", "<=", "=="):
        inclusive = _OTHER_SIGNS.get(sign)
        hint = f'bounds are inclusive: write "{inclusive} {rest}"' if inclusive else 'use ">=", "<=" or "=="'
        raise InvalidInput(f"{shown(sign)} is not a sign of a bound", hint=hint)
    value = parse(rest)
    return Bounds(None if sign == "<=" else value, None if sign == ">=" else value)


def parse_percentage(text: str) -> float:
    """A rate that is written with its sign.

    A policy takes no bare number: `1` would be 1 % in a line of seven numbers and 100 % elsewhere.
    Raises InvalidInput.
    """
    if not text.rstrip().endswith("%"):
        raise InvalidInput(f"{shown(text.strip())} is not a percentage", hint="write it like 5% or 0%")
    return parse_rate(text)
