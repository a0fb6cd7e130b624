"""Operator `patchattn::expand`: the neighborhoods of the matches, as a set. No gradient: keys are positions."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from torch import Tensor

from patchattn.kernels import load_backend
from patchattn.kernels.arguments import Constraints
from patchattn.ops.register import fake, operator

__all__ = ["expand"]


@operator("expand", shared=(1, 2, 3))
def expand(
    index: Tensor,
    key: Tensor,
    query_mask: Tensor | None,
    key_mask: Tensor | None,
    radius: Sequence[int],
    is_causal: bool,
    strict: bool,
    max_offset: Sequence[int] | None,
    backend: str,
) -> Tensor:
    """Return the keys around each match, int32 `(B, heads, k * prod(2 radius + 1), *query)`; -1 for none.

    Of `key` the size alone is read.
    """
    offset = None if max_offset is None else tuple(max_offset)
    constraints = Constraints(query_mask, key_mask, is_causal, (), offset, strict)
    keys: Tensor = load_backend(backend).expand(index, tuple(key.shape[2:]), tuple(radius), constraints)
    return keys


@fake("expand")
def _expand_fake(index: Tensor, key: Tensor, query_mask: Any, key_mask: Any, radius: Sequence[int], *_: Any) -> Tensor:
    window = prod(2 * r + 1 for r in radius)
    return index.new_empty((*index.shape[:2], index.shape[2] * window, *index.shape[3:]))
