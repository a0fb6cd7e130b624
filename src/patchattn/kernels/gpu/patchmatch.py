"""PatchMatch by jump flooding: Algorithm 1 of PSAL and of SCRAM, with lists of k matches.

One iteration is four propagation steps (distances 8, 4, 2, 1) and one random search, each one launch. A step reads the
lists as they were when it began and writes its own queries' lists only: no result depends on the order of programs, and
there is no atomic operation.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from patchattn.kernels.gpu.candidates import Candidates, candidates_of, count_candidates, draw_near, nth_candidate
from patchattn.kernels.gpu.constraints import (
    Limits,
    admissible,
    chosen,
    conflicting,
    limits_of,
    offset_window,
    reach_of,
)
from patchattn.kernels.gpu.grid import Blocks, Extent, block_of_queries, blocks_of, flatten, place_of, step_along, three
from patchattn.kernels.gpu.launch import FEW_REGISTERS, launch
from patchattn.kernels.gpu.padded_image import compute_dtype
from patchattn.kernels.gpu.patch_similarity import WARPS, Pairs, measure, pairs_of, sides_of
from patchattn.kernels.gpu.random import draw, own_stream, stream
from patchattn.kernels.gpu.topk import StoredTopK, contains, empty_lists, insert, load_lists, store_lists, stored
from patchattn.kernels.parameters import DRAWS_PER_MATCH, MAX_LISTED, PROPAGATION_DISTANCES
from patchattn.problem import Constraints, PatchGeometry

__all__ = [
    "Search",
    "Taken",
    "as_field",
    "flat",
    "offer",
    "run",
    "search_of",
    "search_patchmatch",
    "search_repeated",
]

SHORT = 4
"""A list of at most so many matches."""


class Taken(NamedTuple):
    """Keys that conflict as if they were matches: those of earlier runs, int32 `(items, slots, queries)`."""

    index: Any
    slots: Any
    count: Any
    """Runs so far: the first so many of the slots are filled."""
    of: Limits
    """Limits by which they conflict."""


class Search(NamedTuple):
    """Arguments of all steps of a search."""

    pairs: Pairs
    limits: Limits
    blocks: Blocks
    taken: Taken | None
    active: Any
    """uint8 `(items,)`, or None for all: items that are searched at all."""


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
    """Find k matches for every query by PatchMatch; see `patchattn.match`."""
    search = search_of(query, key, geometry, constraints)
    lists = run(search, candidates_of(constraints), k, k, iterations, seed, 0, flat(init))
    return as_field(lists.index, lists.similarity, query, geometry)


def search_repeated(
    query: Tensor,
    key: Tensor,
    k: int,
    geometry: PatchGeometry,
    constraints: Constraints,
    iterations: int,
    seed: int,
    init: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Find k matches in k runs for one each, every run excluding what earlier runs took (and what is too near)."""
    # A list of one match keeps no distance to others: what is taken sees to that.
    search = search_of(query, key, geometry, replace(constraints, min_separation=()))
    limits = limits_of(constraints, tuple(query.shape[2:]), tuple(key.shape[2:]), geometry.num_heads)
    items = query.shape[0] * geometry.num_heads
    candidates, init = candidates_of(constraints), flat(init)
    index = torch.empty((items, k, prod(query.shape[2:])), dtype=torch.int32, device=query.device)
    similarity = torch.empty(index.shape, dtype=compute_dtype(query, key), device=query.device)
    for n in range(k):
        search = search._replace(taken=Taken(index, k, n, limits) if n else None)
        found = run(search, candidates, 1, k, iterations, seed, n * (iterations + 1), init)
        index[:, n], similarity[:, n] = found.index[:, 0], found.similarity[:, 0]
    # A later run may have found a better match than an earlier one.
    similarity, order = torch.sort(similarity, dim=1, descending=True, stable=True)
    return as_field(index.gather(1, order), similarity, query, geometry)


def search_of(query: Tensor, key: Tensor, geometry: PatchGeometry, constraints: Constraints) -> Search:
    pairs = pairs_of(query, key, geometry)
    shape = tuple(query.shape[2:])
    limits = limits_of(constraints, shape, tuple(key.shape[2:]), geometry.num_heads)
    extent = three(shape, 1)
    return Search(pairs, limits, blocks_of(extent, query.shape[0] * geometry.num_heads, pairs.BLOCK.value), None, None)


