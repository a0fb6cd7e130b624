"""Guided search: propagation-assisted k-d tree search.

Propagation-assisted k-d trees are He and Sun's (2012): neighbors say where to look, a k-d tree what else is there.

Patches become a few integers, their principal components (`projection.py`), keys the leaves of a tree (`tree.py`). Each
query begins with the leaf that the tree leads it to (`guided_seed.py`). Then scans go over the image, alternately first
to last and last to first (`guided_scan.py`): where the match of a neighbor that was just visited, moved along with it,
lies in a leaf, all keys of that leaf are compared (`ranked.py`). At the end each list is measured in full
(`guided_finish.py`).
"""

from __future__ import annotations

from math import prod

import torch
import triton
import triton.language as tl
from torch import Tensor

from patchattn.kernels.gpu.candidates import Candidates, candidates_of
from patchattn.kernels.gpu.grid import blocks_of
from patchattn.kernels.gpu.guided_finish import finish_kernel
from patchattn.kernels.gpu.guided_scan import bands_of, scan_kernel
from patchattn.kernels.gpu.guided_seed import seed_kernel
from patchattn.kernels.gpu.launch import FEW_REGISTERS, block_size, launch
from patchattn.kernels.gpu.padded_image import compute_dtype
from patchattn.kernels.gpu.patch_similarity import WARPS
from patchattn.kernels.gpu.patchmatch import Search, as_field, flat, run, search_of
from patchattn.kernels.gpu.projection import Positions, fit_basis, fit_projection, project, sides_to_project
from patchattn.kernels.gpu.random import stream
from patchattn.kernels.gpu.ranked import Ranked
from patchattn.kernels.gpu.topk import stored
from patchattn.kernels.gpu.tree import build_tree
from patchattn.kernels.parameters import (
    DRAWS_PER_MATCH,
    LATEST_SCAN,
    LEAF_SIZE,
    MAX_COMPONENTS,
    MAX_LISTED,
    MIN_EXPLAINED_VARIANCE,
    PATCHMATCH_ITERATIONS,
    RANKED_BY_COMPONENTS,
    SEED_LEAVES,
    ranked_length,
)
from patchattn.problem import Constraints, PatchGeometry
from patchattn.reuse import current_preparations

__all__ = ["search_guided"]

SEED_BLOCK = 32


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
    """Find k matches for every query by the guided search; see `patchattn.match`."""
    search, candidates, start = search_of(query, key, geometry, constraints), candidates_of(constraints), flat(init)
    index, similarity, explained = _search(
        search, candidates, geometry, constraints, query, key, k, iterations, seed, start
    )
    if geometry.similarity.name not in RANKED_BY_COMPONENTS:
        lists = run(search, candidates, k, k, iterations, seed, 0, index)
        index, similarity = lists.index, lists.similarity
    if explained is not None:
        # Whether PatchMatch searches is a number on the device: its programs end at once where it is not wanted.
        unguided = (explained < MIN_EXPLAINED_VARIANCE).to(torch.uint8)
        more = max(iterations, PATCHMATCH_ITERATIONS)
        others = run(search._replace(active=unguided), candidates, k, k, more, seed, 0, start)
        wanted = unguided.bool()[:, None, None]
        index = torch.where(wanted, others.index, index)
        similarity = torch.where(wanted, others.similarity, similarity)
    return as_field(index, similarity, query, geometry)


def _search(
    search: Search,
    candidates: Candidates,
    geometry: PatchGeometry,
    constraints: Constraints,
    query: Tensor,
    key: Tensor,
    k: int,
    iterations: int,
    seed: int,
    init: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return index and similarity, `(items, k, queries)`, and the share of the variance that the projection explains,
    None where it is certainly enough.
    """
    pairs, limits, blocks, device = search.pairs, search.limits, search.blocks, query.device
    items, count, num_keys = blocks.items, prod(query.shape[2:]), prod(key.shape[2:])
    dtype = compute_dtype(query, key)
    query_side, key_side = sides_to_project(pairs, items, blocks.query, dtype)
    queries = _positions(constraints.query_mask, query.shape[0], limits.heads, count, device)
    keys = _positions(constraints.key_mask, query.shape[0], limits.heads, num_keys, device)
    preparations, owners, name = current_preparations(), (key, constraints.key_mask), (geometry, items)
    basis = preparations.find(owners, name, lambda: fit_basis(pairs, key_side, keys))
    fit = fit_projection(pairs, basis, query_side, queries)
    if preparations.keeps:
        # There is a tree for each scale, which the host must know: only who asked for reuse waits for it.
        name = (*name, *fit.scale.tolist())
    tree = preparations.find(owners, (*name, "tree"), lambda: build_tree(project(pairs, key_side, fit), keys))
    query_components = project(pairs, query_side, fit).view(torch.int32)
    length = ranked_length(k)
    ranked = Ranked(
        limits, tree, query_components, fit.num_components // 2, count, num_keys,
        tl.constexpr(length), tl.constexpr(triton.next_power_of_2(length)),
        tl.constexpr(block_size(1, MAX_COMPONENTS // 2)),
    )  # fmt: skip
    entries = torch.empty((items, count, length), dtype=torch.int64, device=device)
    held = 0 if init is None else init.shape[1]
    # Long lists are tiles of several registers for every thread of few warps.
    warps, ptx_options = (4, None) if length == LEAF_SIZE else (16, FEW_REGISTERS)
    drawn = DRAWS_PER_MATCH * k
    seed_blocks = blocks_of(blocks.query, items, SEED_BLOCK)
    launch(
        seed_kernel, seed_blocks.grid, device, ranked, seed_blocks, candidates, entries, init, held, tl.constexpr(k),
        drawn, max(drawn, MAX_LISTED), SEED_LEAVES, stream(seed, 0), num_warps=warps, ptx_options=ptx_options,
    )  # fmt: skip
    bands = bands_of(blocks)
    for scan in range(1, iterations + 1):
        # The neighbors on this side were looked at two scans ago: what they held then has been tried.
        inside, outside = (0, 0) if scan < 3 else (min(scan - 1, LATEST_SCAN), min(scan - 2, LATEST_SCAN))
        launch(
            scan_kernel, bands.grid, device, ranked, bands, entries, entries.clone(), -1 if scan % 2 else 1,
            min(scan, LATEST_SCAN), inside, outside, max(limits.key), max(limits.key).bit_length(), stream(seed, scan),
            num_warps=warps, ptx_options=FEW_REGISTERS,
        )  # fmt: skip
    lists = stored(items, k, count, dtype, device)
    launch(
        finish_kernel, blocks.grid, device, search, ranked, entries, init, held, lists,
        num_warps=WARPS, ptx_options=FEW_REGISTERS,
    )  # fmt: skip
    short = pairs.T.value * pairs.Y.value * pairs.X.value * pairs.key.CHANNELS.value < tree.WORDS.value * 2
    return lists.index, lists.similarity, None if short else fit.explained


def _positions(mask: Tensor | None, batch: int, heads: int, count: int, device: torch.device) -> Positions:
    """The positions where a mask is True, all without a mask, for each item."""
    if mask is None:
        order = torch.arange(count, device=device).repeat(batch * heads, 1)
        return Positions(order, torch.full((batch * heads,), count, device=device))
    rows = mask.flatten(1)
    order = torch.sort((~rows).to(torch.uint8), dim=1, stable=True).indices
    per_item = order.expand(batch, -1).repeat_interleave(heads, 0)
    return Positions(per_item, rows.sum(1).expand(batch).repeat_interleave(heads, 0))
