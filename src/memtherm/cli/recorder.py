"""A record that a command writes: where, with what in its header, and what was in the way."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from memtherm.cli.host import host_words
from memtherm.cli.new_file import is_regular
from memtherm.core.attributes import MonitoringAttributes
from memtherm.errors import InvalidInput
from memtherm.linux.facts import probe_host
from memtherm.record.header import RecordHeader
from memtherm.record.reader import open_record
from memtherm.record.writer import RecordWriter


@dataclass(frozen=True, kw_only=True)
class Rotation:
    """When a new file is begun, and how many complete ones are kept."""

    rotate_bytes: int | None = None
    rotate_s: float | None = None
    keep: int | None = None


@contextmanager
def recording(
    path: str, *, attributes: MonitoringAttributes, policy: str = "", rotation: Rotation | None = None
) -> Iterator[RecordWriter]:
    """A new record; one that is there already is kept as FILE.old.

    Raises:
        InvalidInput: what is there is no record, or somebody writes it.
    """
    _make_room(Path(path))
    header = RecordHeader(
        memtherm_version=version("memtherm"),
        created_s=time.time(),
        command=("memtherm", *sys.argv[1:]),
        host=host_words(probe_host()),
        policy=policy,
        sampling_interval_s=attributes.sampling_interval_s,
        aggregation_interval_s=attributes.aggregation_interval_s,
    )
    rotation = rotation or Rotation()
    with RecordWriter(
        path, header, rotate_bytes=rotation.rotate_bytes, rotate_s=rotation.rotate_s, keep=rotation.keep
    ) as writer:
        yield writer


def _make_room(path: Path) -> None:
    """Move away what has the name; a record without a snapshot, as a wrong pid leaves it, is not worth a `.old`."""
    another = "give another name by -o"
    # Before anything is moved or removed: a device that lost its name would be missed by the whole machine.
    if not is_regular(path):
        raise InvalidInput(f"{path} is no plain file, and a record is written to one", hint=another)
    if not path.exists():
        return
    has_snapshots = False
    try:
        with open_record(path) as record:
            if record.is_growing:
                raise InvalidInput(f"{path} is being written by another memtherm", hint=another)
            has_snapshots = record.nr_snapshots > 0
    except InvalidInput as problem:
        if path.stat().st_size:
            raise InvalidInput(f"{path} is in the way: {problem}", hint=another) from problem
    if not has_snapshots:
        path.unlink()
        return
    old = path.with_name(path.name + ".old")
    path.replace(old)
    print(f"memtherm: the record that was there is now {old}", file=sys.stderr)
