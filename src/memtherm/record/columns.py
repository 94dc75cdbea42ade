"""Regions ↔ Arrow record batches: one schema, whose columns come back as numpy views."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import pairwise
from typing import Any

import nanoarrow  # type: ignore[import-untyped,unused-ignore]
import numpy as np
from nanoarrow import ipc
from nanoarrow.c_array_stream import CArrayStream  # type: ignore[import-untyped,unused-ignore]
from numpy.typing import NDArray

from memtherm.core.ranges import Counts
from memtherm.core.rows import SnapshotRows
from memtherm.core.snapshot import Regions, rate_error
from memtherm.record.frames import Damaged

END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"

# Larger windows than this are not kept in a table of errors.
_MOST_TABLED_SAMPLES = 4096

Column = NDArray[Any]


@cache
def _schema() -> Any:
    return nanoarrow.struct(
        {
            "target": nanoarrow.int32(nullable=False),
            "time": nanoarrow.timestamp("us", "UTC", nullable=False),
            "start": nanoarrow.uint64(nullable=False),
            "end": nanoarrow.uint64(nullable=False),
            "nr_accesses": nanoarrow.uint32(nullable=False),
            "samples": nanoarrow.uint32(nullable=False),
            "access_rate": nanoarrow.float32(nullable=False),
            "age_s": nanoarrow.float32(nullable=False),
            "rate_error": nanoarrow.float32(),
        },
        nullable=False,
    )


# What is read back; `time` and `samples` are for other tools, entries have them exactly.
_READ = {
    "target": np.int32,
    "start": np.uint64,
    "end": np.uint64,
    "nr_accesses": np.uint32,
    "access_rate": np.float32,
    "age_s": np.float32,
    "rate_error": np.float32,
}


def _no_batches() -> Any:
    return CArrayStream.from_c_arrays([], nanoarrow.c_schema(_schema()))


@cache
def schema_message() -> bytes:
    """The first bytes of the Arrow stream."""
    out = io.BytesIO()
    writer = ipc.StreamWriter.from_writable(out)
    writer.write_stream(_no_batches())
    writer.release()
    return out.getvalue()


class BatchWriter:
    """Makes the messages of record batches."""

    def __init__(self) -> None:
        self._out = io.BytesIO()
        self._writer = ipc.StreamWriter.from_writable(self._out)
        self._fields = list(_schema().fields)
        # The schema goes out once, and is not part of a batch.
        self._writer.write_stream(_no_batches())

    def message(self, columns: Sequence[Column], is_given: NDArray[np.bool_]) -> list[memoryview]:
        """The message of a batch, cut so that each column's buffer is a part of its own.

        Args:
            columns: in the order and the types of the schema.
            is_given: where the last one has a value.
        """
        count = len(is_given)
        validity = None if is_given.all() else np.packbits(is_given, bitorder="little")
        children = [
            nanoarrow.c_array_from_buffers(field, count, [None, column], null_count=0)
            for field, column in zip(self._fields[:-1], columns[:-1], strict=True)
        ]
        nulls = 0 if validity is None else count - int(is_given.sum())
        children.append(
            nanoarrow.c_array_from_buffers(self._fields[-1], count, [validity, columns[-1]], null_count=nulls)
        )
        batch = nanoarrow.c_array_from_buffers(_schema(), count, [None], null_count=0, children=children)
        self._out.seek(0)
        self._out.truncate()
        self._writer.write_array(batch)
        return _cut_at_columns(memoryview(self._out.getvalue()), columns)


def _cut_at_columns(message: memoryview, columns: Sequence[Column]) -> list[memoryview]:
    """Buffers lie at the end of the message, in order, each filled up to 8 bytes.

    A cut at another place would be no mistake: it would only cost some bytes.
    """
    ends = [len(message)]
    for column in reversed(columns):
        ends.append(max(0, ends[-1] - (column.nbytes + 7) // 8 * 8))
    cuts = sorted({0, *ends})
    return [message[begin:end] for begin, end in pairwise(cuts)]


def derived_error(nr_accesses: Counts, samples: Counts, first_row: Counts) -> NDArray[np.float64]:
    """The error of a rate that is `nr_accesses` of `samples`, one number of samples for each snapshot."""
    if len(samples) == 0:
        return np.zeros(0)
    most = int(samples.max())
    if 0 < most <= _MOST_TABLED_SAMPLES and (samples == most).all():
        table = rate_error(np.arange(most + 1) / most, float(most))
        return table.take(nr_accesses, mode="clip")
    of_row = np.maximum(np.repeat(samples, np.diff(first_row)), 1).astype(np.float64)
    return rate_error(np.minimum(nr_accesses / of_row, 1.0), of_row)


def derived_rate(nr_accesses: Counts, samples: Counts, first_row: Counts) -> NDArray[np.float64]:
    """`nr_accesses` / `samples` of each row."""
    return nr_accesses / np.maximum(np.repeat(samples, np.diff(first_row)), 1)


def to_columns(rows: SnapshotRows) -> tuple[list[Column], NDArray[np.bool_]]:
    """The columns of the schema, and where there is an error that does not follow from the others."""
    regions = rows.regions
    counts = np.diff(rows.first_row)
    time_us = np.rint(rows.time_s * 1e6).astype(np.int64)
    derived = derived_error(regions.nr_accesses, rows.samples, rows.first_row)
    follows = (derived == regions.rate_error) & (
        derived_rate(regions.nr_accesses, rows.samples, rows.first_row) == regions.access_rate
    )
    columns: list[Column] = [
        np.ascontiguousarray(regions.target, np.int32),
        np.repeat(time_us, counts),
        np.ascontiguousarray(regions.start, np.uint64),
        np.ascontiguousarray(regions.end, np.uint64),
        regions.nr_accesses.astype(np.uint32),
        np.repeat(rows.samples.astype(np.uint32), counts),
        regions.access_rate.astype(np.float32),
        regions.age_s.astype(np.float32),
        np.where(follows, np.float32(0), regions.rate_error.astype(np.float32)),
    ]
    return columns, ~follows


class Schema:
    """Where in the batches of a record the columns are; there may be more of them than are known here.

    Raises:
        Damaged: the message is no schema, or lacks a column.
    """

    def __init__(self, message: bytes) -> None:
        self._message = message
        with _arrow_errors():
            found = list(nanoarrow.Schema(_stream(message)._get_cached_schema()).fields)
        wanted = {field.name: field for field in _schema().fields}
        self._places = {field.name: place for place, field in enumerate(found)}
        for name in _READ:
            if name not in self._places or found[self._places[name]].type != wanted[name].type:
                raise Damaged(f"there is no column {name}, or of another type")

    def reader(self, rows: int) -> RegionsReader:
        """For batches of so many rows in all."""
        return RegionsReader(self, rows)

    def fill(self, message: bytes, rows: int, columns: dict[str, Column], is_given: Column) -> None:
        """Copy the one batch of a message into these columns, and where there is an error.

        Raises:
            Damaged: it is none of so many rows.
        """
        with _arrow_errors():
            batches = list(_stream(self._message + message))
        if len(batches) != 1 or len(batches[0]) != rows:
            raise Damaged("a batch has another number of rows than its frame says")
        # Buffers are views of the batch, and live as long as it does: until this returns.
        view = batches[0].view()
        if rows == 0:
            return
        for name, kind in _READ.items():
            columns[name][:] = np.frombuffer(view.child(self._places[name]).buffer(1), kind, rows)
        error = view.child(self._places["rate_error"])
        if error.null_count:
            bits = np.frombuffer(error.buffer(0), np.uint8)
            is_given[:] = np.unpackbits(bits, count=rows, bitorder="little").view(np.bool_)


@contextmanager
def _arrow_errors() -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ValueError, OSError) as problem:
        raise Damaged(f"Arrow: {problem}") from problem


def _stream(messages: bytes) -> Any:
    return nanoarrow.c_array_stream(ipc.InputStream.from_readable(messages))


class RegionsReader:
    """Fills the columns of some snapshots from the messages of their batches."""

    def __init__(self, schema: Schema, rows: int) -> None:
        self._schema = schema
        self._at = 0
        wider = {"nr_accesses": np.int64}
        self._columns: dict[str, Column] = {name: np.empty(rows, wider.get(name, kind)) for name, kind in _READ.items()}
        self._is_given = np.ones(rows, np.bool_)

    def add(self, message: bytes, rows: int) -> None:
        """Raises Damaged: the message is no batch of so many rows."""
        part = slice(self._at, self._at + rows)
        self._at += rows
        parts = {name: column[part] for name, column in self._columns.items()}
        self._schema.fill(message, rows, parts, self._is_given[part])

    def regions(self, samples: Counts, aggregation_s: NDArray[np.float64], first_row: Counts) -> Regions:
        """What was filled in, in the numbers that were written, as far as they follow from exact ones."""
        columns = self._columns
        looks = columns["nr_accesses"]
        exact_rate = derived_rate(looks, samples, first_row)
        error = columns["rate_error"].astype(np.float64)
        if not self._is_given.all():
            error = np.where(self._is_given, error, derived_error(looks, samples, first_row))
        return Regions(
            target=columns["target"],
            start=columns["start"],
            end=columns["end"],
            nr_accesses=looks,
            access_rate=np.where(_rounded(exact_rate) == columns["access_rate"], exact_rate, columns["access_rate"]),
            age_s=_exact_age(columns["age_s"], aggregation_s, first_row),
            rate_error=error,
        )


def _rounded(values: NDArray[np.float64]) -> NDArray[np.float32]:
    return values.astype(np.float32)


def _exact_age(
    age_s: NDArray[np.float32], aggregation_s: NDArray[np.float64], first_row: Counts
) -> NDArray[np.float64]:
    """Ages that are whole windows, as the product that they were; the others as they are."""
    window = np.repeat(aggregation_s, np.diff(first_row))
    with np.errstate(all="ignore"):
        product = np.rint(age_s / window) * window
        return np.where(_rounded(product) == age_s, product, age_s)
