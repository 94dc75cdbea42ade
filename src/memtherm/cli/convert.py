"""`memtherm convert`: records and policies in the formats of damo and of other programs, and back."""

import sys
from pathlib import Path
from typing import Any

import click

from memtherm.cli.report.options import SelectionWords, selection_options
from memtherm.errors import InvalidInput

_READ = ("memtherm", "json_compressed", "json", "perf_script", "toml", "kdamonds")
_WRITTEN = ("memtherm", "json_compressed", "json", "perf_script", "parquet", "csv", "jsonl", "toml", "kdamonds")


@click.command("convert", short_help="Change the format of a record, or of a policy: damo's, Parquet, CSV.")
@click.argument("source", metavar="INPUT")
@click.argument("target", metavar="OUTPUT")
@click.option("--from", "from_format", type=click.Choice(_READ), help="Format of INPUT.  [default: by its content]")
@click.option("--to", "to_format", type=click.Choice(_WRITTEN), help="Format of OUTPUT.  [default: by its name]")
@selection_options
@click.option("--overwrite", is_flag=True, help="Replace OUTPUT if it exists.")
def command(
    *, source: str, target: str, from_format: str | None, to_format: str | None, overwrite: bool, **options: Any
) -> None:
    """Read INPUT and write OUTPUT in another format.

    \b
    memtherm convert server.memtherm damon.data       # for damo: json_compressed
    memtherm convert damon.data damo.memtherm         # from damo, for memtherm report
    memtherm convert server.memtherm server.parquet   # or .csv, or .jsonl
    memtherm convert policy.toml kdamonds.json        # for damo start; and back

    What the other format cannot hold is told; where that would change what a policy means, it is refused.
    """
    from memtherm.cli.convert_policy import convert_policy
    from memtherm.cli.convert_run import convert_run
    from memtherm.cli.new_file import refuse_existing
    from memtherm.record.formats import OF_POLICIES, Format, format_of

    words = SelectionWords.take(options)
    given = Format(from_format) if from_format else format_of(source)
    wanted = _format_by_name(target) if to_format is None else Format(to_format)
    if given in OF_POLICIES and wanted is Format.JSON:
        wanted = Format.KDAMONDS
    if (given in OF_POLICIES) != (wanted in OF_POLICIES):
        kinds = ("a policy", "a record") if given in OF_POLICIES else ("a record", "a policy")
        raise InvalidInput(f"{source} is {kinds[0]}, and {wanted} is a format of {kinds[1]}", hint="see --help")
    refuse_existing(Path(target), overwrite=overwrite)
    if given in OF_POLICIES:
        if words != SelectionWords():
            raise InvalidInput("a policy has no times and no regions to select", hint="leave the filters out")
        for sentence in convert_policy(source, Path(target), wanted, overwrite=overwrite):
            print(f"memtherm: note: {sentence}", file=sys.stderr)
    else:
        convert_run(source, Path(target), formats=(given, wanted), words=words, overwrite=overwrite)


def _format_by_name(target: str) -> Any:
    from memtherm.record.formats import SUFFIXES

    suffix = Path(target).suffix.lower()
    if suffix not in SUFFIXES:
        raise InvalidInput(
            f"{target}: its name does not say which format it shall have",
            hint=f"end it in one of {', '.join(SUFFIXES)}; or say --to {'|'.join(_WRITTEN)}",
        )
    return SUFFIXES[suffix]
