"""Records between formats."""

import sys
import time
from collections.abc import Callable
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from typing import BinaryIO

from memtherm.cli.new_file import is_regular, new_file
from memtherm.cli.report.choose import choose
from memtherm.cli.report.opened import with_record
from memtherm.cli.report.options import SelectionWords
from memtherm.cli.report.progress import Progress, Watched
from memtherm.core.history import History
from memtherm.core.selection import Selection
from memtherm.errors import InvalidInput
from memtherm.record.copying import write_record
from memtherm.record.damo_history import DamoHistory
from memtherm.record.damo_json import read_damo_json
from memtherm.record.damo_trace import read_damo_trace, write_damo_trace
from memtherm.record.formats import TABLES, Format
from memtherm.record.header import RecordHeader
from memtherm.record.part import is_being_written
from memtherm.record.reader import Record
from memtherm.record.tables import write_csv, write_json_lines, write_parquet
from memtherm.record.write_damo_json import write_damo_json

_REGIONS_ONLY = "regions only: mappings, vitals, what schemes did, and events stay in the record"
_PLAIN_JSON = (
    'damo 3.4 reads plain JSON only where the command `file` calls it "JSON data", and that depends on the '
    "distribution; json_compressed it reads everywhere"
)
_NO_INTERVALS = "such text holds no intervals: damo shows samples, and neither access rates nor idle times"


def _write_plain_json(history: History, file: BinaryIO, *, selection: Selection) -> None:
    write_damo_json(history, file, selection=selection, compressed=False)


_WRITERS: dict[Format, Callable[..., None]] = {
    Format.JSON_COMPRESSED: write_damo_json,
    Format.JSON: _write_plain_json,
    Format.PERF_SCRIPT: write_damo_trace,
    Format.PARQUET: write_parquet,
    Format.CSV: write_csv,
    Format.JSON_LINES: write_json_lines,
}


def convert_run(
    source: str, target: Path, *, formats: tuple[Format, Format], words: SelectionWords, overwrite: bool
) -> None:
    """Write what is selected of a record in another format, and say what is not in it.

    Raises:
        InvalidInput: it cannot be read, nothing of it is selected, or the target may not be written.
    """
    given, wanted = formats
    if wanted is Format.MEMTHERM and target.exists() and is_being_written(target):
        raise InvalidInput(f"{target} is being written by another memtherm", hint="give another name")

    def write(history: Record | DamoHistory) -> None:
        with closing(Progress()) as progress:
            selection = choose(history, words)
            watched = Watched(history, progress)
            with new_file(target, overwrite=overwrite) as path:
                if wanted is Format.MEMTHERM:
                    write_record(watched, path, _header(history), selection=selection)
                else:
                    with open(path, "wb") as file:
                        _WRITERS[wanted](watched, file, selection=selection)
        for sentence in (*([] if isinstance(history, Record) else history.notes), *_told(wanted)):
            print(f"memtherm: note: {sentence}", file=sys.stderr)

    if given is Format.MEMTHERM:
        with_record(source, write, only_once=not is_regular(target))
    else:
        write(_read_damo(source, given))


def _read_damo(source: str, given: Format) -> DamoHistory:
    size_bytes = max(1, Path(source).stat().st_size)
    read = read_damo_trace if given is Format.PERF_SCRIPT else read_damo_json
    with closing(Progress()) as progress:
        return read(source, on_read=lambda done_bytes: progress.update(done_bytes / size_bytes))


def _header(history: Record | DamoHistory) -> RecordHeader:
    """That of the record itself, if it was one."""
    if isinstance(history, Record):
        return history.header
    return RecordHeader(
        memtherm_version=version("memtherm"), created_s=time.time(), command=("memtherm", *sys.argv[1:])
    )


def _told(wanted: Format) -> tuple[str, ...]:
    if wanted is Format.MEMTHERM:
        return ()
    if wanted in TABLES:
        return (_REGIONS_ONLY,)
    more = {Format.JSON: (_PLAIN_JSON,), Format.PERF_SCRIPT: (_NO_INTERVALS,)}.get(wanted, ())
    return (f"{_REGIONS_ONLY}; of targets damo has numbers, and neither pids nor names", *more)
