"""A Gaussian over the integers, with integer weights, about any center and cut to any range."""

from __future__ import annotations

import torch
from torch import Tensor

from patchattn.kernels.gaussian import gaussian_weights
from patchattn.kernels.reference.random import uniform

__all__ = ["Gaussian"]


class Gaussian:
    """The weights of one dimension; tensors of centers and bounds broadcast.

    Args:
        scale: Length-scale.
        device: Of the tensors it is asked about.
    """

    def __init__(self, scale: float, device: torch.device) -> None:
        weights = torch.from_numpy(gaussian_weights(scale)).to(device)
        self.radius = len(weights) // 2
        # A zero on either side stands for everything beyond the radius.
        self.weights = torch.nn.functional.pad(weights, (1, 1))
        self.cumulated = weights.cumsum(0)

    def weight(self, offset: Tensor) -> Tensor:
        """Return the weight at an offset from the center; 0 beyond the radius."""
        return self.weights[offset.clamp(-self.radius - 1, self.radius + 1) + self.radius + 1]

    def below(self, offset: Tensor) -> Tensor:
        """Return the sum of the weights at all smaller offsets."""
        number = (offset + self.radius).clamp(0, len(self.cumulated))
        return torch.where(number > 0, self.cumulated[(number - 1).clamp(min=0)], 0)

    def total(self, center: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """Return the sum of the weights from `low` to `high`, both included; 0 if they are all beyond the radius."""
        return self.below(high - center + 1) - self.below(low - center)

    def draw(self, word: Tensor, center: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """Turn random words into integers from `low` to `high`; what comes where the total is 0 means nothing."""
        chosen = uniform(word, 0, self.total(center, low, high) - 1)
        passed = (self.below(low - center) + chosen).contiguous()
        return center - self.radius + torch.searchsorted(self.cumulated, passed, right=True)

    def draw_offset(self, word: Tensor) -> Tensor:
        """Turn random words into offsets from -radius to radius, as likely to either side."""
        center = torch.zeros_like(word)
        return self.draw(word, center, center - self.radius, center + self.radius)
