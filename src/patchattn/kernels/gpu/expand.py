"""The keys around the matches: SCRAM's Algorithm 2, lines 2 to 6."""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from patchattn.kernels.gpu.constraints import admissible, chosen, limits_of, offset_window
from patchattn.kernels.gpu.grid import Extent, block_of_queries, blocks_of, flatten, place_of, three
from patchattn.kernels.gpu.launch import INTERPRETED, launch
from patchattn.problem import Constraints

__all__ = ["expand"]

WARPS = 4
BLOCK = 128
AT_ONCE = 4
"""Keys of a window that a thread looks at together: what is known of the query serves them all."""


class Windows(NamedTuple):
    """The windows about the matches."""

    matches: Any
    """int32 `(items, k, queries)`."""
    k: Any
    radius: Extent
    size: Extent
    """2 radius + 1."""
    AT_ONCE: Any


def expand(index: Tensor, key_shape: tuple[int, ...], radius: tuple[int, ...], constraints: Constraints) -> Tensor:
    """Every match becomes the window of keys around it; a key that an earlier match has reached is not repeated.

    Returns:
        int32 `(B, heads, k * keys of a window, *query)`; -1 for what lies outside, is not admissible or repeats.
    """
    query_shape = tuple(index.shape[3:])
    batch, heads, k = index.shape[:3]
    size = tuple(2 * r + 1 for r in radius)
    limits = limits_of(constraints, query_shape, key_shape, heads)
    blocks = blocks_of(three(query_shape, 1), batch * heads, BLOCK)
    keys = torch.empty((batch, heads, k * prod(size), *query_shape), dtype=torch.int32, device=index.device)
    at_once = triton.next_power_of_2(prod(size))
    windows = Windows(
        matches=index.flatten(3).flatten(0, 1).int().contiguous(),
        k=k,
        radius=three(radius, 0),
        size=three(size, 1),
        AT_ONCE=tl.constexpr(at_once if INTERPRETED else min(at_once, AT_ONCE)),
    )
    grid = (*blocks.grid, k)
    launch(_expand_kernel, grid, index.device, windows, limits, blocks, keys, num_warps=WARPS)
    return keys


@triton.jit
def _expand_kernel(windows, limits, blocks, output):
    queries = block_of_queries(blocks)
    exists = chosen(limits, queries)
    window = offset_window(limits, queries)
    count = blocks.query.t * blocks.query.y * blocks.query.x
    in_window = windows.size.t * windows.size.y * windows.size.x
    of_item = queries.item.to(tl.int64) * windows.k
    slot = tl.program_id(2)
    match = tl.load(windows.matches + (of_item + slot) * count + queries.flat, mask=exists, other=-1)
    center = place_of(match, limits.key)
    for first in range(0, in_window, windows.AT_ONCE):
        number = first + tl.arange(0, windows.AT_ONCE)[:, None]
        offset = place_of(number, windows.size)
        place = Extent(
            center.t[None, :] + (offset.t - windows.radius.t),
            center.y[None, :] + (offset.y - windows.radius.y),
            center.x[None, :] + (offset.x - windows.radius.x),
        )
        key = tl.where(match[None, :] >= 0, flatten(place, limits.key), -1)
        wanted = admissible(limits, queries, window, key)
        for earlier in range(slot):
            before = tl.load(windows.matches + (of_item + earlier) * count + queries.flat, mask=exists, other=-1)
            wanted = wanted & ~((before >= 0)[None, :] & _near(place, place_of(before, limits.key), windows.radius))
        at = (of_item + slot) * in_window * count + queries.flat
        at = at[None, :] + number.to(tl.int64) * count
        there = queries.exists[None, :] & (number < in_window)
        tl.store(output + at, tl.where(wanted, key, -1), mask=there)


@triton.jit
def _near(place, center, radius):
    """Mask of the keys in the windows about these centers."""
    near = tl.abs(place.t - center.t[None, :]) <= radius.t
    near = near & (tl.abs(place.y - center.y[None, :]) <= radius.y)
    return near & (tl.abs(place.x - center.x[None, :]) <= radius.x)
