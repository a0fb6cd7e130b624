"""Picture files to arrays of samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from patchattn.extras import extra
from patchattn.tasks.codecs.samples import Array, Samples
from patchattn.tasks.codecs.tiff import TIFF_SIGNATURES, decode_deep_tiff
from patchattn.tasks.codecs.writing import PNG_SIGNATURE
from patchattn.tasks.metadata import find_metadata

__all__ = ["decode"]


def decode(path: Path) -> Samples:
    """Read a picture file of any format that Pillow knows; what it is, its first bytes say, not its name.

    Raises:
        ValueError: its samples are neither 8 nor 16 bits wide, or it is damaged. The decoders raise errors of other
            types for damaged files too. Damaged metadata are no error.
    """
    with path.open("rb") as file:
        head = file.read(32)
    if head[:4] in TIFF_SIGNATURES:
        return _decode_tiff(path)
    # Pillow reduces 16-bit PNG to 8 bits in every mode but gray; the 25th byte is the bit depth.
    return _decode_other(path, deep_png=head.startswith(PNG_SIGNATURE) and head[24] == 16)


def _decode_tiff(path: Path) -> Samples:
    deep = decode_deep_tiff(path)
    if deep is not None:
        array, profile = deep
    else:
        with extra("tools"):
            from PIL import Image
        with Image.open(path) as image:
            array, profile = _array_of(image), _profile_of(image)
    with path.open("rb") as file:
        found = find_metadata(file)
    # Pillow turns TIFF upright by itself.
    array = array if deep is None else _upright(array, found.orientation)
    return Samples(array, profile, found.metadata, found.damaged)


def _decode_other(path: Path, deep_png: bool) -> Samples:
    with extra("tools"):
        from PIL import Image
    with Image.open(path) as image:
        array = _decode_deep_png(path) if deep_png else _array_of(image)
        # Some formats carry metadata at their end.
        image.load()
        found = find_metadata(_exif_of(image), image.info.get("xmp"), _resolution_of(image))
        return Samples(_upright(array, found.orientation), _profile_of(image), found.metadata, found.damaged)


def _array_of(image: Any) -> Array:
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


def _decode_deep_png(path: Path) -> Array:
    with extra("tools"):
        from imagecodecs import png_decode
    array: NDArray[np.uint16] = png_decode(path.read_bytes())
    return array[:, :, None] if array.ndim == 2 else array


def _profile_of(image: Any) -> bytes | None:
    if image.mode in ("CMYK", "LAB", "YCbCr", "HSV"):
        return None  # it describes colours that the conversion to RGB has left
    return image.info.get("icc_profile") or None


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


def _upright(array: Array, orientation: int) -> Array:
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
