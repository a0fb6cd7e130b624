"""Whole-number Gaussians of an offset, and draws from them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from patchattn.kernels.cpu.compiler import inlined
from patchattn.kernels.gaussian import gaussian_weights

__all__ = ["Cumulated", "cumulated_weights", "draw_offset", "weight_at", "weight_between"]

Cumulated = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]
"""For each of three dimensions: entry n is the sum of the first n weights, those of the offsets -r, -r + 1, ..."""


def cumulated_weights(scale: tuple[float, ...]) -> Cumulated:
    """The dimensions in front that the image does not have get the offset 0 alone."""
    tables = [np.array([0, 1], np.int64)] * (3 - len(scale))
    tables += [np.concatenate([[0], np.cumsum(gaussian_weights(one))]) for one in scale]
    return tables[0], tables[1], tables[2]


@inlined
def weight_between(cumulated: Any, first: int, last: int) -> int:
    """The sum of the weights of the offsets from `first` to `last`, as far as there are any."""
    radius = (cumulated.size - 2) // 2
    end, start = min(last, radius) + radius + 1, max(first, -radius) + radius
    if end <= start:
        return np.int64(0)
    return cumulated[end] - cumulated[start]


@inlined
def weight_at(cumulated: Any, offset: int) -> int:
    radius = (cumulated.size - 2) // 2
    if abs(offset) > radius:
        return np.int64(0)
    return cumulated[offset + radius + 1] - cumulated[offset + radius]


@inlined
def draw_offset(cumulated: Any, first: int, number: int) -> int:
    """The first offset, from `first` on, up to which the weights sum to more than `number`."""
    radius = (cumulated.size - 2) // 2
    low = max(first, -radius) + radius
    wanted = cumulated[low] + number
    high = cumulated.size - 2
    while low < high:
        middle = (low + high) // 2
        if cumulated[middle + 1] > wanted:
            high = middle
        else:
            low = middle + 1
    return low - radius
