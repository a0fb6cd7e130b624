"""What every search does alike: the layout of the images, and one head of one batch item after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from patchattn.kernels.arguments import Constraints, PatchGeometry
from patchattn.kernels.cpu.fields import item_init, new_field, store
from patchattn.kernels.cpu.layout import Layout, pad_pair
from patchattn.kernels.cpu.limits import Masks, limits_of, masks_of
from patchattn.kernels.cpu.matches import Limits, Lists
from patchattn.kernels.cpu.measure import Patches, inverse_norms, patches_of, pointwise_of

__all__ = ["Item", "items_of", "no_matches", "search_items"]


@dataclass(frozen=True)
class Item:
    """One head of one batch item."""

    number: int
    """Of `items`, from 0: how far the whole search has come."""
    items: int
    batch_item: int
    head: int
    queries: Layout
    keys: Layout
    pair: tuple[Any, ...]
    """Query, key, their inverse norms, scale, user's function, patches, limits, query mask, key mask: what every kernel
    that measures takes first."""
    masks: Masks
    init: NDArray[np.int32]

    @property
    def patches(self) -> Patches:
        patches: Patches = self.pair[6]
        return patches

    @property
    def limits(self) -> Limits:
        limits: Limits = self.pair[7]
        return limits

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
    scale = queries.buffer.numpy().dtype.type(geometry.scale(query.shape[1]))
    patches, limits = patches_of(queries, keys, geometry), limits_of(constraints, query.dim() - 2)
    shared = (scale, pointwise_of(geometry), patches, limits)
    batch, heads = query.shape[0], geometry.num_heads
    for b in range(batch):
        masks = masks_of(constraints, b, key.shape[2:])
        for h in range(heads):
            norms = (query_norms[b][h], key_norms[b if len(key_norms) > 1 else 0][h])
            pair = (queries.item(b, h), keys.item(b, h), *norms, *shared, masks.query, masks.key)
            yield Item(b * heads + h, batch * heads, b, h, queries, keys, pair, masks, item_init(init, b, h))


def search_items(
    query: Tensor,
    key: Tensor,
    k: int,
    geometry: PatchGeometry,
    constraints: Constraints,
    init: Tensor | None,
    search: Callable[[Item], Lists],
) -> tuple[Tensor, Tensor]:
    """Call `search` for every item, and put its lists into a field: index and similarity, `(B, heads, k, *query)`."""
    index, similarity = new_field(query, k, geometry)
    for item in items_of(query, key, geometry, constraints, init):
        store(search(item), index[item.batch_item, item.head], similarity[item.batch_item, item.head])
    return index, similarity


def no_matches(count: int, k: int, dtype: Any) -> Lists:
    """Lists in which every place is still free."""
    return Lists(np.full(count * k, -1, np.int32), np.full(count * k, -np.inf, dtype), np.zeros(count * k, np.int32))
