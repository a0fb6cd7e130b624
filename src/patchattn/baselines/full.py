"""Full attention over patches: the exact layer that the others approximate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, prod

from jaxtyping import Bool, Float
from torch import Tensor
from typing_extensions import Unpack

from patchattn.attention.images import Images, Tile, as_products
from patchattn.attention.layer import AttentionLayer
from patchattn.attention.tiles import assemble, join, partial, recomputed, tiles_of
from patchattn.attention.whole import as_operator
from patchattn.baselines.settings import SoftmaxOptions, SoftmaxSettings, images_of
from patchattn.checks import check_positive, per_dimension
from patchattn.settings import settings_from, shows

__all__ = ["FullAttention", "full_attention"]

QUERIES, KEYS = 512, 2**14
"""Queries and keys in one block: with more, scores leave the cache; with fewer, patches are unfolded too often."""


@dataclass(kw_only=True, eq=False, repr=False)
class FullSettings(SoftmaxSettings):
    """Defaults of `full_attention`."""

    key_stride: int | Sequence[int] = 1


class FullOptions(SoftmaxOptions, total=False):
    """The types of `FullSettings`."""

    key_stride: int | Sequence[int]


@shows(FullSettings)
def full_attention(
    query: Float[Tensor, "batch channels *query"],
    key: Float[Tensor, "key_batch channels *key"],
    value: Float[Tensor, "value_batch value_channels *key"],
    *,
    query_mask: Bool[Tensor, "mask_batch *query"] | None = None,
    key_mask: Bool[Tensor, "mask_batch2 *key"] | None = None,
    **options: Unpack[FullOptions],
) -> Tensor:
    r"""Attend from every query patch to every key patch.

    $$O = \operatorname{softmax}(S / \tau)\, V, \qquad S_{ij} = s(Q_i, K_j)$$

    Equation (1) of PSAL (its Q, K, V are our unfolded patches of query and key, and the pixels of value). Squared
    distances become products by one more element,
    $-\lVert q - k \rVert^2 = (2q, 1) \cdot (k, -\lVert k \rVert^2) - \lVert q \rVert^2$ (the last term drops out of the
    softmax), and the cosine by normalizing. Queries go tile by tile through groups of keys, whose softmaxes are joined,
    and everything is computed again for the gradient: memory is linear in the pixels (n Cv for every 16,384 keys with
    gradients), while the paper's matrix of all weights takes n^2. Time grows with n^2 p^D C.

    Args:
        query, key, value, patch_size, temperature, num_heads, query_mask, key_mask, is_causal, padding_mode: see
            `patch_attention`; value has the key's size.
        similarity: `"l2"`, `"dot"`, `"scaled_dot"` or `"cosine"`.
        key_stride: look at every so-many-th key only, from 0, in each dimension (section 4.2 of PSAL).

    Returns:
        `(B, Cv, *query)` in the dtype of value; 0 where a query has no key.

    Raises:
        ValueError: an argument is out of range; the message names it, what came and what is allowed.

    Example:
        >>> import torch
        >>> from patchattn.baselines import full_attention
        >>> features = torch.rand(1, 4, 12, 12)
        >>> full_attention(features, features, features, patch_size=3).shape
        torch.Size([1, 4, 12, 12])
    """
    settings = settings_from(FullSettings, options, "full_attention")
    images = images_of(query, key, value, settings, query_mask, key_mask)
    stride = per_dimension("key_stride", settings.key_stride, len(images.key_size), 1)
    return _attend(images, check_positive("temperature", settings.temperature), stride)


@as_operator("full_attention")
def _attend(images: Images, temperature: float, stride: tuple[int, ...]) -> Tensor:
    q, k = images.bordered(images.query), images.bordered(images.key)
    v, center = images.value.to(images.compute), images.center()
    side = _side(images.query_size, QUERIES)
    groups = _groups(images.key_size, stride)

    def attend(tile: Tile) -> Tensor:
        parts = [recomputed(_attend_part, images, q, k, v, center, tile, group, temperature) for group in groups]
        return join(parts).transpose(2, 3).reshape(len(parts[0]), -1, *(at.stop - at.start for at in tile))

    tiles = [attend(tile) for tile in tiles_of(images.query_size, side)]
    return images.finished(assemble(tiles, images.query_size, side))


def _side(size: tuple[int, ...], most: int) -> tuple[int, ...]:
    """The sides of tiles of about `most` positions, as long as they can be in the last dimension."""
    side: list[int] = []
    for n in reversed(size):
        side.insert(0, min(n, max(1, most // prod(side))))
    return tuple(side)


def _groups(size: tuple[int, ...], stride: Sequence[int]) -> list[Tile]:
    """All keys that are looked at, in groups: parts of the image with steps."""
    taken = tuple(ceil(n / step) for n, step in zip(size, stride, strict=True))
    return [
        tuple(slice(at.start * step, (at.stop - 1) * step + 1, step) for at, step in zip(tile, stride, strict=True))
        for tile in tiles_of(taken, _side(taken, KEYS))
    ]


def _attend_part(
    images: Images, q: Tensor, k: Tensor, v: Tensor, center: Tensor, tile: Tile, group: Tile,
    temperature: float,
) -> Tensor:  # fmt: skip
    """A tile of queries with a group of keys: `(B, heads, queries, Cv / heads + 1)`, see `partial`."""
    q_vectors, k_vectors = images.asking(q, tile).flatten(2, -2), images.vectors(k, group).flatten(2, -2)
    allowed = images.before(tile, group)[None, None] if images.is_causal else None
    k_vectors, values, allowed = images.silenced(k_vectors, images.values(v, group).flatten(2, -2), allowed, group)
    q_vectors, k_vectors, values, scale = as_products(q_vectors, k_vectors, values, images.similarity, center)
    return partial(q_vectors, k_vectors, values, scale / temperature, allowed)


@dataclass(kw_only=True, eq=False, repr=False)
class FullAttention(FullSettings, AttentionLayer):
    """`full_attention` as a layer without parameters: `layer(query, key, value)`.

    Example:
        >>> import torch
        >>> from patchattn.baselines import FullAttention
        >>> features = torch.rand(1, 4, 12, 12)
        >>> FullAttention(patch_size=3, key_stride=2)(features, features, features).shape
        torch.Size([1, 4, 12, 12])
    """

    function = staticmethod(full_attention)
    shown = ("patch_size", "similarity", "temperature", "num_heads", "key_stride")
