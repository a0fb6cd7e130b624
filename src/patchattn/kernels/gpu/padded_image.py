"""Padded, channel-last images, one for each (batch item, head)."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton.language as tl
from torch import Tensor

from patchattn.kernels.gpu.grid import Extent, three

__all__ = ["PaddedImage", "compute_dtype", "pad", "triton_dtype", "unpad_gradient"]

ALIGNED = 4
"""Channels are filled up with zeros to a multiple of this, so that a thread loads four numbers at once."""


class PaddedImage(NamedTuple):
    """Padded pixels as kernels read them."""

    pixels: Any
    """`(items, T, Y, X, PIXEL)`, in the image's own dtype: half precision takes half the memory traffic."""
    items: Any
    """Items with a table of their own; a shared image has one for each head."""
    size: Extent
    """With the padding."""
    CHANNELS: Any
    """Channels of one head."""
    PIXEL: Any
    """Elements from one pixel to the next."""

    def stride(self) -> int:
        return int(self.size.t * self.size.y * self.size.x * self.PIXEL.value)


def compute_dtype(*tensors: Tensor) -> torch.dtype:
    """Half precision is for storage only."""
    return torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32


def triton_dtype(dtype: torch.dtype) -> Any:
    return tl.constexpr(tl.float64 if dtype == torch.float64 else tl.float32)


def pad(image: Tensor, heads: int, radius: tuple[int, ...], padding_mode: str) -> PaddedImage:
    """Copy `(B, C, *spatial)` into a table. Only sizes decide what is launched: no value is read by the host."""
    batch, channels = image.shape[0], image.shape[1] // heads
    size, margin = three(tuple(image.shape[2:]), 1), three(radius, 0)
    pixel = -(-channels // ALIGNED) * ALIGNED if channels > 1 else 1
    padded = Extent(*(n + 2 * r for n, r in zip(size, margin, strict=True)))
    pixels = image.new_zeros((batch * heads, *padded, pixel))
    inside = pixels
    for dim in range(3):
        inside = inside.narrow(dim + 1, margin[dim], size[dim])
    inside[..., :channels].copy_(image.detach().reshape(batch * heads, channels, *size).movedim(1, -1))
    if padding_mode != "zeros":
        _fill_borders(pixels, size, margin, padding_mode)
    return PaddedImage(pixels, batch * heads, padded, tl.constexpr(channels), tl.constexpr(pixel))


def _fill_borders(pixels: Tensor, size: Extent, margin: Extent, padding_mode: str) -> None:
    # Whole slices of the padded table, one dimension after the other: corners come out right by themselves.
    for dim in range(3):
        for place, source in _sources(size[dim], margin[dim], padding_mode):
            pixels.select(dim + 1, place).copy_(pixels.select(dim + 1, margin[dim] + source))


def unpad_gradient(gradient: Tensor, like: Tensor, heads: int, radius: tuple[int, ...], padding_mode: str) -> Tensor:
    """The transpose of `pad`: fold the gradient of the table, `(items, T, Y, X, any)`, back to the image's."""
    batch, channels = like.shape[0], like.shape[1] // heads
    size, margin = three(tuple(like.shape[2:]), 1), three(radius, 0)
    for dim in range(3):
        inner = gradient.narrow(dim + 1, margin[dim], size[dim])
        if padding_mode != "zeros":
            for place, source in _sources(size[dim], margin[dim], padding_mode):
                inner.select(dim + 1, source).add_(gradient.select(dim + 1, place))
        gradient = inner
    gradient = gradient[..., :channels].movedim(-1, 1)
    return gradient.reshape(batch, heads * channels, *like.shape[2:]).to(like.dtype).contiguous()


def _sources(size: int, radius: int, padding_mode: str) -> list[tuple[int, int]]:
    """For each line of the padding its place, counted with the padding, and the line of the image that it repeats."""
    outside = [*range(-radius, 0), *range(size, size + radius)]
    if padding_mode == "replicate":
        return [(line + radius, min(max(line, 0), size - 1)) for line in outside]
    period = max(1, 2 * (size - 1))
    return [(line + radius, min(line % period, period - line % period)) for line in outside]
