"""`memtherm report wss`: working sets."""

from typing import TYPE_CHECKING, Any

import click

from memtherm.cli.report.options import OutputWords, SelectionWords, output_options, record_argument, selection_options
from memtherm.cli.report.pictures import picture_options

if TYPE_CHECKING:
    from pathlib import Path

    from memtherm.cli.report.show import Scene
    from memtherm.plot.figures import Frame
    from memtherm.views.working_set import WorkingSet

_TIME_ROWS = 20
_MOST_TARGETS = 8


@click.command("wss", short_help="The working set: over time, percentiles, beside RSS.")
@record_argument
@selection_options
@click.option(
    "--min-rate",
    metavar="RATE",
    default="0%",
    help="Memory counts from this access rate up: 5%.  [default: any access]",
)
@click.option("--percentiles", metavar="P,P…", default="0,25,50,75,95,100", show_default=True, help="Which to show.")
@picture_options
@output_options
def command(path: str, **options: Any) -> None:
    """Show how much memory was in use.

    Counted are the bytes of regions that were accessed, for each target and for all together.  `surely` leaves out
    what counts only if its rate was not found too high, `possibly` adds what would count if it was found too low
    (95 % confidence).  RSS stands beside it where the record has it.
    """
    from memtherm.cli.report.numbers import parse_points, parse_rate_of
    from memtherm.cli.report.show import Kind, show
    from memtherm.views.working_set import working_set

    words, output = SelectionWords.take(options), OutputWords.take(options)
    points = parse_points(options["percentiles"])
    min_access_rate = parse_rate_of("--min-rate", options["min_rate"])
    show(
        path,
        words,
        output,
        Kind(
            compute=lambda history, selection: working_set(
                history, selection=selection, min_access_rate=min_access_rate
            ),
            lines=lambda found, scene: _lines(found, scene, points),
            plain=lambda found: _plain(found, points),
            draw=_draw,
        ),
    )


def _parts(found: "WorkingSet") -> list[int | None]:
    """All together first, then each target where there are several."""
    return [None, *found.targets] if len(found.targets) > 1 else [None]


def _lines(found: "WorkingSet", scene: "Scene", points: tuple[float, ...]) -> list[str]:
    from memtherm.cli.report.plain import table_lines
    from memtherm.units import format_rate, format_size

    least = f"{format_rate(found.min_access_rate)} access rate or more" if found.min_access_rate else "any access"
    lines = [f"working set: memory with {least}, in {len(found.time_s)} snapshots"]
    parts = _parts(found)
    for part in parts[: _MOST_TARGETS + 1]:
        if len(parts) > 1:
            lines += ["", "all targets" if part is None else scene.target_name(part)]
        percentiles = found.percentiles(part, points=points)
        columns = [
            percentiles.size_bytes,
            percentiles.sure_bytes,
            percentiles.possible_bytes,
            percentiles.watched_bytes,
        ]
        rows = [
            (f"{point:g} %", *(format_size(column[index]) for column in columns)) for index, point in enumerate(points)
        ]
        lines += table_lines(
            ("percentile", "working set", "surely", "possibly", "watched"),
            rows,
            left=0,
            width=scene.table_width,
            spare=("watched", "possibly", "surely"),
        )
        lines.append(f"mean {format_size(percentiles.mean_bytes)}{_resident_words(found, part)}")
    if len(parts) > _MOST_TARGETS + 1:
        lines.append(f"and {len(parts) - _MOST_TARGETS - 1} more targets: --target, or --json")
    return [*lines, "", *_time_lines(found, scene)]


def _resident_words(found: "WorkingSet", part: int | None) -> str:
    import numpy as np

    from memtherm.units import format_size

    resident = found.resident_of(part)
    known = resident[np.isfinite(resident)]
    return f"; RSS {format_size(float(known.mean()))} in the mean" if len(known) else "; RSS is not in the record"


def _time_lines(found: "WorkingSet", scene: "Scene") -> list[str]:
    """All targets together over time: the mean of each stretch as a bar."""
    from itertools import pairwise

    import numpy as np

    from memtherm.cli.report.plain import bar, table_lines
    from memtherm.units import format_size

    size = found.of_target(None, found.size_bytes)
    resident, times = found.resident_of(None), found.vitals_time_s
    begin_s = found.time_s - found.window_s
    edges = np.linspace(begin_s[0], found.time_s[-1], min(_TIME_ROWS, len(size)) + 1)
    largest = max(1.0, float(size.max()), float(np.nanmax(resident, initial=0.0)))
    room = max(4, scene.width - 36)
    rows = []
    for first_s, end_s in pairwise(edges.tolist()):
        inside_s = np.minimum(found.time_s, end_s) - np.maximum(begin_s, first_s)
        here = inside_s > 0
        near = resident[(times >= first_s) & (times <= end_s) & np.isfinite(resident)]
        mean = float(np.average(size[here], weights=inside_s[here])) if here.any() else 0.0
        rows.append(
            (
                scene.since_begin(first_s),
                format_size(mean) if here.any() else "–",
                format_size(float(near.mean())) if len(near) else "–",
                bar(mean / largest, room),
            )
        )
    return table_lines(("from", "working set", "RSS", ""), rows, width=scene.table_width, spare=("",))


def _draw(found: "WorkingSet", picture: "Path", frame: "Frame") -> None:
    from memtherm.plot.figures import save_working_set

    save_working_set(found, picture, frame=frame)


def _plain(found: "WorkingSet", points: tuple[float, ...]) -> dict[str, Any]:
    from memtherm.cli.report.plain import plain

    return {
        "min_access_rate": found.min_access_rate,
        "percentiles": [{"target": part, **plain(found.percentiles(part, points=points))} for part in _parts(found)],
        "time_s": plain(found.time_s),
        "window_s": plain(found.window_s),
        "series": [
            {
                "target": part,
                **{
                    name: plain(found.of_target(part, getattr(found, name)))
                    for name in ("size_bytes", "sure_bytes", "possible_bytes", "watched_bytes")
                },
            }
            for part in _parts(found)
        ],
        "vitals": {
            "time_s": plain(found.vitals_time_s),
            "targets": list(found.targets),
            **{name: plain(getattr(found, name).T) for name in ("resident_bytes", "swap_bytes", "proportional_bytes")},
        },
    }
