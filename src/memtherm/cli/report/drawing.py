"""A heat map as text: half blocks in 24-bit colour, or one plain character for each pixel."""

import os
import sys
import textwrap
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from memtherm.cli.report.plain import clean
from memtherm.plot.colours import heat_colours, heat_level
from memtherm.units import format_rate, format_size, format_time
from memtherm.views.axis import AxisRange
from memtherm.views.heatmap import HeatMap

_RESET = "\x1b[0m"
_BLOCKS = "·░▒▓█"
_LETTERS = ".-+*#"
_NOT_WATCHED = " "
_MAX_GUTTER = 18
# Names beside the picture take no more than this share of the terminal.
_SHARE_OF_GUTTER = 0.25
# Narrower than this they go; those above each range stay.
_ROOM_FOR_GUTTER = 32


@dataclass(frozen=True)
class Style:
    """How pixels are drawn.

    Attributes:
        colour: half blocks in 24-bit colour, two rows in a line.
        levels: characters from cold to hot where there is no colour.
    """

    colour: bool
    levels: str = _BLOCKS

    @property
    def rows_in_line(self) -> int:
        return 2 if self.colour else 1


def choose_style(colour: bool | None) -> Style:
    """What the terminal can show; `colour` is what the user wants, None: nothing said."""
    encoding = (getattr(sys.stdout, "encoding", "") or "ascii").lower().replace("-", "")
    levels = _BLOCKS if encoding == "utf8" else _LETTERS
    if colour is None:
        can = os.environ.get("COLORTERM", "").lower() in ("truecolor", "24bit") and encoding == "utf8"
        colour = can and sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    return Style(colour, levels)


def widest_gutter(width: int) -> int:
    """The most that `gutter_width` takes of a terminal."""
    return min(_MAX_GUTTER, int(width * _SHARE_OF_GUTTER)) + 1 if width >= _ROOM_FOR_GUTTER else 0


def gutter_width(heat: HeatMap, width: int) -> int:
    """Characters for names beside the picture; 0 where there is no room or there are no names."""
    names = [part.name for shown in heat.ranges for part in shown.parts]
    return min(widest_gutter(width), max(len(name) for name in names) + 1) if names else 0


def top_of(heat: HeatMap) -> float:
    """The heat that is drawn brightest."""
    known = heat.heat[np.isfinite(heat.heat)]
    return float(known.max()) if known.size and known.max() > 0 else 1.0


