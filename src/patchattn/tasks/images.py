"""Images as tensors, and reading and writing of image files."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from patchattn.tasks.codecs import FORMATS, NO_COLOR_CHUNKS, ColorChunks, Samples, decode, encode
from patchattn.tasks.file_messages import decoding, warning_of, warnings_about
from patchattn.tasks.metadata import NO_METADATA, Metadata, fit_metadata
from patchattn.tasks.sources import Source, Target, check_target, extension_of, name_of, open_source, open_target

__all__ = ["Image", "check_image_output", "read_image", "same_channels", "write_image"]


@dataclass(frozen=True)
class Image:
    """An image as a tensor, with alpha, bit depth, color profile and metadata.

    Raises:
        ValueError: the shapes, the dtype or the bit depth are none of those below.

    Example:
        >>> image = Image(torch.rand(1, 3, 48, 64))
        >>> image.size, image.bit_depth
        ((48, 64), 8)
    """

    color: Float[Tensor, "1 channels height width"]
    """Gray (1 channel) or RGB (3) in [0, 1], encoded as in the file (not linearized, not converted)."""
    alpha: Float[Tensor, "1 1 height width"] | None = None
    """Opacity in [0, 1]; the colors are not premultiplied. None: opaque."""
    bit_depth: Literal[8, 16] = 8
    """Bits per channel in a file."""
    icc_profile: bytes | None = None
    """ICC profile of the colors; kept, not applied (`color_profiles.to_srgb` applies it)."""
    metadata: Metadata = NO_METADATA
    """EXIF, XMP and resolution; kept."""
    color_chunks: ColorChunks = NO_COLOR_CHUNKS
    """Color chunks of a PNG file (gAMA, cHRM, sRGB, cICP); kept, not applied. Other formats get an equivalent
    profile."""

    def __post_init__(self) -> None:
        shape = tuple(self.color.shape)
        if len(shape) != 4 or shape[0] != 1 or shape[1] not in (1, 3) or not self.color.is_floating_point():
            raise ValueError(
                f"color: got shape {shape} of {self.color.dtype}; "
                "expected floats of shape (1, 1, height, width) or (1, 3, height, width)."
            )
        if 0 in shape:
            raise ValueError(f"color: got shape {shape}, which has no pixels.")
        if self.alpha is not None and tuple(self.alpha.shape) != (1, 1, *shape[2:]):
            raise ValueError(f"alpha: got shape {tuple(self.alpha.shape)}, expected {(1, 1, *shape[2:])}.")
        if self.bit_depth not in (8, 16):
            raise ValueError(f"bit_depth: got {self.bit_depth}, allowed are 8 and 16.")

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.color.shape[2], self.color.shape[3]


def read_image(source: Source, *, argument: str = "path", frame: int | None = None) -> Image:
    """Read an image file.

    Any format that Pillow knows (PNG, JPEG, TIFF, WebP, AVIF, BMP, ...), Netpbm, and with extras HEIF and JPEG XL:
    gray, RGB or palette, with or without alpha. Up to 8 bits a channel become 8, more become 16. CMYK, L*a*b* and YCbCr
    become RGB. The EXIF orientation is applied. EXIF, XMP and the resolution are kept (`Metadata`); where they are
    damaged, a `MetadataWarning` says so, and what cannot be read of them is left out. A `FileWarning` says what else of
    the file is left out or converted: of several frames or pages, the first is read (`read_frames` reads all).

    Args:
        source: the file: a path; an open binary file or a pipe, which is read to its end; or the file's bytes.
        argument: name of `source` in error messages.
        frame: read this one of several frames or pages, counted from 0, and do not warn of the others.

    Returns:
        The image, its colors in [0, 1].

    Raises:
        ValueError: there is no such file or frame, it is damaged, it is no image, or its samples are wider than 16
            bits.
        RuntimeError: an extra is not installed.

    Example:
        >>> import tempfile
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
    return to_image(samples)


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


def write_image(target: Target, image: Image, *, argument: str = "path", format: str | None = None) -> None:
    """Write an image file at the image's bit depth, atomically.

    The extension chooses the format: .png, .tif and .tiff (8 or 16 bits), .webp (8 bits, lossless), .jpg and .jpeg
    (8 bits, no alpha, quality 95), .bmp (8 bits, no alpha), .gif (256 colors, opaque or wholly transparent). Colors
    are clipped to [0, 1] and rounded. An existing file is replaced.

    All of them but .bmp, which holds the resolution only, take the image's metadata. The file says that it is upright
    and has the size that it has. A `FileWarning` says what a format has no room for and what is therefore left out:
    .jpg has room for 64 KiB of EXIF and as much XMP.

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


def same_channels(
    one: Image, other: Image
) -> tuple[Float[Tensor, "1 channels height width"], Float[Tensor, "1 channels height2 width2"]]:
    """Return the colors of two images with the same number of channels: gray becomes R = G = B if either has color.

    Example:
        >>> gray, rgb = same_channels(Image(torch.rand(1, 1, 4, 6)), Image(torch.rand(1, 3, 5, 7)))
        >>> gray.shape, rgb.shape
        (torch.Size([1, 3, 4, 6]), torch.Size([1, 3, 5, 7]))
    """
    channels = max(one.color.shape[1], other.color.shape[1])
    return one.color.expand(-1, channels, -1, -1), other.color.expand(-1, channels, -1, -1)


def to_image(samples: Samples) -> Image:
    """Convert samples to an image."""
    array = samples.array
    colors = 1 if array.shape[2] <= 2 else 3
    return Image(
        color=_to_tensor(array[:, :, :colors]),
        alpha=_to_tensor(array[:, :, colors:]) if array.shape[2] > colors else None,
        bit_depth=16 if array.dtype == np.uint16 else 8,
        icc_profile=samples.icc_profile,
        metadata=samples.metadata,
        color_chunks=samples.color_chunks,
    )


def to_samples(image: Image) -> Samples:
    """Convert an image to samples, clipped and rounded.

    Raises:
        ValueError: the image holds NaN, or its metadata are none.
    """
    planes = image.color if image.alpha is None else torch.cat([image.color, image.alpha], 1)
    if planes.isnan().any():
        raise ValueError("image: it holds NaN; expected numbers in [0, 1].")
    metadata = fit_metadata(image.metadata, image.size)
    return Samples(_to_array(planes, image.bit_depth), image.icc_profile, metadata, image.color_chunks)


def _listed(names: list[str]) -> str:
    return ", ".join(names[:-1]) + " and " + names[-1]


def _to_tensor(array: NDArray[np.uint8] | NDArray[np.uint16]) -> Tensor:
    largest = np.iinfo(array.dtype).max
    planes = np.ascontiguousarray(array.transpose(2, 0, 1), dtype=np.float32)
    return torch.from_numpy(planes).div_(largest)[None]


def _to_array(planes: Tensor, bit_depth: int) -> NDArray[np.uint8] | NDArray[np.uint16]:
    largest = 2**bit_depth - 1
    # float32 holds every 16-bit sample exactly; half precision would not.
    values = planes[0].detach().cpu().float().clamp(0, 1).mul(largest).round().permute(1, 2, 0)
    array = np.ascontiguousarray(values.numpy())
    return array.astype(np.uint16) if bit_depth == 16 else array.astype(np.uint8)
