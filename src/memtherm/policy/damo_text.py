"""Values as damo writes them: `4.000 KiB`, `1 m 2.500 s`, `5 %`, `1,000`, `max`, or plain numbers in a field's unit.

damo 3.4 with --raw writes some times in nanoseconds, and reads them back in the field's unit, as is done here.
"""

import math

from memtherm.errors import InvalidInput
from memtherm.units import parse_size, parse_time, shown

_NO_LIMIT = 2**64 - 1
_LONGEST_S = 1e9


def _plain(value: object) -> float | None:
    """A number, or a text that is one: `5`, `"1,000"`, `"min"`, `"max"`; None for any other text."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise InvalidInput(f"{shown(str(value))} is no value", hint='a number, or a text such as "4 KiB"')
    if isinstance(value, str):
        text = value.strip().replace(",", "")
        if text in ("min", "max"):
            return 0 if text == "min" else math.inf
        try:
            number: float = int(text) if text.isdecimal() else float(text)
        except ValueError:
            return None
    else:
        number = value
    if not number >= 0:
        raise InvalidInput(f"{shown(str(value))} is negative, or no number", hint="it is from 0 up")
    return math.inf if number >= _NO_LIMIT else number


def read_count(value: object) -> int:
    """A whole number.  Raises InvalidInput."""
    number = _plain(value)
    if number is None or math.isinf(number) or number != int(number):
        raise InvalidInput(f"{shown(str(value))} is not a whole number", hint="write it like 1000")
    return int(number)


def read_number(value: object) -> float:
    """Any number.  Raises InvalidInput."""
    number = _plain(value)
    if number is None or math.isinf(number):
        raise InvalidInput(f"{shown(str(value))} is not a number", hint="write it like 1000")
    return number


def read_size(value: object) -> float:
    """Bytes; no limit is infinite.  Raises InvalidInput."""
    number = _plain(value)
    if number is None:
        return parse_size(str(value).replace(",", ""))
    return number if math.isinf(number) else int(number)


def read_time(value: object, *, unit_s: float) -> float:
    """Seconds; no limit, and more than 31 years, are infinite.  `unit_s` is the unit of plain numbers.

    Raises InvalidInput.
    """
    number = _plain(value)
    if number is None:
        words = str(value).replace(",", "").split()
        pairs = ["".join(words[index : index + 2]) for index in range(0, len(words), 2)]
        # In whole nanoseconds, because 1.2 s and 3 ms together are 1.2029999999999998 s.
        return sum(round(parse_time(pair) * 1e9) for pair in pairs) / 1e9
    # Divided, because 3 × 1e-6 is 2.9999999999999997e-06.
    seconds = number / round(1 / unit_s)
    return seconds if seconds <= _LONGEST_S else math.inf


def read_share(value: object, *, whole: float) -> float:
    """A share, 1.0 for all; no limit is infinite.  `whole` is the plain number that means all: 100, 1000, 10000.

    Raises InvalidInput.
    """
    number = _plain(value)
    if number is not None:
        return number / whole
    text = str(value).strip()
    number = _plain(text.removesuffix("%")) if text.endswith("%") else None
    if number is None:
        raise InvalidInput(f"{shown(text)} is not a percentage", hint="write it like 5 %")
    return number / 100


def read_truth(value: object) -> bool:
    """True or false, or damo's words for them.  Raises InvalidInput."""
    words = {"y": True, "yes": True, "true": True, "n": False, "no": False, "false": False}
    answer = value if isinstance(value, bool) else words.get(value.lower()) if isinstance(value, str) else None
    if answer is None:
        raise InvalidInput(f"{shown(str(value))} is neither true nor false", hint="write it like true")
    return answer
