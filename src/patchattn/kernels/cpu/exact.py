"""Exact search: the n x n similarities exist one block at a time, and every match is proven to be the best.

Products in float32 rank all keys. A few more than k are kept and measured in float64, and a bound of the products'
error tells for which queries a key that was not kept might be better still. For those, products in float64 tell which
keys these are, and they are measured too.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import cached_property, partial
from math import prod
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

from patchattn.kernels.cpu.constraints import limits_of
from patchattn.kernels.cpu.exact_boxes import (
    Boxes,
    box_scratch,
    boxes_for,
    boxes_take_less,
    planes_of,
    scan_boxes_range,
)
from patchattn.kernels.cpu.exact_lists import improve_range, rank_range, settle_range, sort_lists_range
from patchattn.kernels.cpu.exact_rows import row_scratch, sort_range
from patchattn.kernels.cpu.exact_scan import scan_range
from patchattn.kernels.cpu.exact_small import MAX_COSINE_NORM, is_small, search_small
from patchattn.kernels.cpu.fields import new_field, store_lists
from patchattn.kernels.cpu.heap import Heaps
from patchattn.kernels.cpu.padded_image import pad_pair
from patchattn.kernels.cpu.patch_similarity import L1, POINTWISE, inverse_norms, patches_of, pointwise_of
from patchattn.kernels.cpu.pool import run_ranges
from patchattn.kernels.cpu.product_blocks import Images, QueryBlock, Rows, query_blocks
from patchattn.kernels.cpu.products_bound import Precision, precision_of
from patchattn.kernels.cpu.summed_products import SummedBlock, depth_of, summed_blocks
from patchattn.problem import Constraints, PatchGeometry
from patchattn.progress import report

__all__ = ["search_exact"]

BLOCK = 2048
"""Queries, and keys, in one block: 16 MiB of products in single precision."""
ROWS = 64
"""Queries in one range of work."""
PER_THREAD = 2
"""Groups of items for each thread from which on a thread computes whole groups, alone, instead of a share of each.

