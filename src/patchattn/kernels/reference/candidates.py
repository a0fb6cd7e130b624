"""Random candidates: the keys that a search starts from, and those near a match."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from patchattn.kernels.parameters import DRAWS_PER_MATCH, MAX_LISTED
from patchattn.kernels.reference.constraints import offset_window
from patchattn.kernels.reference.patch_similarity import PatchPairs
from patchattn.kernels.reference.positions import coordinates, flatten
from patchattn.kernels.reference.random import uniform
from patchattn.problem import Constraints

__all__ = ["all_candidates", "around_best", "first_candidates", "reach"]


Draw = Callable[[int], Tensor]
"""The n-th random word of every head and query, `(heads, queries)`."""
Candidates = tuple[Tensor, Callable[[Tensor], Tensor]]
"""Number of candidates `(B or 1, 1, queries)`, and a function from their numbers `(B or 1, heads, queries)` to keys."""


def first_candidates(pairs: PatchPairs, k: int, constraints: Constraints, draws: Draw) -> Iterator[Tensor]:
    """Yield the keys to begin with, one for each query: those that constraints allow in order if they are few, else
    4 k random ones.

    Yields:
        int64 `(B or 1, heads, queries)`; -1 for none.
    """
    count, candidate = all_candidates(pairs.queries, pairs.query_shape, pairs.key_shape, constraints)
    drawn = DRAWS_PER_MATCH * k
    listed = count <= max(drawn, MAX_LISTED)
    for trial in range(max(drawn, MAX_LISTED)):
        number = torch.where(listed, trial, uniform(draws(trial), 0, count - 1))
        wanted = torch.where(listed, trial < count, trial < drawn)
        yield torch.where(wanted, candidate(number.clamp(min=0)), -1)


def all_candidates(
    queries: Tensor, query_shape: tuple[int, ...], key_shape: tuple[int, ...], constraints: Constraints
) -> Candidates:
    """The keys that are drawn from where nothing is known of the query: all that are admissible, and maybe more."""
    find = candidates_in_mask if constraints.max_offset is None else candidates_in_window
    return find(queries, query_shape, key_shape, constraints)


def candidates_in_window(
    queries: Tensor, query_shape: tuple[int, ...], key_shape: tuple[int, ...], constraints: Constraints
) -> Candidates:
    """All keys within `max_offset`, in row-major order; masks and causality are left to the lists."""
    window = offset_window(queries, query_shape, key_shape, constraints)
    count = torch.ones_like(queries)
    for low, high in window:
        count = count * (high - low + 1)

    def candidate(number: Tensor) -> Tensor:
        place: list[Tensor] = []
        for low, high in reversed(window):
            place.insert(0, low + number % (high - low + 1))
            number = number // (high - low + 1)
        # A number beyond the last candidate has no place.
        return torch.where(number == 0, flatten(place, key_shape), -1)

    return count[None, None], candidate


def candidates_in_mask(
    queries: Tensor, query_shape: tuple[int, ...], key_shape: tuple[int, ...], constraints: Constraints
) -> Candidates:
    """The keys allowed by `key_mask` in ascending order; if causal, only those that are not after the query."""
    mask = constraints.key_mask
    if mask is None:
        mask = torch.ones((1, *key_shape), dtype=torch.bool, device=queries.device)
    allowed = mask.flatten(1).int()
    ascending = torch.sort(1 - allowed, dim=1, stable=True).indices
    upto = allowed.cumsum(1)
    if constraints.is_causal:
        last = queries - constraints.lag
        count = torch.where(last >= 0, upto[:, last.clamp(min=0)], 0)
    else:
        count = upto[:, -1:].expand(-1, len(queries))

    def candidate(number: Tensor) -> Tensor:
        number = number.clamp(max=ascending.shape[1] - 1)
        rows = ascending.expand(number.shape[0], -1).unsqueeze(1).expand(-1, number.shape[1], -1)
        return rows.gather(2, number)

    return count.unsqueeze(1), candidate


def reach(
    queries: Tensor, query_shape: tuple[int, ...], key_shape: tuple[int, ...], constraints: Constraints
) -> list[tuple[Tensor, Tensor]]:
    """Return, for each dimension, the first and the last key coordinate where keys near a match are drawn."""
    window = offset_window(queries, query_shape, key_shape, constraints)
    if constraints.is_causal:
        # Nothing beyond the query's own row (slice, position) comes before the query.
        low, high = window[0]
        window[0] = low, torch.minimum(high, coordinates(queries, query_shape)[0])
    return window


def around_best(
    best: Tensor,
    queries: Tensor,
    query_shape: tuple[int, ...],
    key_shape: tuple[int, ...],
    constraints: Constraints,
    draws: Draw,
) -> Iterator[Tensor]:
    """Yield random keys around the best match, which stays the center throughout, at radii halved down to 1.

    Args:
        best: int64 `(B, heads, n)`, -1 for none.
        queries: int64 `(n,)`.
        query_shape: Spatial size of the query; key_shape that of the key.
        constraints: max_offset and causality narrow down where the keys are drawn.
        draws: Their random words.

    Yields:
        int64 `(B, heads, n)`; -1 for none.
    """
    center = coordinates(best, key_shape)
    window = reach(queries, query_shape, key_shape, constraints)
    radius, number = max(key_shape), 0
    while radius >= 1:
        trial = []
        for middle, (low, high) in zip(center, window, strict=True):
            first, last = torch.maximum(low, middle - radius), torch.minimum(high, middle + radius)
            trial.append(uniform(draws(number), first, last))
            number += 1
        yield torch.where(best >= 0, flatten(trial, key_shape), -1)
        radius //= 2
