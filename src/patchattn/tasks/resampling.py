"""Pictures made larger and smaller."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

__all__ = ["back_project", "resize"]


def resize(
    image: Float[Tensor, "batch channels height width"], size: tuple[int, int]
) -> Float[Tensor, "batch channels new_height new_width"]:
    """Resample by Keys' cubic kernel (a = -1/2), widened where the image becomes smaller, so that nothing aliases.

    It is what MATLAB's `imresize` does, by which super-resolution is measured. Results may leave [0, 1] at edges.

    Args:
        image: float32 or float64.
        size: (height, width) of the result; both images cover the same area.

    Example:
        >>> import torch
        >>> resize(torch.full((1, 1, 4, 6), 0.25), (2, 3))
        tensor([[[[0.2500, 0.2500, 0.2500],
                  [0.2500, 0.2500, 0.2500]]]])
    """
    return F.interpolate(image, size=size, mode="bicubic", antialias=True, align_corners=False)


def back_project(
    high: Float[Tensor, "batch channels high_height high_width"],
    low: Float[Tensor, "batch channels height width"],
    *,
    times: int = 3,
) -> Float[Tensor, "batch channels high_height high_width"]:
    r"""Change an image so that it becomes `low` when it is made smaller (Irani and Peleg 1991).

    $$h \leftarrow h + \uparrow(l - \downarrow h)$$

    Args:
        high: what is changed; float32 or float64.
        low: what is known of it.
        times: how often. What is missing becomes several times smaller each time, but for noise from pixel to pixel: of
            photographs less than a step of 8 bits is left after 3.

    Example:
        >>> import torch
        >>> low = torch.linspace(0, 1, 8).expand(1, 1, 8, 8)
        >>> high = back_project(torch.zeros(1, 1, 16, 16), low)
        >>> bool((resize(high, (8, 8)) - low).abs().max() < 1 / 255)
        True
    """
    small, large = (low.shape[2], low.shape[3]), (high.shape[2], high.shape[3])
    for _ in range(times):
        high = high + resize(low - resize(high, small), large)
    return high
