"""The key that most of the patches that hold a query say it has."""

from __future__ import annotations

import torch
from torch import Tensor

from patchattn.kernels.reference.constraints import admissible
from patchattn.kernels.reference.positions import all_positions, centered, moved
from patchattn.problem import Constraints

__all__ = ["majority"]


@torch.no_grad()
def majority(
    index: Tensor, key_shape: tuple[int, ...], window: tuple[int, ...], constraints: Constraints
) -> tuple[Tensor, Tensor]:
    """Return the most frequent vote of every query's neighbors, the first key of those as frequent.

    A neighbor at an offset o within the window votes for its matches minus o: the keys that the query has if the patch
    around the neighbor is copied.

    Args:
        index: Matches, int32 `(B, heads, k, *query_spatial)`, -1 for none.
        key_shape: Spatial size of the key.
        window: Odd extent of the window in each dimension.
        constraints: Which keys a query may have.

    Returns:
        The key, int32 `(B, heads, 1, *query_spatial)`, -1 without any vote; and its share of the votes, float32.
    """
    query_shape = tuple(index.shape[3:])
    queries = all_positions(query_shape, index.device)
    matches = index.long().flatten(3)
    votes = []
    for offset in centered(window):
        neighbor = moved(queries, query_shape, offset)
        match = torch.where(neighbor >= 0, matches[..., neighbor.clamp(min=0)], -1)
        key = moved(match, key_shape, [-o for o in offset])
        votes.append(torch.where(admissible(queries, key, query_shape, key_shape, constraints), key, -1))
    vote = torch.cat(votes, 2)
    best, most = torch.full_like(vote[:, :, :1], -1), torch.zeros_like(vote[:, :, :1])
    for slot in range(vote.shape[2]):
        key = vote[:, :, slot : slot + 1]
        count = (vote == key).sum(2, keepdim=True)
        better = (key >= 0) & ((count > most) | ((count == most) & (key < best)))
        best, most = torch.where(better, key, best), torch.where(better, count, most)
    share = most.float() / (vote >= 0).sum(2, keepdim=True).clamp(min=1).float()
    return torch.unflatten(best.int(), 3, query_shape), torch.unflatten(share, 3, query_shape)
