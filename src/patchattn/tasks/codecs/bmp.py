"""BMP with its color profile, which Pillow does not read."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import BinaryIO

from patchattn.tasks.codecs.pillow import decode_with_pillow
from patchattn.tasks.codecs.samples import Samples

__all__ = ["decode_bmp"]

HEADER = 14
"""Bytes before the BITMAPV5HEADER, from which offsets are counted."""


def decode_bmp(file: BinaryIO) -> Samples:
    """Read a BMP file."""
    samples = decode_with_pillow(file)
    file.seek(0)
    head = file.read(HEADER + 124)
    if len(head) < HEADER + 124 or head[HEADER : HEADER + 4] != struct.pack("<I", 124):
        return samples
    kind = head[HEADER + 56 : HEADER + 60][::-1]
    if kind == b"LINK":
        return replace(samples, notes=(*samples.notes, "names a color profile in another file, which is not read"))
    if kind != b"MBED":
        return samples
    place, size = struct.unpack_from("<II", head, HEADER + 112)
    file.seek(HEADER + place)
    return replace(samples, icc_profile=file.read(size) or b"missing")
