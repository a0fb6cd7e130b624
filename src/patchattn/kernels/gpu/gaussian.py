"""Whole-number Gaussians of an offset, and draws from them."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from patchattn.kernels.gaussian import gaussian_weights
from patchattn.kernels.gpu.grid import Extent

__all__ = ["Gaussian", "draw_between", "draw_offset", "gaussians_of", "weight_between"]


class Gaussian(NamedTuple):
    """The weights of one dimension. All of them together stay below 2^31: their sums are numbers of 32 bits."""

    cumulated: Any
    """int32 `(2 radius + 2,)`: entry n is the sum of the first n weights, those of the offsets -r, -r + 1, ..."""
    radius: Any
    STEPS: Any
    """That a search in the table takes; unrolled, it needs fewer registers. A multiple of four, since each number of
    them is another kernel."""


def gaussians_of(scale: tuple[float, ...], device: torch.device) -> Extent:
    """The Gaussian of each dimension; None for those in front that the image does not have.

    The first use of a scale on a device copies its table there; after that nothing comes from the host.
    """
    tables = [_cumulated(length, device) for length in scale]
    return Extent(*(None,) * (3 - len(scale)), *map(_gaussian, tables))


def _gaussian(cumulated: Tensor) -> Gaussian:
    radius = cumulated.numel() // 2 - 1
    return Gaussian(cumulated, radius, tl.constexpr(4 * triton.cdiv((2 * radius).bit_length(), 4)))


@lru_cache(maxsize=64)
def _cumulated(scale: float, device: torch.device) -> Tensor:
    weights = torch.from_numpy(gaussian_weights(scale))
    return torch.nn.functional.pad(weights.cumsum(0), (1, 0)).int().to(device)


@triton.jit
def weight_between(gaussian, first, last):
    """The sum of the weights of the offsets from `first` to `last`, as far as there are any; at most 0 for none."""
    return _below(gaussian, last + 1) - _below(gaussian, first)


@triton.jit
def _below(gaussian, offset):
    """The sum of the weights of all smaller offsets. What is beyond the table reads one of its ends."""
    number = tl.minimum(tl.maximum(offset + gaussian.radius, 0), 2 * gaussian.radius + 1)
    return tl.load(gaussian.cumulated + number)


@triton.jit
def draw_between(gaussian, first, number):
    """The first offset, from `first` on, up to which the weights sum to more than `number`.

    `number` is less than the sum from `first` to the last offset that may come out; else what comes means nothing.
    """
    return draw_offset(gaussian, _below(gaussian, first) + number)


@triton.jit
def draw_offset(gaussian, number):
    """The first of all offsets up to which the weights sum to more than `number`."""
    place = tl.zeros_like(number)
    for step in tl.static_range(1, gaussian.STEPS + 1):
        further = place + 2 ** (gaussian.STEPS - step)
        known = further <= 2 * gaussian.radius
        reached = tl.load(gaussian.cumulated + further, mask=known, other=0) <= number
        place = tl.where(known & reached, further, place)
    return place - gaussian.radius
