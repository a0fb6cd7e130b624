"""Pictures whose numbers mean the same colors in another encoding."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from patchattn.tasks.codecs import NO_COLOR_CHUNKS
from patchattn.tasks.codecs.icc import apply_profiles, fit_profile, srgb_profile
from patchattn.tasks.images import Image

__all__ = ["profile_of", "srgb_profile", "to_profile", "to_srgb"]


def profile_of(picture: Image, *, argument: str = "picture") -> bytes | None:
    """Return the ICC profile that says what a picture's numbers mean; None: the file says nothing, so sRGB.

    What speaks for the colors is, in this order: the chunk cICP of PNG, the ICC profile, the chunks sRGB, and gAMA with
    cHRM. A profile of gray is turned into one of RGB for an RGB picture, and the other way round.

    Args:
        picture: as `read_image` returns it.
        argument: what an error calls it.

    Raises:
        ValueError: there is no such profile (PQ and HLG tell more light than white), or it is damaged.

    Example:
        >>> profile_of(Image(torch.rand(1, 3, 4, 6))) is None
        True
    """
    channels = picture.color.shape[1]
    try:
        profile = picture.color_chunks.profile(channels, picture.icc_profile)
        return None if profile is None else fit_profile(profile, channels)
    except ValueError as error:
        raise ValueError(
            f"{argument}: what its file says of its colors cannot be applied ({error}); expected a color profile of "
            f"{'gray' if channels == 1 else 'RGB'}, or none: convert it to sRGB first."
        ) from error


def to_srgb(picture: Image, *, argument: str = "picture") -> Image:
    """Return a picture that shows the same colors in sRGB, with neither profile nor chunks; gray stays gray.

    LittleCMS converts, in floating point, so that 16 bits stay 16: relative to white, black to black, and what sRGB
    cannot show is clipped. A picture without a profile counts as sRGB and stays as it is.

    Args:
        picture: what to convert.
        argument: what an error calls it.

    Raises:
        ValueError: see `profile_of`.

    Example:
        >>> from patchattn.tasks.codecs import ColorChunks
        >>> linear = ColorChunks((("gAMA", (100_000).to_bytes(4, "big")),))
        >>> picture = Image(torch.full((1, 1, 4, 6), 0.2140), color_chunks=linear)
        >>> round(to_srgb(picture).color[0, 0, 0, 0].item(), 3)
        0.5
    """
    return to_profile(picture, None, argument=argument)


def to_profile(picture: Image, profile: bytes | None, *, argument: str = "picture") -> Image:
    """Return a picture that shows the same colors in the encoding of a profile.

    Args:
        picture: what to convert; see `to_srgb`.
        profile: of RGB or of gray. A gray picture stays gray, and gets the equivalent for gray of a profile of RGB; an
            RGB picture stays RGB likewise. None: sRGB.
        argument: what an error calls the picture.

    Returns:
        The picture, with `profile`, fitted to its channels.

    Raises:
        ValueError: see `profile_of`.

    Example:
        >>> picture = to_profile(Image(torch.rand(1, 1, 4, 6)), srgb_profile())
        >>> picture.color.shape[1], picture.icc_profile[16:20]
        (1, b'GRAY')
    """
    channels = picture.color.shape[1]
    source = profile_of(picture, argument=argument)
    target = None if profile is None else fit_profile(profile, channels)
    srgb = srgb_profile(channels)
    color = picture.color
    if (source or srgb) != (target or srgb):
        numbers = color[0].detach().cpu().float().permute(1, 2, 0).numpy()
        converted = apply_profiles(numbers, source or srgb, target or srgb)
        planes = torch.from_numpy(np.ascontiguousarray(converted.transpose(2, 0, 1)))
        color = planes[None].to(color.device, color.dtype)
    return replace(picture, color=color, icc_profile=target, color_chunks=NO_COLOR_CHUNKS)
