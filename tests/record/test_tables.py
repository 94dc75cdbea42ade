"""Regions as tables of other programs: the same numbers in each."""

import csv
import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memtherm.core.pattern import AccessPattern, Bounds
from memtherm.core.report import Report
from memtherm.core.rows import SnapshotRows
from memtherm.core.selection import Selection
from memtherm.core.snapshot import TargetInfo
from memtherm.errors import InvalidInput, NotSupported
from memtherm.record.tables import COLUMNS, write_csv, write_json_lines, write_parquet
from record.damo_scene import Writer, all_rows, run, written
from support.history import ListHistory

CHOSEN = Selection(targets=frozenset({1}), end=0x7F00_0000_0000, pattern=AccessPattern(access_rate=Bounds(0.25, None)))


def odd_names() -> ListHistory:
    history = run(windows=7, targets=2)
    names = (TargetInfo(100, 'a,"b"\n'), TargetInfo(101, "größer"))
    reports = [Report(replace(one.snapshot, targets=names), ()) for one in history.all_reports]
    return ListHistory(all_reports=reports)


def expected(history: ListHistory, selection: Selection) -> list[dict[str, Any]]:
    rows = [one for piece in history.rows(selection) for one in _rows(history, piece)]
    assert rows
    return rows


def _rows(history: ListHistory, rows: SnapshotRows) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for index, snapshot in enumerate(rows.snapshot_of_row.tolist()):
        region = rows.regions.take(slice(index, index + 1))
        target = history.targets[int(region.target[0])]
        found.append(
            {
                "time_s": float(rows.time_s[snapshot]),
                "window_s": float(rows.window_s[snapshot]),
                "pid": target.pid,
                "target": target.name,
                "start": int(region.start[0]),
                "end": int(region.end[0]),
                "size_bytes": int(region.end[0] - region.start[0]),
                "nr_accesses": int(region.nr_accesses[0]),
                "samples": int(rows.samples[snapshot]),
                "access_rate": float(region.access_rate[0]),
                "rate_error": float(region.rate_error[0]),
                "age_s": float(region.age_s[0]),
                "sampling_interval_s": float(rows.sampling_interval_s[snapshot]),
            }
        )
    return found


@pytest.mark.parametrize("selection", [Selection(), CHOSEN], ids=["all", "some"])
def test_json_lines(tmp_path: Path, selection: Selection) -> None:
    history = odd_names()
    text = written(tmp_path / "f", history, partial(write_json_lines, selection=selection)).read_text()
    assert [json.loads(line) for line in text.splitlines()] == expected(history, selection)


@pytest.mark.parametrize("selection", [Selection(), CHOSEN], ids=["all", "some"])
def test_csv(tmp_path: Path, selection: Selection) -> None:
    history = odd_names()
    path = written(tmp_path / "f", history, partial(write_csv, selection=selection))
    with path.open(newline="", encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    wanted = expected(history, selection)
    assert list(found[0]) == list(COLUMNS)
    for one, row in zip(found, wanted, strict=True):
        assert {name: type(row[name])(text) for name, text in one.items()} == row


@pytest.mark.parametrize("selection", [Selection(), CHOSEN], ids=["all", "some"])
def test_parquet(tmp_path: Path, selection: Selection) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    history = odd_names()
    path = written(tmp_path / "f", history, partial(write_parquet, selection=selection))
    table = parquet.read_table(path)
    assert table.to_pylist() == expected(history, selection)
    assert str(table.schema.field("start").type) == "uint64"
    assert table.schema.metadata[b"memtherm.age_s"] == COLUMNS["age_s"].encode()


def test_parquet_of_many_pieces_has_large_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr("memtherm.record.tables._PARQUET_ROWS", 200)
    history = run(windows=60, targets=3)
    path = written(tmp_path / "f", history, write_parquet)
    file = parquet.ParquetFile(path)
    assert 1 < file.num_row_groups < 60
    assert np.array_equal(file.read()["start"].to_numpy(), all_rows(history).regions.start)


@pytest.mark.parametrize("write", [write_csv, write_json_lines, write_parquet])
def test_nothing_selected_is_refused(tmp_path: Path, write: Writer) -> None:
    nothing = partial(write, selection=Selection(since_s=2e9))
    with pytest.raises(InvalidInput, match="nothing is selected"):
        written(tmp_path / "f", run(windows=2), nothing)


def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(NotSupported) as caught:
        written(tmp_path / "f", run(windows=2), write_parquet)
    assert "memtherm[arrow]" in caught.value.hint
