"""Gradients of sums over votes, with respect to the scores (or weights) of the matches and to the values.

Every match and every value gathers its own sum, in a fixed order: nothing is written twice.
"""

from __future__ import annotations

from math import prod

import torch
import triton
import triton.language as tl
from torch import Tensor

from patchattn.kernels.gpu.determinism import atomics_allowed
from patchattn.kernels.gpu.grid import Extent, block_of_queries, place_of
from patchattn.kernels.gpu.inverse import WALKING_WARPS, Box, count_steps, entry_of, invert, next_step, start_walk
from patchattn.kernels.gpu.launch import launch
from patchattn.kernels.gpu.padded_image import PaddedImage, pad, unpad_gradient
from patchattn.kernels.gpu.patch_similarity import WARPS
from patchattn.kernels.gpu.tiles import chunk_of_channels, empty_like_table, load_pixels, store_pixels, tiles_of
from patchattn.kernels.gpu.votes import Votes, offset_in, place_in_lists, shifted_back, vote

__all__ = ["gradients_of"]


def gradients_of(
    votes: Votes, grad_output: Tensor, value: Tensor, heads: int, log_normalizer: Tensor | None, mean: Tensor | None
) -> tuple[Tensor, Tensor]:
    """With respect to the scores, `(items, k, queries)` and 0 where there is no match, and to the values.

    Args:
        log_normalizer: `(items, queries)`, inf for a query without votes; None if the scores are the weights.
        mean: Gradient times output, `(items, queries)`; None if the scores are the weights.
    """
    no_padding = (0,) * (value.dim() - 2)
    grads, values = (pad(image, heads, no_padding, "zeros") for image in (grad_output, value))
    tiles, device = tiles_of(values, votes.query, grads.items), value.device
    by_score = torch.empty_like(votes.score)
    launch(
        _score_kernel, tiles.grid(votes.k), device, votes, grads, values, log_normalizer, mean, tiles, by_score,
        num_warps=WARPS,
    )  # fmt: skip
    one_vote_each = votes.T.value * votes.Y.value * votes.X.value == 1
    of_values = _scattered if one_vote_each and atomics_allowed() else _gathered
    by_value = of_values(votes, grads, values.items, log_normalizer)
    return by_score, unpad_gradient(by_value.pixels, value, heads, no_padding, "zeros")


def _gathered(votes: Votes, grads: PaddedImage, tables: int, log_normalizer: Tensor | None) -> PaddedImage:
    """The gradient of the values: weight times gradient, summed over the votes for each."""
    found = empty_like_table(grads, tables, votes.key, votes.score.dtype)
    tiles = tiles_of(grads, votes.key, tables, WALKING_WARPS)
    inverse = invert(votes.index, prod(votes.key), tables)
    launch(
        _value_kernel, tiles.grid(tiles.chunks(grads)), found.pixels.device, votes, grads, inverse, log_normalizer,
        tiles, found, num_warps=WALKING_WARPS,
    )  # fmt: skip
    return found


def _scattered(votes: Votes, grads: PaddedImage, tables: int, log_normalizer: Tensor | None) -> PaddedImage:
    """Gradient of the values by atomic additions, in any order: it saves the sorting of the matches."""
    found = empty_like_table(grads, tables, votes.key, votes.score.dtype)
    found.pixels.zero_()
    tiles = tiles_of(grads, votes.query, grads.items)
    launch(
        _scatter_kernel, tiles.grid(tiles.chunks(grads)), found.pixels.device, votes, grads, log_normalizer, tiles,
        found, num_warps=WARPS,
    )  # fmt: skip
    return found


@triton.jit
def _weight(votes, log_normalizer, item, query, score, wanted):
    """Weight of a vote at a query; 0 where it is not wanted."""
    weight = score
    if log_normalizer is not None:
        count = votes.query.t * votes.query.y * votes.query.x
        weight = tl.exp(score - tl.load(log_normalizer + item.to(tl.int64) * count + query, mask=wanted, other=0))
    return tl.where(wanted, weight, 0)


