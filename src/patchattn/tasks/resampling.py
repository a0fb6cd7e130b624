"""Image resizing and back-projection."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from patchattn.tasks.windows import running_maximum

__all__ = ["FAR_SIDE", "Bounds", "back_project", "local_bounds", "resize"]

NEAR_SIDE, FAR_SIDE = 3, 31
"""Sides of the two neighborhoods, in low-resolution pixels, whose value ranges bound an enlarged image. Of lines that
stand thickly none is as dark in it as its ink: with 11 for the far one 0.1 dB is lost on buildings."""
THIN = 3
"""Width in low-resolution pixels from which on a structure has a plateau, which only ringing exceeds."""
OVERSHOOT = 0.5
"""Share of a thin structure's contrast by which its enlargement may exceed the range of the near neighborhood."""


def resize(
    image: Float[Tensor, "batch channels height width"], size: tuple[int, int]
) -> Float[Tensor, "batch channels new_height new_width"]:
    """Resize an image by antialiased bicubic interpolation (Keys' kernel, a = -1/2).

    The kernel is widened where the image becomes smaller. The same as MATLAB's `imresize`, the standard in
    super-resolution benchmarks. Results may leave [0, 1] at edges.

    Args:
        image: float32 or float64.
        size: (height, width) of the result; both images cover the same area.

    Example:
        >>> import torch
        >>> resize(torch.full((1, 1, 4, 6), 0.25), (2, 3))
        tensor([[[[0.2500, 0.2500, 0.2500],
                  [0.2500, 0.2500, 0.2500]]]])
    """
    if size[1] == 1:
        # Columns of one pixel come out wrong on the CPU (PyTorch 2.x), rows of one pixel right.
        return _resampled(image.transpose(2, 3).contiguous(), (1, size[0])).transpose(2, 3).contiguous()
    return _resampled(image, size)


@dataclass(frozen=True)
class Bounds:
    """Lower and upper bounds of each pixel of an image."""

    lower: Float[Tensor, "batch channels height width"]
    upper: Float[Tensor, "batch channels height width"]

    def clamp(
        self, image: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Clamp an image to the bounds; where they cross, the upper one wins."""
        return torch.minimum(torch.maximum(image, self.lower), self.upper)


def local_bounds(
    low: Float[Tensor, "batch channels height width"],
    size: tuple[int, int],
    *,
    overshoot: float = OVERSHOOT,
    near_side: int = NEAR_SIDE,
    far_side: int = FAR_SIDE,
) -> Bounds:
    r"""Compute bounds within which an enlargement of `low` shows no ringing.

    $$u = \min\big(\delta_3 l + \tfrac{1}{2}\, \delta_3 (l - \gamma l),\; \delta_{31} l\big)$$

    delta_n is the dilation by n x n low pixels (the local maximum), gamma the opening by 3 x 3: the top-hat l - gamma l
    is the contrast of what is bright and less than three pixels wide, and 0 on plateaus. So beside a step nothing
    exceeds the range of the nearest pixels, while a thin line, which the low image's pixels have blurred, may become
    brighter, but not brighter than what is 15 pixels away. The lower bound is the same of the negative. Each channel
    has bounds of its own; a constant image's are that constant.

    Args:
        low: the small image; float32 or float64.
        size: (height, width) of the enlargement.
        overshoot: the factor of the top-hat above; 0: nothing exceeds the range of the nearest pixels.
        near_side: n of the first two dilations, odd.
        far_side: n of the last dilation, which also limits thin structures, odd.

    Example:
        >>> import torch
        >>> step = torch.tensor([0.2, 0.2, 0.2, 0.7, 0.7, 0.7]).view(1, 1, 1, 6)
        >>> bounds = local_bounds(step, (1, 12))
        >>> bounds.lower[0, 0, 0, 4].item(), bounds.upper[0, 0, 0, 4].item()
        (0.2..., 0.6...)
    """
    bounds = -_largest(-low, overshoot, near_side, far_side), _largest(low, overshoot, near_side, far_side)
    lower, upper = (F.interpolate(bound, size, mode="nearest-exact") for bound in bounds)
    return Bounds(lower, upper)


def back_project(
    high: Float[Tensor, "batch channels high_height high_width"],
    low: Float[Tensor, "batch channels height width"],
    *,
    times: int = 3,
    bounds: Bounds | None = None,
) -> Float[Tensor, "batch channels high_height high_width"]:
    r"""Iterative back-projection: make an image consistent with its downsampled version `low` (Irani and Peleg 1991).

    $$h \leftarrow h + \uparrow(l - \downarrow h)$$

    Args:
        high: the image to correct; float32 or float64.
        low: the known low-resolution image.
        times: number of iterations. Each reduces the residual several times, except for pixel noise: for photographs
            less than one 8-bit step is left after 3.
        bounds: clamp the result in each iteration. A residual then remains at hard edges, which only ringing could make
            exact.

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
        if bounds is not None:
            high = bounds.clamp(high)
    return high


def _resampled(image: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(image, size=size, mode="bicubic", antialias=True, align_corners=False)


def _largest(low: Tensor, overshoot: float, near_side: int, far_side: int) -> Tensor:
    thin = low - _opened(low)
    return torch.minimum(_dilated(low, near_side) + overshoot * _dilated(thin, near_side), _dilated(low, far_side))


def _dilated(image: Tensor, side: int) -> Tensor:
    for dim in (2, 3):
        border = image.new_full((), -torch.inf).expand(*image.shape[:dim], side // 2, *image.shape[dim + 1 :])
        image = running_maximum(torch.cat([border, image, border], dim), side, dim)
    return image


def _opened(image: Tensor) -> Tensor:
    """The morphological opening by THIN x THIN pixels, the border repeated outside."""
    opposite = -F.pad(image, (THIN - 1,) * 4, mode="replicate")
    least = -running_maximum(running_maximum(opposite, THIN, 2), THIN, 3)
    return running_maximum(running_maximum(least, THIN, 2), THIN, 3)
