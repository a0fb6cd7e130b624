"""Attention over the matches alone: softmax of their similarities, weighted sum of their values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

import torch
from torch import Tensor

from patchattn.kernels.reference.gather import compute_dtype, split_heads, sum_by_position, take
from patchattn.kernels.reference.positions import all_positions, centered, moved

__all__ = ["attend", "attend_backward"]

Votes = tuple[tuple[int, ...], Tensor, Tensor]


@torch.no_grad()
def attend(
    similarity: Tensor, index: Tensor, value: Tensor, window: Sequence[int], temperature: float
) -> tuple[Tensor, Tensor]:
    """Return the softmax-weighted mean of the values at each query's votes, and the log of the softmax's normalizer.

    The votes are found by `votes`; with a window of ones they are the query's own matches.

    Args:
        similarity: `(B, heads, k, *query_spatial)`.
        index: int32, the same shape; -1 = no match.
        value: `(B or 1, Cv, *key_spatial)`; head h weighs the h-th group of channels.
        window: Odd extents of the window of neighbors whose matches vote.
        temperature: What similarities are divided by.

    Returns:
        `(B, Cv, *query_spatial)` of the value's dtype, and `(B, heads, *query_spatial)` of the compute dtype; 0 and
        -inf where there is no vote.
    """
    dtype = compute_dtype(similarity, value)
    query_shape, key_shape = tuple(index.shape[3:]), tuple(value.shape[2:])
    table = split_heads(value.to(dtype), index.shape[1]).flatten(3)
    score = score_of(similarity, index, temperature, dtype)

    batch, heads, _, count = score.shape
    peak = torch.full((batch, heads, count), -torch.inf, dtype=dtype, device=value.device)
    for _, _, scores in votes(score, index, query_shape, key_shape, window):
        peak = torch.maximum(peak, scores.amax(2))
    peak = torch.where(peak == -torch.inf, 0, peak)

    normalizer = torch.zeros_like(peak)
    total = torch.zeros((batch, heads, table.shape[2], count), dtype=dtype, device=value.device)
    for _, keys, scores in votes(score, index, query_shape, key_shape, window):
        weight = (scores - peak.unsqueeze(2)).exp()
        normalizer += weight.sum(2)
        total += (weight.unsqueeze(2) * take(table, keys)).sum(3)
    out = torch.where(normalizer.unsqueeze(2) > 0, total / normalizer.unsqueeze(2), 0)
    out = torch.unflatten(out.flatten(1, 2), 2, query_shape).to(value.dtype)
    return out.contiguous(), torch.unflatten((peak + normalizer.log()).contiguous(), 2, query_shape)


@torch.no_grad()
def attend_backward(
    grad_out: Tensor,
    similarity: Tensor,
    index: Tensor,
    value: Tensor,
    out: Tensor,
    log_normalizer: Tensor,
    window: Sequence[int],
    temperature: float,
) -> tuple[Tensor, Tensor]:
    r"""Return the gradients of `attend`'s `out` with respect to similarity and value.

    With the weight $w_v$ of vote v for key $j_v$ and the gradient $g$ of the output:
    $\partial s_v = w_v (g \cdot V(j_v) - g \cdot \mathrm{out}) / T$ and $\partial V(j_v) \mathrel{+}= w_v g$.
    A similarity collects this from every vote it is used in. All sums run in a fixed order, so that equal inputs give
    equal bits.

    Args:
        grad_out: `(B, Cv, *query_spatial)`.
        similarity: As given to `attend`; so are index, value, window and temperature.
        out: What `attend` returned; so is log_normalizer.
    """
    dtype = compute_dtype(similarity, value)
    query_shape, key_shape = tuple(index.shape[3:]), tuple(value.shape[2:])
    heads, size = index.shape[1], prod(key_shape)
    table = split_heads(value.to(dtype), heads).flatten(3)
    grad = split_heads(grad_out.to(dtype), heads).flatten(3)
    score = score_of(similarity, index, temperature, dtype)
    # Minus infinity, no weight at all, becomes plus infinity: every weight is then 0 instead of exp(-inf + inf).
    normalizer = torch.where(log_normalizer == -torch.inf, torch.inf, log_normalizer.to(dtype)).flatten(2).unsqueeze(2)
    mean = (grad * split_heads(out.to(dtype), heads).flatten(3)).sum(2).unsqueeze(2)

    queries = all_positions(query_shape, value.device)
    grad_similarity, grad_table = torch.zeros_like(score), torch.zeros_like(table)
    for offset, keys, scores in votes(score, index, query_shape, key_shape, window):
        weight = (scores - normalizer).exp()
        along = (grad.unsqueeze(3) * take(table, keys)).sum(2)
        by_vote = torch.where(keys >= 0, weight * (along - mean) / temperature, 0)
        voter = moved(queries, query_shape, [-by for by in offset])
        grad_similarity += torch.where(voter >= 0, by_vote[..., voter.clamp(min=0)], 0)
        grad_table += sum_by_position(weight.unsqueeze(2) * grad.unsqueeze(3), keys, size, table.shape[0])
    return (
        torch.unflatten(grad_similarity, 3, query_shape).to(similarity.dtype).contiguous(),
        torch.unflatten(grad_table.flatten(1, 2), 2, key_shape).to(value.dtype).contiguous(),
    )


def score_of(similarity: Tensor, index: Tensor, temperature: float, dtype: torch.dtype) -> Tensor:
    """Return similarity / temperature, `(B, heads, k, queries)`; -inf where there is no match or NaN."""
    score = similarity.to(dtype) / temperature
    return torch.where((index >= 0) & ~score.isnan(), score, -torch.inf).flatten(3)


def votes(
    score: Tensor, index: Tensor, query_shape: Sequence[int], key_shape: Sequence[int], window: Sequence[int]
) -> Iterator[Votes]:
    """For each offset o of the window, yield o and the votes of the neighbors i + o of all queries i.

    A match j' of the neighbor is a vote for key j' - o, if the neighbor and that key lie inside their domains. Two
    votes for one key stay two: this is equation 10 of "Patch-Based Stochastic Attention for Image Editing".

    Yields:
        The offset; keys, int64 `(B, heads, k, queries)`, -1 where there is no vote; their scores, -inf there.
    """
    queries = all_positions(query_shape, score.device)
    matches = index.long().flatten(3)
    for offset in centered(window):
        neighbor = moved(queries, query_shape, offset)
        theirs = torch.where(neighbor >= 0, matches[..., neighbor.clamp(min=0)], -1)
        keys = moved(theirs, key_shape, [-by for by in offset])
        scores = torch.where(keys >= 0, score[..., neighbor.clamp(min=0)], -torch.inf)
        # A weight of 0 would not silence a value of NaN.
        yield offset, torch.where(scores > -torch.inf, keys, -1), scores
