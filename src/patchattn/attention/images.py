"""Arguments of the layers that look at whole patches: checked images, their patches, and who may see whom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from patchattn.attention.lost import marked, without_nan
from patchattn.attention.precision import promote
from patchattn.checks import check_choice, check_features, check_heads
from patchattn.matching.define import define_constraints, define_geometry
from patchattn.problem import Constraints, PatchGeometry
from patchattn.settings import CommonSettings

__all__ = ["PRODUCTS", "Images", "Tile", "as_products", "check_images", "cut", "split_heads"]

Tile = tuple[slice, ...]
"""A part of an image."""
PRODUCTS = ("l2", "dot", "scaled_dot", "cosine")
"""Similarities that are products of vectors, or can be made so."""


@dataclass(frozen=True)
class Images:
    """Query, key and value with all checked settings."""

    query: Tensor
    key: Tensor
    value: Tensor
    constraints: Constraints
    geometry: PatchGeometry

    @property
    def query_mask(self) -> Tensor | None:
        return self.constraints.query_mask

    @property
    def key_mask(self) -> Tensor | None:
        return self.constraints.key_mask

    @property
    def is_causal(self) -> bool:
        return self.constraints.is_causal

    @property
    def patch(self) -> tuple[int, ...]:
        return self.geometry.patch_size

    @property
    def num_heads(self) -> int:
        return self.geometry.num_heads

    @property
    def similarity(self) -> str:
        return self.geometry.similarity.name

    @property
    def query_size(self) -> tuple[int, ...]:
        return tuple(self.query.shape[2:])

    @property
    def key_size(self) -> tuple[int, ...]:
        return tuple(self.key.shape[2:])

    @property
    def compute(self) -> torch.dtype:
        """Precision of all computations."""
        return torch.float64 if self.query.dtype == torch.float64 else torch.float32

    def bordered(self, image: Tensor) -> Tensor:
        """Query or key as it is computed with, and the border that patches reach into."""
        return padded(image.to(self.compute), self.patch, self.geometry.padding_mode)

    def vectors(self, bordered: Tensor, tile: Tile) -> Tensor:
        """The patches of a tile, which may have steps: `(B, heads, *tile, elements)`."""
        reached = (slice(at.start, at.stop + size - 1) for at, size in zip(tile, self.patch, strict=True))
        steps = tuple(1 if at.step is None else at.step for at in tile)
        return patch_vectors(cut(bordered, *reached), self.patch, steps, self.num_heads)

    def asking(self, bordered: Tensor, tile: Tile) -> Tensor:
        """The patches of a tile of queries, 0 where masked: `(B, heads, *tile, elements)`."""
        q = self.vectors(bordered, tile)
        if self.query_mask is None:
            return q
        return q.masked_fill(~cut(self.query_mask, *tile)[:, None, ..., None], 0)

    def values(self, value: Tensor, tile: Tile) -> Tensor:
        """The values of a tile: `(B, heads, *tile, Cv / heads)`."""
        return split_heads(cut(value, *tile), self.num_heads).movedim(2, -1)

    def before(self, tile: Tile, seen: Tile) -> Tensor:
        """Bool `(queries, keys)`: which keys of a part causality lets each query of a tile see."""
        count = torch.arange(prod(self.key_size), device=self.query.device).view(self.key_size)
        return count[seen].flatten()[None, :] + self.constraints.lag <= count[tile].flatten()[:, None]

    def silenced(
        self, k: Tensor, v: Tensor, allowed: Tensor | None, seen: Tile
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Vectors and values of a part of the keys, 0 where masked, and who may see whom without what is masked."""
        if self.key_mask is None:
            return k, v, allowed
        held = cut(self.key_mask, *seen).flatten(1)[:, None]
        # A weight of 0 does not silence NaN.
        k, v = (x.masked_fill(~held[..., None], 0) for x in (k, v))
        held = held[..., None, :]
        return k, v, held if allowed is None else allowed & held

    def unfolded(self) -> tuple[Tensor, Tensor, Tensor]:
        """All patches of query and key, and the values: `(B, heads, positions, elements)`; 0 for what is masked."""
        q, k = (
            vectors(self.bordered(image), tuple(slice(0, n) for n in image.shape[2:])).flatten(2, -2)
            for vectors, image in ((self.asking, self.query), (self.vectors, self.key))
        )
        everything = (slice(None),) * len(self.key_size)
        v = self.values(self.value.to(self.compute), everything).flatten(2, -2)
        k, v, _ = self.silenced(k, v, None, everything)
        return q, k, v

    def center(self) -> Tensor:
        """A patch that all scores may be computed relative to: `(1, heads, 1, elements)`, the mean key without what is
        masked or not finite; under causality the first, which is all that every query knows of.
        """
        key = self.key.detach().to(self.compute).flatten(2)
        counts = key.isfinite()
        if self.key_mask is not None:
            counts = counts & self.key_mask.flatten(1)[:, None]
        if self.is_causal:
            key, counts = key[..., :1], counts[..., :1]
        mean = torch.where(counts, key, 0).sum((0, 2)) / counts.sum((0, 2)).clamp(min=1)
        return split_heads(mean[None], self.num_heads).repeat_interleave(prod(self.patch), -1).unsqueeze(2)

    def finished(self, output: Tensor) -> Tensor:
        """Outputs `(B, heads, Cv / heads, *query)` or `(B, Cv, *query)` as a layer returns them."""
        output = output.reshape(self.query.shape[0], self.value.shape[1], *self.query_size)
        if self.query_mask is not None:
            output = output.masked_fill(~self.query_mask.unsqueeze(1), 0)
        return output.to(self.value.dtype)


