"""What a file is that is no record, and what to do with it."""

from __future__ import annotations

import shlex
import zlib
from pathlib import Path

from memtherm.errors import InvalidInput
from memtherm.record.formats import Format, format_of, told_apart

_FIRST_BYTES = {
    b"\x28\xb5\x2f\xfd": "a zstd file of something else",
    b"ARROW1": "an Arrow file",
    b"\xff\xff\xff\xff": "an Arrow stream",
    b"\x1f\x8b": "a gzip file",
    b"{": "JSON",
    b"[": "JSON",
}
_OF_DAMO = {
    Format.JSON_COMPRESSED: "a record of damo (json_compressed)",
    Format.JSON: "a record of damo (json)",
    Format.PERF_SCRIPT: "a trace of DAMON as text (perf_script)",
}
_GIVE = "give a file of memtherm record"
_LOOK_BYTES = 1 << 12


def no_record(path: Path, start: bytes, why: str) -> InvalidInput:
    """The error for a file that begins otherwise than a record does.

    Args:
        start: its first bytes.
        why: what is wrong with them.
    """
    if known := told_apart(path, start):
        return known
    form = _form(path)
    if form in _OF_DAMO:
        file, ours = (shlex.quote(str(one)) for one in (path, path.with_suffix(".memtherm")))
        return InvalidInput(
            f"{path} is {_OF_DAMO[form]}, and no record of memtherm",
            hint=f"convert it first: memtherm convert {file} {ours}",
        )
    for first, what in _FIRST_BYTES.items():
        if start.startswith(first):
            return InvalidInput(f"{path} is {what}, and no record of memtherm", hint=_GIVE)
    return InvalidInput(f"{path} is no record of memtherm, or damaged from its first bytes on: {why}", hint=_GIVE)


def _form(path: Path) -> Format | None:
    try:
        form = format_of(path)
    except InvalidInput:
        return None
    if form is Format.JSON_COMPRESSED:
        # Zlib alone says little.
        try:
            with path.open("rb") as file:
                text = zlib.decompressobj().decompress(file.read(_LOOK_BYTES), _LOOK_BYTES)
        except (OSError, zlib.error):
            return None
        return form if text.lstrip()[:1] == b"[" else None
    return form
