"""Operator `patchattn::similarity_at`: the similarities of a given field, differentiable in query and key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from patchattn.kernels import load_backend
from patchattn.kernels.arguments import PatchGeometry
from patchattn.ops.register import fake, operator
from patchattn.similarity import resolve_similarity

__all__ = ["similarity_at"]


@operator("similarity_at")
def similarity_at(
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
def _similarity_at_fake(
    query: Tensor,
    key: Tensor,
    index: Tensor,
    patch_size: Sequence[int],
    padding_mode: str,
    num_heads: int,
    similarity: str,
    backend: str,
) -> Tensor:
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
def _similarity_at_backward_fake(
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
    return query.new_empty(query.shape), key.new_empty(key.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    query, key, index, *settings = inputs
    ctx.save_for_backward(query, key, index)
    ctx.settings = settings


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    query, key, index = ctx.saved_tensors
    grad_query, grad_key = similarity_at_backward(grad, query, key, index, *ctx.settings)
    return (grad_query, grad_key, None, *(None for _ in ctx.settings))


torch.library.register_autograd("patchattn::similarity_at", _backward, setup_context=_setup_context)
