"""Match fields between their public shape (B, heads, k, *query) and the kernels' lists."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from patchattn.kernels.cpu.padded_image import compute_dtype
from patchattn.kernels.cpu.topk import TopK
from patchattn.problem import PatchGeometry

__all__ = ["item_init", "lists_of", "new_field", "store", "store_lists"]

SMALL = 1 << 14
"""Elements of a field up to which NumPy copies it, whose calls take less time."""
TILED_FROM = 3600
"""Elements of a matrix that PyTorch transposes in tiles."""


def new_field(query: Tensor, k: int, geometry: PatchGeometry) -> tuple[Tensor, Tensor]:
    shape = (query.shape[0], geometry.num_heads, k, *query.shape[2:])
    return torch.empty(shape, dtype=torch.int32), torch.empty(shape, dtype=compute_dtype(query.dtype))


def store(lists: TopK, item: int, index: Tensor, similarity: Tensor) -> None:
    """Write one item's matches to the field."""
    store_lists(lists.indices[None], range(item, item + 1), index)
    store_lists(lists.similarity[None], range(item, item + 1), similarity)


def store_lists(lists: NDArray[Any], items: range, tensor: Tensor) -> None:
    """Write the flat lists of some items, query by query, to `(B, heads, k, *query)`."""
    k, count = tensor.shape[2], prod(tensor.shape[3:])
    if tensor.numel() <= SMALL:
        # Copied as PyTorch does it, with fewer calls.
        field = tensor.view(-1, k, count).numpy()
        field[items.start : items.stop] = lists[: len(items)].reshape(-1, count, k).transpose(0, 2, 1)
        return
    target = tensor.view(-1, k, count)[items.start : items.stop]
    _transpose(torch.from_numpy(lists[: len(items)]).view(-1, count, k), target)


def item_init(init: Tensor | None, b: int, h: int) -> NDArray[np.int32]:
    """The initial matches of one item, `(k0, queries)`; none: `(0, 0)`."""
    if init is None:
        return np.empty((0, 0), np.int32)
    return init[b, h].reshape(init.shape[2], -1).to(torch.int32).contiguous().numpy()


def lists_of(tensor: Tensor, items: range, dtype: torch.dtype | None = None) -> NDArray[Any]:
    """Some items of a `(B, heads, k, *query)` tensor as flat lists, query by query: a row for each item."""
    k, count = tensor.shape[2], prod(tensor.shape[3:])
    dtype = dtype or tensor.dtype
    if tensor.numel() <= SMALL and tensor.dtype == dtype:
        some = tensor.detach().reshape(-1, k, count).numpy()[items.start : items.stop]
        return np.ascontiguousarray(some.transpose(0, 2, 1)).reshape(len(items), count * k)
    # Whole batch items need no copy of the rest, whatever the strides.
    part = tensor.detach().reshape(-1, k, count)[items.start : items.stop]
    lists = torch.empty((len(items), count, k), dtype=dtype)
    _transpose(part.to(lists.dtype), lists)
    return lists.view(len(items), count * k).numpy()


def _transpose(matrices: Tensor, output: Tensor) -> None:
    """Copy matrices to those of `output`, transposed; large ones one by one, which PyTorch does in tiles."""
    if matrices[0].numel() < TILED_FROM:
        output.copy_(matrices.mT)
    else:
        for matrix, target in zip(matrices, output, strict=True):
            target.copy_(matrix.mT)
