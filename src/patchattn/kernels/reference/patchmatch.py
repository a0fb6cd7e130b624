"""PatchMatch: good matches spread to neighbours, and are improved by random trials at ever smaller distances.

All queries take each step at once, reading what their neighbours held before it: the result depends on no order of
execution, and is the same on every device (bit for bit where the similarities are).
"""

from __future__ import annotations

import torch
from torch import Tensor

from patchattn.kernels.arguments import Constraints, PatchGeometry
from patchattn.kernels.reference.candidates import around_best, first_candidates
from patchattn.kernels.reference.lists import MatchLists
from patchattn.kernels.reference.positions import moved
from patchattn.kernels.reference.random import Draws
from patchattn.kernels.reference.similarity import PatchPairs

__all__ = ["search_patchmatch"]

REACHES = (8, 4, 2, 1)
"""Distances over which matches spread within one iteration."""


@torch.no_grad()
def search_patchmatch(
    query: Tensor,
    key: Tensor,
    k: int,
    geometry: PatchGeometry,
    constraints: Constraints,
    iterations: int,
    seed: int,
    init: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Find k good admissible keys of each query.

    Args:
        query: `(B, C, *query_spatial)`.
        key: `(B or 1, C, *key_spatial)`.
        k: Number of matches.
        geometry: How patches are cut and compared.
        constraints: Which keys a query may match.
        iterations: Rounds of spreading and random search after the start; may be 0.
        seed: Determines all random numbers, together with head, iteration and position.
        init: Matches to start from, `(B, heads, any number, *query_spatial)`, -1 for none.

    Returns:
        int32 index and similarity, `(B, heads, k, *query_spatial)`, best first; -1 and -inf where there is no match.
    """
    lists = MatchLists(PatchPairs(query, key, geometry), k, constraints)
    if init is not None:
        for candidate in init.long().flatten(3).unbind(2):
            lists.offer(candidate)
    fill(lists, Draws(seed, 0, geometry.num_heads, lists.pairs.queries))
    for iteration in range(1, iterations + 1):
        for reach in REACHES:
            spread(lists, reach)
        search_around_best(lists, Draws(seed, iteration, geometry.num_heads, lists.pairs.queries))
    return lists.result()


def fill(lists: MatchLists, draws: Draws) -> None:
    """Offer keys until the list is full: the allowed ones in order if they are few, else 4 k random ones."""
    for candidate in first_candidates(lists.pairs, lists.index.shape[2], lists.constraints, draws):
        wanted = (candidate >= 0) & ~lists.full
        if not bool(wanted.any()):
            break
        lists.offer(torch.where(wanted, candidate, -1))


def spread(lists: MatchLists, reach: int) -> None:
    """Offer each query the matches of its neighbours at distance `reach`, moved along with it."""
    pairs = lists.pairs
    before = lists.index
    for dim in range(len(pairs.query_shape)):
        for sign in (-1, 1):
            step = [sign * reach if d == dim else 0 for d in range(len(pairs.query_shape))]
            neighbour = moved(pairs.queries, pairs.query_shape, step)
            theirs = torch.where(neighbour >= 0, before[..., neighbour.clamp(min=0)], -1)
            for candidate in moved(theirs, pairs.key_shape, [-by for by in step]).unbind(2):
                lists.offer(candidate)


def search_around_best(lists: MatchLists, draws: Draws) -> None:
    """Offer random keys around the best match."""
    pairs, best = lists.pairs, lists.index[:, :, 0]
    for candidate in around_best(best, pairs.queries, pairs.query_shape, pairs.key_shape, lists.constraints, draws):
        lists.offer(candidate)
