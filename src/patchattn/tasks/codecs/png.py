"""PNG files from and to arrays of samples."""

from __future__ import annotations

import io
import struct
import zlib
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from patchattn.extras import extra
from patchattn.tasks.codecs.chunks import PNG_SIGNATURE, PngChunk, png_chunk, png_chunks, png_missing, png_without
from patchattn.tasks.codecs.color_chunks import ColorChunks
from patchattn.tasks.codecs.pillow import decode_with_pillow, upright
from patchattn.tasks.codecs.samples import Array, Notes, Samples
from patchattn.tasks.codecs.size_limits import check_extent
from patchattn.tasks.metadata import exif_of, find_metadata

__all__ = ["decode_png", "encode_png"]

MAX_INFLATED = 32 << 20
"""Size limit of a decompressed profile or text, in bytes."""

TEXTS = (b"tEXt", b"zTXt", b"iTXt")
XMP = b"XML:com.adobe.xmp"
RAW_EXIF = (b"Raw profile type exif", b"Raw profile type APP1")


def decode_png(file: BinaryIO) -> Samples:
    """Read the image of a PNG file, which is not always a frame of its animation.

    What is beside the pixels is read here: Pillow refuses an image for a profile or a text of more than a MiB.
    """
    data = file.read()
    if (missing := png_missing(data)) is not None:
        raise ValueError(f"the file is cut: of its chunk {missing.kind} {missing.bytes} bytes are missing")
    chunks = list(png_chunks(data, cut=True))
    first = {chunk.kind: chunk.data for chunk in reversed(chunks)}
    header = first.get(b"IHDR", b"")
    if len(header) != 13:
        raise ValueError("its header is cut or damaged")
    width, height, depth = struct.unpack_from(">IIB", header)
    check_extent((height, width), len(data), "PNG")
    texts = dict(filter(None, (_text(chunk) for chunk in reversed(chunks) if chunk.kind in TEXTS)))
    pixels = png_without(data, (b"iCCP", b"eXIf", *TEXTS))
    # Pillow reduces 16 bits to 8 in every mode but gray.
    array = _decode_deep(pixels) if depth == 16 else decode_with_pillow(io.BytesIO(pixels)).array
    found = find_metadata(_exif(first, texts), texts.get(XMP), _resolution(first.get(b"pHYs")))
    return Samples(
        upright(array, found.orientation),
        _inflated(first[b"iCCP"].partition(b"\0")[2][1:]) if b"iCCP" in first else None,
        found.metadata,
        ColorChunks.of(chunks),
        found.damaged,
        found.orientation,
    )


def _text(chunk: PngChunk) -> tuple[bytes, bytes] | None:
    """Return the keyword and text of a chunk; None if it is damaged or holds neither XMP nor EXIF."""
    keyword, _, rest = chunk.data.partition(b"\0")
    if keyword not in (XMP, *RAW_EXIF):
        return None
    if chunk.kind == b"tEXt":
        return keyword, rest
    if chunk.kind == b"zTXt":
        return keyword, _inflated(rest[1:])
    language_and_on = rest[2:].split(b"\0", 2)
    if len(language_and_on) < 3:
        return None
    return keyword, _inflated(language_and_on[2]) if rest[:1] == b"\1" else language_and_on[2]


def _inflated(data: bytes) -> bytes:
    """Decompress up to `MAX_INFLATED` bytes; invalid data for damaged input."""
    try:
        return zlib.decompressobj().decompress(data, MAX_INFLATED)
    except zlib.error:
        return b"damaged"


def _exif(first: dict[bytes, bytes], texts: dict[bytes, bytes]) -> bytes | None:
    if b"eXIf" in first:
        return first[b"eXIf"]
    # How it was held before there was a chunk for it: hexadecimal, after three lines.
    text = next((texts[keyword] for keyword in RAW_EXIF if keyword in texts), None)
    if text is None:
        return None
    try:
        return bytes.fromhex(b"".join(text.split(b"\n")[3:]).decode("latin-1"))
    except ValueError:
        return b"damaged"


def _resolution(data: bytes | None) -> tuple[float, float] | None:
    if data is None or len(data) != 9 or data[8] != 1:
        return None
    across, down = struct.unpack_from(">II", data)
    return across * 0.0254, down * 0.0254


def _decode_deep(data: bytes) -> Array:
    with extra("tools"):
        from imagecodecs import png_decode
    array: NDArray[np.uint16] = png_decode(data)
    return array[:, :, None] if array.ndim == 2 else array


def encode_png(file: BinaryIO, samples: Samples) -> Notes:
    """Write one image of 8 or 16 bits."""
    with extra("tools"):
        from imagecodecs import png_encode
    data = bytes(png_encode(np.squeeze(samples.array, 2) if samples.array.shape[2] == 1 else samples.array))
    # The signature and the chunk IHDR, after which all these have their place.
    header = len(PNG_SIGNATURE) + 25
    file.write(data[:header])
    metadata = samples.metadata
    if samples.icc_profile:
        file.write(png_chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(samples.icc_profile)))
    for name, chunk in samples.color_chunks.chunks:
        file.write(png_chunk(name.encode(), chunk))
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
