"""The derivative of the similarity along given directions of query and key."""

from __future__ import annotations

import torch
from torch import Tensor

from patchattn.kernels.reference.padded_image import PaddedImage
from patchattn.kernels.reference.patch_similarity import PatchPairs
from patchattn.kernels.reference.similarity_backward import derivative_of
from patchattn.problem import PatchGeometry

__all__ = ["similarity_tangent"]


@torch.no_grad()
def similarity_tangent(
    query: Tensor, key: Tensor, index: Tensor, by_query: Tensor, by_key: Tensor, geometry: PatchGeometry
) -> Tensor:
    r"""Return the derivative of `similarity_at` along a direction; 0 at -1, and where a patch holds NaN or infinity.

    $$t(i, j) = \sum_o \frac{\partial s}{\partial q_{i + o}} \cdot u_{i + o} + \frac{\partial s}{\partial k_{j + o}}
    \cdot v_{j + o}$$

    Args:
        query: `(B, C, *query_spatial)`.
        key: `(B or 1, C, *key_spatial)`.
        index: `(B, heads, k, *query_spatial)`.
        by_query: u, the direction of the query, of its shape; so is by_key, v, of the key's.
        geometry: How patches are cut and compared.
    """
    pairs = PatchPairs(query, key, geometry)
    keys = index.long().flatten(3)
    derivative = derivative_of(pairs, keys)
    queries = pairs.queries[None, None, None]
    elements = [
        patches.elements(at)
        for patches, at in (
            (pairs.query, queries),
            (pairs.key, keys),
            (PaddedImage(by_query, geometry, pairs.dtype), queries),
            (PaddedImage(by_key, geometry, pairs.dtype), keys),
        )
    ]
    total = torch.zeros(keys.shape, dtype=pairs.dtype, device=keys.device)
    compared = keys >= 0
    for q, k, u, v in zip(*elements, strict=True):
        by_q, by_k = derivative(q, k)
        total += (by_q * u + by_k * v).sum(2)
        compared = compared & (q.isfinite() & k.isfinite()).all(2)
    found = torch.where(compared, total, 0).contiguous()
    return torch.unflatten(found, 3, pairs.query_shape)
