"""Operator `patchattn::sample_mixture`: keys drawn around the modes and from everywhere, which have no gradient."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from patchattn.kernels import load_backend
from patchattn.ops.register import fake, operator
from patchattn.problem import Constraints

__all__ = ["Mixture", "sample_mixture"]


@dataclass(frozen=True)
class Mixture:
    """A density over the keys: Gaussians around the modes, and the uniform one."""

    scale: tuple[float, ...]
    """Length-scale of the Gaussians in each dimension, in pixels."""
    alpha: float
    """Weight of the Gaussians, from 0 to 1."""
    samples: int
    """Draws for each query."""
    seed: int


@operator("sample_mixture", shared=("key", "query_mask", "key_mask"))
def sample_mixture(
    modes: Tensor, key: Tensor, mixture: Mixture, constraints: Constraints, double: bool, backend: str
) -> tuple[Tensor, Tensor]:
    """Return keys (int32) and the logarithm of their density, both `(B, heads, samples, *query)`.

    Of `key` the size alone is read. With `double` the density is float64.
    """
    index, log_density = load_backend(backend).sample_mixture(
        modes, tuple(key.shape[2:]), constraints, mixture.scale, mixture.alpha, mixture.samples, mixture.seed,
        _precision(double),
    )  # fmt: skip
    return index, log_density


@fake("sample_mixture")
def _sample_mixture_fake(
    modes: Tensor, key: Tensor, mixture: Mixture, constraints: Constraints, double: bool, backend: str
) -> tuple[Tensor, Tensor]:
    shape = (*modes.shape[:2], mixture.samples, *modes.shape[3:])
    return modes.new_empty(shape), modes.new_empty(shape, dtype=_precision(double))


def _precision(double: bool) -> torch.dtype:
    return torch.float64 if double else torch.float32
