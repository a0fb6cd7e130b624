"""Products of all query patches with all key patches, of one or many items, a block at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from patchattn.kernels.cpu.compiler import inlined, kernel
from patchattn.kernels.cpu.patch_similarity import L2, measure, offset_of
from patchattn.kernels.cpu.pool import run_ranges
from patchattn.kernels.cpu.vectors import SLACK

__all__ = ["Images", "Part", "QueryBlock", "Rows", "measure_in", "query_blocks"]

ROWS = 256
"""Rows in one range of work."""
SAMPLE = 16
"""Queries of a block from which its center is computed."""


class Images(NamedTuple):
    """Query and key in float64, all items of each in one flat array."""

    query: NDArray[np.float64]
    key: NDArray[np.float64]
    q_stride: int
    """From one item to the next."""
    k_stride: int
    q_norms: NDArray[np.float64]
    """1 / norm of every patch, item after item, for the cosine; else empty."""
    k_norms: NDArray[np.float64]
    scale: float
    function: Any
    patches: Any


@inlined
def measure_in(q_item: int, i: int, k_item: int, j: int, images: Any, worst: float) -> float:
    """Similarity of query i of an item and key j of one, in float64; anything below `worst` if it is less than that."""
    p = images.patches
    q_start = q_item * images.q_stride + offset_of(i, p.q_h, p.q_w, p.q_slice, p.q_row, p.channels)
    k_start = k_item * images.k_stride + offset_of(j, p.k_h, p.k_w, p.k_slice, p.k_row, p.channels)
    q_at, k_at = q_item * p.q_t * p.q_h * p.q_w + i, k_item * p.k_t * p.k_h * p.k_w + j
    return measure(
        images.query, q_start, images.key, k_start, q_at, k_at, images.q_norms, images.k_norms, images.scale,
        images.function, p, worst,
    )  # fmt: skip


class Rows(NamedTuple):
    """The rows of a block of products: some queries of each of some items."""

    items: NDArray[np.int64]
    key_items: NDArray[np.int64]
    """Whose keys each of them searches."""
    positions: NDArray[np.int64]
    """Flat, `(items, queries)`; -1: there is no query."""
    norms: NDArray[np.float64]
    """Norms of the queries as they were multiplied, likewise."""
    in_item: int
    """Rows of an item."""
    queries: int
    """Queries of an item, with those that are not in the block."""


class Source(NamedTuple):
    """The image that patches are cut from."""

    image: NDArray[np.float64]
    stride: int
    """From one item to the next."""
    factors: NDArray[np.float64]
    """Each patch is multiplied by its own; empty: none is."""


class Part(NamedTuple):
    """The products of a block of queries with a block of keys."""

    products: NDArray[Any]
    """Flat, `(items, queries, keys)`: 2 q.k - |k|^2 for l2, q.k otherwise. Slack follows in memory."""
    columns: NDArray[np.int64]
    """Flat, `(items, keys)`: positions; -1: there is no key."""
    norms: NDArray[np.float64]
    """Norms of the keys as they were multiplied, likewise."""
    longest: NDArray[np.float64]
    """The largest finite norm, for each item."""


@dataclass(frozen=True)
class QueryBlock:
    """Some queries of each of some items, to be multiplied with keys."""

    images: Images
    items: NDArray[np.int64]
    key_items: NDArray[np.int64]
    positions: NDArray[np.int64]
    """`(items, queries)`; -1: there is no query."""
    columns: NDArray[np.int64]
    """`(items, keys)`, likewise."""
    width: int
    """Keys of each item in one part."""
    is_causal: bool
    buffers: _Buffers
    center: NDArray[np.float64]
    """`(items, elements)`, subtracted from queries and keys; empty: nothing is."""
    norms: NDArray[np.float64]
    """Norms of the queries as they are multiplied, flat."""

    def parts(self) -> Iterator[Part]:
        shape = self.positions.shape
        for low in range(0, self.columns.shape[1], self.width):
            some = np.ascontiguousarray(self.columns[:, low : low + self.width])
            if self.is_causal and some[:, 0].min() > self.positions.max():
                return  # what comes later is no match
            keys = self.buffers.keys[: some.size].view(*some.shape, -1)
            norms = self.buffers.cut(self.images, True, self.key_items, some, self.center, keys)
            products = self.buffers.products[: shape[0] * shape[1] * some.shape[1]].view(*shape, -1)
            queries = self.buffers.queries[: self.positions.size].view(*shape, -1)
            if self.images.patches.kind == L2:
                # argmin |q - k|^2 = argmax 2 q.k - |k|^2
                bias = torch.from_numpy(norms).square().neg().to(products.dtype).view(shape[0], 1, -1)
                torch.baddbmm(bias, queries, keys.mT, alpha=2, out=products)
            else:
                torch.bmm(queries, keys.mT, out=products)
            finite = np.where(np.isfinite(norms), norms, 0).reshape(shape[0], -1)
            yield Part(products.view(-1).numpy(), some.reshape(-1), norms, finite.max(1))


def query_blocks(
    images: Images,
    items: NDArray[np.int64],
    key_items: NDArray[np.int64],
    queries: NDArray[np.int64],
    columns: NDArray[np.int64],
    height: int,
    width: int,
    is_causal: bool,
    dtype: torch.dtype,
) -> Iterator[QueryBlock]:
    """Cut the queries at `(items, any number)` positions into blocks of `height`; each meets `width` keys at a time.

    `columns` are the keys' positions, likewise.
    """
    height = min(height, queries.shape[1])
    buffers = _Buffers(images, items.size, height, width, dtype)
    for low in range(0, queries.shape[1], height):
        positions = np.ascontiguousarray(queries[:, low : low + height])
        center = buffers.center(images, items, positions, is_causal)
        rows = buffers.queries[: positions.size].view(*positions.shape, -1)
        norms = buffers.cut(images, False, items, positions, center, rows)
        yield QueryBlock(images, items, key_items, positions, columns, width, is_causal, buffers, center, norms)


class _Buffers:
    def __init__(self, images: Images, items: int, height: int, width: int, dtype: torch.dtype) -> None:
        p = images.patches
        self.elements = p.slices * p.rows * p.length
        self.queries = torch.empty((items * height, self.elements), dtype=dtype)
        self.keys = torch.empty((items * width, self.elements), dtype=dtype)
        self.products = torch.empty(items * height * width + SLACK, dtype=dtype)

    def center(
        self, images: Images, items: NDArray[np.int64], positions: NDArray[np.int64], is_causal: bool
    ) -> NDArray[np.float64]:
        """The middle of the queries, element by element: the nearer it is, the fewer digits the products lose.

        A median is a number that occurs, so integers stay integers, and a few outliers do not move it. Under causality
        it is the first query, before which none of them looks: nothing may depend on what comes later.
        """
        if images.patches.kind != L2:
            return np.empty((0, 0))
        step = positions.shape[1] if is_causal else -(-positions.shape[1] // SAMPLE)
        sample = np.ascontiguousarray(positions[:, ::step])
        rows = torch.empty((*sample.shape, self.elements), dtype=torch.float64)
        self.cut(images, False, items, sample, np.empty((0, 0)), rows)
        rows[torch.from_numpy(sample < 0)] = torch.nan
        middle = rows.nanmedian(1).values.nan_to_num_(0, 0, 0)
        return middle.numpy()

    def cut(
        self, images: Images, is_key: bool, items: NDArray[np.int64], positions: NDArray[np.int64],
        center: NDArray[np.float64], output: Tensor,
    ) -> NDArray[np.float64]:  # fmt: skip
        """Write the patches at `(items, any number)` positions to rows of `output`, minus the center; for the cosine
        divided by their norms. Return the rows' norms.
        """
        source = Source(images.query, images.q_stride, images.q_norms)
        if is_key:
            source = Source(images.key, images.k_stride, images.k_norms)
        norms = np.empty(positions.size)
        flat = output.view(positions.size, self.elements).numpy()
        run_ranges(
            _cut_range, positions.size, ROWS, positions.reshape(-1), positions.shape[1], items, source, center,
            images.patches, is_key, flat, norms,
        )  # fmt: skip
        return norms


@kernel(vectorize=True)
def _cut_range(
    low: int, high: int, positions: Any, in_item: int, items: Any, source: Any, center: Any, patches: Any,
    is_key: bool, output: Any, norms: Any,
) -> None:  # fmt: skip
    p = patches
    image, stride, factors = source.image, source.stride, source.factors
    depth, height, width, slice_step, row_step = p.q_t, p.q_h, p.q_w, p.q_slice, p.q_row
    if is_key:
        depth, height, width, slice_step, row_step = p.k_t, p.k_h, p.k_w, p.k_slice, p.k_row
    for n in range(low, high):
        position = positions[n]
        if position < 0:
            for c in range(output.shape[1]):
                output[n, c] = 0
            norms[n] = 0
            continue
        group = n // in_item
        start = items[group] * stride + offset_of(position, height, width, slice_step, row_step, p.channels)
        factor = 1.0
        if factors.size > 0:
            factor = factors[items[group] * depth * height * width + position]
        at = 0
        for a in range(p.slices):
            for b in range(p.rows):
                row = start + a * slice_step + b * row_step
                if center.size > 0:
                    for c in range(p.length):
                        output[n, at + c] = image[row + c] - center[group, at + c]
                else:
                    for c in range(p.length):
                        output[n, at + c] = image[row + c] * factor
                at += p.length
        square = 0.0
        for c in range(at):
            square += np.float64(output[n, c]) * np.float64(output[n, c])
        norms[n] = np.sqrt(square)
