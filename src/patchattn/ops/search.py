"""Operator `patchattn::search`: find the field. It has no gradient: matches are positions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from patchattn.checks import on_host
from patchattn.kernels import load_backend
from patchattn.kernels.arguments import Constraints, PatchGeometry
from patchattn.ops.methods import resolve_method
from patchattn.ops.register import fake, operator
from patchattn.similarity import BY_PRODUCTS, resolve_similarity

__all__ = ["search"]


@operator("search", shared=(1, 2, 3))
def search(
    query: Tensor,
    key: Tensor,
    query_mask: Tensor | None,
    key_mask: Tensor | None,
    init: Tensor | None,
    k: int,
    patch_size: Sequence[int],
    padding_mode: str,
    num_heads: int,
    similarity: str,
    method: str,
    iterations: int | None,
    scans: int | None,
    exact_pairs: int | None,
    seed: int,
    is_causal: bool,
    strict: bool,
    min_separation: Sequence[int],
    max_offset: Sequence[int] | None,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """Return index (int32) and similarity, both `(B, heads, k, *query)`.

    For `method`, `iterations`, `scans` and `exact_pairs` see `resolve_method`: "auto" is decided here, by the sizes.
    """
    kernels = load_backend(backend)
    # On a device this is not asked: the answer would have to be waited for, and the kernels cope with empty masks.
    if any(mask is not None and on_host(mask) and not mask.any() for mask in (query_mask, key_mask)):
        index, found = _empty_field(query, k, num_heads)
        return index.fill_(-1), found.fill_(-torch.inf)
    geometry = PatchGeometry(tuple(patch_size), padding_mode, num_heads, resolve_similarity(similarity))
    offset = None if max_offset is None else tuple(max_offset)
    constraints = Constraints(query_mask, key_mask, is_causal, tuple(min_separation), offset, strict)
    chosen, count = resolve_method(
        method, iterations, scans, exact_pairs, tuple(query.shape[2:]), tuple(key.shape[2:]), is_causal,
        constraints.separated, k, similarity in BY_PRODUCTS and not constraints.separated and offset is None,
    )  # fmt: skip
    if chosen == "exact":
        index, found = kernels.search_exact(query, key, k, geometry, constraints)
    else:
        find = getattr(kernels, f"search_{chosen}")
        index, found = find(query, key, k, geometry, constraints, count, seed, init)
    return index, found


@fake("search")
def _search_fake(
    query: Tensor, key: Tensor, query_mask: Any, key_mask: Any, init: Any, k: int, patch_size: Any, padding_mode: str,
    num_heads: int, *_: Any,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    return _empty_field(query, k, num_heads)


def _empty_field(query: Tensor, k: int, num_heads: int) -> tuple[Tensor, Tensor]:
    shape = (query.shape[0], num_heads, k, *query.shape[2:])
    dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
    return query.new_empty(shape, dtype=torch.int32), query.new_empty(shape, dtype=dtype)
