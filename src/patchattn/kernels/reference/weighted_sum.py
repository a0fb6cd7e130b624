"""Sums of values with given weights, and their gradients."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from patchattn.kernels.reference.gather import compute_dtype, split_heads, sum_by_position, take

__all__ = ["weighted_sum", "weighted_sum_backward"]


@torch.no_grad()
def weighted_sum(weight: Tensor, index: Tensor, value: Tensor) -> Tensor:
    """Return the sum of the values at the keys of each query, times their weights.

    Args:
        weight: `(B, heads, k, *query_spatial)`; without meaning where index is -1.
        index: int32, the same shape.
        value: `(B or 1, Cv, *key_spatial)`; head h weighs the h-th group of channels.

    Returns:
        `(B, Cv, *query_spatial)` of the value's dtype; 0 where there is no key.
    """
    dtype = compute_dtype(weight, value)
    query_shape = tuple(index.shape[3:])
    table = split_heads(value.to(dtype), index.shape[1]).flatten(3)
    keys = index.long().flatten(3)
    weight = torch.where(keys >= 0, weight.to(dtype).flatten(3), 0)
    batch, heads, k, count = keys.shape
    total = torch.zeros((batch, heads, table.shape[2], count), dtype=dtype, device=value.device)
    for slot in range(k):
        total += weight[:, :, slot].unsqueeze(2) * take(table, keys[:, :, slot])
    return torch.unflatten(total.flatten(1, 2), 2, query_shape).to(value.dtype)


@torch.no_grad()
def weighted_sum_backward(grad_output: Tensor, weight: Tensor, index: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of `weighted_sum` with respect to weight and value.

    All sums run in a fixed order: equal inputs give equal bits.

    Args:
        grad_output: `(B, Cv, *query_spatial)`.
        weight: As given to `weighted_sum`; so are index and value. The gradient of a shared value is the sum over the
            batch.
    """
    dtype = compute_dtype(weight, value)
    query_shape, key_shape = tuple(index.shape[3:]), tuple(value.shape[2:])
    table = split_heads(value.to(dtype), index.shape[1]).flatten(3)
    grad = split_heads(grad_output.to(dtype), index.shape[1]).flatten(3)
    keys, weights = index.long().flatten(3), weight.to(dtype).flatten(3)
    grad_weight, grad_table = torch.zeros_like(weights), torch.zeros_like(table)
    for slot in range(keys.shape[2]):
        key, by_weight = keys[:, :, slot], weights[:, :, slot].unsqueeze(2)
        # Selected after the product: NaN of the gradient would survive a multiplication by 0.
        grad_weight[:, :, slot] = torch.where(key >= 0, (grad * take(table, key)).sum(2), 0)
        grad_table += sum_by_position(by_weight * grad, key, prod(key_shape), table.shape[0])
    return (
        torch.unflatten(grad_weight, 3, query_shape).to(weight.dtype).contiguous(),
        torch.unflatten(grad_table.flatten(1, 2), 2, key_shape).to(value.dtype).contiguous(),
    )
