"""Guided search: propagation-assisted k-d tree search.

Propagation-assisted k-d trees are He and Sun's (2012): neighbors say where to look, a k-d tree what else is there.

Patches become a few integers, their principal components (`projection.py`), keys the leaves of a tree (`tree.py`). Each
query begins with the leaf that the tree leads it to. Then scans go over the image, alternately first to last and last
to first: where the match of a neighbor that was just visited, moved along with it, lies in a leaf, all keys of that
leaf are compared. Lists rank by squared distance of the components (`ranked.py`); at the end each list is measured in
full.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

import torch
from torch import Tensor

from patchattn.kernels.parameters import (
    BAND_OF_LINE,
    BAND_ROWS,
    EMPTY,
    LATEST_SCAN,
    LINE_DISTANCES,
    MASKED_NEIGHBOR_DISTANCE,
    MIN_EXPLAINED_VARIANCE,
    PATCHMATCH_ITERATIONS,
    RANKED_BY_COMPONENTS,
    SEED_LEAVES,
    ranked_length,
)
from patchattn.kernels.reference.candidates import Draw, around_best, first_candidates
from patchattn.kernels.reference.gather import split_heads
from patchattn.kernels.reference.patch_similarity import PatchPairs
from patchattn.kernels.reference.patchmatch import search_patchmatch
from patchattn.kernels.reference.positions import coordinates, moved
from patchattn.kernels.reference.projection import fit_projection, project, sides_of
from patchattn.kernels.reference.random import Draws
from patchattn.kernels.reference.ranked import RankedLists, position_of
from patchattn.kernels.reference.topk import TopK
from patchattn.kernels.reference.tree import build_tree, leaf_for
from patchattn.problem import Constraints, PatchGeometry

__all__ = ["search_guided"]


@dataclass(frozen=True)
class Item:
    """One head of one batch item, to be searched by itself (batch 1, one head)."""

    pairs: PatchPairs
    constraints: Constraints
    init: Tensor
    """int64 `(any number, queries)`, -1 for none."""
    seed: int
    num_heads: int
    head: int

    def draws(self, iteration: int) -> Draw:
        """The random words of this head, `(1, queries)`."""
        draws = Draws(self.seed, iteration, self.num_heads, self.pairs.queries)
        return lambda n: draws(n)[self.head : self.head + 1]


@torch.no_grad()
def search_guided(
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
        iterations: Scans after the start; may be 0.
        seed: Determines all random numbers, together with head, iteration and position.
        init: Matches to start from, `(B, heads, any number, *query_spatial)`, -1 for none.

    Returns:
        int32 index and similarity, `(B, heads, k, *query_spatial)`, best first; -1 and -inf where there is no match.
    """
    batch, heads = query.shape[0], geometry.num_heads
    items = [
        item_of(query, key, geometry, constraints, seed, init, b, h) for b, h in product(range(batch), range(heads))
    ]
    found = [search_item(item, k, iterations) for item in items]
    index, similarity = (
        torch.unflatten(torch.cat([lists[n] for lists, _ in found]), 0, (batch, heads)).squeeze(2) for n in range(2)
    )
    if geometry.similarity.name not in RANKED_BY_COMPONENTS:
        index, similarity = search_patchmatch(query, key, k, geometry, constraints, iterations, seed, index)
    guided = torch.tensor([explained >= MIN_EXPLAINED_VARIANCE for _, explained in found], device=query.device)
    if not bool(guided.all()):
        iterations = max(iterations, PATCHMATCH_ITERATIONS)
        others = search_patchmatch(query, key, k, geometry, constraints, iterations, seed, init)
        guided = guided.view(batch, heads, *(1,) * (index.dim() - 2))
        index, similarity = torch.where(guided, index, others[0]), torch.where(guided, similarity, others[1])
    return index, similarity


