"""Arrays of samples to picture files."""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from patchattn.extras import extra
from patchattn.tasks.codecs.samples import Samples
from patchattn.tasks.codecs.tiff import encode_tiff
from patchattn.tasks.metadata import Metadata, open_exif
from patchattn.tasks.warnings import MetadataWarning

__all__ = ["FORMATS", "PNG_SIGNATURE", "Format", "encode"]

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

JPEG_LIMITS = {"EXIF": 65533 - len(b"Exif\0\0"), "XMP": 65533 - len(b"http://ns.adobe.com/xap/1.0/\0")}
"""How many bytes of each a segment of JPEG can hold."""


def encode(file: BinaryIO, samples: Samples, extension: str) -> None:
    """Write samples in the format of an `extension` that is in `FORMATS` and can hold them.

    Args:
        file: open for writing and reading, and empty.
        samples: what to write; its metadata are such as `fit_metadata` returns.
        extension: of the file's name, in lower case.
    """
    FORMATS[extension].encode(file, samples)


def _encode_png(file: BinaryIO, samples: Samples) -> None:
    with extra("tools"):
        from imagecodecs import png_encode
    data = bytes(png_encode(np.squeeze(samples.array, 2) if samples.array.shape[2] == 1 else samples.array))
    header = len(PNG_SIGNATURE) + 25  # the signature and the chunk IHDR, after which all these have their place
    file.write(data[:header])
    metadata = samples.metadata
    if samples.icc_profile:
        file.write(_chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(samples.icc_profile)))
    if metadata.resolution is not None:
        per_metre = [round(number / 0.0254) for number in metadata.resolution]
        file.write(_chunk(b"pHYs", struct.pack(">IIB", *per_metre, 1)))
    if (exif := _exif_of(metadata)) is not None:
        file.write(_chunk(b"eXIf", exif))
    if metadata.xmp is not None:
        # Not compressed, of no language.
        file.write(_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + metadata.xmp))
    file.write(data[header:])


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _encode_jpeg(file: BinaryIO, samples: Samples) -> None:
    metadata = samples.metadata
    resolution = metadata.resolution or (0, 0)
    exif = _fitting_jpeg("EXIF", _exif_of(metadata))
    _pillow_image(samples).save(
        file,
        "JPEG",
        quality=95,
        subsampling=0,
        icc_profile=samples.icc_profile,
        # It has 16 bits for this; what is above is in the EXIF alone.
        dpi=resolution if max(resolution) < 65535 else (0, 0),
        exif=b"" if exif is None else b"Exif\0\0" + exif,
        xmp=_fitting_jpeg("XMP", metadata.xmp),
    )


def _fitting_jpeg(kind: str, data: bytes | None) -> bytes | None:
    limit = JPEG_LIMITS[kind]
    if data is None or len(data) <= limit:
        return data
    warnings.warn(
        f"JPEG holds {limit} bytes of {kind}; the picture's {len(data)} are left out.", MetadataWarning, stacklevel=2
    )
    return None


def _encode_webp(file: BinaryIO, samples: Samples) -> None:
    image = _pillow_image(samples)
    if image.mode == "LA":
        image = image.convert("RGBA")
    # It has no other place for the resolution.
    exif = _exif_of(samples.metadata, always=True)
    # exact: the colours under transparent pixels are kept.
    image.save(
        file,
        "WEBP",
        lossless=True,
        exact=True,
        icc_profile=samples.icc_profile,
        exif=exif or b"",
        xmp=samples.metadata.xmp or b"",
    )


def _encode_bmp(file: BinaryIO, samples: Samples) -> None:
    resolution = samples.metadata.resolution
    _pillow_image(samples).save(file, "BMP", **({} if resolution is None else {"dpi": resolution}))


def _exif_of(metadata: Metadata, *, always: bool = False) -> bytes | None:
    """Return the EXIF to write, the resolution in it; `always`: even if that is all."""
    exif = open_exif(metadata.exif)
    if metadata.resolution is not None and (exif.main or always):
        exif.set_resolution(metadata.resolution)
    return exif.block()


def _pillow_image(samples: Samples) -> Any:
    with extra("tools"):
        from PIL import Image
    array = samples.array
    return Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)


class Format(NamedTuple):
    """What a format of picture files can hold."""

    bit_depths: tuple[int, ...]
    alpha: bool
    encode: Callable[[BinaryIO, Samples], None]


FORMATS = {
    ".png": Format((8, 16), True, _encode_png),
    ".tif": Format((8, 16), True, encode_tiff),
    ".tiff": Format((8, 16), True, encode_tiff),
    ".webp": Format((8,), True, _encode_webp),
    ".jpg": Format((8,), False, _encode_jpeg),
    ".jpeg": Format((8,), False, _encode_jpeg),
    ".bmp": Format((8,), False, _encode_bmp),
}
"""The formats that can be written, by the file name's extension in lower case."""
