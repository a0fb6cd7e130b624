"""Operator `patchattn::sample_chains`: Metropolis-Hastings from the modes. The samples have no gradient."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from patchattn.kernels import load_backend
from patchattn.ops.register import fake, operator
from patchattn.problem import Constraints, PatchGeometry

__all__ = ["Chains", "sample_chains"]


@dataclass(frozen=True)
class Chains:
    """Markov chains through the keys, whose states follow exp(similarity / temperature)."""

    scale: tuple[float, ...]
    """Length-scale of a step in each dimension, in pixels."""
    temperature: float
    chains: int
    """From each mode."""
    steps: int
    """Length of each chain."""
    seed: int


@operator("sample_chains", shared=("key", "query_mask", "key_mask"))
def sample_chains(
    query: Tensor,
    key: Tensor,
    modes: Tensor,
    chains: Chains,
    geometry: PatchGeometry,
    constraints: Constraints,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """Return states, int32 `(B, heads, k * chains * steps, *query)`, and acceptance rates, `(B, heads, *query)`."""
    index, acceptance = load_backend(backend).sample_chains(
        query, key, modes, geometry, constraints, chains.scale, chains.temperature, chains.chains, chains.steps,
        chains.seed,
    )  # fmt: skip
    return index, acceptance


@fake("sample_chains")
def _sample_chains_fake(
    query: Tensor,
    key: Tensor,
    modes: Tensor,
    chains: Chains,
    geometry: PatchGeometry,
    constraints: Constraints,
    backend: str,
) -> tuple[Tensor, Tensor]:
    batch, heads, k, *size = modes.shape
    states = modes.new_empty((batch, heads, k * chains.chains * chains.steps, *size))
    return states, modes.new_empty((batch, heads, *size), dtype=torch.float32)
