"""Image pyramid of an image with a hole, with the features that patches are compared by."""

from __future__ import annotations

from dataclasses import dataclass
from math import floor, log2

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from patchattn.tasks.windows import running_maximum, running_sum

__all__ = ["PyramidLevel", "any_within", "dilated", "image_pyramid"]

MIN_KNOWN_SHARE = 0.6
"""Smallest share of known pixels under a downsampled pixel that counts as known."""
TEXTURE_RADIUS = 4
"""Radius over which texture is averaged, in pixels."""
MIN_PATCHES_ACROSS = 4
"""Smallest width and height of a level, in patches."""


@dataclass(frozen=True)
class PyramidLevel:
    """One level of the pyramid."""

    image: Float[Tensor, "1 channels height width"]
    """Image at this level, 0 in the hole."""
    texture: Float[Tensor, "1 2 height width"]
    """Mean absolute horizontal and vertical differences around each pixel, which distinguish smooth from rough texture
    where a downsampled patch could be either (Newson et al. 2014)."""
    hole: Bool[Tensor, "1 1 height width"]
    sources: Bool[Tensor, "1 1 height width"]
    """Centers of the patches that may be copied: completely known, and allowed."""
    guide: Float[Tensor, "1 maps height width"] | None = None
    """Maps that are compared beside the colors, known in the hole too."""

    @property
    def size(self) -> tuple[int, int]:
        return self.image.shape[2], self.image.shape[3]


def image_pyramid(
    image: Float[Tensor, "1 channels height width"],
    hole: Bool[Tensor, "1 1 height width"],
    keep_out: Bool[Tensor, "1 1 height width"],
    patch_size: int,
    levels: int | None,
    guide: Float[Tensor, "1 maps height width"] | None = None,
) -> list[PyramidLevel]:
    """Build a pyramid by halving until the hole is about half as wide as a patch; full size first.

    Args:
        image: any channels.
        hole: True: unknown.
        keep_out: True: no patch with this pixel may be copied.
        patch_size: side of the patches.
        levels: how many sizes; None: as above. Fewer come back where the image is too small for so many, or where no
            patch would be left to copy.
        guide: maps that are compared beside the colors; every second row and column of them is taken, not a mean, which
            for phases or labels would be none of them.
    """
    wanted = 1 + _halvings(hole, patch_size) if levels is None else levels
    scales = [_scale(image, hole, keep_out, patch_size, guide)]
    while len(scales) < wanted and min(scales[-1].size) >= 2 * MIN_PATCHES_ACROSS * patch_size:
        last = scales[-1]
        reduced, hole = _halved(last.image, last.hole)
        keep_out = F.max_pool2d(keep_out.float(), 2, ceil_mode=True) > 0
        guide = None if guide is None else guide[:, :, ::2, ::2]
        scale = _scale(reduced, hole, keep_out, patch_size, guide)
        if not scale.sources.any():
            break
        scales.append(scale)
    return scales


def dilated(mask: Bool[Tensor, "1 1 height width"], reach: int) -> Bool[Tensor, "1 1 height width"]:
    """Binary dilation of a mask by a square of radius `reach`."""
    return any_within(mask, reach, reach)


def any_within(mask: Bool[Tensor, "1 1 height width"], before: int, after: int) -> Bool[Tensor, "1 1 height width"]:
    """Whether the mask is True at any pixel from so many rows and columns before to so many after."""
    for dim in (2, 3):
        mask = F.pad(mask, (before, after) if dim == 3 else (0, 0, before, after))
        mask = running_maximum(mask, before + after + 1, dim)
    return mask


def _halvings(hole: Tensor, patch_size: int) -> int:
    """Number of halvings after which no square larger than half a patch fits into the hole."""
    count, inside = 0, hole.float()
    while inside.any() and min(inside.shape[2:]) > 1:
        inside = -F.max_pool2d(-inside, 2)
        count += 1
    return max(0, count - floor(log2(patch_size)))


def _scale(image: Tensor, hole: Tensor, keep_out: Tensor, patch_size: int, guide: Tensor | None) -> PyramidLevel:
    sources = ~dilated(hole | keep_out, patch_size // 2)
    return PyramidLevel(torch.where(hole, 0, image), _texture(image, hole), hole, sources, guide)


def _halved(image: Tensor, hole: Tensor) -> tuple[Tensor, Tensor]:
    """Downsample by two with a binomial filter over known pixels; also returns the hole."""
    line = image.new_tensor([1, 4, 6, 4, 1]) / 16
    kernel = (line[:, None] * line).expand(image.shape[1], 1, 5, 5)
    known = (~hole).to(image.dtype)

    def filtered(image: Tensor) -> Tensor:
        padded = F.pad(image, (2, 2, 2, 2), mode="replicate")
        return F.conv2d(padded, kernel[: image.shape[1]], stride=2, groups=image.shape[1])

    share = filtered(known)
    return filtered(image * known) / share.clamp(min=1e-3), hole[:, :, ::2, ::2] | (share < MIN_KNOWN_SHARE)


def _texture(image: Tensor, hole: Tensor) -> Tensor:
    gray = image.mean(1, keepdim=True)
    across = F.pad(gray[..., 1:] - gray[..., :-1], (0, 1, 0, 0)).abs()
    down = F.pad(gray[..., 1:, :] - gray[..., :-1, :], (0, 0, 0, 1)).abs()
    # A difference with a pixel of the hole is none.
    known = (~dilated(hole, 1)).to(image.dtype)
    sums = _summed_around(torch.cat([across * known, down * known, known], 1))
    return sums[:, :2] / sums[:, 2:].clamp(min=1)


def _summed_around(image: Tensor) -> Tensor:
    """Sums over the square of TEXTURE_RADIUS around each pixel; the border is repeated outwards."""
    image = F.pad(image, (TEXTURE_RADIUS,) * 4, mode="replicate")
    return running_sum(running_sum(image, 2 * TEXTURE_RADIUS + 1, 2), 2 * TEXTURE_RADIUS + 1, 3)
