"""Attention to the patches in a window about each query."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from patchattn.attention.images import Images, Tile, as_products, check_images
from patchattn.attention.layer import AttentionLayer
from patchattn.attention.tiles import assemble, partial, recomputed, tiles_of
from patchattn.attention.whole import as_operator
from patchattn.checks import check_positive, per_dimension
from patchattn.matching.constraints import Causality

__all__ = ["LocalAttention", "local_attention"]

LEAST_SIDE = 8
"""Of a tile of queries: below it, matrices are too small to be multiplied well."""


def local_attention(
    query: Float[Tensor, "batch channels *query"],
    key: Float[Tensor, "key_batch channels *key"],
    value: Float[Tensor, "value_batch value_channels *key"],
    *,
    window: int | Sequence[int] = 50,
    patch_size: int | Sequence[int] = 7,
    similarity: str = "l2",
    temperature: float = 1.0,
    num_heads: int = 1,
    query_mask: Bool[Tensor, "mask_batch *query"] | None = None,
    key_mask: Bool[Tensor, "mask_batch2 *key"] | None = None,
    is_causal: Causality = False,
    padding_mode: str = "reflect",
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
        >>> from patchattn import local_attention
        >>> features = torch.rand(1, 4, 24, 24)
        >>> local_attention(features, features, features, window=9, patch_size=3).shape
        torch.Size([1, 4, 24, 24])
    """
    images = check_images(
        query, key, value, patch_size=patch_size, num_heads=num_heads, query_mask=query_mask, key_mask=key_mask,
        padding_mode=padding_mode, is_causal=is_causal, similarity=similarity,
    )  # fmt: skip
    sides = per_dimension("window", window, len(images.key_size), 1)
    return _attend(images, similarity, check_positive("temperature", temperature), sides)


@as_operator("local_attention")
def _attend(images: Images, similarity: str, temperature: float, sides: Sequence[int]) -> Tensor:
    q, k = images.bordered(images.query), images.bordered(images.key)
    v, center = images.value.to(images.compute), images.center()
    # A tile of half a window has about twice as many keys in sight as each of its queries has.
    side = tuple(max(LEAST_SIDE, w // 2) for w in sides)
    tiles = [
        recomputed(_attend_tile, images, q, k, v, center, tile, sides, similarity, temperature)
        for tile in tiles_of(images.query_size, side)
    ]
    return images.finished(assemble(tiles, images.query_size, side))


def _attend_tile(
    images: Images, q: Tensor, k: Tensor, v: Tensor, center: Tensor, tile: Tile, window: Sequence[int],
    similarity: str, temperature: float,
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
    q_vectors, k_vectors, values, scale = as_products(q_vectors, k_vectors, values, similarity, center)
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


class LocalAttention(AttentionLayer):
    """`local_attention` as a layer without parameters: `layer(query, key, value)`.

    Example:
        >>> import torch
        >>> from patchattn import LocalAttention
        >>> features = torch.rand(1, 4, 24, 24)
        >>> LocalAttention(window=9, patch_size=3)(features, features, features).shape
        torch.Size([1, 4, 24, 24])
    """

    function = staticmethod(local_attention)
    shown = ("window", "patch_size", "similarity", "temperature", "num_heads")

    def __init__(
        self,
        *,
        window: int | Sequence[int] = 50,
        patch_size: int | Sequence[int] = 7,
        similarity: str = "l2",
        temperature: float = 1.0,
        num_heads: int = 1,
        is_causal: Causality = False,
        padding_mode: str = "reflect",
    ) -> None:
        super().__init__(
            window=window, patch_size=patch_size, similarity=similarity, temperature=temperature, num_heads=num_heads,
            is_causal=is_causal, padding_mode=padding_mode,
        )  # fmt: skip
