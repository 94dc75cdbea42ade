"""On which line of a TOML text a key or table stands.  tomllib does not say.

Only for text that tomllib has read: what is valid needs no second check.  What stands inside an
inline table or an array is found at the line of its key.
"""

import re
import tomllib
from collections.abc import Mapping

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
        self._depth = 0

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
            self._key, self._in_value, self._depth = [], True, 0
        elif token[0] in "\"'":
            self._key.append(tomllib.loads(f"key = {token}")["key"])
        elif token[0].isalnum() or token[0] in "-_":
            self._key.append(token)
        self._line += token.count("\n")

    def _take_value(self, token: str) -> None:
        if token in ("[", "{"):
            self._depth += 1
        elif token in ("]", "}"):
            self._depth -= 1
        elif token == "\n" and self._depth == 0:
            self._in_value = False

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
