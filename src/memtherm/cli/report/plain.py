"""Results of `views` as plain values for JSON: arrays as lists, what is not known as null."""

import math
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

_DIGITS = 9


def plain(value: Any) -> Any:
    """Dataclasses as objects with the same names; floats to nine significant digits of their part."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, np.ndarray):
        return [plain(one) for one in value.tolist()]
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if isinstance(value, float):
        return round(value, _DIGITS) if math.isfinite(value) else None
    return value


def clean(text: str) -> str:
    """A name of a process or a file without what would move a terminal's cursor."""
    return "".join(character if character.isprintable() else "?" for character in text)


def table_lines(head: tuple[str, ...], rows: Sequence[tuple[str, ...]], *, left: int = 1) -> list[str]:
    """Columns under their heads; the last `left` of them are texts, aligned left and as long as they are."""
    cells = [head, *rows]
    numbers = len(head) - left
    widths = [max(len(row[index]) for row in cells) for index in range(len(head))]
    lines = []
    for row in cells:
        parts = [cell.rjust(width) for cell, width in zip(row[:numbers], widths, strict=False)]
        parts += [cell.ljust(width) for cell, width in zip(row[numbers:], widths[numbers:], strict=True)]
        lines.append("  ".join(parts).rstrip())
    return lines


def bar(share: float, width: int) -> str:
    """A share of 1 as a bar; more than nothing is never empty."""
    length = share * width
    return "█" * max(1, round(length)) if share > 0 else ""
