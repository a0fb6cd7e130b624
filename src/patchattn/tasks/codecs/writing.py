"""Arrays of samples to picture files."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any, BinaryIO, NamedTuple

from patchattn.extras import extra
from patchattn.tasks.codecs.animations import Timed
from patchattn.tasks.codecs.apng import write_apng
from patchattn.tasks.codecs.gif import encode_gif, write_gif
from patchattn.tasks.codecs.png import encode_png
from patchattn.tasks.codecs.samples import Notes, Samples
from patchattn.tasks.codecs.tiff import encode_tiff, write_pages
from patchattn.tasks.codecs.webp import encode_webp, write_webp
from patchattn.tasks.metadata import exif_of

__all__ = ["FORMATS", "READ_SUFFIXES", "SEQUENCE_FORMATS", "Format", "Show", "encode", "encode_frames"]

JPEG_LIMITS = {"EXIF": 65533 - len(b"Exif\0\0"), "XMP": 65533 - len(b"http://ns.adobe.com/xap/1.0/\0")}
"""How many bytes of each a segment of JPEG can hold."""


def encode(file: BinaryIO, samples: Samples, extension: str) -> Notes:
    """Write samples in the format of an `extension` that is in `FORMATS` and can hold them.

    Args:
        file: open for writing and reading, and empty.
        samples: what to write; its metadata are such as `fit_metadata` returns.
        extension: of the file's name, in lower case.

    Returns:
        What was left out or converted.
    """
    return FORMATS[extension].encode(file, samples)


def _encode_jpeg(file: BinaryIO, samples: Samples) -> Notes:
    metadata = samples.metadata
    resolution = metadata.resolution or (0, 0)
    notes: list[str] = []
    exif = _fitting_jpeg("EXIF", exif_of(metadata), notes)
    xmp = _fitting_jpeg("XMP", metadata.xmp, notes)
    _pillow_image(samples).save(
        file,
        "JPEG",
        quality=95,
        subsampling=0,
        icc_profile=samples.icc_profile,
        # It has 16 bits for this; what is above is in the EXIF alone.
        dpi=resolution if max(resolution) < 65535 else (0, 0),
        exif=b"" if exif is None else b"Exif\0\0" + exif,
        xmp=xmp,
    )
    return tuple(notes)


def _fitting_jpeg(kind: str, data: bytes | None, notes: list[str]) -> bytes | None:
    limit = JPEG_LIMITS[kind]
    if data is None or len(data) <= limit:
        return data
    notes.append(f"JPEG holds {limit} bytes of {kind}; the picture's {len(data)} are left out")
    return None


def _encode_bmp(file: BinaryIO, samples: Samples) -> Notes:
    resolution = samples.metadata.resolution
    _pillow_image(samples).save(file, "BMP", **({} if resolution is None else {"dpi": resolution}))
    return ()


def _pillow_image(samples: Samples) -> Any:
    with extra("tools"):
        from PIL import Image
    array = samples.array
    return Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)


class Format(NamedTuple):
    """What a format of picture files can hold."""

    bit_depths: tuple[int, ...]
    alpha: bool
    encode: Callable[[BinaryIO, Samples], Notes]


FORMATS = {
    ".png": Format((8, 16), True, encode_png),
    ".tif": Format((8, 16), True, encode_tiff),
    ".tiff": Format((8, 16), True, encode_tiff),
    ".webp": Format((8,), True, encode_webp),
    ".jpg": Format((8,), False, _encode_jpeg),
    ".jpeg": Format((8,), False, _encode_jpeg),
    ".bmp": Format((8,), False, _encode_bmp),
    ".gif": Format((8,), True, encode_gif),
    ".apng": Format((8, 16), True, encode_png),
}
"""The formats that can be written, by the file name's extension in lower case."""

SEQUENCE_FORMATS = {
    ".gif": "animation",
    ".webp": "animation",
    ".png": "animation",
    ".apng": "animation",
    ".tif": "pages",
    ".tiff": "pages",
}
"""What formats of several pictures hold, by extension."""

READ_SUFFIXES = (*FORMATS, ".jpe", ".jfif", ".tga", ".mpo", ".jp2", ".j2k", ".avif", ".ppm", ".pgm", ".pbm", ".pnm")
"""What the names of files end in that can be read."""


class Show(NamedTuple):
    """How an animation runs; see `Animation`."""

    plays: int = 0
    background: tuple[int, int, int, int] | None = None


def encode_frames(file: BinaryIO, frames: Iterable[tuple[Samples, float]], extension: str, show: Show) -> Notes:
    """Write frames or pages one by one.

    Args:
        file: open for writing and reading, and empty.
        frames: each with its duration in seconds. Those of an animation have one shape and dtype, and what belongs to
            the first belongs to all.
        extension: one of `SEQUENCE_FORMATS`.
        show: of animations.

    Returns:
        What was left out or converted.
    """
    if SEQUENCE_FORMATS[extension] == "pages":
        return write_pages(file, (samples for samples, _ in frames))
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise ValueError("frames: there is none; expected at least one.")
    timed = (Timed(samples.array, duration) for samples, duration in chain([first], frames))
    if extension == ".gif":
        return write_gif(file, timed, show.plays)
    if extension == ".webp":
        return write_webp(file, timed, show.plays, first[0], show.background)
    return write_apng(file, timed, show.plays, first[0], encode_png)
