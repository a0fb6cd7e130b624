"""Operator `patchattn::majority`: the key that most of the patches that hold a query say it has. No gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from patchattn.kernels import load_backend
from patchattn.ops.register import fake, operator
from patchattn.problem import Constraints

__all__ = ["majority"]


@operator("majority", shared=("key", "query_mask", "key_mask"))
def majority(
    index: Tensor, key: Tensor, window: tuple[int, ...], constraints: Constraints, backend: str
) -> tuple[Tensor, Tensor]:
    """Return the most frequent vote, int32 `(B, heads, 1, *query)`, and its share of all votes, float32.

    Of `key` the size alone is read.
    """
    found, share = load_backend(backend).majority(index, tuple(key.shape[2:]), window, constraints)
    return found, share


@fake("majority")
def _majority_fake(
    index: Tensor, key: Tensor, window: tuple[int, ...], constraints: Constraints, backend: str
) -> tuple[Tensor, Tensor]:
    shape = (*index.shape[:2], 1, *index.shape[3:])
    return index.new_empty(shape), index.new_empty(shape, dtype=torch.float32)
