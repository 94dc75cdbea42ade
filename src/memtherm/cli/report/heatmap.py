"""`memtherm report heatmap`: time × address."""

from typing import TYPE_CHECKING, Any

import click

from memtherm.cli.report.options import OutputWords, SelectionWords, output_options, record_argument, selection_options
from memtherm.cli.report.pictures import picture_options

if TYPE_CHECKING:
    from pathlib import Path

    from memtherm.cli.report.drawing import Style
    from memtherm.cli.report.show import Scene
    from memtherm.plot.figures import Frame
    from memtherm.views.heatmap import HeatMap

_PIXELS = click.IntRange(1, 4096)
_PICTURE_ROWS, _PICTURE_COLUMNS = 400, 600
_JSON_ROWS, _JSON_COLUMNS = 40, 80
# Lines of a screen that are not rows of the picture: head, axis, legend, prompt.
_OTHER_LINES = 9
_FEWEST_LINES, _MOST_LINES = 8, 60


@click.command("heatmap", short_help="Time × address: what was hot, when.")
@record_argument
@selection_options
@click.option("--whole", is_flag=True, help="All watched addresses, not only the hottest stretch of them.")
@click.option("--rows", type=_PIXELS, metavar="N", help="Pixels of addresses.  [default: what fits]")
@click.option("--columns", type=_PIXELS, metavar="N", help="Pixels of time.  [default: what fits]")
@click.option(
    "--unit", type=click.Choice(["rate", "hz"]), default="rate", show_default=True, help="Heat is counted in."
)
@click.option(
    "--color/--plain", "colour", default=None, help="24-bit colour, or plain characters.  [default: as the terminal]"
)
@picture_options
@output_options
def command(path: str, **options: Any) -> None:
    """Show how hot which addresses were over time.

    Addresses that nobody watched are folded away.  Shown is the hottest stretch of addresses, such as the heap or
    the mappings; --whole shows all, --address and --time a part.
    """
    from memtherm.cli.report.drawing import choose_style
    from memtherm.cli.report.show import Kind, show
    from memtherm.views.heatmap import heat_map

    words, output = SelectionWords.take(options), OutputWords.take(options)
    style = choose_style(options["colour"])
    rows, columns = _size(options, style, for_picture=bool(output.pictures), as_json=output.as_json)
    show(
        path,
        words,
        output,
        Kind(
            compute=lambda history, selection: heat_map(
                history,
                selection=selection,
                rows=rows,
                columns=columns,
                whole=options["whole"],
                unit=options["unit"],
            ),
            lines=lambda heat, scene: _lines(heat, scene, style, whole=options["whole"]),
            plain=_plain,
            draw=_draw,
        ),
    )


def _size(options: dict[str, Any], style: "Style", *, for_picture: bool, as_json: bool) -> tuple[int, int]:
    """Rows and columns: as told, else what fits."""
    import shutil

    from memtherm.cli.report.drawing import widest_gutter

    rows, columns = _PICTURE_ROWS, _PICTURE_COLUMNS
    if as_json and not for_picture:
        rows, columns = _JSON_ROWS, _JSON_COLUMNS
    elif not for_picture:
        terminal = shutil.get_terminal_size()
        width = min(160, terminal.columns)
        columns = max(8, width - widest_gutter(width))
        rows = max(_FEWEST_LINES, min(_MOST_LINES, terminal.lines - _OTHER_LINES)) * style.rows_in_line
    return options["rows"] or rows, options["columns"] or columns


def _lines(heat: "HeatMap", scene: "Scene", style: "Style", *, whole: bool) -> list[str]:
    import textwrap

    from memtherm.cli.report.drawing import heat_lines
    from memtherm.units import format_size

    targets = {shown.target for shown in heat.ranges}
    names = {target: scene.target_name(target) for target in targets} if len(scene.targets) > 1 else {}
    lines = heat_lines(heat, style=style, width=scene.width, target_names=names, begin_s=scene.begin_s)
    if heat.left_out_bytes:
        is_chosen = whole or scene.selection.start is not None or scene.selection.end is not None
        what = "there is room for the hottest" if is_chosen else f"shown is the hottest of {heat.nr_ranges} stretches"
        remedy = f"--rows {4 * len(heat.row_start)} has more" if is_chosen else "--whole shows all"
        more = f"{what}; {format_size(heat.left_out_bytes)} are not shown: {remedy}"
        lines += textwrap.wrap(more, max(20, scene.width), subsequent_indent="  ")
    return lines


def _draw(heat: "HeatMap", picture: "Path", frame: "Frame") -> None:
    from memtherm.plot.figures import save_heat_map

    save_heat_map(heat, picture, frame=frame)


def _plain(heat: "HeatMap") -> dict[str, Any]:
    """The matrix with its axes; a list for each row, from the lowest address up."""
    from memtherm.cli.report.plain import plain

    return {
        "unit": heat.unit,
        "time_s": plain(heat.time_s),
        "ranges": [{**plain(shown), "size_bytes": shown.size_bytes} for shown in heat.ranges],
        "row_target": plain(heat.row_target),
        "row_start": plain(heat.row_start),
        "row_end": plain(heat.row_end),
        "heat": plain(heat.heat),
        "watched": plain(heat.watched),
        "nr_ranges": heat.nr_ranges,
        "left_out_bytes": heat.left_out_bytes,
    }
