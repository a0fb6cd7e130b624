"""Exhaustive search: every query against every key, a block of queries at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from patchattn.kernels.reference.constraints import admissible, conflicting
from patchattn.kernels.reference.gather import compute_dtype
from patchattn.kernels.reference.patch_similarity import PatchPairs
from patchattn.kernels.reference.positions import all_positions
from patchattn.problem import Constraints, PatchGeometry

__all__ = ["search_exact"]

BLOCK_ELEMENTS = 2**22
"""Largest number of scalars compared at once; bounds the memory, does not change the result."""


@torch.no_grad()
def search_exact(
    query: Tensor, key: Tensor, k: int, geometry: PatchGeometry, constraints: Constraints
) -> tuple[Tensor, Tensor]:
    """Return the k best admissible keys of each query, best first, equal ones by position.

    Similarities are computed in float64, where the device has it, and rounded in the end.

    With a separation: the best, then the best of those that do not conflict with it, and so on.

    Args:
        query: `(B, C, *query_spatial)`.
        key: `(B or 1, C, *key_spatial)`.
        k: Number of matches.
        geometry: How patches are cut and compared.
        constraints: Which keys a query may match.

    Returns:
        int32 index and similarity, `(B, heads, k, *query_spatial)`; -1 and -inf where there is no further match.
    """
    dtype = compute_dtype(query, key)
    if query.device.type != "mps":  # which has no float64
        query, key = query.double(), key.double()
    pairs = PatchPairs(query, key, geometry)
    keys = all_positions(pairs.key_shape, query.device)
    block = max(1, BLOCK_ELEMENTS // max(1, query.shape[0] * query.shape[1] * len(keys)))
    indices, similarities = [], []
    for start in range(0, len(pairs.queries), block):
        queries = pairs.queries[start : start + block]
        candidates = keys[:, None].expand(query.shape[0], geometry.num_heads, -1, len(queries))
        allowed = admissible(queries, candidates, pairs.query_shape, pairs.key_shape, constraints)
        similarity = torch.where(allowed, pairs.at(queries, candidates), -torch.inf)
        if constraints.separated:
            best = best_separated(similarity, k, pairs.key_shape, constraints)
        else:
            best = best_of_all(similarity, k)
        indices.append(best[0])
        similarities.append(best[1])
    index, similarity = torch.cat(indices, 3), torch.cat(similarities, 3).to(dtype)
    index = torch.where(similarity > -torch.inf, index, -1)  # what rounds to -inf is no match
    return torch.unflatten(index.int(), 3, pairs.query_shape), torch.unflatten(similarity, 3, pairs.query_shape)


def best_of_all(similarity: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return index and similarity `(B, heads, k, n)` of the best of `(B, heads, keys, n)`."""
    missing = max(0, k - similarity.shape[2])
    # A stable sort, because topk leaves the order of equal values open.
    similarity, index = torch.sort(similarity, dim=2, descending=True, stable=True)
    similarity = torch.nn.functional.pad(similarity[:, :, :k], (0, 0, 0, missing), value=-torch.inf)
    index = torch.nn.functional.pad(index[:, :, :k], (0, 0, 0, missing), value=-1)
    return torch.where(similarity > -torch.inf, index, -1), similarity


def best_separated(
    similarity: Tensor, k: int, key_shape: tuple[int, ...], constraints: Constraints
) -> tuple[Tensor, Tensor]:
    """Do what `best_of_all` does, each match excluding those that conflict with it."""
    keys = all_positions(key_shape, similarity.device)[:, None]
    indices, similarities = [], []
    for _ in range(k):
        index = similarity.argmax(2, keepdim=True)
        best = similarity.gather(2, index)
        indices.append(torch.where(best > -torch.inf, index, -1))
        similarities.append(best)
        similarity = torch.where(conflicting(index, keys, key_shape, constraints), -torch.inf, similarity)
    return torch.cat(indices, 2), torch.cat(similarities, 2)
