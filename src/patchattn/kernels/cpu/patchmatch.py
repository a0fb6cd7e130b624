"""PatchMatch by jump flooding: Algorithm 1 of PSAL and of SCRAM, with lists of k matches.

One iteration is four propagation steps (distances 8, 4, 2, 1) and one random search. Every step reads the lists as
they were when it began and writes its own query's list only, so no result depends on the order of the threads.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from patchattn.kernels.cpu.candidates import count_candidates, draw_near, nth_candidate, reach
from patchattn.kernels.cpu.compiler import kernel
from patchattn.kernels.cpu.constraints import admissible
from patchattn.kernels.cpu.grid import place_in
from patchattn.kernels.cpu.items import Item, search_items
from patchattn.kernels.cpu.patch_similarity import CHUNK, measure_pair, offset_of
from patchattn.kernels.cpu.pool import run_ranges
from patchattn.kernels.cpu.random import draw, mix, stream
from patchattn.kernels.cpu.taken import NOTHING_TAKEN, Taken, is_valid, new_taken, take
from patchattn.kernels.cpu.topk import Index, TopK, contains, insert
from patchattn.kernels.parameters import DRAWS_PER_MATCH, MAX_LISTED, PROPAGATION_DISTANCES
from patchattn.problem import Constraints, PatchGeometry
from patchattn.progress import report

__all__ = ["search_item", "search_patchmatch", "search_repeated"]

MAX_SCALES = 32


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
    search = lambda item: search_item(item, k, iterations, seed, item.init)  # noqa: E731
    return search_items(query, key, k, geometry, constraints, init, search)


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
    """Find k matches in k runs for one each, every run excluding what the runs before it took (and what is too near).

    This is how SCRAM's Algorithm 1 finds the top-kappa(max) and the top-kappa(mode).
    """
    search = lambda item: _search_item_repeatedly(item, k, iterations, seed)  # noqa: E731
    return search_items(query, key, k, geometry, constraints, init, search)


def _search_item_repeatedly(item: Item, k: int, iterations: int, seed: int) -> TopK:
    taken = new_taken(item.count, k)
    # A list of one match keeps no distance to others: what is taken sees to that.
    one = replace(item, pairs=item.pairs._replace(limits=item.limits._replace(separated=False)))
    runs = []
    for run in range(k):
        found = search_item(one, 1, iterations, seed, item.init, run, k, taken)
        take(taken, found.indices, item.patches, item.limits)
        runs.append(found)
    # A later run may have found a better match than an earlier one.
    similarity = np.stack([found.similarity for found in runs], axis=1)
    order = np.argsort(-similarity, axis=1, kind="stable")
    parts = (np.stack(part, axis=1) for part in zip(*runs, strict=True))
    return TopK(*(np.take_along_axis(part, order, axis=1).reshape(-1) for part in parts))


def search_item(
    item: Item,
    k: int,
    iterations: int,
    seed: int,
    init: NDArray[np.int32],
    run: int = 0,
    runs: int = 1,
    taken: Taken = NOTHING_TAKEN,
) -> TopK:
    """Search one item, starting from `init`, for what is not taken yet."""
    pairs, masks, limits, head = item.pairs, item.masks, item.limits, item.head
    count, dtype = item.count, pairs.query.dtype
    steps_of_run = iterations + 1
    lists, spare = (
        TopK(np.empty(count * k, np.int32), np.empty(count * k, dtype), np.empty(count * k, np.int32)) for _ in range(2)
    )
    room = max(6 * k, MAX_SCALES)
    before, steps = (item.number * runs + run) * steps_of_run, item.items * runs * steps_of_run

    def scratch() -> tuple[tuple[NDArray[Any], ...]]:
        return ((np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room, dtype)),)

    step = 0
    run_ranges(
        _initialize_range, count, CHUNK, pairs, taken, lists, k, k * runs, stream(seed, run * steps_of_run, head),
        *masks.candidates, init,
    )  # fmt: skip
    report(before + 1, steps)
    seen = dict.fromkeys(PROPAGATION_DISTANCES, 0)
    for iteration in range(1, iterations + 1):
        for distance in PROPAGATION_DISTANCES:
            step += 1
            # What a neighbor held when this distance was last looked at has been tried, and lists only get better
            # (unless matches make way for the sake of separation): only what entered since needs a look.
            since = 0 if limits.separated else seen[distance]
            run_ranges(
                _propagate_range, count, CHUNK, pairs, taken, lists, spare, k, distance, since, step, scratch=scratch
            )
            seen[distance] = step
            lists, spare = spare, lists
        step += 1
        key_of_draws = stream(seed, run * steps_of_run + iteration, head)
        run_ranges(_random_search_range, count, CHUNK, pairs, taken, lists, k, key_of_draws, step, scratch=scratch)
        report(before + 1 + iteration, steps)
    return lists


@kernel()
def _initialize_range(
    low: int, high: int, pairs: Any, taken: Any, lists: Any, k: int, wanted: int, key_of_draws: Any, allowed: Any,
    allowed_up_to: Any, init: Any,
) -> None:  # fmt: skip
    """Fill the lists with the initial matches, then at random; small sets of keys are gone through instead."""
    p, limits, key_mask = pairs.patches, pairs.limits, pairs.key_mask
    index, similarity, born = lists.indices, lists.similarity, lists.born
    length = Index(k)
    held = init.shape[0]
    for i in range(low, high):
        start = Index(i * k)
        last = start + length - Index(1)
        for m in range(length):
            index[start + m] = -1
            similarity[start + m] = -np.inf
            born[start + m] = 0
        if pairs.query_mask.size > 0 and not pairs.query_mask[i]:
            continue
        num_candidates = count_candidates(i, allowed, allowed_up_to, p, limits)
        go_through = num_candidates <= max(DRAWS_PER_MATCH * wanted, MAX_LISTED)
        tries = num_candidates if go_through else DRAWS_PER_MATCH * wanted
        q_start = offset_of(i, p.q_h, p.q_w, p.q_slice, p.q_row, p.channels)
        own_draws = mix(np.uint32(key_of_draws ^ np.uint32(i)))
        for n in range(-held, tries):
            if n < 0:
                j = np.int64(init[held + n, i])
                if j < 0:
                    continue
            else:
                if index[last] >= 0:
                    break
                r = n if go_through else draw(own_draws, n, 0, num_candidates - 1)
                j = nth_candidate(i, r, allowed, p, limits)
            if not admissible(i, j, key_mask, p, limits):
                continue
            if not is_valid(i, j, taken, p, limits):
                continue
            k_start = offset_of(j, p.k_h, p.k_w, p.k_slice, p.k_row, p.channels)
            s = measure_pair(pairs, q_start, k_start, i, j, similarity[last])
            insert(j, s, lists, 0, start, length, p, limits)


@kernel()
def _propagate_range(
    low: int, high: int, pairs: Any, taken: Any, lists: Any, new: Any, k: int, distance: int, since: int, now: int,
    scratch: Any,
) -> None:  # fmt: skip
    """Try the matches of the neighbors at a distance, shifted back by it (Algorithm 1 of PSAL, lines 3 to 7).

    What later queries hold depends on their own features: under causality they are not asked.
    """
    p, limits, key_mask = pairs.patches, pairs.limits, pairs.key_mask
    index, similarity, born = lists.indices, lists.similarity, lists.born
    candidate, k_start, measured = scratch
    length = Index(k)
    # All candidates are found, then all measured, then all inserted: so the processor can measure the next while it
    # still waits for the numbers of the one before.
    for i in range(low, high):
        start = Index(i * k)
        last = start + length - Index(1)
        for m in range(length):
            new.indices[start + m] = index[start + m]
            new.similarity[start + m] = similarity[start + m]
            new.born[start + m] = born[start + m]
        if pairs.query_mask.size > 0 and not pairs.query_mask[i]:
            continue
        row = np.int64(np.uint32(i) // np.uint32(p.q_w))
        x = i - row * p.q_w
        t = np.int64(np.uint32(row) // np.uint32(p.q_h))
        y = row - t * p.q_h
        count = Index(0)
        for direction in range(6):
            shift = distance if direction & 1 else -distance
            if limits.is_causal and shift > 0:
                continue
            d_t, d_y, d_x = 0, 0, 0
            if direction < 2:
                if not 0 <= t + shift < p.q_t:
                    continue
                d_t = shift
            elif direction < 4:
                if not 0 <= y + shift < p.q_h:
                    continue
                d_y = shift
            else:
                if not 0 <= x + shift < p.q_w:
                    continue
                d_x = shift
            neighbor = Index((i + (d_t * p.q_h + d_y) * p.q_w + d_x) * k)
            for m in range(length):
                if born[neighbor + m] < since:
                    continue
                j = np.int64(index[neighbor + m])
                if j < 0:
                    continue
                j_t, j_y, j_x = place_in(j, p)
                j_t, j_y, j_x = j_t - d_t, j_y - d_y, j_x - d_x
                if not (0 <= j_x < p.k_w and 0 <= j_y < p.k_h and 0 <= j_t < p.k_t):
                    continue
                j = (j_t * p.k_h + j_y) * p.k_w + j_x
                if not limits.separated and contains(new.indices, start, length, j):
                    continue
                if not admissible(i, j, key_mask, p, limits):
                    continue
                if not is_valid(i, j, taken, p, limits):
                    continue
                candidate[count] = j
                k_start[count] = j_t * p.k_slice + j_y * p.k_row + j_x * p.channels
                count += Index(1)
        q_start = t * p.q_slice + y * p.q_row + x * p.channels
        worst = similarity[last]
        if limits.separated:
            worst = -pairs.query.dtype.type(np.inf)
        for c in range(count):
            measured[c] = measure_pair(pairs, q_start, k_start[c], i, candidate[c], worst)
        for c in range(count):
            insert(candidate[c], measured[c], new, now, start, length, p, limits)


@kernel()
def _random_search_range(
    low: int, high: int, pairs: Any, taken: Any, lists: Any, k: int, key_of_draws: Any, now: int, scratch: Any
) -> None:  # fmt: skip
    """Try one random key in each of a series of windows around the best match, each half the size of the last."""
    p, limits, key_mask = pairs.patches, pairs.limits, pairs.key_mask
    index, similarity = lists.indices, lists.similarity
    candidate, k_start, measured = scratch
    length = Index(k)
    for i in range(low, high):
        start = Index(i * k)
        last = start + length - Index(1)
        best = np.int64(index[start])
        if best < 0:
            continue
        t, y, x = place_in(best, p)
        bounds = reach(i, p, limits)
        own_draws = mix(np.uint32(key_of_draws ^ np.uint32(i)))
        count = Index(0)
        draws = 0
        radius = max(p.k_t, p.k_h, p.k_w)
        while radius >= 1:
            j_t, j_y, j_x = draw_near(own_draws, draws, t, y, x, radius, bounds, limits.dims)
            draws += 1
            radius //= 2
            j = (j_t * p.k_h + j_y) * p.k_w + j_x
            if not limits.separated and contains(index, start, length, j):
                continue
            if not admissible(i, j, key_mask, p, limits):
                continue
            if not is_valid(i, j, taken, p, limits):
                continue
            candidate[count] = j
            k_start[count] = j_t * p.k_slice + j_y * p.k_row + j_x * p.channels
            count += Index(1)
        q_start = offset_of(i, p.q_h, p.q_w, p.q_slice, p.q_row, p.channels)
        worst = similarity[last]
        if limits.separated:
            worst = -pairs.query.dtype.type(np.inf)
        for c in range(count):
            measured[c] = measure_pair(pairs, q_start, k_start[c], i, candidate[c], worst)
        for c in range(count):
            insert(candidate[c], measured[c], lists, now, start, length, p, limits)
