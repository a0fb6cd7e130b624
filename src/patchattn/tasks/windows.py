"""Sums and maxima over windows of an image, by slices: pooling takes up to ten times as long."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["running_maximum", "running_sum"]


def running_maximum(image: Tensor, side: int, dim: int) -> Tensor:
    """Compute the maximum of every `side` neighbors along a dimension (of a mask: whether any is True).

    Windows become twice as long each time, so that the time grows with the logarithm of their length.
    """
    length = 1
    while length < side:
        step = min(length, side - length)
        count = image.shape[dim] - step
        image = torch.maximum(image.narrow(dim, 0, count), image.narrow(dim, step, count))
        length += step
    return image


def running_sum(image: Tensor, side: int, dim: int) -> Tensor:
    """Compute the sum of every `side` neighbors along a dimension: of 8 and of 1 for 9, of 4 and of 1 for 5."""
    parts: list[tuple[int, Tensor]] = []  # the powers of 2 that add up to the side, and the sums of so many
    sums, length = image, 1
    while length <= side:
        if side & length:
            parts.append((length, sums))
        if 2 * length <= side:
            count = sums.shape[dim] - length
            sums = sums.narrow(dim, 0, count) + sums.narrow(dim, length, count)
        length *= 2
    count = image.shape[dim] - side + 1
    summed, total = parts.pop()
    total = total.narrow(dim, 0, count)
    while parts:
        length, sums = parts.pop()
        total = total + sums.narrow(dim, summed, count)
        summed += length
    return total
