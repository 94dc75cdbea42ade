"""Pictures of reports: which files are wanted."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from memtherm.errors import InvalidInput

_Command = TypeVar("_Command", bound=Callable[..., Any])
_SUFFIXES = (".png", ".svg")


def picture_options(command: _Command) -> _Command:
    """`-o`, `--png` and `--svg`; see `pictures_from`."""
    for decorate in (
        click.option("--svg", metavar="FILE", help="Write an SVG."),
        click.option("--png", metavar="FILE", help="Write a PNG."),
        click.option(
            "-o", "--output", "pictures", multiple=True, metavar="FILE", help="Write a picture: FILE.png or FILE.svg."
        ),
    ):
        command = decorate(command)
    return command


def pictures_from(options: dict[str, Any]) -> tuple[Path, ...]:
    """The files to write.  Raises InvalidInput where a name does not say a format, or another one."""
    wanted: list[tuple[str, tuple[str, ...]]] = [(name, _SUFFIXES) for name in options.pop("pictures")]
    for suffix in _SUFFIXES:
        if (name := options.pop(suffix[1:])) is not None:
            wanted.append((name, (suffix,)))
    for name, suffixes in wanted:
        if Path(name).suffix.lower() not in suffixes:
            raise InvalidInput(
                f"{name}: the name of a picture ends in {' or '.join(suffixes)}", hint="give it as FILE.png or FILE.svg"
            )
    return tuple(Path(name) for name, _ in wanted)
