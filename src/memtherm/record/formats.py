"""Which format a file has, by its content; the command `file` of damo knows another JSON on each distribution."""

from __future__ import annotations

import re
import shlex
from enum import StrEnum
from pathlib import Path

from memtherm.errors import InvalidInput
from memtherm.record.frames import MAGIC

_BEGINNING_BYTES = 1024 * 1024


class Format(StrEnum):
    """Formats of runs, with damo's own names of damo's, and of policies."""

    MEMTHERM = "memtherm"
    JSON_COMPRESSED = "json_compressed"
    JSON = "json"
    PERF_SCRIPT = "perf_script"
    PARQUET = "parquet"
    CSV = "csv"
    JSON_LINES = "jsonl"
    TOML = "toml"
    KDAMONDS = "kdamonds"


OF_POLICIES = (Format.TOML, Format.KDAMONDS)
TABLES = (Format.PARQUET, Format.CSV, Format.JSON_LINES)
SUFFIXES = {
    ".memtherm": Format.MEMTHERM,
    ".data": Format.JSON_COMPRESSED,
    ".json_compressed": Format.JSON_COMPRESSED,
    ".json": Format.JSON,
    ".txt": Format.PERF_SCRIPT,
    ".perf_script": Format.PERF_SCRIPT,
    ".parquet": Format.PARQUET,
    ".csv": Format.CSV,
    ".jsonl": Format.JSON_LINES,
    ".toml": Format.TOML,
    ".kdamonds": Format.KDAMONDS,
}
_READ_BACK = (
    "give the record that it was made of; read are records of memtherm, "
    "and damo's json_compressed, json and perf_script"
)
_FOREIGN = (
    (b"PERFILE2", "raw data of perf, which memtherm does not read", "make text of it: perf script -i FILE > FILE.txt"),
    (
        b"\x17\x08\x44tracing",
        "raw data of trace-cmd, which memtherm does not read",
        "make text of it: trace-cmd report FILE > FILE.txt",
    ),
    (b"PAR1", "a table (Parquet), and a table cannot be converted back", _READ_BACK),
    (b"time_s,window_s,", "a table (CSV), and a table cannot be converted back", _READ_BACK),
    (b'{"time_s": ', "a table (JSON lines), and a table cannot be converted back", _READ_BACK),
)
_JSON_LIST = re.compile(rb"\s*\[\s*(?:\{|\])")
_OF_A_RECORD = re.compile(rb'"(?:snapshots|target_id)"\s*:')
# The first line that is no comment: a table or a key of TOML, or a line of seven values.
_OF_A_POLICY = re.compile(rb"(?:\s*(?:#[^\n]*)?\n)*\s*(?:\[\[?\w+\]|\w+\s*=|(?:[\w.%]+[ \t]+){6}\w)")
_OF_A_TRACE = re.compile(rb"\bdamon_\w+: ")


def told_apart(path: str | Path, beginning: bytes) -> InvalidInput | None:
    """Why a file cannot be read, where its first bytes say what it is."""
    for first, what, hint in _FOREIGN:
        if beginning.startswith(first):
            return InvalidInput(f"{path}: {what}", hint=hint.replace("FILE", shlex.quote(str(path))))
    return None


def format_of(path: str | Path) -> Format:
    """The format of a file that exists.

    Raises:
        InvalidInput: it cannot be read, is empty, or of no format that can be read.
    """
    try:
        with open(path, "rb") as file:
            beginning = file.read(_BEGINNING_BYTES)
    except OSError as refusal:
        raise InvalidInput(f"{path}: cannot read it: {refusal.strerror}", hint="name an existing file") from refusal
    if not beginning:
        raise InvalidInput(f"{path} is empty", hint="nothing was written to it, or not yet")
    if beginning.startswith(MAGIC.to_bytes(4, "little")):
        return Format.MEMTHERM
    # The two bytes of zlib: a text may begin with an "x", too.
    if beginning[:1] == b"\x78" and int.from_bytes(beginning[:2]) % 31 == 0:
        return Format.JSON_COMPRESSED
    if foreign := told_apart(path, beginning):
        raise foreign
    if beginning.lstrip()[:1] == b"{":
        return Format.KDAMONDS
    if _JSON_LIST.match(beginning):
        # damo has lists of records, of kdamonds, and of schemes.
        return Format.JSON if _OF_A_RECORD.search(beginning) else Format.KDAMONDS
    if _OF_A_TRACE.search(beginning):
        return Format.PERF_SCRIPT
    if Path(path).suffix == ".toml" or _OF_A_POLICY.match(beginning):
        return Format.TOML
    raise InvalidInput(
        f"{path}: of no format that memtherm reads",
        hint="read are records of memtherm, damo's json_compressed, json and perf_script, and policies; or say --from",
    )
