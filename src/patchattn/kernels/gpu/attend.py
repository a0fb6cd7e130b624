"""Attention over the matches alone: softmax over the votes of each query, and the weighted sum of their values."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from patchattn.kernels.gpu.grid import block_of_queries, three
from patchattn.kernels.gpu.launch import launch
from patchattn.kernels.gpu.padded_image import compute_dtype, pad, unpad_gradient
from patchattn.kernels.gpu.patch_similarity import WARPS
from patchattn.kernels.gpu.tiles import chunk_of_channels, empty_like_table, load_pixels, store_pixels, tiles_of
from patchattn.kernels.gpu.vote_gradients import gradients_of
from patchattn.kernels.gpu.votes import vote, votes_of

__all__ = ["attend", "attend_backward"]


def attend(
    similarity: Tensor, index: Tensor, value: Tensor, window: tuple[int, ...], temperature: float
) -> tuple[Tensor, Tensor]:
    """Return the output `(B, Cv, *query)` and the logarithm of the softmax's denominator `(B, heads, *query)`."""
    batch, heads, query_shape = index.shape[0], index.shape[1], tuple(index.shape[3:])
    dtype, no_padding = compute_dtype(similarity, value), (0,) * len(query_shape)
    votes = votes_of(_score_of(similarity, index, temperature, dtype), index, tuple(value.shape[2:]), window)
    values = pad(value, heads, no_padding, "zeros")
    query, items = three(query_shape, 1), batch * heads
    tiles = tiles_of(values, query, items)
    output = empty_like_table(values, items, query, value.dtype)
    log_normalizer = torch.empty((batch, heads, *query_shape), dtype=dtype, device=value.device)
    grid = tiles.grid(tiles.chunks(values))
    launch(_attend_kernel, grid, value.device, votes, values, tiles, output, log_normalizer, num_warps=WARPS)
    like = value.new_empty((batch, value.shape[1], *query_shape), device="meta")
    return unpad_gradient(output.pixels, like, heads, no_padding, "zeros"), log_normalizer


def attend_backward(
    grad_output: Tensor,
    similarity: Tensor,
    index: Tensor,
    value: Tensor,
    output: Tensor,
    log_normalizer: Tensor,
    window: tuple[int, ...],
    temperature: float,
) -> tuple[Tensor, Tensor]:
    r"""Gradients of `attend` with respect to similarity and value.

    With weights $w = \exp(s / \tau - \log Z_i)$ computed anew from the saved normalizer,
    $\partial s = \sum_i w\, (g_i \cdot V_j - g_i \cdot O_i) / \tau$ over the queries i that hear the match, and
    $\partial V_j = \sum w\, g_i$ over the votes for j.
    """
    heads, dtype = index.shape[1], compute_dtype(similarity, value)
    votes = votes_of(_score_of(similarity, index, temperature, dtype), index, tuple(value.shape[2:]), window)
    # Without any vote every weight is then 0, instead of exp(-inf + inf).
    log_normalizer = log_normalizer.detach().to(dtype).flatten(2).flatten(0, 1)
    log_normalizer = torch.where(log_normalizer == -torch.inf, torch.inf, log_normalizer).contiguous()
    product = (grad_output.detach().to(dtype) * output.detach().to(dtype)).flatten(2)
    mean = product.unflatten(1, (heads, value.shape[1] // heads)).sum(2).flatten(0, 1).contiguous()
    by_score, by_value = gradients_of(votes, grad_output, value, heads, log_normalizer, mean)
    return (by_score / temperature).view(similarity.shape).to(similarity.dtype), by_value


def _score_of(similarity: Tensor, index: Tensor, temperature: float, dtype: torch.dtype) -> Tensor:
    """Similarity / temperature; -inf where there is no match or NaN."""
    # Divided here: a number that a kernel is given has 32 bits.
    score = similarity.detach().to(dtype) / temperature
    return torch.where((index >= 0) & ~score.isnan(), score, -torch.inf)


@triton.jit
def _attend_kernel(votes, values, tiles, output, log_normalizer):
    queries = block_of_queries(tiles.blocks)
    channel = chunk_of_channels(tiles, tl.program_id(2))
    peak = tl.full([queries.flat.shape[0]], float("-inf"), votes.COMPUTE)
    for number in range(votes.T * votes.Y * votes.X):
        for slot in range(votes.k):
            key, score = vote(votes, queries, number, slot)
            peak = tl.maximum(peak, score)
    peak = tl.where(peak == float("-inf"), 0, peak)
    mass = tl.zeros([queries.flat.shape[0]], votes.COMPUTE)
    total = tl.zeros([queries.flat.shape[0], tiles.CHUNK], votes.COMPUTE)
    for number in range(votes.T * votes.Y * votes.X):
        for slot in range(votes.k):
            key, score = vote(votes, queries, number, slot)
            weight = tl.exp(score - peak)
            mass += weight
            voted = load_pixels(values, queries.item, key, score > float("-inf"), channel, votes.COMPUTE)
            total += weight[:, None] * voted
    empty = mass == 0
    # Infinite similarities leave no mean.
    mean = tl.where((mass > 0)[:, None], total / tl.where(empty, 1, mass)[:, None], 0)
    store_pixels(output, queries.item, queries.flat, queries.exists, channel, mean)
    if tl.program_id(2) == 0:
        count = votes.query.t * votes.query.y * votes.query.x
        found = tl.where(empty, float("-inf"), peak + tl.log(tl.where(empty, 1, mass)))
        tl.store(log_normalizer + queries.item.to(tl.int64) * count + queries.flat, found, mask=queries.exists)
