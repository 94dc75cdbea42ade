"""A file that is there whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from memtherm.errors import InvalidInput

# Of a page, a PNG or an SVG enough to tell one from another, and all of them from anything else.
_KIND_BYTES = 4


def write_whole(path: Path, content: bytes) -> None:
    """Write a file beside the one that it then replaces; a device or a pipe is written as it is.

    Raises OSError where it cannot be written, InvalidInput where the name is that of a file of another kind.
    """
    if path.exists() and not path.is_file():
        path.write_bytes(content)
        return
    if path.exists():
        with path.open("rb") as file:
            start = file.read(_KIND_BYTES)
        if start and start != content[:_KIND_BYTES]:
            raise InvalidInput(f"{path} is there already, and is something else", hint="give another name")
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        unfinished.write_bytes(content)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
