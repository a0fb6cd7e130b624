"""The similarity of a query patch and a key patch."""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from patchattn.kernels.gpu.grid import Extent, block_of_queries, blocks_of, place_of, three
from patchattn.kernels.gpu.launch import INTERPRETED, launch
from patchattn.kernels.gpu.padded_image import PaddedImage, compute_dtype, pad, triton_dtype
from patchattn.kernels.gpu.pointwise import compiled_function
from patchattn.problem import PatchGeometry

__all__ = [
    "WARPS",
    "Pairs",
    "Sides",
    "counted",
    "key_norms_of",
    "measure",
    "offset_in_patch",
    "pairs_of",
    "patch_start",
    "rated",
    "sides_of",
    "squared_norms",
    "term",
    "total",
]

WARPS = 4
VECTOR_BYTES = 16
"""Bytes that a thread loads at once."""
LANES = 32
"""Threads that share a patch at most: those of a warp, which add up what each has found without shared memory."""


class Pairs(NamedTuple):
    """Query patches and key patches, as kernels compare them."""

    query: PaddedImage
    key: PaddedImage
    query_norms: Any
    """`(items, queries)`, 1 / norm of the patch, or None: only for the cosine."""
    key_norms: Any
    key_size: Extent
    SCALE: Any
    """Factor of `scaled_dot`. (A plain number would reach a kernel with 32 bits.)"""
    SIMILARITY: Any
    """A name, or the compiled function of two numbers."""
    BUILT_IN: Any
    COMPUTE: Any
    T: Any
    """Extent of a patch."""
    Y: Any
    X: Any
    ROWS: Any
    """Rows of a patch that are loaded at once; powers of two."""
    ELEMENTS: Any
    """Elements of a row that are."""
    BLOCK: Any
    """Queries of a program: so many that no thread holds the lists of two."""


class Sides(NamedTuple):
    """The query patches of a program."""

    start: Any
    """Index of the first element of each in the padded image."""
    norm: Any
    item: Any
    flat: Any


