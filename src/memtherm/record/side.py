"""The bodies of side frames: targets, texts, mappings, vitals, schemes, events ↔ zstd frames of JSON and columns."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any, TypeVar

import numpy as np

from memtherm.core.history import Event, MappingTable, TargetVitals, Vitals
from memtherm.core.snapshot import TargetInfo
from memtherm.errors import InvalidInput
from memtherm.record.frames import SIDE_OPTIONS, Damaged, compress, decompress
from memtherm.units import shown

_Thing = TypeVar("_Thing")

_ADDRESSES = ("start", "end", "offset")
_NAMES = ("permissions", "path")
# Of the part before the columns of a table of mappings: its length.
_LENGTH_BYTES = 4


def pack_plain(plain: object) -> bytes:
    """One zstd frame of JSON."""
    return compress([memoryview(_json(plain))], SIDE_OPTIONS)


def unpack_list(body: bytes | memoryview) -> list[Any]:
    """Raises Damaged: no zstd frame of a JSON list."""
    plain = _parsed(decompress(body))
    if not isinstance(plain, list):
        raise Damaged("a list was expected")
    return plain


def _json(plain: object) -> bytes:
    # ASCII, because path names need not be UTF-8: their surrogates go through as escapes.
    return json.dumps(plain, separators=(",", ":"), default=_python_number).encode()


def _python_number(value: object) -> object:
    if isinstance(value, np.generic):
        return value.item()
    raise InvalidInput(f"{shown(repr(value))} cannot be recorded", hint="numbers and texts can")


def _parsed(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise Damaged(f"JSON: {problem}") from problem


def understood(make: Callable[[Any], _Thing], plain: Any) -> _Thing:
    """What `make` makes of it.

    Raises:
        Damaged: something is missing in it, or of another kind: another writer than ours made it.
    """
    try:
        return make(plain)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as problem:
        raise Damaged(f"{make.__name__.replace('_', ' ').strip()} cannot be understood: {problem!r}") from problem


def known_fields(kind: type, plain: Mapping[str, Any]) -> dict[str, Any]:
    """Fields that `kind` has; a later version may have written more."""
    names = {one.name for one in fields(kind)}
    return {name: value for name, value in plain.items() if name in names}


def plain_targets(targets: Sequence[TargetInfo]) -> list[Any]:
    return [asdict(target) for target in targets]


def target(plain: Mapping[str, Any]) -> TargetInfo:
    return TargetInfo(**{**known_fields(TargetInfo, plain), "labels": tuple(plain["labels"])})


def plain_vitals(vitals: Sequence[Vitals]) -> list[Any]:
    return [asdict(one) for one in vitals]


def vitals(plain: Mapping[str, Any]) -> Vitals:
    targets = tuple(TargetVitals(**known_fields(TargetVitals, one)) for one in plain["targets"])
    return Vitals(**{**known_fields(Vitals, plain), "targets": targets})


def plain_events(events: Sequence[tuple[Event, bool]]) -> list[Any]:
    """Events, and of each whether it is of the report of a window."""
    return [[event.time_s, event.text, is_of_window] for event, is_of_window in events]


def event(plain: Sequence[Any]) -> tuple[Event, bool]:
    time_s, text, is_of_window = plain
    return Event(float(time_s), str(text)), bool(is_of_window)


def pack_mappings(table: MappingTable) -> bytes:
    """JSON with each name once, and columns behind it."""
    numbers: list[np.ndarray[Any, Any]] = []
    plain: dict[str, Any] = {"time_s": table.time_s, "target": table.target, "mappings": len(table)}
    for name in _NAMES:
        places: dict[str, int] = {}
        numbers.append(np.array([places.setdefault(text, len(places)) for text in getattr(table, name)], "<u4"))
        plain[name] = list(places)
    head = _json(plain)
    columns = [np.ascontiguousarray(getattr(table, name), "<u8") for name in _ADDRESSES]
    parts = [len(head).to_bytes(_LENGTH_BYTES, "little"), head, *(one.tobytes() for one in (*columns, *numbers))]
    return compress([memoryview(part) for part in parts], SIDE_OPTIONS)


def unpack_mappings(body: bytes | memoryview) -> MappingTable:
    """Raises Damaged."""
    content = decompress(body)
    end = _LENGTH_BYTES + int.from_bytes(content[:_LENGTH_BYTES], "little")
    plain = _parsed(content[_LENGTH_BYTES:end])

    def table_of_mappings(plain: Mapping[str, Any]) -> MappingTable:
        count = int(plain["mappings"])
        addresses = np.frombuffer(content, "<u8", 3 * count, end).reshape(3, count)
        numbers = np.frombuffer(content, "<u4", 2 * count, end + addresses.nbytes).reshape(2, count)
        names = [
            tuple(str(plain[name][number]) for number in row.tolist())
            for name, row in zip(_NAMES, numbers, strict=True)
        ]
        return MappingTable(float(plain["time_s"]), int(plain["target"]), *addresses, *names)

    return understood(table_of_mappings, plain)


def same_mappings(one: MappingTable, other: MappingTable) -> bool:
    """Whether two tables of a target tell the same."""
    return (
        one.permissions == other.permissions
        and one.path == other.path
        and all(np.array_equal(getattr(one, name), getattr(other, name)) for name in _ADDRESSES)
    )
