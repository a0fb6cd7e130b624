"""Positions on a grid of three dimensions (missing ones have size 1), and the queries that a program works on."""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import triton
import triton.language as tl

from patchattn.kernels.gpu.launch import block_size

__all__ = ["Blocks", "Extent", "Queries", "block_of_queries", "blocks_of", "flatten", "place_of", "step_along", "three"]


class Extent(NamedTuple):
    """The size of a grid, or a place on it."""

    t: Any
    y: Any
    x: Any


class Blocks(NamedTuple):
    """The blocks that the queries are cut into, one a program: boxes of neighbors, in Z-order over each slice."""

    query: Extent
    items: Any
    num_y: Any
    """Blocks in a column, rounded up to a power of two, as a Z-order needs; those beyond the image do nothing."""
    num_x: Any
    paired_bits: Any
    """Bits of a block's row and column that alternate in its number."""
    ITEMS: Any
    T: Any
    Y: Any
    X: Any

    @property
    def grid(self) -> tuple[int, int]:
        """Number of programs: blocks of an item, and groups of items."""
        in_slice = self.num_y * self.num_x
        return triton.cdiv(self.query.t, self.T.value) * in_slice, triton.cdiv(self.items, self.ITEMS.value)


class Queries(NamedTuple):
    """The queries of a program: a tensor of the block's size for each."""

    exists: Any
    item: Any
    """Batch item and head in one number; the same for all unless a block spans several."""
    flat: Any
    t: Any
    y: Any
    x: Any


def three(values: tuple[int, ...], fill: int) -> Extent:
    """Extend one to three values to three by leading `fill`s."""
    return Extent(*(fill,) * (3 - len(values)), *values)


def blocks_of(query: Extent, items: int, compiled: int, spanning: bool = True) -> Blocks:
    """Cut the grids of all items into blocks of `compiled` queries, a power of two: as square as the grid allows.

    In the interpreter, whose time goes by operations and not by numbers, blocks are larger and, with `spanning`, may
    hold several items. No result depends on it.

    What lies side by side asks for the same keys: the rows of a square share more of their cache lines than a line.
    """
    size = block_size(compiled, (items if spanning else 1) * triton.next_power_of_2(prod(query)))
    side_y = side_x = 1
    # The last dimension first, where neighbors lie side by side in memory.
    while side_y * side_x < size and (side_x < query.x or side_y < query.y):
        if side_x < query.x and (side_x <= side_y or side_y >= query.y):
            side_x *= 2
        else:
            side_y *= 2
    num_y, num_x = (triton.next_power_of_2(triton.cdiv(n, side)) for n, side in ((query.y, side_y), (query.x, side_x)))
    paired_bits = min(num_y, num_x).bit_length() - 1
    side_t = min(size // (side_y * side_x), triton.next_power_of_2(query.t))
    of_items = size // (side_t * side_y * side_x) if spanning else 1
    sides = (tl.constexpr(side) for side in (of_items, side_t, side_y, side_x))
    return Blocks(query, items, num_y, num_x, paired_bits, *sides)


@triton.jit
def block_of_queries(blocks):
    """The queries of this program, from its number along the first axis of the grid."""
    number = tl.program_id(0)
    in_slice = blocks.num_y * blocks.num_x
    z = number % in_slice
    paired = z & ((1 << (2 * blocks.paired_bits)) - 1)
    rest = (z >> (2 * blocks.paired_bits)) << blocks.paired_bits
    block_y = _even_bits(paired >> 1)
    block_x = _even_bits(paired)
    # The longer side has bits left over.
    if blocks.num_y > blocks.num_x:
        block_y += rest
    else:
        block_x += rest
    lane = tl.arange(0, blocks.ITEMS * blocks.T * blocks.Y * blocks.X)
    t = (number // in_slice) * blocks.T + (lane // (blocks.Y * blocks.X)) % blocks.T
    y = block_y * blocks.Y + (lane // blocks.X) % blocks.Y
    x = block_x * blocks.X + lane % blocks.X
    exists = (t < blocks.query.t) & (y < blocks.query.y) & (x < blocks.query.x)
    item = tl.program_id(1)
    if blocks.ITEMS > 1:
        item = item * blocks.ITEMS + lane // (blocks.T * blocks.Y * blocks.X)
        exists = exists & (item < blocks.items)
    return Queries(exists, item, (t * blocks.query.y + y) * blocks.query.x + x, t, y, x)


@triton.jit
def _even_bits(z):
    """Push together the bits at even places of 32."""
    z = z & 0x55555555
    z = (z | (z >> 1)) & 0x33333333
    z = (z | (z >> 2)) & 0x0F0F0F0F
    z = (z | (z >> 4)) & 0x00FF00FF
    return (z | (z >> 8)) & 0x0000FFFF


@triton.jit
def place_of(flat, extent):
    """The coordinates of flat positions."""
    row = flat // extent.x
    t = row // extent.y
    return Extent(t, row - t * extent.y, flat - row * extent.x)


@triton.jit
def flatten(place, extent):
    """Undo `place_of`; -1 for what is outside the grid."""
    inside = (place.t >= 0) & (place.t < extent.t) & (place.y >= 0) & (place.y < extent.y)
    inside = inside & (place.x >= 0) & (place.x < extent.x)
    return tl.where(inside, (place.t * extent.y + place.y) * extent.x + place.x, -1)


@triton.jit
def step_along(dim, by):
    """A step along dimension 0, 1 or 2 (t, y, x)."""
    return Extent(tl.where(dim == 0, by, 0), tl.where(dim == 1, by, 0), tl.where(dim == 2, by, 0))
