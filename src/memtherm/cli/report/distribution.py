"""`memtherm report distribution`: bytes by access rate, idle time and temperature."""

from typing import TYPE_CHECKING, Any

import click

from memtherm.cli.report.options import OutputWords, SelectionWords, output_options, record_argument, selection_options
from memtherm.cli.report.pictures import picture_options

if TYPE_CHECKING:
    from pathlib import Path

    from memtherm.cli.report.show import Scene
    from memtherm.plot.figures import Frame
    from memtherm.views.distribution import Distribution
    from memtherm.views.weighted import Histogram


@click.command("distribution", short_help="Bytes by access rate, idle time and temperature; bandwidth.")
@record_argument
@selection_options
@click.option("--log", "doubling", is_flag=True, help="Bins of times that double, instead of equal ones.")
@click.option("--bins", type=click.IntRange(1, 1000), default=10, show_default=True, help="How many equal ones.")
@click.option("--percentiles", metavar="P,P…", default="0,1,25,50,75,99,100", show_default=True, help="Which to show.")
@picture_options
@output_options
def command(path: str, **options: Any) -> None:
    """Show how many bytes are how hot, and for how long; means over time.

    Idle time is how long ago memory was last accessed.  Temperature is one number for both: the seconds of accesses
    in the present phase of memory in use (rate × time), and minus the idle time of the rest.
    """
    from memtherm.cli.report.numbers import parse_points
    from memtherm.cli.report.show import Kind, show
    from memtherm.views.distribution import distribution

    words, output = SelectionWords.take(options), OutputWords.take(options)
    points = parse_points(options["percentiles"])
    show(
        path,
        words,
        output,
        Kind(
            compute=lambda history, selection: distribution(
                history, selection=selection, bins=options["bins"], points=points
            ),
            lines=lambda found, scene: _lines(found, scene, doubling=options["doubling"]),
            plain=_plain,
            draw=_draw,
        ),
    )


def _lines(found: "Distribution", scene: "Scene", *, doubling: bool) -> list[str]:
    from memtherm.cli.report.plain import table_lines
    from memtherm.units import format_rate, format_size

    idle = found.idle_log if doubling else found.idle_linear
    temperature = found.temperature_log if doubling else found.temperature_linear
    share = found.accessed_bytes / found.watched_bytes if found.watched_bytes else 0.0
    rows = [
        (f"{point:g} %", _seconds(idle_s), _seconds(temperature_s))
        for point, idle_s, temperature_s in zip(
            found.idle.points, found.idle.values, found.temperature.values, strict=True
        )
    ]
    return [
        f"{format_size(found.watched_bytes)} watched, {format_size(found.accessed_bytes)} "
        f"({format_rate(share)}) accessed in a window",
        f"bandwidth {format_size(found.bandwidth_bytes_per_s)}/s, at most "
        f"{format_size(found.peak_bandwidth_bytes_per_s)}/s: if each access that was found touched each byte of its "
        "region once",
        "",
        "accessed bytes by access rate",
        *_histogram_lines(found.access_rate, scene, format_rate),
        "",
        "bytes that were not accessed by idle time",
        *_histogram_lines(idle, scene, _seconds),
        "",
        "all bytes by temperature",
        *_histogram_lines(temperature, scene, _seconds),
        "",
        *table_lines(
            ("of the bytes", "idle at most", "temperature at most"),
            rows,
            left=0,
            width=scene.table_width,
            spare=("temperature at most",),
        ),
    ]


def _seconds(time_s: float) -> str:
    from memtherm.units import format_time

    if time_s == 0:
        return "0 s"
    return f"-{format_time(-time_s)}" if time_s < 0 else format_time(time_s)


def _histogram_lines(histogram: "Histogram", scene: "Scene", words: Any) -> list[str]:
    """A line for each bin, without the empty ones at both ends."""
    import numpy as np

    from memtherm.cli.report.plain import bar, table_lines
    from memtherm.units import format_size

    some = np.flatnonzero(histogram.size_bytes > 0)
    if len(some) == 0:
        return ["  none"]
    largest = float(histogram.size_bytes.max())
    rows = [
        (
            f"{words(float(histogram.edges[index]))} ..",
            words(float(histogram.edges[index + 1])),
            format_size(float(histogram.size_bytes[index])),
            bar(float(histogram.size_bytes[index]) / largest, max(4, scene.width - 42)),
        )
        for index in range(int(some[0]), int(some[-1]) + 1)
    ]
    return table_lines(("from", "to", "bytes", ""), rows, width=scene.table_width, spare=("",))


def _draw(found: "Distribution", picture: "Path", frame: "Frame") -> None:
    from memtherm.plot.figures import save_distribution

    save_distribution(found, picture, frame=frame)


def _plain(found: "Distribution") -> dict[str, Any]:
    from memtherm.cli.report.plain import plain

    values: dict[str, Any] = plain(found)
    return values
