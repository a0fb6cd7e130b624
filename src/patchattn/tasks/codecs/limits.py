"""How large a picture may be by the size of its file, so that a lying header cannot fill the memory."""

from __future__ import annotations

import os
from typing import BinaryIO

__all__ = ["check_extent", "length_of"]

ALWAYS = 16_000_000
"""Pixels that are never too many."""

PER_BYTE = {"PNG": 1032 * 8, "JPEG": 1024, "MPO": 1024, "canvas": 30_000}
"""Pixels that one byte can hold at most: deflate's best at one bit a pixel; one bit of JPEG for a block of 8 x 8, with
room for some more. The canvas of an animation may be larger than its frames, but not without measure."""

PER_BYTE_OF_OTHERS = 200_000
"""The same of formats without such a bound; a blank page of fax is below it."""


def check_extent(size: tuple[int, int], file_length: int, format: str | None = None) -> None:
    """Raise a ValueError if a file is far too small for the pixels that it says it has.

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
    if height * width > max(ALWAYS, file_length * PER_BYTE.get(format or "", PER_BYTE_OF_OTHERS)):
        raise ValueError(f"it says that it has {width} x {height} pixels, which its {file_length} bytes cannot hold")


def length_of(file: BinaryIO) -> int:
    """Return how many bytes a file has."""
    return file.seek(0, os.SEEK_END)
