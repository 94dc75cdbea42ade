"""Records for reports, and the command on them."""

import json
from pathlib import Path
from typing import Any

from memtherm.record.header import RecordHeader
from memtherm.record.writer import RecordWriter
from support.command import Result, forked
from support.history import ListHistory


def write_record(history: ListHistory, path: Path) -> Path:
    """A record of a run."""
    header = RecordHeader(memtherm_version="0", created_s=history.time_span_s[0], command=("memtherm", "record"))
    with RecordWriter(path, header) as writer:
        for table in history.all_mappings:
            writer.add_mappings(table)
        for one in history.all_vitals:
            writer.add_vitals(one)
        for report in history.all_reports:
            writer.add(report)
    return path


def report(*words: str | Path) -> Result:
    return forked("report", *(str(word) for word in words))


def report_json(*words: str | Path) -> dict[str, Any]:
    """What a report says with --json, which is one object and nothing else."""
    result = report(*words, "--json")
    assert result.exit_code == 0, result
    value: dict[str, Any] = json.loads(result.stdout)
    assert value["record"]["targets"]
    return value
