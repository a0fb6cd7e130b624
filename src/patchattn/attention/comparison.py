"""Query and key of one problem, and the operators on them: expansion, samplers and similarities."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from patchattn.ops.expand import expand
from patchattn.ops.sample_chains import Chains, sample_chains
from patchattn.ops.sample_mixture import Mixture, sample_mixture
from patchattn.ops.similarity_at import similarity_at
from patchattn.ops.transforms import differentiates
from patchattn.problem import Constraints, PatchGeometry

__all__ = ["Comparison"]


@dataclass(frozen=True)
class Comparison:
    """Query and key with the constraints on their matches; the methods are operators."""

    query: Tensor
    key: Tensor
    geometry: PatchGeometry
    constraints: Constraints
    backend: str

    @property
    def trains(self) -> bool:
        """Whether query or key want a gradient."""
        return differentiates(self.query, self.key)

    def similarity_at(self, index: Tensor) -> Tensor:
        """Return the similarity of each query to its keys in `index`, differentiable; -inf where there is none."""
        found: Tensor = similarity_at(self.query, self.key, index, self.geometry, self.backend)
        return found

    def expand(self, index: Tensor, radius: tuple[int, ...]) -> Tensor:
        """Return the keys around each one of `index`."""
        keys: Tensor = expand(index, self.key.detach(), radius, self.constraints, self.backend)
        return keys

    def sample_mixture(self, modes: Tensor, mixture: Mixture) -> tuple[Tensor, Tensor]:
        """Draw keys from a mixture about the modes, and return the logarithm of their density too."""
        double = self.query.dtype == torch.float64
        keys, log_density = sample_mixture(modes, self.key.detach(), mixture, self.constraints, double, self.backend)
        return keys, log_density

    def sample_chains(self, modes: Tensor, chains: Chains) -> tuple[Tensor, Tensor]:
        """Run Markov chains from the modes; return their states and the share of accepted steps."""
        states, acceptance = sample_chains(
            self.query.detach(), self.key.detach(), modes, chains, self.geometry, self.constraints, self.backend
        )
        return states, acceptance
