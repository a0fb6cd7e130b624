"""Items, each one head of one batch item, and the loop over them that all searches share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from patchattn.kernels.cpu.batch import Each, groups
from patchattn.kernels.cpu.constraints import Limits, Masks, limits_of, mask_rows, masks_of
from patchattn.kernels.cpu.fields import item_init, new_field, store
from patchattn.kernels.cpu.padded_image import PaddedImage, pad_pair
from patchattn.kernels.cpu.patch_similarity import Pairs, Patches, inverse_norms, patches_of, pointwise_of
from patchattn.kernels.cpu.pool import run_ranges
from patchattn.kernels.cpu.topk import TopK
from patchattn.problem import Constraints, PatchGeometry
from patchattn.progress import report

__all__ = ["Item", "items_of", "no_matches", "pairs_of", "search_items"]


SMALL = 1 << 14
"""Queries up to which an item is better searched by one thread, while the others search other items."""


@dataclass(frozen=True)
class Item:
    """One head of one batch item."""

    number: int
    """Number of this item among `items`, from 0."""
    items: int
    batch_item: int
    head: int
    queries: PaddedImage
    keys: PaddedImage
    pairs: Pairs
    masks: Masks
    init: NDArray[np.int32]

    @property
    def patches(self) -> Patches:
        return self.pairs.patches

    @property
    def limits(self) -> Limits:
        return self.pairs.limits

    @property
    def count(self) -> int:
        """Number of queries."""
        return self.patches.q_t * self.patches.q_h * self.patches.q_w


def items_of(
    query: Tensor, key: Tensor, geometry: PatchGeometry, constraints: Constraints, init: Tensor | None = None
) -> Iterator[Item]:
    """Lay out query and key, and go through heads and batch items."""
    queries, keys = pad_pair(query, key, geometry)
    query_norms, key_norms = inverse_norms(queries, geometry), inverse_norms(keys, geometry)
    scale = queries.rows.dtype.type(geometry.scale(query.shape[1]))
    patches, limits = patches_of(queries, keys, geometry), limits_of(constraints, query.dim() - 2)
    shared = (scale, pointwise_of(geometry), patches, limits)
    batch, heads = query.shape[0], geometry.num_heads
    for b in range(batch):
        masks = masks_of(constraints, b, key.shape[2:])
        for h in range(heads):
            n = b * heads + h
            norms = (query_norms[n], key_norms[n % len(key_norms)])
            pairs = Pairs(queries.item(n), keys.item(n), *norms, *shared, masks.query, masks.key)
            yield Item(n, batch * heads, b, h, queries, keys, pairs, masks, item_init(init, b, h))


def search_items(
    query: Tensor,
    key: Tensor,
    k: int,
    geometry: PatchGeometry,
    constraints: Constraints,
    init: Tensor | None,
    search: Callable[[Item], TopK],
) -> tuple[Tensor, Tensor]:
    """Call `search` for every item, and put its lists into a field: index and similarity, `(B, heads, k, *query)`.

    Small items are searched side by side, each by one thread: `search` must call nothing that has threads of its own.
    """
    index, similarity = new_field(query, k, geometry)
    items = items_of(query, key, geometry, constraints, init)
    number, count = query.shape[0] * geometry.num_heads, prod(query.shape[2:])
    if count > SMALL or number < torch.get_num_threads():
        for item in items:
            store(search(item), item.number, index, similarity)
        return index, similarity
    for group in groups(number, count):
        waiting = list(islice(items, len(group)))
        found = [no_matches(0, k, np.float32)] * len(group)

        def search_range(low: int, high: int, waiting: list[Item], found: list[TopK]) -> None:
            for n in range(low, high):
                found[n] = search(waiting[n])

        run_ranges(search_range, len(group), 1, waiting, found)
        for item, lists in zip(waiting, found, strict=True):
            store(lists, item.number, index, similarity)
        report(group.stop, number)
    return index, similarity


def pairs_of(query: Tensor, key: Tensor, geometry: PatchGeometry, constraints: Constraints) -> Pairs:
    """`Pairs` of all items at once, as `run_items` takes them."""
    queries, keys = pad_pair(query, key, geometry)
    query_mask, key_mask = (
        mask_rows(mask, geometry.num_heads) for mask in (constraints.query_mask, constraints.key_mask)
    )
    return Pairs(
        query=Each(queries.rows),
        key=Each(keys.rows),
        q_norms=Each(inverse_norms(queries, geometry)),
        k_norms=Each(inverse_norms(keys, geometry)),
        scale=queries.rows.dtype.type(geometry.scale(query.shape[1])),
        function=pointwise_of(geometry),
        patches=patches_of(queries, keys, geometry),
        limits=limits_of(constraints, query.dim() - 2),
        query_mask=Each(query_mask),
        key_mask=Each(key_mask),
    )


def no_matches(count: int, k: int, dtype: Any) -> TopK:
    """TopK in which every place is still free."""
    return TopK(np.full(count * k, -1, np.int32), np.full(count * k, -np.inf, dtype), np.zeros(count * k, np.int32))
