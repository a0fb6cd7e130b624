"""What Pillow reads, as arrays of samples."""

from __future__ import annotations

from typing import Any, BinaryIO

import numpy as np

from patchattn.extras import extra
from patchattn.tasks.codecs.samples import Array, Samples
from patchattn.tasks.metadata import find_metadata

__all__ = ["array_of", "decode_with_pillow", "profile_of", "upright"]


def decode_with_pillow(file: BinaryIO, array: Array | None = None) -> Samples:
    """Read the first picture of a file, and what belongs to it.

    Args:
        file: open for reading.
        array: the picture's samples as they lie in the file, if another decoder reads them better.
    """
    with extra("tools"):
        from PIL import Image
    file.seek(0)
    with Image.open(file) as image:
        array = array_of(image) if array is None else array
        # Some formats carry metadata at their end.
        image.load()
        found = find_metadata(_exif_of(image), image.info.get("xmp"), _resolution_of(image))
        notes = _notes_of(image)
        return Samples(
            upright(array, found.orientation),
            profile_of(image),
            found.metadata,
            found.damaged,
            found.orientation,
            notes,
        )


def array_of(image: Any) -> Array:
    """Return the samples of an open image: gray or RGB, with alpha if it has any."""
    if image.mode == "F" or image.mode.startswith("I"):
        wide = np.asarray(image)
        if image.mode == "F" or wide.min() < 0 or wide.max() > 65535:
            raise ValueError("its samples are 32 bits wide; 8 and 16 are allowed: convert it first")
        return wide.astype(np.uint16)[:, :, None]
    gray = image.mode in ("1", "L", "LA", "La")
    alpha = image.has_transparency_data
    mode = ("LA" if alpha else "L") if gray else ("RGBA" if alpha else "RGB")
    array = np.asarray(image.convert(mode))
    return array[:, :, None] if array.ndim == 2 else array


def profile_of(image: Any) -> bytes | None:
    if image.mode in ("CMYK", "LAB", "YCbCr", "HSV"):
        return None  # it describes colours that the conversion to RGB has left
    return image.info.get("icc_profile") or None


def upright(array: Array, orientation: int) -> Array:
    """Undo the EXIF orientation (1 to 8; anything else counts as 1)."""
    turned = {
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: a[::-1].transpose(1, 0, 2),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: a[:, ::-1].transpose(1, 0, 2),
    }.get(orientation, lambda a: a)(array)
    return np.ascontiguousarray(turned)


def _notes_of(image: Any) -> tuple[str, ...]:
    """What of the file is not read."""
    sizes = image.info.get("sizes") or ()
    if image.format == "ICO" and len(sizes) > 1:
        return (f"has icons of {len(sizes)} sizes; the largest is read and {len(sizes) - 1} are left out",)
    count = getattr(image, "n_frames", 1)
    if count > 1:
        return (f"has {count} pictures; the first is read and {count - 1} are left out",)
    return ()


def _exif_of(image: Any) -> bytes | None:
    block: bytes | None = image.info.get("exif")
    # How PNG held EXIF before there was a chunk for it: hexadecimal, after three lines.
    text: str | None = image.info.get("Raw profile type exif")
    if block is None and text is not None:
        try:
            block = bytes.fromhex("".join(text.split("\n")[3:]))
        except ValueError:
            block = b"damaged"
    return block or None


def _resolution_of(image: Any) -> tuple[float, float] | None:
    # Of JPEG that tells none, Pillow says 72.
    if image.format in ("JPEG", "MPO") and image.info.get("jfif_unit") not in (1, 2):
        return None
    resolution: tuple[float, float] | None = image.info.get("dpi")
    return resolution
