"""Operators that compare patches at the matches of a field: similarity, its gradients, its change along directions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from patchattn.kernels import load_backend
from patchattn.kernels.arguments import PatchGeometry
from patchattn.ops.register import fake, operator
from patchattn.similarity import resolve_similarity

__all__ = ["similarity_at_backward", "similarity_operator", "similarity_tangent"]


@operator("similarity_at", shared=(1,))
def similarity_operator(
    query: Tensor,
    key: Tensor,
    index: Tensor,
    patch_size: Sequence[int],
    padding_mode: str,
    num_heads: int,
    similarity: str,
    backend: str,
) -> Tensor:
    """Return the similarity `(B, heads, k, *query)` of every query patch and the key patches that `index` names."""
    geometry = PatchGeometry(tuple(patch_size), padding_mode, num_heads, resolve_similarity(similarity))
    found: Tensor = load_backend(backend).similarity_at(query, key, index, geometry)
    return found


@fake("similarity_at")
def _similarity_at_fake(query: Tensor, key: Tensor, index: Tensor, *_: Any) -> Tensor:
    dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
    return query.new_empty(index.shape, dtype=dtype)


@operator("similarity_at_backward")
def similarity_at_backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    index: Tensor,
    patch_size: Sequence[int],
    padding_mode: str,
    num_heads: int,
    similarity: str,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """Return the gradients with respect to query and key."""
    geometry = PatchGeometry(tuple(patch_size), padding_mode, num_heads, resolve_similarity(similarity))
    grad_query, grad_key = load_backend(backend).similarity_at_backward(grad, query, key, index, geometry)
    return grad_query, grad_key


@fake("similarity_at_backward")
def _similarity_at_backward_fake(grad: Tensor, query: Tensor, key: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return query.new_empty(query.shape), key.new_empty(key.shape)


@operator("similarity_tangent")
def similarity_tangent(
    query: Tensor,
    key: Tensor,
    index: Tensor,
    by_query: Tensor,
    by_key: Tensor,
    patch_size: Sequence[int],
    padding_mode: str,
    num_heads: int,
    similarity: str,
    backend: str,
) -> Tensor:
    """Return the derivative of the similarities along the directions `by_query` and `by_key`; 0 where index is -1."""
    geometry = PatchGeometry(tuple(patch_size), padding_mode, num_heads, resolve_similarity(similarity))
    found: Tensor = load_backend(backend).similarity_tangent(query, key, index, by_query, by_key, geometry)
    return found


@fake("similarity_tangent")
def _similarity_tangent_fake(query: Tensor, key: Tensor, index: Tensor, *_: Any) -> Tensor:
    dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
    return query.new_empty(index.shape, dtype=dtype)