def pairs_of(query: Tensor, key: Tensor, geometry: PatchGeometry, dtype: torch.dtype | None = None) -> Pairs:
    """Prepare query and key: both are copied, once if they are the same tensor (self-attention).

    Sums are taken in `dtype`, None: in the compute dtype of the features.
    """
    dtype = compute_dtype(query, key) if dtype is None else dtype
    extent = three(geometry.patch_size, 1)
    queries = pad(query, geometry.num_heads, geometry.radius, geometry.padding_mode)
    same = key.data_ptr() == query.data_ptr() and key.shape == query.shape and key.stride() == query.stride()
    keys = queries if same else pad(key, geometry.num_heads, geometry.radius, geometry.padding_mode)
    rows, elements = extent.t * extent.y, extent.x * queries.PIXEL.value
    elements_at_once, rows_at_once = triton.next_power_of_2(elements), triton.next_power_of_2(rows)
    vector = VECTOR_BYTES // query.element_size() if queries.PIXEL.value > 1 else 1
    if not INTERPRETED:
        if elements_at_once > LANES * vector:
            elements_at_once = LANES * vector
            # What is loaded beyond the end of a row is in vain: 64 and 64 and 64 for 192, not 128 and 128.
            if 4 * elements <= 3 * triton.cdiv(elements, elements_at_once) * elements_at_once:
                elements_at_once //= 2
        rows_at_once = min(rows_at_once, LANES * vector // elements_at_once)
    built_in = geometry.similarity.function is None
    lanes = max(1, rows_at_once * elements_at_once // vector)
    pairs = Pairs(
        query=queries,
        key=keys,
        query_norms=None,
        key_norms=None,
        key_size=three(tuple(key.shape[2:]), 1),
        SCALE=tl.constexpr(geometry.scale(query.shape[1])),
        SIMILARITY=tl.constexpr(geometry.similarity.name if built_in else compiled_function(geometry.similarity)),
        BUILT_IN=tl.constexpr(built_in),
        COMPUTE=triton_dtype(dtype),
        T=tl.constexpr(extent.t),
        Y=tl.constexpr(extent.y),
        X=tl.constexpr(extent.x),
        ROWS=tl.constexpr(rows_at_once),
        ELEMENTS=tl.constexpr(elements_at_once),
        BLOCK=tl.constexpr(max(1, LANES * WARPS // lanes)),
    )
    if geometry.similarity.name != "cosine":
        return pairs
    query_norms = _inverse_norms(pairs, queries, three(tuple(query.shape[2:]), 1), dtype)
    key_norms = query_norms if same else _inverse_norms(pairs, keys, pairs.key_size, dtype)
    return pairs._replace(query_norms=query_norms, key_norms=key_norms)


def squared_norms(pairs: Pairs, table: PaddedImage, size: Extent, dtype: torch.dtype) -> Tensor:
    """The sum of squares of the patch about every position, `(items, positions)`."""
    squares = table.pixels.new_empty((table.items, prod(size)), dtype=dtype)
    blocks = blocks_of(size, table.items, pairs.BLOCK.value)
    of_itself = pairs._replace(query=table, key=table, key_size=size, SIMILARITY=tl.constexpr("dot"))
    launch(_norms_kernel, blocks.grid, squares.device, of_itself, blocks, squares, num_warps=WARPS)
    return squares


def _inverse_norms(pairs: Pairs, table: PaddedImage, size: Extent, dtype: torch.dtype) -> Tensor:
    squares = squared_norms(pairs, table, size, dtype)
    return torch.where(squares == 0, 0, 1 / squares.sqrt())


@triton.jit
def _norms_kernel(pairs, blocks, squares):
    queries = block_of_queries(blocks)
    sides = sides_of(pairs, queries, queries.exists)
    found = total(pairs, sides, queries.flat, queries.exists)
    count = blocks.query.t * blocks.query.y * blocks.query.x
    tl.store(squares + queries.item.to(tl.int64) * count + queries.flat, found, mask=queries.exists)


@triton.jit
def sides_of(pairs, queries, exists):
    """Look up the patches about the queries; what does not exist is never read."""
    start = patch_start(pairs.query, queries.item, queries)
    norm = tl.full([1], 1, pairs.COMPUTE)
    if pairs.query_norms is not None:
        count = _positions(pairs.query, pairs)
        norm = tl.load(pairs.query_norms + queries.item.to(tl.int64) * count + queries.flat, mask=exists, other=0)
    return Sides(start, norm, queries.item, queries.flat)


@triton.jit
def _positions(table, pairs):
    size = table.size
    return (size.t - pairs.T + 1) * (size.y - pairs.Y + 1) * (size.x - pairs.X + 1)


@triton.jit
def patch_start(table, item, place):
    """Index at which the patch about a place begins: in the padded image it is the patch from that place on."""
    size = table.size
    row = (item % table.items).to(tl.int64) * size.t + place.t
    return ((row * size.y + place.y) * size.x + place.x) * table.PIXEL


@triton.jit
def measure(pairs, sides, key, wanted):
    """The similarity of each query to its key (a flat position); -inf where it is not wanted, and instead of NaN."""
    key_norm = key_norms_of(pairs, sides.item, key, wanted)
    return rated(pairs, total(pairs, sides, key, wanted), sides.norm, key_norm, wanted)


@triton.jit
def key_norms_of(pairs, item, key, wanted):
    """1 / norm of the patches about keys; 1 where the similarity asks for none."""
    norm = tl.full([1], 1, pairs.COMPUTE)
    if pairs.key_norms is not None:
        count = _positions(pairs.key, pairs)
        of_item = pairs.key_norms + (item % pairs.key.items).to(tl.int64) * count
        norm = tl.load(of_item + key, mask=wanted, other=0)
    return norm


@triton.jit
def rated(pairs, found, query_norm, key_norm, wanted):
    """Turn sums over patches into similarities."""
    if pairs.SIMILARITY == "scaled_dot":
        found = found * tl.full([1], pairs.SCALE, pairs.COMPUTE)
    if pairs.SIMILARITY == "cosine":
        found = (found * query_norm) * key_norm
    return tl.where(wanted & (found == found), found, float("-inf"))


@triton.jit
def total(pairs, sides, key, wanted):
    """The sum over the elements of the patches."""
    place = place_of(tl.where(wanted, key, 0), pairs.key_size)
    key_start = patch_start(pairs.key, sides.item, place)
    query_row = pairs.query.pixels + sides.start
    key_row = pairs.key.pixels + key_start
    element = tl.arange(0, pairs.ROWS * pairs.ELEMENTS)
    sum_by_element = tl.zeros([sides.start.shape[0], pairs.ROWS * pairs.ELEMENTS], pairs.COMPUTE)
    for first_row in range(0, pairs.T * pairs.Y, pairs.ROWS):
        row = first_row + element // pairs.ELEMENTS
        for first in range(0, pairs.X * pairs.key.PIXEL, pairs.ELEMENTS):
            column = first + element % pairs.ELEMENTS
            inside = (row < pairs.T * pairs.Y) & (column < pairs.X * pairs.key.PIXEL)
            both = wanted[:, None] & inside[None, :]
            in_query = offset_in_patch(pairs.query, pairs, row, column)
            in_key = offset_in_patch(pairs.key, pairs, row, column)
            q = tl.load(query_row[:, None] + in_query[None, :], mask=both, other=0)
            k = tl.load(key_row[:, None] + in_key[None, :], mask=both, other=0)
            added = term(pairs, q.to(pairs.COMPUTE), k.to(pairs.COMPUTE))
            sum_by_element += counted(pairs, added, row, column)
    return tl.sum(sum_by_element, 1)


@triton.jit
def offset_in_patch(table, pairs, row, column):
    """From the first element of a patch to that of a row (t, y together) and column."""
    line = row
    if pairs.T > 1:
        row = tl.zeros([1], tl.int64) + row
        line = (row // pairs.Y) * table.size.y + row % pairs.Y
    return line * table.size.x * table.PIXEL + column


@triton.jit
def term(pairs, q, k):
    """Contribution of one element of the patches."""
    if pairs.SIMILARITY == "l2":
        added = -(q - k) * (q - k)
    elif pairs.SIMILARITY == "l1":
        added = -tl.abs(q - k)
    elif pairs.SIMILARITY == "dot" or pairs.SIMILARITY == "scaled_dot" or pairs.SIMILARITY == "cosine":
        added = q * k
    else:
        added = pairs.SIMILARITY(q, k)
    return added


@triton.jit
def counted(pairs, added, row, column):
    """Contribution of the elements at these rows (t, y together) and columns: none beyond the patch and its channels.

    Zeros are read there. Only a user's function may make something of two zeros.
    """
    if not pairs.BUILT_IN:
        row = tl.zeros([1], tl.int32) + row
        column = tl.zeros([1], tl.int32) + column
        real = (row < pairs.T * pairs.Y) & (column < pairs.X * pairs.key.PIXEL)
        real = real & (column % pairs.key.PIXEL < pairs.key.CHANNELS)
        added = tl.where(real, added, 0)
    return added
