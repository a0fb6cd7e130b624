"""The gradients of the similarity at the matches of a field, with respect to query and key."""

from __future__ import annotations

from math import ceil, prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from patchattn.kernels.cpu.batch import Each, groups, item_kernel, run_items
from patchattn.kernels.cpu.compiler import inlined
from patchattn.kernels.cpu.fields import lists_of
from patchattn.kernels.cpu.inverse import Inverse, invert
from patchattn.kernels.cpu.padded_image import PaddedImage, compute_dtype, empty, pad_pair, unpad_gradient
from patchattn.kernels.cpu.patch_similarity import (
    CHUNK,
    COSINE,
    L1,
    L2,
    POINTWISE,
    Patches,
    inverse_norms,
    kind_of,
    offset_of,
    patches_of,
    squared_norms,
)
from patchattn.kernels.cpu.similarity import dense_pairs, is_dense, similarities
from patchattn.kernels.cpu.vectors import SLACK, add_scaled
from patchattn.problem import PatchGeometry

__all__ = ["backward_cost", "derivative_of", "similarity_at_backward"]


def similarity_at_backward(
    grad: Tensor, query: Tensor, key: Tensor, index: Tensor, geometry: PatchGeometry
) -> tuple[Tensor, Tensor]:
    r"""Gradients of `similarity_at` with respect to query and key.

    For l2, dot and cosine the derivative of one similarity is linear in the patches, so that

    $$\frac{\partial}{\partial q_u} = \sum_o \Big(\sum_m a_{u-o,m}\, k_{j(u-o,m)+o} + b_{u-o}\, q_u\Big), \qquad
    \frac{\partial}{\partial k_v} = \sum_o \Big(\sum_{(i,m) \to v-o} a_{i,m}\, q_{i+o} + c_{v-o}\, k_v\Big)$$

    with coefficients a, b, c for each match, query and key. Every pixel gathers its own sum: nothing is written twice,
    and the order of the additions does not depend on the threads.
    """
    queries, keys = pad_pair(query, key, geometry)
    query_norms, key_norms = inverse_norms(queries, geometry), inverse_norms(keys, geometry)
    patches = patches_of(queries, keys, geometry)
    derivative = derivative_of(geometry)
    grad_queries, grad_keys = (empty(*image.rows.shape, compute_dtype(query.dtype)) for image in (queries, keys))
    grad_keys.zero_()
    items, keys_count = index.shape[0] * index.shape[1], patches.k_t * patches.k_h * patches.k_w

    def scratch() -> tuple[NDArray[Any], ...]:
        return (np.empty(queries.channels + SLACK, queries.rows.dtype),)

    for group in groups(items, max(_padded_size(queries), _padded_size(keys))):
        matches, k = lists_of(index, group), index.shape[2]
        coefficients = _coefficients(grad, group, matches, queries, keys, (query_norms, key_norms), geometry, patches)
        images = (Each(queries.rows), Each(keys.rows), derivative, Coefficients(*map(Each, coefficients)))
        factors, found = coefficients.a, matches
        dense = is_dense(matches, queries, keys, patches, backward_cost(patches))
        if dense := dense and _reads_finite(factors, group, matches, queries, keys, geometry):
            # The loops below add the terms of each image alone.
            matches, k = np.empty((len(group), 0), np.int32), 0
        run_items(
            _grad_query_range, group, _padded_size(queries), CHUNK, *images, patches, queries.radius, k, Each(matches),
            Each(grad_queries.numpy()), scratch=scratch,
        )  # fmt: skip
        inverse = invert(matches, keys_count)
        run_items(
            _grad_key_range, group, _padded_size(keys), CHUNK, *images, patches, keys.radius, k,
            Inverse(*map(Each, inverse)), Each(grad_keys.numpy()), targets=min(len(grad_keys), len(group)),
            scratch=scratch,
        )  # fmt: skip
        if dense:
            for n, item in enumerate(group):
                rows = (grad.numpy()[item % len(grad)] for grad in (grad_queries, grad_keys))
                dense_pairs(item, queries, keys, patches).add_gradients(factors[n], found[n], index.shape[2], *rows)
    return (
        unpad_gradient(grad_queries, query.shape, query.dtype, geometry),
        unpad_gradient(grad_keys, key.shape, key.dtype, geometry),
    )


def backward_cost(patches: Patches) -> float:
    """Cost of the gradients at one match: each pixel takes as long as whole vectors of 16 channels."""
    pixels = patches.slices * patches.rows * patches.length // patches.channels
    return 10.0 * (pixels * ceil(patches.channels / 16) * 16 + 32)


