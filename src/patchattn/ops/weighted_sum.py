"""Operator `patchattn::weighted_sum`: values summed with given weights; differentiable in both, again and again."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from patchattn.kernels import load_backend
from patchattn.ops.register import fake, operator

__all__ = ["weighted_sum"]


@operator("weighted_sum", shared=("value",))
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


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    weight, index, value, ctx.backend = inputs
    ctx.save_for_backward(weight, index, value)
    ctx.save_for_forward(weight, index, value)


def _backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
    weight, index, value = ctx.saved_tensors
    grad_weight, grad_value = weighted_sum_backward(grad_output, weight, index, value, ctx.backend)
    return grad_weight, None, grad_value, None


def _jvp(ctx: Any, by_weight: Tensor, by_index: None, by_value: Tensor, by_backend: None) -> Tensor:
    weight, index, value = ctx.saved_tensors
    of_weight: Tensor = weighted_sum(by_weight, index, value, ctx.backend)
    of_value: Tensor = weighted_sum(weight, index, by_value, ctx.backend)
    return of_weight + of_value


def _save_again(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    grad_output, weight, index, value, ctx.backend = inputs
    ctx.save_for_backward(grad_output, weight, index, value)
    ctx.save_for_forward(grad_output, weight, index, value)


def _backward_again(ctx: Any, weight_too: Tensor, value_too: Tensor) -> tuple[Tensor | None, ...]:
    r"""The sum $\sum_m a_m\, g \cdot V_{j_m} + \sum_m w_m\, g \cdot b_{j_m}$ is linear in each of g, a, w, b and V."""
    grad_output, weight, index, value = ctx.saved_tensors
    by_grad = weighted_sum(weight_too, index, value, ctx.backend) + weighted_sum(weight, index, value_too, ctx.backend)
    by_weight, by_value = weighted_sum_backward(grad_output, weight_too, index, value_too, ctx.backend)
    return by_grad, by_weight, None, by_value, None


def _jvp_again(
    ctx: Any, by_grad: Tensor, by_weight: Tensor, by_index: None, by_value: Tensor, by_backend: None
) -> tuple[Tensor, Tensor]:
    grad_output, weight, index, value = ctx.saved_tensors
    first = weighted_sum_backward(by_grad, weight, index, value, ctx.backend)
    second = weighted_sum_backward(grad_output, by_weight, index, by_value, ctx.backend)
    return first[0] + second[0], first[1] + second[1]


weighted_sum.differentiable(_save, _backward, _jvp)
weighted_sum_backward.differentiable(_save_again, _backward_again, _jvp_again, like=(1, 3))
