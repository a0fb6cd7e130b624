"""Operator `patchattn::attend`: softmax over the votes, weighted sum of values; differentiable again and again."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from patchattn.kernels import load_backend
from patchattn.ops.register import fake, operator
from patchattn.ops.transforms import forward_mode
from patchattn.ops.votes import attended, attended_backward_again

__all__ = ["attend", "attend_backward", "attend_operator"]


def attend(
    similarity: Tensor, index: Tensor, value: Tensor, window: tuple[int, ...], temperature: float, backend: str
) -> Tensor:
    """Return the output `(B, Cv, *query)`; in any mode of differentiation."""
    if forward_mode():
        return attended(similarity, index, value, window, temperature, backend)
    output: Tensor
    output, _ = attend_operator(similarity, index, value, window, temperature, backend)
    return output


@operator("attend", shared=("value",))
def attend_operator(
    similarity: Tensor, index: Tensor, value: Tensor, window: tuple[int, ...], temperature: float, backend: str
) -> tuple[Tensor, Tensor]:
    """Return the output `(B, Cv, *query)` and the log of the softmax's denominator `(B, heads, *query)`.

    `window` is the extent of the spatial neighborhood whose matches vote: all ones without aggregation.
    """
    output, normalizer = load_backend(backend).attend(similarity, index, value, window, temperature)
    return output, normalizer


@fake("attend")
def _attend_fake(similarity: Tensor, index: Tensor, value: Tensor, *settings: Any) -> tuple[Tensor, Tensor]:
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
    window: tuple[int, ...],
    temperature: float,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """Return the gradients with respect to similarity and value."""
    grad_similarity, grad_value = load_backend(backend).attend_backward(
        grad_output, similarity, index, value, output, log_normalizer, window, temperature
    )
    return grad_similarity, grad_value


@fake("attend_backward")
def _attend_backward_fake(
    grad_output: Tensor, similarity: Tensor, index: Tensor, value: Tensor, *rest: Any
) -> tuple[Tensor, Tensor]:
    return similarity.new_empty(similarity.shape), value.new_empty(value.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    similarity, index, value, *ctx.settings = inputs
    ctx.save_for_backward(similarity, index, value, *output)
    ctx.mark_non_differentiable(output[1])


def _backward(ctx: Any, grad_output: Tensor, grad_normalizer: Tensor) -> tuple[Tensor | None, ...]:
    grad_similarity, grad_value = attend_backward(grad_output, *ctx.saved_tensors, *ctx.settings)
    return (grad_similarity, None, grad_value, *(None for _ in ctx.settings))


def _save_again(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    grad_output, similarity, index, value, _, _, *ctx.settings = inputs
    ctx.save_for_backward(grad_output, similarity, index, value)


def _backward_again(ctx: Any, of_similarity: Tensor, of_value: Tensor) -> tuple[Tensor | None, ...]:
    grad_output, similarity, index, value = ctx.saved_tensors
    by_grad, by_similarity, by_value = attended_backward_again(
        grad_output, similarity, index, value, of_similarity, of_value, *ctx.settings
    )
    # Output and normalizer are functions of the rest, of which all derivatives are taken already.
    return (by_grad, by_similarity, None, by_value, None, None, *(None for _ in ctx.settings))


attend_operator.differentiable(_save, _backward)
attend_backward.differentiable(_save_again, _backward_again, like=(1, 3))
