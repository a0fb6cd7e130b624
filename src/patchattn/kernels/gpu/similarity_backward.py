"""The gradients of the similarity with respect to query and key."""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from patchattn.kernels.gpu.grid import Extent, block_of_queries, flatten, place_of, three
from patchattn.kernels.gpu.inverse import (
    WALKING_WARPS,
    Box,
    count_steps,
    entry_of,
    invert,
    key_of,
    next_step,
    start_walk,
)
from patchattn.kernels.gpu.launch import launch
from patchattn.kernels.gpu.padded_image import compute_dtype, unpad_gradient
from patchattn.kernels.gpu.patch_similarity import WARPS, pairs_of
from patchattn.kernels.gpu.pointwise import compiled_derivative, derivative_by
from patchattn.kernels.gpu.similarity import measured_at
from patchattn.kernels.gpu.tiles import (
    chunk_of_channels,
    empty_like_table,
    lists_of,
    load_pixels,
    place_in_box,
    store_pixels,
    tiles_of,
)
from patchattn.problem import PatchGeometry

__all__ = ["similarity_at_backward"]


class Matches(NamedTuple):
    """A field, and the gradients at it; all `(items, k, queries)`."""

    index: Any
    grad: Any
    similarity: Any
    """None but for the cosine."""
    k: Any
    query: Extent
    key: Extent


class Factors(NamedTuple):
    """Terms of the matches: of the patch whose gradient is sought, and of the other one."""

    grad: Any
    similarity: Any
    near_norm: Any
    far_norm: Any


def similarity_at_backward(
    grad: Tensor, query: Tensor, key: Tensor, index: Tensor, geometry: PatchGeometry
) -> tuple[Tensor, Tensor]:
    """Gradients of `similarity_at` with respect to query and key.

    Every pixel gathers its own sum over the patches that hold it and the matches of those: nothing is written twice,
    and the order of the additions is fixed.
    """
    dtype, heads = compute_dtype(query, key), geometry.num_heads
    pairs, matches = pairs_of(query, key, geometry), _matches_of(grad, query, key, index, geometry)
    if geometry.similarity.function is not None:
        pairs = pairs._replace(SIMILARITY=tl.constexpr(compiled_derivative(geometry.similarity)))
    if geometry.similarity.name == "cosine":
        matches = matches._replace(similarity=measured_at(pairs, matches.index, tuple(query.shape[2:]), dtype))
    queries, keys = pairs.query, pairs.key

    by_query = empty_like_table(queries, queries.items, queries.size, dtype)
    tiles = tiles_of(keys, queries.size, queries.items)
    launch(
        _query_kernel, tiles.grid(tiles.chunks(queries)), grad.device, pairs, matches, tiles, by_query, num_warps=WARPS
    )
    by_key = empty_like_table(keys, keys.items, keys.size, dtype)
    tiles = tiles_of(queries, keys.size, keys.items, WALKING_WARPS)
    inverse = invert(matches.index, prod(matches.key), keys.items)
    launch(
        _key_kernel, tiles.grid(tiles.chunks(keys)), grad.device, pairs, matches, inverse, tiles, by_key,
        num_warps=WALKING_WARPS,
    )  # fmt: skip
    folded = heads, geometry.radius, geometry.padding_mode
    return unpad_gradient(by_query.pixels, query, *folded), unpad_gradient(by_key.pixels, key, *folded)


def _matches_of(grad: Tensor, query: Tensor, key: Tensor, index: Tensor, geometry: PatchGeometry) -> Matches:
    # Scaled here: a number that a kernel is given has 32 bits.
    scaled = grad.detach().to(compute_dtype(query, key)) * geometry.scale(query.shape[1])
    query_size, key_size = three(tuple(query.shape[2:]), 1), three(tuple(key.shape[2:]), 1)
    lists = lists_of(index, torch.int32), lists_of(scaled, scaled.dtype)
    return Matches(*lists, None, index.shape[2], query_size, key_size)


@triton.jit
def _query_kernel(pairs, matches, tiles, found):
    """Each pixel of the padded query: sum over the patches that hold it, and their matches."""
    pixels = block_of_queries(tiles.blocks)
    channel = chunk_of_channels(tiles, tl.program_id(2))
    own = load_pixels(pairs.query, pixels.item, pixels.flat, pixels.exists, channel, pairs.COMPUTE)
    count = matches.query.t * matches.query.y * matches.query.x
    total = tl.zeros([pixels.flat.shape[0], tiles.CHUNK], pairs.COMPUTE)
    for number in range(pairs.T * pairs.Y * pairs.X):
        by = place_in_box(number, pairs.Y, pairs.X)
        query = flatten(Extent(pixels.t - by.t, pixels.y - by.y, pixels.x - by.x), matches.query)
        exists = pixels.exists & (query >= 0)
        for slot in range(matches.k):
            place = (pixels.item.to(tl.int64) * matches.k + slot) * count + query
            key = tl.load(matches.index + place, mask=exists, other=-1)
            matched = key >= 0
            other = _pixel_at(pairs.key, matches.key, key, by, matched)
            far = load_pixels(pairs.key, pixels.item, other, matched, channel, pairs.COMPUTE)
            near_norms = _norm(pairs.query_norms, pairs.query, matches.query, pixels.item, query, matched)
            far_norms = _norm(pairs.key_norms, pairs.key, matches.key, pixels.item, key, matched)
            factors = _factors(matches, place, near_norms, far_norms, matched)
            total += _contribution(pairs.SIMILARITY, own, far, factors, matched, 0)
    store_pixels(found, pixels.item, pixels.flat, pixels.exists, channel, total)


