"""The similarity of query patches and key patches at given positions."""

from __future__ import annotations

import torch
from torch import Tensor

from patchattn.kernels.reference.patch_similarity import PatchPairs
from patchattn.problem import PatchGeometry

__all__ = ["similarity_at"]


@torch.no_grad()
def similarity_at(query: Tensor, key: Tensor, index: Tensor, geometry: PatchGeometry) -> Tensor:
    """Return the similarity of each query to its keys in `index`, both `(B, heads, k, *query_spatial)`; -inf at -1."""
    pairs = PatchPairs(query, key, geometry)
    return torch.unflatten(pairs.at(pairs.queries, index.long().flatten(3)).contiguous(), 3, pairs.query_shape)
