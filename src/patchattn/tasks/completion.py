"""Patch-based completion of a hole at one pyramid level: search and vote alternate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf
from typing import Any

import torch
from torch import Tensor

from patchattn.attention import patch_attention
from patchattn.field import MatchField
from patchattn.matching import majority_vote, match
from patchattn.tasks.bounding_boxes import bounding_boxes
from patchattn.tasks.membrane import membrane_interpolation, spread
from patchattn.tasks.pyramid import PyramidLevel, dilated
from patchattn.tasks.seams import seam_correction, values_at

__all__ = ["Completion", "Effort", "Part", "begin", "enlarge", "improve", "joined", "mean_of_patches", "query_features"]

TEXTURE_WEIGHT = 0.3
"""Weight of texture differences relative to color differences."""
POSITION_WEIGHT = 0.2
"""Weight of spatial distance (in units of the image's longer side) against color distance: of equal patches, near ones
are copied, which share the illumination."""
TEMPERATURE_QUANTILE = 0.75
"""Quantile of the patch costs that is used as the temperature (Newson et al. 2014)."""
ITERATIONS = 1
"""Iterations of a search that starts from the previous field. More find better matches, but blander ones."""
LAST_TEMPERATURE_FACTOR = 0.2
"""Factor of the temperature in a mean that no copies follow."""
MIN_TEMPERATURE = 1e-4
"""Smallest temperature, as all costs may be 0."""


@dataclass(frozen=True)
class Effort:
    """Numbers of search-and-vote iterations."""

    first: int
    """Iterations with means at the coarsest level, where the structure is decided."""
    others: int
    """Iterations with copies at that level, and at those between."""
    last: int
    """Iterations with copies at full size."""
    mean: bool
    """Whether full size begins with the mean of all patches that hold a pixel, or with what its own match says."""
    thin: int
    """Iterations in parts of the hole narrower than a patch, at full size only."""
    narrow: int
    """Iterations in parts about as wide as a patch, at full size only."""


@dataclass(frozen=True)
class Part:
    """A rectangle of a level that holds patches touching the hole, and all their pixels."""

    rows: slice
    columns: slice
    field: MatchField | None = None
    """Matches of the patches in the rectangle that touch the hole."""

    def of(self, image: Tensor) -> Tensor:
        return image[..., self.rows, self.columns]


@dataclass(frozen=True)
class Completion:
    """A pyramid level with its hole filled."""

    scale: PyramidLevel
    patch_size: int
    image: Tensor
    texture: Tensor
    parts: tuple[Part, ...]
    """Rectangles far enough apart to be independent."""
    touching: Tensor
    """Mask of the patches that touch the hole."""
    border: Tensor
    """Mask of the known pixels beside the hole."""
    key: Tensor
    """Features of the whole level, by which patches are compared."""
    value: Tensor
    """Values of the patches: colors, texture, and 1 to count votes."""

    def field(self) -> MatchField:
        """Matches of the patches that touch the hole; -1 elsewhere."""
        size = self.scale.size
        index = torch.full((1, 1, 1, *size), -1, dtype=torch.int32, device=self.image.device)
        similarity = torch.full(index.shape, -inf, device=self.image.device, dtype=self.image.dtype)
        for part in self.parts:
            assert part.field is not None
            part.of(index).copy_(part.field.index)
            part.of(similarity).copy_(part.field.similarity)
        return MatchField(index, similarity, size)


def begin(scale: PyramidLevel, patch_size: int) -> Completion:
    """Initialize a level by membrane interpolation."""
    filled, texture = (membrane_interpolation(image, scale.hole) for image in (scale.image, scale.texture))
    return _completion(scale, patch_size, filled, texture)


def enlarge(coarse: Completion, scale: PyramidLevel, patch_size: int, *, mean: bool = True) -> Completion:
    """Upsample a completion to the next finer level: every match becomes four.

    The hole is filled by their mean over all patches that hold a pixel, or by what the pixel's own match says.
    """
    image, texture = (
        torch.where(scale.hole, _doubled(small, scale.size), large)
        for small, large in ((coarse.image, scale.image), (coarse.texture, scale.texture))
    )
    larger = _completion(scale, patch_size, image, texture)
    field = coarse.field()
    larger = replace(larger, parts=tuple(replace(part, field=_carried(field, scale, part)) for part in larger.parts))
    # All patches weigh the same, as these matches have not been measured.
    return _averaged(larger, inf) if mean else _copied_singly(larger)


def improve(completion: Completion, means: int, copies: int, seed: int) -> Completion:
    """Alternate searches and votes: first for the mean of the patches, then for copies of single pixels.

    Without copies the best matches decide in the last mean, so that texture stays sharp.
    """
    for time in range(means + copies):
        parts = tuple(replace(part, field=_searched(completion, part, seed + time)) for part in completion.parts)
        completion = replace(completion, parts=parts)
        if time >= means:
            completion = _copied(completion)
        else:
            last = time == means - 1 and not copies
            completion = _averaged(completion, LAST_TEMPERATURE_FACTOR if last else 1.0)
    return completion


def joined(under: MatchField | None, over: MatchField) -> MatchField:
    """Merge two fields: matches of `over` take precedence."""
    if under is None:
        return over
    index, similarity = (
        torch.where(over.index >= 0, above, below)
        for above, below in ((over.index, under.index), (over.similarity, under.similarity))
    )
    return MatchField(index, similarity, over.key_shape)


def _completion(scale: PyramidLevel, patch_size: int, image: Tensor, texture: Tensor) -> Completion:
    touched = dilated(scale.hole, 2 * (patch_size // 2))[0, 0]
    parts = tuple(Part(rows, columns) for rows, columns in bounding_boxes(touched))
    everything = Part(slice(0, scale.size[0]), slice(0, scale.size[1]))
    key = _features(scale.image, scale.texture, scale.guide, everything, scale.size)
    value = torch.cat([scale.image, scale.texture, torch.ones_like(scale.image[:, :1])], 1)
    touching, border = dilated(scale.hole, patch_size // 2), dilated(scale.hole, 1) & ~scale.hole
    return Completion(scale, patch_size, image, texture, parts, touching, border, key, value)


def _searched(completion: Completion, part: Part, seed: int) -> MatchField:
    scale = completion.scale
    started: dict[str, Any] = {}
    if part.field is not None:
        started = {"init": part.field, "method": "patchmatch", "iterations": ITERATIONS}
    return match(
        query_features(completion, part),
        completion.key,
        patch_size=completion.patch_size,
        padding_mode="replicate",
        query_mask=part.of(completion.touching)[:, 0],
        key_mask=scale.sources[:, 0],
        seed=seed,
        **started,
    )


def query_features(completion: Completion, part: Part) -> Tensor:
    """Features by which the patches of a part are compared."""
    guide = completion.scale.guide
    guide = None if guide is None else part.of(guide)
    return _features(part.of(completion.image), part.of(completion.texture), guide, part, completion.scale.size)


def _features(image: Tensor, texture: Tensor, guide: Tensor | None, part: Part, size: tuple[int, int]) -> Tensor:
    """Weighted colors, texture and position of one part of an image of `size`, and its guide."""
    row, column = (
        torch.arange(s.start, s.stop, device=image.device, dtype=image.dtype) / max(size)
        for s in (part.rows, part.columns)
    )
    place = torch.stack(torch.meshgrid(row, column, indexing="ij"))[None]
    features = [image, TEXTURE_WEIGHT * texture, POSITION_WEIGHT * place]
    return torch.cat(features if guide is None else [*features, guide], 1)


def _temperature(field: MatchField) -> float:
    costs = -field.similarity[field.index >= 0]
    if costs.numel() == 0:
        return MIN_TEMPERATURE
    return max(MIN_TEMPERATURE, float(costs.kthvalue(max(1, round(TEMPERATURE_QUANTILE * costs.numel()))).values))


def _averaged(completion: Completion, factor: float = 1.0) -> Completion:
    """Fill the hole by the mean of all patches that hold a pixel, weighted by `exp(-cost / T)`; `factor` scales T."""
    hole, image = completion.scale.hole, completion.scale.image
    mean, texture = mean_of_patches(completion, hole | completion.border, factor)
    for part in completion.parts:
        border = part.of(completion.border)
        missed = torch.where(border, part.of(image) - part.of(mean), 0)
        part.of(mean).add_(spread(missed, border, part.of(hole)))
    return replace(
        completion, image=torch.where(hole, mean, image), texture=torch.where(hole, texture, completion.texture)
    )


def mean_of_patches(completion: Completion, where: Tensor, factor: float = inf) -> tuple[Tensor, Tensor]:
    """Mean of the image and of the texture over all patches that hold a pixel, weighted by `exp(-cost / T)` where
    `factor` scales T (inf: all weigh the same); as they are where no patch does, and beside `where`."""
    channels = completion.image.shape[1]

    def votes(part: Part) -> _Content:
        assert part.field is not None
        if factor == inf:
            # Nothing to compare: one channel takes a tenth of the time of all.
            key, temperature = torch.zeros_like(completion.value[:, :1]), 1.0
            query = part.of(key)
        else:
            key, temperature = completion.key, factor * _temperature(part.field)
            query = query_features(completion, part)
        votes = patch_attention(
            query,
            key,
            completion.value,
            field=part.field,
            aggregate=True,
            patch_size=completion.patch_size,
            padding_mode="replicate",
            temperature=temperature,
        )
        return part.of(where) & (votes[:, -1:] > 0), votes[:, :channels], votes[:, channels:-1]

    return _replaced(completion, votes)


def _copied(completion: Completion) -> Completion:
    """Fill the hole with copies: each pixel comes from where most of the patches that hold it come from."""
    scale = completion.scale

    def copies(part: Part) -> _Content:
        assert part.field is not None
        hole = part.of(scale.hole)
        source = majority_vote(part.field, completion.patch_size, query_mask=hole[:, 0])
        color, texture = (values_at(plane, *source.coordinates()[0, 0, 0]) for plane in (scale.image, scale.texture))
        color = color + seam_correction(source, scale.image, color, part.of(scale.image), hole)
        return hole & (source.index[:, 0] >= 0), color, texture

    image, texture = _replaced(completion, copies)
    return replace(completion, image=image, texture=texture)


def _copied_singly(completion: Completion) -> Completion:
    """Fill the hole with copies of each pixel's own match; as it is where there is none."""
    scale = completion.scale

    def copies(part: Part) -> _Content:
        assert part.field is not None
        row, column = part.field.coordinates()[0, 0, 0]
        return (
            part.of(scale.hole) & (row >= 0),
            values_at(scale.image, row, column),
            values_at(scale.texture, row, column),
        )

    image, texture = _replaced(completion, copies)
    return replace(completion, image=image, texture=texture)


_Content = tuple[Tensor, Tensor, Tensor]
"""Where to replace, and the image and texture there."""


def _replaced(completion: Completion, content: Callable[[Part], _Content]) -> tuple[Tensor, Tensor]:
    """Image and texture with the content of every part in its place."""
    planes = completion.image.clone(), completion.texture.clone()
    for part in completion.parts:
        where, *found = content(part)
        for plane, new in zip(planes, found, strict=True):
            inside = part.of(plane)
            inside.copy_(torch.where(where, new, inside))
    return planes


def _carried(coarse: MatchField, scale: PyramidLevel, part: Part) -> MatchField:
    """Upsample a coarse field to a part of this level; no match where there was none or it is not allowed here."""
    device, width = scale.image.device, scale.size[1]
    fine = [torch.arange(s.start, s.stop, device=device) for s in (part.rows, part.columns)]
    parents = [(at // 2).clamp(max=n - 1) for at, n in zip(fine, coarse.query_shape, strict=True)]
    rows, columns = parents[0][:, None], parents[1]
    matches = coarse.coordinates()[0, 0, 0][:, rows, columns]
    row, column = 2 * matches[0] + fine[0][:, None] % 2, 2 * matches[1] + fine[1] % 2
    matched = (coarse.index[0, 0, 0][rows, columns] >= 0) & (row < scale.size[0]) & (column < width)
    flat = torch.where(matched, row * width + column, 0)
    matched &= scale.sources.flatten()[flat]
    index = torch.where(matched, flat, -1).int()[None, None, None]
    return MatchField(index, torch.where(index >= 0, 0.0, -inf), scale.size)


def _doubled(image: Tensor, size: tuple[int, int]) -> Tensor:
    return image.repeat_interleave(2, 2).repeat_interleave(2, 3)[:, :, : size[0], : size[1]]
