"""Keys that chains of random steps visit: the Metropolis-Hastings sampler of SCRAM."""

from __future__ import annotations

import torch
from torch import Tensor

from patchattn.kernels.gaussian import CHAIN_STREAM
from patchattn.kernels.reference.constraints import admissible
from patchattn.kernels.reference.gaussian import Gaussian
from patchattn.kernels.reference.patch_similarity import PatchPairs
from patchattn.kernels.reference.positions import moved
from patchattn.kernels.reference.random import Draws
from patchattn.problem import Constraints, PatchGeometry

__all__ = ["sample_chains"]


@torch.no_grad()
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
    """Run Markov chains that visit each key in proportion to exp(similarity / temperature), from the modes on.

    Proposals are Gaussian steps, as likely there as back, so that only the similarities decide on acceptance. What is
    outside the domain or not admissible has no probability: the chain stays where it is.

    Args:
        query: `(B, C, *query_spatial)`.
        key: `(B or 1, C, *key_spatial)`.
        modes: int32 `(B, heads, k, *query_spatial)`, -1 for none.
        geometry: How patches are cut and compared.
        constraints: Which keys a query may match.
        scale: Length-scale of the steps in each dimension.
        temperature: What similarities are divided by.
        chains: How many begin at each mode.
        steps: Length of a chain; its start is not counted.
        seed: Determines all random numbers, together with head and position.

    Returns:
        The states after each step, int32 `(B, heads, k * chains * steps, *query_spatial)`, mode after mode and chain
        after chain, -1 where there is no mode; the share of accepted proposals, float32 `(B, heads, *query_spatial)`.
    """
    pairs = PatchPairs(query, key, geometry)
    draws = Draws(seed, CHAIN_STREAM, geometry.num_heads, pairs.queries)
    gaussians = [Gaussian(length, query.device) for length in scale]
    state = starts_of(modes, constraints).repeat_interleave(chains, 2)
    exists, similarity = (state >= 0).sum(2), pairs.at(pairs.queries, state)
    accepted, visited = torch.zeros_like(exists), []
    for step in range(steps):
        first = [(chain * steps + step) * (len(scale) + 1) for chain in range(state.shape[2])]
        words = [torch.stack([draws(n + d) for n in first], 1) for d in range(len(scale) + 1)]
        offset = [gaussian.draw_offset(word) for gaussian, word in zip(gaussians, words[:-1], strict=True)]
        proposal = moved(state, pairs.key_shape, offset)
        allowed = admissible(pairs.queries, proposal, pairs.query_shape, pairs.key_shape, constraints)
        proposal = torch.where(allowed, proposal, -1)
        proposed = pairs.at(pairs.queries, proposal)
        ratio = ((proposed.double() - similarity.double()) / temperature).exp()
        accept = (proposed > -torch.inf) & ((words[-1].double() + 0.5) * 2**-32 < ratio)
        state, similarity = torch.where(accept, proposal, state), torch.where(accept, proposed, similarity)
        accepted += accept.sum(2)
        visited.append(state)
    index = torch.stack(visited, 3).flatten(2, 3)
    acceptance = (accepted.double() / (exists * steps).clamp(min=1)).float()
    return torch.unflatten(index.int(), 3, pairs.query_shape), torch.unflatten(acceptance, 2, pairs.query_shape)


def starts_of(modes: Tensor, constraints: Constraints) -> Tensor:
    """Return the modes, int64 `(B, heads, k, queries)`; -1 for queries that get no match."""
    starts = modes.long().flatten(3)
    if constraints.query_mask is None:
        return starts
    return torch.where(constraints.query_mask.flatten(1)[:, None, None], starts, -1)
