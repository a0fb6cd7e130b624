"""Exact search, streaming: the n x n similarities exist one block at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from patchattn.kernels.arguments import Constraints, PatchGeometry
from patchattn.kernels.cpu.compiler import inlined, kernel
from patchattn.kernels.cpu.items import Item, no_matches, search_items
from patchattn.kernels.cpu.matches import Index, Lists, admissible, domain, insert, too_near
from patchattn.kernels.cpu.measure import CHUNK, L1, L2, POINTWISE, measure, offset_of
from patchattn.kernels.cpu.pool import run_ranges
from patchattn.kernels.cpu.unfold import unfold
from patchattn.progress import report

__all__ = ["search_exact"]

BLOCK = 2048
"""Queries, and keys, in one block: 16 MiB of products in single precision."""
SCAN_CHUNK = 64


def search_exact(
    query: Tensor, key: Tensor, k: int, geometry: PatchGeometry, constraints: Constraints
) -> tuple[Tensor, Tensor]:
    """Find the k best keys of every query by looking at all of them; see `patchattn.match`."""
    return search_items(query, key, k, geometry, constraints, None, lambda item: _search_item(item, k))


def _search_item(item: Item, k: int) -> Lists:
    limits = item.limits
    if item.patches.kind not in (L1, POINTWISE) and not limits.separated and not limits.has_window:
        lists = _search_by_products(item.pair, k, item.number / item.items, item.items)
    else:
        lists = no_matches(item.count, k, item.pair[0].dtype)
        run_ranges(_scan_range, item.count, SCAN_CHUNK, *item.pair, *lists, k)
    report(item.number + 1, item.items)
    return lists


def _search_by_products(pair: tuple[Any, ...], k: int, done: float, items: int) -> Lists:
    """Rank all keys by matrix products, keep a few more than k, and measure those exactly.

    Only the queries and keys that take part are unfolded, so that a sample of them costs no more than it must.
    """
    query, key, _, k_norms, _, _, patches, limits, query_mask, key_mask = pair
    count = patches.q_t * patches.q_h * patches.q_w
    keys = patches.k_t * patches.k_h * patches.k_w
    chosen = np.flatnonzero(query_mask) if query_mask.size else np.arange(count)
    allowed = np.flatnonzero(key_mask) if key_mask.size else np.arange(keys)
    # Products round differently from the sum of squared differences: the spare places keep what that might misplace.
    kept = min(k + max(4, k // 2), keys)
    ranked = no_matches(count, kept, query.dtype)
    if patches.kind == L2:
        query, key = _centred(query, key, patches.channels, limits.is_causal)
    elements = patches.slices * patches.rows * patches.length
    tensor = lambda *shape: torch.empty(shape, dtype=torch.from_numpy(query[:1]).dtype)  # noqa: E731
    q_block, k_block, products = tensor(BLOCK, elements), tensor(BLOCK, elements), tensor(BLOCK * BLOCK)
    bias = tensor(BLOCK)
    for q_low in range(0, chosen.size, BLOCK):
        positions = chosen[q_low : q_low + BLOCK]
        q_size = positions.size
        unfold(positions, query, k_norms[:0], patches, False, q_block.numpy())
        for k_low in range(0, allowed.size, BLOCK):
            columns = allowed[k_low : k_low + BLOCK]
            k_size = columns.size
            unfold(columns, key, k_norms, patches, True, k_block.numpy())
            block = products[: q_size * k_size].view(q_size, k_size)
            if patches.kind == L2:
                # argmin |q - k|^2 = argmax 2 q.k - |k|^2
                torch.linalg.vecdot(k_block[:k_size], k_block[:k_size], out=bias[:k_size])
                bias.neg_()
                torch.addmm(bias[:k_size], q_block[:q_size], k_block[:k_size].T, alpha=2, out=block)
            else:
                torch.mm(q_block[:q_size], k_block[:k_size].T, out=block)
            run_ranges(
                _keep_best_range, q_size, SCAN_CHUNK, block.numpy(), positions, columns, patches, limits, key_mask,
                *ranked, kept,
            )  # fmt: skip
        report(round(1000 * (done + (q_low + q_size) / chosen.size / items)), 1000)
    lists = no_matches(count, k, query.dtype)
    run_ranges(_rerank_range, count, CHUNK, *pair, *ranked, *lists, kept, k)
    return lists


def _centred(
    query: NDArray[Any], key: NDArray[Any], channels: int, is_causal: bool
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Subtract about the keys' mean colour: squared differences stay the same, and the products lose fewer digits.

    Under causality it is the first pixel's colour: nothing may depend on what comes later, not by its last bit.

    The mean is rounded to six binary digits, so that whole-numbered features still give exact products, and equal
    distances stay equal.
    """
    pixels = key[: key.size // channels * channels].reshape(-1, channels)
    if is_causal:
        pixels = pixels[:1]
    mean = np.where(np.isfinite(pixels), pixels, 0).mean(0, dtype=np.float64)
    fraction, exponent = np.frexp(mean)
    mean = np.ldexp(np.round(fraction * 64) / 64, exponent).astype(key.dtype)
    return tuple((image.reshape(-1, channels) - mean).reshape(-1) for image in (query, key))


@kernel(vectorize=True)
def _keep_best_range(
    low: int, high: int, products: Any, positions: Any, key_positions: Any, patches: Any, limits: Any, key_mask: Any,
    index: Any, similarity: Any, born: Any, k: int,
) -> None:  # fmt: skip
    """Insert what is better than the last of each list; whole stretches of 128 are passed over by one test."""
    columns = products.shape[1]
    for r in range(low, high):
        i = positions[r]
        start = Index(i * k)
        last = start + Index(k - 1)
        for stretch in range(0, columns, 128):
            end = min(stretch + 128, columns)
            worst = similarity[last]
            better = 0
            for c in range(stretch, end):
                better += products[r, c] > worst
            if better == 0:
                continue
            for c in range(stretch, end):
                s = products[r, c]
                j = key_positions[c]
                if s > similarity[last] and admissible(i, j, key_mask, patches, limits):
                    insert(j, s, index, similarity, born, 0, start, Index(k), patches, limits)


@inlined
def _sort(values: Any, low: int, high: int) -> None:
    for n in range(low + 1, high):
        value = values[n]
        at = n
        while at > low and values[at - 1] > value:
            values[at] = values[at - 1]
            at -= 1
        values[at] = value


@kernel()
def _rerank_range(
    low: int, high: int, query: Any, key: Any, q_norms: Any, k_norms: Any, scale: Any, function: Any, patches: Any,
    limits: Any, query_mask: Any, key_mask: Any, ranked: Any, ranked_similarity: Any, ranked_born: Any,
    index: Any, similarity: Any, born: Any, kept: int, k: int,
) -> None:  # fmt: skip
    p = patches
    nothing = -query.dtype.type(np.inf)
    for i in range(low, high):
        q_start = offset_of(i, p.q_h, p.q_w, p.q_slice, p.q_row, p.channels)
        _sort(ranked, i * kept, (i + 1) * kept)  # of equally similar keys the first comes first
        for n in range(i * kept, (i + 1) * kept):
            j = np.int64(ranked[n])
            if j >= 0:
                k_start = offset_of(j, p.k_h, p.k_w, p.k_slice, p.k_row, p.channels)
                s = measure(query, q_start, key, k_start, i, j, q_norms, k_norms, scale, function, patches, nothing)
                insert(j, s, index, similarity, born, 0, Index(i * k), Index(k), patches, limits)


@inlined
def _is_apart(j: int, index: Any, start: Any, chosen: int, patches: Any, limits: Any) -> bool:
    for m in range(chosen):
        other = index[start + Index(m)]
        if other >= 0 and too_near(j, other, patches, limits):
            return False
    return True


@kernel()
def _scan_range(
    low: int, high: int, query: Any, key: Any, q_norms: Any, k_norms: Any, scale: Any, function: Any, patches: Any,
    limits: Any, query_mask: Any, key_mask: Any, index: Any, similarity: Any, born: Any, k: int,
) -> None:  # fmt: skip
    """Measure every key within reach, one after the other.

    With a separation, the list that holds only matches apart from each other depends on the order in which keys come;
    what is asked for is the greedy choice, so the keys are gone through once for each match.
    """
    p = patches
    nothing = -query.dtype.type(np.inf)
    rounds = k if limits.separated else 1
    for i in range(low, high):
        if query_mask.size > 0 and not query_mask[i]:
            continue
        start = Index(i * k)
        q_start = offset_of(i, p.q_h, p.q_w, p.q_slice, p.q_row, p.channels)
        t0, t1, y0, y1, x0, x1 = domain(i, patches, limits)
        for m in range(rounds):
            best = nothing
            best_j = np.int64(-1)
            for t in range(t0, t1 + 1):
                for y in range(y0, y1 + 1):
                    for x in range(x0, x1 + 1):
                        j = (t * p.k_h + y) * p.k_w + x
                        if not admissible(i, j, key_mask, patches, limits):
                            continue
                        worst = best if limits.separated else similarity[start + Index(k - 1)]
                        if limits.separated and not _is_apart(j, index, start, m, patches, limits):
                            continue
                        k_start = t * p.k_slice + y * p.k_row + x * p.channels
                        s = measure(
                            query, q_start, key, k_start, i, j, q_norms, k_norms, scale, function, patches, worst
                        )
                        if not limits.separated:
                            insert(j, s, index, similarity, born, 0, start, Index(k), patches, limits)
                        elif s > best:
                            best, best_j = s, j
            if limits.separated and best_j >= 0:
                index[start + Index(m)] = best_j
                similarity[start + Index(m)] = best
