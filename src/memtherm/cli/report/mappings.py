"""`memtherm report mappings`: which file, heap or stack is hot or cold."""

from typing import TYPE_CHECKING, Any

import click

from memtherm.cli.report.options import OutputWords, SelectionWords, output_options, record_argument, selection_options

if TYPE_CHECKING:
    from memtherm.cli.report.show import Scene
    from memtherm.views.mappings import MappingsHeat

_MOST_ROWS = 40
# What goes first where the terminal is narrow.
_SPARE = ("not watched", "warm", "idle", "rate", "pid")


@click.command("mappings", short_help="Which file, heap or stack is hot or cold, with sizes.")
@record_argument
@selection_options
@click.option("--hot", metavar="RATE", default="50%", show_default=True, help="Memory is hot from this access rate up.")
@click.option(
    "-n", "--limit", type=click.IntRange(min=1), metavar="N", help=f"At most N rows.  [default: {_MOST_ROWS}]"
)
@output_options
def command(path: str, **options: Any) -> None:
    """Show for each mapping how many of its bytes are hot, warm or cold; means over time.

    Mappings of one file are one row.  `not watched` is in no region, or in none that the filters select.
    """
    from memtherm.cli.report.numbers import parse_rate_of
    from memtherm.cli.report.show import Kind, show
    from memtherm.views.mappings import mappings_heat

    words, output = SelectionWords.take(options), OutputWords.take(options)
    hot_access_rate = parse_rate_of("--hot", options["hot"])
    limit = options["limit"]
    show(
        path,
        words,
        output,
        Kind(
            compute=lambda history, selection: mappings_heat(
                history, selection=selection, hot_access_rate=hot_access_rate
            ),
            lines=lambda found, scene: _lines(found, scene, limit or _MOST_ROWS),
            plain=lambda found: _plain(found, limit),
        ),
    )


def _lines(found: "MappingsHeat", scene: "Scene", limit: int) -> list[str]:
    from memtherm.cli.report.plain import clean, table_lines
    from memtherm.units import format_rate, format_size, format_time

    several = len({one.target for one in found.mappings}) > 1
    head = (*(("pid",) if several else ()), "size", "hot", "warm", "cold", "not watched", "rate", "idle", "mapping")
    rows = [
        (
            *((str(scene.targets[one.target].pid),) if several else ()),
            format_size(one.size_bytes or one.hot_bytes + one.warm_bytes + one.cold_bytes),
            *(format_size(size) if size >= 1 else "–" for size in (one.hot_bytes, one.warm_bytes, one.cold_bytes)),
            format_size(one.unwatched_bytes) if one.unwatched_bytes >= 1 else "–",
            format_rate(one.access_rate),
            format_time(one.idle_s) if one.idle_s else "0 s",
            clean(one.name),
        )
        for one in found.mappings[:limit]
    ]
    lines = [f"hot is {format_rate(found.hot_access_rate)} access rate or more, cold is none; means over time"]
    if not found.has_mappings:
        lines.append("the record knows no mappings: all memory is `unknown`")
    lines += table_lines(head, rows, width=scene.table_width, spare=_SPARE)
    if len(found.mappings) > limit:
        lines.append(f"and {len(found.mappings) - limit} more: --limit")
    return lines


def _plain(found: "MappingsHeat", limit: int | None) -> dict[str, Any]:
    from memtherm.cli.report.plain import plain

    values: dict[str, Any] = plain(found)
    values["mappings"] = values["mappings"][:limit]
    return values
