"""Chunks of PNG and of WebP files."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Collection, Iterator
from typing import NamedTuple

__all__ = [
    "PNG_SIGNATURE",
    "PngChunk",
    "png_chunk",
    "png_chunks",
    "png_missing",
    "png_without",
    "riff_chunk",
    "riff_chunks",
]

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


class PngChunk(NamedTuple):
    kind: bytes
    data: bytes


class Missing(NamedTuple):
    """Missing bytes of the last chunk of a truncated file."""

    kind: str
    bytes: int


def png_chunks(data: bytes, *, cut: bool = False) -> Iterator[PngChunk]:
    """Yield the chunks of a PNG file up to IEND.

    Args:
        data: the file.
        cut: end where the file is cut or damaged, instead of raising an error.

    Raises:
        ValueError: the file ends before, or a checksum of a chunk that is needed is wrong.
    """
    for chunk, _, end in _png_spans(data):
        if end > len(data):
            break
        needed = chunk.kind[:1].isupper()
        if needed and zlib.crc32(chunk.kind + chunk.data) != struct.unpack_from(">I", data, end - 4)[0]:
            if cut:
                return
            raise ValueError(f"the checksum of its chunk {chunk.kind.decode('latin-1')} is wrong")
        if chunk.kind == b"IEND":
            return
        yield chunk
    if not cut:
        raise ValueError("the file ends before its last chunk")


def png_without(data: bytes, kinds: Collection[bytes]) -> bytes:
    """Return a PNG file without the chunks of some kinds; every other byte stays."""
    kept = [data[: len(PNG_SIGNATURE)]]
    last = len(PNG_SIGNATURE)
    for chunk, start, end in _png_spans(data):
        if chunk.kind not in kinds:
            kept.append(data[start:end])
        last = end
    return b"".join([*kept, data[last:]])


def png_missing(data: bytes) -> Missing | None:
    """Return the missing part of the last chunk of a PNG file, if the file ends within one."""
    for chunk, _, end in _png_spans(data):
        if end > len(data):
            return Missing(chunk.kind.decode("latin-1"), end - len(data))
    return None


def _png_spans(data: bytes) -> Iterator[tuple[PngChunk, int, int]]:
    """Yield chunks with their start and end offsets; the last one may end after the file."""
    at = len(PNG_SIGNATURE)
    while at + 12 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + size
        yield PngChunk(kind, data[at + 8 : at + 8 + size]), at, end
        at = end


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
