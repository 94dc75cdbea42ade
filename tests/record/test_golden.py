"""Records that earlier versions wrote are read by this one, in the numbers that were written then."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memtherm.record.frames import FORMAT
from memtherm.record.reader import Record, open_record

GOLDEN = Path(__file__).parents[1] / "golden" / "records"
NAMES = sorted(path.stem for path in GOLDEN.glob("v*.json"))


def wanted(name: str) -> list[dict[str, Any]]:
    snapshots: list[dict[str, Any]] = json.loads((GOLDEN / f"{name}.json").read_text())["snapshots"]
    return snapshots


def check(record: Record, expected: list[dict[str, Any]]) -> int:
    """How many of the expected snapshots the record has, the first ones; all of them as they should be."""
    count = 0
    for report, plain in zip(record.reports(), expected, strict=False):
        snapshot = report.snapshot
        assert snapshot.time_s == plain["time_s"]
        assert as_json([asdict(target) for target in snapshot.targets]) == plain["targets"]
        assert as_json(asdict(snapshot.conditions)) == plain["conditions"]
        assert as_json([asdict(scheme) for scheme in report.schemes]) == plain["schemes"]
        assert list(report.events) == plain["events"]
        for column, values in plain["regions"].items():
            found = getattr(snapshot.regions, column)
            if column in ("access_rate", "age_s", "rate_error"):
                np.testing.assert_allclose(found, values, rtol=1e-7)
            else:
                assert found.tolist() == values
        count += 1
    return count


def as_json(value: object) -> object:
    return json.loads(json.dumps(value))


def test_there_are_records_of_each_format() -> None:
    assert {f"v{number}-{name}" for number in range(1, FORMAT + 1) for name in ("census", "sampling")} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_an_old_record_is_read(name: str) -> None:
    with open_record(GOLDEN / f"{name}.memtherm") as record:
        assert (record.problems, record.is_complete) == ((), True)
        assert record.header.memtherm_version == "0.1.0"
        assert check(record, wanted(name)) == record.nr_snapshots == len(wanted(name))


def test_the_other_channels_of_an_old_record() -> None:
    with open_record(GOLDEN / "v1-sampling.memtherm") as record:
        assert record.header.command == ("memtherm", "record", "--", "./server", "höß")
        assert record.header.host["kernel"] == "Linux 6.12.0 x86_64"
        assert [target.name for target in record.targets] == ["server", "wörker"]
        assert [len(table) for table in record.mappings()] == [5, 5, 5, 5]
        assert next(record.mappings()).path[3] == "/data/b\udcffuffer.dat"
        assert [one.targets[0].resident_bytes for one in record.vitals()] == [5 << 20] * 16
        assert sorted(event.text for event in record.events()) == [
            *("event 14", "event 4", "event 9", "it is watched", "wörker was started"),
        ]


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("v*-torn.memtherm")), ids=lambda path: path.stem)
def test_a_torn_old_record_is_read_up_to_the_cut(path: Path) -> None:
    with open_record(path) as record:
        found = check(record, wanted(path.stem.replace("torn", "sampling")))
        assert found == record.nr_snapshots > 4
        assert "no whole frame" in record.problems[1]
