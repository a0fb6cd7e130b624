"""Pictures with their mirror image to the right and below, for networks that compute in multiples of some size."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["mirrored"]


def mirrored(image: Tensor, multiple: int, least: int = 1) -> Tensor:
    """Extend an image `(B, C, height, width)` to multiples of so many pixels, and at least `least`.

    What is added mirrors the image at its last and first pixel, again and again.

    Example:
        >>> mirrored(torch.tensor([[[[1.0, 2.0, 3.0]]]]), 4, least=4)[0, 0, 0].tolist()
        [1.0, 2.0, 3.0, 2.0]
    """
    for dim in (2, 3):
        length = image.shape[dim]
        target = max(-(-least // multiple), -(-length // multiple)) * multiple
        if target > length:
            image = image.index_select(dim, _places(length, target, image.device))
    return image


def _places(length: int, target: int, device: torch.device) -> Tensor:
    """Where `target` positions lie in an image that is mirrored at both ends."""
    period = max(1, 2 * length - 2)
    place = torch.arange(target, device=device) % period
    return torch.minimum(place, period - place)
