"""Operator `patchattn::expand`: the neighborhoods of the matches, as a set. No gradient: keys are positions."""

from __future__ import annotations

from math import prod

from torch import Tensor

from patchattn.kernels import load_backend
from patchattn.ops.register import fake, operator
from patchattn.problem import Constraints

__all__ = ["expand"]


@operator("expand", shared=("key", "query_mask", "key_mask"))
def expand(index: Tensor, key: Tensor, radius: tuple[int, ...], constraints: Constraints, backend: str) -> Tensor:
    """Return the keys around each match, int32 `(B, heads, k * prod(2 radius + 1), *query)`; -1 for none.

    Of `key` the size alone is read.
    """
    keys: Tensor = load_backend(backend).expand(index, tuple(key.shape[2:]), radius, constraints)
    return keys


@fake("expand")
def _expand_fake(index: Tensor, key: Tensor, radius: tuple[int, ...], constraints: Constraints, backend: str) -> Tensor:
    window = prod(2 * r + 1 for r in radius)
    return index.new_empty((*index.shape[:2], index.shape[2] * window, *index.shape[3:]))
