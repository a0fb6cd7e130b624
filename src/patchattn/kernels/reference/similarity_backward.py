"""The gradients of the similarity with respect to query and key."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from patchattn.kernels.reference.gather import take
from patchattn.kernels.reference.patch_similarity import PatchPairs, as_array, as_tensor_like
from patchattn.problem import PatchGeometry

__all__ = ["similarity_at_backward"]

Derivative = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@torch.no_grad()
def similarity_at_backward(
    grad: Tensor, query: Tensor, key: Tensor, index: Tensor, geometry: PatchGeometry
) -> tuple[Tensor, Tensor]:
    """Return the gradients of `similarity_at` with respect to query and key.

    Entries with index -1, and those with a gradient of 0, contribute nothing, whatever their patches hold.
    All sums run in a fixed order: equal inputs give equal bits.

    Args:
        grad: Gradient of the similarities, `(B, heads, k, *query_spatial)`.
        query: `(B, C, *query_spatial)`.
        key: `(B or 1, C, *key_spatial)`; the gradient of a shared key is the sum over the batch.
        index: `(B, heads, k, *query_spatial)`.
        geometry: How patches are cut and compared.
    """
    pairs = PatchPairs(query, key, geometry)
    keys = index.long().flatten(3)
    weight = grad.to(pairs.dtype).flatten(3).unsqueeze(2)
    counts = (keys >= 0).unsqueeze(2) & (weight != 0)
    derivative = derivative_of(pairs, keys)
    grad_query, grad_key = torch.zeros_like(pairs.query.pixels), torch.zeros_like(pairs.key.pixels)
    query_places, key_places = pairs.query.places(pairs.queries[None, None]), pairs.key.places(keys)
    for query_place, key_place in zip(query_places, key_places, strict=True):
        q, k = take(pairs.query.pixels, query_place).unsqueeze(3), take(pairs.key.pixels, key_place)
        by_q, by_k = derivative(q, k)
        # Selected after the product: NaN would survive a multiplication by 0.
        grad_query += pairs.query.sum_gradient(torch.where(counts, weight * by_q, 0).sum(3), query_place)
        grad_key += pairs.key.sum_gradient(torch.where(counts, weight * by_k, 0), key_place)
    return pairs.query.image_gradient(grad_query), pairs.key.image_gradient(grad_key)


def derivative_of(pairs: PatchPairs, keys: Tensor) -> Derivative:
    """Return the function from one element of the patches, `q (B, heads, C, 1, n)` and `k (B, heads, C, r, n)`, to the
    derivatives of the similarity by q and by k.
    """
    similarity = pairs.geometry.similarity
    if similarity.function is not None:
        return pointwise_derivative(pairs)
    if similarity.name == "l2":
        return lambda q, k: (-2 * (q - k), 2 * (q - k))
    if similarity.name == "l1":
        return lambda q, k: (-(q - k).sign(), (q - k).sign())
    if similarity.name == "cosine":
        return cosine_derivative(pairs, keys)
    return lambda q, k: (pairs.scale * k, pairs.scale * q)


def pointwise_derivative(pairs: PatchPairs) -> Derivative:
    """The derivative that came with a user's own similarity."""
    similarity = pairs.geometry.similarity
    function = similarity.derivative
    if function is None:
        raise RuntimeError(
            f"similarity: {similarity.name} has no derivative; "
            "give one to pointwise_similarity() to train query and key."
        )

    def derivative(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        with np.errstate(all="ignore"):
            by_q, by_k = function(as_array(q), as_array(k))
        return as_tensor_like(by_q, k), as_tensor_like(by_k, k)

    return derivative


def cosine_derivative(pairs: PatchPairs, keys: Tensor) -> Derivative:
    """The derivative of cosine, written in unit patches u and v: the square of an inverse norm could overflow."""
    similarity = pairs.at(pairs.queries, keys).unsqueeze(2)
    query_factor, key_factor = (factor.unsqueeze(2) for factor in pairs.inverse_norms_at(pairs.queries, keys))

    def derivative(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        u, v = q * query_factor, k * key_factor
        return query_factor * (v - similarity * u), key_factor * (u - similarity * v)

    return derivative