def _padded_size(image: PaddedImage) -> int:
    return prod(n + 2 * r for n, r in zip(image.size, image.radius, strict=True))


def derivative_of(geometry: PatchGeometry) -> Any:
    similarity = geometry.similarity
    if similarity.function is None:
        return None
    if similarity.derivative is None:
        raise RuntimeError(
            f"similarity: {similarity.name} has no derivative; give one to pointwise_similarity() to train query and "
            f"key."
        )
    return inlined(similarity.derivative)


class Coefficients(NamedTuple):
    """Coefficients a, b and c of the gradients; see `similarity_at_backward`."""

    a: Any
    """One for each match; for pointwise similarities the gradient alone."""
    b: Any
    """One for each query; empty: 0."""
    c: Any
    """One for each key, likewise."""


def _coefficients(
    grad: Tensor, group: range, matches: NDArray[np.int32], queries: PaddedImage, keys: PaddedImage,
    norms: tuple[NDArray[Any], NDArray[Any]], geometry: PatchGeometry, patches: Patches,
) -> Coefficients:  # fmt: skip
    """Compute the coefficients of a group of items, a row for each item."""
    k = grad.shape[2]
    dtype = queries.rows.dtype
    kind = kind_of(geometry)
    items, keys_count = len(group), patches.k_t * patches.k_h * patches.k_w
    matched = matches >= 0
    g = np.where(matched, lists_of(grad, group, compute_dtype(grad.dtype)), 0).astype(dtype, copy=False)
    none = np.zeros((1, 0), dtype)
    if kind in (L1, POINTWISE):
        return Coefficients(g, none, none)
    if kind == L2:
        own, a = -2 * g, 2 * g
    elif kind == COSINE:
        own_norms = [rows[np.arange(group.start, group.stop) % len(rows)] for rows in norms]
        similarity = similarities(group, matches, k, queries, keys, norms, dtype.type(1), None, patches)
        own = -g * np.where(matched & np.isfinite(similarity), similarity, 0)
        # Norms of patches with NaN are NaN, which a gradient of 0 does not silence.
        factors = np.repeat(own_norms[0], k, 1) * np.take_along_axis(own_norms[1], np.maximum(matches, 0), 1)
        a = np.where(g != 0, g * factors, 0).astype(dtype)
    else:
        return Coefficients(g * dtype.type(geometry.scale(geometry.num_heads * queries.channels)), none, none)
    b_sum = own.reshape(items, -1, k).sum(2, dtype=dtype)
    c_sum = np.zeros((items, keys_count))
    run_items(_sum_by_key, range(items), 1, 1, Each(matches), Each(own), Each(c_sum))
    c_sum = c_sum.astype(dtype)
    if kind == COSINE:
        b_sum = np.where(b_sum != 0, b_sum * own_norms[0] ** 2, 0).astype(dtype)
        c_sum = np.where(c_sum != 0, c_sum * own_norms[1] ** 2, 0).astype(dtype)
    return Coefficients(a, b_sum, c_sum)


@item_kernel()
def _sum_by_key(low: int, high: int, index: Any, number: Any, output: Any) -> None:
    """Sum numbers by the key that they belong to, over one whole item."""
    for m in range(index.size):
        if index[m] >= 0:
            output[index[m]] += number[m]


def _reads_finite(
    factors: NDArray[Any], group: range, matches: NDArray[np.int32], queries: PaddedImage, keys: PaddedImage,
    geometry: PatchGeometry,
) -> bool:  # fmt: skip
    """Whether all matches that count are of finite patches: others must not be multiplied, not even by 0."""
    of_query, of_key = (_not_finite(image, group, geometry) for image in (queries, keys))
    if not (of_query.any() or of_key.any()):
        return True
    k = matches.shape[1] // of_query.shape[1]
    unfit = np.repeat(of_query, k, 1) | np.take_along_axis(of_key, np.maximum(matches, 0), 1)
    return not (unfit & (factors != 0)).any()


def _not_finite(image: PaddedImage, group: range, geometry: PatchGeometry) -> NDArray[np.bool_]:
    """Mask of the patches of the group's items that hold NaN or infinity."""
    if np.isfinite(image.rows).all():
        return np.zeros((len(group), prod(image.size)), np.bool_)
    squares = squared_norms(image.rows, image, patches_of(image, image, geometry))
    return ~np.isfinite(squares[np.arange(group.start, group.stop) % len(squares)])


