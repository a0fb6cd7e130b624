"""PatchMatch: good matches spread to neighbors, and are improved by random trials at ever smaller distances.

All queries take each step at once, reading what their neighbors held before it: the result depends on no order of
execution, and is the same on every device (bit for bit where the similarities are).
"""

from __future__ import annotations

import torch
from torch import Tensor

from patchattn.kernels.parameters import PROPAGATION_DISTANCES
from patchattn.kernels.reference.candidates import around_best, first_candidates
from patchattn.kernels.reference.patch_similarity import PatchPairs
from patchattn.kernels.reference.positions import moved
from patchattn.kernels.reference.random import Draws
from patchattn.kernels.reference.topk import TopK
from patchattn.problem import Constraints, PatchGeometry

__all__ = ["improve", "search_patchmatch"]


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
        iterations: Rounds of propagation and random search after the start; may be 0.
        seed: Determines all random numbers, together with head, iteration and position.
        init: Matches to start from, `(B, heads, any number, *query_spatial)`, -1 for none.

    Returns:
        int32 index and similarity, `(B, heads, k, *query_spatial)`, best first; -1 and -inf where there is no match.
    """
    lists = TopK(PatchPairs(query, key, geometry), k, constraints)
    improve(lists, k, iterations, seed, 0, init)
    return lists.result()


def improve(lists: TopK, k: int, iterations: int, seed: int, first: int, init: Tensor | None) -> None:
    """Search by PatchMatch from empty lists on.

    Args:
        lists: The lists to fill.
        k: Says how many random keys the lists start from: as a search for k matches does.
        iterations: As for `search_patchmatch`; so are seed and init.
        first: What the random numbers of the start take for the iteration; those after it count on from there.
    """
    heads, queries = lists.pairs.geometry.num_heads, lists.pairs.queries
    initialize(lists, k, init, Draws(seed, first, heads, queries))
    for iteration in range(1, iterations + 1):
        for distance in PROPAGATION_DISTANCES:
            propagate(lists, distance)
        random_search(lists, Draws(seed, first + iteration, heads, queries))


def initialize(lists: TopK, k: int, init: Tensor | None, draws: Draws) -> None:
    """Offer the initial matches, then keys until the list is full: the allowed ones in order if they are few, else 4 k
    random ones.
    """
    if init is not None:
        for candidate in init.long().flatten(3).unbind(2):
            lists.offer(candidate)
    for candidate in first_candidates(lists.pairs, k, lists.constraints, draws):
        wanted = (candidate >= 0) & ~lists.full
        if not bool(wanted.any()):
            break
        lists.offer(torch.where(wanted, candidate, -1))


def propagate(lists: TopK, distance: int) -> None:
    """Offer each query the matches of its neighbors at a distance, moved along with it."""
    pairs = lists.pairs
    before = lists.index
    # What later queries hold depends on their own features: under causality they are not asked.
    signs = (-1,) if lists.constraints.is_causal else (-1, 1)
    for dim in range(len(pairs.query_shape)):
        for sign in signs:
            step = [sign * distance if d == dim else 0 for d in range(len(pairs.query_shape))]
            neighbor = moved(pairs.queries, pairs.query_shape, step)
            theirs = torch.where(neighbor >= 0, before[..., neighbor.clamp(min=0)], -1)
            for candidate in moved(theirs, pairs.key_shape, [-by for by in step]).unbind(2):
                lists.offer(candidate)


def random_search(lists: TopK, draws: Draws) -> None:
    """Offer random keys around the best match."""
    pairs, best = lists.pairs, lists.index[:, :, 0]
    for candidate in around_best(best, pairs.queries, pairs.query_shape, pairs.key_shape, lists.constraints, draws):
        lists.offer(candidate)
