"""Records as pyarrow tables, where pyarrow is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from memtherm.core.history import History
from memtherm.core.selection import Selection
from memtherm.errors import NotSupported

if TYPE_CHECKING:
    import pyarrow  # type: ignore[import-untyped,unused-ignore]


def import_pyarrow() -> Any:
    """Raises NotSupported."""
    try:
        import pyarrow
    except ImportError:
        raise NotSupported("pyarrow is not installed", hint="pip install memtherm[arrow]") from None
    return pyarrow


def table(history: History, selection: Selection) -> pyarrow.Table:
    """All selected regions, one row each."""
    arrow = import_pyarrow()
    schema = arrow.schema(
        {
            "target": arrow.int32(),
            "pid": arrow.int32(),
            "name": arrow.dictionary(arrow.int32(), arrow.string()),
            "time": arrow.timestamp("us", "UTC"),
            "start": arrow.uint64(),
            "end": arrow.uint64(),
            "nr_accesses": arrow.int64(),
            "samples": arrow.int64(),
            "access_rate": arrow.float64(),
            "age_s": arrow.float64(),
            "rate_error": arrow.float64(),
        }
    )
    names = arrow.array([target.name for target in history.targets], arrow.string())
    pids = np.array([target.pid for target in history.targets], np.int32)
    batches = []
    for rows in history.rows(selection):
        regions, of_row = rows.regions, rows.snapshot_of_row
        time_us = np.rint(rows.time_s * 1e6).astype(np.int64)
        columns = (
            regions.target,
            pids[regions.target],
            arrow.DictionaryArray.from_arrays(regions.target, names),
            arrow.array(time_us[of_row], arrow.timestamp("us", "UTC")),
            *(regions.start, regions.end, regions.nr_accesses, rows.samples[of_row]),
            *(regions.access_rate, regions.age_s, regions.rate_error),
        )
        batches.append(arrow.record_batch([arrow.array(one) for one in columns], schema))
    return arrow.Table.from_batches(batches, schema)