@inlined
def _add_derivative(
    total: Any, q: Any, q_at: int, k: Any, k_at: int, channels: int, factor: Any, derivative: Any, kind: int, side: int
) -> None:
    """Add `factor` times the derivative of one pixel's similarity with respect to query (side 0) or key (side 1)."""
    if derivative is not None:
        for c in range(channels):
            total[c] += factor * derivative(q[q_at + c], k[k_at + c])[side]
    elif kind == L1:
        sign = factor if side else -factor
        for c in range(channels):
            a, b = q[q_at + c], k[k_at + c]
            if a > b:
                total[c] += sign
            elif a < b:
                total[c] -= sign
    elif side == 0:
        add_scaled(total, k, k_at, channels, factor)
    else:
        add_scaled(total, q, q_at, channels, factor)


@item_kernel()
def _grad_query_range(
    low: int, high: int, query: Any, key: Any, derivative: Any, coefficients: Any, patches: Any, radius: Any, k: int,
    index: Any, output: Any, total: Any,
) -> None:  # fmt: skip
    """Each pixel u of the padded queries: sum over the patches i = u - o that hold it, and their matches."""
    p = patches
    a, b = coefficients.a, coefficients.b
    height, width = p.q_h + 2 * radius[1], p.q_w + 2 * radius[2]
    columns = p.length // p.channels
    for u in range(low, high):
        u_x, u_row = u % width, u // width
        u_y, u_t = u_row % height, u_row // height
        total[:] = 0
        own = query.dtype.type(0)
        for o_t in range(max(0, u_t - p.q_t + 1), min(p.slices, u_t + 1)):
            for o_y in range(max(0, u_y - p.q_h + 1), min(p.rows, u_y + 1)):
                for o_x in range(max(0, u_x - p.q_w + 1), min(columns, u_x + 1)):
                    i = ((u_t - o_t) * p.q_h + u_y - o_y) * p.q_w + u_x - o_x
                    shift = o_t * p.k_slice + o_y * p.k_row + o_x * p.channels
                    if b.size > 0:
                        own += b[i]
                    for m in range(i * k, (i + 1) * k):
                        j = np.int64(index[m])
                        if j >= 0 and a[m] != 0:  # 0 times NaN would be NaN
                            k_at = offset_of(j, p.k_h, p.k_w, p.k_slice, p.k_row, p.channels) + shift
                            _add_derivative(
                                total, query, u * p.channels, key, k_at, p.channels, a[m], derivative, p.kind, 0
                            )
        for channel in range(p.channels):
            at = u * p.channels + channel
            output[at] = total[channel]
            if own != 0:
                output[at] += own * query[at]


@item_kernel()
def _grad_key_range(
    low: int, high: int, query: Any, key: Any, derivative: Any, coefficients: Any, patches: Any, radius: Any, k: int,
    inverse: Any, output: Any, total: Any,
) -> None:  # fmt: skip
    """Each pixel v of the padded keys: sum over the key patches j = v - o that hold it, and the matches to them."""
    p = patches
    a, c, first, match = coefficients.a, coefficients.c, inverse.first, inverse.match
    height, width = p.k_h + 2 * radius[1], p.k_w + 2 * radius[2]
    columns = p.length // p.channels
    for v in range(low, high):
        v_x, v_row = v % width, v // width
        v_y, v_t = v_row % height, v_row // height
        total[:] = 0
        own = query.dtype.type(0)
        for o_t in range(max(0, v_t - p.k_t + 1), min(p.slices, v_t + 1)):
            for o_y in range(max(0, v_y - p.k_h + 1), min(p.rows, v_y + 1)):
                for o_x in range(max(0, v_x - p.k_w + 1), min(columns, v_x + 1)):
                    j = ((v_t - o_t) * p.k_h + v_y - o_y) * p.k_w + v_x - o_x
                    shift = o_t * p.q_slice + o_y * p.q_row + o_x * p.channels
                    if c.size > 0:
                        own += c[j]
                    for entry in range(first[j], first[j + 1]):
                        m = match[entry]
                        if a[m] != 0:
                            q_at = offset_of(m // k, p.q_h, p.q_w, p.q_slice, p.q_row, p.channels) + shift
                            _add_derivative(
                                total, query, q_at, key, v * p.channels, p.channels, a[m], derivative, p.kind, 1
                            )
        for channel in range(p.channels):
            at = v * p.channels + channel
            output[at] += total[channel]
            if own != 0:
                output[at] += own * key[at]
