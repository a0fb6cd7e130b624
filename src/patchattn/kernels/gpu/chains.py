"""Metropolis-Hastings: chains that begin at the modes and explore what is around them; SCRAM, section 4.2.2."""

from __future__ import annotations

from sys import float_info
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from patchattn.kernels.gaussian import CHAIN_STREAM
from patchattn.kernels.gpu.constraints import Limits, admissible, chosen, limits_of, offset_window
from patchattn.kernels.gpu.gaussian import draw_offset, gaussians_of
from patchattn.kernels.gpu.grid import Blocks, Extent, block_of_queries, blocks_of, flatten, place_of, three
from patchattn.kernels.gpu.launch import launch
from patchattn.kernels.gpu.patch_similarity import WARPS, Pairs, measure, pairs_of, sides_of
from patchattn.kernels.gpu.random import draw, own_stream, stream, word
from patchattn.problem import Constraints, PatchGeometry

__all__ = ["sample_chains"]


class Chains(NamedTuple):
    """Settings of the chains."""

    pairs: Pairs
    limits: Limits
    blocks: Blocks
    gaussians: Extent
    modes: Any
    """int32 `(items, k, queries)`."""
    coldness: Any
    """1 / temperature, in a tensor: Triton takes plain numbers as float32 only."""
    k: Any
    chains: Any
    """That begin at each mode."""
    steps: Any


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
    pairs, device, query_shape = pairs_of(query, key, geometry), query.device, tuple(modes.shape[3:])
    batch, heads, k = modes.shape[:3]
    sampler = Chains(
        pairs=pairs,
        limits=limits_of(constraints, query_shape, tuple(key.shape[2:]), heads),
        blocks=blocks_of(three(query_shape, 1), batch * heads, pairs.BLOCK.value),
        gaussians=gaussians_of(scale, device),
        modes=modes.flatten(3).flatten(0, 1).int().contiguous(),
        coldness=torch.full((1,), min(1 / temperature, float_info.max), dtype=torch.float64, device=device),
        k=k,
        chains=chains,
        steps=steps,
    )
    states = torch.empty((batch, heads, k * chains, steps, *query_shape), dtype=torch.int32, device=device)
    accepted = torch.empty((batch, heads, k * chains, *query_shape), dtype=torch.int32, device=device)
    grid = (*sampler.blocks.grid, k * chains)
    launch(_chains_kernel, grid, device, sampler, states, accepted, stream(seed, CHAIN_STREAM), num_warps=WARPS)
    made = steps * (states[:, :, :, -1:] >= 0).sum((2, 3))
    return states.flatten(2, 3), (accepted.sum(2).double() / made.clamp(min=1)).float()


@triton.jit(do_not_specialize=["stream"])
def _chains_kernel(sampler, states, accepted, stream):
    limits = sampler.limits
    queries = block_of_queries(sampler.blocks)
    exists = chosen(limits, queries)
    window = offset_window(limits, queries)
    sides = sides_of(sampler.pairs, queries, exists)
    count = sampler.blocks.query.t * sampler.blocks.query.y * sampler.blocks.query.x
    own = own_stream(stream, queries.item % limits.heads, queries.flat)
    chain = tl.program_id(2)
    mode = queries.item.to(tl.int64) * sampler.k + chain // sampler.chains
    of_chain = mode * sampler.chains + chain % sampler.chains
    state = tl.load(sampler.modes + mode * count + queries.flat, mask=exists, other=-1)
    similarity = measure(sampler.pairs, sides, state, state >= 0)
    num_accepted = tl.zeros_like(state)
    for step in range(sampler.steps):
        number = tl.zeros_like(state) + (chain * sampler.steps + step) * (limits.DIMS + 1)
        proposal = _proposal(sampler, own, number, state)
        wanted = admissible(limits, queries, window, proposal)
        proposed = measure(sampler.pairs, sides, proposal, wanted)
        # Compared in double precision, as random words have more digits than single precision has.
        ratio = tl.exp((proposed.to(tl.float64) - similarity.to(tl.float64)) * tl.load(sampler.coldness))
        chance = (word(own, number + limits.DIMS).to(tl.float64) + 0.5) * 2.0**-32
        accept = (proposed > float("-inf")) & (chance < ratio)
        state = tl.where(accept, proposal, state)
        similarity = tl.where(accept, proposed, similarity)
        num_accepted += accept.to(tl.int32)
        tl.store(states + (of_chain * sampler.steps + step) * count + queries.flat, state, mask=queries.exists)
    tl.store(accepted + of_chain * count + queries.flat, num_accepted, mask=queries.exists)


@triton.jit
def _proposal(sampler, own, number, state):
    """A Gaussian step from each state, as likely as the way back: what leaves the image is -1."""
    place = place_of(state, sampler.limits.key)
    t = place.t
    y = place.y
    if sampler.limits.DIMS == 3:
        t += _step(sampler.gaussians.t, own, number)
    if sampler.limits.DIMS >= 2:
        y += _step(sampler.gaussians.y, own, number + (sampler.limits.DIMS - 2))
    x = place.x + _step(sampler.gaussians.x, own, number + (sampler.limits.DIMS - 1))
    return tl.where(state >= 0, flatten(Extent(t, y, x), sampler.limits.key), -1)


@triton.jit
def _step(gaussian, own, number):
    total = tl.load(gaussian.cumulated + (2 * gaussian.radius + 1))
    return draw_offset(gaussian, draw(own, number, 0, tl.zeros_like(number) + (total - 1)))
