"""AVIF and HEIF at their own depth; Pillow reduces AVIF to 8 bits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, BinaryIO

import numpy as np

from patchattn.extras import extra
from patchattn.tasks.codecs.color_chunks import NO_COLOR_CHUNKS, from_code_points
from patchattn.tasks.codecs.iso_boxes import brands, code_points, find_boxes
from patchattn.tasks.codecs.pillow import decode_with_pillow, upright
from patchattn.tasks.codecs.samples import Array, Samples, scaled
from patchattn.tasks.codecs.size_limits import check_extent, length_of
from patchattn.tasks.metadata import find_metadata

__all__ = ["decode_avif", "decode_heif", "is_avif", "is_heif"]

PROPERTIES = (b"meta", b"iprp", b"ipco")


def is_avif(head: bytes) -> bool:
    return bool(brands(head) & {b"avif", b"avis"})


def decode_avif(file: BinaryIO) -> Samples:
    """Read the first image of AVIF of 8, 10 or 12 bits."""
    data = file.read()
    colors = list(find_boxes(data, (*PROPERTIES, b"colr")))
    samples = replace(decode_with_pillow(file), color_chunks=code_points(colors))
    flags = next(find_boxes(data, (*PROPERTIES, b"av1C")), bytes(4))[2]
    if not flags & 0x40:
        return samples
    with extra("tools"):
        from imagecodecs import avif_decode
    array = np.atleast_3d(avif_decode(data, index=0))
    return replace(samples, array=upright(scaled(array, 4095 if flags & 0x20 else 1023), samples.orientation))


def is_heif(head: bytes) -> bool:
    return bool(brands(head) & {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})


def decode_heif(file: BinaryIO) -> Samples:
    """Read the main image of HEIC or HEIF of 8, 10 or 12 bits."""
    with extra("heif"):
        import pillow_heif
    heif = pillow_heif.open_heif(file, convert_hdr_to_8bit=False)
    image = heif[heif.primary_index]
    check_extent(image.size[::-1], length_of(file))
    info: dict[str, Any] = image.info
    bits = info.get("bit_depth", 8)
    array: Array = np.atleast_3d(np.asarray(image))
    if array.dtype == np.uint16:
        array = scaled(array >> (16 - bits), 2**bits - 1)
    profile = info.get("icc_profile") or None
    points = info.get("nclx_profile")
    color_chunks = NO_COLOR_CHUNKS
    if points and profile is None:
        color_chunks = from_code_points(points["color_primaries"], points["transfer_characteristics"])
    # It is turned already, whatever EXIF says.
    found = find_metadata(info.get("exif") or None, info.get("xmp"))
    return Samples(array, profile, found.metadata, color_chunks, found.damaged, notes=_others(heif, info))


def _others(heif: Any, info: dict[str, Any]) -> tuple[str, ...]:
    notes = []
    if len(heif) > 1:
        notes.append(f"has {len(heif)} images; the main one is read and {len(heif) - 1} left out")
    more = len(info.get("depth_images") or ()) + sum(map(len, (info.get("aux") or {}).values()))
    if more:
        notes.append(f"has {more} images that go with the main one (depth, more light, or the like), left out")
    return tuple(notes)
