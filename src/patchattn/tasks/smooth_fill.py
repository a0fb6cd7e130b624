"""Holes filled smoothly from their borders: what a completion starts from, and how it is fitted to its surroundings."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

__all__ = ["smooth_fill"]


def smooth_fill(
    image: Float[Tensor, "1 channels height width"], hole: Bool[Tensor, "1 1 height width"], *, relaxations: int = 10
) -> Float[Tensor, "1 channels height width"]:
    """Span the hole with a membrane: every pixel of it nearly the mean of its four neighbours.

    Known pixels are averaged two by two until the hole is gone, and each hole pixel takes the finest average that there
    is (push and pull, Gortler et al. 1996). On the way back every size is relaxed: hole pixels become the means of
    their neighbours, so many times. All 0 where nothing is known.

    Args:
        image: any channels; what is in the hole does not count.
        hole: True: to be filled.
        relaxations: how often hole pixels are averaged with their neighbours, at every size.

    Example:
        >>> hole = torch.zeros(1, 1, 5, 5, dtype=torch.bool)
        >>> hole[..., 1:4, 1:4] = True
        >>> smooth_fill(torch.full((1, 1, 5, 5), 0.25), hole).unique()
        tensor([0.2500])
    """
    return _pushed_and_pulled(torch.where(hole, 0, image), (~hole).to(image.dtype), relaxations)


def _pushed_and_pulled(image: Tensor, known: Tensor, relaxations: int) -> Tensor:
    """`image` is 0 where it is not known."""
    if known.all() or max(image.shape[2:]) == 1:
        return image
    share = F.avg_pool2d(known, 2, ceil_mode=True)
    mean = F.avg_pool2d(image, 2, ceil_mode=True) / share.clamp(min=0.25)
    coarse = _pushed_and_pulled(mean, (share > 0).to(image.dtype), relaxations)
    pulled = F.interpolate(coarse, size=image.shape[2:], mode="bilinear", align_corners=False)
    return _relaxed(torch.where(known > 0, image, pulled), known == 0, relaxations)


def _relaxed(image: Tensor, hole: Tensor, times: int) -> Tensor:
    cross = torch.tensor([[0, 1, 0], [1, 0, 1], [0, 1, 0]], dtype=image.dtype, device=image.device) / 4
    kernel = cross.expand(image.shape[1], 1, 3, 3)
    for _ in range(times):
        mean = F.conv2d(F.pad(image, (1, 1, 1, 1), mode="replicate"), kernel, groups=image.shape[1])
        image = torch.where(hole, mean, image)
    return image
