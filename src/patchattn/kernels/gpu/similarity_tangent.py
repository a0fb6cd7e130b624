"""The derivative of the similarity along given directions of query and key."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from patchattn.kernels.gpu.grid import block_of_queries, blocks_of, place_of, three
from patchattn.kernels.gpu.launch import launch
from patchattn.kernels.gpu.padded_image import compute_dtype, pad
from patchattn.kernels.gpu.patch_similarity import WARPS, counted, offset_in_patch, pairs_of, patch_start, sides_of
from patchattn.kernels.gpu.pointwise import compiled_derivative, derivative_by
from patchattn.kernels.gpu.tiles import lists_of
from patchattn.problem import PatchGeometry

__all__ = ["similarity_tangent"]


class Directions(NamedTuple):
    """Directions of query and key: images laid out as they are."""

    query: Any
    key: Any


def similarity_tangent(
    query: Tensor, key: Tensor, index: Tensor, by_query: Tensor, by_key: Tensor, geometry: PatchGeometry
) -> Tensor:
    """Derivative of `similarity_at` along a direction, shaped like query and key; 0 where `index` is -1, and where a
    patch holds NaN or infinity.
    """
    pairs, matches = pairs_of(query, key, geometry), lists_of(index, torch.int32)
    if geometry.similarity.function is not None:
        pairs = pairs._replace(SIMILARITY=tl.constexpr(compiled_derivative(geometry.similarity)))
    tables = (pad(image, geometry.num_heads, geometry.radius, geometry.padding_mode) for image in (by_query, by_key))
    directions = Directions(*(table.pixels for table in tables))
    items, k, _ = matches.shape
    found = torch.empty(matches.shape, dtype=compute_dtype(query, key), device=matches.device)
    blocks = blocks_of(three(tuple(index.shape[3:]), 1), items, pairs.BLOCK.value)
    launch(_tangent_kernel, blocks.grid, matches.device, pairs, directions, blocks, matches, k, found, num_warps=WARPS)
    return found.view(index.shape)


@triton.jit
def _tangent_kernel(pairs, directions, blocks, matches, k, found):
    queries = block_of_queries(blocks)
    sides = sides_of(pairs, queries, queries.exists)
    count = blocks.query.t * blocks.query.y * blocks.query.x
    for slot in range(k):
        place = (queries.item.to(tl.int64) * k + slot) * count + queries.flat
        key = tl.load(matches + place, mask=queries.exists, other=-1)
        total, strange = _total(pairs, directions, sides, key, key >= 0)
        if pairs.SIMILARITY == "scaled_dot":
            total = total * tl.full([1], pairs.SCALE, pairs.COMPUTE)
        tl.store(found + place, tl.where((key >= 0) & (strange == 0), total, 0), mask=queries.exists)


@triton.jit
def _total(pairs, directions, sides, key, wanted):
    """The sum over the elements of the patches, as `measure.total` goes through them; and another that is 0, unless a
    patch holds NaN or infinity.
    """
    place = place_of(tl.where(wanted, key, 0), pairs.key_size)
    query_start, key_start = sides.start, patch_start(pairs.key, sides.item, place)
    element = tl.arange(0, pairs.ROWS * pairs.ELEMENTS)
    sum_by_element = tl.zeros([sides.start.shape[0], pairs.ROWS * pairs.ELEMENTS], pairs.COMPUTE)
    strange = tl.zeros([sides.start.shape[0], pairs.ROWS * pairs.ELEMENTS], pairs.COMPUTE)
    for first_row in range(0, pairs.T * pairs.Y, pairs.ROWS):
        row = first_row + element // pairs.ELEMENTS
        for first in range(0, pairs.X * pairs.key.PIXEL, pairs.ELEMENTS):
            column = first + element % pairs.ELEMENTS
            inside = (row < pairs.T * pairs.Y) & (column < pairs.X * pairs.key.PIXEL)
            both = wanted[:, None] & inside[None, :]
            at_query = query_start[:, None] + offset_in_patch(pairs.query, pairs, row, column)[None, :]
            at_key = key_start[:, None] + offset_in_patch(pairs.key, pairs, row, column)[None, :]
            q = tl.load(pairs.query.pixels + at_query, mask=both, other=0).to(pairs.COMPUTE)
            k = tl.load(pairs.key.pixels + at_key, mask=both, other=0).to(pairs.COMPUTE)
            u = tl.load(directions.query + at_query, mask=both, other=0).to(pairs.COMPUTE)
            v = tl.load(directions.key + at_key, mask=both, other=0).to(pairs.COMPUTE)
            sum_by_element += counted(pairs, _term(pairs.SIMILARITY, q, k, u, v), row, column)
            strange += tl.where((q - q) + (k - k) == 0, tl.zeros_like(q), 1)
    return tl.sum(sum_by_element, 1), tl.sum(strange, 1)


@triton.jit
def _term(SIMILARITY: tl.constexpr, q, k, u, v):
    """Contribution of one element of the patches."""
    if SIMILARITY == "l2":
        added = -2 * (q - k) * (u - v)
    elif SIMILARITY == "l1":
        added = tl.where(q > k, v - u, tl.where(q < k, u - v, 0))
    elif SIMILARITY == "dot" or SIMILARITY == "scaled_dot":
        added = u * k + q * v
    else:
        added = derivative_by(SIMILARITY, q, k, 0) * u + derivative_by(SIMILARITY, k, q, 1) * v
    return added
