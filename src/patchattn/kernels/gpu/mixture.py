"""Keys drawn near the modes, and anywhere, with their density: SCRAM's equations (12) and (17)."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from patchattn.kernels.gaussian import MIXTURE_STREAM
from patchattn.kernels.gpu.candidates import Candidates, candidates_of, count_candidates, nth_candidate
from patchattn.kernels.gpu.constraints import Limits, admissible, chosen, limits_of, offset_window, reach_of
from patchattn.kernels.gpu.gaussian import draw_between, gaussians_of, weight_between
from patchattn.kernels.gpu.grid import Blocks, Extent, block_of_queries, blocks_of, place_of, three
from patchattn.kernels.gpu.launch import FEW_REGISTERS, INTERPRETED, launch
from patchattn.kernels.gpu.random import draw, own_stream, stream, word
from patchattn.problem import Constraints

__all__ = ["sample_mixture"]

WARPS = 4
BLOCK = 128
AT_ONCE = 1
"""Samples that a thread draws together: what is known of the query serves them all."""
WORDS = 2**32
"""Number of random words."""


class Mixture(NamedTuple):
    """The distribution that keys are drawn from."""

    modes: Any
    """int32 `(items, k, queries)`."""
    k: Any
    gaussians: Extent
    candidates: Candidates
    limits: Limits
    blocks: Blocks
    threshold: Any
    """A smaller random word draws near a mode."""
    samples: Any
    AT_ONCE: Any


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
    query_shape, device = tuple(modes.shape[3:]), modes.device
    batch, heads, k = modes.shape[:3]
    at_once = triton.next_power_of_2(max(1, samples)) if INTERPRETED else AT_ONCE
    mixture = Mixture(
        modes=modes.flatten(3).flatten(0, 1).int().contiguous(),
        k=k,
        gaussians=gaussians_of(scale, device),
        candidates=candidates_of(constraints),
        limits=limits_of(constraints, query_shape, key_shape, heads),
        blocks=blocks_of(three(query_shape, 1), batch * heads, BLOCK),
        threshold=round(alpha * WORDS),
        samples=samples,
        AT_ONCE=tl.constexpr(at_once),
    )
    index = torch.empty((batch, heads, samples, *query_shape), dtype=torch.int32, device=device)
    log_density = torch.empty(index.shape, dtype=dtype, device=device)
    grid = (*mixture.blocks.grid, triton.cdiv(samples, at_once))
    own = stream(seed, MIXTURE_STREAM)
    launch(_mixture_kernel, grid, device, mixture, index, log_density, own, num_warps=WARPS, ptx_options=FEW_REGISTERS)
    return index, log_density


@triton.jit(do_not_specialize=["stream"])
def _mixture_kernel(mixture, index, log_density, stream):
    limits = mixture.limits
    queries = block_of_queries(mixture.blocks)
    exists = chosen(limits, queries)
    window = offset_window(limits, queries)
    reach = reach_of(limits, queries)
    count = mixture.blocks.query.t * mixture.blocks.query.y * mixture.blocks.query.x
    own = own_stream(stream, queries.item % limits.heads, queries.flat)
    num_candidates = count_candidates(mixture.candidates, limits, queries, window)
    exists = exists & (num_candidates > 0)
    num_modes = tl.zeros_like(queries.flat)
    for slot in range(mixture.k):
        num_modes += (_mode(mixture, queries, slot, exists) >= 0).to(tl.int32)
    threshold = tl.where(num_modes > 0, tl.zeros_like(num_modes).to(tl.int64) + mixture.threshold, 0)
    share = threshold.to(tl.float64) * 2.0**-32
    anywhere = (1 - share) / tl.maximum(num_candidates, 1).to(tl.float64)
    sample = tl.program_id(2) * mixture.AT_ONCE + tl.arange(0, mixture.AT_ONCE)[:, None]
    at = sample * (limits.DIMS + 2)
    wanted = exists[None, :] & (sample < mixture.samples)
    local = wanted & (word(own[None, :], at).to(tl.int64) < threshold[None, :])
    choice_of_mode = draw(own[None, :], at + 1, 0, num_modes[None, :] - 1)
    near = _near_mode(mixture, queries, choice_of_mode, own, at + 2, reach, exists, local)
    number = draw(own[None, :], at + 1, 0, num_candidates[None, :] - 1)
    key = tl.where(local, near, nth_candidate(mixture.candidates, limits, queries, window, number, wanted & ~local))
    allowed = wanted & admissible(limits, queries, window, key)
    density = _density_of_modes(mixture, queries, key, reach, exists, allowed)
    density = share[None, :] * density / tl.maximum(num_modes, 1).to(tl.float64)[None, :] + anywhere[None, :]
    place = (queries.item.to(tl.int64) * mixture.samples * count + queries.flat)[None, :]
    place = place + sample.to(tl.int64) * count
    there = queries.exists[None, :] & (sample < mixture.samples)
    tl.store(index + place, tl.where(allowed, key, -1), mask=there)
    log = tl.log(tl.where(allowed, density, 1.0))
    tl.store(log_density + place, log.to(log_density.dtype.element_ty), mask=there)


@triton.jit
def _mode(mixture, queries, slot, exists):
    count = mixture.blocks.query.t * mixture.blocks.query.y * mixture.blocks.query.x
    place = (queries.item.to(tl.int64) * mixture.k + slot) * count + queries.flat
    return tl.load(mixture.modes + place, mask=exists, other=-1)


@triton.jit
def _near_mode(mixture, queries, number, own, at, reach, exists, wanted):
    """A key near the valid mode of that number; -1 where it is not wanted or the reach holds nothing near it."""
    mode = tl.full(number.shape, -1, tl.int32)
    for slot in range(mixture.k):
        candidate = _mode(mixture, queries, slot, exists)[None, :]
        mode = tl.where((candidate >= 0) & (number == 0), candidate, mode)
        number -= (candidate >= 0).to(tl.int32)
    center = place_of(mode, mixture.limits.key)
    present = wanted & (mode >= 0)
    t = center.t
    y = center.y
    if mixture.limits.DIMS == 3:
        t, there = _drawn(mixture.gaussians.t, own, at, center.t, reach.first.t, reach.last.t)
        present = present & there
    if mixture.limits.DIMS >= 2:
        at_y = at + (mixture.limits.DIMS - 2)
        y, there = _drawn(mixture.gaussians.y, own, at_y, center.y, reach.first.y, reach.last.y)
        present = present & there
    at_x = at + (mixture.limits.DIMS - 1)
    x, there = _drawn(mixture.gaussians.x, own, at_x, center.x, reach.first.x, reach.last.x)
    size = mixture.limits.key
    return tl.where(present & there, (t * size.y + y) * size.x + x, -1)


@triton.jit
def _drawn(gaussian, own, at, center, first, last):
    """A coordinate from `first` to `last` near a center, and whether the Gaussian has any weight there."""
    total = weight_between(gaussian, first[None, :] - center, last[None, :] - center)
    number = draw(own[None, :], at, 0, tl.maximum(total, 1) - 1)
    return center + draw_between(gaussian, first[None, :] - center, number), total > 0


@triton.jit
def _density_of_modes(mixture, queries, key, reach, exists, wanted):
    """The sum over the modes of a key's probability under their truncated Gaussians."""
    place = place_of(tl.where(wanted, key, 0), mixture.limits.key)
    density = tl.zeros(key.shape, tl.float64)
    for slot in range(mixture.k):
        mode = _mode(mixture, queries, slot, exists)
        center = place_of(mode, mixture.limits.key)
        near = tl.full(key.shape, 1, tl.float64)
        if mixture.limits.DIMS == 3:
            near = _probability(mixture.gaussians.t, place.t, center.t, reach.first.t, reach.last.t)
        if mixture.limits.DIMS >= 2:
            near *= _probability(mixture.gaussians.y, place.y, center.y, reach.first.y, reach.last.y)
        near *= _probability(mixture.gaussians.x, place.x, center.x, reach.first.x, reach.last.x)
        density += tl.where((mode >= 0)[None, :], near, 0.0)
    return density


@triton.jit
def _probability(gaussian, coordinate, center, first, last):
    total = weight_between(gaussian, first - center, last - center)
    offset = coordinate - center[None, :]
    weight = weight_between(gaussian, offset, offset).to(tl.float64)
    return tl.where((total > 0)[None, :], weight / tl.maximum(total, 1).to(tl.float64)[None, :], 0.0)
