"""Sums of values with given weights: non-local means with any weights, SCRAM's equation (4)."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from patchattn.kernels.cpu.batch import Each, groups, item_kernel, run_items
from patchattn.kernels.cpu.fields import lists_of, store_lists
from patchattn.kernels.cpu.inverse import invert
from patchattn.kernels.cpu.padded_image import compute_dtype, empty, pad, unpad_gradient, value_geometry
from patchattn.kernels.cpu.patch_similarity import CHUNK
from patchattn.kernels.cpu.patch_sums import PatchSteps, sum_product
from patchattn.kernels.cpu.vectors import SLACK, add_scaled
from patchattn.problem import PatchGeometry

__all__ = ["weighted_sum", "weighted_sum_backward"]


def _sizes(index: Tensor, value: Tensor) -> tuple[PatchGeometry, int, int, int, torch.dtype]:
    """The geometry of values, channels of a head, queries, keys and the dtype to compute in."""
    queries, keys = prod(index.shape[3:]), prod(value.shape[2:])
    return value_geometry(index), value.shape[1] // index.shape[1], queries, keys, compute_dtype(value.dtype)


def weighted_sum(weight: Tensor, index: Tensor, value: Tensor) -> Tensor:
    """Sum over the keys of each query, weight times value: `(B, Cv, *query)`."""
    geometry, channels, count, _, dtype = _sizes(index, value)
    values = pad(value, geometry)
    items = index.shape[0] * index.shape[1]
    output = empty(items, count * channels, dtype)
    for group in groups(items, count):
        lists = (Each(lists_of(weight, group, dtype)), Each(lists_of(index, group)))
        run_items(
            _sum_range, group, count, CHUNK, *lists, index.shape[2], Each(values.rows), channels,
            Each(output.numpy()), scratch=lambda: (np.empty(channels + SLACK, values.rows.dtype),),
        )  # fmt: skip
    shape = (index.shape[0], value.shape[1], *index.shape[3:])
    return unpad_gradient(output, shape, value.dtype, geometry)


@item_kernel()
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
    items, k = index.shape[0] * index.shape[1], index.shape[2]
    grad_weight = torch.empty(weight.shape, dtype=weight.dtype)
    grad_values = empty(*values.rows.shape, dtype)
    grad_values.zero_()
    grad = Each(grads.rows)
    for group in groups(items, max(count, keys)):
        matches = lists_of(index, group)
        found = np.empty(matches.shape, values.rows.dtype)
        run_items(
            _grad_weight_range, group, count, CHUNK, Each(matches), k, grad, Each(values.rows), channels,
            Each(found),
        )  # fmt: skip
        store_lists(found, group, grad_weight)
        inverse = invert(matches, keys)
        run_items(
            _grad_value_range, group, keys, CHUNK, Each(lists_of(weight, group, dtype)), k, grad, channels,
            *(Each(part) for part in inverse), Each(grad_values.numpy()),
            targets=min(len(grad_values), len(group)), scratch=lambda: (np.empty(channels + SLACK, values.rows.dtype),),
        )  # fmt: skip
    return grad_weight, unpad_gradient(grad_values, value.shape, value.dtype, geometry)


@item_kernel()
def _grad_weight_range(
    low: int, high: int, index: Any, k: int, grad: Any, value: Any, channels: int, output: Any
) -> None:
    zero = grad.dtype.type(0)
    steps = PatchSteps(1, 1, channels, 0, 0, 0, 0, 1)
    for i in range(low, high):
        for m in range(i * k, (i + 1) * k):
            output[m] = 0
            if index[m] >= 0:
                j = np.int64(index[m])
                output[m] = sum_product(grad, i * channels, value, j * channels, steps, zero)


@item_kernel()
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
