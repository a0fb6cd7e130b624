"""Attention to given matches of small images: similarity, softmax and weighted sum in one call of one kernel.

As `similarity_at` and `attend` compute it, and their gradients, with the same additions in the same order. Gradients
are added where they belong match by match, whole rows of a patch at a time, instead of gathered pixel by pixel: an item
has one thread, and takes its matches from the last query (or key) to the first, in which order a pixel gathers them.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from patchattn.kernels.cpu.attend import BACKWARD, mean_of
from patchattn.kernels.cpu.compiler import inlined, kernel
from patchattn.kernels.cpu.padded_image import (
    PADDING_MODES,
    ZEROS,
    PaddedImage,
    pad_item,
    three,
    unpad_item,
)
from patchattn.kernels.cpu.patch_similarity import CHUNK, DOT, L2, Patches, kind_of, measure, offset_of, patches_of
from patchattn.kernels.cpu.patch_sums import PatchSteps, sum_product
from patchattn.kernels.cpu.pool import run_ranges
from patchattn.kernels.cpu.similarity import is_dense
from patchattn.kernels.cpu.similarity_backward import backward_cost
from patchattn.kernels.cpu.vectors import SLACK, add_scaled_run
from patchattn.problem import PatchGeometry

__all__ = ["attend_similar", "attend_similar_backward", "takes_similar"]

MAX_MATCHES = 7
"""NumPy adds up to so many numbers one after the other, as the kernel does."""
TOGETHER = 1 << 16
"""Elements of matched patches in one range of work: the call of a kernel is cheap beside them."""
NUMBERS = {torch.float32: np.float32, torch.float64: np.float64}


class Sizes(NamedTuple):
    """Sizes and settings that all items share."""

    patches: Patches
    q_size: tuple[int, int, int]
    k_size: tuple[int, int, int]
    radius: tuple[int, int, int]
    heads: int
    padding: int
    """Number in `PADDING_MODES`."""
    k: int
    channels: int
    """Channels of the values of one head."""
    padded: tuple[int, int]
    """Elements of the padded query and key of one item."""


class Gradients(NamedTuple):
    """Working space for the gradients of one item."""

    query: NDArray[Any]
    """With respect to the padded query; so is the key's."""
    key: NDArray[Any]
    value: NDArray[Any]
    of_output: NDArray[Any]
    similarity: NDArray[Any]
    """With respect to the similarity of each match, times what multiplies a patch in the gradient of that."""
    by_query: NDArray[Any]
    """Minus the sum of these for each query; so for each key. For l2 alone, as are the next."""
    by_key: NDArray[np.float64]
    own_query: NDArray[Any]
    """Sums of `by_query` over the patches that hold a padded pixel; so are the key's."""
    own_key: NDArray[Any]
    ones: NDArray[Any]
    first: NDArray[np.int64]
    """As in `Inverse`; so is the next."""
    match: NDArray[np.int64]


def takes_similar(query: Tensor, key: Tensor, value: Tensor, index: Tensor, geometry: PatchGeometry) -> bool:
    """Whether `attend_similar` can do this, is faster, and comes to the same bits."""
    k = index.shape[2]
    if query.dtype not in NUMBERS or not 0 < k <= MAX_MATCHES or not query.shape[0] == key.shape[0] == value.shape[0]:
        return False
    if geometry.similarity.function is not None or kind_of(geometry) not in (L2, DOT):
        return False  # a similarity of one's own is not to be held by what is kept of calls
    return _is_small(tuple(query.shape[2:]), tuple(key.shape[2:]), query.shape[1], k, geometry, query.dtype.itemsize)


