"""What is right key by key in a policy file and does not agree: keys with keys, schemes with schemes and targets."""

from collections.abc import Iterator, Mapping
from typing import Any

from memtherm.errors import InvalidInput
from memtherm.policy.fields import SECTIONS, Section, fields_of, sections_in
from memtherm.policy.locate import Path, line_of
from memtherm.policy.model import BUILDERS, read_table
from memtherm.policy.problems import label_of, problem_line
from memtherm.units import shown

_TARGET = SECTIONS["target"]
_WHY_NAMES = "results are told apart by name"


class _Findings:
    """Problems with their lines."""

    def __init__(self, data: Mapping[str, Any], lines: Mapping[Path, int], source: str) -> None:
        self.data = data
        self.lines = lines
        self.problems: list[tuple[int, str]] = []
        self._source = source

    def add(self, line: int, path: Path, what: str, hint: str) -> None:
        self.problems.append((line, problem_line(self._source, line, label_of(path, self.data), what, hint)))


def problems_between(data: Mapping[str, Any], lines: Mapping[Path, int], source: str) -> list[tuple[int, str]]:
    """Lines and problems, in no order.

    Args:
        data: the whole file, of which any value may be wrong: those are told by their own checks.
    """
    found = _Findings(data, lines, source)
    _check_keys(found)
    if data.get("scheme", []) == []:
        found.add(1, (), "no scheme", 'a policy has a [[scheme]] with action = "pageout" or so')
    _check_names(found)
    _check_labels(found)
    return found.problems


def _tables(section: str, table: Mapping[str, Any], path: Path = ()) -> Iterator[tuple[Section, Path, dict[str, Any]]]:
    """Each table of the file that is one, with the tables in it."""
    for inner in sections_in(section):
        value = table.get(inner.key)
        here: Path = (*path, inner.key)
        if inner.repeated:
            several = [((*here, i), one) for i, one in enumerate(value)] if isinstance(value, list) else []
        else:
            several = [(here, value)]
        for place, one in several:
            if isinstance(one, dict):
                yield inner, place, one
                yield from _tables(inner.path, one, place)


def _check_keys(found: _Findings) -> None:
    """Values such as an interval that is longer than its window."""
    for section, path, table in _tables("", found.data):
        for group in section.together:
            refusal = _disagreement(section.path, group, table)
            if refusal is not None:
                line = max(line_of(found.lines, (*path, key)) for key in group)
                found.add(line, path, refusal.message, refusal.hint)


def _disagreement(section: str, group: tuple[str, ...], table: Mapping[str, Any]) -> InvalidInput | None:
    fields = [field for field in fields_of(section) if field.key in group]
    inner = [one for one in sections_in(section) if one.key in group and one.key in table]
    if any(field.required and field.key not in table for field in fields):
        return None  # told already, as are the values that cannot be read
    try:
        values = {field.attribute: field.kind.parse(table[field.key]) for field in fields if field.key in table}
        values |= {one.attribute: read_table(one, table[one.key]) for one in inner}
    except ValueError:
        return None
    try:
        BUILDERS[section](**values)
    except InvalidInput as refusal:
        return refusal
    return None


def _schemes(found: _Findings) -> Iterator[tuple[int, dict[str, Any]]]:
    schemes = found.data.get("scheme")
    for index, scheme in enumerate(schemes if isinstance(schemes, list) else []):
        if isinstance(scheme, dict):
            yield index, scheme


def _check_names(found: _Findings) -> None:
    first_use: dict[str, int] = {}
    for index, scheme in _schemes(found):
        name = scheme.get("name", f"scheme {index + 1} ({scheme.get('action')})")
        path: Path = ("scheme", index, "name")
        line = line_of(found.lines, path)
        if not isinstance(name, str):
            continue
        if name in first_use:
            found.add(line, path, f"the name is taken by the scheme of line {first_use[name]}", _WHY_NAMES)
        elif name:
            first_use[name] = line


def _check_labels(found: _Findings) -> None:
    """Targets that schemes and filters mean."""
    known = _known_labels(found.data.get("target"))
    if known is None:
        return
    for index, scheme in _schemes(found):
        meant: list[tuple[Path, object]] = []
        labels = scheme.get("targets")
        if isinstance(labels, list):
            meant += [(("scheme", index, "targets"), label) for label in labels]
        filters = scheme.get("filters")
        for number, one in enumerate(filters if isinstance(filters, list) else []):
            if isinstance(one, dict) and "target" in one:
                meant.append((("scheme", index, "filters", number, "target"), one["target"]))
        for path, label in meant:
            if isinstance(label, str) and label.strip() and label not in known:
                hint = f"its targets are {', '.join(known)}" if known else "add a [[target]] with this label"
                found.add(line_of(found.lines, path), path, f"no target of this file is {shown(label)}", hint)


def _known_labels(targets: object) -> list[str] | None:
    """Labels of the file's targets; None where one of them cannot be read."""
    try:
        selectors = read_table(_TARGET, targets or [])
    except ValueError:
        return None
    return [one.label for one in selectors]
