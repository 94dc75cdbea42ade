"""A JSON document read piece by piece: a list of any length takes no more memory than its longest element."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from memtherm.errors import InvalidInput
from memtherm.units import shown

_BLANKS = " \t\n\r"
# What looks wrong this close to the end of the text that is here may just be cut: no number or word is longer.
_CUT_CHARACTERS = 65536
_WORD_CHARACTERS = 32
# The beginning of a word, of a number or of an escape, and no more.
_IS_CUT = re.compile(rf"[-+.\\\w]{{0,{_WORD_CHARACTERS}}}")


class JsonStream:
    """The values of a document in their order.

    Args:
        chunks: the text; `values` inside of it grow over as many as they need.
        source: what messages call it.

    Raises:
        InvalidInput: in all methods, for a text that is not JSON, or that ends too early.
    """

    def __init__(self, chunks: Iterator[str], *, source: str) -> None:
        self._chunks = chunks
        self._source = source
        self._text = ""
        self._at = 0
        self._read_before = 0
        self._decode = json.JSONDecoder().raw_decode

    def problem(self, what: str) -> InvalidInput:
        """The exception for something that is wrong where the stream stands."""
        return InvalidInput(f"{self._source}: {what} (character {self._read_before + self._at + 1})")

    def next_character(self) -> str:
        """The next one that is no blank; empty at the end of the text."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in _BLANKS:
                    return self._text[self._at]
                self._at += 1
            if not self._more():
                return ""

    def take(self, character: str) -> bool:
        """Go past a character if it is the next one."""
        if self.next_character() != character:
            return False
        self._at += 1
        return True

    def expect(self, character: str) -> None:
        if not self.take(character):
            raise self.unexpected(f"{character!r} is missing")

    def value(self) -> Any:
        """A whole value, of any kind."""
        if not self.next_character():
            raise self._cut()
        grow = 1
        while True:
            try:
                value, end = self._decode(self._text, self._at)
            except json.JSONDecodeError as refusal:
                if refusal.pos < len(self._text) - _CUT_CHARACTERS:
                    self._at = refusal.pos
                    raise self.problem(f"not JSON: {refusal.msg}") from refusal
                offset = refusal.pos - self._at
                if not self._more(grow):
                    self._at = offset
                    raise self._refusal(refusal.msg) from refusal
            except (ValueError, RecursionError) as refusal:  # a number with thousands of digits; nested too deeply
                raise self.problem(f"not JSON that can be read: {type(refusal).__name__}") from refusal
            else:
                # A number at the very end of the text may go on in the next chunk.
                if end < len(self._text) or not self._more(grow):
                    self._at = end
                    return value
            # Twice as much each time: a long value is decoded a few times only.
            grow *= 2

    def elements(self) -> Iterator[None]:
        """Stand before each element of a list in turn; who iterates takes it."""
        self.expect("[")
        if self.take("]"):
            return
        while True:
            yield
            if self.take("]"):
                return
            self.expect(",")

    def members(self) -> Iterator[str]:
        """The keys of an object; at each the stream stands before its value, which who iterates takes."""
        self.expect("{")
        if self.take("}"):
            return
        while True:
            if self.next_character() != '"':
                raise self.unexpected("a key is missing")
            key = self.value()
            self.expect(":")
            yield key
            if self.take("}"):
                return
            self.expect(",")

    def end(self) -> None:
        """Nothing may follow."""
        if character := self.next_character():
            raise self.problem(f"something follows its end: {shown(character)}")

    def unexpected(self, what: str) -> InvalidInput:
        """The exception for a next character that is not what must stand there; at the end, for a text that is cut."""
        is_more = True
        while is_more and len(self._text) - self._at < _WORD_CHARACTERS:
            is_more = self._more()
        return self._cut() if _IS_CUT.fullmatch(self._text, self._at) else self.problem(what)

    def _refusal(self, message: str) -> InvalidInput:
        """The value here is wrong, or the end of the text is within it."""
        is_cut = message.startswith("Unterminated") or _IS_CUT.fullmatch(self._text, self._at)
        return self._cut() if is_cut else self.problem(f"not JSON: {message}")

    def _cut(self) -> InvalidInput:
        end = self._read_before + len(self._text)
        return InvalidInput(
            f"{self._source}: cut short: after {end} characters the JSON does not end",
            hint="the file was not written or copied to its end",
        )

    def _more(self, count: int = 1) -> bool:
        """Drop what is read, and take more chunks in; false at the end."""
        new = [chunk for _, chunk in zip(range(count), self._chunks, strict=False)]
        self._read_before += self._at
        self._text = "".join([self._text[self._at :], *new])
        self._at = 0
        return bool(new)
