"""A mask cut into rectangles where wide gaps lie between its pixels."""

from __future__ import annotations

import torch
from jaxtyping import Bool

__all__ = ["boxes"]

GAP = 0.25
"""A gap is cut out if it is at least so much of the rectangle's height or width: each cut saves as much work, and many
small holes close together stay one."""


def boxes(mask: Bool[torch.Tensor, "height width"]) -> list[tuple[slice, slice]]:
    """Rectangles, as slices of rows and columns, that hold every True pixel and do not overlap.

    Example:
        >>> mask = torch.zeros(40, 90, dtype=torch.bool)
        >>> mask[3:9, 2:5] = mask[20:30, 60:80] = True
        >>> boxes(mask)
        [(slice(3, 9, None), slice(2, 5, None)), (slice(20, 30, None), slice(60, 80, None))]
    """
    if not mask.any():
        return []
    lines = [mask.any(dim).nonzero()[:, 0] for dim in (1, 0)]
    for dim, found in enumerate(lines):
        steps = found.diff()
        if found.numel() > 1 and steps.max() - 1 >= GAP * (found[-1] - found[0] + 1):
            before = torch.arange(mask.shape[dim], device=mask.device) <= found[steps.argmax()]
            before = before[:, None] if dim == 0 else before
            return boxes(mask & before) + boxes(mask & ~before)
    rows, columns = (slice(int(found[0]), int(found[-1]) + 1) for found in lines)
    return [(rows, columns)]
