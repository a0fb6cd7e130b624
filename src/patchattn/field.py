"""The match field: for every query position, its matches among the key positions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Int32, Int64
from torch import Tensor

__all__ = ["MatchField", "home_coordinates"]


@dataclass(frozen=True)
class MatchField:
    """The k matches of every query position, best first.

    `index` refers to positions of the key, counted row by row (`row * width + column` in two dimensions).
    """

    index: Int32[Tensor, "batch heads k *query"]
    """Flat key positions; -1 where there is no match."""
    similarity: Float[Tensor, "batch heads k *query"]
    """Similarities of the patches there, float32 (float64 for float64 features); -inf where there is no match."""
    key_shape: tuple[int, ...]
    """Spatial size of the key."""

    @property
    def k(self) -> int:
        return self.index.shape[2]

    @property
    def query_shape(self) -> tuple[int, ...]:
        return tuple(self.index.shape[3:])

    def coordinates(self) -> Int64[Tensor, "batch heads k dims *query"]:
        """Key positions as coordinates, (row, column) in two dimensions; -1 everywhere where there is no match."""
        position = self.index.long()
        parts = []
        for size in reversed(self.key_shape):
            parts.append(torch.remainder(position, size))
            position = torch.div(position, size, rounding_mode="floor")
        coordinates = torch.stack(parts[::-1], dim=3)
        return torch.where((self.index >= 0).unsqueeze(3), coordinates, -1)

    def offsets(self) -> Int64[Tensor, "batch heads k dims *query"]:
        """Match minus query position; 0 where there is no match.

        If query and key differ in size, minus the key position that corresponds to the query position,
        floor((2 q + 1) N_key / (2 N_query)).
        """
        home = home_coordinates(self.query_shape, self.key_shape, self.index.device)
        return torch.where((self.index >= 0).unsqueeze(3), self.coordinates() - home, 0)


def home_coordinates(
    query_shape: tuple[int, ...], key_shape: tuple[int, ...], device: torch.device
) -> Int[Tensor, "dims *query"]:
    """The key coordinates that correspond to every query position."""
    axes = [
        torch.div((2 * torch.arange(q, device=device) + 1) * k, 2 * q, rounding_mode="floor")
        for q, k in zip(query_shape, key_shape, strict=True)
    ]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))