@lru_cache(256)
def _is_small(
    query: tuple[int, ...], key: tuple[int, ...], channels: int, k: int, geometry: PatchGeometry, itemsize: int
) -> bool:
    if geometry.padding_mode == "replicate":
        return False
    # Otherwise all keys are multiplied, where these are few (`attend`), or all pairs (`similarity_at`).
    if k * BACKWARD >= prod(key):
        return False
    dtype = np.dtype(np.float32 if itemsize == 4 else np.float64)
    queries, keys = (_unfilled(size, channels // geometry.num_heads, geometry, dtype) for size in (query, key))
    # A larger item is shared by several threads.
    if max(_padded_positions(queries), _padded_positions(keys)) > CHUNK:
        return False
    matches = np.broadcast_to(np.int32(0), (1, prod(query) * k))
    return not is_dense(matches, queries, keys, patches := patches_of(queries, keys, geometry), backward_cost(patches))


def _unfilled(size: tuple[int, ...], channels: int, geometry: PatchGeometry, dtype: np.dtype[Any]) -> PaddedImage:
    """The sizes of a padded image."""
    return PaddedImage(np.empty((0, 0), dtype), three(size, 1), three(geometry.radius, 0), channels)


def _padded_positions(image: PaddedImage) -> int:
    return prod(n + 2 * r for n, r in zip(image.size, image.radius, strict=True))


@lru_cache(256)
def _sizes(query: torch.Size, key: torch.Size, channels: int, k: int, geometry: PatchGeometry) -> Sizes:
    heads = geometry.num_heads
    queries, keys = (
        _unfilled(tuple(shape[2:]), query[1] // heads, geometry, np.dtype(np.float32)) for shape in (query, key)
    )
    padded = _padded_positions(queries) * queries.channels, _padded_positions(keys) * keys.channels
    return Sizes(
        patches_of(queries, keys, geometry), queries.size, keys.size, queries.radius, heads,
        PADDING_MODES[geometry.padding_mode], k, channels // heads, padded,
    )  # fmt: skip


def _planes(tensor: Tensor, shape: tuple[int, int, int]) -> NDArray[Any]:
    """The numbers of a tensor, `(items, rows, positions)`."""
    array = tensor.detach().numpy()
    return (array if tensor.is_contiguous() else np.ascontiguousarray(array)).reshape(shape)


def _together(sizes: Sizes) -> int:
    """Items in one range of work."""
    p, count = sizes.patches, prod(sizes.q_size)
    return max(1, TOGETHER // (count * (sizes.k * p.slices * p.rows * p.length + sizes.channels)))


def attend_similar(
    query: Tensor, key: Tensor, value: Tensor, index: Tensor, geometry: PatchGeometry, temperature: float
) -> tuple[Tensor, Tensor, NDArray[Any]]:
    """Return the output `(B, Cv, *query)`, the similarities `(B, heads, k, *query)` and, as an array for
    `attend_similar_backward`, the logarithm of the softmax's denominator; see `similarity_at` and `attend`.
    """
    batch, heads, k, *size = index.shape
    channels, values = query.shape[1], value.shape[1]
    sizes = _sizes(query.shape, key.shape, values, k, geometry)
    count, keys, number = prod(sizes.q_size), prod(sizes.k_size), NUMBERS[query.dtype]
    output, similarity = query.new_empty((batch, values, *size)), query.new_empty(index.shape)
    normalizer = np.empty((batch, heads, count), number)
    numbers = sum(sizes.padded) + keys * sizes.channels + k + sizes.channels + 5 * SLACK

    def scratch() -> tuple[NDArray[Any], NDArray[np.int64]]:
        return np.empty(numbers, number), np.empty(k, np.int64)

    run_ranges(
        _attend_range, batch * heads, _together(sizes), _planes(query, (batch, channels, count)),
        _planes(key, (batch, channels, keys)), _planes(value, (batch, values, keys)),
        _planes(index, (batch * heads, k, count)), sizes, number(geometry.scale(channels)), number(1 / temperature),
        _planes(similarity, (batch * heads, k, count)), normalizer, _planes(output, (batch, values, count)),
        scratch=scratch,
    )  # fmt: skip
    return output, similarity, normalizer


@kernel()
def _attend_range(
    low: int, high: int, query: Any, key: Any, value: Any, index: Any, sizes: Any, scale: Any, inverse_temperature: Any,
    similarity: Any, normalizer: Any, output: Any, space: Any, voted: Any,
) -> None:  # fmt: skip
    p, channels = sizes.patches, sizes.channels
    q, k, v, rest = _images_in(space, sizes)
    weight, total = rest[: sizes.k + SLACK], rest[sizes.k + SLACK :]
    nothing = -inverse_temperature * np.inf
    for item in range(low, high):
        b, head = item // sizes.heads, item % sizes.heads
        _pad_images(b, head, query, key, value, sizes, q, k, v)
        for i in range(p.q_t * p.q_h * p.q_w):
            q_start = offset_of(i, p.q_h, p.q_w, p.q_slice, p.q_row, p.channels)
            count, largest = 0, nothing
            for m in range(sizes.k):
                j = np.int64(index[item, m, i])
                similarity[item, m, i] = nothing
                if j < 0:
                    continue
                k_start = offset_of(j, p.k_h, p.k_w, p.k_slice, p.k_row, p.channels)
                s = measure(q, q_start, k, k_start, i, j, q, k, scale, None, p, nothing)
                if s > nothing:
                    similarity[item, m, i] = s
                    s = s * inverse_temperature
                    if s > nothing:
                        voted[count], weight[count] = j, s
                        largest = max(largest, s)
                        count += 1
            normalizer[b, head, i] = mean_of(voted, weight, count, largest, v, channels, total)
            for c in range(channels):
                output[b, head * channels + c, i] = total[c]


@inlined
def _images_in(space: Any, sizes: Any) -> Any:
    """Parts of the working space for the padded query and key and for the value, and the rest."""
    p = sizes.patches
    return _parts(space, sizes.padded[0], sizes.padded[1], p.k_t * p.k_h * p.k_w * sizes.channels)


@inlined
def _pad_images(b: int, head: int, query: Any, key: Any, value: Any, sizes: Any, q: Any, k: Any, v: Any) -> None:
    first, last = head * sizes.patches.channels, (head + 1) * sizes.patches.channels
    pad_item(query[b, first:last], sizes.q_size, sizes.radius, sizes.padding, q)
    pad_item(key[b, first:last], sizes.k_size, sizes.radius, sizes.padding, k)
    first, last = head * sizes.channels, (head + 1) * sizes.channels
    pad_item(value[b, first:last], sizes.k_size, (0, 0, 0), ZEROS, v)


def attend_similar_backward(
    grad_output: Tensor, query: Tensor, key: Tensor, value: Tensor, index: Tensor, similarity: Tensor, output: Tensor,
    normalizer: NDArray[Any], geometry: PatchGeometry, temperature: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of the output of `attend_similar` with respect to query, key and value."""
    batch, heads, k = index.shape[:3]
    channels, values = query.shape[1], value.shape[1]
    sizes = _sizes(query.shape, key.shape, values, k, geometry)
    count, keys, number = prod(sizes.q_size), prod(sizes.k_size), NUMBERS[query.dtype]
    shapes = (batch, channels, count), (batch, channels, keys), (batch, values, keys)
    found = tuple(image.new_empty(image.shape) for image in (query, key, value))
    # g . O for each query and head.
    product = (grad_output * output).reshape(batch, heads, sizes.channels, count).sum(2).numpy()
    numbers = 3 * sum(sizes.padded) + sizes.patches.length + (2 * keys + count) * sizes.channels + count * (k + 1)
    numbers += 12 * SLACK

    def scratch() -> tuple[NDArray[Any], NDArray[Any], NDArray[np.int64]]:
        return np.empty(numbers, number), np.empty(keys), np.empty(keys + 1 + count * k, np.int64)

    run_ranges(
        _backward_range, batch * heads, _together(sizes), _planes(grad_output, (batch, values, count)),
        *map(_planes, (query, key, value), shapes), _planes(index, (batch * heads, k, count)),
        _planes(similarity, (batch * heads, k, count)), normalizer, product, sizes, number(geometry.scale(channels)),
        number(1 / temperature), *map(_planes, found, shapes), scratch=scratch,
    )  # fmt: skip
    return found


@kernel()
def _backward_range(
    low: int, high: int, grad_output: Any, query: Any, key: Any, value: Any, index: Any, similarity: Any,
    normalizer: Any, product: Any, sizes: Any, scale: Any, inverse_temperature: Any, grad_query: Any, grad_key: Any,
    grad_value: Any, space: Any, by_key: Any, places: Any,
) -> None:  # fmt: skip
    p = sizes.patches
    q, k, v, rest = _images_in(space, sizes)
    g = _gradients_in(rest, by_key, places, sizes)
    for n in range(p.length):
        g.ones[n] = 1
    for item in range(low, high):
        b, head = item // sizes.heads, item % sizes.heads
        matches = index[item]
        _pad_images(b, head, query, key, value, sizes, q, k, v)
        first, last = head * sizes.channels, (head + 1) * sizes.channels
        pad_item(grad_output[b, first:last], sizes.q_size, (0, 0, 0), ZEROS, g.of_output)
        _differentiate_attention(
            matches, similarity[item], normalizer[b, head], product[b, head], inverse_temperature, v, sizes, g
        )
        unpad_item(g.value, sizes.k_size, (0, 0, 0), ZEROS, grad_value[b, first:last])
        if p.kind == L2:
            _sum_own(matches, sizes, g)
        factor = scale + scale if p.kind == L2 else scale
        for m in range(p.q_t * p.q_h * p.q_w * sizes.k):
            g.similarity[m] *= factor
        _invert(matches, sizes, g)
        _differentiate_query(matches, q, k, sizes, g)
        _differentiate_key(q, k, sizes, g)
        first, last = head * p.channels, (head + 1) * p.channels
        unpad_item(g.query, sizes.q_size, sizes.radius, sizes.padding, grad_query[b, first:last])
        unpad_item(g.key, sizes.k_size, sizes.radius, sizes.padding, grad_key[b, first:last])


@inlined
def _gradients_in(space: Any, by_key: Any, places: Any, sizes: Any) -> Gradients:
    p = sizes.patches
    count, keys = p.q_t * p.q_h * p.q_w, p.k_t * p.k_h * p.k_w
    query, key, value, rest = _images_in(space, sizes)
    own_query, own_key, of_output, rest = _parts(rest, sizes.padded[0], sizes.padded[1], count * sizes.channels)
    similarity, by_query, ones, _ = _parts(rest, count * sizes.k, count, p.length)
    first, match = places[: keys + 1], places[keys + 1 :]
    return Gradients(query, key, value, of_output, similarity, by_query, by_key, own_query, own_key, ones, first, match)


@inlined
def _parts(space: Any, a: int, b: int, c: int) -> Any:
    """Parts for so many numbers, with slack after each, and the rest."""
    first = a + SLACK
    second = first + b + SLACK
    third = second + c + SLACK
    return space[:first], space[first:second], space[second:third], space[third:]


@inlined
def _differentiate_attention(
    matches: Any, similarity: Any, normalizer: Any, product: Any, inverse_temperature: Any, v: Any, sizes: Any, g: Any
) -> None:
    """Gradients with respect to value and similarities; 0 for what is no match."""
    p, channels = sizes.patches, sizes.channels
    steps = PatchSteps(1, 1, channels, 0, 0, 0, 0, 1)
    for n in range(p.k_t * p.k_h * p.k_w * channels):
        g.value[n] = 0
    for i in range(p.q_t * p.q_h * p.q_w):
        for m in range(sizes.k):
            j = np.int64(matches[m, i])
            total = inverse_temperature * 0
            s = similarity[m, i] * inverse_temperature
            if j >= 0 and s > -np.inf:
                agreement = sum_product(g.of_output, i * channels, v, j * channels, steps, s)
                weight = np.exp(s - normalizer[i])
                total += weight * (agreement - product[i])
                add_scaled_run(g.value, j * channels, g.of_output, i * channels, channels, weight)
            g.similarity[i * sizes.k + m] = total * inverse_temperature


@inlined
def _sum_own(matches: Any, sizes: Any, g: Any) -> None:
    """Sum what each query's, and each key's, patch is multiplied by."""
    p = sizes.patches
    queries = p.q_t * p.q_h * p.q_w
    for j in range(p.k_t * p.k_h * p.k_w):
        g.by_key[j] = 0
    for i in range(queries):
        g.by_query[i] = 0
    # Loops over matches outside, or they become sums in another order.
    for m in range(sizes.k):
        for i in range(queries):
            g.by_query[i] -= g.similarity[i * sizes.k + m] + g.similarity[i * sizes.k + m]
    for i in range(queries):
        for m in range(sizes.k):
            if matches[m, i] >= 0:
                g.by_key[matches[m, i]] -= g.similarity[i * sizes.k + m] + g.similarity[i * sizes.k + m]


@inlined
def _invert(matches: Any, sizes: Any, g: Any) -> None:
    """Sort the matches by key, and for one key by query; see `Inverse`."""
    p = sizes.patches
    keys = p.k_t * p.k_h * p.k_w
    for j in range(keys + 1):
        g.first[j] = 0
    for i in range(p.q_t * p.q_h * p.q_w):
        for m in range(sizes.k):
            if matches[m, i] >= 0:
                g.first[matches[m, i]] += 1
    total = 0
    for j in range(keys + 1):
        total += g.first[j]
        g.first[j] = total
    for i in range(p.q_t * p.q_h * p.q_w - 1, -1, -1):
        for m in range(sizes.k - 1, -1, -1):
            key = np.int64(matches[m, i])
            if key >= 0:
                g.first[key] -= 1
                g.match[g.first[key]] = i * sizes.k + m


@inlined
def _differentiate_query(matches: Any, q: Any, k: Any, sizes: Any, g: Any) -> None:
    p = sizes.patches
    _clear(g.query, g.own_query, sizes.padded[0], p)
    for i in range(p.q_t * p.q_h * p.q_w - 1, -1, -1):
        at = offset_of(i, p.q_h, p.q_w, p.q_slice, p.q_row, p.channels)
        if p.kind == L2:
            _add_own(g.own_query, at, p.q_slice, p.q_row, g.by_query[i], p, g)
        for m in range(sizes.k):
            j, a = np.int64(matches[m, i]), g.similarity[i * sizes.k + m]
            if j >= 0 and a != 0:  # 0 times NaN would be NaN
                k_at = offset_of(j, p.k_h, p.k_w, p.k_slice, p.k_row, p.channels)
                for t in range(p.slices):
                    for y in range(p.rows):
                        to, start = at + t * p.q_slice + y * p.q_row, k_at + t * p.k_slice + y * p.k_row
                        add_scaled_run(g.query, to, k, start, p.length, a)
    _finish(g.query, g.own_query, q, sizes.padded[0], p)


@inlined
def _differentiate_key(q: Any, k: Any, sizes: Any, g: Any) -> None:
    p = sizes.patches
    _clear(g.key, g.own_key, sizes.padded[1], p)
    for j in range(p.k_t * p.k_h * p.k_w - 1, -1, -1):
        at = offset_of(j, p.k_h, p.k_w, p.k_slice, p.k_row, p.channels)
        if p.kind == L2:
            _add_own(g.own_key, at, p.k_slice, p.k_row, g.similarity.dtype.type(g.by_key[j]), p, g)
        for entry in range(g.first[j], g.first[j + 1]):
            a = g.similarity[g.match[entry]]
            if a != 0:
                q_at = offset_of(g.match[entry] // sizes.k, p.q_h, p.q_w, p.q_slice, p.q_row, p.channels)
                for t in range(p.slices):
                    for y in range(p.rows):
                        to, start = at + t * p.k_slice + y * p.k_row, q_at + t * p.q_slice + y * p.q_row
                        add_scaled_run(g.key, to, q, start, p.length, a)
    _finish(g.key, g.own_key, k, sizes.padded[1], p)


@inlined
def _clear(gradient: Any, own: Any, padded: int, patches: Any) -> None:
    for at in range(padded):
        gradient[at] = 0
    if patches.kind == L2:
        for at in range(padded // patches.channels):
            own[at] = 0


@inlined
def _add_own(own: Any, at: int, slice_step: int, row_step: int, factor: Any, patches: Any, g: Any) -> None:
    """Add a number to all pixels of the patch that starts at an element."""
    p = patches
    for t in range(p.slices):
        for y in range(p.rows):
            to = (at + t * slice_step + y * row_step) // p.channels
            add_scaled_run(own, to, g.ones, 0, p.length // p.channels, factor)


@inlined
def _finish(gradient: Any, own: Any, image: Any, padded: int, patches: Any) -> None:
    """Add what is due to an image's own pixels."""
    channels = patches.channels
    if patches.kind == L2:
        for u in range(padded // channels):
            if own[u] != 0:
                for c in range(channels):
                    gradient[u * channels + c] += own[u] * image[u * channels + c]
