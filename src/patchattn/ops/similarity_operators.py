"""Operators that compare patches at the matches of a field: similarity, its gradients, its change along directions."""

from __future__ import annotations

import torch
from torch import Tensor

from patchattn.kernels import load_backend
from patchattn.ops.register import fake, operator
from patchattn.problem import PatchGeometry

__all__ = ["similarity_at_backward", "similarity_operator", "similarity_tangent"]


@operator("similarity_at", shared=("key",))
def similarity_operator(query: Tensor, key: Tensor, index: Tensor, geometry: PatchGeometry, backend: str) -> Tensor:
    """Return the similarity `(B, heads, k, *query)` of every query patch and the key patches that `index` names."""
    found: Tensor = load_backend(backend).similarity_at(query, key, index, geometry)
    return found


@fake("similarity_at")
def _similarity_at_fake(query: Tensor, key: Tensor, index: Tensor, geometry: PatchGeometry, backend: str) -> Tensor:
    return _at_matches(query, index)


@operator("similarity_at_backward")
def similarity_at_backward(
    grad: Tensor, query: Tensor, key: Tensor, index: Tensor, geometry: PatchGeometry, backend: str
) -> tuple[Tensor, Tensor]:
    """Return the gradients with respect to query and key."""
    grad_query, grad_key = load_backend(backend).similarity_at_backward(grad, query, key, index, geometry)
    return grad_query, grad_key


@fake("similarity_at_backward")
def _similarity_at_backward_fake(
    grad: Tensor, query: Tensor, key: Tensor, index: Tensor, geometry: PatchGeometry, backend: str
) -> tuple[Tensor, Tensor]:
    return query.new_empty(query.shape), key.new_empty(key.shape)


@operator("similarity_tangent")
def similarity_tangent(
    query: Tensor,
    key: Tensor,
    index: Tensor,
    by_query: Tensor,
    by_key: Tensor,
    geometry: PatchGeometry,
    backend: str,
) -> Tensor:
    """Return the derivative of the similarities along the directions `by_query` and `by_key`; 0 where index is -1."""
    found: Tensor = load_backend(backend).similarity_tangent(query, key, index, by_query, by_key, geometry)
    return found


@fake("similarity_tangent")
def _similarity_tangent_fake(
    query: Tensor,
    key: Tensor,
    index: Tensor,
    by_query: Tensor,
    by_key: Tensor,
    geometry: PatchGeometry,
    backend: str,
) -> Tensor:
    return _at_matches(query, index)


def _at_matches(query: Tensor, index: Tensor) -> Tensor:
    dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
    return query.new_empty(index.shape, dtype=dtype)
