"""Values in damo's files: plain numbers, `"1,024"`, or for people, `"1 s 234 ms"` (damo 3.4)."""

from __future__ import annotations

from memtherm.errors import InvalidInput
from memtherm.units import parse_time, shown

_MAX_NUMBER = 2**64 - 1


def read_number(value: object) -> float:
    """A number, in digits, in groups of them, or as such; raises InvalidInput."""
    if isinstance(value, str):
        text = value.strip().replace(",", "")
        if text in ("min", "max"):
            return _MAX_NUMBER if text == "max" else 0
        try:
            return int(text)
        except ValueError:
            pass
        try:
            value = float(text)
        except ValueError:
            raise InvalidInput(f"{shown(text)} is not a number") from None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= _MAX_NUMBER:
        raise InvalidInput(f"{shown(str(value))} is not a number")
    return value


def read_whole(value: object) -> int:
    """A whole number from 0 up; raises InvalidInput."""
    number = read_number(value)
    if number != int(number) or number < 0:
        raise InvalidInput(f"{shown(str(value))} is not a whole number from 0 up")
    return int(number)


def read_time(value: object, *, unit_s: float) -> float:
    """Seconds; `unit_s` is the unit of plain numbers.  Raises InvalidInput."""
    try:
        return read_number(value) * unit_s
    except InvalidInput:
        if not isinstance(value, str):
            raise
    words = value.replace(",", "").split()
    return sum(parse_time("".join(words[index : index + 2])) for index in range(0, len(words), 2))


def is_plain(value: object) -> bool:
    """Whether a value says no unit."""
    try:
        read_number(value)
    except InvalidInput:
        return False
    return True


def read_percent(value: object) -> float:
    """A share, 1.0 for all, of `"5 %"` or of a number of percent.  Raises InvalidInput."""
    return read_number(value.strip().removesuffix("%") if isinstance(value, str) else value) / 100
