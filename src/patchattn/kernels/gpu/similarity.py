"""The similarity of query patches and key patches at the matches of a field."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from patchattn.kernels.gpu.grid import block_of_queries, blocks_of, three
from patchattn.kernels.gpu.launch import launch
from patchattn.kernels.gpu.padded_image import compute_dtype
from patchattn.kernels.gpu.patch_similarity import WARPS, Pairs, measure, pairs_of, sides_of
from patchattn.kernels.gpu.tiles import lists_of
from patchattn.problem import PatchGeometry

__all__ = ["measured_at", "similarity_at"]


def similarity_at(query: Tensor, key: Tensor, index: Tensor, geometry: PatchGeometry) -> Tensor:
    """Similarity of every query patch and the key patches that `index` names; -inf where that is -1."""
    pairs, matches = pairs_of(query, key, geometry), lists_of(index, torch.int32)
    shape, dtype = tuple(index.shape[3:]), compute_dtype(query, key)
    return measured_at(pairs, matches, shape, dtype).view(index.shape)


def measured_at(pairs: Pairs, matches: Tensor, query_shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """The similarity at matches `(items, k, queries)`, the same shape."""
    items, k, _ = matches.shape
    found = torch.empty(matches.shape, dtype=dtype, device=matches.device)
    blocks = blocks_of(three(query_shape, 1), items, pairs.BLOCK.value)
    launch(_similarity_kernel, blocks.grid, matches.device, pairs, blocks, matches, k, found, num_warps=WARPS)
    return found


@triton.jit
def _similarity_kernel(pairs, blocks, matches, k, found):
    queries = block_of_queries(blocks)
    sides = sides_of(pairs, queries, queries.exists)
    count = blocks.query.t * blocks.query.y * blocks.query.x
    for slot in range(k):
        place = (queries.item.to(tl.int64) * k + slot) * count + queries.flat
        key = tl.load(matches + place, mask=queries.exists, other=-1)
        tl.store(found + place, measure(pairs, sides, key, key >= 0), mask=queries.exists)
