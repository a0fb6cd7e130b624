"""JPEG XL at its own depth."""

from __future__ import annotations

from dataclasses import replace
from typing import BinaryIO

import numpy as np

from patchattn.extras import extra
from patchattn.tasks.codecs.pillow import decode_with_pillow
from patchattn.tasks.codecs.samples import Samples

__all__ = ["decode_jpeg_xl", "is_jpeg_xl"]


def is_jpeg_xl(head: bytes) -> bool:
    return head[:2] == b"\xff\x0a" or head[4:12] == b"JXL \r\n\x87\n"


def decode_jpeg_xl(file: BinaryIO) -> Samples:
    """Read JPEG XL of 8 or 16 bits."""
    with extra("jxl"):
        import pillow_jxl  # noqa: F401  # what Pillow reads it with
    with extra("tools"):
        from imagecodecs import jpegxl_decode
    data = file.read()
    try:
        samples = decode_with_pillow(file)
    except RuntimeError as error:  # whose words speak of the decoder
        raise ValueError("it is cut or damaged") from error
    array = np.atleast_3d(jpegxl_decode(data, index=0))
    if array.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"its samples are {array.dtype}; integers of 8 and 16 bits are allowed: convert it first")
    # It is turned already, whatever EXIF says.
    return replace(samples, array=np.ascontiguousarray(array), orientation=1)
