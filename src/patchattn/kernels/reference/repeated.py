"""PatchMatch run k times, each time for one more match: Algorithm 1 of SCRAM."""

from __future__ import annotations

import torch
from torch import Tensor

from patchattn.kernels.reference.patch_similarity import PatchPairs
from patchattn.kernels.reference.patchmatch import improve
from patchattn.kernels.reference.topk import TopK
from patchattn.problem import Constraints, PatchGeometry

__all__ = ["search_repeated"]


@torch.no_grad()
def search_repeated(
    query: Tensor,
    key: Tensor,
    k: int,
    geometry: PatchGeometry,
    constraints: Constraints,
    iterations: int,
    seed: int,
    init: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Find k good admissible keys of each query by k searches for one: none may conflict with what those before found.

    Args:
        query: As for `search_patchmatch`; so are all others and what is returned. The iterations are those of one run.
    """
    pairs = PatchPairs(query, key, geometry)
    index = pairs.queries.new_empty((query.shape[0], geometry.num_heads, 0, len(pairs.queries)))
    similarity = index.to(pairs.dtype)
    for run in range(k):
        lists = TopK(pairs, 1, constraints, taken=index)
        improve(lists, k, iterations, seed, run * (iterations + 1), init)
        index, similarity = torch.cat([index, lists.index], 2), torch.cat([similarity, lists.similarity], 2)
    # A later run may have found what an earlier one missed.
    similarity, order = torch.sort(similarity, dim=2, descending=True, stable=True)
    index = index.gather(2, order).int()
    return torch.unflatten(index, 3, pairs.query_shape), torch.unflatten(similarity, 3, pairs.query_shape)
