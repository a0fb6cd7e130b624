"""The derivative of the similarity along given directions of query and key."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from patchattn.kernels.cpu.batch import Each, groups, item_kernel, run_items
from patchattn.kernels.cpu.compiler import inlined
from patchattn.kernels.cpu.fields import lists_of, store_lists
from patchattn.kernels.cpu.padded_image import compute_dtype, pad, pad_pair
from patchattn.kernels.cpu.patch_similarity import CHUNK, L1, L2, offset_of, patches_of
from patchattn.kernels.cpu.similarity_backward import derivative_of
from patchattn.problem import PatchGeometry

__all__ = ["similarity_tangent"]


def similarity_tangent(
    query: Tensor, key: Tensor, index: Tensor, by_query: Tensor, by_key: Tensor, geometry: PatchGeometry
) -> Tensor:
    """Derivative of `similarity_at` along a direction, shaped like query and key; 0 where `index` is -1, and where a
    patch holds NaN or infinity.
    """
    queries, keys = pad_pair(query, key, geometry)
    of_queries, of_keys = pad(by_query, geometry), pad(by_key, geometry)
    patches, derivative = patches_of(queries, keys, geometry), derivative_of(geometry)
    output = torch.empty(index.shape, dtype=compute_dtype(query.dtype))
    number = output.numpy().dtype
    scale = number.type(geometry.scale(query.shape[1]))
    items, k, count = index.shape[0] * index.shape[1], index.shape[2], patches.q_t * patches.q_h * patches.q_w
    images = tuple(Each(image.rows) for image in (queries, keys, of_queries, of_keys))
    for group in groups(items, count):
        matches = lists_of(index, group)
        found = np.empty(matches.shape, number)
        run_items(
            _tangent_range, group, count, CHUNK, *images, scale, derivative, patches, k, Each(matches), Each(found)
        )
        store_lists(found, group, output)
    return output


@item_kernel(vectorize=True)
def _tangent_range(
    low: int, high: int, query: Any, key: Any, by_query: Any, by_key: Any, scale: float, derivative: Any, patches: Any,
    k: int, index: Any, output: Any,
) -> None:  # fmt: skip
    p = patches
    for i in range(low, high):
        q_start = offset_of(i, p.q_h, p.q_w, p.q_slice, p.q_row, p.channels)
        for m in range(i * k, (i + 1) * k):
            j = np.int64(index[m])
            output[m] = 0
            if j >= 0:
                k_start = offset_of(j, p.k_h, p.k_w, p.k_slice, p.k_row, p.channels)
                total = query.dtype.type(0)
                strange = query.dtype.type(0)
                for a in range(p.slices):
                    for b in range(p.rows):
                        q_at = q_start + a * p.q_slice + b * p.q_row
                        k_at = k_start + a * p.k_slice + b * p.k_row
                        total += _of_row(query, q_at, key, k_at, by_query, by_key, derivative, p)
                        for c in range(p.length):
                            strange += 0 * query[q_at + c] + 0 * key[k_at + c]  # NaN of NaN and infinity
                if strange == 0:
                    output[m] = total * scale


@inlined
def _of_row(
    query: Any, q_at: int, key: Any, k_at: int, by_query: Any, by_key: Any, derivative: Any, patches: Any
) -> float:
    total = query.dtype.type(0)
    if derivative is not None:
        for c in range(patches.length):
            by_q, by_k = derivative(query[q_at + c], key[k_at + c])
            total += by_q * by_query[q_at + c] + by_k * by_key[k_at + c]
    elif patches.kind == L2:
        for c in range(patches.length):
            total -= 2 * (query[q_at + c] - key[k_at + c]) * (by_query[q_at + c] - by_key[k_at + c])
    elif patches.kind == L1:
        for c in range(patches.length):
            total -= np.sign(query[q_at + c] - key[k_at + c]) * (by_query[q_at + c] - by_key[k_at + c])
    else:
        for c in range(patches.length):
            total += by_query[q_at + c] * key[k_at + c] + query[q_at + c] * by_key[k_at + c]
    return total