@triton.jit
def _key_kernel(pairs, matches, inverse, tiles, found):
    """Each pixel of the padded key: sum over the patches that hold it, and the matches to those."""
    pixels = block_of_queries(tiles.blocks)
    channel = chunk_of_channels(tiles, tl.program_id(2))
    own = load_pixels(pairs.key, pixels.item, pixels.flat, pixels.exists, channel, pairs.COMPUTE)
    corner = Extent(pixels.t - (pairs.T - 1), pixels.y - (pairs.Y - 1), pixels.x - (pairs.X - 1))
    box = Box(corner, matches.key, pairs.T, pairs.Y, pairs.X)
    total = tl.zeros([pixels.flat.shape[0], tiles.CHUNK], pairs.COMPUTE)
    walk = start_walk(inverse, pixels.exists)
    for _ in range(count_steps(inverse, pixels.item, box, pixels.exists)):
        walk = next_step(inverse, pixels.item, box, pixels.exists, walk)
        matched = walk.left > 0
        entry = entry_of(inverse, pixels.item, walk)
        # The last key of the box has the pixel first in its patch.
        by = place_in_box(pairs.T * pairs.Y * pairs.X - 1 - walk.number, pairs.Y, pairs.X)
        other = _pixel_at(pairs.query, matches.query, entry.query, by, matched)
        far = load_pixels(pairs.query, entry.item, other, matched, channel, pairs.COMPUTE)
        near_norms = _norm(pairs.key_norms, pairs.key, matches.key, pixels.item, key_of(box, walk.number), matched)
        far_norms = _norm(pairs.query_norms, pairs.query, matches.query, entry.item, entry.query, matched)
        factors = _factors(matches, entry.place, near_norms, far_norms, matched)
        total += _contribution(pairs.SIMILARITY, own, far, factors, matched, 1)
    store_pixels(found, pixels.item, pixels.flat, pixels.exists, channel, total)


@triton.jit
def _pixel_at(table, extent, position, by, wanted):
    """The padded pixel at an offset of the patch about a flat position."""
    place = place_of(tl.where(wanted, position, 0), extent)
    return ((place.t + by.t) * table.size.y + place.y + by.y) * table.size.x + place.x + by.x


@triton.jit
def _norm(norms, table, extent, item, position, wanted):
    """The inverse norms of patches, or nothing but for the cosine."""
    norm = None
    if norms is not None:
        at = (item % table.items).to(tl.int64) * extent.t * extent.y * extent.x + position
        norm = tl.load(norms + at, mask=wanted, other=0)
    return norm


@triton.jit
def _factors(matches, place, near_norm, far_norm, matched):
    similarity = None
    if matches.similarity is not None:
        similarity = tl.load(matches.similarity + place, mask=matched, other=0)
    return Factors(tl.load(matches.grad + place, mask=matched, other=0), similarity, near_norm, far_norm)


@triton.jit
def _contribution(SIMILARITY: tl.constexpr, near, far, factors, matched, SIDE: tl.constexpr):
    """Contribution of a match to the gradient of a pixel: 0 without a match or a gradient, whatever its patch holds."""
    added = factors.grad[:, None] * _derivative(SIMILARITY, near, far, factors, SIDE)
    return tl.where((matched & (factors.grad != 0))[:, None], added, 0)


@triton.jit
def _derivative(SIMILARITY: tl.constexpr, near, far, factors, SIDE: tl.constexpr):
    """Derivative of one element's similarity by `near`: the query's pixel on side 0, the key's on side 1."""
    if SIMILARITY == "l2":
        by_near = 2 * (far - near)
    elif SIMILARITY == "l1":
        by_near = tl.where(far > near, 1, tl.where(far < near, -1, tl.zeros_like(far)))
    elif SIMILARITY == "cosine":
        # In unit patches: the square of an inverse norm could overflow.
        unit = near * factors.near_norm[:, None]
        by_near = factors.near_norm[:, None] * (far * factors.far_norm[:, None] - factors.similarity[:, None] * unit)
    elif SIMILARITY == "dot" or SIMILARITY == "scaled_dot":
        by_near = far
    else:
        by_near = derivative_by(SIMILARITY, near, far, SIDE)
    return by_near
