"""Reading and writing of image files."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

from patchattn.deprecation import moved_names, renamed_argument
from patchattn.tasks.codecs import FORMATS, decode, encode
from patchattn.tasks.file_messages import decoding, warning_of, warnings_about
from patchattn.tasks.image import Image, from_samples, same_channels, to_samples
from patchattn.tasks.sources import Source, Target, check_target, extension_of, name_of, open_source, open_target

__all__ = ["Image", "check_image_output", "read_image", "same_channels", "write_image"]


def read_image(source: Source, *, argument: str = "path", frame: int | None = None) -> Image:
    """Read an image file.

    Any format that Pillow knows (PNG, JPEG, TIFF, WebP, AVIF, BMP, ...), Netpbm, and with extras HEIF and JPEG XL:
    gray, RGB or palette, with or without alpha. Up to 8 bits a channel become 8, more become 16. CMYK, L*a*b* and YCbCr
    become RGB. The EXIF orientation is applied. EXIF, XMP and the resolution are kept (`Metadata`); damaged metadata
    are left out with a `MetadataWarning`. A `FileWarning` reports what else of the file is left out or converted: of
    several frames or pages, the first is read (`read_frames` reads all).

    Args:
        source: the file: a path; an open binary file or a pipe, which is read to its end; or the file's bytes.
        argument: name of `source` in error messages.
        frame: index of the frame or page to read, from 0, without a warning about the others.

    Returns:
        The image, its colors in [0, 1].

    Raises:
        ValueError: there is no such file or frame, it is damaged or no image, or its samples have more than 16 bits.
        RuntimeError: an extra is not installed.

    Example:
        >>> import tempfile, torch
        >>> path = tempfile.mkdtemp() + "/gray.png"
        >>> write_image(path, Image(torch.full((1, 1, 4, 6), 0.5), bit_depth=16))
        >>> read_image(path).color.shape, read_image(path).bit_depth
        (torch.Size([1, 1, 4, 6]), 16)
    """
    name = name_of(source)
    with open_source(source, argument=argument) as file, decoding(name, argument) as caught:
        samples = decode(file, frame)
    for warning in (*caught, *warnings_about(samples, name, argument)):
        warnings.warn(warning, stacklevel=2)
    return from_samples(samples)


def check_image_output(
    target: Target, *, bit_depth: int = 8, alpha: bool = False, argument: str = "path", format: str | None = None
) -> None:
    """Raise the errors that `write_image` would raise, before the image is computed.

    Raises:
        ValueError: the extension is unknown, its format cannot hold the image, or nothing can be written there.
    """
    extension, name = extension_of(target, format), name_of(target, "standard output")
    check_format(target, format, FORMATS, argument)
    able = [name for name, kind in FORMATS.items() if bit_depth in kind.bit_depths and (kind.alpha or not alpha)]
    if extension not in able:
        what = f"{bit_depth} bits a channel{' and alpha' if alpha else ''}"
        as_what = "" if format is None else f" as {extension}"
        raise ValueError(f"{argument}: {name}{as_what} cannot hold the image's {what}; these can: {_listed(able)}.")
    check_target(target, argument=argument)


def check_format(target: Target, format: str | None, allowed: Iterable[str], argument: str) -> None:
    """Raise a ValueError unless the extension, or `format` in its place, is one of those allowed."""
    extension, name = extension_of(target, format), name_of(target, "standard output")
    if extension in allowed:
        return
    if format is not None:
        raise ValueError(f"format: got {format!r}; allowed are {_listed([one[1:] for one in allowed])}.")
    if name == "standard output":
        formats = _listed([one[1:] for one in allowed])
        raise ValueError(f"{argument}: {name} has no extension to tell the format by; give a format: {formats}.")
    raise ValueError(f"{argument}: {name} ends in {extension or 'no extension'}; allowed are {_listed(list(allowed))}.")


@renamed_argument("picture", "image")
def write_image(target: Target, image: Image, *, argument: str = "path", format: str | None = None) -> None:
    """Write an image file at the image's bit depth, atomically.

    The extension chooses the format: .png, .tif and .tiff (8 or 16 bits), .webp (8 bits, lossless), .jpg and .jpeg
    (8 bits, no alpha, quality 95), .bmp (8 bits, no alpha), .gif (256 colors, opaque or wholly transparent). Colors
    are clipped to [0, 1] and rounded. An existing file is replaced.

    All of them but .bmp, which holds the resolution only, store the image's metadata, with orientation and size
    corrected. A `FileWarning` reports what a format cannot hold and is left out: .jpg holds 64 KiB of EXIF and as much
    XMP.

    Args:
        target: a path; or an open binary file or a pipe, which gets the whole file at once.
        image: the image to write.
        argument: name of `target` in error messages.
        format: such as "png" or ".png", overriding the extension. A stream has no extension.

    Raises:
        ValueError: the format is unknown or cannot hold the image, nothing can be written there, the image holds
            NaN, or its metadata are none.
        RuntimeError: the extra `tools` is not installed.

    Example:
        >>> import torch
        >>> write_image("image.xyz", Image(torch.rand(1, 3, 4, 6)))
        Traceback (most recent call last):
        ValueError: path: image.xyz ends in .xyz; allowed are .png, .tif, .tiff, .webp, .jpg, .jpeg, .bmp, .gif
            and .apng.
    """
    opaque = image.alpha is None
    check_image_output(target, bit_depth=image.bit_depth, alpha=not opaque, argument=argument, format=format)
    samples = to_samples(image)
    with open_target(target, argument=argument) as file:
        notes = encode(file, samples, extension_of(target, format))
    for note in notes:
        warnings.warn(warning_of(note, name_of(target, "standard output"), argument), stacklevel=2)


def _listed(names: list[str]) -> str:
    return ", ".join(names[:-1]) + " and " + names[-1]


__getattr__ = moved_names(
    __name__,
    {
        "Picture": "patchattn.tasks.images:Image",
        "read_picture": "patchattn.tasks.images:read_image",
        "write_picture": "patchattn.tasks.images:write_image",
        "check_picture_output": "patchattn.tasks.images:check_image_output",
    },
)
