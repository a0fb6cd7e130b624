"""PNG files from arrays of samples."""

from __future__ import annotations

import struct
import zlib
from typing import BinaryIO

import numpy as np

from patchattn.extras import extra
from patchattn.tasks.codecs.chunks import PNG_SIGNATURE, png_chunk
from patchattn.tasks.codecs.samples import Notes, Samples
from patchattn.tasks.metadata import exif_of

__all__ = ["encode_png"]


def encode_png(file: BinaryIO, samples: Samples) -> Notes:
    """Write one picture of 8 or 16 bits."""
    with extra("tools"):
        from imagecodecs import png_encode
    data = bytes(png_encode(np.squeeze(samples.array, 2) if samples.array.shape[2] == 1 else samples.array))
    header = len(PNG_SIGNATURE) + 25  # the signature and the chunk IHDR, after which all these have their place
    file.write(data[:header])
    metadata = samples.metadata
    if samples.icc_profile:
        file.write(png_chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(samples.icc_profile)))
    if metadata.resolution is not None:
        per_meter = [round(number / 0.0254) for number in metadata.resolution]
        file.write(png_chunk(b"pHYs", struct.pack(">IIB", *per_meter, 1)))
    if (exif := exif_of(metadata)) is not None:
        file.write(png_chunk(b"eXIf", exif))
    if metadata.xmp is not None:
        # Not compressed, of no language.
        file.write(png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + metadata.xmp))
    file.write(data[header:])
    return ()
