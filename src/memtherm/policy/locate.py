"""On which line of a TOML text a key or table stands.  tomllib does not say.

Only for text that tomllib has read: what is valid needs no second check.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field

Path = tuple[str | int, ...]

_TOKEN = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}'
    r"|'''.*?'{3,5}"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'"
    r"|\#[^\n]*"
    r"|[A-Za-z0-9_-]+"
    r"|.",
    re.DOTALL,
)


@dataclass
class _Open:
    """An array or an inline table that has begun, and where in it we are."""

    path: Path
    is_array: bool
    index: int = 0
    key: list[str] = field(default_factory=list)
    in_key: bool = True

    @property
    def place(self) -> Path:
        return (*self.path, self.index) if self.is_array else (*self.path, *self.key)

    def next(self) -> None:
        self.index += 1
        self.key, self.in_key = [], True


class _Scanner:
    """Walks over the tokens of a text and notes where each path begins."""

    def __init__(self) -> None:
        self.lines: dict[Path, int] = {(): 1}
        self._line = 1
        self._table: Path = ()
        self._last_of_array: dict[Path, int] = {}
        self._key: list[str] = []
        self._opening_brackets = 0
        self._in_value = False
        self._value: Path = ()
        self._open: list[_Open] = []

    def take(self, token: str) -> None:
        if self._in_value:
            self._take_value(token)
        elif token == "\n":
            if self._opening_brackets:
                self._finish_header()
            self._key, self._opening_brackets = [], 0
        elif token == "[":
            self._opening_brackets += 1
        elif token == "=":
            self._note(self._table, self._key)
            self._value = (*self._table, *self._key)
            self._key, self._in_value = [], True
        else:
            self._key += _key_part(token)
        self._line += token.count("\n")

    def _take_value(self, token: str) -> None:
        inner = self._open[-1] if self._open else None
        if token in ("[", "{"):
            path = inner.place if inner else self._value
            self.lines.setdefault(path, self._line)
            self._open.append(_Open(path, is_array=token == "["))
        elif token in ("]", "}"):
            self._open.pop()
        elif inner is None:
            self._in_value = token != "\n"
        elif token == ",":
            inner.next()
        elif token == "=":
            self._note(inner.path, inner.key)
            inner.in_key = False
        elif inner.in_key and not inner.is_array:
            inner.key += _key_part(token)

    def _finish_header(self) -> None:
        is_array = self._opening_brackets == 2
        path: Path = ()
        for position, part in enumerate(self._key, start=1):
            path += (part,)
            if is_array and position == len(self._key):
                self._last_of_array[path] = self._last_of_array.get(path, -1) + 1
            if path in self._last_of_array:
                self.lines.setdefault(path, self._line)
                path += (self._last_of_array[path],)
            self.lines.setdefault(path, self._line)
        self._table = path

    def _note(self, table: Path, key: list[str]) -> None:
        for length in range(1, len(key) + 1):
            self.lines.setdefault(table + tuple(key[:length]), self._line)


def _key_part(token: str) -> list[str]:
    """The key that a token is; nothing for blanks, dots and comments."""
    if token[0] in "\"'":
        return [tomllib.loads(f"key = {token}")["key"]]
    return [token] if token[0].isalnum() or token[0] in "-_" else []


def key_lines(text: str) -> dict[Path, int]:
    """The line (from 1) of each key and table of a valid TOML text; elements of `[[x]]` are `("x", 0)`."""
    scanner = _Scanner()
    for match in _TOKEN.finditer(text + "\n"):
        scanner.take(match[0])
    return scanner.lines


def line_of(lines: Mapping[Path, int], path: Path) -> int:
    """The line of a path, or of the nearest table around it."""
    while path not in lines:
        path = path[:-1]
    return lines[path]
