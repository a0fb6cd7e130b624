"""Decoding with Pillow into arrays of samples."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from patchattn.extras import extra
from patchattn.tasks.codecs.color_models import from_cmyk
from patchattn.tasks.codecs.samples import Array, Notes, Samples
from patchattn.tasks.codecs.size_limits import check_extent, length_of
from patchattn.tasks.metadata import find_metadata

COUNTED = ("GIF", "PNG", "TIFF", "WEBP")
"""Formats whose frames are counted elsewhere."""

__all__ = ["Pixels", "decode_with_pillow", "from_pillow", "pixels_of", "upright"]


PROGRAMS = ("EPS",)
"""Formats that are programs, which Pillow would run in Ghostscript: not safe for untrusted files."""


class Pixels(NamedTuple):
    """Samples with their color profile."""

    array: Array
    profile: bytes | None
    notes: Notes = ()


def decode_with_pillow(file: BinaryIO) -> Samples:
    """Read the first image of a file and its metadata."""
    with extra("tools"):
        from PIL import Image
    length = length_of(file)
    file.seek(0)
    Image.init()
    with Image.open(file, formats=[name for name in Image.ID if name not in PROGRAMS]) as image:
        check_extent(image.size[::-1], length, image.format)
        samples = from_pillow(image)
        return replace(samples, notes=(*samples.notes, *_notes_of(image)))


def from_pillow(image: Any) -> Samples:
    """Convert an open image to samples, upright, with its metadata."""
    pixels = pixels_of(image)
    found = find_metadata(image.info.get("exif") or None, image.info.get("xmp"), _resolution_of(image))
    return Samples(
        upright(pixels.array, found.orientation),
        pixels.profile,
        found.metadata,
        damaged=found.damaged,
        orientation=found.orientation,
        notes=pixels.notes,
    )


def pixels_of(image: Any) -> Pixels:
    """Return the samples of an open image: gray or RGB, with alpha if it has any."""
    profile = _profile_of(image)
    if image.mode == "CMYK":
        array, notes = from_cmyk(np.asarray(image), profile)
        return Pixels(array, None, notes)
    return Pixels(_array_of(image), profile)


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


def _profile_of(image: Any) -> bytes | None:
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
    """Notes on the parts of the file that are not read."""
    sizes = image.info.get("sizes") or ()
    if image.format == "ICO" and len(sizes) > 1:
        return (f"has icons of {len(sizes)} sizes; the largest is read and {len(sizes) - 1} are left out",)
    count = 1 if image.format in COUNTED else getattr(image, "n_frames", 1)
    if count > 1:
        return (f"has {count} images; the first is read and {count - 1} {'are' if count > 2 else 'is'} left out",)
    return ()


def _resolution_of(image: Any) -> tuple[float, float] | None:
    # Pillow reports 72 for a JPEG without resolution.
    if image.format in ("JPEG", "MPO") and image.info.get("jfif_unit") not in (1, 2):
        return None
    resolution: tuple[float, float] | None = image.info.get("dpi")
    return resolution
