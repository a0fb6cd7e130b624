"""Exhaustive search: every query against every key, a tile of both at a time, nothing written but the lists.

Sums are taken in float64, in which the features are exact: in float32 keys that are nearly as good change places.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

import torch
import triton
import triton.language as tl
from torch import Tensor

from patchattn.kernels.gpu.constraints import admissible, chosen, conflicting, limits_of, offset_window
from patchattn.kernels.gpu.grid import Queries, block_of_queries, blocks_of, place_of, three
from patchattn.kernels.gpu.launch import block_size, launch
from patchattn.kernels.gpu.padded_image import compute_dtype
from patchattn.kernels.gpu.patch_similarity import (
    Pairs,
    counted,
    key_norms_of,
    offset_in_patch,
    pairs_of,
    patch_start,
    rated,
    sides_of,
    term,
)
from patchattn.kernels.gpu.patchmatch import Search, Taken, as_field
from patchattn.kernels.gpu.similarity import measured_at
from patchattn.kernels.gpu.topk import TopK, empty_lists, store_lists, stored
from patchattn.problem import Constraints, PatchGeometry

__all__ = ["search_exact"]

QUERIES, KEYS = 4, 128
"""Queries and keys of a tile."""


def search_exact(
    query: Tensor, key: Tensor, k: int, geometry: PatchGeometry, constraints: Constraints
) -> tuple[Tensor, Tensor]:
    """Find the k best matches of every query among all keys; see `patchattn.match`."""
    pairs = pairs_of(query, key, geometry, torch.float64)
    shape, key_shape = tuple(query.shape[2:]), tuple(key.shape[2:])
    items, count = query.shape[0] * geometry.num_heads, prod(shape)
    blocks = blocks_of(three(shape, 1), items, QUERIES, spanning=False)
    num_keys = prod(key_shape)
    tile = tl.constexpr(block_size(KEYS, num_keys))
    limits = limits_of(constraints, shape, key_shape, geometry.num_heads)
    search = Search(pairs, limits, blocks, None, None)
    dtype = compute_dtype(query, key)
    if not constraints.separated:
        lists = stored(items, k, count, torch.float64, query.device)
        launch(_exact_kernel, blocks.grid, query.device, search, lists, num_keys, tile)
        return as_field(*_measured(pairs, lists.index, shape, dtype), query, geometry)
    # The best key, then the best of those that do not conflict with it, and so on.
    index = torch.empty((items, k, count), dtype=torch.int32, device=query.device)
    alone = limits_of(replace(constraints, min_separation=()), shape, key_shape, geometry.num_heads)
    for n in range(k):
        search = Search(pairs, alone, blocks, Taken(index, k, n, limits) if n else None, None)
        found = stored(items, 1, count, torch.float64, query.device)
        launch(_exact_kernel, blocks.grid, query.device, search, found, num_keys, tile)
        index[:, n] = found.index[:, 0]
    return as_field(*_measured(pairs, index, shape, dtype), query, geometry)


def _measured(pairs: Pairs, index: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Measure what was found by the kernel that measures everywhere else: its sums run in another order. What the dtype
    has no number for is no match.
    """
    found = measured_at(pairs, index, shape, torch.float64)
    similarity, order = torch.sort(found, dim=1, descending=True, stable=True)
    similarity = similarity.to(dtype)
    return torch.where(similarity > -torch.inf, index.gather(1, order), -1), similarity


@triton.jit
def _exact_kernel(search, lists, num_keys, TILE: tl.constexpr):
    limits = search.limits
    queries = block_of_queries(search.blocks)
    count = search.blocks.query.t * search.blocks.query.y * search.blocks.query.x
    exists = chosen(limits, queries)
    sides = sides_of(search.pairs, queries, exists)
    t, y, x = queries.t[:, None], queries.y[:, None], queries.x[:, None]
    rows = Queries(exists[:, None], queries.item, queries.flat[:, None], t, y, x)
    window = offset_window(limits, rows)
    found = empty_lists(queries.flat, lists.K, search.pairs.COMPUTE)
    for first in range(0, num_keys, TILE):
        key = first + tl.arange(0, TILE)
        there = key < num_keys
        similarity = _sums(search.pairs, sides, exists, key, there)
        candidate = tl.zeros_like(similarity).to(tl.int32) + tl.where(there, key, -1)[None, :]
        allowed = admissible(limits, rows, window, candidate) & exists[:, None]
        if search.taken is not None:
            for n in range(search.taken.count):
                place = (queries.item.to(tl.int64) * search.taken.slots + n) * count + queries.flat
                other = tl.load(search.taken.index + place, mask=exists, other=-1)[:, None]
                allowed = allowed & ~((other >= 0) & conflicting(search.taken.of, other, candidate))
        key_norm = key_norms_of(search.pairs, queries.item, key, there)
        similarity = rated(search.pairs, similarity, sides.norm[:, None], key_norm[None, :], allowed)
        # What is better than the last of a list goes in, the best first and of equal ones the first.
        best = tl.max(similarity, 1)
        while tl.max((best > found.similarity[lists.K - 1]).to(tl.int32), 0) > 0:
            at = first + tl.argmax(similarity, 1)
            found = _append(found, at, best, lists.K)
            similarity = tl.where(candidate == at[:, None], float("-inf"), similarity)
            best = tl.max(similarity, 1)
    store_lists(lists, queries, count, found)


@triton.jit
def _append(lists, key, similarity, K: tl.constexpr):
    """Put a key that is in no list yet behind those that are as good."""
    index = ()
    similarities = ()
    better = similarity > float("inf")
    for slot in tl.static_range(K):
        better = better | (similarity > lists.similarity[slot])
        index = index + (tl.where(better, key, lists.index[slot]),)
        similarities = similarities + (tl.where(better, similarity, lists.similarity[slot]),)
        key = tl.where(better, lists.index[slot], key)
        similarity = tl.where(better, lists.similarity[slot], similarity)
    return TopK(index, similarities, lists.born)


@triton.jit
def _sums(pairs, sides, exists, key, there):
    """The sums over the patches of all queries and all keys of a tile, element by element."""
    place = place_of(tl.where(there, key, 0), pairs.key_size)
    query_start = pairs.query.pixels + sides.start
    key_start = pairs.key.pixels + patch_start(pairs.key, sides.item, place)
    found = tl.zeros([sides.start.shape[0], key.shape[0]], pairs.COMPUTE)
    for row in range(pairs.T * pairs.Y):
        for column in range(pairs.X * pairs.key.PIXEL):
            q = tl.load(query_start + offset_in_patch(pairs.query, pairs, row, column), mask=exists, other=0)
            k = tl.load(key_start + offset_in_patch(pairs.key, pairs, row, column), mask=there, other=0)
            added = term(pairs, q.to(pairs.COMPUTE)[:, None], k.to(pairs.COMPUTE)[None, :])
            found += counted(pairs, added, row, column)
    return found
