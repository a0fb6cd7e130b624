"""Membrane interpolation of holes: initialization of a completion, and correction of its seams."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

__all__ = ["membrane_interpolation", "spread"]

FEW_RELAXATIONS = 3
"""Relaxations of a correction at every size: it is made anew in every vote, and need not be exact."""


def membrane_interpolation(
    image: Float[Tensor, "1 channels height width"],
    hole: Bool[Tensor, "1 1 height width"],
    *,
    needed: Bool[Tensor, "1 1 height width"] | None = None,
    relaxations: int = 10,
) -> Float[Tensor, "1 channels height width"]:
    """Fill a hole by membrane interpolation: every pixel is nearly the mean of its four neighbors (Laplace's equation).

    Known pixels are averaged two by two until the hole is gone, and each hole pixel takes the finest average that there
    is (push and pull, Gortler et al. 1996). On the way back every size is relaxed: hole pixels become the means of
    their neighbors, so many times. All 0 where nothing is known.

    Args:
        image: any channels; values in the hole are ignored.
        hole: True: to be filled.
        needed: mask of the hole's pixels that are used; others are only filled coarsely. None: all.
        relaxations: number of relaxations at every size.

    Example:
        >>> hole = torch.zeros(1, 1, 5, 5, dtype=torch.bool)
        >>> hole[..., 1:4, 1:4] = True
        >>> membrane_interpolation(torch.full((1, 1, 5, 5), 0.25), hole).unique()
        tensor([0.2500])
    """
    return _pushed_and_pulled(torch.where(hole, 0, image), (~hole).to(image.dtype), needed, relaxations)


def spread(
    correction: Float[Tensor, "1 channels height width"],
    given: Bool[Tensor, "1 1 height width"],
    hole: Bool[Tensor, "1 1 height width"],
) -> Float[Tensor, "1 channels height width"]:
    """Spread a correction from the pixels where it is given over a hole."""
    return membrane_interpolation(correction, ~given, needed=hole, relaxations=FEW_RELAXATIONS)


def _pushed_and_pulled(image: Tensor, known: Tensor, needed: Tensor | None, relaxations: int) -> Tensor:
    """Push-pull interpolation with relaxation; `image` is 0 where unknown."""
    if known.all() or max(image.shape[2:]) == 1:
        return image
    count = _summed_by_fours(known)
    mean = _summed_by_fours(image) / count.clamp(min=1)
    coarse = _pushed_and_pulled(mean, (count > 0).to(image.dtype), None, relaxations)
    pulled = _doubled(_doubled(coarse, 2), 3)[..., : image.shape[2], : image.shape[3]]
    hole = known == 0
    filled = torch.where(hole, pulled, image)
    return _relaxed(filled, hole if needed is None else hole & needed, relaxations)


def _summed_by_fours(image: Tensor) -> Tensor:
    """Sums of squares of four pixels; at odd borders, of those that there are."""
    height, width = image.shape[2:]
    even = F.pad(image, (0, width % 2, 0, height % 2))
    # By slices, which take a tenth of the time that pooling takes for small images.
    rows = even[:, :, ::2] + even[:, :, 1::2]
    return rows[..., ::2] + rows[..., 1::2]


def _doubled(image: Tensor, dim: int) -> Tensor:
    """Linear interpolation to twice the size, the inverse of `_summed_by_fours`.

    Not by `interpolate`, whose last bit depends on the number of threads.
    """
    count = image.shape[dim]
    before = torch.cat([image.narrow(dim, 0, 1), image.narrow(dim, 0, count - 1)], dim)
    after = torch.cat([image.narrow(dim, 1, count - 1), image.narrow(dim, count - 1, 1)], dim)
    triple = 3 * image
    return torch.stack([triple + before, triple + after], dim + 1).mul_(0.25).flatten(dim, dim + 1)


def _relaxed(image: Tensor, hole: Tensor, times: int) -> Tensor:
    """Jacobi relaxation of the hole's pixels."""
    for _ in range(times):
        # All pixels, by slices: reading the hole's neighbors by their indices takes two to four times as long.
        edged = F.pad(image, (1, 1, 1, 1), mode="replicate")
        mean = edged[..., :-2, 1:-1] + edged[..., 1:-1, :-2]
        mean += edged[..., 1:-1, 2:]
        mean += edged[..., 2:, 1:-1]
        image = torch.where(hole, mean.mul_(0.25), image)
    return image
