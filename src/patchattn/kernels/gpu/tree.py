"""A balanced k-d tree over projected keys, with leaves of eight: the one of `kernels/reference/tree.py`.

All items and all ranges of one level are parted at once. Arrays are as long as the number of keys asks for; how many of
these a mask leaves is a number on the device, so what lies behind the last key or leaf is there but never looked at.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from patchattn.kernels import parameters
from patchattn.kernels.gpu.launch import block_size, launch
from patchattn.kernels.gpu.projection import Positions
from patchattn.kernels.parameters import LEAF_SIZE

__all__ = ["Tree", "build_tree", "leaf_at", "leaf_for"]

SPLIT_SAMPLE = tl.constexpr(parameters.SPLIT_SAMPLE)
AT_ONCE = 32
"""Keys of a program that looks for the component of largest variance."""


class Tree(NamedTuple):
    axes: Any
    """Component that a node compares: int32 `(items, room)`."""
    bounds: Any
    """Bound of a node, what is less goes to the left: int32 `(items, room)`."""
    members: Any
    """The keys of a leaf by position: int32 `(items, room, LEAF_SIZE)`, -1 after the last."""
    components: Any
    """Components of the members, two in one word: int32 `(items, room, WORDS, LEAF_SIZE)`."""
    leaf_of: Any
    """The leaf that holds a key: int32 `(items, keys)`; -1 for keys that are in none."""
    leaves: Any
    """Number of leaves: int32 `(items,)`."""
    room: Any
    """For how many leaves there is memory."""
    levels: Any
    WORDS: Any


def build_tree(components: Tensor, keys: Positions) -> Tree:
    """Part the allowed keys of each item; a range is known by its first leaf.

    Args:
        components: int16 `(items, keys, components)`.
        keys: Positions of the keys that the tree holds.
    """
    items, count, width = components.shape
    device, room = components.device, triton.cdiv(count, LEAF_SIZE)
    held = keys.count.unsqueeze(1)
    leaves = (held + LEAF_SIZE - 1) // LEAF_SIZE
    values = components.gather(1, keys.order.unsqueeze(2).expand(-1, -1, width))
    leaf, place = torch.arange(room, device=device), torch.arange(count, device=device).repeat(items, 1)
    axes, bounds = (torch.zeros((items, room + 1), dtype=torch.int64, device=device) for _ in range(2))
    low, high = torch.zeros((items, room), dtype=torch.int64, device=device), leaves.expand(-1, room)
    # The range of a key, in the order of positions; keys that are not allowed stay behind all others.
    behind = room + 1
    part = torch.where(place < held, 0, behind)
    order = place
    levels = max(0, room - 1).bit_length()
    for level in range(levels):
        middle, parted = (low + high) // 2, high - low > 1
        axis = _widest(values, keys, order, leaves, level, room)
        own = part.clamp(max=room - 1)
        value = values.gather(2, axis.gather(1, own).unsqueeze(2)).squeeze(2).long()
        # By range, value and, as the sort is stable, position: each range is put in order where it stands.
        order = torch.sort((part << 32) + value, dim=1, stable=True).indices
        ordered = part.gather(1, order)
        own = ordered.clamp(max=room - 1)
        to_right = (ordered < behind) & parted.gather(1, own) & (place >= LEAF_SIZE * middle.gather(1, own))
        part = part.scatter(1, order, torch.where(to_right, middle.gather(1, own), ordered))
        # One node for each range that is parted; what is not goes to a place behind.
        node = torch.where(parted & (leaf == low), middle, room)
        first_right = order.gather(1, (LEAF_SIZE * middle).clamp(max=count - 1))
        axes.scatter_(1, node, axis)
        bounds.scatter_(1, node, value.gather(1, first_right))
        in_right = parted & (leaf >= middle)
        low, high = torch.where(in_right, middle, low), torch.where(parted & ~in_right, middle, high)
    order = torch.sort(part, dim=1, stable=True).indices
    position = keys.order.gather(1, order)
    members = torch.full((items, room * LEAF_SIZE), -1, dtype=torch.int32, device=device)
    members[:, :count] = torch.where(place < held, position, -1)
    leaf_of = torch.empty((items, count), dtype=torch.int32, device=device)
    leaf_of.scatter_(1, keys.order, torch.where(place < held, part, -1).int())
    of_members = torch.zeros((items, room * LEAF_SIZE, width), dtype=torch.int16, device=device)
    of_members[:, :count] = components.gather(1, position.unsqueeze(2).expand(-1, -1, width))
    words = width // 2
    by_leaf = of_members.view(items, room, LEAF_SIZE, words, 2).transpose(2, 3).contiguous().view(torch.int32)
    return Tree(
        axes[:, :room].int(), bounds[:, :room].int(), members, by_leaf, leaf_of, leaves[:, 0].int(), room, levels,
        tl.constexpr(words),
    )  # fmt: skip


def _widest(values: Tensor, keys: Positions, order: Tensor, leaves: Tensor, level: int, room: int) -> Tensor:
    """Return, for each range of a level, by its first leaf, which component varies most among a random SPLIT_SAMPLE of
    its keys, all if it has no more: int64 `(items, room)`.

    Args:
        order: The keys, by number in `keys.order`, range after range.
    """
    items, count, width = values.shape
    axis = torch.zeros((items, room), dtype=torch.int64, device=values.device)
    largest = LEAF_SIZE * triton.cdiv(room, 1 << level) + LEAF_SIZE
    chunk = min(triton.next_power_of_2(largest), block_size(AT_ONCE, largest))
    ranges = max(1, block_size(AT_ONCE, 2**30) // chunk)
    grid = (triton.cdiv(1 << level, ranges), items)
    launch(
        _widest_kernel, grid, values.device, values, keys.order, keys.count, order, leaves, axis, level, count, room,
        tl.constexpr(ranges), tl.constexpr(chunk), tl.constexpr(width),
    )  # fmt: skip
    return axis


@triton.jit(do_not_specialize=["level"])
def _widest_kernel(
    values, positions, counts, order, leaves, axis, level, count, room,
    RANGES: tl.constexpr, CHUNK: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    item = tl.program_id(1).to(tl.int64)
    number = tl.program_id(0) * RANGES + tl.arange(0, RANGES)
    # The bits of its number, the first for the first level, say which half a range lies in.
    low = tl.zeros_like(number)
    high = low + tl.load(leaves + item).to(tl.int32)
    exists = (number >> level) == 0
    for step in range(level):
        middle = (low + high) // 2
        right = ((number >> (level - 1 - step)) & 1) != 0
        # A range of one leaf is not parted: it has a left half only.
        exists = exists & ((high - low > 1) | ~right)
        low = tl.where(right, middle, low)
        high = tl.where(right, high, middle)
        high = tl.maximum(high, tl.where(right, high, low + 1))
    exists = exists & (high - low > 1)
    held = tl.load(counts + item).to(tl.int32)
    start = low * 8
    size = tl.where(exists, tl.minimum(high * 8, held) - start, 0)
    entry = tl.arange(0, CHUNK)
    column = tl.arange(0, WIDTH)
    looked_at = tl.zeros([RANGES], tl.int32)
    total = tl.zeros([RANGES, WIDTH], tl.int32)
    squares = tl.zeros([RANGES, WIDTH], tl.int32)
    for first in range(0, tl.max(size, 0), CHUNK):
        inside = (first + entry)[None, :] < size[:, None]
        place = item * count + start[:, None] + (first + entry)[None, :]
        key = tl.load(order + place, mask=inside, other=0)
        position = tl.load(positions + item * count + key, mask=inside, other=0)
        lot = ((position * 0x9E3779B1) & 0xFFFFFFFF) * size[:, None] >> 32
        inside = inside & ((size <= SPLIT_SAMPLE)[:, None] | (lot < SPLIT_SAMPLE))
        looked_at += tl.sum(inside.to(tl.int32), 1)
        row = values + (item * count + key) * WIDTH
        value = tl.load(row[:, :, None] + column[None, None, :], mask=inside[:, :, None], other=0).to(tl.int32) >> 3
        total += tl.sum(value, 1)
        squares += tl.sum(value * value, 1)
    # count^2 times the variance, in integers; of equal ones the first is taken.
    spread = looked_at[:, None].to(tl.int64) * squares - total.to(tl.int64) * total
    tl.store(axis + item * room + low, tl.argmax(spread, 1).to(tl.int64), mask=exists)


@triton.jit
def leaf_for(tree, item, components, exists):
    """The leaf that the components of each query (pointers to the first) lead to."""
    low = tl.zeros_like(item)
    high = tl.load(tree.leaves + item, mask=exists, other=0)
    row = item.to(tl.int64) * tree.room
    for _ in range(tree.levels):
        middle = (low + high) // 2
        undecided = exists & (high - low > 1)
        number = tl.load(tree.axes + row + middle, mask=undecided, other=0)
        bound = tl.load(tree.bounds + row + middle, mask=undecided, other=0)
        to_left = tl.load(components + number, mask=undecided, other=0).to(tl.int32) < bound
        low = tl.where(undecided & ~to_left, middle, low)
        high = tl.where(undecided & to_left, middle, high)
    return low


@triton.jit
def leaf_at(tree, item, num_keys, key):
    """The leaf of each key; -1 for key -1, as for those in no leaf."""
    return tl.load(tree.leaf_of + item.to(tl.int64) * num_keys + key, mask=key >= 0, other=-1)