def check_images(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    settings: CommonSettings,
    patch_size: int | Sequence[int],
    similarity: str = "l2",
    query_mask: Tensor | None = None,
    key_mask: Tensor | None = None,
) -> Images:
    """Check what layers are given; value must have the key's size."""
    check_choice("similarity", similarity, PRODUCTS)
    query, key, value = promote(query, key, value)
    geometry = define_geometry(query, key, settings, patch_size, similarity)
    check_features("value", value, query, "query")
    check_heads("value", value, geometry.num_heads)
    if value.shape[2:] != key.shape[2:]:
        raise ValueError(
            f"value: expected the key's spatial size {tuple(key.shape[2:])}, got {tuple(value.shape[2:])}."
        )
    constraints = define_constraints(query, key, settings, geometry, query_mask, key_mask)
    return Images(query, key, value, constraints, geometry)


def cut(image: Tensor, *last: slice) -> Tensor:
    """A part of an image, by its last dimensions."""
    index: Any = (..., *last)
    return image[index]


def padded(image: Tensor, patch: Sequence[int], padding_mode: str) -> Tensor:
    """An image with the border that its patches reach into."""
    if prod(patch) == 1:
        return image
    padding = [radius for size in reversed(patch) for radius in (size // 2, size // 2)]
    return functional.pad(image, padding, mode={"zeros": "constant"}.get(padding_mode, padding_mode))


def patch_vectors(image: Tensor, patch: Sequence[int], steps: tuple[int, ...], num_heads: int) -> Tensor:
    """`(B, C, *padded)` to `(B, heads, *spatial, C / heads * elements of a patch)`."""
    for dim, (size, step) in enumerate(zip(patch, steps, strict=True)):
        image = image.unfold(2 + dim, size, step)
    dims = len(patch)
    # (B, heads, C, *spatial, *patch): the channels go beside the patch.
    return split_heads(image, num_heads).movedim(2, 2 + dims).flatten(2 + dims)


def split_heads(image: Tensor, num_heads: int) -> Tensor:
    """`(B, C, ...)` to `(B, heads, C / heads, ...)`."""
    return image.reshape(image.shape[0], num_heads, -1, *image.shape[2:])


def as_products(
    q: Tensor, k: Tensor, v: Tensor, similarity: str, center: Tensor
) -> tuple[Tensor, Tensor, Tensor, float]:
    """Rewrite query and key vectors so that the similarity (up to a constant for each query) is scale * q.k.

    Vectors whose similarity is NaN or -inf throughout get products that are NaN, and bring no gradient to the others.

    Args:
        center: For l2: what is taken from both, which changes no difference and loses fewer digits. What belongs to one
            softmax needs one center.
    """
    # An infinite vector is infinitely far from all others, and has no direction; but it has products.
    infinite = similarity in ("l2", "cosine")
    (q, q_lost), (k, k_lost) = (without_nan(x, infinite=infinite) for x in (q, k))
    scale = q.shape[-1] ** -0.5 if similarity == "scaled_dot" else 1.0
    if similarity == "l2":
        q, k = q - center, k - center
        q = torch.cat([2 * q, torch.ones_like(q[..., :1])], -1)
        k = torch.cat([k, -k.square().sum(-1, keepdim=True)], -1)
    elif similarity == "cosine":
        q, k = functional.normalize(q, dim=-1), functional.normalize(k, dim=-1)
    return *marked(q, k, q_lost, k_lost), v.masked_fill(k_lost.isnan(), 0), scale
