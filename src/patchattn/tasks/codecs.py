"""Picture files to and from arrays of samples; see `images` for pictures as tensors."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from patchattn.extras import extra

__all__ = ["FORMATS", "Format", "Samples", "decode", "encode"]

Array = NDArray[np.uint8] | NDArray[np.uint16]

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
TIFF_SIGNATURES = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")


@dataclass(frozen=True)
class Samples:
    """The samples of a picture as they lie in its file, upright."""

    array: Array
    """(height, width, channels), uint8 or uint16; 1 channel: gray, 2: gray and alpha, 3: RGB, 4: RGB and alpha."""
    icc_profile: bytes | None = None


# ----------------------------------------------------------------------------------------------------------- reading


def decode(path: Path) -> Samples:
    """Read a picture file of any format that Pillow knows; what it is, its first bytes say, not its name.

    Raises:
        ValueError: its samples are neither 8 nor 16 bits wide, or it is damaged. The decoders raise errors of other
            types for damaged files too.
    """
    with path.open("rb") as file:
        head = file.read(32)
    if head[:4] in TIFF_SIGNATURES:
        samples = _decode_deep_tiff(path)
        if samples is not None:
            return samples
    with extra("tools"):
        from PIL import Image
    with Image.open(path) as image:
        # Pillow reduces 16-bit PNG to 8 bits in every mode but gray; the 25th byte is the bit depth.
        deep = head.startswith(PNG_SIGNATURE) and head[24] == 16
        array = _decode_deep_png(path) if deep else _array_of(image)
        profile = image.info.get("icc_profile") or None
        if image.mode in ("CMYK", "LAB", "YCbCr", "HSV"):
            profile = None  # it describes colours that the conversion to RGB has left
        # After decoding: some formats carry it at their end, and Pillow turns TIFF upright by itself.
        return Samples(_upright(array, image.getexif().get(0x0112, 1)), profile)


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


def _decode_deep_tiff(path: Path) -> Samples | None:
    """Read the first page of a TIFF of 16-bit samples; None for up to 8 bits, of which Pillow reads more variants."""
    with extra("tools"):
        import tifffile
    with tifffile.TiffFile(path) as file:
        page: Any = file.pages[0]
        if page.bitspersample <= 8:
            return None
        if page.bitspersample != 16 or page.dtype != np.uint16:
            raise ValueError(
                f"its samples are {page.bitspersample}-bit {page.dtype}; 8 and 16-bit whole numbers are allowed"
            )
        array = np.atleast_3d(page.asarray())
        if page.samplesperpixel > 1 and page.planarconfig == 2:  # one plane after the other
            array = np.moveaxis(array, 0, -1)
        photometric = page.photometric.name
        if photometric == "PALETTE":
            array = np.moveaxis(page.colormap[:, array[:, :, 0]], 0, -1)
        elif photometric == "MINISWHITE":
            array = np.concatenate([65535 - array[:, :, :1], array[:, :, 1:]], axis=2)
        elif photometric not in ("MINISBLACK", "RGB"):
            raise ValueError(f"its colours are {photometric}; gray, palette and RGB are allowed at 16 bits")
        colours = 3 if photometric in ("RGB", "PALETTE") else 1
        fourth = page.extrasamples[0].name if page.extrasamples else "UNSPECIFIED"
        array = array[:, :, : colours + (fourth in ("UNASSALPHA", "ASSOCALPHA"))]
        if fourth == "ASSOCALPHA":
            array = _unassociated(array)
        tag = page.tags.get(274)
        return Samples(_upright(array, int(tag.value) if tag else 1), page.iccprofile or None)


def _unassociated(array: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Divide the colours by the alpha that they were multiplied with."""
    alpha = array[:, :, -1:].astype(np.float64)
    colours = np.divide(array[:, :, :-1] * 65535.0, alpha, out=np.zeros(array[:, :, :-1].shape), where=alpha > 0)
    return np.concatenate([np.minimum(np.rint(colours), 65535).astype(np.uint16), array[:, :, -1:]], axis=2)


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


# ----------------------------------------------------------------------------------------------------------- writing


def _encode_png(file: BinaryIO, samples: Samples) -> None:
    with extra("tools"):
        from imagecodecs import png_encode
    data = bytes(png_encode(np.squeeze(samples.array, 2) if samples.array.shape[2] == 1 else samples.array))
    header = len(PNG_SIGNATURE) + 25  # the signature and the chunk IHDR, after which the profile has its place
    file.write(data[:header])
    if samples.icc_profile:
        chunk = b"iCCP" + b"ICC profile\x00\x00" + zlib.compress(samples.icc_profile)
        file.write(struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)))
    file.write(data[header:])


def _encode_tiff(file: BinaryIO, samples: Samples) -> None:
    with extra("tools"):
        import tifffile
    channels = samples.array.shape[2]
    tifffile.imwrite(
        file,
        samples.array if channels > 1 else samples.array[:, :, 0],
        photometric="rgb" if channels >= 3 else "minisblack",
        planarconfig="contig" if channels > 1 else None,
        extrasamples=["unassalpha"] if channels in (2, 4) else None,
        compression="zlib",
        iccprofile=samples.icc_profile,
        metadata=None,
    )


def _encode_jpeg(file: BinaryIO, samples: Samples) -> None:
    _pillow_image(samples).save(file, "JPEG", quality=95, subsampling=0, icc_profile=samples.icc_profile)


def _encode_webp(file: BinaryIO, samples: Samples) -> None:
    image = _pillow_image(samples)
    if image.mode == "LA":
        image = image.convert("RGBA")
    # exact: the colours under transparent pixels are kept.
    image.save(file, "WEBP", lossless=True, exact=True, icc_profile=samples.icc_profile)


def _encode_bmp(file: BinaryIO, samples: Samples) -> None:
    _pillow_image(samples).save(file, "BMP")


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
    ".tif": Format((8, 16), True, _encode_tiff),
    ".tiff": Format((8, 16), True, _encode_tiff),
    ".webp": Format((8,), True, _encode_webp),
    ".jpg": Format((8,), False, _encode_jpeg),
    ".jpeg": Format((8,), False, _encode_jpeg),
    ".bmp": Format((8,), False, _encode_bmp),
}
"""The formats that can be written, by the file name's extension in lower case."""


def encode(file: BinaryIO, samples: Samples, extension: str) -> None:
    """Write samples in the format of an `extension` that is in `FORMATS` and can hold them."""
    FORMATS[extension].encode(file, samples)
