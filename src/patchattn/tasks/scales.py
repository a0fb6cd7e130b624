"""A picture with a hole at falling sizes, with what a completion compares patches by."""

from __future__ import annotations

from dataclasses import dataclass
from math import floor, log2

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

__all__ = ["Scale", "dilated", "scales_of"]

KNOWN = 0.6
"""A reduced pixel is known if so much of what it is the mean of is."""
TEXTURE_REACH = 4
"""Pixels on each side over which texture is averaged."""
PATCHES_ACROSS = 4
"""The smallest scale is at least so many patches wide and high."""


@dataclass(frozen=True)
class Scale:
    """The picture at one size."""

    picture: Float[Tensor, "1 channels height width"]
    """0 in the hole."""
    texture: Float[Tensor, "1 2 height width"]
    """Mean absolute differences from pixel to pixel, across and down, around each pixel: smooth and rough are told
    apart by them where a blurred patch could be either (Newson et al. 2014)."""
    hole: Bool[Tensor, "1 1 height width"]
    sources: Bool[Tensor, "1 1 height width"]
    """Centers of the patches that may be copied: wholly known, and allowed."""

    @property
    def size(self) -> tuple[int, int]:
        return self.picture.shape[2], self.picture.shape[3]


def scales_of(
    picture: Float[Tensor, "1 channels height width"],
    hole: Bool[Tensor, "1 1 height width"],
    keep_out: Bool[Tensor, "1 1 height width"],
    patch_size: int,
    levels: int | None,
) -> list[Scale]:
    """Halve a picture until its hole is about as wide as a patch; the full size comes first.

    Args:
        picture: any channels.
        hole: True: unknown.
        keep_out: True: no patch with this pixel may be copied.
        patch_size: side of the patches.
        levels: how many sizes; None: as above. Fewer come back where the picture is too small for so many, or where no
            patch would be left to copy.
    """
    wanted = 1 + _halvings(hole, patch_size) if levels is None else levels
    scales = [_scale(picture, hole, keep_out, patch_size)]
    while len(scales) < wanted and min(scales[-1].size) >= 2 * PATCHES_ACROSS * patch_size:
        last = scales[-1]
        reduced, hole = _halved(last.picture, last.hole)
        keep_out = F.max_pool2d(keep_out.float(), 2, ceil_mode=True) > 0
        scale = _scale(reduced, hole, keep_out, patch_size)
        if not scale.sources.any():
            break
        scales.append(scale)
    return scales


def dilated(mask: Bool[Tensor, "1 1 height width"], reach: int) -> Bool[Tensor, "1 1 height width"]:
    """True wherever the mask is True within so many pixels."""
    down = F.max_pool2d(mask.float(), (2 * reach + 1, 1), 1, (reach, 0))
    return F.max_pool2d(down, (1, 2 * reach + 1), 1, (0, reach)) > 0


def _halvings(hole: Tensor, patch_size: int) -> int:
    """How often to halve so that no square of more than a patch lies in the hole."""
    count, inside = 0, hole.float()
    while inside.any() and min(inside.shape[2:]) > 1:
        inside = -F.max_pool2d(-inside, 2)
        count += 1
    return max(0, count - 1 - floor(log2(patch_size)))


def _scale(picture: Tensor, hole: Tensor, keep_out: Tensor, patch_size: int) -> Scale:
    sources = ~dilated(hole | keep_out, patch_size // 2)
    return Scale(torch.where(hole, 0, picture), _texture(picture, hole), hole, sources)


def _halved(picture: Tensor, hole: Tensor) -> tuple[Tensor, Tensor]:
    """Every other pixel after a binomial filter over what is known, and the hole there."""
    line = picture.new_tensor([1, 4, 6, 4, 1]) / 16
    kernel = (line[:, None] * line).expand(picture.shape[1], 1, 5, 5)
    known = (~hole).to(picture.dtype)

    def filtered(image: Tensor) -> Tensor:
        padded = F.pad(image, (2, 2, 2, 2), mode="replicate")
        return F.conv2d(padded, kernel[: image.shape[1]], stride=2, groups=image.shape[1])

    share = filtered(known)
    return filtered(picture * known) / share.clamp(min=1e-3), hole[:, :, ::2, ::2] | (share < KNOWN)


def _texture(picture: Tensor, hole: Tensor) -> Tensor:
    gray = picture.mean(1, keepdim=True)
    across = F.pad(gray[..., 1:] - gray[..., :-1], (0, 1, 0, 0)).abs()
    down = F.pad(gray[..., 1:, :] - gray[..., :-1, :], (0, 0, 0, 1)).abs()
    # A difference with a pixel of the hole is none.
    known = (~dilated(hole, 1)).to(picture.dtype)
    side, reach = 2 * TEXTURE_REACH + 1, (TEXTURE_REACH,) * 4

    def around(image: Tensor) -> Tensor:
        return F.avg_pool2d(F.pad(image, reach, mode="replicate"), side, 1)

    return around(torch.cat([across, down], 1) * known) / around(known).clamp(min=1 / side**2)
