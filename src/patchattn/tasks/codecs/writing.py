"""Arrays of samples to image files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import chain
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np

from patchattn.extras import extra
from patchattn.tasks.codecs.animations import TimedFrame
from patchattn.tasks.codecs.apng import write_apng
from patchattn.tasks.codecs.color_chunks import NO_COLOR_CHUNKS, ColorChunks
from patchattn.tasks.codecs.gif import encode_gif, write_gif
from patchattn.tasks.codecs.icc import apply_profiles, fit_profile, srgb_profile
from patchattn.tasks.codecs.png import encode_png
from patchattn.tasks.codecs.samples import Array, Notes, Samples
from patchattn.tasks.codecs.tiff import encode_tiff, write_pages
from patchattn.tasks.codecs.webp import encode_webp, write_webp
from patchattn.tasks.metadata import Metadata, exif_of

__all__ = ["FORMATS", "READ_SUFFIXES", "SEQUENCE_FORMATS", "Format", "Playback", "encode", "encode_frames", "to_pillow"]

JPEG_LIMITS = {"EXIF": 65533 - len(b"Exif\0\0"), "XMP": 65533 - len(b"http://ns.adobe.com/xap/1.0/\0")}
"""Size limit of metadata in a JPEG segment, in bytes."""


def encode(file: BinaryIO, samples: Samples, extension: str) -> Notes:
    """Write samples in the format of an `extension` that is in `FORMATS` and can hold them.

    Args:
        file: open for writing and reading, and empty.
        samples: the image; its metadata as returned by `fit_metadata`.
        extension: of the file's name, in lower case.

    Returns:
        What was left out or converted.
    """
    kind = FORMATS[extension]
    fitted = _fitted(samples, kind)
    return (*fitted.notes, *kind.encode(file, fitted))


def _fitted(samples: Samples, kind: Format) -> Samples:
    """Reduce samples to what a format can hold, with notes on what it cannot."""
    notes: list[str] = []
    array = samples.array
    if not kind.gray and array.shape[2] <= 2:
        array = np.concatenate([np.repeat(array[:, :, :1], 3, axis=2), array[:, :, 1:]], axis=2)
    profile, color_chunks = _fitted_color(samples, array, kind, notes)
    if profile is not None and not kind.profile:
        array, profile = _in_srgb(array, profile, notes), None
    source = samples.metadata
    left = {"EXIF": source.exif and not kind.exif, "XMP": source.xmp and not kind.xmp}
    left["resolution"] = source.resolution and not kind.resolution
    if any(left.values()):
        notes.append(f"its format has no room for the {' and '.join(name for name in left if left[name])}, left out")
    metadata = Metadata(
        source.exif if kind.exif else None,
        source.xmp if kind.xmp else None,
        source.resolution if kind.resolution else None,
    )
    return replace(
        samples, array=array, icc_profile=profile, metadata=metadata, color_chunks=color_chunks, notes=tuple(notes)
    )


def _fitted_color(samples: Samples, array: Array, kind: Format, notes: list[str]) -> tuple[bytes | None, ColorChunks]:
    """Return the profile and the chunks to write; chunks become a profile where a format has none."""
    channels = 1 if array.shape[2] <= 2 else 3
    profile, color_chunks = samples.icc_profile, samples.color_chunks
    if color_chunks and not kind.color_chunks:
        try:
            profile = color_chunks.profile(channels, profile)
        except ValueError as error:
            kept = "are left as they are" if profile is None else "are taken by the color profile beside it"
            notes.append(f"{error}; its format has no other place for that, and the numbers {kept}")
        color_chunks = NO_COLOR_CHUNKS
    if profile is not None:
        try:
            profile = fit_profile(profile, channels)
        except ValueError as error:
            notes.append(f"the color profile is left out: {error}")
            profile = None
    return profile, color_chunks


def _in_srgb(array: Array, profile: bytes, notes: list[str]) -> Array:
    """Convert the colors of samples whose format holds no profile."""
    colors = array.shape[2] - (array.shape[2] in (2, 4))
    largest = np.iinfo(array.dtype).max
    numbers = apply_profiles(array[:, :, :colors] / largest, profile, srgb_profile(colors))
    converted = np.rint(numbers * largest).astype(array.dtype)
    if not np.array_equal(converted, array[:, :, :colors]):
        notes.append("its format has no room for a color profile; the colors are converted to sRGB")
    return cast("Array", np.concatenate([converted, array[:, :, colors:]], axis=2))


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
    notes.append(f"JPEG holds {limit} bytes of {kind}; the image's {len(data)} are left out")
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


def to_pillow(samples: Samples) -> tuple[Any, Notes]:
    """Convert samples, of 8 bits or opaque gray, to a Pillow image with its metadata; also returns notes."""
    fitted = _fitted(samples, PILLOW)
    image = _pillow_image(fitted)
    metadata = fitted.metadata
    exif = exif_of(metadata)
    known = {
        "icc_profile": fitted.icc_profile,
        "exif": None if exif is None else b"Exif\0\0" + exif,
        "xmp": metadata.xmp,
        "dpi": metadata.resolution,
    }
    image.info |= {name: value for name, value in known.items() if value is not None}
    return image, fitted.notes


class Format(NamedTuple):
    """Capabilities of an image file format."""

    bit_depths: tuple[int, ...]
    alpha: bool
    encode: Callable[[BinaryIO, Samples], Notes]
    gray: bool = True
    """Whether gray is stored as one channel; otherwise as R = G = B."""
    profile: bool = True
    color_chunks: bool = False
    exif: bool = True
    xmp: bool = True
    resolution: bool = True


PNG = Format((8, 16), True, encode_png, color_chunks=True)
TIFF = Format((8, 16), True, encode_tiff)
JPEG = Format((8,), False, _encode_jpeg)

PILLOW = Format((8, 16), True, lambda file, samples: ())
"""Images in memory: Pillow's formats write profile and metadata, but no color chunks."""

