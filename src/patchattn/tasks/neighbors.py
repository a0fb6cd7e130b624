"""The four neighbors of every pixel, and what their matches say of it."""

from __future__ import annotations

from collections.abc import Iterator

import torch.nn.functional as F
from torch import Tensor

from patchattn.field import MatchField

__all__ = ["NEIGHBORS", "inside", "neighbors_at", "positions_beside"]

NEIGHBORS = ((-1, 0), (0, -1), (0, 1), (1, 0))
"""Offsets in rows and columns."""


def neighbors_at(plane: Tensor, down: int, right: int, outside: float = 0) -> Tensor:
    """Shift a plane so that every pixel holds its neighbor at this offset; `outside` where there is none."""
    height, width = plane.shape[-2:]
    padded = F.pad(plane, (1, 1, 1, 1), value=outside)
    return padded[..., 1 + down : 1 + down + height, 1 + right : 1 + right + width]


def positions_beside(field: MatchField) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """For each of the four neighbors: row and column that a pixel has if its match lies beside its neighbor's as it
    lies beside its neighbor; and whether the neighbor has a match and this one is inside the image."""
    rows, columns = field.coordinates()[0, 0, 0]
    height, width = field.key_shape
    for down, right in NEIGHBORS:
        row, column = neighbors_at(rows, down, right, -1), neighbors_at(columns, down, right, -1)
        matched, row, column = row >= 0, row - down, column - right
        yield row, column, matched & inside(row, column, height, width)


def inside(row: Tensor, column: Tensor, height: int, width: int) -> Tensor:
    """Whether positions are inside an image."""
    return (row >= 0) & (column >= 0) & (row < height) & (column < width)
