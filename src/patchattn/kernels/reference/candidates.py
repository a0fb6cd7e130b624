"""The keys from which the start of PatchMatch chooses: how many each query has, and which is the r-th."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from patchattn.kernels.reference.constraints import offset_window
from patchattn.kernels.reference.lists import MatchLists
from patchattn.kernels.reference.positions import flatten

__all__ = ["Candidates", "candidates_in_mask", "candidates_in_window"]

Candidates = tuple[Tensor, Callable[[Tensor], Tensor]]
"""Number of candidates `(B or 1, 1, queries)`, and a function from their numbers `(B or 1, heads, queries)` to keys."""


def candidates_in_window(lists: MatchLists) -> Candidates:
    """All keys within `max_offset`, in row-major order; masks and causality are left to the lists."""
    pairs = lists.pairs
    window = offset_window(pairs.queries, pairs.query_shape, pairs.key_shape, lists.constraints)
    count = torch.ones_like(pairs.queries)
    for low, high in window:
        count = count * (high - low + 1)

    def candidate(number: Tensor) -> Tensor:
        place: list[Tensor] = []
        for low, high in reversed(window):
            place.insert(0, low + number % (high - low + 1))
            number = number // (high - low + 1)
        # A number beyond the last candidate has no place.
        return torch.where(number == 0, flatten(place, pairs.key_shape), -1)

    return count[None, None], candidate


def candidates_in_mask(lists: MatchLists) -> Candidates:
    """The keys allowed by `key_mask` in ascending order; only those up to the query's position if causal."""
    pairs, mask = lists.pairs, lists.constraints.key_mask
    if mask is None:
        mask = torch.ones((1, *pairs.key_shape), dtype=torch.bool, device=pairs.queries.device)
    allowed = mask.flatten(1).int()
    ascending = torch.sort(1 - allowed, dim=1, stable=True).indices
    upto = allowed.cumsum(1)
    count = upto[:, pairs.queries] if lists.constraints.is_causal else upto[:, -1:].expand(-1, len(pairs.queries))

    def candidate(number: Tensor) -> Tensor:
        number = number.clamp(max=ascending.shape[1] - 1)
        rows = ascending.expand(number.shape[0], -1).unsqueeze(1).expand(-1, number.shape[1], -1)
        return rows.gather(2, number)

    return count.unsqueeze(1), candidate
