"""The keys around the matches: Algorithm 2 of SCRAM, lines 2 to 6."""

from __future__ import annotations

import torch
from torch import Tensor

from patchattn.kernels.reference.constraints import admissible
from patchattn.kernels.reference.positions import all_positions, centered, coordinates, moved
from patchattn.problem import Constraints

__all__ = ["expand"]


@torch.no_grad()
def expand(index: Tensor, key_shape: tuple[int, ...], radius: tuple[int, ...], constraints: Constraints) -> Tensor:
    """Return the windows of keys about the matches, each key once for a query.

    Args:
        index: Matches, int32 `(B, heads, k, *query_spatial)`, -1 for none.
        key_shape: Spatial size of the key.
        radius: How far a window reaches in each dimension.
        constraints: Which keys a query may match.

    Returns:
        int32 `(B, heads, k * prod(2 radius + 1), *query_spatial)`: match after match, its window in row-major order;
        -1 for keys that are outside the domain, not admissible, or in the window of an earlier match.
    """
    query_shape = tuple(index.shape[3:])
    queries = all_positions(query_shape, index.device)
    matches = index.long().flatten(3)
    window = []
    for slot in range(matches.shape[2]):
        earlier = matches[:, :, :slot]
        for offset in centered([2 * r + 1 for r in radius]):
            key = moved(matches[:, :, slot : slot + 1], key_shape, offset)
            allowed = admissible(queries, key, query_shape, key_shape, constraints)
            known = ((earlier >= 0) & within(earlier, key, key_shape, radius)).any(2, keepdim=True)
            window.append(torch.where(allowed & ~known, key, -1))
    return torch.unflatten(torch.cat(window, 2).int(), 3, query_shape)


def within(first: Tensor, second: Tensor, shape: tuple[int, ...], radius: tuple[int, ...]) -> Tensor:
    """Say which pairs of positions are at most `radius` apart in every dimension. Both at least 0."""
    near = torch.ones((), dtype=torch.bool, device=first.device)
    for one, other, most in zip(coordinates(first, shape), coordinates(second, shape), radius, strict=True):
        near = near & ((one - other).abs() <= most)
    return near
