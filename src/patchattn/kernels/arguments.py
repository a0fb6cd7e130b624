"""What every backend is told besides its tensors."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from torch import Tensor

from patchattn.similarity import Similarity

__all__ = ["Constraints", "PatchGeometry"]


@dataclass(frozen=True)
class PatchGeometry:
    """How patches are cut and compared."""

    patch_size: tuple[int, ...]
    """Odd extent in each spatial dimension."""
    padding_mode: str
    """`"reflect"`, `"replicate"` or `"zeros"`: what a patch reads outside the image."""
    num_heads: int
    """The channels are split into this many equal groups, each searched and weighted on its own."""
    similarity: Similarity

    @property
    def radius(self) -> tuple[int, ...]:
        return tuple(size // 2 for size in self.patch_size)

    def scale(self, channels: int) -> float:
        """The factor of `scaled_dot`: 1 / sqrt(elements of a patch of one head); 1 for every other similarity."""
        if self.similarity.name != "scaled_dot":
            return 1.0
        return float((prod(self.patch_size) * (channels // self.num_heads)) ** -0.5)


@dataclass(frozen=True)
class Constraints:
    """Which key positions a query position may match."""

    query_mask: Tensor | None = None
    """Bool `(B or 1, *query_spatial)`; False: the query gets no match."""
    key_mask: Tensor | None = None
    """Bool `(B or 1, *key_spatial)`; False: no query matches this key."""
    is_causal: bool = False
    """Only keys whose flat row-major position is at most the query's."""
    min_separation: tuple[int, ...] = ()
    """Two matches of one query never have |difference| < max(1, min_separation) in every dimension at once."""
    max_offset: tuple[int, ...] | None = None
    """|match - home| <= max_offset in every dimension, home = floor((2 q + 1) N_key / (2 N_query))."""

    @property
    def separated(self) -> bool:
        """Whether `min_separation` asks for more than distinct keys."""
        return any(size > 1 for size in self.min_separation)
