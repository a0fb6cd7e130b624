"""Metropolis-Hastings: chains that begin at the modes and explore what is around them; SCRAM, section 4.2.2."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from patchattn.kernels.cpu.batch import Each, groups, item_kernel, run_items
from patchattn.kernels.cpu.constraints import admissible
from patchattn.kernels.cpu.fields import lists_of, store_lists
from patchattn.kernels.cpu.gaussian import cumulated_weights, draw_offset
from patchattn.kernels.cpu.grid import place_in
from patchattn.kernels.cpu.items import pairs_of
from patchattn.kernels.cpu.patch_similarity import CHUNK, measure_pair, offset_of
from patchattn.kernels.cpu.random import WORDS, draw, mix, streams_of
from patchattn.kernels.gaussian import CHAIN_STREAM
from patchattn.problem import Constraints, PatchGeometry

__all__ = ["sample_chains"]


def sample_chains(
    query: Tensor,
    key: Tensor,
    modes: Tensor,
    geometry: PatchGeometry,
    constraints: Constraints,
    scale: tuple[float, ...],
    temperature: float,
    chains: int,
    steps: int,
    seed: int,
) -> tuple[Tensor, Tensor]:
    """Run `chains` chains of `steps` steps from every mode, with the target exp(similarity / temperature).

    Returns:
        int32 states after each step, `(B, heads, k * chains * steps, *query)`, chain by chain, -1 where there is no
        mode; and the share of steps that were accepted, float32 `(B, heads, *query)`.
    """
    k, count = modes.shape[2], prod(modes.shape[3:])
    index = torch.empty((*modes.shape[:2], k * chains * steps, *modes.shape[3:]), dtype=torch.int32)
    acceptance = torch.empty((*modes.shape[:2], *modes.shape[3:]), dtype=torch.float32)
    items = modes.shape[0] * modes.shape[1]
    pairs, tables = pairs_of(query, key, geometry, constraints), cumulated_weights(scale)
    streams = Each(streams_of(seed, CHAIN_STREAM, modes.shape[1]))
    for group in groups(items, count):
        states = np.empty((len(group), count * k * chains * steps), np.int32)
        run_items(
            _chains_range, group, count, CHUNK // 8, pairs, Each(lists_of(modes, group)), k, tables,
            float(temperature), chains, steps, streams, Each(states),
            Each(acceptance.view(items, count).numpy()),
        )  # fmt: skip
        store_lists(states, group, index)
    return index, acceptance


@item_kernel()
def _chains_range(
    low: int, high: int, pairs: Any, modes: Any, k: int, tables: Any, temperature: float, chains: int, steps: int,
    streams: Any, states: Any, acceptance: Any,
) -> None:  # fmt: skip
    p, limits = pairs.patches, pairs.limits
    c_t, c_y, c_x = tables
    dims = limits.dims
    nothing = -pairs.query.dtype.type(np.inf)
    for i in range(low, high):
        at = i * k * chains * steps
        for n in range(at, at + k * chains * steps):
            states[n] = -1
        acceptance[i] = 0
        if pairs.query_mask.size > 0 and not pairs.query_mask[i]:
            continue
        own_draws = mix(np.uint32(streams[0] ^ np.uint32(i)))
        q_start = offset_of(i, p.q_h, p.q_w, p.q_slice, p.q_row, p.channels)
        accepted, made = 0, 0
        for chain in range(k * chains):
            j = np.int64(modes[i * k + chain // chains])
            if j < 0:
                continue
            t, y, x = place_in(j, p)
            k_start = t * p.k_slice + y * p.k_row + x * p.channels
            here = measure_pair(pairs, q_start, k_start, i, j, nothing)
            if not here > nothing:
                here = nothing  # NaN: whatever can be compared is better
            for step in range(chain * steps, (chain + 1) * steps):
                word = step * (dims + 1)
                # Offsets come from the whole table, and what leaves the image is refused: so the way back is as likely.
                n_t, n_y, n_x = t, y, x
                if dims == 3:
                    n_t += draw_offset(c_t, -c_t.size, draw(own_draws, word, 0, c_t[c_t.size - 1] - 1))
                if dims >= 2:
                    n_y += draw_offset(c_y, -c_y.size, draw(own_draws, word + dims - 2, 0, c_y[c_y.size - 1] - 1))
                n_x += draw_offset(c_x, -c_x.size, draw(own_draws, word + dims - 1, 0, c_x[c_x.size - 1] - 1))
                if 0 <= n_t < p.k_t and 0 <= n_y < p.k_h and 0 <= n_x < p.k_w:
                    proposal = (n_t * p.k_h + n_y) * p.k_w + n_x
                    if admissible(i, proposal, pairs.key_mask, p, limits):
                        k_start = n_t * p.k_slice + n_y * p.k_row + n_x * p.channels
                        there = measure_pair(pairs, q_start, k_start, i, proposal, nothing)
                        chance = (draw(own_draws, word + dims, 0, WORDS - 1) + 0.5) / WORDS
                        if there > nothing and chance < np.exp((np.float64(there) - np.float64(here)) / temperature):
                            t, y, x, j, here = n_t, n_y, n_x, proposal, there
                            accepted += 1
                states[at + step] = j
            made += steps
        if made > 0:
            acceptance[i] = accepted / made