def item_of(
    query: Tensor,
    key: Tensor,
    geometry: PatchGeometry,
    constraints: Constraints,
    seed: int,
    init: Tensor | None,
    b: int,
    h: int,
) -> Item:
    """Cut out head h of batch item b."""

    def own(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor[b : b + 1] if tensor.shape[0] > 1 else tensor

    def features(image: Tensor) -> Tensor:
        return split_heads(image if image.shape[0] == 1 else image[b : b + 1], geometry.num_heads)[:, h]

    pairs = PatchPairs(features(query), features(key), replace(geometry, num_heads=1))
    limits = replace(constraints, query_mask=own(constraints.query_mask), key_mask=own(constraints.key_mask))
    start = pairs.queries.new_empty((0, len(pairs.queries))) if init is None else init[b, h].flatten(1).long()
    return Item(pairs, limits, start, seed, geometry.num_heads, h)


def search_item(item: Item, k: int, iterations: int) -> tuple[tuple[Tensor, Tensor], float]:
    """Return index and similarity, `(1, 1, k, *query_spatial)`, and the share of the variance that the projection
    explains; where this is too little, nothing is searched.
    """
    pairs, constraints = item.pairs, item.constraints
    lists = TopK(pairs, k, constraints)
    chosen = positions_in(constraints.query_mask, pairs.query_shape, pairs.queries.device)
    allowed = positions_in(constraints.key_mask, pairs.key_shape, pairs.queries.device)
    if len(chosen) == 0 or len(allowed) == 0:
        return lists.result(), 1.0
    query, key = sides_of(pairs)
    projection = fit_projection(query, key, chosen, allowed)
    if projection.explained < MIN_EXPLAINED_VARIANCE:
        return lists.result(), projection.explained
    query_components, key_components = project(query, projection), project(key, projection)
    tree, length = build_tree(key_components, allowed), ranked_length(k)
    ranked = RankedLists(pairs, constraints, tree, query_components, key_components, length)
    seed_lists(ranked, item, chosen, k)
    for scan in range(1, iterations + 1):
        scan_image(ranked, item, chosen, scan)
    for candidate in (*position_of(ranked.entries).unbind(1), *item.init):
        lists.offer(candidate[None, None])
    return lists.result(), projection.explained


def positions_in(mask: Tensor | None, shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Return the positions where a mask `(1, *shape)` is True, all without a mask: int64 `(n,)`, ascending."""
    if mask is None:
        mask = torch.ones(shape, dtype=torch.bool, device=device)
    return mask.flatten().nonzero().squeeze(1)


def seed_lists(ranked: RankedLists, item: Item, chosen: Tensor, k: int) -> None:
    """Offer the leaves of the initial matches, that to which the tree leads, and those near it until there are k.

    Where constraints may forbid all of these, random keys that they allow join in.
    """
    tree, constraints = ranked.tree, item.constraints
    leaves = len(tree.axes)
    limited = constraints.is_causal or constraints.max_offset is not None or constraints.separated
    for matches in item.init[:, chosen]:
        ranked.offer(chosen, leaf_at(tree.leaf_of, matches)[:, None], 0)
    own = leaf_for(tree, ranked.query_components[chosen])
    # A sequence has fewer neighbors to hear from than an image.
    least = SEED_LEAVES if len(item.pairs.query_shape) == 1 else 1
    waiting = torch.ones_like(own, dtype=torch.bool)
    for turn in range(min(2 * leaves, SEED_LEAVES) if limited else 2 * leaves):
        near = own ^ turn
        ranked.offer(chosen, torch.where(waiting & (near < leaves), near, -1)[:, None], 0)
        waiting = (ranked.entries[chosen, k - 1] == EMPTY) | (turn + 1 < least)
        if not bool(waiting.any()):
            break
    if limited:
        for candidate in first_candidates(item.pairs, k, constraints, item.draws(0)):
            ranked.offer(chosen, leaf_at(tree.leaf_of, candidate[0, 0, chosen])[:, None], 0)


def scan_image(ranked: RankedLists, item: Item, chosen: Tensor, scan: int) -> None:
    """Go over the image: offer each query the leaves to which the matches of neighbors visited before point.

    Queries at one distance from the corner where the scan begins do not depend on each other, and are visited at once;
    so are the bands.
    """
    pairs, constraints, tree = item.pairs, item.constraints, ranked.tree
    side = -1 if scan % 2 else 1
    asked = torch.zeros(len(pairs.queries), dtype=torch.bool, device=chosen.device)
    asked[chosen] = True
    before = ranked.entries.clone()
    band = bands(pairs.query_shape, pairs.queries)
    dims = len(pairs.query_shape)
    steps = [[side * (d == dim) for d in range(dims)] for dim in range(dims)]
    if dims == 1:
        steps = [[side * distance] for distance in LINE_DISTANCES]
    neighbors = torch.stack([moved(pairs.queries, pairs.query_shape, step) for step in steps], 1)
    # A neighbor that the mask excludes holds nothing: the next but one in that direction speaks for it.
    masked = (neighbors >= 0) & ~asked[neighbors.clamp(min=0)] & (dims > 1)
    far_steps = [[MASKED_NEIGHBOR_DISTANCE * by for by in step] for step in steps]
    far = torch.stack([moved(pairs.queries, pairs.query_shape, step) for step in far_steps], 1)
    neighbors = torch.where(masked, far, neighbors)
    inside = band[neighbors.clamp(min=0)] == band[:, None]
    # The neighbors on this side were looked at two scans ago: what they held then has been tried.
    since = (0, 0) if scan < 3 else (min(scan - 1, LATEST_SCAN), min(scan - 2, LATEST_SCAN))
    oldest = torch.where(inside, *since)
    # The leaf of a key moved from the neighbor to here, for each direction, near and far, and key.
    keys = torch.arange(len(tree.leaf_of), device=band.device)
    moved_leaf = torch.stack(
        [leaf_at(tree.leaf_of, moved(keys, pairs.key_shape, [-by for by in step])) for step in (*steps, *far_steps)]
    )
    direction = torch.arange(len(steps), device=band.device) + len(steps) * masked
    narrow = constraints.is_causal or constraints.max_offset is not None
    draws = item.draws(scan)
    count = dims * max(pairs.key_shape).bit_length() if narrow else 0
    words = [draws(n)[0] for n in range(count)]
    for queries in waves(pairs.query_shape, band, chosen, side):
        near = neighbors[queries]
        safe = near.clamp(min=0)
        theirs = torch.where(inside[queries].unsqueeze(2), ranked.entries[safe], before[safe])
        wanted = (near >= 0).unsqueeze(2) & (theirs != EMPTY) & (theirs & LATEST_SCAN >= oldest[queries].unsqueeze(2))
        leaves = torch.where(wanted, moved_leaf[direction[queries].unsqueeze(2), position_of(theirs).clamp(min=0)], -1)
        ranked.offer(queries, leaves.flatten(1), scan)
        if narrow:
            # The tree knows nothing of these limits: search at random around the best match as well.
            best = position_of(ranked.entries[queries, 0])[None, None]
            own_words = [word[queries] for word in words]
            shapes = pairs.query_shape, pairs.key_shape
            trials = around_best(best, queries, *shapes, constraints, own_words.__getitem__)
            leaves = torch.stack([leaf_at(tree.leaf_of, trial[0, 0]) for trial in trials], 1)
            ranked.offer(queries, leaves, scan)


def leaf_at(leaf_of: Tensor, keys: Tensor) -> Tensor:
    """Return the leaf of each key; -1 for key -1, as for those in no leaf."""
    return torch.where(keys >= 0, leaf_of[keys.clamp(min=0)], -1)


def bands(shape: tuple[int, ...], queries: Tensor) -> Tensor:
    """Return which band each query lies in."""
    width = shape[-1]
    return queries // (BAND_OF_LINE if width == len(queries) else BAND_ROWS * width)


def waves(shape: tuple[int, ...], band: Tensor, chosen: Tensor, side: int) -> Iterator[Tensor]:
    """Yield the chosen queries in the order of visits, together those whose coordinates have one sum.

    A neighbor to be visited before belongs to the wave before. Each band begins with its own first wave.
    """
    queries = torch.arange(len(band), device=band.device)
    depth = -side * torch.stack(coordinates(queries, shape)).sum(0)
    first = torch.zeros_like(band).scatter_reduce(0, band, depth, "amin", include_self=False)
    depth = (depth - first[band])[chosen]
    order = torch.sort(depth, stable=True)
    sizes = torch.unique_consecutive(order.values, return_counts=True)[1]
    yield from torch.split(chosen[order.indices], sizes.tolist())
