"""Which positions are compared, and how: what a search, an expansion and a sampler of keys are told alike."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from patchattn.ops.expand import expand
from patchattn.ops.sample_chains import sample_chains
from patchattn.ops.sample_mixture import sample_mixture
from patchattn.ops.similarity_at import similarity_at
from patchattn.ops.transforms import differentiates

__all__ = ["Comparison"]


@dataclass(frozen=True)
class Comparison:
    """Query and key with all checked settings; its methods are the operators."""

    query: Tensor
    key: Tensor
    patch_size: tuple[int, ...]
    padding_mode: str
    """What patches read outside, "valid" resolved into masks."""
    num_heads: int
    similarity: str
    query_mask: Tensor | None
    key_mask: Tensor | None
    is_causal: bool
    strict: bool
    max_offset: tuple[int, ...] | None
    backend: str

    @property
    def trains(self) -> bool:
        """Whether query or key want a gradient."""
        return differentiates(self.query, self.key)

    def similarity_at(self, index: Tensor) -> Tensor:
        """The similarity of each query to its keys in `index`, differentiable; -inf where there is none."""
        found: Tensor = similarity_at(
            self.query, self.key, index, self.patch_size, self.padding_mode, self.num_heads, self.similarity,
            self.backend,
        )  # fmt: skip
        return found

    def expand(self, index: Tensor, radius: tuple[int, ...]) -> Tensor:
        keys: Tensor = expand(
            index, self.key.detach(), self.query_mask, self.key_mask, radius, self.is_causal, self.strict,
            self.max_offset, self.backend,
        )  # fmt: skip
        return keys

    def sample_mixture(
        self, modes: Tensor, scale: tuple[float, ...], alpha: float, samples: int, seed: int
    ) -> tuple[Tensor, Tensor]:
        keys, log_density = sample_mixture(
            modes, self.key.detach(), self.query_mask, self.key_mask, scale, alpha, samples, seed, self.is_causal,
            self.strict, self.max_offset, self.query.dtype == torch.float64, self.backend,
        )  # fmt: skip
        return keys, log_density

    def sample_chains(
        self, modes: Tensor, scale: tuple[float, ...], temperature: float, chains: int, steps: int, seed: int
    ) -> tuple[Tensor, Tensor]:
        states, acceptance = sample_chains(
            self.query.detach(), self.key.detach(), modes, self.query_mask, self.key_mask, self.patch_size,
            self.padding_mode, self.num_heads, self.similarity, scale, temperature, chains, steps, seed,
            self.is_causal, self.strict, self.max_offset, self.backend,
        )  # fmt: skip
        return states, acceptance
