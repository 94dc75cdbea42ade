"""Numbers and bounds as words of a sentence."""

import math
from collections.abc import Callable, Iterable

from memtherm.core.pattern import AccessPattern, Bounds
from memtherm.units import exact_rate, exact_size, exact_time

_UNIT_WORDS = {"d": "day", "h": "hour", "min": "minute", "s": "second"}


def time_words(time_s: float) -> str:
    """A time in full: `2 minutes`, `1 second`, `100 ms`."""
    number, unit = exact_time(time_s).split(" ")
    word = _UNIT_WORDS.get(unit)
    if word is None:
        return f"{number} {unit}"
    return f"{number} {word}" if number == "1" else f"{number} {word}s"


def each_words(interval_s: float) -> str:
    """How often: `a second`, `a minute`, `in each 5 seconds`."""
    words = time_words(interval_s)
    return f"a {words[2:]}" if words in ("1 second", "1 minute", "1 hour", "1 day") else f"in each {words}"


def list_words(parts: Iterable[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *firsts, last = parts
    return f"{', '.join(firsts)} and {last}" if firsts else last


def size_words(size_bytes: float) -> str:
    return exact_size(int(size_bytes))


def normal(bounds: Bounds, top: float | None = None) -> Bounds:
    """Without bounds that exclude nothing: a minimum of 0, and a maximum at the top of the scale."""
    at_top = bounds.maximum is not None and bounds.maximum >= (math.inf if top is None else top)
    return Bounds(bounds.minimum or None, None if at_top else bounds.maximum)


def range_words(bounds: Bounds, words: Callable[[float], str], top: float | None = None) -> str:
    """`4 KiB or more`, `at most 5 %`, `1 second to 2 seconds`, `exactly 0 %`; empty for no bound."""
    if bounds.minimum and bounds.minimum == bounds.maximum:
        return f"exactly {words(bounds.minimum)}"
    bounds = normal(bounds, top)
    low, high = bounds.minimum, bounds.maximum
    if high is None:
        return f"{words(low)} or more" if low is not None else ""
    if low is None:
        return f"at most {words(high)}" if high else f"exactly {words(high)}"
    return f"{words(low)} to {words(high)}"


def pattern_words(pattern: AccessPattern) -> str:
    """`in regions of 4 KiB or more that was not accessed for 2 minutes or longer`."""
    size = range_words(pattern.size_bytes, size_words)
    place = f"in regions of {size}" if size else "in regions of any size"
    return f"{place} {_access_words(pattern.access_rate, pattern.age_s)}"


def _access_words(rate: Bounds, age: Bounds) -> str:
    duration = range_words(age, time_words).replace(" or more", " or longer")
    if rate.maximum == 0:
        return f"that was not accessed for {duration}" if duration else "that was not accessed in the last window"
    rate_words = range_words(rate, exact_rate, 1)
    if rate_words:
        return f"with an access rate of {rate_words}" + (f" for {duration}" if duration else "")
    if duration:
        return f"at any access rate that has stayed about the same for {duration}"
    return "at any access rate"
