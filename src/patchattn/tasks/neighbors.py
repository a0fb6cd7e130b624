"""The four neighbors of every pixel."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

__all__ = ["NEIGHBORS", "neighbors_at"]

NEIGHBORS = ((-1, 0), (0, -1), (0, 1), (1, 0))
"""Offsets in rows and columns."""


def neighbors_at(plane: Tensor, down: int, right: int, outside: float = 0) -> Tensor:
    """Shift a plane so that every pixel holds its neighbor at this offset; `outside` where there is none."""
    height, width = plane.shape[-2:]
    padded = F.pad(plane, (1, 1, 1, 1), value=outside)
    return padded[..., 1 + down : 1 + down + height, 1 + right : 1 + right + width]