def as_field(index: Tensor, similarity: Tensor, query: Tensor, geometry: PatchGeometry) -> tuple[Tensor, Tensor]:
    """Bring `(items, k, queries)` into the form `(B, heads, k, *query_spatial)`."""
    shape = (query.shape[0], geometry.num_heads, index.shape[1], *query.shape[2:])
    return index.view(shape), similarity.view(shape)


def flat(init: Tensor | None) -> Tensor | None:
    """Initial matches as kernels read them: int32 `(items, any number, queries)`."""
    return None if init is None else init.flatten(3).flatten(0, 1).int().contiguous()


def run(
    search: Search,
    candidates: Candidates,
    k: int,
    wanted: int,
    iterations: int,
    seed: int,
    first: int,
    init: Tensor | None,
) -> StoredTopK:
    """Search all items for k matches each.

    Args:
        wanted: Says how many random keys the lists start from: DRAWS_PER_MATCH times as many.
        first: What the random numbers of the start take for the iteration; those after it count on from there.
        init: Matches to start from, `(items, any number, queries)`.
    """
    blocks, limits, device = search.blocks, search.limits, search.pairs.query.pixels.device
    count = blocks.query.t * blocks.query.y * blocks.query.x
    dtype = torch.float64 if search.pairs.COMPUTE.value == tl.float64 else torch.float32
    items, grid = blocks.items, blocks.grid
    # What a neighbor held when a distance was last looked at has been tried, and lists only get better: only what
    # entered since needs a look. (Where matches make way for the sake of separation, all does.)
    dated = not limits.SEPARATED.value
    lists, spare = (stored(items, k, count, dtype, device, dated) for _ in range(2))
    held = 0 if init is None else init.shape[1]
    drawn = DRAWS_PER_MATCH * wanted
    tries = max(drawn, MAX_LISTED)
    # Long lists leave ptxas nothing to take; those that are not dated do.
    ptx_options = FEW_REGISTERS if k <= SHORT or limits.SEPARATED.value else None
    launch(
        _initialize_kernel, grid, device, search, candidates, lists, init, held, drawn, tries, stream(seed, first),
        num_warps=WARPS, ptx_options=ptx_options,
    )  # fmt: skip
    scales = max(limits.key).bit_length()
    seen, step = dict.fromkeys(PROPAGATION_DISTANCES, 0), 0
    for iteration in range(1, iterations + 1):
        for distance in PROPAGATION_DISTANCES:
            step += 1
            launch(
                _propagate_kernel, grid, device, search, lists, spare, distance, seen[distance], step,
                num_warps=WARPS, ptx_options=ptx_options,
            )  # fmt: skip
            seen[distance] = step
            lists, spare = spare, lists
        step += 1
        launch(
            _random_search_kernel, grid, device, search, lists, max(limits.key), scales,
            stream(seed, first + iteration), step, num_warps=WARPS, ptx_options=ptx_options,
        )  # fmt: skip
    return lists


@triton.jit(do_not_specialize=["stream"])
def _initialize_kernel(search, candidates, lists, init, held, drawn, tries, stream):
    """Fill the lists with the initial matches, then at random; small sets of keys are gone through instead."""
    limits = search.limits
    queries = block_of_queries(search.blocks)
    count = search.blocks.query.t * search.blocks.query.y * search.blocks.query.x
    exists = _searched(search, queries)
    sides = sides_of(search.pairs, queries, exists)
    window = offset_window(limits, queries)
    found = empty_lists(queries.flat, lists.K, search.pairs.COMPUTE)
    if init is not None:
        for n in range(held):
            place = (queries.item.to(tl.int64) * held + n) * count + queries.flat
            key = tl.load(init + place, mask=exists, other=-1)
            found = offer(search, queries, sides, window, found, key, exists, 0, lists.K)
    own = own_stream(stream, queries.item % limits.heads, queries.flat)
    num_candidates = count_candidates(candidates, limits, queries, window)
    go_through = num_candidates <= tries
    last = tl.where(go_through, num_candidates, drawn)
    nothing = tl.zeros_like(last)
    trial = 0
    waiting = exists & (last > 0) & (found.index[lists.K - 1] < 0)
    while (trial < tries) & (tl.max(waiting.to(tl.int32), 0) > 0):
        number = tl.where(go_through, trial, draw(own, nothing + trial, nothing, num_candidates - 1))
        key = nth_candidate(candidates, limits, queries, window, number, waiting)
        found = offer(search, queries, sides, window, found, key, waiting, 0, lists.K)
        trial += 1
        waiting = exists & (trial < last) & (found.index[lists.K - 1] < 0)
    store_lists(lists, queries, count, found)


