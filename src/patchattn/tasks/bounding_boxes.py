"""Bounding boxes of the separate parts of a mask."""

from __future__ import annotations

import torch
from jaxtyping import Bool

__all__ = ["bounding_boxes"]

MIN_GAP = 0.25
"""Smallest gap at which a box is split, as a share of its height or width. Each split saves that share of the work, and
many small holes close together stay in one box."""


def bounding_boxes(mask: Bool[torch.Tensor, "height width"]) -> list[tuple[slice, slice]]:
    """Disjoint rectangles, as slices of rows and columns, that cover every True pixel.

    Example:
        >>> mask = torch.zeros(40, 90, dtype=torch.bool)
        >>> mask[3:9, 2:5] = mask[20:30, 60:80] = True
        >>> bounding_boxes(mask)
        [(slice(3, 9, None), slice(2, 5, None)), (slice(20, 30, None), slice(60, 80, None))]
    """
    if not mask.any():
        return []
    lines = [mask.any(dim).nonzero()[:, 0] for dim in (1, 0)]
    for dim, found in enumerate(lines):
        steps = found.diff()
        if found.numel() > 1 and steps.max() - 1 >= MIN_GAP * (found[-1] - found[0] + 1):
            before = torch.arange(mask.shape[dim], device=mask.device) <= found[steps.argmax()]
            before = before[:, None] if dim == 0 else before
            return bounding_boxes(mask & before) + bounding_boxes(mask & ~before)
    rows, columns = (slice(int(found[0]), int(found[-1]) + 1) for found in lines)
    return [(rows, columns)]
