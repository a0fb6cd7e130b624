"""Fields as masks over blocks of tokens, which block-sparse attention kernels take, and the order of tokens in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from patchattn.checks import per_dimension
from patchattn.field import MatchField

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

__all__ = ["block_mask", "flex_block_mask", "hilbert_order"]


def block_mask(
    field: MatchField,
    block_size: int | tuple[int, int] = (128, 64),
    *,
    query_order: Int64[Tensor, " n"] | None = None,
    key_order: Int64[Tensor, " m"] | None = None,
) -> Bool[Tensor, "batch heads query_blocks key_blocks"]:
    """Return which blocks of queries and keys hold a match, for kernels that skip blocks.

    Tokens are the positions, row by row, or in an order of yours; the blocks are so many tokens in a row. A block is
    True if any of its queries has a match among its keys, so that a kernel that computes whole blocks attends to all
    matches of the field, and to what lies around them. Row by row, a block of 128 tokens is a strip of the image; in
    Hilbert order it is nearly a square, and fewer blocks hold the same matches (docs/results/block_selectors.md).

    This is one byte for each pair of blocks: quadratic in the tokens, but with 1 / 8,192 of the pairs at 128 x 64.

    Args:
        field: from `match`, or made of an index.
        block_size: tokens of a block: of queries and of keys, or one number for both.
        query_order: int64 `(n,)`, a permutation: the position of each query token, as `hilbert_order` gives it. The
            kernel's queries are then `query.flatten(2)[..., query_order]`. None: row by row.
        key_order: the same for keys (and values).

    Returns:
        bool `(batch, heads, ceil(n / block), ceil(m / block))`.

    Raises:
        ValueError: an argument is out of range; the message names it, what came and what is allowed.

    Example:
        >>> import torch
        >>> from patchattn import block_mask, hilbert_order, match
        >>> features = torch.rand(1, 16, 32, 32)
        >>> field = match(features, features, k=4, num_heads=2)
        >>> order = hilbert_order((32, 32))
        >>> block_mask(field, (128, 64), query_order=order, key_order=order).shape
        torch.Size([1, 2, 8, 16])
    """
    rows, columns = per_dimension("block_size", block_size, 2, 1)
    keys = _in_order(field, query_order, key_order)
    batch, heads, n, k = keys.shape
    m = field.key_count
    across, down = -(-m // columns), -(-n // rows)
    own = torch.arange(n, device=keys.device).div(rows, rounding_mode="floor").view(n, 1)
    # What is no match is written to one place more, which is cut off.
    places = torch.where(keys >= 0, own * across + keys.div(columns, rounding_mode="floor"), down * across)
    mask = torch.zeros((batch, heads, down * across + 1), dtype=torch.bool, device=keys.device)
    mask.scatter_(2, places.reshape(batch, heads, n * k), True)
    return mask[:, :, :-1].unflatten(2, (down, across))  # type: ignore[no-any-return, no-untyped-call]


def flex_block_mask(
    field: MatchField,
    block_size: int | tuple[int, int] = 128,
    *,
    query_order: Int64[Tensor, " n"] | None = None,
    key_order: Int64[Tensor, " m"] | None = None,
    matches_only: bool = False,
) -> BlockMask:
    """Return a field as the `BlockMask` of PyTorch's FlexAttention.

    Args:
        field: from `match`, or made of an index.
        block_size: tokens of a block: of queries and of keys, or one number for both; FlexAttention's own is 128. Which
            others its kernels take depends on the device, see there.
        query_order, key_order: see `block_mask`.
        matches_only: False: every query of a block attends to all keys of its blocks (those that hold a match of any of
            its queries). True: blocks are skipped likewise, and in those left a query attends to its own matches alone;
            each pair is compared with k indices then. A match that stands twice counts once.

    Returns:
        A `torch.nn.attention.flex_attention.BlockMask` for the field's batch and heads.

    Raises:
        ValueError: an argument is out of range; the message names it, what came and what is allowed.

    Example:
        >>> import torch
        >>> from torch.nn.attention.flex_attention import flex_attention
        >>> from patchattn import flex_block_mask, hilbert_order, match
        >>> features = torch.rand(1, 16, 24, 24)
        >>> order = hilbert_order((24, 24))
        >>> mask = flex_block_mask(match(features, features, k=4), query_order=order, key_order=order)
        >>> tokens = features.flatten(2)[..., order].mT.unsqueeze(1)  # (batch, heads, n, channels)
        >>> output = flex_attention(tokens, tokens, tokens, block_mask=mask)
        >>> image = torch.empty_like(features)
        >>> image.flatten(2)[..., order] = output.squeeze(1).mT
    """
    from torch.nn.attention.flex_attention import BlockMask  # it imports the compiler

    rows, columns = per_dimension("block_size", block_size, 2, 1)
    keys = _in_order(field, query_order, key_order).int()
    blocks = block_mask(field, (rows, columns), query_order=query_order, key_order=key_order)
    n, k, m = keys.shape[2], keys.shape[3], field.key_count

    matches = keys.unbind(3)  # PyTorch 2.6 takes no numbers beside tensors as indices here

    def among_matches(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        found = matches[0][batch, head, query] == key
        for other in matches[1:]:
            found = found | (other[batch, head, query] == key)
        return found

    def among_blocks(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return blocks[batch, head, query // rows, key // columns]

    # Blocks in which every pair counts are not asked for single pairs; the last ones may reach beyond the tokens.
    whole = torch.zeros(blocks.shape[2:], dtype=torch.bool, device=blocks.device)
    if not matches_only:
        whole[: n // rows, : m // columns] = True
    full = blocks & whole
    return BlockMask.from_kv_blocks(
        *_as_lists(blocks & ~whole),
        *_as_lists(full),
        BLOCK_SIZE=(rows, columns),
        mask_mod=among_matches if matches_only and k else among_blocks,
        seq_lengths=(n, m),
    )


def hilbert_order(size: Sequence[int], device: torch.device | str | None = None) -> Int64[Tensor, " n"]:
    """Return the positions of an image along a Hilbert curve, on which what is near in order is near in space.

    Of an image whose sides are not one power of two, the curve through the next larger cube is taken, without what lies
    outside.

    Args:
        size: spatial size, any number of dimensions.
        device: of the result.

    Returns:
        int64 `(n,)`: the flat row-major position of each token; `order.argsort()` is the token of each position.

    Raises:
        ValueError: a size is no integer of at least 1.

    Source:
        J. Skilling, Programming the Hilbert curve, AIP Conference Proceedings 707 (2004).

    Example:
        >>> from patchattn import hilbert_order
        >>> hilbert_order((2, 2))
        tensor([0, 1, 3, 2])
    """
    size = per_dimension("size", tuple(size), len(size), 1)
    bits = max(1, max(n - 1 for n in size).bit_length())
    axes = list(torch.meshgrid(*(torch.arange(n, device=device) for n in size), indexing="ij"))
    first, last = 0, len(size) - 1
    for bit in range(bits - 1, 0, -1):  # undo the rotations and reflections, coarse to fine
        low = (1 << bit) - 1
        for axis in range(len(size)):
            is_set = (axes[axis] >> bit & 1).bool()
            swapped = (axes[first] ^ axes[axis]) & low
            axes[first] = torch.where(is_set, axes[first] ^ low, axes[first] ^ swapped)
            if axis != first:
                axes[axis] = torch.where(is_set, axes[axis], axes[axis] ^ swapped)
    for axis in range(1, len(size)):  # Gray code
        axes[axis] = axes[axis] ^ axes[axis - 1]
    flips = torch.zeros_like(axes[last])
    for bit in range(bits - 1, 0, -1):
        flips = torch.where((axes[last] >> bit & 1).bool(), flips ^ ((1 << bit) - 1), flips)
    place = torch.zeros_like(flips)
    for bit in range(bits - 1, -1, -1):
        for along in axes:
            place = place << 1 | ((along ^ flips) >> bit & 1)
    return place.flatten().argsort()


def _in_order(field: MatchField, query_order: Tensor | None, key_order: Tensor | None) -> Tensor:
    """The key tokens of every query token, int64 `(batch, heads, n, k)`; -1 for none."""
    if not isinstance(field, MatchField):
        raise ValueError(f"field: expected a MatchField, got {type(field).__name__}.")
    index = field.token_index().long()
    if query_order is not None:
        _check_order("query_order", query_order, index.shape[2], index.device)
        index = index[:, :, query_order]
    if key_order is not None:
        _check_order("key_order", key_order, field.key_count, index.device)
        index = torch.where(index >= 0, key_order.argsort()[index.clamp(min=0)], -1)
    return index


def _check_order(name: str, order: Tensor, count: int, device: torch.device) -> None:
    if not isinstance(order, Tensor) or order.dtype != torch.int64 or tuple(order.shape) != (count,):
        came = f"{order.dtype} {tuple(order.shape)}" if isinstance(order, Tensor) else type(order).__name__
        raise ValueError(f"{name}: expected an int64 tensor ({count},), one position for each token, got {came}.")
    if order.device != device:
        raise ValueError(f"{name}: expected device {device} as field has, got {order.device}.")


def _as_lists(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Number of blocks that are True in each row, and the numbers of all, these first."""
    return mask.sum(3, dtype=torch.int32), mask.to(torch.uint8).sort(dim=3, descending=True, stable=True).indices.int()