@triton.jit(do_not_specialize=["distance", "since", "step"])
def _propagate_kernel(search, before, after, distance, since, step):
    """Try the matches of the neighbors at a distance, shifted back by it (Algorithm 1 of PSAL, lines 3 to 7).

    What later queries hold depends on their own features: under causality they are not asked.
    """
    limits = search.limits
    queries = block_of_queries(search.blocks)
    count = search.blocks.query.t * search.blocks.query.y * search.blocks.query.x
    exists = _searched(search, queries)
    sides = sides_of(search.pairs, queries, exists)
    window = offset_window(limits, queries)
    found = load_lists(before, queries, count)
    # Even directions lead to earlier queries.
    for direction in range(2 * (3 - limits.DIMS), 6, 2 if limits.IS_CAUSAL else 1):
        sign = (direction % 2) * 2 - 1
        by = step_along(direction // 2, sign * distance)
        neighbor = flatten(Extent(queries.t + by.t, queries.y + by.y, queries.x + by.x), limits.query)
        asked = exists & (neighbor >= 0)
        for slot in range(before.K):
            place = (queries.item * before.K + slot).to(tl.int64) * count + neighbor
            new = asked
            if before.born is not None:
                new = asked & (tl.load(before.born + place, mask=asked, other=-1) >= since)
            theirs = tl.load(before.index + place, mask=new, other=-1)
            there = place_of(theirs, limits.key)
            key = flatten(Extent(there.t - by.t, there.y - by.y, there.x - by.x), limits.key)
            found = offer(search, queries, sides, window, found, key, theirs >= 0, step, before.K)
    store_lists(after, queries, count, found)


@triton.jit(do_not_specialize=["stream", "step"])
def _random_search_kernel(search, lists, largest, scales, stream, step):
    """Try one random key in each of a series of windows around the best match, each half the size of the last."""
    limits = search.limits
    queries = block_of_queries(search.blocks)
    count = search.blocks.query.t * search.blocks.query.y * search.blocks.query.x
    exists = _searched(search, queries)
    sides = sides_of(search.pairs, queries, exists)
    window = offset_window(limits, queries)
    reach = reach_of(limits, queries)
    own = own_stream(stream, queries.item % limits.heads, queries.flat)
    found = load_lists(lists, queries, count)
    best = found.index[0]
    exists = exists & (best >= 0)
    center = place_of(best, limits.key)
    for scale in range(scales):
        number = tl.zeros_like(best) + scale * limits.DIMS
        key = draw_near(own, number, center, largest >> scale, reach, limits)
        found = offer(search, queries, sides, window, found, key, exists, step, lists.K)
    store_lists(lists, queries, count, found)


@triton.jit
def _searched(search, queries):
    exists = chosen(search.limits, queries)
    if search.active is not None:
        item = tl.zeros_like(queries.flat) + queries.item
        exists = exists & (tl.load(search.active + item, mask=exists, other=0) != 0)
    return exists


@triton.jit
def offer(search, queries, sides, window, lists, key, wanted, step, K: tl.constexpr):
    """Measure a key for each query that wants it and may have it, and put it into the list."""
    key = tl.where(wanted, key, -1)
    wanted = admissible(search.limits, queries, window, key) & ~contains(lists, key, K)
    if search.taken is not None:
        count = search.blocks.query.t * search.blocks.query.y * search.blocks.query.x
        for n in range(search.taken.count):
            place = (queries.item.to(tl.int64) * search.taken.slots + n) * count + queries.flat
            other = tl.load(search.taken.index + place, mask=wanted, other=-1)
            wanted = wanted & ~((other >= 0) & conflicting(search.taken.of, other, key))
    # Most candidates were there before: what no query of the block wants is not even asked for.
    similarity = tl.full([wanted.shape[0]], float("-inf"), search.pairs.COMPUTE)
    if tl.max(wanted.to(tl.int32), 0) > 0:
        similarity = measure(search.pairs, sides, key, wanted)
    return insert(lists, search.limits, key, similarity, step, K)
