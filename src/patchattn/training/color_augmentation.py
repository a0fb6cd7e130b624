"""Color augmentation of pairs, so that a network learns to carry colors over, and not which ones there are."""

from __future__ import annotations

from math import cos, pi, sin, sqrt

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["augment_colors"]

MAX_SATURATION = 2.0
"""Largest factor of the saturation; the smallest is its inverse."""


def augment_colors(
    target: Float[Tensor, "items 3 height width"], reference: Float[Tensor, "items 3 height2 width2"], key: list[int]
) -> tuple[Tensor, Tensor]:
    """Turn the colors of every pair about the axis of the grays, and make them stronger or weaker.

    Args:
        target, reference: RGB in [0, 1]; both of a pair are changed alike.
        key: one integer for each item, of which its change is a function.

    Returns:
        Target and reference, clipped to [0, 1]. Grays stay as they are.

    Example:
        >>> gray = torch.full((1, 3, 2, 2), 0.25)
        >>> torch.allclose(augment_colors(gray, gray, [7])[0], gray)
        True
    """
    turns = torch.stack([_turn(number) for number in key]).to(target)
    changed = []
    for image in (target, reference):
        mean = image.mean(1, keepdim=True)
        color = torch.einsum("nij,njhw->nihw", turns, image - mean)
        changed.append((mean + color).clamp(0, 1))
    return changed[0], changed[1]


def _turn(number: int) -> Tensor:
    """A rotation about (1, 1, 1) times a strength."""
    generator = np.random.default_rng((number, 1))
    angle = 2 * pi * float(generator.random())
    strength: float = MAX_SATURATION ** float(generator.uniform(-1, 1))
    # Rodrigues' formula.
    same = (1 - cos(angle)) / 3
    ahead, behind = same - sin(angle) / sqrt(3), same + sin(angle) / sqrt(3)
    rows = [[cos(angle) + same, ahead, behind], [behind, cos(angle) + same, ahead], [ahead, behind, cos(angle) + same]]
    return torch.tensor(rows) * strength
