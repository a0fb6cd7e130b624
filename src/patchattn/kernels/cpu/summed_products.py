"""Products of all patches with all patches, as sums of products of pixels.

The product of two patches is the sum of the products of their pixels, and pairs of patches beside each other share
nearly all of those. So each pair of pixels is multiplied once; sums along the diagonals (`diagonals.py`) follow. That
takes C multiplications and p + p additions instead of p p C multiplications.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from patchattn.kernels.cpu.compiler import kernel
from patchattn.kernels.cpu.diagonals import sum_along, sum_rows
from patchattn.kernels.cpu.patch_similarity import COSINE, L2, Patches
from patchattn.kernels.cpu.pool import run_ranges
from patchattn.kernels.cpu.product_blocks import Images, Part
from patchattn.kernels.cpu.vectors import SLACK

__all__ = ["SummedBlock", "depth_of", "summed_blocks"]

BYTES = 24 * 2**20
"""Memory of all buffers, unless one query at a time takes more."""
ROWS = 16
"""Rows in one range of work."""
SAMPLE = 256
"""Queries from which the center is computed."""

Size = tuple[int, int, int]
Indices = NDArray[np.int64]


class _Sizes(NamedTuple):
    """In three dimensions; along the first, sums are taken last. Fewer leave out the second, then the third."""

    patch: Size
    query: Size
    key: Size

    def padded(self, size: Size) -> Size:
        a, b, c = (n + p - 1 for n, p in zip(size, self.patch, strict=True))
        return a, b, c


def _sizes_of(patches: Patches) -> _Sizes:
    p = patches
    sizes = (p.slices, p.rows, p.length // p.channels), (p.q_t, p.q_h, p.q_w), (p.k_t, p.k_h, p.k_w)
    used = [d for d in range(3) if max(size[d] for size in sizes) > 1]
    unused = [d for d in range(3) if d not in used]
    first, second, third = used if len(used) == 3 else [*used[:1], *unused[:1], *used[1:], *unused[1:]]
    return _Sizes(*((size[first], size[second], size[third]) for size in sizes))


def depth_of(patches: Patches) -> int:
    """The roundings that a term passes through, at most, save a few.

    C products and one |k|^2 of a pixel are summed, then p of those sums in each dimension. So the bound of a sum of e
    products in any order holds, and a much smaller one.
    """
    return int(patches.channels + sum(_sizes_of(patches).patch))


@dataclass(frozen=True)
class SummedBlock:
    """Some queries of each of some items, and their products with all keys; see `QueryBlock`."""

    positions: Indices
    norms: NDArray[np.float64]
    part: Part

    def parts(self) -> Iterator[Part]:
        yield self.part


def summed_blocks(
    images: Images, items: Indices, key_items: Indices, queries: Indices, columns: Indices, is_causal: bool,
    dtype: torch.dtype,
) -> Iterator[SummedBlock]:  # fmt: skip
    """Go through the queries of some items, with the keys at `columns`; the arguments of `query_blocks`."""
    patches, sizes = images.patches, _sizes_of(images.patches)
    query, key = (
        torch.from_numpy(side).view(-1, prod(sizes.padded(size)), patches.channels)[numbers]
        for side, size, numbers in ((images.query, sizes.query, items), (images.key, sizes.key, key_items))
    )
    if patches.kind == L2:
        center = _center(query, queries, is_causal, sizes)
        query, key = query - center, key - center
    query, key = query.to(dtype), key.to(dtype)
    q_norms, k_norms = _norms(query, sizes.query, sizes), _norms(key, sizes.key, sizes)
    q_factors, k_factors = (np.empty((0, 0)),) * 2
    if patches.kind == L2:
        # 2 q.k - |k|^2, pixel by pixel.
        query = torch.cat([2 * query, -torch.ones_like(query[..., :1])], 2)
        key = torch.cat([key, key.double().square().sum(2, keepdim=True).to(dtype)], 2)
    elif patches.kind == COSINE:
        q_factors = images.q_norms.reshape(-1, prod(sizes.query))[items]
        k_factors = images.k_norms.reshape(-1, prod(sizes.key))[key_items]
        q_norms, k_norms = q_norms * q_factors, k_norms * k_factors
    chosen = [_table(side, prod(size)) for side, size in ((queries, sizes.query), (columns, sizes.key))]
    k_norms[chosen[1] < 0] = 0
    longest = np.where(np.isfinite(k_norms), k_norms, 0).max(1)
    every = np.arange(prod(sizes.query)).reshape(sizes.query)
    for box, products in _boxes(query, key, sizes):
        # Of the last dimension but one first: the order in which the products are made.
        some = every[box].transpose(1, 2, 0).reshape(-1)
        if patches.kind == COSINE:
            factors = np.ascontiguousarray(q_factors[:, some]).reshape(-1)
            run_ranges(_scale_range, factors.size, ROWS, products, factors, k_factors, some.size)
        part = Part(products, chosen[1].reshape(-1), k_norms.reshape(-1), longest)
        yield SummedBlock(chosen[0][:, some], q_norms[:, some].reshape(-1), part)


def _table(positions: Indices, count: int) -> Indices:
    """Every position of each item at its place; -1: it takes no part."""
    table = np.full((len(positions), count + 1), -1)
    np.put_along_axis(table, positions, positions, 1)
    return np.ascontiguousarray(table[:, :-1])


def _center(query: Tensor, queries: Indices, is_causal: bool, sizes: _Sizes) -> Tensor:
    """The middle of the pixels that take part: see `_Buffers.center`."""
    some = queries[:, :: queries.shape[1] if is_causal else -(-queries.shape[1] // SAMPLE)]
    places = np.unravel_index(np.maximum(some, 0), sizes.query)
    inside = tuple(at + p // 2 for at, p in zip(places, sizes.patch, strict=True))
    pixels = np.ravel_multi_index(inside, sizes.padded(sizes.query))
    sample = query[torch.arange(len(query))[:, None], torch.from_numpy(pixels)]
    sample[torch.from_numpy(some < 0)] = torch.nan
    return sample.nanmedian(1, keepdim=True).values.nan_to_num_(0, 0, 0)


def _norms(pixels: Tensor, size: Size, sizes: _Sizes) -> NDArray[np.float64]:
    """Norms of all patches, `(items, positions)`."""
    squares = pixels.double().square().sum(2).view(-1, *sizes.padded(size))
    for dim, (n, p) in enumerate(zip(size, sizes.patch, strict=True), 1):
        squares = torch.stack([squares.narrow(dim, d, n) for d in range(p)]).sum(0)
    norms: NDArray[np.float64] = squares.sqrt().flatten(1).numpy()
    return norms


def _boxes(query: Tensor, key: Tensor, sizes: _Sizes) -> Iterator[tuple[tuple[slice, ...], NDArray[Any]]]:
    """Cut the queries into boxes. Yield each one with its products, flat: `(items, second, third, first, keys)`.

    Along the first dimension the sums over the two others are kept for as long as there are queries that need them.
    """
    items, (depth, height, width) = len(query), sizes.query
    (p_a, p_b, p_c), (a, b, c), (k_a, k_b, k_c) = sizes.patch, sizes.key, sizes.padded(sizes.key)
    steps, rows, columns = _box(sizes, items, query.element_size())
    kept = p_a - 1 + steps
    pixels = query.view(items, *sizes.padded(sizes.query), -1)
    buffer = lambda *shape: np.empty(items * prod(shape) + SLACK, key.numpy().dtype)  # noqa: E731
    padded_rows, padded_columns = rows + p_b - 1, columns + p_c - 1
    gram = buffer(steps, padded_rows, padded_columns, k_a, k_b, k_c)
    along_third = buffer(steps, padded_rows, columns, k_a, k_b, c) if p_b > 1 else gram[:0]
    plane = buffer(kept, rows, columns, k_a, b, c)
    products = buffer(steps, rows, columns, a, b, c)
    for y in range(0, height, rows):
        for x in range(0, width, columns):
            h, w = min(rows, height - y), min(columns, width - x)
            strip = pixels[:, :, y : y + h + p_b - 1, x : x + w + p_c - 1]
            ready = 0
            for low in range(0, depth, steps):
                high = min(low + steps, depth)
                for first in range(ready, high + p_a - 1, steps):
                    n = min(steps, high + p_a - 1 - first)
                    some = strip[:, first : first + n].reshape(items, -1, query.shape[2])
                    numbers = items * some.shape[1] * key.shape[1]
                    torch.bmm(some, key.mT, out=torch.from_numpy(gram[:numbers]).view(items, -1, key.shape[1]))
                    i, t, v, u = np.ix_(*map(np.arange, (items, n, h, w)))
                    to = ((i * kept + (first + t) % kept) * h + v) * w + u
                    pixels_of = items * n, h + p_b - 1, w + p_c - 1
                    if p_b > 1:
                        sum_along(gram, pixels_of, (k_a, k_b, k_c), 2, p_c, along_third)
                        sum_along(along_third, (*pixels_of[:2], w), (k_a, k_b, c), 1, p_b, plane, to)
                    else:
                        sum_along(gram, pixels_of, (k_a, k_b, k_c), 2, p_c, plane, to)
                ready = high + p_a - 1
                i, v, u, t, d = np.ix_(*map(np.arange, (items, h, w, high - low, p_a)))
                at = (((i * kept + (low + t + d) % kept) * h + v) * w + u) * (k_a * b * c) + d * (b * c)
                sum_rows(plane, at, 1, (0, 0), a * b * c, products, np.arange(at[..., 0].size))
                box = slice(low, high), slice(y, y + h), slice(x, x + w)
                yield box, products[: at[..., 0].size * a * b * c]


def _box(sizes: _Sizes, items: int, width: int) -> Size:
    """The largest box of queries whose buffers fit into the memory."""
    (p_a, p_b, p_c), (a, b, c), (k_a, k_b, k_c) = sizes.patch, sizes.key, sizes.padded(sizes.key)

    def is_large(n: int, h: int, w: int) -> bool:
        gram = n * (h + p_b - 1) * (w + p_c - 1) * k_a * k_b * k_c
        along_third = n * (h + p_b - 1) * w * k_a * k_b * c if p_b > 1 else 0
        plane = (n + p_a - 1) * h * w * k_a * b * c
        return items * width * (gram + along_third + plane + n * h * w * a * b * c) > BYTES

    n, (depth, h, w) = 1, sizes.query
    while max(h, w) > 1 and is_large(n, h, w):
        h, w = (-(-h // 2), w) if h > w else (h, -(-w // 2))
    while n < depth and not is_large(2 * n, h, w):
        n *= 2
    return min(n, depth), h, w


@kernel(vectorize=True)
def _scale_range(low: int, high: int, products: Any, factors: Any, key_factors: Any, in_item: int) -> None:
    keys = key_factors.shape[1]
    for row in range(low, high):
        group = row // in_item
        factor = products.dtype.type(factors[row])
        for c in range(keys):
            products[row * keys + c] *= factor * products.dtype.type(key_factors[group, c])
