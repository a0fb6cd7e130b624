"""Values at r times the key's size: each key position stands for a block of r pixels in each dimension."""

from __future__ import annotations

from math import prod

from torch import Tensor

__all__ = ["fold_blocks", "size_ratio", "unfold_blocks", "value_ratio"]


def value_ratio(key: Tensor, value: Tensor) -> int:
    """Return r, where value is r times the key's size in every dimension."""
    return size_ratio(tuple(key.shape[2:]), value)


def size_ratio(key_size: tuple[int, ...], value: Tensor) -> int:
    """The same for a key of which the size alone is known."""
    value_size = tuple(value.shape[2:])
    ratio = 1 if 0 in key_size else max(1, value_size[0] // key_size[0])
    if value_size != tuple(ratio * n for n in key_size):
        raise ValueError(
            f"value: expected the key's spatial size {key_size} or a whole multiple of it (the same in every "
            f"dimension), got {value_size}."
        )
    return ratio


def unfold_blocks(value: Tensor, ratio: int) -> Tensor:
    """Rearrange `(B, C, *(r n))` to `(B, C r^D, *n)`: the pixels of a block become channels of its position."""
    if ratio == 1:
        return value
    batch, channels, *size = value.shape
    dims = len(size)
    split = value.reshape(batch, channels, *(part for n in size for part in (n // ratio, ratio)))
    order = [0, 1, *range(3, 3 + 2 * dims, 2), *range(2, 2 + 2 * dims, 2)]
    return split.permute(order).reshape(batch, channels * ratio**dims, *(n // ratio for n in size))


def fold_blocks(output: Tensor, ratio: int) -> Tensor:
    """Undo `unfold_blocks`."""
    if ratio == 1:
        return output
    batch, channels, *size = output.shape
    dims = len(size)
    split = output.reshape(batch, channels // prod([ratio] * dims), *([ratio] * dims), *size)
    order = [0, 1, *(part for d in range(dims) for part in (2 + dims + d, 2 + d))]
    return split.permute(order).reshape(batch, -1, *(n * ratio for n in size))
