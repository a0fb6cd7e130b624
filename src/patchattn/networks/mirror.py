"""Reflection padding to a multiple of some size, for images smaller than the padding too."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["mirrored"]


def mirrored(image: Tensor, multiple: int, least: int = 1) -> Tensor:
    """Pad an image `(B, C, height, width)` at the right and below to a multiple of some size, by reflection.

    The image is reflected at its last and first pixel, as often as needed.

    Args:
        image: to pad.
        multiple: height and width of the result are multiples of it.
        least: the smallest height and width of the result.

    Example:
        >>> mirrored(torch.tensor([[[[1.0, 2.0, 3.0]]]]), 4, least=4)[0, 0, 0].tolist()
        [1.0, 2.0, 3.0, 2.0]
    """
    for dim in (2, 3):
        length = image.shape[dim]
        target = max(-(-least // multiple), -(-length // multiple)) * multiple
        if target > length:
            image = image.index_select(dim, _reflected_indices(length, target, image.device))
    return image


def _reflected_indices(length: int, target: int, device: torch.device) -> Tensor:
    """Indices into a reflected image of `length` pixels for `target` positions."""
    period = max(1, 2 * length - 2)
    index = torch.arange(target, device=device) % period
    return torch.minimum(index, period - index)
