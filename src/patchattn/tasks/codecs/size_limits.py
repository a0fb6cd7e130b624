"""Limits on image size by file size, so that a forged header cannot exhaust memory."""

from __future__ import annotations

import os
from typing import BinaryIO

__all__ = ["check_extent", "length_of"]

ALWAYS_ALLOWED = 16_000_000
"""Number of pixels that is always allowed."""

MAX_PIXELS_PER_BYTE = {"PNG": 1032 * 8, "JPEG": 1024, "MPO": 1024, "canvas": 30_000}
"""Largest number of pixels per byte, by format: deflate's highest ratio at one bit per pixel; one bit of JPEG per 8 x 8
block, with some margin. The canvas of an animation may be larger than its frames, within limits."""

MAX_PIXELS_PER_BYTE_OTHERS = 200_000
"""The same for formats without such a bound; a blank page of fax stays below it."""


def check_extent(size: tuple[int, int], file_length: int, format: str | None = None) -> None:
    """Raise a ValueError if a file is far too small for its stated number of pixels.

    Args:
        size: (height, width).
        file_length: of all its data, in bytes.
        format: as Pillow calls it, or "canvas".

    Example:
        >>> check_extent((60_000, 60_000), 1000)
        Traceback (most recent call last):
        ValueError: it says that it has 60000 x 60000 pixels, which its 1000 bytes cannot hold
    """
    height, width = size
    if height * width > max(
        ALWAYS_ALLOWED, file_length * MAX_PIXELS_PER_BYTE.get(format or "", MAX_PIXELS_PER_BYTE_OTHERS)
    ):
        raise ValueError(f"it says that it has {width} x {height} pixels, which its {file_length} bytes cannot hold")


def length_of(file: BinaryIO) -> int:
    """Return the length of a file in bytes."""
    return file.seek(0, os.SEEK_END)
