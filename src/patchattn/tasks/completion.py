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
from patchattn.tasks.scales import Scale, dilated
from patchattn.tasks.smooth_fill import smooth_fill

__all__ = ["Completion", "Effort", "begin", "enlarge", "improve"]

TEXTURE = 0.3
"""What a difference of texture weighs beside one of colour."""
NEARNESS = 0.1
"""What a distance of the whole picture's longer side weighs beside black against white: of equal patches, near ones are
copied, which lie in the same light."""
SHARE = 0.75
"""Of all patches so many weigh at least 1 / e in a vote: the temperature is this quantile of their costs (Newson et al.
2014)."""
SHARPER = 0.05
"""What the temperature is multiplied with in the last vote, so that the best match decides and texture stays sharp."""
COLDEST, HOTTEST = 1e-4, 1e30
"""The least temperature, as a hole may fit perfectly; and one at which all votes are alike."""


@dataclass(frozen=True)
class Effort:
    """How much is done."""

    first: int
    """Searches and votes at the smallest scale, where the shape of things is decided."""
    others: int
    """At every other scale."""
    iterations: int
    """Of each search; it starts from the field of the one before."""


@dataclass(frozen=True)
class Region:
    """The part of a scale that has to do with its hole."""

    rows: slice
    columns: slice

    def of(self, image: Tensor) -> Tensor:
        return image[..., self.rows, self.columns]


@dataclass(frozen=True)
class Completion:
    """A scale with its hole filled."""

    scale: Scale
    patch_size: int
    picture: Tensor
    texture: Tensor
    region: Region
    key: Tensor
    """What patches of the whole scale are compared by."""
    field: MatchField | None = None
    """The match of every patch of the region that touches the hole."""


def begin(scale: Scale, patch_size: int) -> Completion:
    """Fill the hole smoothly."""
    filled, texture = (smooth_fill(image, scale.hole) for image in (scale.picture, scale.texture))
    key = _features(scale.picture, scale.texture)
    return Completion(scale, patch_size, filled, texture, _region(scale, patch_size), key)


def enlarge(coarse: Completion, scale: Scale) -> Completion:
    """Carry a completion to the next larger scale: every match becomes four, whose votes fill the hole."""
    region, key = _region(scale, coarse.patch_size), _features(scale.picture, scale.texture)
    picture, texture = (
        torch.where(scale.hole, _doubled(small, scale.size), large)
        for small, large in ((coarse.picture, scale.picture), (coarse.texture, scale.texture))
    )
    larger = Completion(scale, coarse.patch_size, picture, texture, region, key)
    # All votes alike: these matches have not been measured.
    return _voted(larger, _carried(coarse, scale, region), HOTTEST)


def improve(completion: Completion, times: int, iterations: int, seed: int, *, sharpen: bool) -> Completion:
    """Search and vote so many times; with `sharpen` the best matches decide in the last vote."""
    scale, region = completion.scale, completion.region
    masks: dict[str, Any] = {
        "query_mask": region.of(dilated(scale.hole, completion.patch_size // 2))[:, 0],
        "key_mask": scale.sources[:, 0],
    }
    for time in range(times):
        started: dict[str, Any] = {}
        if completion.field is not None:
            started = {"init": completion.field, "method": "patchmatch", "iterations": iterations}
        field = match(
            _query(completion), completion.key, patch_size=completion.patch_size, padding_mode="replicate",
            seed=seed + time, **masks, **started,
        )  # fmt: skip
        temperature = _temperature(field)
        if sharpen and time == times - 1:
            temperature *= SHARPER
        completion = _voted(completion, field, temperature)
    return completion


def _region(scale: Scale, patch_size: int) -> Region:
    """All patches that touch the hole, and the pixels that they hold."""
    touched = dilated(scale.hole, 2 * (patch_size // 2))[0, 0]
    rows, columns = (touched.any(dim).nonzero()[:, 0] for dim in (1, 0))
    return Region(*(slice(int(found[0]), int(found[-1]) + 1) for found in (rows, columns)))


def _query(completion: Completion) -> Tensor:
    return completion.region.of(_features(completion.picture, completion.texture))


def _features(picture: Tensor, texture: Tensor) -> Tensor:
    """Colours, texture and place, weighted."""
    size = picture.shape[2:]
    row, column = (torch.arange(n, device=picture.device, dtype=picture.dtype) / max(size) for n in size)
    place = torch.stack(torch.meshgrid(row, column, indexing="ij"))[None]
    return torch.cat([picture, TEXTURE * texture, NEARNESS * place], 1)


def _temperature(field: MatchField) -> float:
    costs = -field.similarity[field.index >= 0]
    return max(COLDEST, float(costs.kthvalue(max(1, round(SHARE * costs.numel()))).values))


def _voted(completion: Completion, field: MatchField, temperature: float) -> Completion:
    """Fill the hole with the votes of the matches of all patches that hold a pixel."""
    scale, region = completion.scale, completion.region
    values = torch.cat([scale.picture, scale.texture, torch.ones_like(scale.picture[:, :1])], 1)
    votes = patch_attention(
        _query(completion),
        completion.key,
        values,
        field=field,
        aggregate=True,
        patch_size=completion.patch_size,
        padding_mode="replicate",
        temperature=temperature,
    )
    channels = scale.picture.shape[1]
    heard = region.of(scale.hole) & (votes[:, -1:] > 0)
    picture, texture = completion.picture.clone(), completion.texture.clone()
    for image, voted in ((picture, votes[:, :channels]), (texture, votes[:, channels:-1])):
        part = region.of(image)
        part.copy_(torch.where(heard, voted, part))
    return replace(completion, picture=picture, texture=texture, field=field)


def _carried(coarse: Completion, scale: Scale, region: Region) -> MatchField:
    """The coarse field at this scale; a patch has no match if it had none there, or one that may not be copied here."""
    assert coarse.field is not None
    device = scale.picture.device
    width = scale.size[1]
    fine = [torch.arange(s.start, s.stop, device=device) for s in (region.rows, region.columns)]
    starts = coarse.region.rows.start, coarse.region.columns.start
    shape = coarse.field.query_shape
    inside, parent = [], []
    for position, start, extent in zip(fine, starts, shape, strict=True):
        at = position // 2 - start
        inside.append((at >= 0) & (at < extent))
        parent.append(at.clamp(0, extent - 1))
    rows, columns = parent[0][:, None], parent[1]
    matches = coarse.field.coordinates()[0, 0, 0][:, rows, columns]
    row, column = 2 * matches[0] + fine[0][:, None] % 2, 2 * matches[1] + fine[1] % 2
    matched = (coarse.field.index[0, 0, 0][rows, columns] >= 0) & inside[0][:, None] & inside[1]
    matched &= (row < scale.size[0]) & (column < width)
    flat = torch.where(matched, row * width + column, 0)
    matched &= scale.sources.flatten()[flat]
    index = torch.where(matched, flat, -1).int()[None, None, None]
    return MatchField(index, torch.where(index >= 0, 0.0, -inf), scale.size)


def _doubled(image: Tensor, size: tuple[int, int]) -> Tensor:
    return image.repeat_interleave(2, 2).repeat_interleave(2, 3)[:, :, : size[0], : size[1]]
