"""A policy file, in TOML, as damo's JSON or as seven-number lines, to a Policy.

All problems of a file are told at once.
"""

import re
import tomllib
from pathlib import Path as FilePath
from typing import Any

from pydantic import ValidationError

from memtherm.policy.between import problems_between
from memtherm.policy.damo_json import looks_like_damo, read_damo
from memtherm.policy.kinds import VERSION
from memtherm.policy.locate import key_lines, line_of
from memtherm.policy.model import PolicyFile, policy_of
from memtherm.policy.problems import describe_error, problem_line, refuse
from memtherm.policy.scheme_line import parse_scheme_lines
from memtherm.policy.values import Policy

_MAX_FILE_BYTES = 1024 * 1024
_SMALLEST = 'a policy holds at least: version = 1, and a [[scheme]] with action = "stat"'
_LINE_OF_ERROR = re.compile(r"(.*) \((?:at line (\d+), column (\d+)|at end of document)\)", re.DOTALL)


def load_policy(path: str | FilePath) -> Policy:
    """The policy in a file.

    A file whose name ends in `.toml` is TOML, and in `.json` it is damo's JSON (`memtherm.policy.damo_json`).
    Any other file is JSON if it is valid JSON that begins with `{` or `[`, and TOML if its first line
    that says something has a `=` or begins with `[`; otherwise each line is a scheme of seven numbers
    (`memtherm.policy.scheme_line`).

    Raises:
        InvalidPolicy: the file cannot be read, or says something that cannot be meant.

    Example:
        >>> load_policy("policy.toml").schemes[0].action
        <Action.PAGEOUT: 'pageout'>
    """
    return load_told(path)[0]


def load_told(path: str | FilePath) -> tuple[Policy, tuple[str, ...]]:
    """The policy of `load_policy`, and in sentences what of the file it does not have."""
    source = str(path)
    text = _read(path, source)
    suffix = FilePath(path).suffix.lower()
    if suffix == ".json" or (suffix != ".toml" and looks_like_damo(text)):
        read = read_damo(text, source=source)
        return read.policy, read.told
    if suffix == ".toml" or _looks_like_toml(text):
        return parse_policy(text, source=source), ()
    return Policy(schemes=parse_scheme_lines(text, source=source)), ()


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
    found += problems_between(data, lines, source)
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
