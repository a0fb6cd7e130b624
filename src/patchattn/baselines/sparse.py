"""The factorized attention of the Sparse Transformer: the query's row, and a column or the ends of all rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from typing_extensions import Unpack

from patchattn.attention.images import Images, Tile, as_products, cut, split_heads
from patchattn.attention.layer import AttentionLayer
from patchattn.attention.tiles import assemble, join, partial, recomputed, tiles_of
from patchattn.attention.whole import as_operator
from patchattn.baselines.settings import SoftmaxOptions, SoftmaxSettings, images_of
from patchattn.checks import check_choice, check_count, check_positive
from patchattn.settings import settings_from, shows

__all__ = ["SparseAttention", "sparse_attention"]

PATTERNS = ("strided", "fixed")
MAX_SCORES = 2**22
"""Computed at a time."""


@dataclass(kw_only=True, eq=False, repr=False)
class SparseSettings(SoftmaxSettings):
    """Defaults of `sparse_attention`."""

    pattern: Literal["strided", "fixed"] = "strided"
    summary: int | None = None


class SparseOptions(SoftmaxOptions, total=False):
    """The types of `SparseSettings`."""

    pattern: Literal["strided", "fixed"]
    summary: int | None


@shows(SparseSettings)
def sparse_attention(
    query: Float[Tensor, "batch channels *spatial"],
    key: Float[Tensor, "key_batch channels *spatial"],
    value: Float[Tensor, "value_batch value_channels *spatial"],
    *,
    query_mask: Bool[Tensor, "mask_batch *spatial"] | None = None,
    key_mask: Bool[Tensor, "mask_batch2 *spatial"] | None = None,
    **options: Unpack[SparseOptions],
) -> Tensor:
    r"""Attend from every query patch to about 2 sqrt(n) key patches in a fixed pattern (Child et al. 2019).

    $$O_i = \sum_{j \in A(i) \cup B(i)} \operatorname{softmax}_j(S_{ij} / \tau)\, V_j$$

    A(i) is the query's row (the last dimension), with the paper's stride l the length of a row. B(i) is its column
    (`"strided"`), or the last c positions of every row (`"fixed"`; our `summary`). Both are one softmax, the paper's
    merged head. Rows and columns are taken some at a time and computed again for the gradient: memory is linear in the
    pixels, time is n^1.5 p^D C.

    Args:
        pattern: `"strided"` or `"fixed"`.
        summary: c; None: a sixteenth of a row, from 1 to 8 (the paper has 8 to 32 for rows of 128 and 256).
        query, key, value, patch_size, temperature, num_heads, query_mask, key_mask, is_causal, padding_mode: see
            `patch_attention`; two or three spatial dimensions, all of one size.
        similarity: `"l2"`, `"dot"`, `"scaled_dot"` or `"cosine"`.

    Returns:
        `(B, Cv, *spatial)` in the dtype of value; 0 where a query has no key.

    Raises:
        ValueError: an argument is out of range; the message names it, what came and what is allowed.

    Example:
        >>> import torch
        >>> from patchattn.baselines import sparse_attention
        >>> features = torch.rand(1, 4, 24, 24)
        >>> sparse_attention(features, features, features, pattern="fixed", patch_size=3).shape
        torch.Size([1, 4, 24, 24])
    """
    settings = settings_from(SparseSettings, options, "sparse_attention")
    check_choice("pattern", settings.pattern, PATTERNS)
    images = images_of(query, key, value, settings, query_mask, key_mask)
    size = images.query_size
    if len(size) == 1:
        raise ValueError(f"query: expected two or three spatial dimensions, rows and columns, got {size}.")
    if images.key_size != size:
        raise ValueError(f"key: expected the query's spatial size {size}, got {images.key_size}.")
    summary = settings.summary
    if summary is not None:
        summary = check_count("summary", summary, 1)
        if summary > size[-1]:
            raise ValueError(f"summary: got {summary}, and rows have {size[-1]} positions.")
    return _attend(images, check_positive("temperature", settings.temperature), settings.pattern, summary)


@as_operator("sparse_attention")
def _attend(images: Images, temperature: float, pattern: str, summary: int | None) -> Tensor:
    size = images.query_size
    length = size[-1]
    if summary is None:
        summary = min(8, max(1, length // 16))
    pair = _Pair(images, temperature, images.center().unsqueeze(3), summary)
    rows = prod(size[:-1])
    in_rows = (1,) * (len(size) - 2) + (_at_once(length * length, size[-2]), length)
    groups: list[tuple[tuple[int, ...], Callable[..., Tensor]]] = [(in_rows, _attend_rows)]
    if pattern == "strided":
        groups.append(((*size[:-1], _at_once(rows * rows, length)), _attend_columns))
    else:
        in_rows = (1,) * (len(size) - 2) + (_at_once(length * rows * summary, size[-2]), length)
        groups.append((in_rows, _attend_ends))
    tensors = images.bordered(images.query), images.bordered(images.key), images.value.to(images.compute)
    parts = []
    for side, attend in groups:
        tiles = [recomputed(attend, pair, *tensors, tile) for tile in tiles_of(size, side)]
        parts.append(split_heads(assemble(tiles, size, side), images.num_heads).movedim(2, -1))
    return images.finished(join(parts).movedim(-1, 2))


def _at_once(scores: int, most: int) -> int:
    return max(1, min(most, MAX_SCORES // scores))


@dataclass(frozen=True)
class _Pair:
    """Comparison of the vectors of one tile with those of another."""

    images: Images
    temperature: float
    center: Tensor
    summary: int

    def cut(self, q: Tensor, k: Tensor, v: Tensor, tile: Tile) -> tuple[Tensor, Tensor, Tensor]:
        """One tile of all three: `(B, heads, *tile, elements)`."""
        return self.images.asking(q, tile), self.images.vectors(k, tile), self.images.values(v, tile)

    def held(self, tile: Tile) -> Tensor | None:
        """Which keys of a tile there are: bool `(B or 1, 1, *tile)`, None for all."""
        mask = self.images.key_mask
        return None if mask is None else cut(mask, *tile).unsqueeze(1)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, allowed: Tensor, held: Tensor | None) -> Tensor:
        """`partial` for vectors `(B, heads, blocks, positions, ...)`; held is `(B or 1, 1, blocks, keys)`."""
        if held is not None:
            # A weight of 0 does not silence NaN.
            k, v = (x.masked_fill(~held[..., None], 0) for x in (k, v))
            allowed = allowed & held[..., None, :]
        q, k, v, scale = as_products(q, k, v, self.images.similarity, self.center)
        return partial(q, k, v, scale / self.temperature, allowed)


def _order(count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Two running numbers to compare, `(count, 1)` and `(1, count)`."""
    number = torch.arange(count, device=device)
    return number[:, None], number[None]


