"""Results of `views` → PNG and SVG by matplotlib: heat map, working set beside RSS, distributions.

The same numbers give the same bytes with the same matplotlib: no date, no random names inside.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from memtherm.core.history import History
from memtherm.core.selection import EVERYTHING, Selection
from memtherm.errors import InvalidInput, NotSupported
from memtherm.plot.colours import LEAST_ACCESS_LEVEL, heat_colours, heat_level, top_rate
from memtherm.plot.files import write_whole
from memtherm.plot.packing import printable
from memtherm.units import format_rate, format_size, format_time
from memtherm.views.axis import AxisRange
from memtherm.views.distribution import Distribution
from memtherm.views.heatmap import HeatMap
from memtherm.views.working_set import WorkingSet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = ("png", "svg")
_INK, _MUTED, _GRID, _BLANK = "#1c2128", "#57606a", "#d9dde3", "#e4e7eb"
_LINE_COLOURS = ("#b3341f", "#0b62b8", "#6b7683", "#8250b4")
_COLD = "#4a6fb5"
_MAX_LABEL = 25
_GAP = 0.014  # of the height, for each fold
_LEAST_BAND = 0.02  # of the height: a stack of a few pages beside gigabytes is still seen
_TIME_STEPS_S = (
    *(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600),
    *(7200, 10800, 21600, 43200, 86400, 172800, 604800),
)


@dataclass(frozen=True, kw_only=True)
class Frame:
    """What is written around a picture.

    Attributes:
        title: over it: the targets and the method, see `title_of`.
        begin_s: when the run began, seconds since the epoch: times are shown from there on.
        targets: their names, by index: a heat map of several says which part is whose.
    """

    title: str
    begin_s: float = 0.0
    targets: tuple[str, ...] = ()


def frame_of(history: History, *, selection: Selection = EVERYTHING) -> Frame:
    """Title, begin and target names as the run tells them."""
    names = tuple(f"{target.name} ({target.pid})" for target in history.targets)
    return Frame(title=title_of(history, selection=selection), begin_s=history.time_span_s[0], targets=names)


def title_of(history: History, *, selection: Selection = EVERYTHING) -> str:
    """Targets and method of a run: `redis-server (4242), census by bpf`."""
    wanted = range(len(history.targets)) if selection.targets is None else sorted(selection.targets)
    targets = [f"{history.targets[index].name} ({history.targets[index].pid})" for index in wanted]
    if len(targets) > 3:
        targets = [*targets[:3], f"{len(targets) - 3} more"]
    report = next(iter(history.reports(selection)), None)
    method = "" if report is None else f"{report.snapshot.conditions.method} by {report.snapshot.conditions.probe}"
    return ", ".join(filter(None, [*targets, method]))


def save_heat_map(heat: HeatMap, path: Path, *, frame: Frame) -> None:
    """Time from left to right, addresses from bottom to top, folds between ranges; `.png` or `.svg`.

    Raises:
        InvalidInput: another kind of file.
        NotSupported: matplotlib is not installed.
        OSError: the file cannot be written.
    """
    _save(_heat_figure(heat, frame), path)


def save_working_set(found: WorkingSet, path: Path, *, frame: Frame, target: int | None = None) -> None:
    """The working set over time beside RSS, of one target or of all together (None).  Raises as save_heat_map."""
    _save(_working_set_figure(found, target, frame), path)


def save_distribution(found: Distribution, path: Path, *, frame: Frame) -> None:
    """Bytes by access rate, idle time and temperature.  Raises as save_heat_map."""
    _save(_distribution_figure(found, frame), path)


# ---- heat map


def _heat_figure(heat: HeatMap, frame: Frame) -> Figure:
    figure = _new_figure(width=12.0, height=7.0)
    axes = figure.add_axes((0.17, 0.085, 0.72, 0.845))
    is_rate = heat.unit == "rate"
    known = heat.heat[np.isfinite(heat.heat)]
    top = top_rate(heat.heat) if is_rate else max(float(known.max(initial=0.0)), 1e-9)
    colours = heat_colours()
    time_s = heat.time_s - frame.begin_s
    places = _places(heat.ranges)
    for shown, (low, high) in zip(heat.ranges, places, strict=True):
        rows = heat.heat[shown.first_row : shown.end_row]
        pixels = colours[heat_level(np.nan_to_num(rows), top=top)]
        alpha = np.where(np.isfinite(rows), 255, 0).astype(np.uint8)
        axes.imshow(
            np.dstack([pixels, alpha]),
            extent=(float(time_s[0]), float(time_s[-1]), low, high),
            aspect="auto",
            origin="lower",
            interpolation="nearest",
        )
    axes.set_xlim(float(time_s[0]), float(time_s[-1]))
    axes.set_ylim(0, 1)
    axes.set_facecolor(_BLANK)
    for (_, below), (above, _) in pairwise(places):
        axes.axhspan(below, above, facecolor="white", edgecolor=_MUTED, hatch="//////", linewidth=0)
    _name_ranges(axes, heat.ranges, places)
    _name_targets(axes, heat.ranges, places, frame.targets)
    _time_axis(axes, float(time_s[0]), float(time_s[-1]))
    _titles(figure, axes, frame.title)
    _colour_bar(figure, top, is_rate=is_rate)
    return figure


def _places(ranges: Sequence[AxisRange]) -> list[tuple[float, float]]:
    """Where each range lies in the height, 0..1: by its rows, small ones a little larger."""
    gap = min(_GAP, 0.25 / max(1, len(ranges) - 1))
    rows = np.array([shown.end_row - shown.first_row for shown in ranges], np.float64)
    height = 1 - gap * (len(ranges) - 1)
    share = np.maximum(rows / rows.sum(), min(_LEAST_BAND, 0.5 / len(ranges)))
    share *= height / share.sum()
    end = np.cumsum(share + gap) - gap
    return list(zip((end - share).tolist(), end.tolist(), strict=True))


def _name_ranges(axes: Axes, ranges: Sequence[AxisRange], places: Sequence[tuple[float, float]]) -> None:
    """Names of the mappings beside their rows, and addresses at the ends of large ranges; none over another."""
    taken: list[float] = []

    def write(place: float, text: str, colour: str) -> None:
        if all(abs(place - other) > 0.026 for other in taken):
            taken.append(place)
            label = _shortened(text)
            axes.text(-0.008, place, label, transform=axes.get_yaxis_transform(), **_text(colour, ha="right"))

    for shown, (low, high) in sorted(zip(ranges, places, strict=True), key=lambda one: one[1][0] - one[1][1]):
        parts = shown.parts or ()
        scale = (high - low) / max(1, shown.size_bytes)
        named = [(low + ((part.start + part.end) / 2 - shown.start) * scale, part) for part in parts]
        for place, part in sorted(named, key=lambda one: one[1].start - one[1].end):
            if (part.end - part.start) * scale >= _LEAST_BAND * 0.9 or len(parts) == 1:
                write(place, part.name, _INK)
        if not parts:
            write((low + high) / 2, shown.name or f"{shown.start:#x}", _INK)
        elif all((part.end - part.start) * scale < _LEAST_BAND * 0.9 for _, part in named):
            write((low + high) / 2, shown.name, _INK)
    for shown, (low, high) in zip(ranges, places, strict=True):
        if high - low > 0.09:
            write(low + 0.012, f"{shown.start:#x}", _MUTED)
            write(high - 0.012, f"{shown.end:#x}", _MUTED)
    for before, after, (_, below), (above, _) in zip(ranges[:-1], ranges[1:], places[:-1], places[1:], strict=True):
        if before.target == after.target and after.start > before.end:
            write((below + above) / 2, f"gap {format_size(after.start - before.end)}", _MUTED)
    axes.set_yticks([])


def _name_targets(
    axes: Axes, ranges: Sequence[AxisRange], places: Sequence[tuple[float, float]], names: Sequence[str]
) -> None:
    """Of several targets each is named where its part of the map begins, at the top."""
    highest = {shown.target: high for shown, (_, high) in zip(ranges, places, strict=True)}
    if len(highest) < 2:
        return
    for target, high in highest.items():
        name = _shortened(names[target] if target < len(names) else f"target {target}", 40)
        text = axes.text(0.006, high - 0.006, name, transform=axes.transAxes, **_text(_INK, va="top"))
        text.set_bbox({"facecolor": "white", "alpha": 0.85, "linewidth": 0, "pad": 2})


def _colour_bar(figure: Figure, top: float, *, is_rate: bool) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, PowerNorm

    colours = heat_colours()[LEAST_ACCESS_LEVEL:] / 255.0
    scale = ScalarMappable(PowerNorm(0.5, vmin=0, vmax=top), ListedColormap(colours.tolist()))
    bar = figure.colorbar(scale, cax=figure.add_axes((0.905, 0.085, 0.016, 0.845)))
    ticks = [share * top for share in (0.0, 0.02, 0.1, 0.25, 0.5, 1.0)]
    bar.set_ticks(ticks, labels=[format_rate(tick) if is_rate else f"{tick:.3g}" for tick in ticks])
    bar.set_label(
        "access rate (share of looks; black: none)" if is_rate else "accesses found a second (Hz; black: none)"
    )
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8.5, colors=_MUTED)


# ---- working set and distributions


def _working_set_figure(found: WorkingSet, target: int | None, frame: Frame) -> Figure:
    figure = _new_figure(width=12.0, height=4.6)
    axes = figure.add_axes((0.08, 0.14, 0.9, 0.7))
    window_s, vitals_s = found.time_s - frame.begin_s, found.vitals_time_s - frame.begin_s
    size = found.of_target(target, found.size_bytes).astype(np.float64)
    sure, possible = (found.of_target(target, one) for one in (found.sure_bytes, found.possible_bytes))
    lines = [
        ("working set", window_s, size),
        ("RSS", vitals_s, found.resident_of(target)),
        ("watched", window_s, found.of_target(target, found.watched_bytes).astype(np.float64)),
    ]
    if (possible > sure).any():
        axes.fill_between(
            window_s, sure, possible, color=_LINE_COLOURS[0], alpha=0.15, linewidth=0, label="surely to possibly"
        )
    for (name, time_s, values), colour in zip(lines, _LINE_COLOURS, strict=False):
        if np.isfinite(values).any():
            # One window is a point, which a line does not show.
            axes.plot(time_s, values, color=colour, linewidth=1.4, label=name, marker="." if len(values) < 3 else "")
    axes.set_ylim(0, max(1.0, float(axes.get_ylim()[1])))
    _size_axis(axes.yaxis, float(axes.get_ylim()[1]))
    axes.set_ylabel("memory", color=_INK)
    _time_axis(axes, float(window_s[0] - found.window_s[0]), float(window_s[-1]))
    axes.grid(axis="y", color=_GRID, linewidth=0.8)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=4, frameon=False, fontsize=9)
    rate = f", at a rate of {format_rate(found.min_access_rate)} or more" if found.min_access_rate else ""
    _titles(figure, axes, f"Working set of {frame.title}{rate}", pad=26)
    return figure


def _distribution_figure(found: Distribution, frame: Frame) -> Figure:
    figure = _new_figure(width=12.0, height=4.8)
    panels = (
        ("Access rate", "of the bytes that were accessed", found.access_rate, format_rate),
        ("Idle time", "of the bytes that were not", found.idle_log, _time),
        ("Temperature", "of all bytes: seconds in use (+), idle (−)", found.temperature_log, _time),
    )
    for index, (title, note, histogram, text) in enumerate(panels):
        axes = figure.add_axes((0.095 + 0.325 * index, 0.1, 0.215, 0.7))
        edges, sizes = histogram.edges, histogram.size_bytes
        is_cold = edges[:-1] < 0 if index == 2 else np.full(len(sizes), index == 1)
        place = np.arange(len(sizes))
        axes.barh(place, sizes, color=np.where(is_cold, _COLD, _LINE_COLOURS[0]).tolist(), height=0.8)
        # Every border has its label where there is room, at most about sixteen.
        step = -(-len(edges) // 16)
        axes.set_yticks((np.arange(len(edges)) - 0.5)[::step], [text(float(edge)) for edge in edges[::step]])
        axes.set_ylim(-0.5, len(sizes) - 0.5)
        axes.set_xlim(0, max(1.0, float(sizes.max(initial=0.0)) * 1.05))
        _size_axis(axes.xaxis, float(axes.get_xlim()[1]), most=4)
        axes.grid(axis="x", color=_GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.set_title(title, loc="left", fontsize=10.5, color=_INK, pad=18)
        axes.text(0, 1.02, note, transform=axes.transAxes, **_text(_MUTED, va="bottom"))
        _plain(axes)
    figure.text(0.025, 0.95, f"Distributions of {printable(frame.title)}, means over time", **_text(_INK, size=12))
    return figure


# ---- what all pictures share


def _new_figure(*, width: float, height: float) -> Figure:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise NotSupported("pictures need matplotlib", hint='install it: pip install "memtherm[plot]"') from error
    return Figure(figsize=(width, height), facecolor="white")


def _save(figure: Figure, path: Path) -> None:
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    kind = path.suffix.lower().removeprefix(".")
    if kind not in FORMATS:
        raise InvalidInput(f"{path.name}: a picture is a .png or a .svg file", hint="name it heat.png or heat.svg")
    FigureCanvasAgg(figure)
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    content = io.BytesIO()
    with rc_context({"svg.hashsalt": "memtherm"}), warnings.catch_warnings():
        # A mapping's name may be in any script; what the font lacks is drawn as a box.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(content, format=kind, dpi=130, metadata=metadata)
    write_whole(path, content.getvalue())


def _text(colour: str, *, ha: str = "left", va: str = "center", size: float = 8.5) -> dict[str, Any]:
    # A name is no formula, even with two dollar signs in it.
    return {"color": colour, "ha": ha, "va": va, "fontsize": size, "parse_math": False}


def _titles(figure: Figure, axes: Axes, title: str, *, pad: float = 10) -> None:
    text = axes.set_title(_shortened(title, 130), loc="left", fontsize=12, color=_INK, pad=pad)
    text.set_parse_math(False)
    figure.align_labels()


def _shortened(text: str, most: int = _MAX_LABEL) -> str:
    text = printable(text)
    return text if len(text) <= most else f"{text[: most // 2 - 1]}…{text[len(text) - most // 2 :]}"


def _plain(axes: Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(_MUTED)
    axes.tick_params(labelsize=8.5, colors=_MUTED)


def _time_axis(axes: Axes, first_s: float, last_s: float) -> None:
    if not last_s > first_s:
        last_s = first_s + 1.0
    wanted = (last_s - first_s) / 10
    step = next((step for step in _TIME_STEPS_S if step >= wanted), wanted)
    ticks = np.arange(np.ceil(first_s / step - 1e-9), np.floor(last_s / step + 1e-9) + 1) * step
    axes.set_xticks(ticks, [_time(float(round(tick, 6))).replace(".0 s", " s") for tick in ticks])
    axes.set_xlim(first_s, last_s)
    axes.set_xlabel("time since the record began", color=_INK)
    _plain(axes)


def _size_axis(axis: Any, top: float, *, most: int = 6) -> None:
    step = 1.0
    while top / step > most:
        step *= 2
    ticks = np.arange(0, top + step / 2, step)
    axis.set_ticks(ticks[ticks <= top], [format_size(float(tick)) if tick else "0" for tick in ticks[ticks <= top]])


def _time(value_s: float) -> str:
    if value_s == 0:
        return "0 s"
    return f"−{format_time(-value_s)}" if value_s < 0 else format_time(value_s)