FORMATS = {
    ".png": PNG,
    ".tif": TIFF,
    ".tiff": TIFF,
    ".webp": Format((8,), True, encode_webp, gray=False),
    ".jpg": JPEG,
    ".jpeg": JPEG,
    ".bmp": Format((8,), False, _encode_bmp, profile=False, exif=False, xmp=False),
    ".gif": Format((8,), True, encode_gif, gray=False, profile=False, exif=False, xmp=False, resolution=False),
    ".apng": PNG,
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
"""Kind of sequence that a format can hold, by extension."""

READ_SUFFIXES = (
    *FORMATS,
    *(".jpe", ".jfif", ".mpo", ".jp2", ".j2k", ".avif", ".heic", ".heif", ".hif", ".jxl"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".pam", ".tga", ".ico"),
)
"""Extensions that can be read, some with an extra."""


class Playback(NamedTuple):
    """Playback settings of an animation; see `Animation`."""

    plays: int = 0
    background: tuple[int, int, int, int] | None = None


def encode_frames(file: BinaryIO, frames: Iterable[tuple[Samples, float]], extension: str, show: Playback) -> Notes:
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
    kind = FORMATS[extension]
    lost: dict[str, None] = {}
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise ValueError("frames: there is none; expected at least one.")

    def fitted() -> Iterator[tuple[Samples, float]]:
        for samples, duration in chain([first], frames):
            one = _fitted(samples, kind)
            lost.update(dict.fromkeys(one.notes))
            yield one, duration

    timed = (TimedFrame(samples.array, duration) for samples, duration in fitted())
    like = _fitted(first[0], kind)
    if extension == ".gif":
        notes = write_gif(file, timed, show.plays)
    elif extension == ".webp":
        notes = write_webp(file, timed, show.plays, like, show.background)
    elif SEQUENCE_FORMATS[extension] == "animation":
        notes = write_apng(file, timed, show.plays, like, encode_png)
    else:
        notes = write_pages(file, (samples for samples, _ in fitted()))
    return (*lost, *notes)
