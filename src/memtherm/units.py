"""Text ↔ numbers at the doors: sizes (bytes, int), times (seconds, float), rates (0..1, float).

Units are binary as in the kernel: `2M`, `2MB` and `2MiB` are all 2 × 1024².
"""

import re
from decimal import Decimal

from memtherm.errors import InvalidInput

PAGE_SIZE = 4096
HUGE_PAGE_SIZE = 2 * 1024 * 1024

_SIZES = {unit: 1024**power for power, unit in enumerate(("", "k", "m", "g", "t", "p"))}
# Decimal, because 7 * 1e-6 in floating point is not the number that is nearest to 7 µs.
_TIMES = {
    "ns": Decimal("1e-9"), "us": Decimal("1e-6"), "µs": Decimal("1e-6"), "ms": Decimal("1e-3"),
    "s": Decimal(1), "sec": Decimal(1), "min": Decimal(60), "m": Decimal(60), "h": Decimal(3600), "d": Decimal(86400),
}  # fmt: skip
_NUMBER = re.compile(r"(\d+(?:\.\d+)?|\.\d+)\s*([^\d\s]*)")
_MAX_SIZE_BYTES = 2**64 - 1  # no address space is larger, and DAMON writes "no limit" like this
_MAX_TIME_S = 1e9  # 31 years; the kernel's counters hold no more either
_SHOWN_CHARACTERS = 60


def shown(text: str) -> str:
    """A text that is quoted in a message: escaped, and cut where it is long."""
    return repr(text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…")


def _split(text: str, kind: str, example: str) -> tuple[Decimal, str]:
    match = _NUMBER.fullmatch(text.strip())
    if match is None or len(match[1]) > _SHOWN_CHARACTERS:
        raise InvalidInput(f"{shown(text)} is not {kind}", hint=f"write it like {example}")
    return Decimal(match[1]), match[2]


def parse_size(text: str) -> int:
    """Bytes of a size such as `4096`, `4K`, `2MiB`, `1.5 GiB`; a part of a byte is cut off.  Raises InvalidInput."""
    number, unit = _split(text, "a size", "4KiB, 2MiB or 1GiB")
    scale = _SIZES.get(re.sub(r"(i?b)$", "", unit.lower()))
    if scale is None:
        raise InvalidInput(f"{shown(text)}: unknown size unit {shown(unit)}", hint="use B, KiB, MiB, GiB or TiB")
    if number * scale > _MAX_SIZE_BYTES:
        raise InvalidInput(f"{shown(text)} is more than any memory", hint="a size is below 16384PiB")
    return int(number * scale)


def parse_time(text: str) -> float:
    """Seconds of a time such as `5ms`, `2min`, `1.5 h`.  A bare `0` needs no unit.  Raises InvalidInput."""
    number, unit = _split(text, "a time", "5ms, 2s or 10min")
    if not unit and number == 0:
        return 0.0
    if unit not in _TIMES:
        what = f"unknown time unit {shown(unit)}" if unit else "a time needs a unit"
        raise InvalidInput(f"{shown(text)}: {what}", hint="use us, ms, s, min, h or d")
    if number * _TIMES[unit] > _MAX_TIME_S:
        raise InvalidInput(f"{shown(text)} is more than 31 years", hint="leave the bound out if there is none")
    return float(number * _TIMES[unit])


def parse_rate(text: str) -> float:
    """A fraction from a percentage such as `5%`, or from a bare number 0..1.  Raises InvalidInput."""
    number, unit = _split(text, "an access rate", "5%")
    if unit not in ("", "%"):
        raise InvalidInput(f"{shown(text)}: unknown rate unit {shown(unit)}", hint="write it like 5%")
    rate = number / 100 if unit == "%" else number
    if rate > 1:
        raise InvalidInput(f"{shown(text)} is more than 100 %", hint="an access rate is from 0% to 100%")
    return float(rate)


def exact_size(size_bytes: int) -> str:
    """A text that `parse_size` reads back as the same number: `4 KiB`, `1025 B`."""
    power = 0
    while power < 5 and size_bytes and size_bytes % 1024 ** (power + 1) == 0:
        power += 1
    return f"{size_bytes // 1024**power} {('B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB')[power]}"


def exact_time(time_s: float) -> str:
    """A text that `parse_time` reads back as the same number: `2 min`, `0.1 s` as `100 ms`."""
    value = Decimal(repr(float(time_s)))
    for unit in ("d", "h", "min", "s", "ms", "us"):
        if value and value % _TIMES[unit] == 0:
            return f"{int(value / _TIMES[unit])} {unit}"
    return f"{value.normalize():f} s"


def exact_rate(rate: float) -> str:
    """A text that `parse_rate` reads back as the same number: `5 %`, `0.25 %`."""
    return f"{(Decimal(repr(float(rate))) * 100).normalize():f} %"


def format_size(size_bytes: float) -> str:
    """A size for people: `4.00 KiB`, `15.3 GiB`; three significant digits."""
    value, units = float(size_bytes), ["B", "KiB", "MiB", "GiB", "TiB", "PiB"]
    index = 0
    while abs(value) >= 1023.95 and index < len(units) - 1:
        value /= 1024
        index += 1
    if index == 0:
        return f"{value:.0f} B"
    digits = 2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0
    return f"{value:.{digits}f} {units[index]}"


def format_time(time_s: float) -> str:
    """A time for people: `5 ms`, `2.0 s`, `2 min 5 s`."""
    if time_s < 0.9995e-3:
        return f"{time_s * 1e6:.0f} us"
    if time_s < 0.9995:
        return f"{time_s * 1e3:.3g} ms"
    if time_s < 59.95:
        return f"{time_s:.1f} s"
    if time_s < 3599.5:
        minutes, seconds = divmod(round(time_s), 60)
        return f"{minutes} min {seconds} s" if seconds else f"{minutes} min"
    hours, minutes = divmod(round(time_s / 60), 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def format_rate(rate: float) -> str:
    """A fraction as a percentage for people: `0 %`, `<0.1 %`, `0.5 %`, `37 %`."""
    percent = rate * 100
    if 0 < percent < 0.05:
        return "<0.1 %"
    return f"{percent:.0f} %" if percent >= 9.95 or percent == 0 else f"{percent:.1f} %"
