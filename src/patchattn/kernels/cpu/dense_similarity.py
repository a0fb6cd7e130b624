"""The similarity at very many matches, and its gradients, from tables of all pairs of pixels.

Patches that overlap share the products of their pixels, which the loops of `similarity.py` compute anew for each match.
Here each pair of pixels is multiplied (or subtracted and squared) once, the results are summed along diagonals, and the
matches are read off the sums: the work no longer depends on the number of matches, and on the sum of the patch's sides
instead of their product. Queries come in boxes, so that the tables stay small.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from math import ceil, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from patchattn.kernels.cpu.compiler import kernel
from patchattn.kernels.cpu.dense_products import add_products, add_transposed_products, pair_products
from patchattn.kernels.cpu.diagonals import gather_diagonals, spread_diagonals
from patchattn.kernels.cpu.padded_image import PaddedImage
from patchattn.kernels.cpu.patch_similarity import COSINE, L2, Patches
from patchattn.kernels.cpu.pool import run_ranges
from patchattn.kernels.cpu.vectors import SLACK

__all__ = ["OVERHEAD", "Dense", "dense_costs"]

BYTES = 1 << 26
"""Memory of the two tables of a box of queries and all keys."""
ROWS = 64
"""Queries in one range of work."""
OVERHEAD = 1 << 20
"""Multiply-adds in the time that it takes to make an item's work ready."""

Size = tuple[int, ...]


def _box_sides(queries: Size, patch: Size, keys: Size, bytes_each: int) -> Size:
    """Sides of boxes whose tables fit: the longest side is halved until they do."""
    side = list(queries)
    while prod(side) > 1 and 2 * bytes_each * _padded(keys, patch) * _padded(tuple(side), patch) > BYTES:
        longest = side.index(max(side))
        side[longest] = ceil(side[longest] / 2)
    return tuple(side)


def dense_costs(queries: PaddedImage, keys: PaddedImage) -> float:
    """Cost of all pairs of an item, in multiply-adds of pairs of pixels."""
    patch = tuple(2 * r + 1 for r in queries.radius)
    side = _box_sides(queries.size, patch, keys.size, queries.rows.itemsize)
    boxes = prod(ceil(n / s) for n, s in zip(queries.size, side, strict=True))
    pairs = boxes * _padded(side, patch) * _padded(keys.size, patch)
    return pairs * (queries.channels + 2.0 * sum(p for p in patch if p > 1)) + OVERHEAD


def _padded(size: Size, patch: Size) -> int:
    return prod(n + p - 1 for n, p in zip(size, patch, strict=True))


class Dense:
    """All pairs of one query image and one key image."""

    def __init__(
        self, query: NDArray[Any], key: NDArray[Any], queries: PaddedImage, keys: PaddedImage, patches: Patches
    ) -> None:
        self.patches = patches
        self.patch = tuple(2 * r + 1 for r in queries.radius)
        self.queries, self.keys = queries.size, keys.size
        self.query, self.key = (np.ascontiguousarray(x.reshape(-1, patches.channels).T) for x in (query, key))
        self.side = _box_sides(self.queries, self.patch, self.keys, query.itemsize)
        size = _padded(self.side, self.patch) * _padded(self.keys, self.patch) + SLACK
        self.table, self.spare = np.empty(size, query.dtype), np.empty(size, query.dtype)

    def similarities(
        self, index: NDArray[np.int32], k: int, scale: Any, q_norms: NDArray[Any], k_norms: NDArray[Any],
        output: NDArray[Any],
    ) -> None:  # fmt: skip
        """Write the similarities at the matches `index` to `output`, both flat, query by query; -inf for -1 and NaN."""
        for positions, pixels, size in self._boxes():
            table = pair_products(self.query[:, pixels], self.key, self.patches.kind == L2, self.table)
            table = gather_diagonals(table, *self._padded_sizes(size), self.patch, self.spare, self.table)
            factor = -scale if self.patches.kind == L2 else scale
            norms = (q_norms, k_norms, self.patches.kind == COSINE)
            run_ranges(_read_range, positions.size, ROWS, table, positions, index, k, factor, *norms, output)

    def add_gradients(
        self, factors: NDArray[Any], index: NDArray[np.int32], k: int, by_query: NDArray[Any], by_key: NDArray[Any]
    ) -> None:
        """Add, for every match, its factor times the key's patch to `by_query`, and the query's patch to `by_key`.

        Args:
            factors, index: flat, query by query. Patches that are not finite have factors of 0 alone.
            by_query, by_key: padded images like those that this was made with.
        """
        to_query = by_query.reshape(-1, self.patches.channels)
        to_key = np.zeros_like(self.key)
        query, key = (np.nan_to_num(image, nan=0, posinf=0, neginf=0) for image in (self.query, self.key))
        for positions, pixels, size in self._boxes():
            table = self.table[: positions.size * prod(self.keys)].reshape(positions.size, -1)
            run_ranges(_write_range, positions.size, ROWS, factors, positions, index, k, table)
            table = spread_diagonals(table, size, self.keys, self.patch, self.spare, self.table)
            add_products(table, key, to_query, pixels)
            add_transposed_products(table, query[:, pixels], to_key)
        by_key += to_key.T.reshape(-1)

    def _boxes(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], Size]]:
        """The queries of each box, the pixels of their patches, and its size."""
        positions = np.arange(prod(self.queries)).reshape(self.queries)
        padded = tuple(n + p - 1 for n, p in zip(self.queries, self.patch, strict=True))
        pixels = np.arange(prod(padded)).reshape(padded)
        for start in product(*(range(0, n, s) for n, s in zip(self.queries, self.side, strict=True))):
            box = positions[tuple(slice(at, at + s) for at, s in zip(start, self.side, strict=True))]
            inside = tuple(slice(at, at + n + p - 1) for at, n, p in zip(start, box.shape, self.patch, strict=True))
            yield box.reshape(-1), pixels[inside].reshape(-1), box.shape

    def _padded_sizes(self, box: Size) -> tuple[Size, Size]:
        rows, columns = (tuple(n + p - 1 for n, p in zip(size, self.patch, strict=True)) for size in (box, self.keys))
        return rows, columns


@kernel()
def _read_range(
    low: int, high: int, table: Any, positions: Any, index: Any, k: int, factor: Any, q_norms: Any, k_norms: Any,
    normed: bool, output: Any,
) -> None:  # fmt: skip
    nothing = -table.dtype.type(np.inf)
    for n in range(low, high):
        i = positions[n]
        for m in range(i * k, (i + 1) * k):
            j = index[m]
            output[m] = nothing
            if j >= 0:
                s = table[n, j] * factor
                if normed:
                    s = (s * q_norms[i]) * k_norms[j]
                if s > nothing:
                    output[m] = s


@kernel()
def _write_range(low: int, high: int, factors: Any, positions: Any, index: Any, k: int, table: Any) -> None:
    for n in range(low, high):
        table[n, :] = 0
        i = positions[n]
        for m in range(i * k, (i + 1) * k):
            if index[m] >= 0:
                table[n, index[m]] += factors[m]
