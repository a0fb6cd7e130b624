"""Sums of values with given weights, and their gradients."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from patchattn.kernels.gpu.grid import block_of_queries, three
from patchattn.kernels.gpu.launch import launch
from patchattn.kernels.gpu.padded_image import compute_dtype, pad, unpad_gradient
from patchattn.kernels.gpu.patch_similarity import WARPS
from patchattn.kernels.gpu.tiles import chunk_of_channels, empty_like_table, load_pixels, store_pixels, tiles_of
from patchattn.kernels.gpu.vote_gradients import gradients_of
from patchattn.kernels.gpu.votes import Votes, vote, votes_of

__all__ = ["weighted_sum", "weighted_sum_backward"]


def weighted_sum(weight: Tensor, index: Tensor, value: Tensor) -> Tensor:
    """Sum over the keys of each query, weight times value: `(B, Cv, *query)`."""
    batch, heads, query_shape = index.shape[0], index.shape[1], tuple(index.shape[3:])
    no_padding, votes = (0,) * len(query_shape), _votes_of(weight, index, value)
    values = pad(value, heads, no_padding, "zeros")
    query, items = three(query_shape, 1), batch * heads
    tiles = tiles_of(values, query, items)
    output = empty_like_table(values, items, query, value.dtype)
    launch(_sum_kernel, tiles.grid(tiles.chunks(values)), value.device, votes, values, tiles, output, num_warps=WARPS)
    like = value.new_empty((batch, value.shape[1], *query_shape), device="meta")
    return unpad_gradient(output.pixels, like, heads, no_padding, "zeros")


def weighted_sum_backward(grad_output: Tensor, weight: Tensor, index: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients with respect to weight (g . V_j) and value (the sum of w g over the queries that use the key)."""
    votes = _votes_of(weight, index, value)
    by_weight, by_value = gradients_of(votes, grad_output, value, index.shape[1], None, None)
    return by_weight.view(weight.shape).to(weight.dtype), by_value


def _votes_of(weight: Tensor, index: Tensor, value: Tensor) -> Votes:
    weight = weight.to(compute_dtype(weight, value))
    return votes_of(weight, index, tuple(value.shape[2:]), (1,) * (index.dim() - 3))


@triton.jit
def _sum_kernel(votes, values, tiles, output):
    queries = block_of_queries(tiles.blocks)
    channel = chunk_of_channels(tiles, tl.program_id(2))
    total = tl.zeros([queries.flat.shape[0], tiles.CHUNK], votes.COMPUTE)
    for slot in range(votes.k):
        key, weight = vote(votes, queries, 0, slot)
        weight = tl.where(key >= 0, weight, 0)
        total += weight[:, None] * load_pixels(values, queries.item, key, key >= 0, channel, votes.COMPUTE)
    store_pixels(output, queries.item, queries.flat, queries.exists, channel, total)
