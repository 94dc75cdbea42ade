"""`memtherm report diff`: two records side by side."""

from typing import TYPE_CHECKING, Any

import click

from memtherm.cli.report.options import SelectionWords, selection_options

if TYPE_CHECKING:
    from memtherm.views.difference import Difference, MappingDifference

_MOST_ROWS = 40
# What goes first where the terminal is narrow.
_SPARE = ("before", "after", "removed", "added", "rate before", "rate after")


@click.command("diff", short_help="Two records: which mappings became hotter or colder.")
@click.argument("before")
@click.argument("after")
@selection_options
@click.option(
    "--tolerance", metavar="RATE", default="5%", show_default=True, help="A smaller change of the rate is none."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for programs.")
def command(before: str, after: str, *, tolerance: str, as_json: bool, **options: Any) -> None:
    """Show which mappings became hotter or colder from the record BEFORE to the record AFTER, by how many bytes.

    Mappings are matched by name, since addresses differ from run to run, and bytes by their place in the mapping:
    the offset in a file, in the heap, in the stack.  Anonymous memory has a place where both records are of the same
    process; else its hottest bytes are compared with the hottest of the other, and so on down.  The filters are for
    both records.
    """
    import json

    from memtherm.cli.report.choose import choose
    from memtherm.cli.report.numbers import parse_rate_of
    from memtherm.cli.report.opened import with_record
    from memtherm.cli.report.plain import plain, wrapped
    from memtherm.cli.report.progress import Progress, Watched
    from memtherm.cli.report.show import head_lines, plain_summary, scene_of
    from memtherm.record.reader import Record
    from memtherm.views.difference import difference
    from memtherm.views.summary import summary

    words = SelectionWords.take(options)
    smallest = parse_rate_of("--tolerance", tolerance)

    def compare(first: Record, second: Record) -> None:
        selections = choose(first, words), choose(second, words)
        progress = Progress()
        try:
            found = difference(
                Watched(first, progress),
                Watched(second, progress),
                before_selection=selections[0],
                after_selection=selections[1],
                tolerance=smallest,
            )
        finally:
            progress.close()
        scenes = scene_of(before, first, selections[0]), scene_of(after, second, selections[1])
        about = [summary(record, selection=one) for record, one in zip((first, second), selections, strict=True)]
        if as_json:
            heads = [plain_summary(one, scene) for one, scene in zip(about, scenes, strict=True)]
            print(json.dumps({"before": heads[0], "after": heads[1], **plain(found)}, allow_nan=False))
            return
        heads_of_both = [line for one, scene in zip(about, scenes, strict=True) for line in head_lines(one, scene)]
        print("\n".join([*heads_of_both, "", *wrapped(_lines(found, scenes[0].table_width), scenes[0].table_width)]))

    with_record(before, lambda first: with_record(after, lambda second: compare(first, second)))


def _lines(found: "Difference", width: int) -> list[str]:
    from memtherm.cli.report.plain import table_lines
    from memtherm.units import format_rate, format_size

    head = ("before", "after", "rate before", "rate after", "hotter", "colder", "added", "removed", "mapping")
    rows = [_cells(one) for one in (*found.mappings[:_MOST_ROWS], found.total)]
    total = found.total
    lines = [
        f"{format_size(total.hotter_bytes)} became hotter, {format_size(total.colder_bytes)} colder "
        f"(by more than {format_rate(found.tolerance)} access rate); means over time",
        *table_lines(head, rows, width=width, spare=_SPARE),
    ]
    if len(found.mappings) > _MOST_ROWS:
        lines.append(f"and {len(found.mappings) - _MOST_ROWS} more with smaller changes: --json")
    return lines


def _cells(one: "MappingDifference") -> tuple[str, ...]:
    from memtherm.cli.report.plain import clean
    from memtherm.units import format_rate, format_size

    changes = (one.hotter_bytes, one.colder_bytes, one.added_bytes, one.removed_bytes)
    return (
        format_size(one.before_bytes),
        format_size(one.after_bytes),
        format_rate(one.before_rate),
        format_rate(one.after_rate),
        *(format_size(size) if size >= 1 else "–" for size in changes),
        clean(one.name),
    )
