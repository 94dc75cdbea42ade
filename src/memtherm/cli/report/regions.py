"""`memtherm report regions`: the table."""

from typing import TYPE_CHECKING, Any

import click

from memtherm.cli.report.options import OutputWords, SelectionWords, output_options, record_argument, selection_options

if TYPE_CHECKING:
    from memtherm.cli.report.show import Scene
    from memtherm.views.region_table import RegionTable

_SORT_KEYS = ("address", "rate", "age", "size", "temperature")


@click.command("regions", short_help="The table of regions: of the last moment, or as means.")
@record_argument
@selection_options
@click.option("--merged", is_flag=True, help="Means over the selected time, instead of its last snapshot.")
@click.option(
    "--sort", type=click.Choice(_SORT_KEYS), default="address", show_default=True, help="By what; lowest first."
)
@click.option("--descending", is_flag=True, help="Highest first.")
@click.option(
    "-n", "--limit", type=click.IntRange(min=1), metavar="N", help="At most N rows.  [default: 50, with --json all]"
)
@output_options
def command(path: str, **options: Any) -> None:
    """Show the regions of the last snapshot of the selected time, or their means over it.

    \b
    memtherm report regions --rate '0%' --age '>= 1min' --sort size --descending
    memtherm report regions --time 10s..20s --merged
    """
    from memtherm.cli.report.show import Kind, show
    from memtherm.views.region_table import region_table

    words, output = SelectionWords.take(options), OutputWords.take(options)
    limit = options["limit"] or (None if output.as_json else 50)
    show(
        path,
        words,
        output,
        Kind(
            compute=lambda history, selection: region_table(
                history,
                selection=selection,
                merged=options["merged"],
                sort=options["sort"],
                descending=options["descending"],
                limit=limit,
            ),
            lines=_lines,
            plain=_plain,
        ),
    )


def _lines(table: "RegionTable", scene: "Scene") -> list[str]:
    from memtherm.cli.report.plain import clean, table_lines
    from memtherm.units import format_rate, format_size, format_time

    moment = (
        f"means from {scene.since_begin(table.since_s)} to {scene.since_begin(table.until_s)}"
        if table.is_merged
        else f"at {scene.since_begin(table.until_s)}"
    )
    several = len({row.target for row in table.rows}) > 1
    head = (*(("pid",) if several else ()), "address", "size", "rate", "age", "temperature", "mapping")
    rows = [
        (
            *((str(scene.targets[row.target].pid),) if several else ()),
            f"{row.start:#x}",
            format_size(row.size_bytes),
            format_rate(row.access_rate) + (f" ±{format_rate(row.rate_error)}" if row.rate_error else ""),
            format_time(row.age_s) if row.age_s else "new",
            f"{'-' if row.temperature_s < 0 else ''}{format_time(abs(row.temperature_s))}",
            clean(row.name),
        )
        for row in table.rows
    ]
    lines = [f"{table.nr_regions} regions, {format_size(table.total_bytes)}, {moment}"]
    lines += table_lines(head, rows, width=scene.table_width, spare=("temperature", "age", "size"))
    if table.nr_regions > len(table.rows):
        lines.append(f"and {table.nr_regions - len(table.rows)} more: --limit")
    return lines


def _plain(table: "RegionTable") -> dict[str, Any]:
    from memtherm.cli.report.plain import plain

    values: dict[str, Any] = plain(table)
    for row, region in zip(values["rows"], table.rows, strict=True):
        row["size_bytes"] = region.size_bytes
    return values
