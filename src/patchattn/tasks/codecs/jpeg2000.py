"""JPEG 2000 at its own depth; Pillow reduces it to 8 bits."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import BinaryIO

import numpy as np

from patchattn.extras import extra
from patchattn.tasks.codecs.color_models import from_cmyk
from patchattn.tasks.codecs.iso_boxes import find_boxes, profile_in
from patchattn.tasks.codecs.pillow import decode_with_pillow
from patchattn.tasks.codecs.samples import Samples, scaled
from patchattn.tasks.codecs.size_limits import check_extent

__all__ = ["decode_jpeg2000", "is_jpeg2000"]

CODESTREAM = b"\xff\x4f\xff\x51"
CMYK, YCC = 12, 18
"""Color spaces of JPEG 2000."""


def is_jpeg2000(head: bytes) -> bool:
    return head[:4] == CODESTREAM or head[4:12] == b"jP  \r\n\x87\n"


def decode_jpeg2000(file: BinaryIO) -> Samples:
    """Read JPEG 2000 of 1 to 16 bits."""
    data = file.read()
    at = data.index(CODESTREAM)
    right, bottom, left, top = struct.unpack_from(">4I", data, at + 8)
    check_extent((bottom - top, right - left), len(data))
    count = struct.unpack_from(">H", data, at + 40)[0]
    depths = {data[at + 42 + 3 * number] for number in range(count)}
    colors = list(find_boxes(data, (b"jp2h", b"colr"))) if at else []
    profile = profile_in(colors)
    if depths == {7}:
        return replace(decode_with_pillow(file), icc_profile=profile)
    bits = max(depths) + 1
    space = next((struct.unpack_from(">I", box, 3)[0] for box in colors if box[:1] == b"\1"), 0)
    if len(depths) > 1 or bits > 16 or space == YCC:
        kinds = " and ".join(f"{(depth & 127) + 1}-bit {'signed' if depth > 127 else 'unsigned'}" for depth in depths)
        raise ValueError(
            f"its samples are {kinds}{' YCC' if space == YCC else ''}; unsigned gray, RGB and CMYK are allowed"
        )
    with extra("tools"):
        from imagecodecs import jpeg2k_decode
    array = scaled(np.atleast_3d(jpeg2k_decode(data)), 2**bits - 1)
    if space == CMYK:
        array, notes = from_cmyk(array, profile)
        return Samples(array, notes=notes)
    return Samples(array, profile)
