"""Boxes of the ISO base media file format, used by JPEG 2000, AVIF and HEIF."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from patchattn.tasks.codecs.color_chunks import NO_COLOR_CHUNKS, ColorChunks, from_code_points

__all__ = ["brands", "code_points", "find_boxes", "profile_in"]

FULL = (b"meta",)
"""Full boxes: version and flags (four bytes) come before their content."""


def find_boxes(data: bytes, path: tuple[bytes, ...]) -> Iterator[bytes]:
    """Yield the content of the boxes at a path of types, such as (b"jp2h", b"colr")."""
    at = 0
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        head = 8
        if size == 1 and at + 16 <= len(data):
            size, head = struct.unpack_from(">Q", data, at + 8)[0], 16
        end = len(data) if size == 0 else at + size
        if size and size < head:
            return
        if kind == path[0]:
            inside = data[at + head + 4 * (kind in FULL) : end]
            if len(path) == 1:
                yield inside
            else:
                yield from find_boxes(inside, path[1:])
        at = end


def brands(head: bytes) -> set[bytes]:
    """Return the compatible brands of an ISO file; empty if it is not one."""
    if head[4:8] != b"ftyp":
        return set()
    names = head[8 : int.from_bytes(head[:4], "big")]
    return {names[at : at + 4] for at in range(0, len(names), 4)}


def profile_in(colors: list[bytes]) -> bytes | None:
    """Return the ICC profile in boxes `colr` of JPEG 2000, AVIF or HEIF."""
    for box in colors:
        if box[:4] in (b"prof", b"rICC"):
            return box[4:]
        if box[:1] == b"\2":  # JPEG 2000's way
            return box[3:]
    return None


def code_points(colors: list[bytes]) -> ColorChunks:
    """Return the color code points (nclx) in `colr` boxes of AVIF or HEIF; a profile takes precedence."""
    found = next((box for box in colors if box[:4] == b"nclx" and len(box) >= 8), None)
    if found is None or profile_in(colors) is not None:
        return NO_COLOR_CHUNKS
    return from_code_points(*struct.unpack_from(">HH", found, 4))
