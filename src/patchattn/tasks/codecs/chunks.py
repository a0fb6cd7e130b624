"""Chunks of PNG and of WebP files."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["PNG_SIGNATURE", "PngChunk", "png_chunk", "png_chunks", "riff_chunk", "riff_chunks"]

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


class PngChunk(NamedTuple):
    kind: bytes
    data: bytes


def png_chunks(data: bytes) -> Iterator[PngChunk]:
    """Yield the chunks of a PNG file up to IEND.

    Raises:
        ValueError: the file ends before, or a checksum of a chunk that is needed is wrong.
    """
    at = len(PNG_SIGNATURE)
    while at + 12 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        body = data[at + 8 : at + 8 + size]
        if len(body) < size or at + 12 + size > len(data):
            break
        if kind[:1].isupper() and zlib.crc32(kind + body) != struct.unpack_from(">I", data, at + 8 + size)[0]:
            raise ValueError(f"the checksum of its chunk {kind.decode('latin-1')} is wrong")
        if kind == b"IEND":
            return
        yield PngChunk(kind, body)
        at += 12 + size
    raise ValueError("the file ends before its last chunk")


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """Return a chunk with its length and checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def riff_chunks(data: bytes, at: int = 12) -> Iterator[tuple[bytes, bytes]]:
    """Yield the chunks of a WebP file, or of a part of it, from the offset `at` on.

    Raises:
        ValueError: it ends within a chunk.
    """
    while at + 8 <= len(data):
        kind, size = struct.unpack_from("<4sI", data, at)
        if at + 8 + size > len(data):
            raise ValueError(f"the file ends within its chunk {kind.decode('latin-1').strip()}")
        yield kind, data[at + 8 : at + 8 + size]
        at += 8 + size + size % 2


def riff_chunk(kind: bytes, data: bytes) -> bytes:
    """Return a chunk with its length, padded to an even one."""
    return kind + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)
