"""Operator `patchattn::sample_mixture`: keys drawn around the modes and from everywhere, which have no gradient."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from patchattn.kernels import load_backend
from patchattn.kernels.arguments import Constraints
from patchattn.ops.register import fake, operator

__all__ = ["sample_mixture"]


@operator("sample_mixture", shared=(1, 2, 3))
def sample_mixture(
    modes: Tensor,
    key: Tensor,
    query_mask: Tensor | None,
    key_mask: Tensor | None,
    scale: Sequence[float],
    alpha: float,
    samples: int,
    seed: int,
    is_causal: bool,
    strict: bool,
    max_offset: Sequence[int] | None,
    double: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """Return keys (int32) and the logarithm of their density, both `(B, heads, samples, *query)`.

    Of `key` the size alone is read.
    """
    offset = None if max_offset is None else tuple(max_offset)
    constraints = Constraints(query_mask, key_mask, is_causal, (), offset, strict)
    dtype = torch.float64 if double else torch.float32
    index, log_density = load_backend(backend).sample_mixture(
        modes, tuple(key.shape[2:]), constraints, tuple(scale), alpha, samples, seed, dtype
    )
    return index, log_density


@fake("sample_mixture")
def _sample_mixture_fake(
    modes: Tensor,
    key: Tensor,
    query_mask: Tensor | None,
    key_mask: Tensor | None,
    scale: Sequence[float],
    alpha: float,
    samples: int,
    seed: int,
    is_causal: bool,
    strict: bool,
    max_offset: Sequence[int] | None,
    double: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    shape = (*modes.shape[:2], samples, *modes.shape[3:])
    return modes.new_empty(shape), modes.new_empty(shape, dtype=torch.float64 if double else torch.float32)
