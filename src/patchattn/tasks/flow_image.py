"""Visualization of a field of offsets as an image."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Num
from torch import Tensor

from patchattn.tasks.images import Image

__all__ = ["flow_image"]


def flow_image(
    offsets: Num[Tensor, "2 height width"],
    *,
    matched: Bool[Tensor, "height width"] | None = None,
    largest: float | None = None,
) -> Image:
    r"""Draw offsets as optical flow: hue is the direction, saturation the length.

    $$\text{hue} = \operatorname{atan2}(dy, dx) / 2\pi, \qquad
      \text{saturation} = \min(1, \sqrt{dy^2 + dx^2} / \text{largest}), \qquad \text{value} = 1$$

    So white is no offset, red right, yellow-green down, cyan left and violet up (rows count downwards).

    Args:
        offsets: match minus query position, (row, column) in pixels.
        matched: False where there is no match; drawn black. None: all matched.
        largest: the length in pixels from which on the saturation is full. None: twice the median length (a few stray
            matches, which may lie anywhere, do not pale the rest), and at least 1.

    Returns:
        An RGB image of 8 bits a channel.

    Raises:
        ValueError: `offsets` or `matched` has another shape, or `largest` is not positive.

    Example:
        >>> rightwards = torch.tensor([0, 5]).view(2, 1, 1).expand(2, 4, 6)
        >>> flow_image(rightwards, largest=10).color[0, :, 0, 0]
        tensor([1.0000, 0.5000, 0.5000])
    """
    if offsets.ndim != 3 or offsets.shape[0] != 2:
        raise ValueError(f"offsets: got shape {tuple(offsets.shape)}, expected (2, height, width).")
    if matched is None:
        matched = torch.ones(offsets.shape[1:], dtype=torch.bool)
    if matched.shape != offsets.shape[1:]:
        raise ValueError(f"matched: got shape {tuple(matched.shape)}, expected {tuple(offsets.shape[1:])}.")
    if largest is not None and not largest > 0:
        raise ValueError(f"largest: got {largest}, expected a length in pixels above 0.")
    rows, columns = offsets.detach().cpu().float()
    matched = matched.cpu()
    length = torch.hypot(rows, columns)
    if largest is None:
        largest = max(1.0, 2 * float(length[matched].median())) if matched.any() else 1.0
    saturation = (length / largest).clamp(max=1)
    hue = torch.atan2(rows, columns) / (2 * torch.pi)
    # HSV to RGB at value 1, one channel at a time (red, green, blue: 5, 3, 1).
    shift = torch.tensor([5.0, 3.0, 1.0]).view(3, 1, 1)
    sector = torch.remainder(shift + 6 * hue, 6)
    color = 1 - saturation * torch.minimum(sector, 4 - sector).clamp(0, 1)
    return Image((color * matched)[None])
