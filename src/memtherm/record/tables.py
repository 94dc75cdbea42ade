"""The regions of a run as a table for other programs: Parquet, CSV, or JSON lines; a row for each region."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np

from memtherm.core.history import History
from memtherm.core.rows import SnapshotRows
from memtherm.core.selection import EVERYTHING, Selection
from memtherm.core.snapshot import TargetInfo
from memtherm.errors import NotSupported
from memtherm.record.nothing import nothing_selected

COLUMNS = {
    "time_s": "end of the window, seconds since 1970",
    "window_s": "length of the window",
    "pid": "of the target",
    "target": "name of the target",
    "start": "first address",
    "end": "address behind the last",
    "size_bytes": "bytes from start to end",
    "nr_accesses": "looks of the window that found an access",
    "samples": "looks of the window",
    "access_rate": "nr_accesses / samples, 0 to 1",
    "rate_error": "how far the true rate may be from access_rate, at 95 % confidence",
    "age_s": "how long the access rate has stayed about the same",
    "sampling_interval_s": "time between two looks",
}
_PARQUET_ROWS = 256 * 1024

Columns = dict[str, "np.ndarray[Any, Any]"]


def write_csv(history: History, file: BinaryIO, *, selection: Selection = EVERYTHING) -> None:
    """Write the selected regions as CSV, with a line of column names first.

    Raises:
        InvalidInput: nothing is selected.
    """
    file.write((",".join(COLUMNS) + "\r\n").encode())
    for columns in _columns(history, selection):
        text = io.StringIO()
        csv.writer(text).writerows(zip(*_lists(columns).values(), strict=True))
        file.write(text.getvalue().encode())


def write_json_lines(history: History, file: BinaryIO, *, selection: Selection = EVERYTHING) -> None:
    """Write the selected regions as one JSON object a line.

    Raises:
        InvalidInput: nothing is selected.
    """
    form = "{" + ", ".join(f'"{name}": %s' for name in COLUMNS) + "}\n"
    for columns in _columns(history, selection):
        lists = _lists(columns)
        names = {name: json.dumps(name) for name in set(lists["target"])}
        lists["target"] = [names[name] for name in lists["target"]]
        file.write("".join([form % row for row in zip(*lists.values(), strict=True)]).encode())


def write_parquet(history: History, file: BinaryIO, *, selection: Selection = EVERYTHING) -> None:
    """Write the selected regions as Parquet; what each column means stands in its metadata.

    Raises:
        InvalidInput: nothing is selected.
        NotSupported: pyarrow is not installed.
    """
    try:
        import pyarrow as pa  # type: ignore[import-untyped,unused-ignore]  # an extra
        import pyarrow.parquet as pq  # type: ignore[import-untyped,unused-ignore]
    except ImportError as missing:
        raise NotSupported("Parquet needs pyarrow", hint='pip install "memtherm[arrow]"; or write CSV') from missing
    writer = None
    waiting: list[Any] = []
    try:
        for columns in _columns(history, selection):
            table = pa.table(
                {name: _arrow_column(pa, name, column) for name, column in columns.items()},
                metadata=_metadata(),
            )
            writer = writer or pq.ParquetWriter(file, table.schema, compression="zstd")
            waiting.append(table)
            if sum(len(one) for one in waiting) >= _PARQUET_ROWS:
                writer.write_table(pa.concat_tables(waiting), row_group_size=_PARQUET_ROWS)
                waiting = []
        if writer and waiting:
            writer.write_table(pa.concat_tables(waiting), row_group_size=_PARQUET_ROWS)
    finally:
        if writer:
            writer.close()


def _arrow_column(pa: Any, name: str, column: np.ndarray[Any, Any]) -> Any:
    """Names as a dictionary of them: a file has few."""
    return pa.array(column.tolist()).dictionary_encode() if name == "target" else pa.array(column)


def _metadata() -> Mapping[str, str]:
    return {f"memtherm.{name}": what for name, what in COLUMNS.items()}


def _columns(history: History, selection: Selection) -> Iterator[Columns]:
    is_empty = True
    for rows in history.rows(selection):
        if len(rows.regions):
            is_empty = False
            yield _columns_of(rows, history.targets)
    if is_empty:
        raise nothing_selected(history)


def _columns_of(rows: SnapshotRows, targets: tuple[TargetInfo, ...]) -> Columns:
    regions, snapshot = rows.regions, rows.snapshot_of_row
    pids, names = np.array([one.pid for one in targets]), np.array([one.name for one in targets], object)
    columns = {
        "time_s": rows.time_s[snapshot],
        "window_s": rows.window_s[snapshot],
        "pid": pids[regions.target],
        "target": names[regions.target],
        "start": regions.start,
        "end": regions.end,
        "size_bytes": regions.size_bytes,
        "nr_accesses": regions.nr_accesses,
        "samples": rows.samples[snapshot],
        "access_rate": regions.access_rate,
        "rate_error": regions.rate_error,
        "age_s": regions.age_s,
        "sampling_interval_s": rows.sampling_interval_s[snapshot],
    }
    return {name: columns[name] for name in COLUMNS}


def _lists(columns: Columns) -> dict[str, list[Any]]:
    return {name: column.tolist() for name, column in columns.items()}