Between the kernels of a group there is other work, which so goes on beside the others' kernels. With fewer groups
threads would wait for the last.
"""
SUMS = 120
"""Multiplications in the time of one sum along a diagonal, which its memory takes: the addends are cached."""
ROWS_FROM = 32
"""From one match for so many keys on, whole rows are sorted instead of lists kept (docs/performance.md)."""

Matches = tuple[NDArray[np.int32], NDArray[Any]]


def search_exact(
    query: Tensor, key: Tensor, k: int, geometry: PatchGeometry, constraints: Constraints
) -> tuple[Tensor, Tensor]:
    """Find the k best keys of every query by looking at all of them; see `patchattn.match`."""
    index, similarity = new_field(query, k, geometry)
    total = query.shape[0] * geometry.num_heads
    if is_small(query, key, geometry, constraints) and search_small(
        query, key, k, geometry, constraints, index, similarity, ROWS_FROM
    ):
        report(total, total)
        return index, similarity
    search = _Search(query, key, k, geometry, constraints)
    together = max(1, BLOCK // max(search.count, search.keys, 1))
    done = itertools.count(1)

    def compute(low: int, high: int) -> None:
        found = search.run(np.arange(low, high))
        for output, lists in zip((index, similarity), found, strict=True):
            store_lists(lists.reshape(high - low, -1), range(low, high), output)
        report(min(next(done) * together, total), total)

    if total >= PER_THREAD * together * torch.get_num_threads():
        run_ranges(compute, total, together)
        report(total, total)  # the last group may have been another thread's, which nobody watches
    else:
        for low in range(0, total, together):
            compute(low, min(low + together, total))
    # What float32 has no number for is no match.
    return index.masked_fill_(similarity == -torch.inf, -1), similarity


class Group(NamedTuple):
    """Items that are searched together."""

    items: NDArray[np.int64]
    key_items: NDArray[np.int64]
    """Whose keys each of them searches."""
    queries: NDArray[np.int64]
    """`(items, any number)`: the positions that take part; -1 where there are fewer."""
    columns: NDArray[np.int64]
    """The same for the keys."""


class _Search:
    """One search, of all items: what they share."""

    def __init__(self, query: Tensor, key: Tensor, k: int, geometry: PatchGeometry, constraints: Constraints) -> None:
        self.k, self.heads, self.dtype = k, geometry.num_heads, query.dtype
        self.count, self.keys = prod(query.shape[2:]), prod(key.shape[2:])
        queries, keys = pad_pair(query, key, geometry, torch.float64)
        norms = [inverse_norms(side, geometry).reshape(-1) for side in (queries, keys)]
        self.limits = limits_of(constraints, query.dim() - 2)
        self.lag = self.limits.lag if self.limits.is_causal else -1
        q_stride, k_stride = (
            prod(n + 2 * r for n, r in zip(x.size, x.radius, strict=True)) * x.channels for x in (queries, keys)
        )
        self.images = Images(
            queries.rows.reshape(-1), keys.rows.reshape(-1), q_stride, k_stride, norms[0], norms[1],
            geometry.scale(query.shape[1]), pointwise_of(geometry), patches_of(queries, keys, geometry),
        )  # fmt: skip
        self.shared_key = key.shape[0] == 1
        self.query_mask, self.key_mask = constraints.query_mask, constraints.key_mask

    def run(self, items: NDArray[np.int64]) -> Matches:
        """Return index and similarity of the k best, flat, query by query of each item."""
        batch = items // self.heads
        queries, columns = _chosen(self.query_mask, batch, self.count), _chosen(self.key_mask, batch, self.keys)
        group = Group(items, items % self.heads if self.shared_key else items, queries, columns)
        if queries.size == 0 or columns.size == 0:
            return self._no_matches(items.size, np.float32)
        if self.images.patches.kind in (L1, POINTWISE) or self.limits.separated or self.limits.has_window:
            return self._scan(group)
        if self.k * ROWS_FROM >= columns.shape[1] and self.dtype != torch.float64:
            return self._sort_rows(group)
        index, similarity, unproven = self._rank(group)
        self._improve(group, index, similarity, unproven)
        return index, similarity

    def _blocks(
        self, group: Group, width: int, dtype: torch.dtype
    ) -> tuple[Precision, Iterator[QueryBlock] | Iterator[SummedBlock]]:
        """Return blocks of products, each with up to `width` keys at a time, and how precise they are."""
        causal, patches = self.limits.is_causal, self.images.patches
        if self._are_summed(group):
            return precision_of(dtype, self.elements, depth_of(patches)), summed_blocks(
                self.images, *group, causal, dtype
            )
        height = min(BLOCK, max(1, BLOCK * BLOCK // (width * group.items.size)))
        return precision_of(dtype, self.elements, self.elements), query_blocks(
            self.images, *group, height, width, causal, dtype
        )

    def _rows(self, group: Group, block: QueryBlock | SummedBlock) -> Rows:
        """Return what kernels know of the queries of a block."""
        positions = block.positions
        return Rows(group.items, group.key_items, positions.reshape(-1), block.norms, positions.shape[1], self.count)

    def _are_summed(self, group: Group) -> bool:
        """Whether sums of pixels' products take less time, although for all positions, than products of the patches."""
        p = self.images.patches
        dimensions = sum(size > 1 for size in (p.slices, p.rows, p.length // p.channels))
        pairs = group.queries.shape[1] * group.columns.shape[1]
        if dimensions == 0 or pairs * self.elements < self.count * self.keys * (p.channels + SUMS * dimensions):
            return False
        # For the cosine, sums are divided by the norms, and nothing may get too large or small before.
        return all(
            norms.size == 0 or (norms.max() < MAX_COSINE_NORM and norms[norms > 0].min(initial=1) > 1 / MAX_COSINE_NORM)
            for norms in (self.images.q_norms, self.images.k_norms)
        )

    def _rank(self, group: Group) -> tuple[NDArray[np.int32], NDArray[Any], NDArray[np.bool_]]:
        """List the k best of what ranks best by products, and say for which queries that is not proven."""
        k, (items, _, _, columns) = self.k, group
        # The more spare places, the further behind the k-th is the first key that is left out.
        kept = min(k + max(4, k // 2), columns.shape[1])
        width = min(BLOCK, columns.shape[1])
        dtype = torch.float32 if self.dtype != torch.float64 and _multiplies_in_float32() else torch.float64
        precision, blocks = self._blocks(group, width, dtype)
        index, similarity = self._no_matches(items.size, np.float64)
        best = Heaps(index, similarity, k)
        places = items.size * self.count * kept
        value = np.full(places, -np.inf, np.float32 if dtype == torch.float32 else np.float64)
        ranked = Heaps(np.full(places, -1, np.int32), value, kept)
        unproven = np.zeros(items.size * self.count, np.bool_)
        for block in blocks:
            rows = self._rows(group, block)
            longest = np.zeros(items.size)
            for part in block.parts():
                run_ranges(
                    rank_range, rows.positions.size, ROWS, part, part.columns.size // items.size, rows, self.lag, ranked
                )
                longest = np.maximum(longest, part.longest)
            run_ranges(
                settle_range, rows.positions.size, ROWS, rows, longest, self.elements, precision, self.images, ranked,
                best, unproven,
            )  # fmt: skip
        return index, similarity, unproven

    def _improve(
        self, group: Group, index: NDArray[np.int32], similarity: NDArray[Any], unproven: NDArray[Any]
    ) -> None:
        """Offer the lists of unproven queries every key that products in float64 cannot exclude."""
        k, count = self.k, self.count
        numbers = np.flatnonzero(unproven.reshape(-1, count).any(1))
        if numbers.size == 0:
            return
        lists = np.flatnonzero(unproven)
        for array in (index.reshape(-1, k), similarity.reshape(-1, k)):
            array[lists] = array[lists, ::-1]  # worst first: a heap
        queries = _positions([np.flatnonzero(unproven[n * count : (n + 1) * count]) for n in numbers])
        group = Group(group.items[numbers], group.key_items[numbers], queries, group.columns[numbers])
        width = min(BLOCK, group.columns.shape[1])
        precision, blocks = self._blocks(group, width, torch.float64)
        best = Heaps(index, similarity, k)
        for block in blocks:
            rows = self._rows(group, block)
            for part in block.parts():
                run_ranges(
                    improve_range, rows.positions.size, ROWS, part, part.columns.size // numbers.size, rows, numbers,
                    self.lag, self.elements, precision, self.images, best,
                )  # fmt: skip
        run_ranges(sort_lists_range, lists.size, ROWS, lists, best)

    def _sort_rows(self, group: Group) -> Matches:
        """Compute whole rows of similarities in float64, and take the k best of each."""
        k, items = self.k, group.items
        index, similarity = self._no_matches(items.size, np.float32)
        precision, blocks = self._blocks(group, group.columns.shape[1], torch.float64)
        for block in blocks:
            rows = self._rows(group, block)
            for part in block.parts():
                width = part.columns.size // items.size
                run_ranges(
                    sort_range, rows.positions.size, ROWS, part, width, rows, self.lag, self.elements, precision,
                    self.images, Heaps(index, similarity, k), scratch=partial(row_scratch, width),
                )  # fmt: skip
        return index, similarity

    def _scan(self, group: Group) -> Matches:
        """Compare every key within reach, where products do not tell: by sums of boxes, or each alone."""
        k, count, (items, key_items, queries, columns) = self.k, self.count, group
        index, similarity = self._no_matches(items.size, np.float64)
        allowed = _table(self.key_mask, columns, self.keys)
        rows = Rows(items, key_items, queries.reshape(-1), np.empty(0), queries.shape[1], count)
        best = Heaps(index, similarity, k)
        if boxes_take_less(self.boxes, self.images.patches, queries.shape[1], columns.shape[1]):
            asked = _table(self.query_mask, queries, count)
            run_ranges(
                scan_boxes_range, items.size * self.boxes.blocks, 1, rows, asked, allowed, self.limits, self.images,
                self.planes, self.boxes, best, scratch=lambda: box_scratch(self.boxes),
            )  # fmt: skip
        else:
            run_ranges(scan_range, queries.size, ROWS, rows, allowed, self.limits, self.images, best)
        return index, similarity

    @cached_property
    def boxes(self) -> Boxes:
        return boxes_for(self.images.patches, self.limits)

    @cached_property
    def planes(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return planes_of(self.images)

    def _no_matches(self, items: int, dtype: DTypeLike) -> Matches:
        size = items * self.count * self.k
        return np.full(size, -1, np.int32), np.full(size, -np.inf, dtype)

    @property
    def elements(self) -> int:
        p = self.images.patches
        return int(p.slices * p.rows * p.length)


def _chosen(mask: Tensor | None, batch: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """The positions that take part of each item."""
    if mask is None:
        return np.broadcast_to(np.arange(count), (batch.size, count))
    flat = mask.reshape(mask.shape[0], -1).numpy()
    return _positions([np.flatnonzero(flat[b if len(flat) > 1 else 0]) for b in batch])


def _table(mask: Tensor | None, positions: NDArray[np.int64], count: int) -> NDArray[np.bool_]:
    """Whether each position takes part, `(items, count + 1)`; nothing without a mask."""
    if mask is None:
        return np.empty((0, 0), np.bool_)
    table = np.zeros((len(positions), count + 1), np.bool_)
    np.put_along_axis(table, positions, True, 1)  # -1, for none, is the last
    return table


def _positions(sets: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """One row for each, filled up with -1."""
    table = np.full((len(sets), max(map(len, sets))), -1, np.int64)
    for row, positions in zip(table, sets, strict=True):
        row[: len(positions)] = positions
    return table


def _multiplies_in_float32() -> bool:
    """Whether float32 products are computed as such, not in bfloat16 or TF32, as settings of PyTorch allow."""
    settings = getattr(torch.backends.mkldnn, "matmul", None)
    if settings is None:  # PyTorch below 2.9
        return torch.get_float32_matmul_precision() == "highest"
    return settings.fp32_precision in ("ieee", "none")
