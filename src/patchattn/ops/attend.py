"""Operator `patchattn::attend`: softmax over the votes, weighted sum of values; differentiable in both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from patchattn.kernels import load_backend
from patchattn.ops.register import fake, operator

__all__ = ["attend"]


@operator("attend")
def attend(
    similarity: Tensor, index: Tensor, value: Tensor, window: Sequence[int], temperature: float, backend: str
) -> tuple[Tensor, Tensor]:
    """Return the output `(B, Cv, *query)` and the log of the softmax's denominator `(B, heads, *query)`.

    `window` is the extent of the spatial neighbourhood whose matches vote: all ones without aggregation.
    """
    output, normalizer = load_backend(backend).attend(similarity, index, value, tuple(window), temperature)
    return output, normalizer


@fake("attend")
def _attend_fake(
    similarity: Tensor, index: Tensor, value: Tensor, window: Sequence[int], temperature: float, backend: str
) -> tuple[Tensor, Tensor]:
    dtype = torch.float64 if value.dtype == torch.float64 else torch.float32
    output = value.new_empty((index.shape[0], value.shape[1], *index.shape[3:]))
    return output, value.new_empty((*index.shape[:2], *index.shape[3:]), dtype=dtype)


@operator("attend_backward")
def attend_backward(
    grad_output: Tensor,
    similarity: Tensor,
    index: Tensor,
    value: Tensor,
    output: Tensor,
    log_normalizer: Tensor,
    window: Sequence[int],
    temperature: float,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """Return the gradients with respect to similarity and value."""
    grad_similarity, grad_value = load_backend(backend).attend_backward(
        grad_output, similarity, index, value, output, log_normalizer, tuple(window), temperature
    )
    return grad_similarity, grad_value


@fake("attend_backward")
def _attend_backward_fake(
    grad_output: Tensor,
    similarity: Tensor,
    index: Tensor,
    value: Tensor,
    output: Tensor,
    log_normalizer: Tensor,
    window: Sequence[int],
    temperature: float,
    backend: str,
) -> tuple[Tensor, Tensor]:
    return similarity.new_empty(similarity.shape), value.new_empty(value.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    similarity, index, value, *settings = inputs
    ctx.save_for_backward(similarity, index, value, *output)
    ctx.settings = settings
    ctx.mark_non_differentiable(output[1])


def _backward(ctx: Any, grad_output: Tensor, grad_normalizer: Tensor) -> tuple[Tensor | None, ...]:
    similarity, index, value, output, normalizer = ctx.saved_tensors
    grad_similarity, grad_value = attend_backward(
        grad_output, similarity, index, value, output, normalizer, *ctx.settings
    )
    return (grad_similarity, None, grad_value, *(None for _ in ctx.settings))


torch.library.register_autograd("patchattn::attend", _backward, setup_context=_setup_context)
