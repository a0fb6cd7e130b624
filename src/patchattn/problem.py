"""The typed description of a search: made and checked once, and carried from the public functions to every backend."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

from torch import Tensor

from patchattn.similarity import BY_PRODUCTS, Similarity

__all__ = ["Constraints", "PatchGeometry", "Problem", "Strategy"]


@dataclass(frozen=True)
class PatchGeometry:
    """Size, padding, heads and similarity of patches."""

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

    def compared_by(self, similarity: Similarity) -> PatchGeometry:
        """The same patches, compared in another way."""
        return replace(self, similarity=similarity)


@dataclass(frozen=True)
class Constraints:
    """Constraints on the key positions that a query position may match."""

    query_mask: Tensor | None = None
    """Bool `(B or 1, *query_spatial)`; False: the query gets no match."""
    key_mask: Tensor | None = None
    """Bool `(B or 1, *key_spatial)`; False: no query matches this key."""
    is_causal: bool = False
    """Only keys whose flat row-major position is at most the query's; nothing of later queries or keys is looked at."""
    min_separation: tuple[int, ...] = ()
    """Two matches of one query never have |difference| < max(1, min_separation) in every dimension at once."""
    max_offset: tuple[int, ...] | None = None
    """|match - home| <= max_offset in every dimension, home = floor((2 q + 1) N_key / (2 N_query))."""
    strict: bool = False
    """With `is_causal`: only keys before the query, not at it."""

    @property
    def lag(self) -> int:
        """Least distance of a causal match behind its query, in flat positions."""
        return int(self.strict)

    @property
    def separated(self) -> bool:
        """Whether `min_separation` asks for more than distinct keys."""
        return any(size > 1 for size in self.min_separation)


@dataclass(frozen=True)
class Strategy:
    """By which method matches are found, and for how long."""

    method: str = "auto"
    iterations: int | None = None
    """Iterations of PatchMatch; None: the default."""
    scans: int | None = None
    """Scans of the guided search; None: the default."""
    exact_pairs: int | None = None
    """Pairs of a query and a key up to which `"auto"` is exact; None: it goes by the number of keys."""
    seed: int = 0
    """Seed of the random numbers."""


@dataclass(frozen=True)
class Problem:
    """A search: how many matches, what is compared, what is allowed, how it is done, and where."""

    k: int
    geometry: PatchGeometry
    constraints: Constraints
    strategy: Strategy
    backend: str

    @property
    def by_products(self) -> bool:
        """Whether matrix products tell the similarities, and neither a separation nor a window leaves out most keys."""
        limited = self.constraints.separated or self.constraints.max_offset is not None
        return self.geometry.similarity.name in BY_PRODUCTS and not limited
