"""Conversion of CMYK and L*a*b* to sRGB."""

from __future__ import annotations

from typing import cast

import numpy as np
from numpy.typing import NDArray

from patchattn.tasks.codecs.icc import D50, SRGB_PRIMARIES, apply_profiles, is_sound, space_of, srgb_profile, xyz_of_rgb
from patchattn.tasks.codecs.samples import Array, Notes

__all__ = ["from_cmyk", "from_lab"]


def from_cmyk(array: Array, profile: bytes | None) -> tuple[Array, Notes]:
    """Convert CMYK, (height, width, 4), to sRGB; also returns notes.

    Args:
        profile: the ICC profile used, if it is one for CMYK.
    """
    largest = np.iinfo(array.dtype).max
    inks = array.astype(np.float32) / largest
    if profile is not None and space_of(profile) == "cmyk" and is_sound(profile):
        note = "has CMYK colors, which are converted to sRGB by their profile"
        return _rounded(apply_profiles(inks, profile, srgb_profile()), array), (note,)
    how = "without a profile" if profile is None else "with a profile that is not one of CMYK or is damaged"
    note = f"has CMYK colors {how}; they are converted by the plain formula, (1 - ink) (1 - black)"
    return _rounded((1 - inks[:, :, :3]) * (1 - inks[:, :, 3:]), array), (note,)


def from_lab(lab: NDArray[np.floating], like: Array) -> tuple[Array, Notes]:
    """Convert L*a*b* under D50, (height, width, 3), to sRGB in the dtype of `like`; also returns notes."""
    f = (lab[:, :, :1] + 16) / 116 + np.stack([lab[:, :, 1] / 500, 0 * lab[:, :, 1], -lab[:, :, 2] / 200], 2)
    xyz = D50 * np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29))
    linear = np.clip(xyz @ np.linalg.inv(xyz_of_rgb(SRGB_PRIMARIES)).T, 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return _rounded(encoded, like), ("has L*a*b* colors, which are converted to sRGB",)


def _rounded(numbers: NDArray[np.floating], like: Array) -> Array:
    largest = np.iinfo(like.dtype).max
    return cast("Array", np.rint(np.clip(numbers, 0, 1) * largest).astype(like.dtype))
