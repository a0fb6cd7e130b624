"""The factorized attention of the Sparse Transformer: the query's row, and a column or the ends of all rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from patchattn.attention.images import Images, Tile, as_products, check_images, cut, split_heads
from patchattn.attention.layer import AttentionLayer
from patchattn.attention.tiles import assemble, join, partial, recomputed, tiles_of
from patchattn.attention.whole import as_operator
from patchattn.checks import check_choice, check_count, check_positive
from patchattn.matching.constraints import Causality

__all__ = ["SparseAttention", "sparse_attention"]

PATTERNS = ("strided", "fixed")
MOST_SCORES = 2**22
"""Computed at a time."""


def sparse_attention(
    query: Float[Tensor, "batch channels *spatial"],
    key: Float[Tensor, "key_batch channels *spatial"],
    value: Float[Tensor, "value_batch value_channels *spatial"],
    *,
    pattern: str = "strided",
    summary: int | None = None,
    patch_size: int | Sequence[int] = 7,
    similarity: str = "l2",
    temperature: float = 1.0,
    num_heads: int = 1,
    query_mask: Bool[Tensor, "mask_batch *spatial"] | None = None,
    key_mask: Bool[Tensor, "mask_batch2 *spatial"] | None = None,
    is_causal: Causality = False,
    padding_mode: str = "reflect",
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
        >>> from patchattn import sparse_attention
        >>> features = torch.rand(1, 4, 24, 24)
        >>> sparse_attention(features, features, features, pattern="fixed", patch_size=3).shape
        torch.Size([1, 4, 24, 24])
    """
    check_choice("pattern", pattern, PATTERNS)
    images = check_images(
        query, key, value, patch_size=patch_size, num_heads=num_heads, query_mask=query_mask, key_mask=key_mask,
        padding_mode=padding_mode, is_causal=is_causal, similarity=similarity,
    )  # fmt: skip
    size = images.query_size
    if len(size) == 1:
        raise ValueError(f"query: expected two or three spatial dimensions, rows and columns, got {size}.")
    if images.key_size != size:
        raise ValueError(f"key: expected the query's spatial size {size}, got {images.key_size}.")
    if summary is not None:
        summary = check_count("summary", summary, 1)
        if summary > size[-1]:
            raise ValueError(f"summary: got {summary}, and rows have {size[-1]} positions.")
    return _attend(images, similarity, check_positive("temperature", temperature), pattern, summary)


@as_operator("sparse_attention")
def _attend(images: Images, similarity: str, temperature: float, pattern: str, summary: int | None) -> Tensor:
    size = images.query_size
    length = size[-1]
    if summary is None:
        summary = min(8, max(1, length // 16))
    pair = _Pair(images, similarity, temperature, images.center().unsqueeze(3), summary)
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
    return max(1, min(most, MOST_SCORES // scores))


@dataclass(frozen=True)
class _Pair:
    """How vectors of one tile are compared with those of another."""

    images: Images
    similarity: str
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
        q, k, v, scale = as_products(q, k, v, self.similarity, self.center)
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
        allowed = other + int(pair.images.strict) <= own
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


class SparseAttention(AttentionLayer):
    """`sparse_attention` as a layer without parameters: `layer(query, key, value)`.

    Example:
        >>> import torch
        >>> from patchattn import SparseAttention
        >>> features = torch.rand(1, 4, 24, 24)
        >>> SparseAttention(pattern="strided", patch_size=3)(features, features, features).shape
        torch.Size([1, 4, 24, 24])
    """

    function = staticmethod(sparse_attention)
    shown = ("pattern", "patch_size", "similarity", "temperature", "num_heads")

    def __init__(
        self,
        *,
        pattern: str = "strided",
        summary: int | None = None,
        patch_size: int | Sequence[int] = 7,
        similarity: str = "l2",
        temperature: float = 1.0,
        num_heads: int = 1,
        is_causal: Causality = False,
        padding_mode: str = "reflect",
    ) -> None:
        super().__init__(
            pattern=pattern, summary=summary, patch_size=patch_size, similarity=similarity, temperature=temperature,
            num_heads=num_heads, is_causal=is_causal, padding_mode=padding_mode,
        )  # fmt: skip
