"""Constraints: the keys that a query may match, and the matches that exclude each other."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from patchattn.kernels.reference.positions import coordinates
from patchattn.problem import Constraints

__all__ = ["admissible", "conflicting", "offset_window"]


def admissible(
    queries: Tensor, keys: Tensor, query_shape: Sequence[int], key_shape: Sequence[int], constraints: Constraints
) -> Tensor:
    """Say which pairs of query and key the constraints allow; False for keys outside the domain, such as -1.

    A query outside `query_mask` may match nothing.

    Args:
        queries: int64 `(n,)`.
        keys: int64 `(B, heads, r, n)`.

    Returns:
        Bool `(B, heads, r, n)`.
    """
    count = torch.Size(key_shape).numel()
    allowed = (keys >= 0) & (keys < count)
    if constraints.query_mask is not None:
        allowed = allowed & constraints.query_mask.flatten(1)[:, None, None, queries]
    if constraints.key_mask is not None:
        batch, *rest = keys.shape
        mask = constraints.key_mask.flatten(1).expand(batch, count)
        allowed = allowed & torch.unflatten(mask.gather(1, keys.clamp(0, count - 1).flatten(1)), 1, rest)
    if constraints.is_causal:
        allowed = allowed & (keys + constraints.lag <= queries)
    if constraints.max_offset is not None:
        window = offset_window(queries, query_shape, key_shape, constraints)
        for coordinate, (low, high) in zip(coordinates(keys, key_shape), window, strict=True):
            allowed = allowed & (coordinate >= low) & (coordinate <= high)
    return allowed


def offset_window(
    queries: Tensor, query_shape: Sequence[int], key_shape: Sequence[int], constraints: Constraints
) -> list[tuple[Tensor, Tensor]]:
    """Return, for each dimension, the first and the last key coordinate within `max_offset` of each query's home.

    Home is the key position at the query's place in the image. Without `max_offset` the window is the whole domain.
    """
    limits = key_shape if constraints.max_offset is None else constraints.max_offset
    window = []
    for coordinate, num_queries, num_keys, limit in zip(
        coordinates(queries, query_shape), query_shape, key_shape, limits, strict=True
    ):
        home = (2 * coordinate + 1) * num_keys // (2 * num_queries)
        window.append(((home - limit).clamp(min=0), (home + limit).clamp(max=num_keys - 1)))
    return window


def conflicting(first: Tensor, second: Tensor, key_shape: Sequence[int], constraints: Constraints) -> Tensor:
    """Say which pairs of key positions may not be matches of one query together: equal, or less than the separation
    apart in every dimension. Both at least 0.
    """
    separation = constraints.min_separation if constraints.min_separation else (0,) * len(key_shape)
    conflict = torch.ones((), dtype=torch.bool, device=first.device)
    pairs = zip(coordinates(first, key_shape), coordinates(second, key_shape), separation, strict=True)
    for one, other, least in pairs:
        conflict = conflict & ((one - other).abs() < max(1, least))
    return conflict
