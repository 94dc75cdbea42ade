"""A reader of BTF, as much as walk.bpf.o has: its types as numpy dtypes, its enums as dictionaries.

Format: Documentation/bpf/btf.rst of the kernel.
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

INT, PTR, ARRAY, STRUCT, UNION, ENUM, FWD, TYPEDEF = range(1, 9)
VOLATILE, CONST, RESTRICT, FUNC, FUNC_PROTO, VAR, DATASEC = range(9, 16)
_ALIASES = {TYPEDEF, VOLATILE, CONST, RESTRICT}
# Kind → bytes behind the twelve common ones, for each of the type's `vlen`; INT and ARRAY and VAR have a fixed number.
_BYTES_EACH = {STRUCT: 12, UNION: 12, ENUM: 8, FUNC_PROTO: 8, DATASEC: 12}
_BYTES_FIXED = {INT: 4, ARRAY: 12, VAR: 4}


@dataclass(frozen=True)
class BtfType:
    """One type: its kind, name, size (or the type that it refers to) and the bytes that its kind adds."""

    kind: int
    name: str
    size_or_type: int
    extra: bytes

    def rows(self) -> list[tuple[int, ...]]:
        return list(struct.iter_unpack("<Ii" if self.kind == ENUM else "<III", self.extra))


class Btf:
    """The types of one object file."""

    def __init__(self, object_file: Path) -> None:
        data = elf_section(object_file.read_bytes(), ".BTF")
        magic, _version, _flags, header, types_at, types_length, strings_at, strings_length = struct.unpack_from(
            "<HBBIIIII", data
        )
        assert magic == 0xEB9F
        self._strings = data[header + strings_at : header + strings_at + strings_length]
        self._types = [BtfType(0, "void", 0, b"")]
        types = data[header + types_at : header + types_at + types_length]
        at = 0
        while at < len(types):
            name, info, size_or_type = struct.unpack_from("<III", types, at)
            kind, vlen = info >> 24 & 0x1F, info & 0xFFFF
            length = _BYTES_FIXED.get(kind, 0) + _BYTES_EACH.get(kind, 0) * vlen
            self._types.append(BtfType(kind, self._text(name), size_or_type, types[at + 12 : at + 12 + length]))
            at += 12 + length

    def _text(self, offset: int) -> str:
        return self._strings[offset : self._strings.index(b"\0", offset)].decode()

    def find(self, kind: int, name: str) -> BtfType:
        (found,) = [one for one in self._types if (one.kind, one.name) == (kind, name)]
        return found

    def variables(self, section: str) -> dict[str, tuple[int, int]]:
        """Name → (offset, size) of what stands in a data section."""
        rows = self.find(DATASEC, section).rows()
        return {self._types[variable].name: (offset, size) for variable, offset, size in rows}

    def enum(self, name: str) -> dict[str, int]:
        return {self._text(label): value for label, value in self.find(ENUM, name).rows()}

    def dtype(self, struct_name: str) -> np.dtype[Any]:
        return self._dtype(self.find(STRUCT, struct_name))

    def _dtype(self, type_: BtfType) -> np.dtype[Any]:
        if type_.kind in _ALIASES:
            return self._dtype(self._types[type_.size_or_type])
        if type_.kind == ARRAY:
            element, _index, count = struct.unpack("<III", type_.extra)
            return np.dtype((self._dtype(self._types[element]), (count,)))
        if type_.kind == STRUCT:
            members = [(self._text(name), self._types[member], bits // 8) for name, member, bits in type_.rows()]
            return np.dtype(
                {
                    "names": [name for name, _, _ in members],
                    "formats": [self._dtype(member) for _, member, _ in members],
                    "offsets": [offset for _, _, offset in members],
                    "itemsize": type_.size_or_type,
                }
            )
        assert type_.kind in (INT, ENUM)
        return np.dtype(f"<u{type_.size_or_type}")


def elf_section(elf: bytes, wanted: str) -> bytes:
    """A section of a 64-bit little-endian ELF file (elf(5))."""
    assert elf[:6] == b"\x7fELF\2\1"
    (table,) = struct.unpack_from("<Q", elf, 40)
    entry_size, count, names_index = struct.unpack_from("<HHH", elf, 58)
    headers = [struct.unpack_from("<IIQQQQ", elf, table + index * entry_size) for index in range(count)]
    names_at = headers[names_index][4]
    for name, _kind, _flags, _address, offset, size in headers:
        start = names_at + name
        if elf[start : elf.index(b"\0", start)].decode() == wanted:
            return elf[offset : offset + size]
    raise AssertionError(f"no section {wanted}")
