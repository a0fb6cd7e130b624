"""Onion-peel initialization: a hole is filled from its border inwards, by patches compared where they are known."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import torch
from torch import Tensor

from patchattn.field import MatchField
from patchattn.matching import match
from patchattn.tasks.completion import Completion, Part, joined, mean_of_patches, query_features
from patchattn.tasks.neighbors import positions_beside
from patchattn.tasks.pyramid import dilated

__all__ = ["peeled"]

UNKNOWN_WEIGHT = 0.1
"""Weight of unknown pixels, which hold a membrane yet: enough to prefer nothing in particular there to some object."""
ITERATIONS = 10
"""Iterations of PatchMatch for a layer, whose neighbors in the layer before have been matched."""


def peeled(completion: Completion, seed: int) -> Completion:
    r"""Fill the hole layer by layer, each as wide as a pixel (Newson et al. 2014).

    Patches around the pixels of a layer are compared by

    $$\sum_{o \in \text{patch}} w_{i + o} \lVert f_{i + o} - f_{j + o} \rVert^2$$

    with a small weight w where nothing is known yet, and 1 elsewhere. Their mean fills the layer.
    """
    scale = completion.scale
    square = (completion.key**2).sum(1, keepdim=True)
    key = torch.cat([completion.key, square, torch.ones_like(square)], 1)
    unknown = scale.hole
    fields: list[MatchField | None] = [None] * len(completion.parts)
    while unknown.any():
        layer = unknown & dilated(~unknown, 1)
        weight = torch.where(unknown, UNKNOWN_WEIGHT, 1.0).to(key.dtype)
        parts = tuple(_matched(completion, part, key, weight, layer, seed) for part in completion.parts)
        completion = replace(completion, parts=parts)
        for number, part in enumerate(parts):
            assert part.field is not None
            fields[number] = joined(fields[number], part.field)
        image, texture = mean_of_patches(completion, layer)
        completion = replace(completion, image=image, texture=texture)
        unknown = unknown & ~layer
    parts = tuple(replace(part, field=field) for part, field in zip(completion.parts, fields, strict=True))
    return replace(completion, parts=parts)


def _matched(completion: Completion, part: Part, key: Tensor, weight: Tensor, layer: Tensor, seed: int) -> Part:
    """Search the matches of the layer's patches."""
    query, weight = query_features(completion, part), part.of(weight)
    square = (query**2).sum(1, keepdim=True)
    field = match(
        # The weighted distance as a product: -w (q - k)^2 = 2 w q k - w k^2 - w q^2.
        torch.cat([2 * weight * query, -weight, -weight * square], 1),
        key,
        similarity="dot",
        patch_size=completion.patch_size,
        padding_mode="replicate",
        method="patchmatch",
        iterations=ITERATIONS,
        init=None if part.field is None else _grown(part.field, completion.scale.sources),
        query_mask=part.of(layer)[:, 0],
        key_mask=completion.scale.sources[:, 0],
        seed=seed,
    )
    return replace(part, field=field)


def _grown(field: MatchField, sources: Tensor) -> MatchField:
    """Matches beside those of the layer before: where a neighbor's match has its neighbor."""
    width = field.key_shape[1]
    index = torch.full_like(field.index[0, 0, 0], -1)
    for row, column, found in positions_beside(field):
        flat = torch.where(found, row * width + column, 0)
        allowed = found & (index < 0) & sources.flatten()[flat]
        index = torch.where(allowed, flat.to(index.dtype), index)
    index = index[None, None, None]
    return MatchField(index, torch.where(index >= 0, 0.0, -inf).to(field.similarity.dtype), field.key_shape)
