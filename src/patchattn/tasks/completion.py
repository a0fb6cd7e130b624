"""Patch-based completion of a hole at one pyramid level: search and vote alternate."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from typing import Any

import torch
from torch import Tensor

from patchattn.attention import patch_attention
from patchattn.field import MatchField
from patchattn.matching import match
from patchattn.tasks.bounding_boxes import bounding_boxes
from patchattn.tasks.membrane import membrane_interpolation
from patchattn.tasks.pyramid import PyramidLevel, dilated

__all__ = ["Completion", "Effort", "begin", "enlarge", "improve"]

TEXTURE_WEIGHT = 0.3
"""Weight of texture differences relative to color differences."""
POSITION_WEIGHT = 0.1
"""Weight of spatial distance (in units of the image's longer side) against color distance: of equal patches, near ones
are copied, which share the illumination."""
TEMPERATURE_QUANTILE = 0.75
"""Quantile of the patch costs that is used as the temperature (Newson et al. 2014)."""
FINAL_TEMPERATURE_FACTOR = 0.2
"""Factor of the temperature in the last vote, so that the best matches decide and texture stays sharp."""
SEAM_CORRECTION = 0.7
"""Share of the seam residual that is corrected inside the hole."""
ITERATIONS = 1
"""Iterations of a search that starts from the previous field. More find better matches, but blander ones."""
MIN_TEMPERATURE, UNIFORM_FACTOR = 1e-4, 1e30
"""Smallest temperature, as all costs may be 0; and the factor that makes all votes weigh the same."""


@dataclass(frozen=True)
class Effort:
    """Numbers of search-and-vote iterations."""

    first: int
    """Iterations at the coarsest level, where the structure is decided."""
    others: int
    """Iterations at the levels between."""
    last: int
    """Iterations at full size."""
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
    """Match of every patch in the rectangle that touches the hole."""

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


def enlarge(coarse: Completion, scale: PyramidLevel) -> Completion:
    """Upsample a completion to the next finer level: every match becomes four, whose votes fill the hole."""
    image, texture = (
        torch.where(scale.hole, _doubled(small, scale.size), large)
        for small, large in ((coarse.image, scale.image), (coarse.texture, scale.texture))
    )
    larger = _completion(scale, coarse.patch_size, image, texture)
    field = coarse.field()
    parts = tuple(replace(part, field=_carried(field, scale, part)) for part in larger.parts)
    # All votes alike: these matches have not been measured.
    return _voted(replace(larger, parts=parts), UNIFORM_FACTOR)


def improve(completion: Completion, times: int, seed: int, *, sharpen: bool) -> Completion:
    """Alternate searches and votes `times` times; with `sharpen`, the best matches decide in the last vote."""
    for time in range(times):
        parts = tuple(replace(part, field=_searched(completion, part, seed + time)) for part in completion.parts)
        last = sharpen and time == times - 1
        completion = _voted(replace(completion, parts=parts), FINAL_TEMPERATURE_FACTOR if last else 1.0)
    return completion


def _completion(scale: PyramidLevel, patch_size: int, image: Tensor, texture: Tensor) -> Completion:
    touched = dilated(scale.hole, 2 * (patch_size // 2))[0, 0]
    parts = tuple(Part(rows, columns) for rows, columns in bounding_boxes(touched))
    everything = Part(slice(0, scale.size[0]), slice(0, scale.size[1]))
    key = _features(scale.image, scale.texture, everything, scale.size)
    value = torch.cat([scale.image, scale.texture, torch.ones_like(scale.image[:, :1])], 1)
    return Completion(scale, patch_size, image, texture, parts, key, value)


def _searched(completion: Completion, part: Part, seed: int) -> MatchField:
    scale = completion.scale
    started: dict[str, Any] = {}
    if part.field is not None:
        started = {"init": part.field, "method": "patchmatch", "iterations": ITERATIONS}
    return match(
        _query(completion, part),
        completion.key,
        patch_size=completion.patch_size,
        padding_mode="replicate",
        query_mask=part.of(dilated(scale.hole, completion.patch_size // 2))[:, 0],
        key_mask=scale.sources[:, 0],
        seed=seed,
        **started,
    )


def _query(completion: Completion, part: Part) -> Tensor:
    return _features(part.of(completion.image), part.of(completion.texture), part, completion.scale.size)


def _features(image: Tensor, texture: Tensor, part: Part, size: tuple[int, int]) -> Tensor:
    """Weighted colors, texture and position of one part of an image of `size`."""
    row, column = (
        torch.arange(s.start, s.stop, device=image.device, dtype=image.dtype) / max(size)
        for s in (part.rows, part.columns)
    )
    place = torch.stack(torch.meshgrid(row, column, indexing="ij"))[None]
    return torch.cat([image, TEXTURE_WEIGHT * texture, POSITION_WEIGHT * place], 1)


def _temperature(field: MatchField) -> float:
    costs = -field.similarity[field.index >= 0]
    if costs.numel() == 0:
        return MIN_TEMPERATURE
    return max(MIN_TEMPERATURE, float(costs.kthvalue(max(1, round(TEMPERATURE_QUANTILE * costs.numel()))).values))


def _voted(completion: Completion, factor: float) -> Completion:
    """Fill the hole by the votes of all patches that hold a pixel; `factor` scales the temperature."""
    scale = completion.scale
    image, texture = completion.image.clone(), completion.texture.clone()
    for part in completion.parts:
        assert part.field is not None
        votes = patch_attention(
            _query(completion, part),
            completion.key,
            completion.value,
            field=part.field,
            aggregate=True,
            patch_size=completion.patch_size,
            padding_mode="replicate",
            temperature=factor * _temperature(part.field),
        )
        channels = scale.image.shape[1]
        hole, heard = part.of(scale.hole), votes[:, -1:] > 0
        color = _fitted(votes[:, :channels], part.of(scale.image), hole, heard)
        for plane, voted in ((image, color), (texture, votes[:, channels:-1])):
            inside = part.of(plane)
            inside.copy_(torch.where(hole & heard, voted, inside))
    return replace(completion, image=image, texture=texture)


def _fitted(votes: Tensor, known: Tensor, hole: Tensor, heard: Tensor) -> Tensor:
    """Correct the seam: shift votes by a membrane over their residual at the hole's border.

    As in gradient-domain cloning (Perez et al. 2003): what patches say of differences holds, the light comes from the
    surroundings. Not all of it, as a patch that misses the border by its structure would bleed into the hole.
    """
    border = dilated(hole, 1) & ~hole & heard
    missed = torch.where(border, known - votes, 0)
    return votes + SEAM_CORRECTION * membrane_interpolation(missed, ~border, needed=hole)


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
