"""The key that most of the patches that hold a query say it has."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from patchattn.kernels.gpu.constraints import admissible, chosen, limits_of, offset_window
from patchattn.kernels.gpu.grid import block_of_queries, blocks_of, three
from patchattn.kernels.gpu.launch import launch
from patchattn.kernels.gpu.votes import vote, votes_of
from patchattn.problem import Constraints

__all__ = ["majority"]

WARPS = 4
BLOCK = 128


def majority(
    index: Tensor, key_shape: tuple[int, ...], window: tuple[int, ...], constraints: Constraints
) -> tuple[Tensor, Tensor]:
    """Return the most frequent vote of every query's neighbors, the first key of those as frequent; and its share.

    Returns:
        int32 and float32 `(B, heads, 1, *query)`; -1 and 0 without any vote.
    """
    batch, heads, _, *size = index.shape
    query_shape = tuple(size)
    limits = limits_of(constraints, query_shape, key_shape, heads)
    blocks = blocks_of(three(query_shape, 1), batch * heads, BLOCK)
    votes = votes_of(torch.zeros_like(index, dtype=torch.float32), index, key_shape, window)
    shape = (batch, heads, 1, *query_shape)
    key = torch.empty(shape, dtype=torch.int32, device=index.device)
    share = torch.empty(shape, dtype=torch.float32, device=index.device)
    launch(_majority_kernel, blocks.grid, index.device, votes, limits, blocks, key, share, num_warps=WARPS)
    return key, share


@triton.jit
def _majority_kernel(votes, limits, blocks, output, output_share):
    """Count each vote among all others: nothing is kept, and threads take the same way."""
    queries = block_of_queries(blocks)
    exists = chosen(limits, queries)
    window = offset_window(limits, queries)
    best = tl.full([queries.flat.shape[0]], -1, tl.int32)
    most = tl.zeros([queries.flat.shape[0]], tl.int32)
    total = tl.zeros([queries.flat.shape[0]], tl.int32)
    for number in range(votes.T * votes.Y * votes.X):
        for slot in range(votes.k):
            key, _ = vote(votes, queries, number, slot)
            counts = exists & (key >= 0)
            counts = counts & tl.reshape(admissible(limits, queries, window, key[None, :]), [queries.flat.shape[0]])
            total += counts.to(tl.int32)
            same = tl.zeros([queries.flat.shape[0]], tl.int32)
            for other in range(votes.T * votes.Y * votes.X):
                for other_slot in range(votes.k):
                    other_key, _ = vote(votes, queries, other, other_slot)
                    same += (other_key == key).to(tl.int32)
            better = counts & ((same > most) | ((same == most) & (key < best)))
            best = tl.where(better, key, best)
            most = tl.where(better, same, most)
    count = votes.query.t * votes.query.y * votes.query.x
    at = queries.item.to(tl.int64) * count + queries.flat
    share = most.to(tl.float32) / tl.maximum(total, 1).to(tl.float32)
    tl.store(output + at, best, mask=queries.exists)
    tl.store(output_share + at, share, mask=queries.exists)