@triton.jit
def _score_kernel(votes, grads, values, log_normalizer, mean, tiles, found):
    """Each match sums over the queries that hear it."""
    matched = block_of_queries(tiles.blocks)
    place = place_in_lists(votes, matched.item, tl.program_id(2), matched.flat)
    match = tl.load(votes.index + place, mask=matched.exists, other=-1)
    score = tl.load(votes.score + place, mask=match >= 0, other=0)
    counts = match >= 0
    if log_normalizer is not None:
        counts = counts & (score > float("-inf"))
    there = place_of(tl.where(counts, match, 0), votes.key)
    along = tl.zeros([matched.flat.shape[0], tiles.CHUNK], votes.COMPUTE)
    less = tl.zeros([matched.flat.shape[0]], votes.COMPUTE)
    for number in range(votes.T * votes.Y * votes.X):
        by = offset_in(votes, number)
        query = shifted_back(Extent(matched.t, matched.y, matched.x), votes.query, by)
        key = shifted_back(there, votes.key, by)
        heard = counts & (query >= 0) & (key >= 0)
        weight = tl.where(heard, 1, tl.zeros_like(score))
        if log_normalizer is not None:
            weight = _weight(votes, log_normalizer, matched.item, query, score, heard)
            count = votes.query.t * votes.query.y * votes.query.x
            less += weight * tl.load(mean + matched.item.to(tl.int64) * count + query, mask=heard, other=0)
        for first in range(0, values.PIXEL, tiles.CHUNK):
            channel = first + tl.arange(0, tiles.CHUNK)
            grad = load_pixels(grads, matched.item, query, heard, channel, votes.COMPUTE)
            voted = load_pixels(values, matched.item, key, heard, channel, votes.COMPUTE)
            along += weight[:, None] * (grad * voted)
    tl.store(found + place, tl.sum(along, 1) - less, mask=matched.exists)


@triton.jit
def _value_kernel(votes, grads, inverse, log_normalizer, tiles, found):
    """Each key sums over the votes for it: the matches to the keys around it, heard one offset away."""
    keys = block_of_queries(tiles.blocks)
    channel = chunk_of_channels(tiles, tl.program_id(2))
    corner = Extent(keys.t - votes.T // 2, keys.y - votes.Y // 2, keys.x - votes.X // 2)
    box = Box(corner, votes.key, votes.T, votes.Y, votes.X)
    total = tl.zeros([keys.flat.shape[0], tiles.CHUNK], votes.COMPUTE)
    walk = start_walk(inverse, keys.exists)
    for _ in range(count_steps(inverse, keys.item, box, keys.exists)):
        walk = next_step(inverse, keys.item, box, keys.exists, walk)
        wanted = walk.left > 0
        entry = entry_of(inverse, keys.item, walk)
        score = tl.load(votes.score + entry.place, mask=wanted, other=0)
        query = entry.query
        if votes.T * votes.Y * votes.X > 1:
            query = shifted_back(place_of(query, votes.query), votes.query, offset_in(votes, walk.number))
            wanted = wanted & (query >= 0)
        if log_normalizer is not None:
            wanted = wanted & (score > float("-inf"))
        weight = _weight(votes, log_normalizer, entry.item, query, score, wanted)
        total += weight[:, None] * load_pixels(grads, entry.item, query, wanted, channel, votes.COMPUTE)
    store_pixels(found, keys.item, keys.flat, keys.exists, channel, total)


@triton.jit
def _scatter_kernel(votes, grads, log_normalizer, tiles, found):
    """Each query adds to the values of its own matches."""
    queries = block_of_queries(tiles.blocks)
    channel = chunk_of_channels(tiles, tl.program_id(2))
    grad = load_pixels(grads, queries.item, queries.flat, queries.exists, channel, votes.COMPUTE)
    table = (queries.item % found.items).to(tl.int64) * found.size.t * found.size.y * found.size.x
    for slot in range(votes.k):
        key, score = vote(votes, queries, 0, slot)
        wanted = key >= 0
        if log_normalizer is not None:
            wanted = wanted & (score > float("-inf"))
        weight = _weight(votes, log_normalizer, queries.item, queries.flat, score, wanted)
        mask = wanted[:, None] & (channel < found.PIXEL)[None, :]
        pixel = found.pixels + ((table + key) * found.PIXEL)[:, None] + channel[None, :]
        tl.atomic_add(pixel, weight[:, None] * grad, mask=mask, sem="relaxed")
