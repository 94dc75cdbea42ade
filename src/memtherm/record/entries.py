"""What is kept of each snapshot besides its rows: numbers as fixed columns, texts once and by number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memtherm.core.snapshot import Conditions, Snapshot
from memtherm.errors import InvalidInput
from memtherm.record.frames import SIDE_OPTIONS, Damaged, compress, decompress

_NUMBERS = (
    *("window_s", "sampling_interval_s", "aggregation_interval_s"),
    *("agent_cpu_s", "unclear_share", "uncovered_share"),
)
_COUNTS = ("samples", "late_samples")
TEXTS = ("method", "why", "probe", "clearing", "grain", "doubts")

# In the file little-endian, and column after column: most of them are constant, and cost nothing when compressed.
ENTRY = np.dtype(
    [
        ("time_s", "<f8"),
        *((name, "<f8") for name in _NUMBERS),
        *((name, "<u4") for name in _COUNTS),
        ("rows", "<u4"),
        ("texts", "<u4"),
        ("targets", "<u4"),
    ]
)

Entries = NDArray[np.void]


def pack_entries(snapshots: Sequence[Snapshot], texts: Sequence[int]) -> bytes:
    """The body of a SNAPSHOTS frame.

    Raises:
        InvalidInput: a number that is no count.
    """
    entries = np.zeros(len(snapshots), ENTRY)
    try:
        for name in (*_NUMBERS, *_COUNTS):
            entries[name] = [getattr(one.conditions, name) for one in snapshots]
        entries["time_s"] = [one.time_s for one in snapshots]
        entries["rows"] = [len(one.regions) for one in snapshots]
        entries["texts"] = texts
        entries["targets"] = [len(one.targets) for one in snapshots]
    except (OverflowError, ValueError, TypeError) as problem:
        raise InvalidInput(f"a snapshot cannot be recorded: {problem}", hint="counts are from 0 to 2^32 - 1") from None
    columns = b"".join(entries[name].tobytes() for name in ENTRY.names or ())
    return compress([memoryview(columns)], SIDE_OPTIONS)


def unpack_entries(body: bytes | memoryview, *, count: int, rows: int) -> Entries:
    """Raises Damaged."""
    columns = decompress(body)
    if len(columns) != count * ENTRY.itemsize:
        raise Damaged("a frame has another number of snapshots than it says")
    entries, at = np.zeros(count, ENTRY), 0
    for name in ENTRY.names or ():
        kind = ENTRY[name]
        entries[name] = np.frombuffer(columns, kind, count, at)
        at += count * kind.itemsize
    if int(entries["rows"].sum(dtype=np.int64)) != rows:
        raise Damaged("a frame has another number of rows than it says")
    return entries


def first_rows(entries: Entries) -> NDArray[np.int64]:
    """Where the rows of each snapshot begin, and their number at the end."""
    return np.concatenate(([0], np.cumsum(entries["rows"], dtype=np.int64)))


def texts_of(conditions: Conditions) -> tuple[Any, ...]:
    """The texts of the conditions of a snapshot, as a key."""
    return tuple(getattr(conditions, name) for name in TEXTS)


def conditions_of(entry: np.void, texts: Mapping[str, Any]) -> Conditions:
    """Raises Damaged."""
    try:
        given: dict[str, Any] = {name: str(texts[name]) for name in TEXTS}
        given["doubts"] = tuple(str(doubt) for doubt in texts["doubts"])
        given |= {name: float(entry[name]) for name in _NUMBERS}
        given |= {name: int(entry[name]) for name in _COUNTS}
        return Conditions(**given)
    except (KeyError, TypeError) as problem:
        raise Damaged(f"conditions cannot be understood: {problem!r}") from problem
