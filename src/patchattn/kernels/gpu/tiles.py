"""Sums over pixels: a program works on a block of positions and a chunk of their channels."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from patchattn.kernels.gpu.grid import Blocks, Extent, blocks_of
from patchattn.kernels.gpu.launch import INTERPRETED
from patchattn.kernels.gpu.padded_image import PaddedImage
from patchattn.kernels.gpu.patch_similarity import LANES, VECTOR_BYTES, WARPS

__all__ = [
    "Tiles",
    "chunk_of_channels",
    "empty_like_table",
    "lists_of",
    "load_pixels",
    "place_in_box",
    "store_pixels",
    "tiles_of",
]


class Tiles(NamedTuple):
    """The cut of positions and channels into tiles; a thread holds as many numbers as it loads at once."""

    blocks: Blocks
    CHUNK: Any
    """Channels at once, a power of two."""

    def grid(self, depth: int) -> tuple[int, int, int]:
        """Programs of all blocks, and `depth` for each of them."""
        return (*self.blocks.grid, depth)

    def chunks(self, table: PaddedImage) -> int:
        return int(triton.cdiv(table.PIXEL.value, self.CHUNK.value))


def tiles_of(table: PaddedImage, positions: Extent, items: int, warps: int = WARPS) -> Tiles:
    """Cut the positions of all items, to read `table` at some pixel for each, in programs of so many warps."""
    vector = VECTOR_BYTES // table.pixels.element_size() if table.PIXEL.value > 1 else 1
    chunk = triton.next_power_of_2(table.PIXEL.value)
    if not INTERPRETED:
        chunk = min(chunk, LANES * vector)
    block = max(1, LANES * warps * min(vector, chunk) // chunk)
    return Tiles(blocks_of(positions, items, block), tl.constexpr(chunk))


def empty_like_table(table: PaddedImage, items: int, size: Extent, dtype: torch.dtype) -> PaddedImage:
    """A table with as many channels, to be filled."""
    pixels = table.pixels.new_empty((items, *size, table.PIXEL.value), dtype=dtype)
    return PaddedImage(pixels, items, size, table.CHANNELS, table.PIXEL)


def lists_of(field: Tensor, dtype: torch.dtype) -> Tensor:
    """`(B, heads, k, *query_spatial)` as kernels read it, `(items, k, queries)`."""
    return field.detach().to(dtype).flatten(3).flatten(0, 1).contiguous()


@triton.jit
def chunk_of_channels(tiles, number):
    return number * tiles.CHUNK + tl.arange(0, tiles.CHUNK)


@triton.jit
def place_in_box(number, Y: tl.constexpr, X: tl.constexpr):
    """The place of that number in a box of rows of X, Y to a slice: each coordinate a tensor of one element."""
    number = tl.zeros([1], tl.int32) + number
    return Extent(number // (Y * X), number // X % Y, number % X)


@triton.jit
def load_pixels(table, item, flat, wanted, channel, COMPUTE: tl.constexpr):
    """The channels of a pixel for each position; 0 where it is not wanted, and behind the last channel."""
    pixel = _pixel(table, item, flat)
    mask = wanted[:, None] & (channel < table.PIXEL)[None, :]
    return tl.load(table.pixels + pixel[:, None] + channel[None, :], mask=mask, other=0).to(COMPUTE)


@triton.jit
def store_pixels(table, item, flat, wanted, channel, numbers):
    pixel = _pixel(table, item, flat)
    mask = wanted[:, None] & (channel < table.PIXEL)[None, :]
    tl.store(table.pixels + pixel[:, None] + channel[None, :], numbers, mask=mask)


@triton.jit
def _pixel(table, item, flat):
    row = (item % table.items).to(tl.int64) * table.size.t * table.size.y
    return (row * table.size.x + flat) * table.PIXEL