def heat_lines(heat: HeatMap, *, style: Style, width: int, target_names: dict[int, str], begin_s: float) -> list[str]:
    """The picture with its labels, the highest address first; of few columns each is drawn several times.

    Args:
        target_names: of targets, where there is more than one.
        begin_s: what times are counted from, seconds since the epoch.
    """
    gutter = gutter_width(heat, width)
    times = max(1, (width - gutter) // heat.heat.shape[1])
    heat = _widened(heat, times)
    top = top_of(heat)
    lines: list[str] = []
    above: AxisRange | None = None
    for shown in reversed(heat.ranges):
        if above is not None:
            lines.append(_fold_line(above, shown, gutter + heat.heat.shape[1]))
        lines += textwrap.wrap(_range_line(shown, target_names), max(20, width), subsequent_indent="  ")
        lines += _pixel_lines(heat, shown, style=style, gutter=gutter, top=top)
        above = shown
    legend = legend_lines(heat, style=style, top=top, times=times)
    if not style.colour:
        legend = [part for line in legend for part in textwrap.wrap(line, max(20, width), subsequent_indent="  ")]
    return [*lines, *_time_axis(heat, gutter, begin_s), *legend]


def _widened(heat: HeatMap, times: int) -> HeatMap:
    """Each column so many times."""
    columns = heat.heat.shape[1]
    if times == 1:
        return heat
    time_s = np.linspace(heat.time_s[0], heat.time_s[-1], columns * times + 1)
    watched = np.repeat(heat.watched, times, axis=1)
    return replace(heat, heat=np.repeat(heat.heat, times, axis=1), watched=watched, age_s=None, time_s=time_s)


def _fold_line(above: AxisRange, below: AxisRange, width: int) -> str:
    text = (
        f" {format_size(above.start - below.end)} folded away, not watched "
        if above.target == below.target
        else " another process "
    )
    return text.center(max(width, len(text) + 4), "┄")


def _range_line(shown: AxisRange, target_names: dict[int, str]) -> str:
    owner = target_names.get(shown.target, "")
    name = ": ".join(part for part in (owner, clean(shown.name)) if part)
    span = f"{shown.start:#x}..{shown.end:#x}, {format_size(shown.size_bytes)}"
    return f"{name}  {span}" if name else span


def _pixel_lines(heat: HeatMap, shown: AxisRange, *, style: Style, gutter: int, top: float) -> list[str]:
    rows = np.arange(shown.first_row, shown.end_row)[::-1]
    names = _row_names(heat, shown, style.rows_in_line)
    lines = []
    for index, first in enumerate(range(0, len(rows), style.rows_in_line)):
        pixels = heat.heat[rows[first : first + style.rows_in_line]]
        text = _coloured(pixels, top) if style.colour else _plain(pixels[0], top, style.levels)
        lines.append(names[index][: max(0, gutter - 1)].ljust(gutter) + text if gutter else text)
    return lines


def _row_names(heat: HeatMap, shown: AxisRange, rows_in_line: int) -> list[str]:
    """For each line the mapping whose upper end is in it; of several the largest."""
    nr_lines = -(-(shown.end_row - shown.first_row) // rows_in_line)
    names, sizes = [""] * nr_lines, [0] * nr_lines
    ends = heat.row_end[shown.first_row : shown.end_row]
    for part in shown.parts:
        row = min(int(np.searchsorted(ends, np.uint64(part.end), side="left")), len(ends) - 1)
        line = (len(ends) - 1 - row) // rows_in_line
        if part.end - part.start > sizes[line]:
            names[line], sizes[line] = clean(part.name), part.end - part.start
    return names


def _plain(pixels: NDArray[np.float64], top: float, levels: str) -> str:
    """One character a pixel, by the square root of its heat as colours are; any access never looks like none."""
    step = np.ceil(np.sqrt(np.nan_to_num(pixels) / top) * (len(levels) - 1) - 1e-9).astype(int)
    characters = [levels[min(index, len(levels) - 1)] for index in step.tolist()]
    watched = np.isfinite(pixels).tolist()
    return "".join(one if seen else _NOT_WATCHED for one, seen in zip(characters, watched, strict=True)).rstrip()


def _coloured(pixels: NDArray[np.float64], top: float) -> str:
    """Two rows as half blocks: the upper as foreground, the lower as background."""
    colours = heat_colours()
    levels = np.where(np.isfinite(pixels), heat_level(np.nan_to_num(pixels), top=top), -1)
    if len(levels) == 1:
        levels = np.vstack((levels, np.full_like(levels, -1)))
    text, last = [], ""
    for upper, lower in levels.T.tolist():
        code, character = _cell(colours, upper, lower)
        if code != last:
            text.append(_RESET + code)
            last = code
        text.append(character)
    return "".join(text) + _RESET


def _cell(colours: NDArray[np.uint8], upper: int, lower: int) -> tuple[str, str]:
    def code(kind: int, level: int) -> str:
        red, green, blue = colours[level].tolist()
        return f"\x1b[{kind};2;{red};{green};{blue}m"

    if upper < 0 and lower < 0:
        return "", " "
    if upper < 0:
        return code(38, lower), "▄"
    if lower < 0:
        return code(38, upper), "▀"
    return code(38, upper) + code(48, lower), "▀"


def _time_axis(heat: HeatMap, gutter: int, begin_s: float) -> list[str]:
    columns = heat.heat.shape[1]
    marks, line = [0, columns // 2, columns], ""
    for mark in marks:
        time_s = heat.time_s[0] + (heat.time_s[-1] - heat.time_s[0]) * mark / columns - begin_s
        text = format_time(time_s) if time_s > 1e-6 else "0 s"
        place = gutter + mark - (0 if mark == 0 else len(text) // 2 if mark < columns else len(text))
        if place >= len(line) + (1 if line else 0):
            line = line.ljust(place) + text
    return [" " * gutter + "└" + "─" * max(0, columns - 2) + "┘", line]


def legend_lines(heat: HeatMap, *, style: Style, top: float, times: int) -> list[str]:
    """What colours, rows and columns mean; each column is drawn `times` times."""
    rows = (heat.row_end - heat.row_start).astype(np.int64)
    column_s = times * float(heat.time_s[-1] - heat.time_s[0]) / heat.heat.shape[1]
    drawn = f", drawn {times} characters wide" if times > 1 else ""
    if style.colour:
        scale = f"{_colour_scale()} up to {_heat_words(heat, top)}"
    else:
        steps = len(style.levels) - 1
        shares = [(level, (index / steps) ** 2) for index, level in enumerate(style.levels[1:], start=1)]
        scale = ", ".join(f"{level} up to {_heat_words(heat, share * top)}" for level, share in shares)
        scale = f"{style.levels[0]} no access, {scale}"
    return [
        f"{scale}, blank: not watched",
        f"a column is {format_time(column_s)}{drawn}, a row {format_size(float(np.median(rows)))}",
    ]


def _heat_words(heat: HeatMap, value: float) -> str:
    return format_rate(value) if heat.unit == "rate" else f"{value:.3g} accesses a second"


def _colour_scale() -> str:
    colours = heat_colours()
    steps = np.linspace(0, len(colours) - 1, 12).astype(int).tolist()
    return "".join(_cell(colours, step, step)[0] + "▀" for step in steps) + _RESET
