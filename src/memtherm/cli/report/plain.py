"""Results of `views` as plain values for JSON: arrays as lists, what is not known as null."""

import math
import re
import textwrap
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

_DIGITS = 9
# A name of so many characters is worth more than a column that may go; and a shorter one is none.
_CUT_TEXT = 20
_SHORTEST_TEXT = 8
_PICTURE = re.compile("[\x1b·░▒▓█┄▀▄└]")


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


def table_lines(
    head: tuple[str, ...],
    rows: Sequence[tuple[str, ...]],
    *,
    left: int = 1,
    width: int = 0,
    spare: tuple[str, ...] = (),
) -> list[str]:
    """Columns under their heads; the last `left` of them are texts, aligned left and as long as they are.

    Args:
        width: of the terminal in characters; 0: no limit.  A table that is wider loses columns, and says which;
            then its last text is cut.
        spare: heads of columns that may go, the first one first.
    """
    kept = list(range(len(head)))
    gone = []
    for name in spare:
        if not width or _width_of(head, rows, kept, left=left) <= width:
            break
        if name in head:
            kept.remove(head.index(name))
            gone.append(name)
            left -= head.index(name) >= len(head) - left
    cells = [tuple(row[index] for index in kept) for row in (head, *rows)]
    if width and left:
        before = sum(max(len(row[index]) for row in cells) + 2 for index in range(len(kept) - 1))
        room = max(_SHORTEST_TEXT, width - before)
        cells = [(*row[:-1], row[-1] if len(row[-1]) <= room else f"{row[-1][: room - 1]}…") for row in cells]
    told = ", ".join(name for name in gone if name)
    note = textwrap.wrap(f"no room for: {told}", max(20, width), subsequent_indent="  ") if told else []
    return [*_aligned(cells, left), *note]


def _width_of(head: tuple[str, ...], rows: Sequence[tuple[str, ...]], kept: list[int], *, left: int) -> int:
    """Of these columns, the last of them cut if it is a text."""
    widths = [max(len(row[index]) for row in (head, *rows)) for index in kept]
    if left:
        widths[-1] = min(widths[-1], _CUT_TEXT)
    return sum(widths) + 2 * (len(widths) - 1)


def wrapped(lines: Sequence[str], width: int) -> list[str]:
    """Sentences that are wider than the terminal in several lines; tables and pictures as they are."""
    return [
        part
        for line in lines
        for part in (
            textwrap.wrap(line, max(20, width), subsequent_indent=f"{_indent(line)}  ")
            if width and len(line) > width and "  " not in line.strip() and not _PICTURE.search(line)
            else [line]
        )
    ]


def _indent(line: str) -> str:
    return line[: len(line) - len(line.lstrip())]


def _aligned(cells: Sequence[tuple[str, ...]], left: int) -> list[str]:
    numbers = len(cells[0]) - left
    widths = [max(len(row[index]) for row in cells) for index in range(len(cells[0]))]
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
