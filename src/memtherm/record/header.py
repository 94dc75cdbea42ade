"""What stands at the beginning of a record: who wrote it, where, how and of what."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from memtherm.record.frames import FORMAT, Damaged

# The first memtherm that reads this format; a newer format raises it.
NEEDS = "0.1.0"

_UNITS = {
    "target": "index into the targets of the record",
    "time": "end of the window",
    "start, end": "addresses, half-open",
    "nr_accesses": "looks of the window that found an access",
    "samples": "looks of the window",
    "access_rate": "0..1",
    "age_s": "seconds",
    "rate_error": "0..1 at 95 % confidence; null: follows from nr_accesses and samples (Wilson)",
}


@dataclass(frozen=True, kw_only=True)
class RecordHeader:
    """Facts about a record as a whole.

    Attributes:
        memtherm_version: of the writer.
        created_s: seconds since the epoch.
        command: words of the command line that asked for it.
        host: facts about the machine, such as kernel and memory, in words.
        policy: text of the policy; empty without one.
        sampling_interval_s, aggregation_interval_s: as asked for; snapshots say what was used.  0: not said.
        version: of the format.
        part: of a record that was rotated, from 1 up.
    """

    memtherm_version: str
    created_s: float
    command: tuple[str, ...] = ()
    host: Mapping[str, str] = field(default_factory=dict)
    policy: str = ""
    sampling_interval_s: float = 0.0
    aggregation_interval_s: float = 0.0
    version: int = FORMAT
    part: int = 1


def pack_header(header: RecordHeader) -> bytes:
    """As JSON that people can read, so that any tool shows what the file is."""
    plain = {
        "memtherm_record": header.version,
        "needs": NEEDS,
        "part": header.part,
        "memtherm_version": header.memtherm_version,
        "created_s": header.created_s,
        "command": list(header.command),
        "host": dict(header.host),
        "sampling_interval_s": header.sampling_interval_s,
        "aggregation_interval_s": header.aggregation_interval_s,
        "units": _UNITS,
        "policy": header.policy,
    }
    return json.dumps(plain, indent=1).encode()


def unpack_header(body: bytes) -> RecordHeader:
    """Raises Damaged."""
    try:
        plain: dict[str, Any] = json.loads(body)
        return RecordHeader(
            memtherm_version=str(plain["memtherm_version"]),
            created_s=float(plain["created_s"]),
            command=tuple(str(word) for word in plain["command"]),
            host={str(name): str(value) for name, value in plain["host"].items()},
            policy=str(plain["policy"]),
            sampling_interval_s=float(plain["sampling_interval_s"]),
            aggregation_interval_s=float(plain["aggregation_interval_s"]),
            version=int(plain["memtherm_record"]),
            part=int(plain["part"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as problem:
        raise Damaged(f"the header cannot be understood: {problem!r}") from problem
