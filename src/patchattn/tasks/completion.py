"""A hole completed at one scale: search for every patch that touches it, vote, and again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from typing import Any

import torch
from torch import Tensor

from patchattn.attention import patch_attention
from patchattn.field import MatchField
from patchattn.matching import match
from patchattn.tasks.boxes import boxes
from patchattn.tasks.scales import Scale, dilated
from patchattn.tasks.smooth_fill import smooth_fill

__all__ = ["Completion", "Effort", "begin", "enlarge", "improve"]

TEXTURE = 0.3
"""What a difference of texture weighs beside one of color."""
NEARNESS = 0.1
"""What a distance of the whole picture's longer side weighs beside black against white: of equal patches, near ones are
copied, which lie in the same light."""
SHARE = 0.75
"""Of all patches so many weigh at least 1 / e in a vote: the temperature is this quantile of their costs (Newson et al.
2014)."""
SHARPER = 0.2
"""What the temperature is multiplied with in the last vote, so that better matches decide and texture stays sharp."""
FITTED = 0.7
"""How much of what votes miss the pixels beside the hole by is made good inside."""
ITERATIONS = 1
"""Of a search that starts from the field of the one before. More find better fits, which are blander."""
COLDEST, HOTTER = 1e-4, 1e30
"""The least temperature, as a hole may fit perfectly; and what it is multiplied with for all votes to be alike."""


@dataclass(frozen=True)
class Effort:
    """How much is done."""

    first: int
    """Searches and votes at the smallest scale, where the shape of things is decided."""
    others: int
    """At the scales between."""
    last: int
    """At full size."""
    thin: int
    """In parts of the hole narrower than a patch, at full size alone."""
    narrow: int
    """In parts about as wide as a patch, the same."""


@dataclass(frozen=True)
class Part:
    """A rectangle of a scale: patches that touch the hole, and all pixels that they hold."""

    rows: slice
    columns: slice
    field: MatchField | None = None
    """The match of every patch of the rectangle that touches the hole."""

    def of(self, image: Tensor) -> Tensor:
        return image[..., self.rows, self.columns]


@dataclass(frozen=True)
class Completion:
    """A scale with its hole filled."""

    scale: Scale
    patch_size: int
    picture: Tensor
    texture: Tensor
    parts: tuple[Part, ...]
    """Apart from each other: what happens in one changes nothing in another."""
    key: Tensor
    """What patches of the whole scale are compared by."""
    value: Tensor
    """What they bring: colors, texture, and 1, so that votes are counted."""

    def field(self) -> MatchField:
        """The match of every patch of the scale that touches the hole; -1 elsewhere."""
        size = self.scale.size
        index = torch.full((1, 1, 1, *size), -1, dtype=torch.int32, device=self.picture.device)
        similarity = torch.full(index.shape, -inf, device=self.picture.device, dtype=self.picture.dtype)
        for part in self.parts:
            assert part.field is not None
            part.of(index).copy_(part.field.index)
            part.of(similarity).copy_(part.field.similarity)
        return MatchField(index, similarity, size)


def begin(scale: Scale, patch_size: int) -> Completion:
    """Fill the hole smoothly."""
    filled, texture = (smooth_fill(image, scale.hole) for image in (scale.picture, scale.texture))
    return _completion(scale, patch_size, filled, texture)


def enlarge(coarse: Completion, scale: Scale) -> Completion:
    """Carry a completion to the next larger scale: every match becomes four, whose votes fill the hole."""
    picture, texture = (
        torch.where(scale.hole, _doubled(small, scale.size), large)
        for small, large in ((coarse.picture, scale.picture), (coarse.texture, scale.texture))
    )
    larger = _completion(scale, coarse.patch_size, picture, texture)
    field = coarse.field()
    parts = tuple(replace(part, field=_carried(field, scale, part)) for part in larger.parts)
    # All votes alike: these matches have not been measured.
    return _voted(replace(larger, parts=parts), HOTTER)


def improve(completion: Completion, times: int, seed: int, *, sharpen: bool) -> Completion:
    """Search and vote so many times; with `sharpen` the best matches decide in the last vote."""
    for time in range(times):
        parts = tuple(replace(part, field=_searched(completion, part, seed + time)) for part in completion.parts)
        last = sharpen and time == times - 1
        completion = _voted(replace(completion, parts=parts), SHARPER if last else 1.0)
    return completion


def _completion(scale: Scale, patch_size: int, picture: Tensor, texture: Tensor) -> Completion:
    touched = dilated(scale.hole, 2 * (patch_size // 2))[0, 0]
    parts = tuple(Part(rows, columns) for rows, columns in boxes(touched))
    everything = Part(slice(0, scale.size[0]), slice(0, scale.size[1]))
    key = _features(scale.picture, scale.texture, everything, scale.size)
    value = torch.cat([scale.picture, scale.texture, torch.ones_like(scale.picture[:, :1])], 1)
    return Completion(scale, patch_size, picture, texture, parts, key, value)


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
    return _features(part.of(completion.picture), part.of(completion.texture), part, completion.scale.size)


def _features(picture: Tensor, texture: Tensor, part: Part, size: tuple[int, int]) -> Tensor:
    """Colors, texture and place, weighted; `picture` is that part of a picture of `size`."""
    row, column = (
        torch.arange(s.start, s.stop, device=picture.device, dtype=picture.dtype) / max(size)
        for s in (part.rows, part.columns)
    )
    place = torch.stack(torch.meshgrid(row, column, indexing="ij"))[None]
    return torch.cat([picture, TEXTURE * texture, NEARNESS * place], 1)


def _temperature(field: MatchField) -> float:
    costs = -field.similarity[field.index >= 0]
    if costs.numel() == 0:
        return COLDEST
    return max(COLDEST, float(costs.kthvalue(max(1, round(SHARE * costs.numel()))).values))


def _voted(completion: Completion, factor: float) -> Completion:
    """Fill the hole with the votes of the matches of all patches that hold a pixel; `factor`: of the temperature."""
    scale = completion.scale
    picture, texture = completion.picture.clone(), completion.texture.clone()
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
        channels = scale.picture.shape[1]
        hole, heard = part.of(scale.hole), votes[:, -1:] > 0
        color = _fitted(votes[:, :channels], part.of(scale.picture), hole, heard)
        for image, voted in ((picture, color), (texture, votes[:, channels:-1])):
            inside = part.of(image)
            inside.copy_(torch.where(hole & heard, voted, inside))
    return replace(completion, picture=picture, texture=texture)


def _fitted(votes: Tensor, known: Tensor, hole: Tensor, heard: Tensor) -> Tensor:
    """Votes for pixels of the hole, shifted by a membrane over what they miss those at its border by.

    As in gradient-domain cloning (Perez et al. 2003): what patches say of differences holds, the light comes from the
    surroundings. Not all of it, as a patch that misses the border by its structure would bleed into the hole.
    """
    border = dilated(hole, 1) & ~hole & heard
    missed = torch.where(border, known - votes, 0)
    return votes + FITTED * smooth_fill(missed, ~border, needed=hole)


def _carried(coarse: MatchField, scale: Scale, part: Part) -> MatchField:
    """The coarse field in a part of this scale; no match where there was none, or one that may not be copied here."""
    device, width = scale.picture.device, scale.size[1]
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
