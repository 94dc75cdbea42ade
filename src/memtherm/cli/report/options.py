"""The options that all reports share."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self, TypeVar

import click

from memtherm.cli.report.pictures import pictures_from

DEFAULT_RECORD = "record.memtherm"

_Command = TypeVar("_Command", bound=Callable[..., Any])


@dataclass(frozen=True, kw_only=True)
class SelectionWords:
    """Which part of a record is meant, as it was typed."""

    time: str | None = None
    address: str | None = None
    targets: tuple[str, ...] = ()
    rate: str | None = None
    age: str | None = None
    size: str | None = None

    @classmethod
    def take(cls, options: dict[str, Any]) -> Self:
        """Take what belongs here out of the parameters of a command."""
        return cls(**{field.name: options.pop(field.name) for field in fields(cls)})


@dataclass(frozen=True, kw_only=True)
class OutputWords:
    """How a report is shown."""

    as_json: bool
    follow: bool
    pictures: tuple[Path, ...] = ()

    @classmethod
    def take(cls, options: dict[str, Any]) -> Self:
        """Take what belongs here out of the parameters of a command."""
        pictures = pictures_from(options) if "pictures" in options else ()
        return cls(as_json=options.pop("as_json"), follow=options.pop("follow"), pictures=pictures)


def record_argument(command: _Command) -> _Command:
    """RECORD; without it the file that `memtherm record` writes by default."""
    return click.argument("path", metavar="[RECORD]", default=DEFAULT_RECORD)(command)


def selection_options(command: _Command) -> _Command:
    """Filters; they are applied while reading."""
    for decorate in (
        click.option("--size", metavar="BOUNDS", help="Regions of this size only: '>= 2MiB'."),
        click.option("--age", metavar="BOUNDS", help="Regions of this age only: '>= 2min', '1s .. 10s'."),
        click.option("--rate", metavar="BOUNDS", help="Regions of this access rate only: '>= 5%', '0%'."),
        click.option(
            "--target",
            "targets",
            metavar="PID|NAME",
            multiple=True,
            help="This process only, or those of a pattern such as 'worker-*'; may be repeated.",
        ),
        click.option(
            "--address",
            metavar="FROM..TO|NAME",
            help="These addresses only: 0x7f0000000000..0x7f0000200000, or a mapping: heap, libc.so.6.",
        ),
        click.option(
            "--time",
            metavar="FROM..TO",
            help="This time only, since the begin of the record: 10s..1min, ..30s; -10s.. is the last 10 s.",
        ),
    ):
        command = decorate(command)
    return command


def output_options(command: _Command) -> _Command:
    """`--json` and `--follow`."""
    for decorate in (
        click.option("--follow", is_flag=True, help="Show it again as the record grows, until it ends or Ctrl-C."),
        click.option("--json", "as_json", is_flag=True, help="One JSON object, for programs."),
    ):
        command = decorate(command)
    return command
