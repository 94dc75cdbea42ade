"""Schemes as lines of seven values, the way of 2020:

`min-size max-size min-rate max-rate min-age max-age action`, such as `4K max 0% 0% 5s max pageout`.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from memtherm.core.pattern import AccessPattern, Bounds
from memtherm.core.scheme import Scheme
from memtherm.errors import InvalidInput
from memtherm.policy.kinds import parse_action
from memtherm.policy.problems import problem_line, refuse
from memtherm.units import parse_rate, parse_size, parse_time, shown

FORM = "min-size max-size min-rate max-rate min-age max-age action"
EXAMPLE = "4K max 0% 0% 5s max pageout"
_NO_BOUND = re.compile(r"min|max|0+(?:\.0*)?")


def _parse_percent(text: str) -> float:
    """In a line a bare number is a percentage already: `5` and `5%` are the same."""
    try:
        return parse_rate(text.removesuffix("%") + "%")
    except InvalidInput as refusal:
        raise InvalidInput(f"{shown(text)} is not a percentage", hint="from 0% to 100%, such as 5 or 5%") from refusal


@dataclass(frozen=True)
class _Column:
    name: str
    attribute: str
    parse: Callable[[str], float]


_COLUMNS = (
    _Column("size", "size_bytes", parse_size),
    _Column("rate", "access_rate", _parse_percent),
    _Column("age", "age_s", parse_time),
)


def parse_scheme_line(line: str, *, number: int = 1) -> Scheme:
    """The scheme that a line of seven values means.

    Bare `0`, `min` and `max` mean no bound, as in 2020, in each of the six places.  A zero that is
    meant has its unit: `0%` as the highest rate is memory that was never accessed.  Sizes are as
    in `4K`, rates in percent with or without the sign, ages as in `5s`, `10min`.  All bounds are
    inclusive.  What follows a `#` is a comment.

    Args:
        number: for the name of the scheme, such as `scheme 1 (pageout)`.

    Raises:
        InvalidInput: with all that is wrong in the line.

    Example:
        >>> parse_scheme_line("4K max 0% 0% 5s max pageout").pattern.access_rate
        Bounds(minimum=0.0, maximum=0.0)
    """
    words = line.split("#", 1)[0].split()
    if len(words) != 7:
        raise InvalidInput(
            f"{len(words)} value{'' if len(words) == 1 else 's'} where a scheme has seven: {shown(line.strip())}",
            hint=f"write {FORM}, such as: {EXAMPLE}",
        )
    problems: list[str] = []
    bounds: dict[str, Bounds] = {}
    for index, column in enumerate(_COLUMNS):
        minimum = _bound(f"min-{column.name}", words[2 * index], column.parse, problems)
        maximum = _bound(f"max-{column.name}", words[2 * index + 1], column.parse, problems)
        if minimum is not None and maximum is not None and minimum > maximum:
            problems.append(f"min-{column.name} {words[2 * index]} is above max-{column.name} {words[2 * index + 1]}")
        bounds[column.attribute] = Bounds(minimum, maximum)
    try:
        action = parse_action(words[6].lower())
    except InvalidInput as refusal:
        problems.append(_with_hint("action", refusal))
    if problems:
        raise InvalidInput("; ".join(problems), hint=f"the form is {FORM}, such as: {EXAMPLE}")
    return Scheme(action=action, pattern=AccessPattern(**bounds), name=f"scheme {number} ({action})")


def parse_scheme_lines(text: str, *, source: str = "schemes") -> tuple[Scheme, ...]:
    """The schemes of a text with one in each line; blank lines and comments (`#`) are left out.

    Raises:
        InvalidPolicy: with the problems of all lines, or because there is no scheme.
    """
    schemes: list[Scheme] = []
    problems: list[str] = []
    for line_number, line in enumerate(text.split("\n"), start=1):
        if not line.split("#", 1)[0].strip():
            continue
        try:
            schemes.append(parse_scheme_line(line, number=len(schemes) + len(problems) + 1))
        except InvalidInput as refusal:
            problems.append(problem_line(source, line_number, "", refusal.message))
    hint = f"the form is {FORM}, such as: {EXAMPLE}"
    if problems:
        raise refuse(source, problems, hint=hint)
    if not schemes:
        raise refuse(source, [f"{source}: no scheme in it"], hint=hint)
    return tuple(schemes)


def _bound(place: str, word: str, parse: Callable[[str], float], problems: list[str]) -> float | None:
    if _NO_BOUND.fullmatch(word.lower()):
        return None
    try:
        return parse(word)
    except InvalidInput as refusal:
        problems.append(_with_hint(place, refusal))
        return None


def _with_hint(place: str, refusal: InvalidInput) -> str:
    return f"{place}: {refusal.message}" + (f" ({refusal.hint})" if refusal.hint else "")
