"""Read a table at positions, and the transpose of this: sum contributions by position."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["compute_dtype", "split_heads", "sum_by_position", "take"]


def compute_dtype(*tensors: Tensor) -> torch.dtype:
    """Return float64 if any of the tensors is, else float32: half precision is for storage only."""
    return torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32


def split_heads(image: Tensor, num_heads: int) -> Tensor:
    """View `(B, C, *spatial)` as `(B, heads, C / heads, *spatial)`."""
    return torch.unflatten(image, 1, (num_heads, image.shape[1] // num_heads))


def take(table: Tensor, position: Tensor) -> Tensor:
    """Read `table` at `position`; 0 where the position is -1.

    Args:
        table: `(B or 1, heads, C, size)`.
        position: int64 `(B or 1, heads or 1, *any)`, from -1 to size - 1.

    Returns:
        `(B, heads, C, *any)`.
    """
    batch = position.shape[0] if table.shape[0] == 1 else table.shape[0]
    heads, channels = table.shape[1:3]
    safe = position.flatten(2).clamp(min=0).unsqueeze(2).expand(batch, heads, channels, -1)
    found = torch.unflatten(table.expand(batch, -1, -1, -1).gather(3, safe), 3, position.shape[2:])
    return torch.where(position.unsqueeze(2) >= 0, found, 0)


def sum_by_position(contribution: Tensor, position: Tensor, size: int, batch: int) -> Tensor:
    """Sum the contributions to each position: the transpose of `take`.

    Contributions are sorted by position and then added in pairs, a tree of fixed shape, because `index_add_` and
    `scatter_add_` sum in an order that changes from run to run on some devices.

    Args:
        contribution: `(B, heads, C, *any)`; what belongs to position -1 is dropped, whatever it is.
        position: int64 `(B or 1, heads or 1, *any)`, from -1 to size - 1.
        size: number of positions.
        batch: B, or 1 to sum over the batch too (the table was shared).

    Returns:
        `(batch, heads, C, size)`.
    """
    images, heads, channels = contribution.shape[:3]
    position = position.expand(images, heads, *position.shape[2:]).flatten(2)
    value = contribution.flatten(3)
    if batch != images:
        position = position.transpose(0, 1).reshape(1, heads, -1)
        value = value.permute(1, 2, 0, 3).reshape(1, heads, channels, -1)
    if value.shape[3] == 0:
        return value.new_zeros((batch, heads, channels, size))
    position, order = torch.sort(position.contiguous(), dim=-1, stable=True)  # what is sorted keeps its strides
    value = value.gather(3, order.unsqueeze(2).expand_as(value))
    step = 1
    while step < position.shape[2]:
        # So far each entry is the sum of `step` entries from it on; `value` is read in full before it is written.
        same = position[..., step:] == position[..., :-step]
        if not bool(same.any()):
            break
        value[..., :-step] += torch.where(same.unsqueeze(2), value[..., step:], 0)
        step *= 2
    wanted = torch.arange(size, device=position.device).expand(*position.shape[:2], size).contiguous()
    start = torch.searchsorted(position, wanted).clamp(max=position.shape[2] - 1)
    present = position.gather(2, start) == wanted
    return take(value, torch.where(present, start, -1))
