"""Positions on a grid: flat row-major numbers, their coordinates, and steps between them. -1 means "no position"."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from math import prod

import torch
from torch import Tensor

__all__ = ["all_positions", "centered", "coordinates", "flatten", "moved"]


def all_positions(shape: Sequence[int], device: torch.device) -> Tensor:
    """Return the flat positions of a grid in order: int64 `(n,)`."""
    return torch.arange(prod(shape), device=device)


def coordinates(flat: Tensor, shape: Sequence[int]) -> list[Tensor]:
    """Split flat positions into one tensor of coordinates for each dimension of `shape`."""
    result: list[Tensor] = []
    for size in reversed(shape):
        result.insert(0, flat % size)
        flat = flat // size
    return result


def flatten(coordinates: Sequence[Tensor], shape: Sequence[int]) -> Tensor:
    """Undo `coordinates`."""
    flat = coordinates[0]
    for coordinate, size in zip(coordinates[1:], shape[1:], strict=True):
        flat = flat * size + coordinate
    return flat


def moved(flat: Tensor, shape: Sequence[int], step: Sequence[int | Tensor]) -> Tensor:
    """Return flat positions moved by `step`, in a dimension all alike or each by its own.

    -1 where this leaves the grid and where there was no position.
    """
    target = [coordinate + by for coordinate, by in zip(coordinates(flat, shape), step, strict=True)]
    inside = flat >= 0
    for coordinate, size in zip(target, shape, strict=True):
        inside = inside & (coordinate >= 0) & (coordinate < size)
    return torch.where(inside, flatten(target, shape), -1)


def centered(window: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Iterate over the offsets of a window of odd extents about its center, in row-major order."""
    return product(*(range(-(size // 2), size // 2 + 1) for size in window))
