"""Operator `patchattn::weighted_sum`: values summed with given weights; differentiable in both."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from patchattn.kernels import load_backend
from patchattn.ops.register import fake, operator

__all__ = ["weighted_sum"]


@operator("weighted_sum")
def weighted_sum(weight: Tensor, index: Tensor, value: Tensor, backend: str) -> Tensor:
    """Return the sum over each query's keys of weight times value, `(B, Cv, *query)`; -1 in `index` is no key."""
    output: Tensor = load_backend(backend).weighted_sum(weight, index, value)
    return output


@fake("weighted_sum")
def _weighted_sum_fake(weight: Tensor, index: Tensor, value: Tensor, backend: str) -> Tensor:
    return value.new_empty((index.shape[0], value.shape[1], *index.shape[3:]))


@operator("weighted_sum_backward")
def weighted_sum_backward(
    grad_output: Tensor, weight: Tensor, index: Tensor, value: Tensor, backend: str
) -> tuple[Tensor, Tensor]:
    """Return the gradients with respect to weight and value."""
    grad_weight, grad_value = load_backend(backend).weighted_sum_backward(grad_output, weight, index, value)
    return grad_weight, grad_value


@fake("weighted_sum_backward")
def _weighted_sum_backward_fake(
    grad_output: Tensor, weight: Tensor, index: Tensor, value: Tensor, backend: str
) -> tuple[Tensor, Tensor]:
    return weight.new_empty(weight.shape), value.new_empty(value.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    weight, index, value, backend = inputs
    ctx.save_for_backward(weight, index, value)
    ctx.backend = backend


def _backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
    weight, index, value = ctx.saved_tensors
    grad_weight, grad_value = weighted_sum_backward(grad_output, weight, index, value, ctx.backend)
    return grad_weight, None, grad_value, None


torch.library.register_autograd("patchattn::weighted_sum", _backward, setup_context=_setup_context)
