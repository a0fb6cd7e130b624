"""The similarity at the matches of a field."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from patchattn.kernels.cpu.batch import Each, groups, item_kernel, run_items
from patchattn.kernels.cpu.dense_similarity import OVERHEAD, Dense, dense_costs
from patchattn.kernels.cpu.fields import lists_of, store_lists
from patchattn.kernels.cpu.padded_image import PaddedImage, compute_dtype, pad_pair
from patchattn.kernels.cpu.patch_similarity import (
    CHUNK,
    COSINE,
    DOT,
    L2,
    Patches,
    inverse_norms,
    measure,
    offset_of,
    patches_of,
    pointwise_of,
)
from patchattn.problem import PatchGeometry

__all__ = ["dense_pairs", "is_dense", "similarities", "similarity_at"]


def similarity_at(query: Tensor, key: Tensor, index: Tensor, geometry: PatchGeometry) -> Tensor:
    """Similarity of every query patch and the key patches that `index` names; -inf where that is -1."""
    queries, keys = pad_pair(query, key, geometry)
    query_norms, key_norms = inverse_norms(queries, geometry), inverse_norms(keys, geometry)
    patches = patches_of(queries, keys, geometry)
    function = pointwise_of(geometry)
    output = torch.empty(index.shape, dtype=compute_dtype(query.dtype))
    scale = output.numpy().dtype.type(geometry.scale(query.shape[1]))
    items, k, count = index.shape[0] * index.shape[1], index.shape[2], patches.q_t * patches.q_h * patches.q_w
    for group in groups(items, count):
        matches = lists_of(index, group)
        found = similarities(group, matches, k, queries, keys, (query_norms, key_norms), scale, function, patches)
        store_lists(found, group, output)
    return output


def similarities(
    group: range, matches: NDArray[np.int32], k: int, queries: PaddedImage, keys: PaddedImage,
    norms: tuple[NDArray[Any], NDArray[Any]], scale: Any, function: Any, patches: Patches,
) -> NDArray[Any]:  # fmt: skip
    """Similarities of a group of items: match by match, or from all pairs where those cost less."""
    found = np.empty(matches.shape, scale.dtype)
    if is_dense(matches, queries, keys, patches, _forward_cost(patches)):
        for n, item in enumerate(group):
            own_norms = (rows[item % len(rows)] for rows in norms)
            dense_pairs(item, queries, keys, patches).similarities(matches[n], k, scale, *own_norms, found[n])
    else:
        images = (Each(rows) for rows in (queries.rows, keys.rows, *norms))
        count = patches.q_t * patches.q_h * patches.q_w
        run_items(
            _similarity_range, group, count, CHUNK, *images, scale, function, patches, k, Each(matches), Each(found)
        )
    return found


def is_dense(
    matches: NDArray[np.int32], queries: PaddedImage, keys: PaddedImage, patches: Patches, per_match: float
) -> bool:
    """Whether all pairs of an item cost less than its matches, one by one."""
    cost = matches.shape[1] * per_match
    return patches.kind in (L2, DOT, COSINE) and cost > OVERHEAD and cost > dense_costs(queries, keys)


def _forward_cost(patches: Patches) -> float:
    """Cost of one match in units of `dense_costs` (docs/performance.md): its elements, and finding them."""
    return 0.7 * (patches.slices * patches.rows * patches.length + 256)


def dense_pairs(item: int, queries: PaddedImage, keys: PaddedImage, patches: Patches) -> Dense:
    return Dense(queries.item(item), keys.item(item), queries, keys, patches)


@item_kernel()
def _similarity_range(
    low: int, high: int, query: Any, key: Any, q_norms: Any, k_norms: Any, scale: Any, function: Any, patches: Any,
    k: int, index: Any, output: Any,
) -> None:  # fmt: skip
    p = patches
    nothing = -query.dtype.type(np.inf)
    for i in range(low, high):
        q_start = offset_of(i, p.q_h, p.q_w, p.q_slice, p.q_row, p.channels)
        for m in range(i * k, (i + 1) * k):
            j = np.int64(index[m])
            output[m] = nothing
            if j >= 0:
                k_start = offset_of(j, p.k_h, p.k_w, p.k_slice, p.k_row, p.channels)
                s = measure(query, q_start, key, k_start, i, j, q_norms, k_norms, scale, function, patches, nothing)
                if s > nothing:
                    output[m] = s
