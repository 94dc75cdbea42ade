"""Problems of a policy file as lines of text: where, in which section, what is wrong, what to write instead."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from memtherm.errors import InvalidInput, InvalidPolicy
from memtherm.policy.fields import SECTIONS, fields_of, toml_type
from memtherm.policy.locate import Path, line_of
from memtherm.units import shown


def refuse(source: str, problems: Sequence[str], *, hint: str = "") -> InvalidPolicy:
    """The exception for these problems; a single one is its message, too."""
    message = problems[0] if len(problems) == 1 else f"{source}: {len(problems)} problems"
    return InvalidPolicy(message, problems=problems, hint=hint)


def problem_line(source: str, line: int, label: str, what: str, hint: str = "") -> str:
    """`policy.toml:12: scheme 2 "name": age: '5' has no unit; use ms, s, min`."""
    return ": ".join(part for part in (f"{source}:{line}", label, what) if part) + (f"; {hint}" if hint else "")


def describe_error(error: Mapping[str, Any], data: Mapping[str, Any], lines: Mapping[Path, int], source: str) -> str:
    """One error of pydantic as a problem."""
    path: Path = error["loc"]
    what, hint = _explain(error, path)
    return problem_line(source, line_of(lines, path), label_of(path, data), what, hint)


def label_of(path: Path, data: Mapping[str, Any]) -> str:
    """`scheme 2 "name": age` for `("scheme", 1, "age")`."""
    section = str(path[0])
    if not section or section not in SECTIONS:
        return shown_key(section)
    rest = path[1:]
    label = section
    if rest and isinstance(rest[0], int):
        label += f" {rest[0] + 1}"
        element = data[section][rest[0]]
        name = element.get("name") if isinstance(element, dict) else None
        if isinstance(name, str) and name.isprintable() and name:
            label += f' "{name[:60]}"'
        rest = rest[1:]
    return ": ".join((label, *(shown_key(str(part)) for part in rest)))


def shown_key(key: str) -> str:
    """A key as it stands, unless that would break the line."""
    return key if key.isprintable() and 0 < len(key) <= 60 else shown(key)


def _explain(error: Mapping[str, Any], path: Path) -> tuple[str, str]:
    section = str(path[0]) if len(path) > 1 else ""
    key = str(path[-1])
    if error["type"] == "extra_forbidden":
        return _explain_unknown(section, key)
    if error["type"] == "missing":
        field = next(field for field in fields_of(section) if field.key == key)
        return "is missing", f"write {key} = {field.kind.example}"
    cause = error.get("ctx", {}).get("error")
    if isinstance(cause, InvalidInput):
        return cause.message, cause.hint
    wrong = toml_type(error["input"])
    if len(path) > 1:
        return f"is {wrong}, and must be a table", f"write {SECTIONS[section].header}"
    header = SECTIONS[key].header
    if wrong == "a table":
        return f"is a single table, and there may be several {key}s", f"write {header} with two brackets"
    if wrong == "a list":
        return "is a list, and there may be one only", f"write {header} with one bracket"
    return f"is {wrong}, and must be a table", f"write {header}"


def _explain_unknown(section: str, key: str) -> tuple[str, str]:
    if key in SECTIONS[section].later:
        return (
            "is not supported by this version",
            "remove it: nothing in a policy is ignored",
        )
    elsewhere = [
        SECTIONS[name].header
        for name in SECTIONS
        if name and name != section and any(field.key == key for field in fields_of(name))
    ]
    if elsewhere:
        return "is an unknown key here", f"it belongs in {' or '.join(elsewhere)}"
    known = [field.key for field in fields_of(section)] + ([name for name in SECTIONS if name] if not section else [])
    near = get_close_matches(key.lower(), known, n=1, cutoff=0.65)
    hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}"
    return "is an unknown key", hint
