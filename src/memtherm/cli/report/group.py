"""`memtherm report`: answers from records."""

import click

from memtherm.cli.lazy import LazyGroup

_REPORTS = {
    name: f"memtherm.cli.report.{name}"
    for name in ("heatmap", "wss", "distribution", "regions", "mappings", "schemes", "diff", "html")
}


@click.group("report", cls=LazyGroup, modules=_REPORTS, short_help="Answers from a record: pictures, tables, numbers.")
def command() -> None:
    """Answers from a record that `memtherm record` wrote.

    \b
    memtherm report heatmap
    memtherm report heatmap server.memtherm --time 10s..1min --address heap -o heat.png
    memtherm report wss --rate '>= 5%' --json
    memtherm report mappings --target redis-server
    memtherm report html -o run.html

    Without a file it reads record.memtherm, which `memtherm record` writes.
    """
