"""Opens a record for a command, reads around damage, and says what is to be said of the file."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from memtherm.errors import InvalidInput
from memtherm.record.part import other_parts
from memtherm.record.reader import Record, open_record

_Result = TypeVar("_Result")
_EXIT_DAMAGED = 1
_MOST_FILES = 8


def with_record(
    path: str, use: Callable[[Record], _Result], *, follow: bool = False, only_once: bool = False
) -> _Result:
    """What `use` makes of a record.

    Where it is damaged, `use` is called again with what is whole of it, and the command ends with exit code 1: the
    answer is printed, and is not of all that was recorded.

    Args:
        only_once: what `use` does cannot be done again, so that all of the record is checked before.

    Raises:
        InvalidInput: no record, or nothing of it can be read.
    """
    said: set[str] = set()
    whole = None if only_once and _is_damaged(path) else _opened_whole(path, follow=follow)
    if whole is not None:
        with whole:
            _say(whole, said)
            try:
                return use(whole)
            except InvalidInput:
                if not whole.is_damaged:
                    raise
    with open_record(path, follow=follow, around_damage=True) as record:
        if record.nr_snapshots == 0:
            raise InvalidInput(f"{path}: {record.problems[0]}", hint="restore it from a copy")
        _say(record, said)
        use(record)
    sys.exit(_EXIT_DAMAGED)


def others_of(record: Record) -> tuple[Path, ...]:
    """The other files of a rotated record."""
    return other_parts(record.path, part=record.header.part, is_continued=record.is_continued)


def _is_damaged(path: str) -> bool:
    with open_record(path, around_damage=True) as record:
        return record.is_damaged


def _opened_whole(path: str, *, follow: bool) -> Record | None:
    """None where it is known by now that it is damaged.  Raises InvalidInput: no record."""
    try:
        record = open_record(path, follow=follow)
    except InvalidInput as problem:
        # Only of a damaged header frames are found behind it.
        try:
            open_record(path, around_damage=True).close()
        except InvalidInput:
            raise problem from None
        return None
    if not record.is_damaged:
        return record
    record.close()
    return None


def _say(record: Record, said: set[str]) -> None:
    """Problems, and files that are not read; once each."""
    lines = [f"warning: {record.path}: {problem}" for problem in record.problems]
    if others := others_of(record):
        names = ", ".join(map(str, others[:_MOST_FILES]))
        more = f" and {len(others) - _MOST_FILES} more" if len(others) > _MOST_FILES else ""
        lines.append(
            f"note: {record.path} is one of {len(others) + 1} files of a rotated record, and the only one that is "
            f"read; name another to read that: {names}{more}"
        )
    for line in lines:
        if line not in said:
            print(f"memtherm: {line}", file=sys.stderr)
    said.update(lines)
