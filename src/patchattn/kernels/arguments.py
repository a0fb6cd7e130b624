"""Arguments of every backend besides its tensors: patch geometry and constraints."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, prod

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from patchattn.similarity import Similarity

__all__ = ["CHAIN_STREAM", "MIXTURE_STREAM", "Constraints", "PatchGeometry", "gaussian_weights"]

MIXTURE_STREAM, CHAIN_STREAM = 0xFFFFFFFF, 0xFFFFFFFE
"""Streams of the samplers' random numbers. A search puts the number of its iteration there, so none is used twice."""


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
        """Smallest distance of a causal match behind its query, in flat positions."""
        return int(self.strict)

    @property
    def separated(self) -> bool:
        """Whether `min_separation` asks for more than distinct keys."""
        return any(size > 1 for size in self.min_separation)


def gaussian_weights(scale: float) -> NDArray[np.int64]:
    """The Gaussian of length-scale `scale` at the offsets -r ... r, r = ceil(4 scale), as integers.

    Sums of integers are exact: a draw has exactly the probability that the density says, and is the same in every
    backend. All weights together stay below 2^31.
    """
    radius = ceil(4 * scale)
    offset = np.arange(-radius, radius + 1)
    peak = min(2.0**20, 2.0**31 / (2.6 * scale + 1))
    return np.maximum(np.rint(peak * np.exp(-0.5 * (offset / scale) ** 2)), 1).astype(np.int64)
