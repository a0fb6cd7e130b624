"""Sums of values with given weights: non-local means with any weights, SCRAM's equation (4)."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from patchattn.kernels.arguments import PatchGeometry
from patchattn.kernels.cpu.compiler import kernel
from patchattn.kernels.cpu.fields import item_lists, store_lists
from patchattn.kernels.cpu.inverse import invert
from patchattn.kernels.cpu.layout import compute_dtype, empty, pad, unpad_gradient, value_geometry
from patchattn.kernels.cpu.measure import CHUNK
from patchattn.kernels.cpu.pool import run_ranges
from patchattn.kernels.cpu.vectors import SLACK, add_scaled, sum_product

__all__ = ["weighted_sum", "weighted_sum_backward"]


def _sizes(index: Tensor, value: Tensor) -> tuple[PatchGeometry, int, int, int, torch.dtype]:
    """The geometry of values, channels of a head, queries, keys and the dtype to compute in."""
    queries, keys = prod(index.shape[3:]), prod(value.shape[2:])
    return value_geometry(index), value.shape[1] // index.shape[1], queries, keys, compute_dtype(value.dtype)


def weighted_sum(weight: Tensor, index: Tensor, value: Tensor) -> Tensor:
    """Sum over the keys of each query, weight times value: `(B, Cv, *query)`."""
    geometry, channels, count, _, dtype = _sizes(index, value)
    values = pad(value, geometry)
    output, _ = empty(index.shape[0] * index.shape[1], count * channels, dtype)
    number = output.numpy().dtype
    for b, h in np.ndindex(index.shape[0], index.shape[1]):
        run_ranges(
            _sum_range, count, CHUNK, item_lists(weight.to(dtype), b, h), item_lists(index, b, h), index.shape[2],
            values.item(b, h), channels, output[b * index.shape[1] + h].numpy(),
            scratch=lambda: (np.empty(channels + SLACK, number),),
        )  # fmt: skip
    like = value.new_empty((index.shape[0], value.shape[1], *index.shape[3:]), device="meta")
    return unpad_gradient(output, like, geometry)


@kernel()
def _sum_range(
    low: int, high: int, weight: Any, index: Any, k: int, value: Any, channels: int, output: Any, total: Any
) -> None:
    for i in range(low, high):
        total[:] = 0
        for m in range(i * k, (i + 1) * k):
            if index[m] >= 0:
                add_scaled(total, value, np.int64(index[m]) * channels, channels, weight[m])
        for c in range(channels):
            output[i * channels + c] = total[c]


def weighted_sum_backward(grad_output: Tensor, weight: Tensor, index: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients with respect to weight (g . V_j) and value (the sum of w g over the queries that use the key)."""
    geometry, channels, count, keys, dtype = _sizes(index, value)
    values, grads = pad(value, geometry), pad(grad_output, geometry)
    batch, heads, k = index.shape[:3]
    grad_weight = torch.empty(weight.shape, dtype=weight.dtype)
    grad_values, _ = empty(value.shape[0] * heads, keys * channels, dtype)
    grad_values.zero_()
    number = grad_values.numpy().dtype
    for b, h in np.ndindex(batch, heads):
        matches, grad = item_lists(index, b, h), grads.item(b, h)
        found = np.empty(count * k, number)
        run_ranges(_grad_weight_range, count, CHUNK, matches, k, grad, values.item(b, h), channels, found)
        store_lists(found, grad_weight[b, h])

        def scratch() -> tuple[NDArray[Any], ...]:
            return (np.empty(channels + SLACK, number),)

        target = grad_values[(b if value.shape[0] > 1 else 0) * heads + h].numpy()
        run_ranges(
            _grad_value_range, keys, CHUNK, item_lists(weight.to(dtype), b, h), k, grad, channels,
            *invert(matches, keys), target, scratch=scratch,
        )  # fmt: skip
    return grad_weight, unpad_gradient(grad_values, value, geometry)


@kernel()
def _grad_weight_range(
    low: int, high: int, index: Any, k: int, grad: Any, value: Any, channels: int, output: Any
) -> None:
    zero = grad.dtype.type(0)
    for i in range(low, high):
        for m in range(i * k, (i + 1) * k):
            output[m] = 0
            if index[m] >= 0:
                j = np.int64(index[m])
                output[m] = sum_product(grad, i * channels, value, j * channels, 1, 1, channels, 0, 0, 0, 0, 1, zero)


@kernel()
def _grad_value_range(
    low: int, high: int, weight: Any, k: int, grad: Any, channels: int, first: Any, match: Any, output: Any, total: Any
) -> None:
    for j in range(low, high):
        total[:] = 0
        for entry in range(first[j], first[j + 1]):
            m = match[entry]
            add_scaled(total, grad, (m // k) * channels, channels, weight[m])
        for c in range(channels):
            output[j * channels + c] += total[c]
