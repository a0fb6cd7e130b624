"""Keys drawn near the matches, and anywhere: the importance distribution of SCRAM, equations (12) and (17)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from patchattn.kernels.gaussian import MIXTURE_STREAM
from patchattn.kernels.reference.candidates import all_candidates, reach
from patchattn.kernels.reference.constraints import admissible
from patchattn.kernels.reference.gaussian import Gaussian
from patchattn.kernels.reference.positions import all_positions, coordinates, flatten
from patchattn.kernels.reference.random import Draws, uniform
from patchattn.problem import Constraints

__all__ = ["sample_mixture"]


@torch.no_grad()
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
    r"""Draw keys for each query from the mixture

    $$r_i(j) = \frac{a}{K} \sum_m \prod_d g_d(j_d; \theta_{md}) + \frac{1 - a}{n_i}$$

    of Gaussians about its K valid modes, cut to where admissible keys may be, and all n_i keys that it may start from.

    Args:
        modes: int32 `(B, heads, k, *query_spatial)`, -1 for none.
        key_shape: Spatial size of the key.
        constraints: Which keys a query may match.
        scale: Length-scale of the Gaussians in each dimension.
        alpha: The share a of the Gaussians, where there is a mode.
        samples: How many keys are drawn, with replacement.
        seed: Determines all random numbers, together with head and position.
        dtype: Of the log density.

    Returns:
        int32 index and log r_i of it, `(B, heads, samples, *query_spatial)`; -1 and 0 where what was drawn is not
        admissible.
    """
    query_shape = tuple(modes.shape[3:])
    mixture = Mixture(modes, key_shape, constraints, scale, alpha)
    draws = Draws(seed, MIXTURE_STREAM, modes.shape[1], mixture.queries)
    words = 2 + len(key_shape)
    index = torch.full((*modes.shape[:2], samples, len(mixture.queries)), -1, device=modes.device)
    log_density = torch.zeros(index.shape, dtype=dtype, device=modes.device)
    for sample in range(samples):
        key = mixture.draw([draws(sample * words + n) for n in range(words)])
        allowed = admissible(mixture.queries, key.unsqueeze(2), query_shape, key_shape, constraints).squeeze(2)
        index[:, :, sample] = torch.where(allowed, key, -1)
        log_density[:, :, sample] = torch.where(allowed, mixture.density(key), 1).log()
    return torch.unflatten(index.int(), 3, query_shape), torch.unflatten(log_density, 3, query_shape)


class Mixture:
    """The mixture of every query, to draw from and to evaluate; the arguments are those of `sample_mixture`."""

    def __init__(
        self,
        modes: Tensor,
        key_shape: tuple[int, ...],
        constraints: Constraints,
        scale: Sequence[float],
        alpha: float,
    ) -> None:
        query_shape = tuple(modes.shape[3:])
        self.queries = all_positions(query_shape, modes.device)
        self.key_shape = key_shape
        self.window = reach(self.queries, query_shape, key_shape, constraints)
        self.gaussians = [Gaussian(length, modes.device) for length in scale]
        self.count, self.candidate = all_candidates(self.queries, query_shape, key_shape, constraints)
        modes = modes.long().flatten(3)
        self.num_modes = (modes >= 0).sum(2)
        # The valid modes first, in their order.
        self.modes = modes.gather(2, torch.sort((modes < 0).int(), dim=2, stable=True).indices)
        self.totals = self.totals_about(self.modes)
        self.threshold = round(alpha * 2**32)
        self.share = (self.num_modes > 0).double() * (self.threshold / 2**32)

    def totals_about(self, centers: Tensor) -> list[Tensor]:
        """Return the sum of the Gaussian's weights inside the window, for each dimension."""
        places = coordinates(centers, self.key_shape)
        parts = zip(self.gaussians, places, self.window, strict=True)
        return [gaussian.total(middle, *bounds) for gaussian, middle, bounds in parts]

    def draw(self, words: list[Tensor]) -> Tensor:
        """Turn 2 + dimensions random words, `(heads, queries)`, into a key of each query, `(B, heads, queries)`."""
        local = (words[0] < self.threshold) & (self.num_modes > 0)
        anywhere = self.candidate(uniform(words[1], 0, self.count - 1).clamp(min=0))
        anywhere = torch.where(self.count > 0, anywhere, -1)
        return torch.where(local, self.near_mode(words[1], words[2:]), anywhere)

    def near_mode(self, choice: Tensor, words: list[Tensor]) -> Tensor:
        """Draw around one of the modes; -1 where it has none, or the window holds nothing near it."""
        if self.modes.shape[2] == 0:
            return torch.full_like(self.num_modes, -1)
        slot = uniform(choice, 0, self.num_modes - 1).clamp(min=0).unsqueeze(2)
        mode = self.modes.gather(2, slot).squeeze(2)
        present, place = mode >= 0, []
        parts = zip(self.gaussians, words, coordinates(mode, self.key_shape), self.window, self.totals, strict=True)
        for gaussian, word, middle, bounds, totals in parts:
            place.append(gaussian.draw(word, middle, *bounds))
            present = present & (totals.gather(2, slot).squeeze(2) > 0)
        return torch.where(present, flatten(place, self.key_shape), -1)

    def density(self, key: Tensor) -> Tensor:
        """Return r_i of an admissible key of each query, float64 `(B, heads, queries)`."""
        near = torch.ones(self.modes.shape, dtype=torch.float64, device=key.device)
        places = coordinates(key.unsqueeze(2), self.key_shape), coordinates(self.modes, self.key_shape)
        for gaussian, own, middle, total in zip(self.gaussians, *places, self.totals, strict=True):
            near *= torch.where(total > 0, gaussian.weight(own - middle).double() / total, 0)
        near = torch.where(self.modes >= 0, near, 0).sum(2)
        return self.share * near / self.num_modes.clamp(min=1) + (1 - self.share) / self.count.clamp(min=1)