def _attend_rows(pair: _Pair, q: Tensor, k: Tensor, v: Tensor, tile: Tile) -> Tensor:
    """Each query of a tile of whole rows with its own row: `(B, heads (Cv / heads + 1), *tile)`."""
    shape = [at.stop - at.start for at in tile]
    q, k, v = (x.flatten(2, -3) for x in pair.cut(q, k, v, tile))
    held = pair.held(tile)
    own, other = _order(shape[-1], q.device)
    allowed = torch.ones_like(own == other)
    if pair.images.is_causal:
        allowed = other + pair.images.constraints.lag <= own
    found = pair.attend(q, k, v, allowed, None if held is None else held.flatten(2, -2))
    return found.movedim(-1, 2).reshape(len(found), -1, *shape)


def _attend_columns(pair: _Pair, q: Tensor, k: Tensor, v: Tensor, tile: Tile) -> Tensor:
    """Each query of a tile of whole columns with its column, but for itself, which is in its row."""
    shape = [at.stop - at.start for at in tile]
    q, k, v = (x.flatten(2, -3).transpose(2, 3) for x in pair.cut(q, k, v, tile))
    held = pair.held(tile)
    own, other = _order(prod(shape[:-1]), q.device)
    allowed = other < own if pair.images.is_causal else other != own
    found = pair.attend(q, k, v, allowed, None if held is None else held.flatten(2, -2).transpose(2, 3))
    return found.permute(0, 1, 4, 3, 2).reshape(len(found), -1, *shape)


def _attend_ends(pair: _Pair, q: Tensor, k: Tensor, v: Tensor, tile: Tile) -> Tensor:
    """Each query of a tile of whole rows with the last positions of all rows but its own."""
    shape, size, summary = [at.stop - at.start for at in tile], pair.images.key_size, pair.summary
    ends = (*(slice(0, n) for n in size[:-1]), slice(size[-1] - summary, size[-1]))
    q = pair.images.asking(q, tile).flatten(2, -2).unsqueeze(2)
    k, v = (x.flatten(2, -2).unsqueeze(2) for x in (pair.images.vectors(k, ends), pair.images.values(v, ends)))
    held = pair.held(ends)
    row = torch.arange(prod(size[:-1]), device=q.device).view(size[:-1])
    own = row[tile[:-1]].flatten().repeat_interleave(shape[-1])[:, None]
    other = row.flatten().repeat_interleave(summary)[None]
    allowed = other < own if pair.images.is_causal else other != own
    found = pair.attend(q, k, v, allowed, None if held is None else held.flatten(2).unsqueeze(2))
    return found.squeeze(2).transpose(2, 3).reshape(len(found), -1, *shape)


@dataclass(kw_only=True, eq=False, repr=False)
class SparseAttention(SparseSettings, AttentionLayer):
    """`sparse_attention` as a layer without parameters: `layer(query, key, value)`.

    Example:
        >>> import torch
        >>> from patchattn.baselines import SparseAttention
        >>> features = torch.rand(1, 4, 24, 24)
        >>> SparseAttention(pattern="strided", patch_size=3)(features, features, features).shape
        torch.Size([1, 4, 24, 24])
    """

    function = staticmethod(sparse_attention)
    shown = ("pattern", "patch_size", "similarity", "temperature", "num_heads")
