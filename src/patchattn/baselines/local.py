"""Attention to the patches in a window about each query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from typing_extensions import Unpack

from patchattn.attention.images import Images, Tile, as_products
from patchattn.attention.layer import AttentionLayer
from patchattn.attention.tiles import assemble, partial, recomputed, tiles_of
from patchattn.attention.whole import as_operator
from patchattn.baselines.settings import SoftmaxOptions, SoftmaxSettings, images_of
from patchattn.checks import check_positive, per_dimension
from patchattn.settings import settings_from, shows

__all__ = ["LocalAttention", "local_attention"]

MIN_SIDE = 8
"""Smallest side of a tile of queries: below it, matrices are too small to be multiplied well."""


@dataclass(kw_only=True, eq=False, repr=False)
class LocalSettings(SoftmaxSettings):
    """Defaults of `local_attention`."""

    window: int | Sequence[int] = 50


class LocalOptions(SoftmaxOptions, total=False):
    """The types of `LocalSettings`."""

    window: int | Sequence[int]


@shows(LocalSettings)
def local_attention(
    query: Float[Tensor, "batch channels *query"],
    key: Float[Tensor, "key_batch channels *key"],
    value: Float[Tensor, "value_batch value_channels *key"],
    *,
    query_mask: Bool[Tensor, "mask_batch *query"] | None = None,
    key_mask: Bool[Tensor, "mask_batch2 *key"] | None = None,
    **options: Unpack[LocalOptions],
) -> Tensor:
    r"""Attend from every query patch to all key patches in a window about it (Parmar et al. 2018).

    $$O_i = \sum_{j \in W(i)} \operatorname{softmax}_j(S_{ij} / \tau)\, V_j, \qquad
    W(i) = \{j : -\lfloor w / 2 \rfloor \le j - i \le \lceil w / 2 \rceil - 1 \text{ in every dimension}\}$$

    The layer that section 4 of PSAL compares with (its w = 50 is our `window`). Queries are taken tile by tile, each
    with the keys that any of them sees, and the weights are computed again for the gradient: memory is linear in the
    pixels, with no copy of the w^D patches that a query looks at. Time is n w^D p^D C.

    Args:
        window: keys that a query sees in each dimension; an even window reaches one further back than forward. Where
            query and key differ in size, the query's position is scaled to the key's.
        query, key, value, patch_size, temperature, num_heads, query_mask, key_mask, is_causal, padding_mode: see
            `patch_attention`; value has the key's size.
        similarity: `"l2"`, `"dot"`, `"scaled_dot"` or `"cosine"`.

    Returns:
        `(B, Cv, *query)` in the dtype of value; 0 where a query has no key.

    Raises:
        ValueError: an argument is out of range; the message names it, what came and what is allowed.

    Example:
        >>> import torch
        >>> from patchattn.baselines import local_attention
        >>> features = torch.rand(1, 4, 24, 24)
        >>> local_attention(features, features, features, window=9, patch_size=3).shape
        torch.Size([1, 4, 24, 24])
    """
    settings = settings_from(LocalSettings, options, "local_attention")
    images = images_of(query, key, value, settings, query_mask, key_mask)
    sides = per_dimension("window", settings.window, len(images.key_size), 1)
    return _attend(images, check_positive("temperature", settings.temperature), sides)


@as_operator("local_attention")
def _attend(images: Images, temperature: float, sides: tuple[int, ...]) -> Tensor:
    q, k = images.bordered(images.query), images.bordered(images.key)
    v, center = images.value.to(images.compute), images.center()
    # A tile of half a window has about twice as many keys in sight as each of its queries has.
    side = tuple(max(MIN_SIDE, w // 2) for w in sides)
    tiles = [
        recomputed(_attend_tile, images, q, k, v, center, tile, sides, temperature)
        for tile in tiles_of(images.query_size, side)
    ]
    return images.finished(assemble(tiles, images.query_size, side))


def _attend_tile(
    images: Images, q: Tensor, k: Tensor, v: Tensor, center: Tensor, tile: Tile, window: tuple[int, ...],
    temperature: float,
) -> Tensor:  # fmt: skip
    """The output of one tile of queries: `(B, Cv, *tile)`."""
    homes = [
        torch.div((2 * torch.arange(at.start, at.stop, device=q.device) + 1) * keys, 2 * queries, rounding_mode="floor")
        for at, keys, queries in zip(tile, images.key_size, images.query_size, strict=True)
    ]
    seen = tuple(
        slice(
            max(0, ((2 * at.start + 1) * keys) // (2 * queries) - w // 2),
            min(keys, ((2 * at.stop - 1) * keys) // (2 * queries) + (w + 1) // 2),
        )
        for at, keys, queries, w in zip(tile, images.key_size, images.query_size, window, strict=True)
    )
    q_vectors, k_vectors = images.asking(q, tile).flatten(2, -2), images.vectors(k, seen).flatten(2, -2)
    values = images.values(v, seen).flatten(2, -2)
    allowed = _in_window(homes, seen, window)
    if images.is_causal:
        allowed = allowed & images.before(tile, seen)
    k_vectors, values, held = images.silenced(k_vectors, values, allowed[None, None], seen)
    q_vectors, k_vectors, values, scale = as_products(q_vectors, k_vectors, values, images.similarity, center)
    out = partial(q_vectors, k_vectors, values, scale / temperature, held)[..., :-1]
    batch = images.query.shape[0]
    return out.transpose(2, 3).reshape(batch, -1, *(at.stop - at.start for at in tile))


def _in_window(homes: list[Tensor], seen: Tile, window: Sequence[int]) -> Tensor:
    """Bool `(queries, keys)`: which keys lie in the window about each query's home."""
    allowed = torch.ones((1, 1), dtype=torch.bool, device=homes[0].device)
    for home, keys, w in zip(homes, seen, window, strict=True):
        offset = torch.arange(keys.start, keys.stop, device=home.device) - home[:, None]
        inside = (offset >= -(w // 2)) & (offset < (w + 1) // 2)
        allowed = (allowed[:, None, :, None] & inside[None, :, None, :]).flatten(2).flatten(0, 1)
    return allowed


@dataclass(kw_only=True, eq=False, repr=False)
class LocalAttention(LocalSettings, AttentionLayer):
    """`local_attention` as a layer without parameters: `layer(query, key, value)`.

    Example:
        >>> import torch
        >>> from patchattn.baselines import LocalAttention
        >>> features = torch.rand(1, 4, 24, 24)
        >>> LocalAttention(window=9, patch_size=3)(features, features, features).shape
        torch.Size([1, 4, 24, 24])
    """

    function = staticmethod(local_attention)
    shown = ("window", "patch_size", "similarity", "temperature", "num_heads")
