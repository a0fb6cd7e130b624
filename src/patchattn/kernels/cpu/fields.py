"""Match fields between their public shape (B, heads, k, *query) and the kernels' lists."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from patchattn.kernels.arguments import PatchGeometry
from patchattn.kernels.cpu.layout import compute_dtype
from patchattn.kernels.cpu.matches import Lists

__all__ = ["item_init", "item_lists", "new_field", "store", "store_lists"]


def new_field(query: Tensor, k: int, geometry: PatchGeometry) -> tuple[Tensor, Tensor]:
    shape = (query.shape[0], geometry.num_heads, k, *query.shape[2:])
    return torch.empty(shape, dtype=torch.int32), torch.empty(shape, dtype=compute_dtype(query.dtype))


def store(lists: Lists, index: Tensor, similarity: Tensor) -> None:
    """Write one item's matches to its `(k, *query)` tensors."""
    store_lists(lists.index, index)
    store_lists(lists.similarity, similarity)


def store_lists(lists: NDArray[Any], tensor: Tensor) -> None:
    """Write flat lists, query by query, to one item's `(k, *query)`."""
    k = tensor.shape[0]
    tensor.view(k, -1).copy_(torch.from_numpy(lists).view(-1, k).T)


def item_init(init: Tensor | None, b: int, h: int) -> NDArray[np.int32]:
    """The initial matches of one item, `(k0, queries)`; none: `(0, 0)`."""
    if init is None:
        return np.empty((0, 0), np.int32)
    return init[b, h].reshape(init.shape[2], -1).to(torch.int32).contiguous().numpy()


def item_lists(tensor: Tensor, b: int, h: int) -> NDArray[Any]:
    """One item of a `(B, heads, k, *query)` tensor as flat lists, query by query."""
    return tensor[b, h].detach().reshape(tensor.shape[2], -1).T.contiguous().view(-1).numpy()
