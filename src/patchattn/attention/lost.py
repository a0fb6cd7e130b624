"""Vectors that hold NaN: kept out of matrix products, whose gradients would spread it to all other vectors."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["marked", "without_nan"]


def without_nan(vectors: Tensor, *, infinite: bool) -> tuple[Tensor, Tensor]:
    """Return vectors `(..., elements)` with 0 throughout where one holds NaN (or infinity), and `(..., 1)`: NaN there,
    0 elsewhere.
    """
    lost = (~vectors.isfinite() if infinite else vectors.isnan()).any(-1, keepdim=True)
    return vectors.masked_fill(lost, 0), vectors.new_zeros(lost.shape).masked_fill(lost, torch.nan)


def marked(q: Tensor, k: Tensor, q_lost: Tensor, k_lost: Tensor) -> tuple[Tensor, Tensor]:
    """Append two elements to queries and keys that add 0 to their product, and NaN where one of the two held NaN."""
    return (
        torch.cat([q, torch.ones_like(q_lost), q_lost], -1),
        torch.cat([k, k_lost, torch.ones_like(k_lost)], -1),
    )
