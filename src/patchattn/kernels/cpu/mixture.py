"""Samples of keys around the modes and from everywhere, with their density: SCRAM's equations (12) and (17)."""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from patchattn.kernels.cpu.batch import Each, groups, item_kernel, run_items
from patchattn.kernels.cpu.candidates import count_candidates, nth_candidate, reach
from patchattn.kernels.cpu.compiler import inlined
from patchattn.kernels.cpu.constraints import admissible, candidate_rows, limits_of, mask_rows
from patchattn.kernels.cpu.fields import lists_of, store_lists
from patchattn.kernels.cpu.gaussian import cumulated_weights, draw_offset, weight_at, weight_between
from patchattn.kernels.cpu.grid import grid_of, place_in
from patchattn.kernels.cpu.patch_similarity import CHUNK
from patchattn.kernels.cpu.random import WORDS, draw, mix, streams_of
from patchattn.kernels.gaussian import MIXTURE_STREAM
from patchattn.problem import Constraints

__all__ = ["sample_mixture"]


class Mixture(NamedTuple):
    """The distribution that keys are drawn from."""

    c_t: NDArray[np.int64]
    """Cumulated weights of the Gaussian along each dimension."""
    c_y: NDArray[np.int64]
    c_x: NDArray[np.int64]
    threshold: int
    """A random word below it draws from the Gaussians."""
    samples: int


class Allowed(NamedTuple):
    """The queries and keys that take part, for each item."""

    query_mask: Each
    key_mask: Each
    keys: Each
    """The allowed ones in ascending order, filled up."""
    up_to: Each
    """For causal search, how many of them each query may match; else empty."""
    size: Each
    """Number of allowed keys."""


def sample_mixture(
    modes: Tensor,
    key_shape: tuple[int, ...],
    constraints: Constraints,
    scale: tuple[float, ...],
    alpha: float,
    samples: int,
    seed: int,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """Draw `samples` keys for each query, each from a Gaussian about one of its modes, or evenly from all its keys.

    Returns:
        int32 keys and the logarithm of their density, `(B, heads, samples, *query)`; -1 and 0 for a draw that is not
        admissible.
    """
    query_shape = tuple(modes.shape[3:])
    grid, limits = grid_of(query_shape, key_shape), limits_of(constraints, len(key_shape))
    k, count = modes.shape[2], prod(query_shape)
    index = torch.empty((*modes.shape[:2], samples, *query_shape), dtype=torch.int32)
    log_density = torch.empty(index.shape, dtype=dtype)
    heads = modes.shape[1]
    items = modes.shape[0] * heads
    mixture = Mixture(*cumulated_weights(scale), round(alpha * WORDS), samples)
    streams = Each(streams_of(seed, MIXTURE_STREAM, heads))
    masks = (mask_rows(mask, heads) for mask in (constraints.query_mask, constraints.key_mask))
    allowed = Allowed(*map(Each, (*masks, *candidate_rows(constraints, key_shape, heads))))

    def scratch() -> tuple[tuple[NDArray[Any], ...]]:
        return ((np.empty((k, 3), np.int64), np.empty((k, 3), np.int64)),)

    for group in groups(items, count):
        keys = np.empty((len(group), count * samples), np.int32)
        logs = np.empty(keys.shape, log_density.numpy().dtype)
        run_items(
            _mixture_range, group, count, CHUNK, Each(lists_of(modes, group)), k, mixture, streams, grid, limits,
            allowed, Each(keys), Each(logs), scratch=scratch,
        )  # fmt: skip
        store_lists(keys, group, index)
        store_lists(logs, group, log_density)
    return index, log_density


@item_kernel()
def _mixture_range(
    low: int, high: int, modes: Any, k: int, mixture: Any, streams: Any, grid: Any, limits: Any, allowed: Any,
    keys: Any, logs: Any, scratch: Any,
) -> None:  # fmt: skip
    g, c_t, c_y, c_x, samples = grid, mixture.c_t, mixture.c_y, mixture.c_x, mixture.samples
    query_mask, candidates, up_to = allowed.query_mask, allowed.keys[: allowed.size[0]], allowed.up_to
    places, totals = scratch
    dims = limits.dims
    for i in range(low, high):
        at = i * samples
        for n in range(at, at + samples):
            keys[n] = -1
            logs[n] = 0
        num_candidates = count_candidates(i, candidates, up_to, g, limits)
        if num_candidates < 1 or (query_mask.size > 0 and not query_mask[i]):
            continue
        t0, t1, y0, y1, x0, x1 = reach(i, g, limits)
        valid = 0
        for m in range(i * k, (i + 1) * k):
            if modes[m] >= 0:
                t, y, x = place_in(np.int64(modes[m]), g)
                places[valid, 0], places[valid, 1], places[valid, 2] = t, y, x
                totals[valid, 0] = weight_between(c_t, t0 - t, t1 - t)
                totals[valid, 1] = weight_between(c_y, y0 - y, y1 - y)
                totals[valid, 2] = weight_between(c_x, x0 - x, x1 - x)
                valid += 1
        own = mixture.threshold if valid > 0 else 0
        own_draws = mix(np.uint32(streams[0] ^ np.uint32(i)))
        for n in range(samples):
            word = n * (2 + dims)
            if draw(own_draws, word, 0, WORDS - 1) < own:
                m = draw(own_draws, word + 1, 0, valid - 1)
                if totals[m, 0] == 0 or totals[m, 1] == 0 or totals[m, 2] == 0:
                    continue  # a mode from another search, out of reach
                t, y, x = places[m, 0], places[m, 1], places[m, 2]
                # The dimensions in front that the image does not have draw no numbers.
                if dims == 3:
                    t += draw_offset(c_t, t0 - t, draw(own_draws, word + 2, 0, totals[m, 0] - 1))
                if dims >= 2:
                    y += draw_offset(c_y, y0 - y, draw(own_draws, word + dims, 0, totals[m, 1] - 1))
                x += draw_offset(c_x, x0 - x, draw(own_draws, word + 1 + dims, 0, totals[m, 2] - 1))
                j = (t * g.k_h + y) * g.k_w + x
            else:
                j = nth_candidate(i, draw(own_draws, word + 1, 0, num_candidates - 1), candidates, g, limits)
                t, y, x = place_in(j, g)
            if not admissible(i, j, allowed.key_mask, g, limits):
                continue
            local = _local_density(t, y, x, places, totals, valid, c_t, c_y, c_x)
            share = own / WORDS
            keys[at + n] = j
            logs[at + n] = np.log(share * local + (1 - share) / num_candidates)


@inlined
def _local_density(t: int, y: int, x: int, places: Any, totals: Any, modes: int, c_t: Any, c_y: Any, c_x: Any) -> float:
    """The mean over the modes of a key's probability under their truncated Gaussians; 0 without modes."""
    total = 0.0
    for m in range(modes):
        if totals[m, 0] == 0 or totals[m, 1] == 0 or totals[m, 2] == 0:
            continue
        total += (
            (weight_at(c_t, t - places[m, 0]) / totals[m, 0])
            * (weight_at(c_y, y - places[m, 1]) / totals[m, 1])
            * (weight_at(c_x, x - places[m, 2]) / totals[m, 2])
        )
    return total / max(modes, 1)
