"""Frames of a record: a zstd skippable frame with checksums, and the zstd data frame that may follow it.

Every byte of the file is under a checksum: an envelope is under its own, the body and the data frame are
under those that the envelope holds.
"""

from __future__ import annotations

import struct
import sys
import zlib
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

FORMAT = 1
MAGIC = 0x184D2A5D
NO_TARGET = 2**32 - 1

_MARK = b"mt"
_ENVELOPE = struct.Struct("<II2sBBIddIIIII")
_CHECKSUM = struct.Struct("<I")
ENVELOPE_BYTES = _ENVELOPE.size + _CHECKSUM.size
# What stands before `length` is no part of a skippable frame's length.
_UNCOUNTED_BYTES = 8
_FORMAT_AT = 10


class Kind(IntEnum):
    """What a frame holds; readers skip kinds that they do not know."""

    HEADER = 1
    TARGETS = 2
    TEXTS = 3
    MAPPINGS = 4
    VITALS = 5
    SCHEMES = 6
    EVENTS = 7
    SNAPSHOTS = 8
    END = 9


class Damaged(Exception):
    """Bytes that are no frame of ours; the message says what is wrong with them."""


class FutureFormat(Exception):
    """A frame of a format that is newer than FORMAT; the argument is its number."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """What is known of a frame without its body.

    Attributes:
        kind: a Kind, or the number of one that is not known here.
        number: frames are numbered from 0.
        first_s, last_s: the times that its content is of, seconds since the epoch.
        count: things in the body, such as snapshots.
        extra: rows of SNAPSHOTS, the target of MAPPINGS.
        body_bytes, data_bytes: lengths of the body and of the data frame behind it.
    """

    kind: int
    number: int
    first_s: float
    last_s: float
    count: int
    extra: int
    body_bytes: int
    body_checksum: int
    data_bytes: int
    data_checksum: int

    @property
    def frame_bytes(self) -> int:
        """All of it with its body, without the data frame."""
        return ENVELOPE_BYTES + self.body_bytes

    @property
    def whole_bytes(self) -> int:
        return self.frame_bytes + self.data_bytes

    def without_data(self) -> Envelope:
        """To read the body alone."""
        return replace(self, data_bytes=0, data_checksum=0)


def pack_frame(
    kind: Kind,
    number: int,
    body: bytes,
    *,
    times_s: tuple[float, float] = (0.0, 0.0),
    counts: tuple[int, int] = (0, 0),
    data: bytes = b"",
) -> bytes:
    """The bytes of a frame, with the data frame behind it."""
    start = _ENVELOPE.pack(
        MAGIC,
        ENVELOPE_BYTES - _UNCOUNTED_BYTES + len(body),
        _MARK,
        FORMAT,
        kind,
        number,
        *times_s,
        *counts,
        zlib.crc32(body),
        len(data),
        zlib.crc32(data),
    )
    return b"".join((start, _CHECKSUM.pack(zlib.crc32(start)), body, data))


def unpack_envelope(start: bytes) -> Envelope:
    """The envelope in the first ENVELOPE_BYTES of a frame.

    Raises:
        Damaged: it is none, or a bit of it has changed.
        FutureFormat: it says that it is of a newer format, and nothing contradicts that.
    """
    magic, length, mark, form, kind, number, *rest = _ENVELOPE.unpack_from(start)
    is_sound = _CHECKSUM.unpack_from(start, _ENVELOPE.size)[0] == zlib.crc32(start[: _ENVELOPE.size])
    if magic != MAGIC or mark != _MARK:
        raise Damaged("no frame begins here")
    if form > FORMAT and (is_sound or not _is_sound_as(start, FORMAT)):
        raise FutureFormat(form)
    if not is_sound or form != FORMAT:
        raise Damaged("the envelope of a frame has changed")
    first_s, last_s, count, extra, body_checksum, data_bytes, data_checksum = rest
    body_bytes = length + _UNCOUNTED_BYTES - ENVELOPE_BYTES
    if body_bytes < 0:
        raise Damaged("a frame is shorter than its envelope")
    return Envelope(kind, number, first_s, last_s, count, extra, body_bytes, body_checksum, data_bytes, data_checksum)


def _is_sound_as(start: bytes, form: int) -> bool:
    """Whether only the number of the format has changed."""
    mended = start[:_FORMAT_AT] + bytes([form]) + start[_FORMAT_AT + 1 : _ENVELOPE.size]
    return bool(_CHECKSUM.unpack_from(start, _ENVELOPE.size)[0] == zlib.crc32(mended))


def split_frame(envelope: Envelope, whole: bytes) -> tuple[memoryview, memoryview]:
    """Body and data frame, checked, of the bytes of a frame from its envelope on.

    Raises:
        Damaged: a bit of them has changed, or some are missing.
    """
    view = memoryview(whole)
    body = view[ENVELOPE_BYTES : envelope.frame_bytes]
    data = view[envelope.frame_bytes : envelope.whole_bytes]
    if len(body) < envelope.body_bytes or len(data) < envelope.data_bytes:
        raise Damaged("the file has become shorter")
    if zlib.crc32(body) != envelope.body_checksum:
        raise Damaged("the body of a frame has changed")
    if zlib.crc32(data) != envelope.data_checksum:
        raise Damaged("a data frame has changed")
    return body, data


def compress(parts: list[memoryview], options: dict[Any, int]) -> bytes:
    """One zstd frame with content checksum and size; each part in blocks, and so with entropy tables, of its own."""
    compressor = zstd.ZstdCompressor(options=options)
    compressor.set_pledged_input_size(sum(len(part) for part in parts))
    pieces = [compressor.compress(part, compressor.FLUSH_BLOCK) for part in parts]
    return b"".join((*pieces, compressor.flush()))


SIDE_OPTIONS = {zstd.CompressionParameter.compression_level: 3, zstd.CompressionParameter.checksum_flag: 1}
"""For texts: few bytes, once a second."""

# A body or a batch that says that it is larger is not one of ours.
_MOST_BYTES = 1 << 32


def decompress(data: bytes | memoryview) -> bytes:
    """The content of one zstd frame.

    Raises:
        Damaged: it is none.
    """
    try:
        size = zstd.get_frame_info(data).decompressed_size
        if size is None or size > _MOST_BYTES:
            raise Damaged("a zstd frame does not say its size")
        return zstd.decompress(data)
    except zstd.ZstdError as problem:
        raise Damaged(f"zstd: {problem}") from problem


# On the noisiest run of benchmarks/records.py the usual level 3 takes 10 % more bytes for half the CPU time of zstd,
# and two more steps of search take 3 % fewer bytes for a third more CPU time.
ROW_OPTIONS = {
    zstd.CompressionParameter.compression_level: 3,
    zstd.CompressionParameter.strategy: zstd.Strategy.lazy,
    zstd.CompressionParameter.min_match: 6,
    zstd.CompressionParameter.hash_log: 16,
    zstd.CompressionParameter.chain_log: 16,
    zstd.CompressionParameter.search_log: 3,
    zstd.CompressionParameter.checksum_flag: 1,
}
"""For rows."""
