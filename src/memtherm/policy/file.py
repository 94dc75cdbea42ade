"""A policy file, in TOML or as seven-number lines, to a Policy.  All problems of a file are told at once."""

import re
import tomllib
from pathlib import Path as FilePath
from typing import Any

from pydantic import ValidationError

from memtherm.errors import InvalidInput
from memtherm.policy.fields import SECTIONS, VERSION, fields_of
from memtherm.policy.locate import Path, key_lines, line_of
from memtherm.policy.model import BUILDERS, PolicyFile, policy_of
from memtherm.policy.problems import describe_error, label_of, problem_line, refuse
from memtherm.policy.scheme_line import parse_scheme_lines
from memtherm.policy.values import Policy

_MAX_FILE_BYTES = 1024 * 1024
_SMALLEST = 'a policy holds at least: version = 1, and a [[scheme]] with action = "stat"'
_LINE_OF_ERROR = re.compile(r"(.*) \((?:at line (\d+), column (\d+)|at end of document)\)", re.DOTALL)


def load_policy(path: str | FilePath) -> Policy:
    """The policy in a file.

    A file whose name ends in `.toml` is TOML.  Any other file is TOML if its first line that says
    something has a `=` or begins with `[`; otherwise each line is a scheme of seven numbers
    (`memtherm.policy.scheme_line`).

    Raises:
        InvalidPolicy: the file cannot be read, or says something that cannot be meant.

    Example:
        >>> load_policy("policy.toml").schemes[0].action
        <Action.PAGEOUT: 'pageout'>
    """
    source = str(path)
    text = _read(path, source)
    if FilePath(path).suffix.lower() == ".toml" or _looks_like_toml(text):
        return parse_policy(text, source=source)
    return Policy(schemes=parse_scheme_lines(text, source=source))


def parse_policy(text: str, *, source: str = "policy") -> Policy:
    """The policy that a TOML text means; `source` is what problems call it.

    Raises:
        InvalidPolicy: with all problems of the text.
    """
    data = _parse_toml(text, source)
    lines = key_lines(text)
    if not data:
        raise refuse(source, [problem_line(source, 1, "", "the policy is empty")], hint=_SMALLEST)
    version = data.get("version", VERSION)
    if isinstance(version, int) and not isinstance(version, bool) and version != VERSION:
        # The rest of the file follows rules that are not known here: to judge it would only mislead.
        what = f"this memtherm reads version {VERSION} of the format, not {version}"
        raise refuse(source, [problem_line(source, line_of(lines, ("version",)), "version", what)])
    found: list[tuple[int, str]] = []
    file: Any = None
    try:
        file = PolicyFile.model_validate(data)
    except ValidationError as refusal:
        for error in refusal.errors(include_url=False):
            found.append((line_of(lines, error["loc"]), describe_error(error, data, lines, source)))
    found += _problems_between_keys(data, lines, source)
    found += _problems_between_schemes(data, lines, source)
    if found:
        raise refuse(source, [problem for _line, problem in sorted(found, key=lambda pair: pair[0])])
    return policy_of(file)


def _read(path: str | FilePath, source: str) -> str:
    try:
        with FilePath(path).open("rb") as file:
            content = file.read(_MAX_FILE_BYTES + 1)
    except OSError as refusal:
        raise refuse(source, [f"{source}: cannot read it: {refusal.strerror or refusal}"]) from refusal
    except ValueError as refusal:  # a NUL character in the path
        raise refuse(repr(source), [f"{source!r} is not a path: {refusal}"]) from refusal
    if len(content) > _MAX_FILE_BYTES:
        raise refuse(source, [f"{source}: larger than 1 MiB, so not a policy"])
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as refusal:
        line = content.count(b"\n", 0, refusal.start) + 1
        raise refuse(source, [problem_line(source, line, "", "not UTF-8 text")]) from refusal
    return text


def _looks_like_toml(text: str) -> bool:
    for line in text.splitlines():
        says = line.split("#", 1)[0].strip()
        if says:
            return says.startswith("[") or "=" in says
    return False


def _parse_toml(text: str, source: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except RecursionError as refusal:
        raise refuse(source, [f"{source}: nested too deeply to be a policy"]) from refusal
    except ValueError as refusal:  # TOMLDecodeError, and what int() says of a number with thousands of digits
        match = _LINE_OF_ERROR.fullmatch(str(refusal))
        if match is None:
            raise refuse(source, [f"{source}: not TOML: {refusal}"]) from refusal
        line = int(match[2]) if match[2] else text.rstrip("\n").count("\n") + 1
        where = f" (column {match[3]})" if match[3] else " (end of the file)"
        raise refuse(source, [problem_line(source, line, "", f"not TOML: {match[1]}{where}")]) from refusal


def _problems_between_keys(data: dict[str, Any], lines: dict[Path, int], source: str) -> list[tuple[int, str]]:
    """Values that are right each for itself and do not agree, such as an interval longer than its window."""
    problems: list[tuple[int, str]] = []
    for key, section in SECTIONS.items():
        value: Any = data.get(key)
        paths: list[Path] = [(key,)]
        if section.repeated:
            paths = [(key, index) for index in range(len(value))] if isinstance(value, list) else []
        for path in paths:
            table: Any = value if len(path) == 1 else value[path[1]]
            for group in section.together if isinstance(table, dict) else ():
                refusal = _disagreement(key, group, table)
                if refusal is not None:
                    line = max(line_of(lines, (*path, name)) for name in group)
                    label = label_of(path, data)
                    problems.append((line, problem_line(source, line, label, refusal.message, refusal.hint)))
    return problems


def _disagreement(section: str, group: tuple[str, ...], table: dict[str, Any]) -> InvalidInput | None:
    fields = [field for field in fields_of(section) if field.key in group and field.key in table]
    try:
        values = {field.attribute: field.kind.parse(table[field.key]) for field in fields}
    except InvalidInput:
        return None  # told already, by the field
    try:
        BUILDERS[section](**values)
    except InvalidInput as refusal:
        return refusal
    return None


def _problems_between_schemes(data: dict[str, Any], lines: dict[Path, int], source: str) -> list[tuple[int, str]]:
    """No scheme at all, and names that are used twice."""
    schemes = data.get("scheme", [])
    if schemes == []:
        return [
            (1, problem_line(source, 1, "", "no scheme", 'a policy has a [[scheme]] with action = "pageout" or so'))
        ]
    problems: list[tuple[int, str]] = []
    first_use: dict[str, int] = {}
    for index, scheme in enumerate(schemes if isinstance(schemes, list) else []):
        name = _final_name(scheme, index)
        path: Path = ("scheme", index, "name")
        line = line_of(lines, path)
        if name in first_use:
            what = f"the name is taken by the scheme of line {first_use[name]}"
            hint = "results are told apart by name"
            problems.append((line, problem_line(source, line, label_of(path, data), what, hint)))
        elif name:
            first_use[name] = line
    return problems


def _final_name(scheme: object, index: int) -> str:
    if not isinstance(scheme, dict):
        return ""
    name = scheme.get("name", f"scheme {index + 1} ({scheme.get('action')})")
    return name if isinstance(name, str) else ""
