"""`memtherm report html`: one file with everything."""

from typing import Any

import click

from memtherm.cli.report.options import SelectionWords, record_argument, selection_options


@click.command("html", short_help="One self-contained page: heat map, working set, all of it.")
@record_argument
@selection_options
@click.option("-o", "--output", metavar="FILE", help="The page.  [default: RECORD with .html]")
@click.option("--json", "as_json", is_flag=True, help="One JSON object about the file, for programs.")
@click.option("--title", help="Heading.  [default: names of the targets]")
def command(path: str, *, output: str | None, as_json: bool, title: str | None, **options: Any) -> None:
    """Write one HTML file that needs no network: an interactive heat map, working set, distributions, mappings,
    schemes, and how far all of it can be believed."""
    import json
    from pathlib import Path

    from memtherm.cli.report.choose import choose
    from memtherm.cli.report.opened import others_of, with_record
    from memtherm.cli.report.progress import Progress, Watched
    from memtherm.cli.report.show import writing
    from memtherm.plot.page import write_page
    from memtherm.plot.page_data import PageFacts
    from memtherm.record.reader import Record
    from memtherm.units import format_size

    target = Path(output) if output else Path(path).with_suffix(".html")
    words = SelectionWords.take(options)

    def use(record: Record) -> None:
        selection = choose(record, words)
        header = record.header
        facts = [("record", path), ("written by", f"memtherm {header.memtherm_version}")]
        facts += [("command", " ".join(header.command))] if header.command else []
        facts += list(header.host.items())
        facts += [("damage", problem) for problem in record.problems]
        names = ", ".join(dict.fromkeys(one.name for one in record.targets))
        progress = Progress()
        try:
            page = PageFacts(title=title or f"memory of {names}", facts=tuple(facts))
            with writing(target):
                write_page(Watched(record, progress), target, page=page, selection=selection)
        finally:
            progress.close()
        size_bytes = target.stat().st_size
        if as_json:
            about = {"path": path, "problems": record.problems, "other_files": [str(one) for one in others_of(record)]}
            print(json.dumps({"record": about, "files": [str(target)], "size_bytes": size_bytes}))
        else:
            print(f"written: {target}, {format_size(size_bytes)}")

    with_record(path, use)
