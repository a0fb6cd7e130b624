"""Conversion of images between color profiles."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from patchattn.deprecation import renamed_argument
from patchattn.tasks.codecs import NO_COLOR_CHUNKS
from patchattn.tasks.codecs.icc import apply_profiles, fit_profile, srgb_profile
from patchattn.tasks.images import Image

__all__ = ["profile_of", "srgb_profile", "to_profile", "to_srgb"]


@renamed_argument("picture", "image")
def profile_of(image: Image, *, argument: str = "image") -> bytes | None:
    """Return the ICC profile of an image's color encoding; None if there is none, which means sRGB.

    Precedence: the PNG chunk cICP, the ICC profile, the chunk sRGB, and gAMA with
    cHRM. A profile of gray is turned into one of RGB for an RGB image, and the other way round.

    Args:
        image: as `read_image` returns it.
        argument: name of the image in error messages.

    Raises:
        ValueError: no profile can express the encoding (PQ and HLG go beyond white), or it is damaged.

    Example:
        >>> profile_of(Image(torch.rand(1, 3, 4, 6))) is None
        True
    """
    channels = image.color.shape[1]
    try:
        profile = image.color_chunks.profile(channels, image.icc_profile)
        return None if profile is None else fit_profile(profile, channels)
    except ValueError as error:
        raise ValueError(
            f"{argument}: what its file says of its colors cannot be applied ({error}); expected a color profile of "
            f"{'gray' if channels == 1 else 'RGB'}, or none: convert it to sRGB first."
        ) from error


@renamed_argument("picture", "image")
def to_srgb(image: Image, *, argument: str = "image") -> Image:
    """Convert an image to sRGB, without profile and color chunks; gray stays gray.

    LittleCMS converts, in floating point, so that 16 bits stay 16: relative to white, black to black, and what sRGB
    cannot show is clipped. An image without a profile counts as sRGB and stays as it is.

    Args:
        image: the image to convert.
        argument: name of the image in error messages.

    Raises:
        ValueError: see `profile_of`.

    Example:
        >>> from patchattn.tasks.codecs import ColorChunks
        >>> linear = ColorChunks((("gAMA", (100_000).to_bytes(4, "big")),))
        >>> image = Image(torch.full((1, 1, 4, 6), 0.2140), color_chunks=linear)
        >>> round(to_srgb(image).color[0, 0, 0, 0].item(), 3)
        0.5
    """
    return to_profile(image, None, argument=argument)


@renamed_argument("picture", "image")
def to_profile(image: Image, profile: bytes | None, *, argument: str = "image") -> Image:
    """Convert an image to a color profile.

    Args:
        image: the image to convert; see `to_srgb`.
        profile: of RGB or of gray. A gray image stays gray, and gets the equivalent for gray of a profile of RGB; an
            RGB image stays RGB likewise. None: sRGB.
        argument: name of the image in error messages.

    Returns:
        The image, with `profile`, fitted to its channels.

    Raises:
        ValueError: see `profile_of`.

    Example:
        >>> image = to_profile(Image(torch.rand(1, 1, 4, 6)), srgb_profile())
        >>> image.color.shape[1], image.icc_profile[16:20]
        (1, b'GRAY')
    """
    channels = image.color.shape[1]
    source = profile_of(image, argument=argument)
    target = None if profile is None else fit_profile(profile, channels)
    srgb = srgb_profile(channels)
    color = image.color
    if (source or srgb) != (target or srgb):
        numbers = color[0].detach().cpu().float().permute(1, 2, 0).numpy()
        converted = apply_profiles(numbers, source or srgb, target or srgb)
        planes = torch.from_numpy(np.ascontiguousarray(converted.transpose(2, 0, 1)))
        color = planes[None].to(color.device, color.dtype)
    return replace(image, color=color, icc_profile=target, color_chunks=NO_COLOR_CHUNKS)
