"""Operator `patchattn::sample_chains`: Metropolis-Hastings from the modes. The samples have no gradient."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from patchattn.kernels import load_backend
from patchattn.kernels.arguments import Constraints, PatchGeometry
from patchattn.ops.register import fake, operator
from patchattn.similarity import resolve_similarity

__all__ = ["sample_chains"]


@operator("sample_chains", shared=(1, 3, 4))
def sample_chains(
    query: Tensor,
    key: Tensor,
    modes: Tensor,
    query_mask: Tensor | None,
    key_mask: Tensor | None,
    patch_size: Sequence[int],
    padding_mode: str,
    num_heads: int,
    similarity: str,
    scale: Sequence[float],
    temperature: float,
    chains: int,
    steps: int,
    seed: int,
    is_causal: bool,
    strict: bool,
    max_offset: Sequence[int] | None,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """Return states, int32 `(B, heads, k * chains * steps, *query)`, and acceptance rates, `(B, heads, *query)`."""
    geometry = PatchGeometry(tuple(patch_size), padding_mode, num_heads, resolve_similarity(similarity))
    offset = None if max_offset is None else tuple(max_offset)
    constraints = Constraints(query_mask, key_mask, is_causal, (), offset, strict)
    index, acceptance = load_backend(backend).sample_chains(
        query, key, modes, geometry, constraints, tuple(scale), temperature, chains, steps, seed
    )
    return index, acceptance


@fake("sample_chains")
def _sample_chains_fake(
    query: Tensor,
    key: Tensor,
    modes: Tensor,
    query_mask: Tensor | None,
    key_mask: Tensor | None,
    patch_size: Sequence[int],
    padding_mode: str,
    num_heads: int,
    similarity: str,
    scale: Sequence[float],
    temperature: float,
    chains: int,
    steps: int,
    seed: int,
    is_causal: bool,
    strict: bool,
    max_offset: Sequence[int] | None,
    backend: str,
) -> tuple[Tensor, Tensor]:
    batch, heads, k, *size = modes.shape
    return modes.new_empty((batch, heads, k * chains * steps, *size)), modes.new_empty(
        (batch, heads, *size), dtype=torch.float32
    )
