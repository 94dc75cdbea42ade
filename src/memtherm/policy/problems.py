"""Problems of a policy file as lines of text: where, in which section, what is wrong, what to write instead."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from memtherm.errors import InvalidInput, InvalidPolicy
from memtherm.policy.fields import SECTIONS, Section, fields_of, section_at, sections_in
from memtherm.policy.kinds import toml_type
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
    """`scheme 2 "name": goals 1: target` for `("scheme", 1, "goals", 0, "target")`."""
    words: list[str] = []
    value: Any = data
    for part in path:
        value = _inside(value, part)
        if isinstance(part, str):
            words.append(shown_key(part))
            continue
        words[-1] += f" {part + 1}"
        name = value.get("name") if isinstance(value, dict) else None
        if isinstance(name, str) and name.isprintable() and name:
            words[-1] += f' "{name[:60]}"'
    return ": ".join(words)


def _inside(value: Any, part: str | int) -> Any:
    try:
        return value[part]
    except (KeyError, IndexError, TypeError):  # a key that is missing, or a value that is no table
        return None


def shown_key(key: str) -> str:
    """A key as it stands, unless that would break the line."""
    return key if key.isprintable() and 0 < len(key) <= 60 else shown(key)


def _explain(error: Mapping[str, Any], path: Path) -> tuple[str, str]:
    around, key = section_at(path[:-1]), str(path[-1])
    if error["type"] == "extra_forbidden":
        return _explain_unknown(around, key)
    if error["type"] == "missing":
        field = next(field for field in fields_of(around) if field.key == key)
        return "is missing", f"write {key} = {field.kind.example}"
    cause = error.get("ctx", {}).get("error")
    if isinstance(cause, InvalidInput):
        return cause.message, cause.hint
    wrong = toml_type(error["input"])
    section = SECTIONS[section_at(path)]
    if section.is_nested:
        if wrong == "a table" and section.repeated:
            wrong = "a single table"
        return f"is {wrong}, and must be {_shape(section, path)}", f"write {section.form}"
    if not isinstance(path[-1], int) and wrong == "a table":
        return f"is a single table, and there may be several {key}s", f"write {section.header} with two brackets"
    if not isinstance(path[-1], int) and wrong == "a list":
        return "is a list, and there may be one only", f"write {section.header} with one bracket"
    return f"is {wrong}, and must be a table", f"write {section.header}"


def _shape(section: Section, path: Path) -> str:
    return "a list of tables" if section.repeated and not isinstance(path[-1], int) else "a table"


def _explain_unknown(section: str, key: str) -> tuple[str, str]:
    if key in SECTIONS[section].later:
        return (
            "is not supported by this version",
            "remove it: nothing in a policy is ignored",
        )
    fields = [field.key for field in fields_of(section)]
    known = fields + [inner.key for inner in sections_in(section)]
    elsewhere = [one.header for path, one in SECTIONS.items() if path not in ("", section) and _has(path, key)]
    if elsewhere:
        return "is an unknown key here", f"it belongs in {' or '.join(elsewhere)}"
    near = get_close_matches(key.lower(), known, n=1, cutoff=0.65)
    hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}"
    return "is an unknown key", hint


def _has(section: str, key: str) -> bool:
    return any(field.key == key for field in fields_of(section)) or any(
        inner.key == key for inner in sections_in(section)
    )
